//! What travels between the threads of a backup.
//!
//! ```text
//! walk → planner ─ jobs → workers (read, cut, hash) ─ pieces in order → assembler (deduplicate, gather, tree)
//!                          workers (compress, encrypt) ← blocks ─┘
//!                          └─ sealed blocks → packer ─ packs → uploads
//! ```
//!
//! Every channel is bounded, so memory is a budget: see `docs/performance.md`.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crossbeam_channel::Sender;

use super::file_cache::Record;
pub use crate::base::pool::Pool;
use crate::engine::EngineError;
use crate::format::entry::Entry;
use crate::format::header::ObjectKind;
use crate::format::id::ChunkId;
use crate::pack::gather::RawBlock;
use crate::seal::block::{PackSealer, SealedBlock};
use crate::source::files::stat::Stat;

/// One path to store.
pub enum Item {
    /// Unchanged since the last backup.
    Unchanged { record: Box<Record>, stat: Stat },
    /// To be read. `known`: an earlier backup saw the path.
    Read { key: Vec<u8>, stat: Stat, known: bool },
    /// Another name of a file that came before.
    Link { key: Vec<u8>, stat: Stat },
}

/// Work for one worker, answered through its own channel so that the assembler takes answers in order.
pub struct Job {
    pub work: Work,
    pub answer: Sender<Piece>,
    /// Dropped when the work was read: whoever waits for that sees the channel close.
    pub under_way: Option<Sender<()>>,
}

/// What a job is about.
pub enum Work {
    /// Small files, folders and the like; together about a mebibyte.
    Items(Vec<Item>),
    /// One large file.
    File { key: Vec<u8>, stat: Stat, known: bool },
    /// Bytes that are not a file.
    Stream { key: Vec<u8>, entry: Box<Entry>, reader: Box<dyn Read + Send> },
}

/// Part of an answer.
pub enum Piece {
    Batch {
        buffer: Vec<u8>,
        parts: Vec<Part>,
    },
    /// Part of a large file or stream: chunks in `buffer`.
    Segment {
        buffer: Vec<u8>,
        chunks: Vec<Cut>,
        /// Neither the cache nor a hard link will ask for its chunks, of which there may be any number.
        is_stream: bool,
    },
    /// The large file or stream ended.
    End(Box<FileEnd>),
    /// The path could not be read; what came of it is thrown away.
    Lost(Problem),
}

/// A chunk: where it lies in the buffer it came with.
#[derive(Clone, Copy)]
pub struct Cut {
    pub id: ChunkId,
    pub start: usize,
    pub length: usize,
}

/// A path that could not be stored, or not as it should be.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Problem {
    /// Lossy where the path is not UTF-8.
    pub path: String,
    pub message: String,
}

/// One item of a batch.
pub enum Part {
    Unchanged { record: Box<Record>, stat: Stat },
    Link { key: Vec<u8>, stat: Stat },
    Read(Box<ReadPart>),
    Lost(Problem),
}

/// A small file or other path that was read whole.
pub struct ReadPart {
    pub end: FileEnd,
    pub chunks: Vec<Cut>,
}

/// What is known of a path once it was read.
pub struct FileEnd {
    pub key: Vec<u8>,
    pub stat: Option<Stat>,
    pub known: bool,
    /// Content's `refs` are still empty.
    pub entry: Entry,
    /// Long extended attributes with the chunk each became; the bytes are at the end of the batch's buffer.
    pub long_xattrs: Vec<(Vec<u8>, Cut)>,
    /// For a large file the attributes' bytes travel here.
    pub xattr_bytes: Vec<u8>,
    pub problems: Vec<Problem>,
    /// Changed while it was read: stored as read, and never taken for unchanged later.
    pub changed: bool,
}

/// A pack that blocks are being sealed for.
pub struct PackSlot {
    pub number: u64,
    pub kind: ObjectKind,
    pub sealer: PackSealer,
    /// Sealed bytes so far; decides when the pack is full.
    pub sealed_bytes: AtomicUsize,
}

/// A block to compress and encrypt.
pub struct SealJob {
    pub slot: Arc<PackSlot>,
    pub ordinal: u32,
    pub block: RawBlock,
}

/// What the packer is told.
pub enum PackMessage {
    Sealed {
        slot: Arc<PackSlot>,
        sealed: SealedBlock,
        chunks: Vec<(ChunkId, u32)>,
    },
    /// No more blocks will come than these many.
    Close {
        slot: Arc<PackSlot>,
        blocks: u32,
    },
}

/// Counters the progress and the outcome read.
#[derive(Default)]
pub struct Counts {
    pub read_bytes: AtomicU64,
    pub pack_bytes: AtomicU64,
}

/// Why a thread of the pipeline stopped.
#[derive(Debug)]
pub enum Stop {
    /// Somebody else stopped first.
    Hung,
    Failed(EngineError),
}

impl<E: Into<EngineError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The buffers of batches, and those of segments, which keep their length.
#[derive(Clone)]
pub struct Pools {
    pub batches: Pool,
    pub segments: Pool,
}
