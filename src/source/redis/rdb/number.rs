//! RDB's lengths and short fields, of which any part may still be to come.

/// A length, or what stands in its place before a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Plain(u64),
    /// A number in so many bytes instead of a string.
    Integer(u8),
    /// A packed string: its packed and its real length follow.
    Packed,
}

/// The length at the start of `bytes` and how many bytes it takes; `None`: more is needed.
pub fn length(bytes: &[u8]) -> Result<Option<(Length, usize)>, &'static str> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let low = first & 63;
    Ok(match (first >> 6, first) {
        (0, _) => Some((Length::Plain(low.into()), 1)),
        (1, _) => bytes.get(1).map(|&next| (Length::Plain(u64::from(low) << 8 | u64::from(next)), 2)),
        (2, 0x80) => bytes.get(1..5).map(|bytes| (Length::Plain(big_endian(bytes)), 5)),
        (2, 0x81) => bytes.get(1..9).map(|bytes| (Length::Plain(big_endian(bytes)), 9)),
        (2, _) => return Err("a length of no known form"),
        (_, _) => Some(match low {
            0 => (Length::Integer(1), 1),
            1 => (Length::Integer(2), 1),
            2 => (Length::Integer(4), 1),
            3 => (Length::Packed, 1),
            _ => return Err("a string of no known form"),
        }),
    })
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A signed number from at most eight bytes, lowest first.
pub fn little_endian(bytes: &[u8]) -> i64 {
    let mut wide = match bytes.last() {
        Some(last) if last & 0x80 != 0 => [0xff; 8],
        _ => [0; 8],
    };
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(wide)
}

/// Bytes of which a part was looked at.
pub struct Input<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }
}

/// A short field whose first bytes came earlier.
#[derive(Default)]
pub struct Partial {
    bytes: [u8; 9],
    held: usize,
}

impl Partial {
    /// The length that begins here, once all of it came.
    pub fn length(&mut self, input: &mut Input<'_>) -> Result<Option<Length>, &'static str> {
        if self.held == 0
            && let Some((length, taken)) = length(input.rest())?
        {
            input.at += taken;
            return Ok(Some(length));
        }
        while self.take_one(input) {
            if let Some((length, _)) = length(&self.bytes[..self.held])? {
                self.held = 0;
                return Ok(Some(length));
            }
        }
        Ok(None)
    }

    /// The `size` bytes (at most 9) that begin here, once they all came.
    pub fn fixed(&mut self, size: usize, input: &mut Input<'_>) -> Option<&[u8]> {
        while self.held < size {
            if !self.take_one(input) {
                return None;
            }
        }
        self.held = 0;
        Some(&self.bytes[..size])
    }

    fn take_one(&mut self, input: &mut Input<'_>) -> bool {
        match (input.bytes.get(input.at), self.bytes.get_mut(self.held)) {
            (Some(from), Some(to)) => {
                *to = *from;
                self.held += 1;
                input.at += 1;
                true
            }
            _ => false,
        }
    }
}
