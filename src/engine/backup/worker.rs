//! A worker: reads, cuts and hashes; compresses and encrypts. Sealing comes first, since it frees memory, and a
//! worker that waits for its answer to be taken seals meanwhile, so nobody waits in a circle.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, select, select_biased};

use super::feed::{Ahead, Came, Segment, Source};
use super::pieces::{
    Counts, Cut, FileEnd, Item, Job, PackMessage, Part, Piece, Pool, Pools, Problem, ReadPart, SealJob, Stop,
    Work,
};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::chunk::Cutter;
use crate::format::entry::{Content, Entry};
use crate::format::id::ChunkId;
use crate::seal::block::{Codecs, Compression};
use crate::source::files::read::{Captured, FileReader};
use crate::source::files::stat::Stat;
use crate::source::files::{FileError, path_of_key};

/// Bytes read of a large file or stream before they are handed on.
pub const SEGMENT_BYTES: usize = 1 << 20;

/// What all workers share.
#[derive(Clone)]
pub struct Tools {
    pub files: Option<Arc<FileReader>>,
    pub cutter: Arc<Cutter>,
    pub data_id_key: [u8; 32],
    pub content_key: [u8; 32],
    pub compression: Compression,
    pub pools: Pools,
    /// Plaintext of blocks: the assembler takes them, sealing gives them back.
    pub blocks: Pool,
    /// Sealed blocks: sealing takes them, the packer gives them back.
    pub sealed: Pool,
    pub counts: Arc<Counts>,
    pub progress: Arc<dyn Progress>,
    pub cancel: Cancel,
}

/// A worker's ends of the channels.
pub struct Worker {
    pub tools: Tools,
    pub jobs: Receiver<Job>,
    pub seals: Receiver<SealJob>,
    pub packer: Sender<PackMessage>,
    pub codecs: Codecs,
}

fn problem(error: &FileError) -> Problem {
    let message = format!("cannot {}: {}", error.operation, error.cause);
    Problem { path: error.path.display().to_string(), message }
}

impl Worker {
    /// Works until there is nothing more: jobs and seals have both ended.
    pub fn run(mut self) -> Result<(), Stop> {
        let jobs = self.jobs.clone();
        let seals = self.seals.clone();
        let mut more_jobs = true;
        loop {
            if more_jobs {
                select_biased! {
                    recv(seals) -> job => match job {
                        Ok(job) => self.seal(job)?,
                        // The assembler is done, or left early and its own thread will tell why.
                        Err(_) => return match jobs.try_recv() {
                            Err(crossbeam_channel::TryRecvError::Disconnected) => Ok(()),
                            _ => Err(Stop::Hung),
                        },
                    },
                    recv(jobs) -> job => match job {
                        Ok(job) => self.job(job)?,
                        Err(_) => more_jobs = false,
                    },
                }
            } else {
                match seals.recv() {
                    Ok(job) => self.seal(job)?,
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    fn seal(&mut self, job: SealJob) -> Result<(), Stop> {
        let SealJob { slot, ordinal, block } = job;
        let room = self.tools.sealed.take(0);
        let sealed = slot
            .sealer
            .seal_in(&mut self.codecs, ordinal, &block.bytes, self.tools.compression, room)
            .map_err(crate::pack::PackError::Seal)?;
        slot.sealed_bytes.fetch_add(sealed.bytes.len(), Ordering::Relaxed);
        self.tools.blocks.give(block.bytes);
        let message = PackMessage::Sealed { slot, sealed, chunks: block.chunks };
        self.packer.send(message).map_err(|_| Stop::Hung)
    }

    /// Hands a piece on; seals while it has to wait.
    fn answer(&mut self, answer: &Sender<Piece>, piece: Piece) -> Result<(), Stop> {
        let seals = self.seals.clone();
        loop {
            select! {
                recv(seals) -> job => match job {
                    Ok(job) => self.seal(job)?,
                    Err(_) => return Err(Stop::Hung),
                },
                send(answer, piece) -> sent => return sent.map_err(|_| Stop::Hung),
            }
        }
    }

    /// One more that only answers jobs it is given: it neither takes any nor seals.
    pub fn another(&self) -> Result<Self, Stop> {
        let (jobs, seals) = (crossbeam_channel::never(), crossbeam_channel::never());
        let codecs = Codecs::new().map_err(crate::pack::PackError::Seal)?;
        Ok(Self { tools: self.tools.clone(), jobs, seals, packer: self.packer.clone(), codecs })
    }

    pub fn job(&mut self, job: Job) -> Result<(), Stop> {
        self.tools.cancel.check()?;
        match job.work {
            Work::Items(items) => {
                let piece = self.items(items);
                self.answer(&job.answer, piece)
            }
            Work::File { key, stat, known } => self.file(&job.answer, key, stat, known),
            Work::Stream { key, entry, reader } => self.stream(&job.answer, key, *entry, reader),
        }
    }

    fn items(&mut self, items: Vec<Item>) -> Piece {
        let mut buffer = Scratch { bytes: self.tools.pools.batches.take_filled(SEGMENT_BYTES), filled: 0 };
        let mut parts = Vec::with_capacity(items.len());
        for item in items {
            parts.push(match item {
                Item::Unchanged { record, stat } => Part::Unchanged { record, stat },
                Item::Link { key, stat } => Part::Link { key, stat },
                Item::Read { key, stat, known } => {
                    let before = buffer.filled;
                    match self.read_small(key, stat, known, &mut buffer) {
                        Ok(part) => Part::Read(Box::new(part)),
                        Err(error) => {
                            buffer.filled = before;
                            Part::Lost(problem(&error))
                        }
                    }
                }
            });
        }
        Piece::Batch { buffer: buffer.bytes, parts }
    }

    fn id(&self, bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.tools.data_id_key, bytes).as_bytes())
    }

    fn read_small(
        &self,
        key: Vec<u8>,
        stat: Stat,
        known: bool,
        buffer: &mut Scratch,
    ) -> Result<ReadPart, FileError> {
        let Some(files) = &self.tools.files else { return Err(no_reader(&key)) };
        if !stat.is_file() {
            let captured = files.metadata(&key, &stat)?;
            let end = self.end(key, captured, known, false, buffer);
            return Ok(ReadPart { end, chunks: Vec::new() });
        }
        let mut file = files.open(&key)?;
        let captured = files.describe(&file);
        let start = buffer.filled;
        let expected = usize::try_from(file.data_bytes()).unwrap_or(0);
        read_to_end(&mut file, buffer, expected).map_err(|cause| read_error(&key, cause))?;
        let outcome = file.finish()?;
        let mut chunks = Vec::new();
        let mut at = start;
        let content = buffer.filled();
        while at < content.len() {
            let length = self.tools.cutter.cut(&content[at..]);
            chunks.push(Cut { id: self.id(&content[at..at + length]), start: at, length });
            at += length;
        }
        let data_bytes = (content.len() - start) as u64;
        self.tools.counts.read_bytes.fetch_add(data_bytes, Ordering::Relaxed);
        self.tools.progress.add_done(data_bytes, 0);
        let hash = (chunks.len() > 1)
            .then(|| *blake3::keyed_hash(&self.tools.content_key, &content[start..]).as_bytes());
        let mut end = self.end(key, captured, known, outcome.changed, buffer);
        set_content(&mut end.entry, outcome.size_bytes, outcome.holes, hash);
        Ok(ReadPart { end, chunks })
    }

    /// What is known of a path; long attributes' bytes go to the end of `buffer`.
    fn end(
        &self,
        key: Vec<u8>,
        captured: Captured,
        known: bool,
        changed: bool,
        buffer: &mut Scratch,
    ) -> FileEnd {
        let mut problems: Vec<Problem> = captured.problems.iter().map(problem).collect();
        if changed {
            let path = path_of_key(&key).display().to_string();
            problems.push(Problem { path, message: "changed while it was read".into() });
        }
        let mut long_xattrs = Vec::new();
        for (name, value) in captured.long_xattrs {
            let cut = Cut { id: self.id(&value), start: buffer.filled, length: value.len() };
            buffer.append(&value);
            long_xattrs.push((name, cut));
        }
        let (stat, entry) = (Some(captured.stat), captured.entry);
        FileEnd { key, stat, known, entry, long_xattrs, xattr_bytes: Vec::new(), problems, changed }
    }

    fn file(&mut self, answer: &Sender<Piece>, key: Vec<u8>, stat: Stat, known: bool) -> Result<(), Stop> {
        let Some(files) = self.tools.files.clone() else { return Err(Stop::Hung) };
        let mut file = match files.open(&key) {
            Ok(file) => file,
            Err(error) => return self.answer(answer, Piece::Lost(problem(&error))),
        };
        let _ = stat;
        let captured = files.describe(&file);
        let mut source = self.source(&mut file);
        let read = self.segments(answer, false, |_| source.read().map_err(SegmentError::Read));
        let hash = match read {
            Ok((_, hash)) => hash,
            Err(SegmentError::Stop(stop)) => return Err(stop),
            Err(SegmentError::Read(cause)) => {
                let error = read_error(&key, cause);
                return self.answer(answer, Piece::Lost(problem(&error)));
            }
        };
        let outcome = match file.finish() {
            Ok(outcome) => outcome,
            Err(error) => return self.answer(answer, Piece::Lost(problem(&error))),
        };
        let mut xattrs = Scratch::default();
        let mut end = self.end(key, captured, known, outcome.changed, &mut xattrs);
        end.xattr_bytes = xattrs.filled().to_vec();
        set_content(&mut end.entry, outcome.size_bytes, outcome.holes, hash);
        self.answer(answer, Piece::End(Box::new(end)))
    }

    fn stream(
        &mut self,
        answer: &Sender<Piece>,
        key: Vec<u8>,
        mut entry: Entry,
        reader: Box<dyn Read + Send>,
    ) -> Result<(), Stop> {
        let ahead = Ahead::start(self.source(reader));
        let read = ahead.map_err(SegmentError::Read).and_then(|ahead| {
            self.segments(answer, true, |worker| {
                loop {
                    match ahead.wait(&worker.seals) {
                        Came::Segment(segment) => return segment.map_err(SegmentError::Read),
                        Came::Seal(job) => worker.seal(*job).map_err(SegmentError::Stop)?,
                        Came::Nothing => return Err(SegmentError::Stop(Stop::Hung)),
                    }
                }
            })
        });
        let (size_bytes, hash) = match read {
            Ok(read) => read,
            Err(SegmentError::Stop(stop)) => return Err(stop),
            Err(SegmentError::Read(cause)) => {
                let path = path_of_key(&key).display().to_string();
                let error = crate::engine::EngineError::Local { operation: "read stream", path, cause };
                return Err(Stop::Failed(error));
            }
        };
        set_content(&mut entry, size_bytes, Vec::new(), hash);
        let end = FileEnd {
            key,
            stat: None,
            known: false,
            entry,
            long_xattrs: Vec::new(),
            xattr_bytes: Vec::new(),
            problems: Vec::new(),
            changed: false,
        };
        self.answer(answer, Piece::End(Box::new(end)))
    }

    /// Cuts what `next` reads until it ends, handing on chunks as they are found. Returns the size, and the whole
    /// content's hash if it has several chunks.
    fn segments(
        &mut self,
        answer: &Sender<Piece>,
        is_stream: bool,
        mut next: impl FnMut(&mut Self) -> Result<Segment, SegmentError>,
    ) -> Result<(u64, Option<[u8; 32]>), SegmentError> {
        let Profiled { room, least } = self.profiled();
        let mut left = Vec::with_capacity(room);
        let (mut count, mut size_bytes) = (0usize, 0u64);
        loop {
            self.tools.cancel.check().map_err(|error| SegmentError::Stop(error.into()))?;
            let Segment { mut buffer, filled, hash } = next(self)?;
            let read = (filled - room) as u64;
            size_bytes += read;
            self.tools.counts.read_bytes.fetch_add(read, Ordering::Relaxed);
            self.tools.progress.add_done(read, 0);
            let mut at = room - left.len();
            buffer[at..room].copy_from_slice(&left);
            let mut chunks = Vec::with_capacity(filled / least / 2);
            while at < filled {
                let length = self.tools.cutter.cut(&buffer[at..filled]);
                // A chunk that only ends where the reading did may go on with what is read next.
                if length == filled - at && hash.is_none() {
                    break;
                }
                chunks.push(Cut { id: self.id(&buffer[at..at + length]), start: at, length });
                at += length;
            }
            count += chunks.len();
            left.clear();
            left.extend_from_slice(&buffer[at..filled]);
            self.answer(answer, Piece::Segment { buffer, chunks, is_stream }).map_err(SegmentError::Stop)?;
            if hash.is_some() {
                return Ok((size_bytes, hash.filter(|_| count > 1)));
            }
        }
    }

    fn profiled(&self) -> Profiled {
        let profile = self.tools.cutter.profile();
        Profiled { room: profile.max_bytes(), least: profile.min_bytes() }
    }

    fn source<R: Read>(&self, reader: R) -> Source<R> {
        let segments = self.tools.pools.segments.clone();
        Source::new(reader, &self.tools.content_key, segments, self.profiled().room)
    }
}

/// What cutting asks of segments.
struct Profiled {
    /// Bytes a chunk that was begun may have, left free in front of what is read next.
    room: usize,
    /// Bytes of the smallest chunk.
    least: usize,
}

enum SegmentError {
    Read(std::io::Error),
    Stop(Stop),
}

/// Like `Read::read_to_end` with a good guess, so that a small file takes one read and one that finds the end.
fn read_to_end(reader: &mut dyn Read, buffer: &mut Scratch, expected: usize) -> std::io::Result<()> {
    let start = buffer.filled;
    loop {
        let left = expected.saturating_sub(buffer.filled - start);
        match reader.read(buffer.room(if left > 0 { left } else { 4096 })) {
            Ok(0) => return Ok(()),
            Ok(read) => buffer.filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A buffer that was used before: behind what was filled now lies whatever it held then.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    filled: usize,
}

impl Scratch {
    fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
    /// Where the next `wanted` bytes go.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        let end = self.filled + wanted;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.filled..end]
    }
    fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }
}

fn set_content(entry: &mut Entry, size_bytes: u64, holes: Vec<(u64, u64)>, hash: Option<[u8; 32]>) {
    if let Some(content) = entry.content_mut() {
        *content = Content { size_bytes, holes, hash, ..Content::empty() };
    }
}

fn no_reader(key: &[u8]) -> FileError {
    let cause = std::io::Error::from(std::io::ErrorKind::Unsupported);
    FileError { operation: "read", path: path_of_key(key), cause }
}

fn read_error(key: &[u8], cause: std::io::Error) -> FileError {
    // Errors of an open file carry the path themselves: show the innermost cause.
    let cause = match cause.downcast::<FileError>() {
        Ok(inner) => return inner,
        Err(cause) => cause,
    };
    FileError { operation: "read", path: path_of_key(key), cause }
}
