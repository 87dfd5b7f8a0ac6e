//! A window of files: its chunks, grouped by the block that holds them, and the writing of one opened block.

use std::collections::HashMap;
use std::sync::Arc;

use super::Shared;
use super::file::FileTask;
use crate::engine::EngineError;
use crate::engine::read::fetch::Wanted;
use crate::engine::read::locate::{Located, Locator};
use crate::format::entry::ChunkRef;
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::pack::PackError;
use crate::pack::index::BlockInfo;
use crate::pack::read::{OpenBlock, chunk_id};

/// Most chunks in a window: about 40 bytes each, twice.
const WINDOW_CHUNKS: usize = 128 * 1024;
/// The first window is small, so that writing begins at once; each next one is twice as large.
const FIRST_WINDOW_CHUNKS: usize = 2048;
/// Most files in a window: about 600 bytes each.
const WINDOW_FILES: usize = 16 * 1024;
/// Most chunks for which a file counts as written in one go.
const ONE_GO_CHUNKS: usize = 1;

/// A chunk that a file wants.
#[derive(Clone, Debug)]
pub(super) struct Want {
    /// Place in [`Window::files`].
    pub file: u32,
    pub length: u32,
    pub id: ShortId,
    /// Offset in the file's stream.
    pub offset: u64,
}

/// Held by everything that belongs to a window; the window is done when all are dropped.
pub(super) type Ticket = tokio::sync::mpsc::Sender<()>;

/// See the module.
#[derive(Default)]
pub(super) struct Window {
    pub files: Vec<Arc<FileTask>>,
    pub wants: Vec<Want>,
    /// Files of which everything is known: the planner lets go of them when their chunks are on the way.
    pub complete: Vec<Arc<FileTask>>,
    open_files: usize,
    /// Most files that may be open at once, because their chunks can lie in several blocks.
    open_limit: usize,
    limit: usize,
}

impl Window {
    pub(super) fn new(open_limit: usize) -> Self {
        Self { limit: FIRST_WINDOW_CHUNKS, open_limit, ..Self::default() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.wants.len() >= self.limit
            || self.files.len() + self.complete.len() >= WINDOW_FILES
            || self.open_files >= self.open_limit
    }

    /// The next window, empty.
    pub(super) fn next(&self) -> Self {
        Self { limit: (self.limit * 2).min(WINDOW_CHUNKS), open_limit: self.open_limit, ..Self::default() }
    }

    /// Adds a file whose chunks follow; returns its place.
    pub(super) fn add_file(&mut self, task: Arc<FileTask>) -> u32 {
        self.files.push(task);
        self.files.len() as u32 - 1
    }

    /// Adds chunks of a file from `offset` of its stream on.
    pub(super) fn add_chunks(&mut self, file: u32, mut offset: u64, refs: &[ChunkRef]) {
        self.open_files += usize::from(refs.len() > ONE_GO_CHUNKS);
        for reference in refs {
            self.wants.push(Want { file, length: reference.length, id: reference.id, offset });
            offset += u64::from(reference.length);
        }
    }

    /// Groups the chunks by block, in the order of their packs' first use and by offset within a pack, so that
    /// neighbours are read together.
    pub(super) fn by_block(
        &mut self,
        locator: &mut Locator,
        shared: &Shared,
        ticket: &Ticket,
    ) -> Result<Vec<Wanted<BlockWork>>, EngineError> {
        let files: Arc<[Arc<FileTask>]> = std::mem::take(&mut self.files).into();
        let mut blocks: Vec<Wanted<BlockWork>> = Vec::new();
        let mut rows: HashMap<i64, usize> = HashMap::new();
        let mut packs: HashMap<i64, usize> = HashMap::new();
        for want in std::mem::take(&mut self.wants) {
            let task = &files[want.file as usize];
            if task.has_failed() {
                continue;
            }
            let reference = ChunkRef { id: want.id, length: want.length };
            let Some(Located { info, offset: block_offset, .. }) = locator.locate(&reference)? else {
                task.lose(shared, PackError::Missing(want.id));
                continue;
            };
            let order = packs.len();
            packs.entry(info.pack.row).or_insert(order);
            let place = *rows.entry(info.row).or_insert_with(|| {
                // The list of chunks would be most of the window's memory, and was used already.
                let slim = BlockInfo { chunks: Vec::new(), ..(*info).clone() };
                let work = BlockWork { places: Vec::new(), files: files.clone(), _ticket: ticket.clone() };
                blocks.push(Wanted { info: Arc::new(slim), tag: work });
                blocks.len() - 1
            });
            task.await_pieces(1);
            blocks[place].tag.places.push(Place { want, block_offset });
        }
        blocks.sort_by_key(|block| (packs.get(&block.info.pack.row).copied(), block.info.offset));
        Ok(blocks)
    }
}

/// What one block is wanted for.
pub(super) struct BlockWork {
    places: Vec<Place>,
    files: Arc<[Arc<FileTask>]>,
    _ticket: Ticket,
}

struct Place {
    want: Want,
    /// Where in the block's plaintext the chunk is.
    block_offset: u32,
}

/// Writes an opened block's chunks to every file that wants them.
pub(super) fn write_block(
    shared: &Shared,
    info: &Arc<BlockInfo>,
    mut work: BlockWork,
    opened: Result<OpenBlock, PackError>,
) {
    if shared.stopped() {
        return;
    }
    match opened {
        Ok(block) => {
            work.places.sort_by_key(|place| place.block_offset);
            write_places(shared, info, &work, &block.bytes);
        }
        Err(error) if !error.is_damage() => shared.outcome.stop_with(EngineError::from(error)),
        Err(_) => work.places.iter().for_each(|place| write_from_elsewhere(shared, &work.files, &place.want)),
    }
}

fn write_places(shared: &Shared, info: &BlockInfo, work: &BlockWork, bytes: &[u8]) {
    let places = work.places.as_slice();
    let mut start = 0;
    // Neighbours in the block that are neighbours in one file are written together.
    while start < places.len() {
        let first = &places[start];
        let mut length = 0;
        let mut count = 0;
        while let Some(next) = places.get(start + count)
            && next.want.file == first.want.file
            && next.want.offset == first.want.offset + length
            && u64::from(next.block_offset) == u64::from(first.block_offset) + length
            && is_sound(shared, info, next, bytes)
        {
            length += u64::from(next.want.length);
            count += 1;
        }
        if count == 0 {
            // The block authenticates, yet holds something else here: as good as damaged.
            write_from_elsewhere(shared, &work.files, &first.want);
            start += 1;
            continue;
        }
        let task = &work.files[first.want.file as usize];
        let from = first.block_offset as usize;
        task.write(shared, first.want.offset, &bytes[from..from + length as usize]);
        shared.progress.add_done(length, 0);
        shared.outcome.add(|outcome| outcome.fetched_bytes += length);
        task.release(shared, count);
        start += count;
    }
}

/// Whether the chunk's bytes have its id.
fn is_sound(shared: &Shared, info: &BlockInfo, place: &Place, bytes: &[u8]) -> bool {
    let from = place.block_offset as usize;
    let Some(chunk) = bytes.get(from..from + place.want.length as usize) else { return false };
    let Ok(domain) = shared.repo_reader.access().domain(shared.domain) else { return false };
    chunk_id(domain, info.pack.kind, chunk).is_ok_and(|id| id.short() == place.want.id)
}

/// The block could not be used: tries every location of the chunk, and names the file if none is sound.
fn write_from_elsewhere(shared: &Shared, files: &[Arc<FileTask>], want: &Want) {
    let task = &files[want.file as usize];
    if !task.has_failed() && !shared.stopped() {
        let read = shared.repo_reader.chunk(shared.domain, ObjectKind::Data, &want.id);
        match shared.runtime.block_on(read) {
            Ok(bytes) => task.write(shared, want.offset, &bytes),
            Err(error) => task.lose(shared, error),
        }
    }
    task.release(shared, 1);
}
