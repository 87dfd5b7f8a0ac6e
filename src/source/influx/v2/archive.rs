//! Whether what a server sends for a shard is a whole tar archive: looked at while it passes, nothing is kept.
//!
//! A server that fails in the middle has said 200 before, and may well end the answer properly, with its error as the
//! last bytes. What counts is the archive's own end: two blocks of zeros, and nothing after them.

use super::said_in;

const BLOCK_BYTES: usize = 512;
/// Most bytes of an extended header that are kept.
const EXTENDED_LIMIT: usize = 64 << 10;
/// Bytes after which a stream that is no archive is not looked at further.
const TAIL_BYTES: usize = 1024;

/// Why it is no whole archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotWhole(String);

#[derive(Default)]
pub struct Archive {
    /// The block under way.
    block: Vec<u8>,
    /// Bytes of a member that still come, with what fills its last block.
    left: u64,
    /// The content of an extended header under way.
    extended: Option<Vec<u8>>,
    /// What an extended header said of the next member's size.
    size: Option<u64>,
    zeros: u8,
    /// What came behind the end, or instead of a header.
    wrong: Vec<u8>,
    /// Regular files so far.
    pub files: u64,
}

/// A number as tar writes it: octal digits, or binary when the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let is_small = high[0] == 0x80 && high[1..].iter().all(|byte| *byte == 0);
        return is_small.then(|| low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(if text.is_empty() { "0" } else { text }, 8).ok()
}

/// `size` in the records of an extended header: `LENGTH KEY=VALUE` and a line's end each.
fn size_in(records: &[u8]) -> Option<u64> {
    String::from_utf8_lossy(records).lines().find_map(|line| {
        let (_, pair) = line.split_once(' ')?;
        pair.strip_prefix("size=")?.parse().ok()
    })
}

impl Archive {
    /// Looks at what comes next.
    ///
    /// # Errors
    /// It cannot belong to an archive.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), NotWhole> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                if let Some(kept) = &mut self.extended {
                    kept.extend_from_slice(&bytes[..length]);
                }
                self.left -= length as u64;
                bytes = &bytes[length..];
                if self.left == 0
                    && let Some(kept) = self.extended.take()
                {
                    self.size = size_in(&kept).or(self.size);
                }
                continue;
            }
            if self.zeros >= 2 || !self.wrong.is_empty() {
                return self.behind(bytes);
            }
            let length = (BLOCK_BYTES - self.block.len()).min(bytes.len());
            self.block.extend_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            if self.block.len() == BLOCK_BYTES {
                let block = std::mem::take(&mut self.block);
                self.header(&block)?;
            }
        }
        Ok(())
    }

    fn header(&mut self, block: &[u8]) -> Result<(), NotWhole> {
        if block.iter().all(|byte| *byte == 0) {
            self.zeros += 1;
            return Ok(());
        }
        let spaced = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
        let sum: u64 = block.iter().enumerate().map(|(at, byte)| u64::from(spaced(at, *byte))).sum();
        if self.zeros > 0 || number(&block[148..156]) != Some(sum) {
            return self.behind(block);
        }
        let written =
            number(&block[124..136]).ok_or_else(|| NotWhole("a file in it has no length".into()))?;
        let kind = block[156];
        let size_bytes = match kind {
            b'x' | b'g' | b'L' | b'K' => written,
            _ => self.size.take().unwrap_or(written),
        };
        let left = size_bytes.checked_next_multiple_of(BLOCK_BYTES as u64);
        self.left = left.ok_or_else(|| NotWhole("a file in it has an impossible length".into()))?;
        if kind == b'x' {
            if size_bytes > EXTENDED_LIMIT as u64 {
                return Err(NotWhole("a header in it is too long".into()));
            }
            self.extended = (size_bytes > 0).then(Vec::new);
        }
        self.files += u64::from(matches!(kind, b'0' | 0));
        Ok(())
    }

    /// Behind the end only zeros may come.
    fn behind(&mut self, bytes: &[u8]) -> Result<(), NotWhole> {
        if self.wrong.is_empty() && bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        self.wrong.extend_from_slice(&bytes[..bytes.len().min(TAIL_BYTES)]);
        if self.wrong.len() >= TAIL_BYTES { Err(self.cut()) } else { Ok(()) }
    }

    fn cut(&self) -> NotWhole {
        let tail = if self.wrong.is_empty() { &self.block } else { &self.wrong };
        match said_in(tail) {
            Some(said) => NotWhole(format!("it breaks off, and the server says: {said}")),
            None if !self.wrong.is_empty() => NotWhole("what came is no tar archive".into()),
            None => NotWhole("it breaks off".into()),
        }
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// The archive has not ended, or something came behind its end.
    pub fn finish(&self) -> Result<(), NotWhole> {
        let is_whole = self.zeros >= 2 && self.wrong.is_empty() && self.left == 0 && self.block.is_empty();
        if is_whole { Ok(()) } else { Err(self.cut()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn look(bytes: &[u8], piece: usize) -> Result<u64, NotWhole> {
        let mut archive = Archive::default();
        for piece in bytes.chunks(piece) {
            archive.push(piece)?;
        }
        archive.finish().map(|()| archive.files)
    }

    #[test]
    fn an_archive_is_whole_only_with_its_end() {
        let long = format!("b/autogen/{}/1.tsm", "1".repeat(150));
        let whole = archive(&[("b/autogen/1/1.tsm", &[7; 1000]), (&long, b"x"), ("b/autogen/1/e", b"")]);
        for piece in [1, 7, 512, 4096] {
            assert_eq!(look(&whole, piece), Ok(3), "{piece}");
        }
        for length in 0..whole.len() {
            assert!(look(&whole[..length], 300).is_err(), "{length}");
        }
        assert_eq!(look(&[0; 1024], 512), Ok(0));
        assert_eq!(look(&[&whole[..], &[0; 700]].concat(), 300), Ok(3));
    }

    #[test]
    fn an_error_of_the_server_at_the_end_is_told() {
        let said = b"{\"code\":\"internal error\",\"message\":\"open: too many files\"}\n";
        let whole = archive(&[("b/autogen/1/1.tsm", &[7; 1000])]);
        for kept in [whole.len(), whole.len() - 1024, 512, 700, 0] {
            let error = look(&[&whole[..kept], said].concat(), 100).unwrap_err().to_string();
            // In the middle of a file nothing tells an error from the file.
            let is_within = kept == 512 || kept == 700;
            assert!(is_within || error.contains("the server says: open: too many files"), "{kept}: {error}");
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        assert!(look(b"<html>not found</html>", 5).is_err());
        assert!(look(&[b'x'; 100_000], 999).unwrap_err().to_string().contains("no tar archive"));
        let mut huge = archive(&[("a/b/c", b"x")]);
        // The largest length there is, and a sum that fits.
        huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        let sum: u32 =
            (0..512).map(|at| u32::from(if (148..156).contains(&at) { b' ' } else { huge[at] })).sum();
        huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(look(&huge, 512).unwrap_err().to_string().contains("impossible length"));
    }

    #[test]
    fn a_length_in_an_extended_header_counts() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("size", b"3".as_slice())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("a/b/c").unwrap();
        header.set_size(0);
        header.set_cksum();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"abc");
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        assert_eq!(look(&bytes, 77), Ok(1));
    }
}
