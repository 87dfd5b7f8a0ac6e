//! pg_dump's custom archive, followed while it streams by: what is in it, and whether it is whole.
//!
//! Pure. An archive ends without a mark, so its end is known otherwise: the table of contents at its head says
//! which entries have data, and each must have come, whole, exactly once. Memory is bounded by the table of
//! contents; data passes through.

mod toc;

use std::collections::HashMap;

pub use toc::{Entry, Head};

use super::rows::{RowSum, Rows};

/// An archive that is none, or is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive holds {0}")]
    Invalid(&'static str),
    #[error("the archive has version {major}.{minor}, which is not known")]
    Version { major: u8, minor: u8 },
    #[error("the archive ends too soon: {0}")]
    Truncated(String),
}

/// The data of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it begins in the archive.
    pub at: u64,
    pub content: BlockContent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockContent {
    /// Not seen to its end yet.
    Open,
    Table(RowSum),
    /// Large objects: how many, their bytes, and the sum of their hashes (object number and content).
    Objects(RowSum),
    /// Compressed or skimmed: nothing can be said.
    Opaque,
}

/// Most bytes of the table that wait for the rest of one entry.
const WAITING_LIMIT: usize = 256 << 20;
const TABLE: u8 = 1;
const OBJECTS: u8 = 3;

/// Follows one archive. Feed it everything, then [`Archive::finish`].
pub struct Archive {
    head: Option<Head>,
    entries: Vec<Entry>,
    blocks: HashMap<u64, Block>,
    /// Head and table only: what was not read yet.
    waiting: Vec<u8>,
    state: State,
    /// A number whose bytes did not all come at once.
    partial: Vec<u8>,
    position: u64,
    skims: bool,
}

enum State {
    Table,
    BlockKind,
    BlockId { kind: u8, at: u64 },
    Length(Data),
    Bytes { data: Data, left: u64 },
    ObjectId { id: u64, sum: RowSum },
}

enum Data {
    Rows { id: u64, rows: Box<Rows> },
    Object { id: u64, sum: RowSum, hasher: Box<blake3::Hasher> },
    Opaque { id: u64 },
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            head: None,
            entries: Vec::new(),
            blocks: HashMap::new(),
            waiting: Vec::new(),
            state: State::Table,
            partial: Vec::new(),
            position: 0,
            skims: false,
        }
    }
}

impl Archive {
    /// One that only looks whether everything is there: rows are not counted.
    pub fn skimming() -> Self {
        Self { skims: true, ..Self::default() }
    }

    /// The head, once it came.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The table of contents as far as it came.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the whole table of contents came.
    pub fn has_table(&self) -> bool {
        !matches!(self.state, State::Table)
    }

    /// Data of the entry with that number.
    pub fn block(&self, id: u64) -> Option<&Block> {
        self.blocks.get(&id)
    }

    /// The encoding of all text in the archive, as PostgreSQL names it.
    pub fn encoding(&self) -> Option<String> {
        let entry = self.entries.iter().find(|entry| entry.kind == b"ENCODING")?;
        let sql = std::str::from_utf8(&entry.sql).ok()?;
        Some(sql.split('\'').nth(1)?.to_owned())
    }

    /// Takes some bytes.
    ///
    /// # Errors
    /// They are no archive.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if !self.has_table() {
            self.waiting.extend_from_slice(bytes);
            if !self.read_table()? {
                return match self.waiting.len() > WAITING_LIMIT {
                    true => Err(ArchiveError::Invalid("an entry too long")),
                    false => Ok(()),
                };
            }
            let rest = std::mem::take(&mut self.waiting);
            return self.data(&rest);
        }
        self.data(bytes)
    }

    /// Reads what is complete; whether the whole table is.
    fn read_table(&mut self) -> Result<bool, ArchiveError> {
        let mut at = 0;
        let head = match &self.head {
            Some(head) => head,
            None => {
                let Some((head, length)) = Head::read(&self.waiting)? else { return Ok(false) };
                at = length;
                self.head.insert(head)
            }
        };
        while (self.entries.len() as u64) < head.entries {
            let position = self.position + at as u64;
            let Some((entry, length)) = Entry::read(&self.waiting[at..], head, position)? else { break };
            at += length;
            self.entries.push(entry);
        }
        let whole = self.entries.len() as u64 == head.entries;
        self.position += at as u64;
        self.waiting.drain(..at);
        if whole {
            self.state = State::BlockKind;
        }
        Ok(whole)
    }

    /// The next number, if all of its bytes came.
    fn number(&mut self, bytes: &mut &[u8]) -> Result<Option<i64>, ArchiveError> {
        let width = 1 + self.head.as_ref().map_or(4, |head| head.int_bytes);
        let error = ArchiveError::Invalid("a number too large");
        if self.partial.is_empty() && bytes.len() >= width {
            let (number, rest) = bytes.split_at(width);
            *bytes = rest;
            self.position += width as u64;
            return toc::number(number[0], &number[1..]).map(Some).ok_or(error);
        }
        let take = (width - self.partial.len()).min(bytes.len());
        let (some, rest) = bytes.split_at(take);
        self.partial.extend_from_slice(some);
        *bytes = rest;
        self.position += take as u64;
        if self.partial.len() < width {
            return Ok(None);
        }
        let number = toc::number(self.partial[0], &self.partial[1..]).ok_or(error);
        self.partial.clear();
        number.map(Some)
    }

    fn data(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let state = std::mem::replace(&mut self.state, State::BlockKind);
            self.state = self.step(state, &mut bytes)?;
        }
        Ok(())
    }

    /// One step of the machine; takes at least a byte.
    fn step(&mut self, state: State, bytes: &mut &[u8]) -> Result<State, ArchiveError> {
        Ok(match state {
            State::Table => State::Table,
            State::BlockKind => {
                let at = self.position;
                let kind = bytes[0];
                *bytes = &bytes[1..];
                self.position += 1;
                State::BlockId { kind, at }
            }
            State::BlockId { kind, at } => match self.number(bytes)? {
                None => State::BlockId { kind, at },
                Some(id) => self.begin(kind, at, id)?,
            },
            State::ObjectId { id, sum } => match self.number(bytes)? {
                None => State::ObjectId { id, sum },
                Some(0) => self.end(id, BlockContent::Objects(sum)),
                Some(oid) => {
                    let mut hasher = blake3::Hasher::new();
                    hasher.update(&oid.to_le_bytes());
                    State::Length(Data::Object { id, sum, hasher: Box::new(hasher) })
                }
            },
            State::Length(data) => match self.number(bytes)? {
                None => State::Length(data),
                Some(0) => self.close(data)?,
                Some(left) => {
                    let left = u64::try_from(left)
                        .map_err(|_| ArchiveError::Invalid("a piece of negative length"))?;
                    State::Bytes { data, left }
                }
            },
            State::Bytes { mut data, left } => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (some, rest) = bytes.split_at(take);
                match &mut data {
                    Data::Rows { rows, .. } => rows.push(some),
                    Data::Object { hasher, sum, .. } => {
                        hasher.update(some);
                        sum.size_bytes += some.len() as u64;
                    }
                    Data::Opaque { .. } => {}
                }
                *bytes = rest;
                self.position += take as u64;
                match left - take as u64 {
                    0 => State::Length(data),
                    left => State::Bytes { data, left },
                }
            }
        })
    }

    fn begin(&mut self, kind: u8, at: u64, id: i64) -> Result<State, ArchiveError> {
        let id = u64::try_from(id).map_err(|_| ArchiveError::Invalid("data of no entry"))?;
        let opaque = self.skims || self.head.as_ref().is_some_and(|head| head.compressed);
        if self.blocks.insert(id, Block { at, content: BlockContent::Open }).is_some() {
            return Err(ArchiveError::Invalid("the data of an entry twice"));
        }
        // Millions of blocks of no entry would fill memory.
        if self.blocks.len() > self.entries.len() {
            return Err(ArchiveError::Invalid("data of no entry"));
        }
        match kind {
            TABLE if opaque => Ok(State::Length(Data::Opaque { id })),
            TABLE => Ok(State::Length(Data::Rows { id, rows: Box::default() })),
            OBJECTS => Ok(State::ObjectId { id, sum: RowSum::default() }),
            _ => Err(ArchiveError::Invalid("a block of an unknown kind")),
        }
    }

    fn close(&mut self, data: Data) -> Result<State, ArchiveError> {
        Ok(match data {
            Data::Rows { id, rows } => {
                let sum = rows.finish().ok_or(ArchiveError::Invalid("a row without an end"))?;
                self.end(id, BlockContent::Table(sum))
            }
            Data::Opaque { id } => self.end(id, BlockContent::Opaque),
            Data::Object { id, mut sum, hasher } => {
                let mut first = [0; 16];
                first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
                sum.rows += 1;
                sum.hash = sum.hash.wrapping_add(u128::from_le_bytes(first));
                State::ObjectId { id, sum }
            }
        })
    }

    fn end(&mut self, id: u64, content: BlockContent) -> State {
        if let Some(block) = self.blocks.get_mut(&id) {
            block.content = content;
        }
        State::BlockKind
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// The archive is not whole.
    pub fn finish(&self) -> Result<(), ArchiveError> {
        let truncated = |what: &str| Err(ArchiveError::Truncated(what.into()));
        match &self.state {
            State::Table => return truncated("within its table of contents"),
            State::BlockKind if self.partial.is_empty() => {}
            _ => return truncated("within the data of an entry"),
        }
        for entry in self.entries.iter().filter(|entry| entry.has_data) {
            match self.blocks.get(&entry.id) {
                Some(block) if block.content != BlockContent::Open => {}
                _ => {
                    let name = String::from_utf8_lossy(&entry.tag);
                    return truncated(&format!("the data of {name:?} is missing"));
                }
            }
        }
        Ok(())
    }
}
