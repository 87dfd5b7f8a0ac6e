//! Flipped bytes: without a key every single one is found; with a key structure finds those it reads, and
//! read-data finds all.

use bytes::Bytes;
use lifeboat::format::header::Header;
use lifeboat::store::memory::MemoryStore;

use super::build::{changed, check, check_keyless, is_pack, names, read_back, sample};

fn flip(bytes: &Bytes, at: usize, bits: u8) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= bits;
    bytes.into()
}

/// Where a pack's header ends and its directory begins.
fn edges(pack: &Bytes) -> (usize, usize) {
    let (header, length) = Header::decode(pack).unwrap();
    (length, header.directory_offset as usize)
}

#[tokio::test]
async fn without_a_key_every_flipped_byte_is_found() {
    for (name, bytes) in &sample().objects {
        let (head, tail) = if is_pack(name) { edges(bytes) } else { (bytes.len(), bytes.len()) };
        let middle = (head..tail).step_by(997);
        // Every byte of headers, directories and small objects; a pack is hashed whole for each.
        let step = if is_pack(name) { 7 } else { 1 };
        for at in (0..head).chain(middle).chain((tail..bytes.len()).step_by(step)) {
            let memory = MemoryStore::from_snapshot([(name.clone(), flip(bytes, at, 0x10))].into());
            let outcome = check_keyless(&memory).await;
            assert!(outcome.damaged + outcome.newer == 1, "{name} byte {at}: {outcome:?}");
            assert_eq!(outcome.findings[0].object, *name);
        }
    }
}

#[tokio::test]
async fn structure_finds_a_flipped_byte_in_everything_but_blocks() {
    let mut turn = 0usize;
    for (name, bytes) in &sample().objects {
        let places: Vec<usize> = if is_pack(name) {
            let (head, tail) = edges(bytes);
            (0..head).step_by(23).chain((tail..bytes.len()).step_by(211)).collect()
        } else {
            // Another residue for each object, so that together they meet every field.
            turn += 1;
            (turn % 19..bytes.len()).step_by(bytes.len().div_ceil(40).max(19)).collect()
        };
        for at in places {
            let memory = changed(|objects| drop(objects.insert(name.clone(), flip(bytes, at, 0x01))));
            let result = check(&memory, false).await;
            // Before a slot is told damaged from a wrong key, its salt and commitment are just another key's.
            let is_other_key = name.starts_with("slots/") && result.is_err();
            let is_keyring = name.starts_with("keyring/") && names(&result, "keyring/0");
            assert!(
                names(&result, name) || is_other_key || is_keyring,
                "{name} byte {at}: {:?}",
                result.map(|outcome| outcome.findings)
            );
        }
    }
}

#[tokio::test]
async fn read_data_finds_a_flipped_byte_in_any_block_and_no_reader_returns_it() {
    for (turn, (name, bytes)) in sample().objects.iter().filter(|(name, _)| is_pack(name)).enumerate() {
        let (head, tail) = edges(bytes);
        for at in (head + turn * 41..tail).step_by((tail - head) / 3 + 1) {
            let memory = changed(|objects| drop(objects.insert(name.clone(), flip(bytes, at, 0x80))));
            let result = check(&memory, true).await;
            assert!(names(&result, name), "{name} byte {at}: {result:?}");
            read_back(&memory).await;
        }
    }
}

#[tokio::test]
async fn a_reader_never_returns_other_bytes_whatever_object_is_flipped() {
    for (turn, (name, bytes)) in sample().objects.iter().enumerate() {
        let at = (turn * 7919) % bytes.len();
        let memory = changed(|objects| drop(objects.insert(name.clone(), flip(bytes, at, 0x04))));
        read_back(&memory).await;
    }
}
