//! RDB files built by hand, fed in pieces of every size.

use super::*;
use crate::source::redis::crc64;

/// What came of each item: its key or `function`, and the bytes as they stood.
#[derive(Default)]
struct Recorded {
    items: Vec<(Key, bool, Vec<u8>)>,
    ended: usize,
}

impl Sink for Recorded {
    const VALUES: bool = true;

    fn begin(&mut self, item: Item<'_>) -> Result<(), RdbError> {
        self.items.push(match item {
            Item::Key(key) => (key.clone(), false, Vec::new()),
            Item::Function => (Key::default(), true, Vec::new()),
        });
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), RdbError> {
        self.items.last_mut().unwrap().2.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<(), RdbError> {
        self.ended += 1;
        Ok(())
    }
}

fn text(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// The file around `body`.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut file = [b"REDIS0010", body, &[0xff]].concat();
    file.extend(crc64::update(0, &file).to_le_bytes());
    file
}

fn sample() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend([&[0xfa][..], &text(b"ctime"), &[0xc2], &1_700_000_000_i32.to_le_bytes()].concat());
    body.extend([&[0xf5][..], &text(b"#!lua name=x\n")].concat());
    body.extend([0xfe, 0, 0xfb, 3, 1]);
    body.extend([&[0][..], &text(b"plain"), &text(b"value")].concat());
    // A key that is a number, with an expiry and an idle time.
    let expiry = 1_000_000_i64.to_le_bytes();
    body.extend(
        [&[0xfc][..], &expiry, &[0xf8, 0x41, 0, 4, 0xc0, 0xfb, 1], &text(b"f"), &text(b"v")].concat(),
    );
    // A packed key ("ab" over and over), an empty list.
    body.extend([1, 0xc3, 6, 11, 1, b'a', b'b', 0xe0, 0, 1, 0]);
    body.extend([0xfe, 0x80, 0, 0, 1, 0]);
    // A module's value of every piece there is.
    let id = (0..9).fold(0_u64, |id, letter| id << 6 | letter) << 10 | 3;
    let mut module = vec![7, 1, b'm', 0x81];
    module.extend(id.to_be_bytes());
    module.extend([1, 5, 2, 6, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, b'x', 0]);
    body.extend(module);
    body.extend([&[3][..], &text(b"z"), &[2], &text(b"a"), &[253], &text(b"b"), &[3], b"1.5"].concat());
    sealed(&body)
}

fn read(file: &[u8], step: usize) -> Result<(Tally, Recorded), RdbError> {
    let (mut reader, mut recorded) = (Reader::new(2_000_000), Recorded::default());
    for piece in file.chunks(step) {
        reader.feed(piece, &mut recorded)?;
    }
    Ok((reader.finish()?, recorded))
}

#[test]
fn every_cut_of_the_stream_gives_the_same_items_and_counts() {
    let file = sample();
    let (tally, whole) = read(&file, file.len()).unwrap();
    assert_eq!((tally.version, tally.keys(), tally.functions), (10, 5, 1));
    assert_eq!(tally.databases.keys().copied().collect::<Vec<_>>(), [0, 256]);
    assert_eq!(tally.created_seconds(), Some(1_700_000_000));
    assert_eq!(tally.databases[&0].expired_by(2_000), 1);
    assert_eq!(tally.modules.first().map(String::as_str), Some("ABCDEFGHI"));
    assert!(tally.checksummed && tally.is_assertable());
    let names: Vec<&[u8]> = whole.items.iter().map(|(key, ..)| key.name.as_slice()).collect();
    assert_eq!(names, [b"".as_slice(), b"plain", b"-5", b"abababababa", b"m", b"z"]);
    assert_eq!(whole.items[1].2, text(b"value"));
    assert_eq!((whole.items[2].0.kind, whole.items[2].0.expires_ms), (4, Some(1_000_000)));
    assert_eq!(whole.items[3].0.expires_ms, None);
    assert_eq!(whole.ended, 6);
    for step in 1..file.len() {
        let (again, recorded) = read(&file, step).unwrap();
        assert_eq!(again, tally, "{step}");
        assert_eq!(recorded.items, whole.items, "{step}");
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let file = sample();
    for end in 0..file.len() {
        assert!(read(&file[..end], 7).is_err(), "cut at {end}");
    }
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(read(&flipped, 64).is_err(), "flipped at {at}");
    }
    assert!(read(&[file.as_slice(), b"x"].concat(), 9).is_err(), "something follows");
}

#[test]
fn a_type_that_is_not_known_ends_the_counting_and_keeps_the_proof() {
    let file = sealed(&[&[0][..], &text(b"k"), &text(b"v"), &[0x55, 1, 2, 3]].concat());
    let (tally, _) = read(&file, 5).unwrap();
    assert_eq!((tally.keys(), tally.unknown), (1, Some((14, 0x55))));
    assert!(!tally.is_assertable());
    let mut flipped = file.clone();
    flipped[16] ^= 1;
    assert!(matches!(read(&flipped, 5), Err(RdbError::Checksum { .. })));
}

#[test]
fn a_file_without_a_checksum_is_told_apart() {
    let mut file = sample();
    let trailer = file.len() - 8;
    file[trailer..].fill(0);
    assert!(!read(&file, 100).unwrap().0.checksummed);
}

#[test]
fn other_files_and_old_ones_are_named() {
    assert!(matches!(read(b"SQLite format 3\0", 16), Err(RdbError::Magic(_))));
    assert!(matches!(read(b"REDIS0002\xff", 16), Err(RdbError::TooOld(2))));
    assert_eq!(read(b"VALKEY080\xff\0\0\0\0\0\0\0\0", 3).unwrap().0.version, 80);
    assert!(matches!(read(b"", 1), Err(RdbError::Truncated { at: 0 })));
}
