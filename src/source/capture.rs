//! What every source that is not a folder hands over: parts, one after the other, then facts.
//!
//! The commit rule: a snapshot may be made only after [`Capture::finish`] said Ok. Until then everything read may
//! be half of what was meant, however whole it looks.

use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use super::command::{CommandSource, StreamError};
use super::stdin::StreamSource;
use crate::base::cancel::Cancelled;
use crate::format::entry::{Entry, Timestamp};

/// Who may read a part once it is restored as a file: its owner.
pub const PART_MODE: u32 = 0o600;

/// Why a service cannot be captured or given back.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// An engine's own error. Its text may end in a line `hint: …`.
    #[error(transparent)]
    Service(Box<dyn std::error::Error + Send + Sync>),
    /// What came back is not what was captured: the worst there is.
    #[error("what came back is not what was captured: {0}")]
    Differs(String),
    /// What was asked makes no sense or would destroy something. The text may end in a line `hint: …`.
    #[error("{0}")]
    Refused(String),
}

/// One stream of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its path in the snapshot, absolute or not. Later parts have later paths.
    pub path: String,
    pub mode: u32,
    /// The instant its bytes are true for.
    pub mtime: Timestamp,
}

/// What a capture hands over next. Keys are those of [`super::files`]: components joined by 0x00.
#[derive(Clone, Debug)]
pub enum Step {
    /// A stream under a name of its own.
    Stream(Part),
    /// One path of a tree that is no folder of this machine. The bytes of a file are read as a part's are.
    Entry { key: Vec<u8>, entry: Box<Entry> },
    /// One of [`Capture::folders`], to be walked and read now. The next step is asked for when that is done.
    Folder { key: Vec<u8> },
}

/// A folder of this machine that is captured under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// What it is called in the snapshot.
    pub key: Vec<u8>,
    /// Where it is: absolute.
    pub path: PathBuf,
}

/// A capture that ended well.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// The instant everything is true for; exposure counts from it.
    pub consistent: Timestamp,
    /// What can be proven of a restore; an object, kept in the snapshot.
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// What somebody should know although the snapshot is whole.
    pub warnings: Vec<String>,
    /// What went wrong although the snapshot is whole, and somebody has to see to: the run counts as partial.
    pub problems: Vec<String>,
}

/// A capture under way. Dropping it ends it and undoes what it did to the service.
///
/// Called from one thread at a time, never from the asynchronous runtime's own. Parts come in the order of their
/// paths (byte order of the components); each is read to its end before the next is asked for.
pub trait Capture: Send {
    /// Begins the next part; `None` after the last.
    ///
    /// # Errors
    /// The part before ended badly, or the next cannot begin.
    fn next_part(&mut self) -> Result<Option<Part>, SourceError>;

    /// Begins the next step; `None` after the last. Captures that have nothing but parts leave this alone.
    ///
    /// # Errors
    /// As [`Self::next_part`].
    fn next_step(&mut self) -> Result<Option<Step>, SourceError> {
        Ok(self.next_part()?.map(Step::Stream))
    }

    /// The folders that steps will name, known before the first of them.
    fn folders(&self) -> Vec<Folder> {
        Vec::new()
    }

    /// Paths below which parts come and go by themselves, sorted as parts are: what the snapshot says it holds, and what
    /// must not disappear or get empty, are these instead of every part. They may lie inside each other. Known before the
    /// first step; all parts lie below them.
    fn roots(&self) -> Vec<String> {
        Vec::new()
    }

    /// Reads some of the part; 0 at its end.
    ///
    /// # Errors
    /// Whatever breaks the stream. [`Self::finish`] then says why, if it knows better.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Called after the last part, or after an error for its reason.
    ///
    /// # Errors
    /// Every reason why this must not become a snapshot.
    fn finish(self: Box<Self>) -> Result<Captured, SourceError>;
}

/// A stream that is a whole capture: one part.
pub struct Single<S> {
    path: String,
    stream: S,
    begun: bool,
}

impl<S> Single<S> {
    /// `path`: its name in the snapshot.
    pub fn new(path: impl Into<String>, stream: S) -> Self {
        Self { path: path.into(), stream, begun: false }
    }

    fn part(&mut self, mtime: Timestamp) -> Option<Part> {
        let first = !std::mem::replace(&mut self.begun, true);
        first.then(|| Part { path: self.path.clone(), mode: PART_MODE, mtime })
    }
}

impl Capture for Single<CommandSource> {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let at = self.stream.consistent_at();
        Ok(self.part(at))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        let consistent = self.stream.consistent_at();
        let finished = self.stream.finish()?;
        let mut facts = serde_json::Map::new();
        if !finished.stderr.is_empty() {
            facts.insert("stderr".into(), finished.stderr.into());
        }
        Ok(Captured { consistent, facts, ..Captured::default() })
    }
}

impl<R: Read + Send> Capture for Single<StreamSource<R>> {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let at = self.stream.consistent_at();
        Ok(self.part(at))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        let consistent = self.stream.consistent_at();
        self.stream.finish()?;
        Ok(Captured { consistent, ..Captured::default() })
    }
}

/// Parts that are in memory already, and how it all ends.
pub struct Held {
    parts: VecDeque<(Part, Vec<u8>)>,
    current: Cursor<Vec<u8>>,
    captured: Captured,
}

impl Held {
    /// `parts`: paths and what they hold, in any order.
    pub fn new(parts: Vec<(String, Vec<u8>)>, mtime: Timestamp, captured: Captured) -> Self {
        let mut parts = parts;
        parts.sort_by(|(a, _), (b, _)| in_key_order(a, b));
        let part = |(path, bytes)| (Part { path, mode: PART_MODE, mtime }, bytes);
        Self { parts: parts.into_iter().map(part).collect(), current: Cursor::default(), captured }
    }
}

/// The order in which a capture hands over its parts.
pub fn in_key_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.split('/').cmp(b.split('/'))
}

impl Capture for Held {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let Some((part, bytes)) = self.parts.pop_front() else { return Ok(None) };
        self.current = Cursor::new(bytes);
        Ok(Some(part))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.current.read(buffer)
    }

    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        Ok(self.captured)
    }
}
