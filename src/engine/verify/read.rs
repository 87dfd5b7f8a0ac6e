//! Reads packs in full: the name is the hash of the bytes, every block has its hash and opens, every chunk has its
//! id.
//!
//! One task reads directories ahead; worker threads take a pack each, fetch it in windows of whole blocks (the
//! next window while this one is opened), and send back what they found. Memory is bounded by
//! threads × 2 windows, whatever the size of a pack.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::super::EngineError;
use super::chunks::View;
use super::is_pack;
use super::outcome::{Report, State, state_of};
use super::packs::size_error;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::id::{ObjectHash, ShortId};
use crate::format::pack::{Directory, Origin};
use crate::pack::index::BlockInfo;
use crate::pack::pack_name;
use crate::pack::read::chunk_id;
use crate::repo::sync::ListedPack;
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;
use crate::seal::access::Access;
use crate::seal::block::{BlockOpener, Codecs};
use crate::store::{Store, StoreError, StoreErrorKind};

/// A window grows block by block until it has at least this many bytes.
const WINDOW_BYTES: u64 = 4 << 20;

/// A pack to read.
struct Job {
    hash: ObjectHash,
    listed: ListedPack,
    /// By offset, back to back.
    blocks: Vec<Arc<BlockInfo>>,
    /// `None` where it cannot be read: then the index rows say where the blocks are.
    directory: Option<Directory>,
}

/// What reading a pack told.
#[derive(Default)]
struct Found {
    name_fits: bool,
    /// Blocks that do not open: offset and why.
    blocks: Vec<(u64, SealError)>,
    /// Chunks that are not what they are said to be.
    chunks: Vec<(u64, ShortId)>,
    /// Blocks this key cannot open; their hashes were still compared.
    sealed: u64,
    error: Option<StoreError>,
}

enum Message {
    Window { bytes: u64, blocks: u64, chunks: u64 },
    Done(Box<(Job, Found)>),
}

struct Shared {
    store: Arc<dyn Store>,
    access: Arc<Access>,
    cancel: Cancel,
    runtime: Handle,
    jobs: Mutex<Receiver<Job>>,
}

/// Reads the chosen packs. Returns whether any block or chunk is bad.
pub(super) async fn check(
    repo: &Repository,
    chosen: Vec<(ObjectHash, ListedPack)>,
    threads: usize,
    view: &mut View,
    report: &mut Report,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<bool, EngineError> {
    let total: u64 = chosen.iter().map(|(_, listed)| listed.size_bytes).sum();
    progress.add_total(total, chosen.len() as u64);
    let (job_sender, jobs) = channel(threads);
    let (results, received) = channel(threads * 4);
    let shared = Arc::new(Shared {
        store: repo.store.clone(),
        access: repo.access.clone(),
        cancel: cancel.clone(),
        runtime: Handle::current(),
        jobs: Mutex::new(jobs),
    });
    for _ in 0..threads {
        let (shared, results) = (shared.clone(), results.clone());
        tokio::task::spawn_blocking(move || work(&shared, &results));
    }
    // Only workers hold these from here on, so that whoever waits for them learns when all have ended.
    drop((results, shared));
    let wanted = chosen.len() as u64;
    let index = view.stock.index.clone();
    let feed = async move {
        for (hash, listed) in chosen {
            cancel.check()?;
            let directory = match repo.open_pack_directory(&hash, &listed).await {
                Ok(opened) => opened.map(|(_, directory)| directory),
                // Reported when the directories were read; the bytes are looked at all the same.
                Err(error) if error.is_damage() => None,
                Err(error) => return Err(EngineError::from(error)),
            };
            let blocks = match index.pack(&hash) {
                Some(pack) => index.blocks_of(&pack).map_err(RepoError::from)?,
                None => Vec::new(),
            };
            if job_sender.send(Job { hash, listed, blocks, directory }).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let collect = async {
        // Dropped with an error, so that no worker waits for somebody to listen.
        let mut received = received;
        let mut is_broken = false;
        while let Some(message) = received.recv().await {
            match message {
                Message::Window { bytes, blocks, chunks } => {
                    progress.add_done(bytes, 0);
                    report.checked.bytes_read += bytes;
                    report.checked.blocks_read += blocks;
                    report.checked.chunks_read += chunks;
                }
                Message::Done(done) => {
                    progress.add_done(0, 1);
                    report.checked.packs_read += 1;
                    is_broken |= judge(&done.0, done.1, view, report)?;
                }
            }
        }
        Ok::<_, EngineError>(is_broken)
    };
    let (fed, collected) = futures::join!(feed, collect);
    fed?;
    cancel.check()?;
    let is_broken = collected?;
    if report.checked.packs_read < wanted {
        // A worker could not even start; unread packs must not pass for sound ones.
        return Err(SealError::Compression.into());
    }
    Ok(is_broken)
}

/// Turns what was found in a pack into findings.
fn judge(job: &Job, found: Found, view: &mut View, report: &mut Report) -> Result<bool, EngineError> {
    let object = pack_name(job.listed.kind, &job.hash);
    debug_assert!(is_pack(job.listed.kind));
    if let Some(error) = found.error {
        if !matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::Truncated) {
            return Err(error.into());
        }
        for block in &job.blocks {
            view.bad_block(job.hash, block.offset);
        }
        let mut told = Told { hash: job.hash, object, view, report };
        told.tell(State::Damaged, format!("cannot be read to its end: {}", error.cause));
        return Ok(true);
    }
    if found.sealed > 0 {
        let kind = job.listed.kind.folder();
        report.not_tested(format!(
            "the content of {kind} packs: this key cannot open them, only compare hashes"
        ));
    }
    let mut told = Told { hash: job.hash, object, view, report };
    let is_broken = !found.blocks.is_empty() || !found.chunks.is_empty();
    if let Some((offset, cause)) = found.blocks.first() {
        let (bad, all) = (found.blocks.len(), job.blocks.len());
        let what = format!("{bad} of {all} blocks cannot be opened; the first, at byte {offset}: {cause}");
        told.tell(state_of(cause), what);
    }
    if let Some((offset, id)) = found.chunks.first() {
        let count = found.chunks.len();
        let what =
            format!("{count} chunks are not what its directory says; the first at byte {offset}: {id}");
        told.tell(State::Damaged, what);
    }
    if !found.name_fits && found.blocks.is_empty() {
        told.tell(State::Damaged, "its bytes are not the ones it is named for".to_owned());
    }
    for (offset, _) in found.blocks {
        view.bad_block(job.hash, offset);
    }
    for (offset, id) in found.chunks {
        view.bad_chunk(job.hash, offset, id);
    }
    Ok(is_broken)
}

/// Who hears what is wrong with a pack.
struct Told<'t> {
    hash: ObjectHash,
    object: String,
    view: &'t mut View,
    report: &'t mut Report,
}

impl Told<'_> {
    /// Of a condemned pack it is only a note: nothing relies on it, and what it alone holds was found out before.
    fn tell(&mut self, state: State, what: String) {
        if state != State::Newer {
            self.view.bad.entry(self.hash).or_insert_with(|| what.clone());
        }
        if state == State::Damaged && self.view.stock.condemned.contains(&self.hash) {
            self.report.note(format!("{} is damaged and condemned: a prune will delete it", self.object));
        } else {
            self.report.add(state, self.object.clone(), what);
        }
    }
}

fn work(shared: &Arc<Shared>, results: &Sender<Message>) {
    let Ok(mut codecs) = Codecs::new() else { return };
    let mut room = Vec::new();
    loop {
        let job = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        let mut pack = Pack {
            shared,
            openers: HashMap::new(),
            codecs: &mut codecs,
            room: &mut room,
            found: Found::default(),
            hasher: blake3::Hasher::new(),
        };
        match pack.read(&job, results) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => pack.found.error = Some(error),
        }
        let found = pack.found;
        if results.blocking_send(Message::Done(Box::new((job, found)))).is_err() {
            return;
        }
    }
}

/// A stretch of a pack: bytes from..to, and the blocks that lie in it.
struct Window {
    from: u64,
    to: u64,
    blocks: std::ops::Range<usize>,
}

fn windows(job: &Job) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut from, mut first) = (0, 0);
    for (at, block) in job.blocks.iter().enumerate() {
        let end = block.offset + u64::from(block.stored_length);
        if end - from >= WINDOW_BYTES {
            windows.push(Window { from, to: end, blocks: first..at + 1 });
            (from, first) = (end, at + 1);
        }
    }
    // The directory, or a pack of which nothing is known.
    while from < job.listed.size_bytes {
        let left = first..job.blocks.len();
        let least = left
            .clone()
            .next_back()
            .map_or(0, |last| job.blocks[last].offset + u64::from(job.blocks[last].stored_length) - from);
        let to = job.listed.size_bytes.min(from + WINDOW_BYTES.max(least));
        windows.push(Window { from, to, blocks: left });
        (from, first) = (to, job.blocks.len());
    }
    windows
}

struct Pack<'p> {
    shared: &'p Arc<Shared>,
    openers: HashMap<Origin, Result<BlockOpener, SealError>>,
    codecs: &'p mut Codecs,
    /// Where blocks are opened.
    room: &'p mut Vec<u8>,
    found: Found,
    hasher: blake3::Hasher,
}

impl Pack<'_> {
    fn fetch(&self, name: &str, window: &Window) -> tokio::task::JoinHandle<Result<Bytes, StoreError>> {
        let (store, name) = (self.shared.store.clone(), name.to_owned());
        let (from, length) = (window.from, window.to - window.from);
        self.shared.runtime.spawn(async move { store.get_range(&name, from, length).await })
    }

    /// False: nobody wants to know any more.
    fn read(&mut self, job: &Job, results: &Sender<Message>) -> Result<bool, StoreError> {
        let name = pack_name(job.listed.kind, &job.hash);
        let windows = windows(job);
        let mut next = windows.first().map(|window| self.fetch(&name, window));
        for (at, window) in windows.iter().enumerate() {
            let Some(fetched) = next.take() else { break };
            let bytes = match self.shared.runtime.block_on(fetched) {
                Ok(bytes) => bytes?,
                // The runtime is shutting down.
                Err(_) => return Ok(false),
            };
            if self.shared.cancel.is_cancelled() {
                return Ok(false);
            }
            next = windows.get(at + 1).map(|window| self.fetch(&name, window));
            self.hasher.update(&bytes);
            let mut chunks = 0;
            for number in window.blocks.clone() {
                let block = &job.blocks[number];
                chunks += block.chunks.len() as u64;
                if let Err(cause) = self.block(job, number, &bytes, window.from) {
                    self.found.blocks.push((block.offset, cause));
                }
            }
            let blocks = window.blocks.len() as u64;
            let message = Message::Window { bytes: bytes.len() as u64, blocks, chunks };
            if results.blocking_send(message).is_err() {
                return Ok(false);
            }
        }
        self.found.name_fits = self.hasher.finalize().as_bytes() == job.hash.as_bytes();
        Ok(true)
    }

    fn block(&mut self, job: &Job, number: usize, window: &Bytes, from: u64) -> Result<(), SealError> {
        let block = &job.blocks[number];
        let start = (block.offset - from) as usize;
        let stored = window.get(start..start + block.stored_length as usize).ok_or_else(size_error)?;
        if let Some(directory) = &job.directory
            && directory.block_hashes.get(number) != Some(blake3::hash(stored).as_bytes())
        {
            return Err(SealError::Damaged);
        }
        let (access, kind) = (&self.shared.access, job.listed.kind);
        let domain = access.domain(block.pack.domain)?;
        let opener = self
            .openers
            .entry(block.origin().clone())
            .or_insert_with(|| BlockOpener::new(access.repo, domain, kind, block.origin()));
        let opener = match opener {
            Ok(opener) => opener,
            Err(SealError::NotPermitted(_)) => {
                self.found.sealed += 1;
                return Ok(());
            }
            Err(cause) => return Err(cause.clone()),
        };
        let (ordinal, raw_length) = (block.ordinal, block.raw_length);
        let room = std::mem::take(self.room);
        let raw = opener.open(self.codecs, ordinal, raw_length, block.codec, stored, room)?;
        let full = job.directory.as_ref().and_then(|directory| directory.blocks.get(number));
        let mut rest = raw.as_slice();
        for (at, (id, length)) in block.chunks.iter().enumerate() {
            let (bytes, after) = rest.split_at_checked(*length as usize).ok_or_else(size_error)?;
            rest = after;
            let is = chunk_id(domain, kind, bytes).map_err(|_| SealError::NotPermitted("chunk ids"))?;
            let said = full.and_then(|full| full.chunks.get(at)).map(|(id, _)| *id);
            if is.short() != *id || said.is_some_and(|said| said != is) {
                self.found.chunks.push((block.offset, *id));
            }
        }
        *self.room = raw;
        Ok(())
    }
}
