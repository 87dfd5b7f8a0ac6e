//! RDB, the file a Redis or Valkey server saves itself as: read while it streams by, in memory that does not grow
//! with it.
//!
//! The bytes may come from anywhere, so every length is only ever a number of bytes to pass over; what is kept
//! (names of keys, if somebody asks for them) grows with bytes that came, never with bytes announced.
//! [`Reader::finish`] says Ok only for a whole file whose checksum is right.

pub mod kinds;
pub mod lzf;
mod number;
pub mod reader;
pub mod tally;
#[cfg(test)]
mod tests;

pub use reader::Reader;
pub use tally::Tally;

/// Bytes that are no whole RDB.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RdbError {
    #[error("not an RDB: it begins with {0:?}")]
    Magic(String),
    #[error("RDB version {0} is older than Redis 2.6 and has no checksum to prove it by")]
    TooOld(u32),
    #[error("the RDB ends after {at} bytes, in the middle")]
    Truncated { at: u64 },
    #[error("the RDB is damaged near byte {at}: {what}")]
    Corrupt { at: u64, what: &'static str },
    #[error("the RDB's checksum is {written:016x} but its bytes make {computed:016x}")]
    Checksum { written: u64, computed: u64 },
    #[error("cannot write {what}: {cause}")]
    Sink { what: &'static str, cause: String },
}

/// What a value belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub database: u64,
    /// The type byte, as a `DUMP` payload begins with it.
    pub kind: u8,
    /// Milliseconds since 1970 by the server's clock.
    pub expires_ms: Option<i64>,
    /// Empty unless the sink wants values.
    pub name: Vec<u8>,
}

/// One thing an RDB holds besides what it says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Key(&'a Key),
    /// A library of functions.
    Function,
}

/// Takes what an RDB holds, item after item: its beginning, its bytes as they stand in the file, its end.
pub trait Sink {
    /// Whether names and bytes are wanted at all.
    const VALUES: bool;

    /// # Errors
    /// The item cannot be taken: reading ends with this error.
    fn begin(&mut self, item: Item<'_>) -> Result<(), RdbError>;

    /// # Errors
    /// As [`Self::begin`].
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), RdbError>;

    /// # Errors
    /// As [`Self::begin`].
    fn end(&mut self) -> Result<(), RdbError>;
}

/// For those who only count.
pub struct Nothing;

impl Sink for Nothing {
    const VALUES: bool = false;

    fn begin(&mut self, _: Item<'_>) -> Result<(), RdbError> {
        Ok(())
    }

    fn bytes(&mut self, _: &[u8]) -> Result<(), RdbError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), RdbError> {
        Ok(())
    }
}

/// For tests and fuzzing: bytes read whole and in small pieces must come to the same.
pub fn reads_alike(bytes: &[u8]) {
    let read = |step: usize| {
        let mut reader = Reader::new(0);
        for piece in bytes.chunks(step) {
            reader.feed(piece, &mut Nothing)?;
        }
        reader.finish()
    };
    let whole = read(bytes.len().max(1));
    for step in [1, 3, 64] {
        // Where an error is noticed may differ; that there is one may not.
        assert_eq!(read(step).ok(), whole.clone().ok(), "in pieces of {step}");
    }
}
