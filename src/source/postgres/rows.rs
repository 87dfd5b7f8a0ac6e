//! Rows of COPY's text format, counted and hashed while they pass: equal sums mean the same rows in any order.
//!
//! In this format a newline ends a row and stands nowhere else, so rows need not be understood to be told apart.
//! A table's hash is the sum, modulo 2^128, of the first 16 bytes of each row's BLAKE3; it is against accidents,
//! not against somebody who writes rows to fool it.

use memchr::memchr;

/// What ends the rows within an archive; a row that reads like this is written with a second backslash.
const END: &[u8] = br"\.";

/// Rows seen so far. Feed the bytes of one table in any pieces.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    count: u64,
    size_bytes: u64,
    sum: u128,
    open: Option<Open>,
    ended: bool,
}

/// A row whose end has not come yet.
#[derive(Clone, Debug)]
struct Open {
    hasher: blake3::Hasher,
    length: u64,
    head: [u8; 2],
}

/// All rows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowSum {
    pub rows: u64,
    /// Bytes of the rows in text, without their newlines.
    pub size_bytes: u64,
    pub hash: u128,
}

impl RowSum {
    /// Takes other rows of the same table in.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.size_bytes += other.size_bytes;
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

/// A hash as a summand.
pub fn short(hash: &blake3::Hash) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(first)
}

impl Rows {
    /// Takes some bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let Some(end) = memchr(b'\n', bytes) else { return self.keep(bytes) };
            let (row, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.open.is_some() {
                self.keep(row);
                self.close();
            } else if row == END {
                self.ended = true;
            } else {
                self.add(row.len() as u64, short(&blake3::hash(row)));
            }
        }
    }

    fn add(&mut self, length: u64, hash: u128) {
        self.count += 1;
        self.size_bytes += length;
        self.sum = self.sum.wrapping_add(hash);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let open =
            self.open.get_or_insert_with(|| Open { hasher: blake3::Hasher::new(), length: 0, head: [0; 2] });
        for (place, byte) in open.head.iter_mut().skip(open.length.min(2) as usize).zip(bytes) {
            *place = *byte;
        }
        open.hasher.update(bytes);
        open.length += bytes.len() as u64;
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.length == END.len() as u64 && open.head == END {
            self.ended = true;
        } else {
            self.add(open.length, short(&open.hasher.finalize()));
        }
    }

    /// The sum; `None` when the last row has no end.
    pub fn finish(self) -> Option<RowSum> {
        let whole = self.open.is_none();
        whole.then_some(RowSum { rows: self.count, size_bytes: self.size_bytes, hash: self.sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(pieces: &[&[u8]]) -> Option<RowSum> {
        let mut rows = Rows::default();
        pieces.iter().for_each(|piece| rows.push(piece));
        rows.finish()
    }

    #[test]
    fn rows_count_alike_in_any_pieces_and_order() {
        let whole = b"1\tone\n\n\\\\.\n22\ttwo\n\\.\n\n\n";
        let expected = sum(&[whole]).unwrap();
        assert_eq!((expected.rows, expected.size_bytes), (4, 5 + 3 + 6));
        for first in 0..whole.len() {
            for second in first..whole.len() {
                let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
                assert_eq!(sum(&pieces), Some(expected), "{first} {second}");
            }
        }
        assert_eq!(sum(&[b"22\ttwo\n1\tone\n\\\\.\n\n"]), Some(expected));
        assert_ne!(sum(&[b"22\ttwo\n1\tone\n\\\\.\n\n\n"]), Some(expected));
    }

    #[test]
    fn a_row_without_its_end_is_no_sum() {
        assert_eq!(sum(&[b"1\n2"]), None);
        assert_eq!(sum(&[]), Some(RowSum::default()));
    }
}
