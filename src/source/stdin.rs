//! A stream somebody pipes into us.
//!
//! Weaker than [`super::command`] by nature: a producer that fails halfway looks like one that is done. So at
//! least the end must be reached, and an empty stream is a failure unless it is allowed.

use std::io::{self, Read};

use super::command::{Finished, StreamError};
use crate::format::entry::Timestamp;

/// A piped stream being captured.
#[derive(Debug)]
pub struct StreamSource<R> {
    reader: R,
    size_bytes: u64,
    at_end: bool,
    consistent_at: Timestamp,
    allow_empty: bool,
}

impl<R: Read> StreamSource<R> {
    /// Captures `reader`; `now` is the instant before the first read.
    pub fn new(reader: R, allow_empty: bool, now: Timestamp) -> Self {
        Self { reader, size_bytes: 0, at_end: false, consistent_at: now, allow_empty }
    }

    /// The instant the stream is counted from.
    pub fn consistent_at(&self) -> Timestamp {
        self.consistent_at
    }

    /// Whether the stream may become a snapshot.
    ///
    /// # Errors
    /// Not read to its end, or empty.
    pub fn finish(self) -> Result<Finished, StreamError> {
        let name = "standard input".to_owned();
        if !self.at_end {
            return Err(StreamError::Unfinished(name));
        }
        if self.size_bytes == 0 && !self.allow_empty {
            return Err(StreamError::Empty(name));
        }
        Ok(Finished { size_bytes: self.size_bytes, stderr: String::new() })
    }
}

impl<R: Read> Read for StreamSource<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.at_end |= length == 0 && !buffer.is_empty();
        self.size_bytes += length as u64;
        Ok(length)
    }
}
