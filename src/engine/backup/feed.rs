//! Where a worker gets the bytes of a large file or stream: segments, each with room in front for what was left of
//! the one before.
//!
//! A stream is read and hashed as a whole on a thread of its own: whoever feeds it works while the worker cuts, and
//! the worker seals while nothing comes. The thread ends with its reader, which a cancelled capture breaks off; the
//! worker does not wait for it.

use std::io::{self, Read};

use crossbeam_channel::{Receiver, bounded, select};

use super::pieces::{Pool, SealJob};
use super::worker::SEGMENT_BYTES;

/// Segments read ahead of the worker.
const SEGMENTS_AHEAD: usize = 2;

/// Some of the bytes, in order: `buffer[room..filled]`, where room is what [`Source`] was told to leave.
pub struct Segment {
    pub buffer: Vec<u8>,
    pub filled: usize,
    /// With the last segment, which may be empty: the hash of everything.
    pub hash: Option<[u8; 32]>,
}

/// Reads segments: one thread's work.
pub struct Source<R> {
    reader: R,
    hasher: blake3::Hasher,
    segments: Pool,
    room: usize,
}

impl<R: Read> Source<R> {
    /// `room`: bytes to leave free at the front of each segment.
    pub fn new(reader: R, content_key: &[u8; 32], segments: Pool, room: usize) -> Self {
        Self { reader, hasher: blake3::Hasher::new_keyed(content_key), segments, room }
    }

    /// The next segment; after one with a hash there is none.
    pub fn read(&mut self) -> io::Result<Segment> {
        let mut buffer = self.segments.take_filled(self.room + SEGMENT_BYTES);
        let mut filled = self.room;
        let mut ended = false;
        while filled < buffer.len() && !ended {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => ended = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.hasher.update(&buffer[self.room..filled]);
        let hash = ended.then(|| *self.hasher.finalize().as_bytes());
        Ok(Segment { buffer, filled, hash })
    }
}

/// What comes while a worker waits.
pub enum Came {
    Segment(io::Result<Segment>),
    Seal(Box<SealJob>),
    /// Whoever should send went away.
    Nothing,
}

/// A [`Source`] on a thread of its own.
pub struct Ahead {
    segments: Receiver<io::Result<Segment>>,
}

impl Ahead {
    /// # Errors
    /// No thread can be started.
    pub fn start(mut source: Source<Box<dyn Read + Send>>) -> io::Result<Self> {
        let (sender, segments) = bounded(SEGMENTS_AHEAD);
        let read = move || {
            loop {
                let segment = source.read();
                let last = !matches!(&segment, Ok(segment) if segment.hash.is_none());
                // The worker may have stopped.
                if sender.send(segment).is_err() || last {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("stream".into()).spawn(read)?;
        Ok(Self { segments })
    }

    /// Waits for a segment or a block to seal, whichever comes first.
    pub fn wait(&self, seals: &Receiver<SealJob>) -> Came {
        select! {
            recv(self.segments) -> segment => segment.map_or(Came::Nothing, Came::Segment),
            recv(seals) -> job => job.map_or(Came::Nothing, |job| Came::Seal(Box::new(job))),
        }
    }
}
