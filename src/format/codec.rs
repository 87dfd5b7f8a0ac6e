//! The primitives every object is written with: little-endian integers, LEB128 varints, length-prefixed bytes.
//!
//! Canonical by construction: one value has one encoding. A varint with a needless trailing zero group, or
//! bytes left over at the end of an object, are refused.

use super::id::{ChunkId, ShortId};

/// Bytes that are not what the format says. Always damage or hostility, never a reason to panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The input ended inside a value.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// A value is outside what the format allows.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// A length or count is above its bound: refused before anything is allocated.
    #[error("{what} is {value}, above the limit of {limit}")]
    TooLarge { what: &'static str, value: u64, limit: u64 },
    /// Bytes follow where the object should end.
    #[error("{0} has bytes after its end")]
    Trailing(&'static str),
    /// The object does not start with Lifeboat's magic.
    #[error("not a Lifeboat object")]
    NotLifeboat,
    /// A later version of the format, or a required feature this build does not have.
    #[error(
        "written with format version {version} and required features {features:#x}; this build reads version {supported}: a newer lifeboat is needed"
    )]
    Newer { version: u16, features: u32, supported: u16 },
    /// The unkeyed BLAKE3 at the end of a fixed-name object does not match.
    #[error("checksum does not match")]
    Checksum,
}

/// Appends values to a growing buffer.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity_bytes) }
    }
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    /// Unsigned LEB128: seven bits a byte, least significant first.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
    /// Zigzag, then LEB128.
    pub fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }
    /// Exactly these bytes, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    /// A varint length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    /// 0 for none; 1 and the value for some.
    pub fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                put(self, value);
            }
        }
    }
    /// A varint count, then each value.
    pub fn list<T>(&mut self, values: impl ExactSizeIterator<Item = T>, mut put: impl FnMut(&mut Self, T)) {
        self.varint(values.len() as u64);
        for value in values {
            put(self, value);
        }
    }
    pub fn chunk_id(&mut self, id: &ChunkId) {
        self.raw(id.as_bytes());
    }
    pub fn short_id(&mut self, id: &ShortId) {
        self.raw(id.as_bytes());
    }
}

/// Values a list has room for before the first is read.
const LIST_ROOM: usize = 4096;

/// Takes values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Decoder<'a> {
    /// `what` names the object in errors, such as "pack directory".
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
    /// The bytes not yet taken.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// What `FormatError::Invalid` should name here.
    pub fn invalid(&self) -> FormatError {
        FormatError::Invalid(self.what)
    }
    /// Errors unless everything was taken.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Trailing(self.what)) }
    }
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (head, tail) = self.rest.split_at_checked(length).ok_or(FormatError::Truncated(self.what))?;
        self.rest = tail;
        Ok(head)
    }
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Truncated(self.what))?;
        self.rest = tail;
        Ok(*head)
    }
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return Err(self.invalid());
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.invalid());
                }
                return Ok(value);
            }
        }
        Err(self.invalid())
    }
    pub fn signed(&mut self) -> Result<i64, FormatError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
    /// A varint that must not exceed `limit`; `name` says what it counts.
    pub fn bounded(&mut self, name: &'static str, limit: u64) -> Result<u64, FormatError> {
        let value = self.varint()?;
        if value > limit { Err(FormatError::TooLarge { what: name, value, limit }) } else { Ok(value) }
    }
    /// A varint that fits 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, FormatError> {
        u32::try_from(self.varint()?).map_err(|_| self.invalid())
    }
    /// Length-prefixed bytes; the length is checked against what is there before it is believed.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], FormatError> {
        let length = self.bounded(self.what, limit as u64)?;
        self.raw(length as usize)
    }
    pub fn str(&mut self, limit: usize) -> Result<String, FormatError> {
        let bytes = self.bytes(limit)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.invalid())
    }
    pub fn bool(&mut self) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid()),
        }
    }
    pub fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Option<T>, FormatError> {
        if self.bool()? { take(self).map(Some) } else { Ok(None) }
    }
    /// A counted list. `min_bytes` is the least one value can take: a count the rest cannot hold is refused
    /// before the list is allocated.
    pub fn list<T>(
        &mut self,
        min_bytes: usize,
        mut take: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let limit = (self.rest.len() / min_bytes.max(1)) as u64;
        let count = self.bounded(self.what, limit)? as usize;
        // A value in memory can be larger than its shortest encoding; the list grows only by what was really read.
        let mut values = Vec::with_capacity(count.min(LIST_ROOM));
        for _ in 0..count {
            values.push(take(self)?);
        }
        Ok(values)
    }
    pub fn chunk_id(&mut self) -> Result<ChunkId, FormatError> {
        Ok(ChunkId(self.array()?))
    }
    pub fn short_id(&mut self) -> Result<ShortId, FormatError> {
        Ok(ShortId(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varint_round_trips(value: u64, signed: i64) {
            let mut encoder = Encoder::new();
            encoder.varint(value);
            encoder.signed(signed);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes, "test");
            prop_assert_eq!(decoder.varint().unwrap(), value);
            prop_assert_eq!(decoder.signed().unwrap(), signed);
            decoder.finish().unwrap();
        }
    }

    #[test]
    fn varint_has_one_encoding() {
        for bytes in
            [&[0x80, 0x00][..], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert_eq!(Decoder::new(bytes, "test").varint(), Err(FormatError::Invalid("test")));
        }
    }

    #[test]
    fn hostile_count_is_refused_before_allocation() {
        let mut encoder = Encoder::new();
        encoder.varint(u64::MAX);
        let bytes = encoder.finish();
        let result = Decoder::new(&bytes, "test").list(16, |d| d.short_id());
        assert!(matches!(result, Err(FormatError::TooLarge { .. })));
    }
}
