//! The assembler: takes pieces in key order, tells new chunks from known ones, gathers the new into blocks, and
//! writes recipes, the tree and the job's next cache. One thread, so the order of everything stored is the order
//! of the walk.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::file_cache::{CacheWriter, Identity, Record};
use super::given::Given;
use super::links::{Counted, Leaders};
use super::pieces::{
    Cut, FileEnd, Item, Job, PackMessage, PackSlot, Part, Piece, Pool, Pools, Problem, ReadPart, SealJob,
    Stop, Work,
};
use super::plan::{LARGE_FILE_BYTES, SEGMENTS_AHEAD};
use super::worker::Worker;
use crate::base::progress::Progress;
use crate::base::random::Random;
use crate::format::codec::{Decoder, Encoder};
use crate::format::entry::{ChunkRef, Entry, Kind, Timestamp, XattrValue};
use crate::format::header::ObjectKind;
use crate::format::id::{ChunkId, RunId, ShortId};
use crate::format::manifest::Statistics;
use crate::format::pack::IndexPack;
use crate::format::page::TreeRoot;
use crate::pack::build::PackSeed;
use crate::pack::gather::{Gatherer, RawBlock};
use crate::pack::index::IndexMap;
use crate::policy::continuity::Yield;
use crate::repo::reach::Reach;
use crate::repo::recipe::{PageCheck, RecipeWriter, check_recipe_page};
use crate::repo::tree::write::{TreeWriter, check_tree_page};
use crate::seal::access::{Access, Domain};
use crate::source::files::stat::{FileType, Stat};

/// How often what was seen so far is written down for a run that resumes this one.
const CACHE_FLUSH: std::time::Duration = std::time::Duration::from_secs(1);
/// Problems kept with their text; more are only counted.
const PROBLEMS_LIMIT: usize = 10_000;

/// Where new chunks go.
pub struct Lane {
    kind: ObjectKind,
    gatherer: Gatherer,
    slot: Option<(Arc<PackSlot>, u32)>,
}

impl Lane {
    pub fn new(kind: ObjectKind, block_bytes: usize) -> Self {
        Self { kind, gatherer: Gatherer::new(block_bytes), slot: None }
    }
}

/// Everything about storing one chunk after the other.
pub struct Output<'a> {
    pub access: &'a Access,
    pub index: &'a IndexMap,
    pub random: &'a dyn Random,
    pub run: RunId,
    pub packs_made: &'a AtomicU64,
    pub pack_bytes: usize,
    pub data: Lane,
    pub meta: Lane,
    /// Buffers for blocks of data, and how much one may come to hold.
    pub blocks: Pool,
    pub block_capacity_bytes: usize,
    pub seals: Sender<SealJob>,
    pub packer: Sender<PackMessage>,
    /// Packs that are in the local index by now: their chunks need not be remembered here any more.
    pub flushed: Receiver<Vec<IndexPack>>,
    pub fresh: HashSet<ShortId>,
    pub reach: Reach,
    pub given: Given,
    /// Only counts, stores nothing.
    pub dry_run: bool,
    pub statistics: Statistics,
    pub slots: u64,
}

impl Output<'_> {
    fn chunk(&mut self, kind: ObjectKind, id: ChunkId, bytes: &[u8]) -> Result<(), Stop> {
        let short = id.short();
        self.reach.add(kind, &short)?;
        self.statistics.chunks += u64::from(kind == ObjectKind::Data);
        if self.fresh.contains(&short) || self.index.contains(self.access.home, kind, &short)? {
            return Ok(());
        }
        self.fresh.insert(short);
        self.statistics.new_chunks += u64::from(kind == ObjectKind::Data);
        self.statistics.new_bytes += bytes.len() as u64;
        if self.dry_run {
            return Ok(());
        }
        let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
        if kind == ObjectKind::Data && lane.gatherer.is_empty() {
            lane.gatherer.begin_in(self.blocks.take(self.block_capacity_bytes));
        }
        match lane.gatherer.add(id, bytes) {
            Some(block) => self.seal(kind, block),
            None => Ok(()),
        }
    }

    fn page(&mut self, id: ChunkId, page: &[u8], check: PageCheck) -> Result<(), Stop> {
        let short = id.short();
        if !self.fresh.contains(&short) && !self.index.contains(self.access.home, ObjectKind::Meta, &short)? {
            check(page)?;
        }
        self.chunk(ObjectKind::Meta, id, page)
    }

    fn seal(&mut self, kind: ObjectKind, block: RawBlock) -> Result<(), Stop> {
        let seed =
            PackSeed { access: self.access, random: self.random, run: self.run, counter: self.packs_made };
        let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
        let full =
            lane.slot.take_if(|(slot, _)| slot.sealed_bytes.load(Ordering::Relaxed) >= self.pack_bytes);
        if let Some((slot, blocks)) = full {
            self.packer.send(PackMessage::Close { slot, blocks }).map_err(|_| Stop::Hung)?;
        }
        if lane.slot.is_none() {
            let first: Vec<ChunkId> = block.chunks.iter().take(8).map(|(id, _)| *id).collect();
            let sealer = seed.sealer(lane.kind, &first)?;
            let (kind, number, sealed_bytes) = (lane.kind, self.slots, Default::default());
            self.slots += 1;
            lane.slot = Some((Arc::new(PackSlot { number, kind, sealer, sealed_bytes }), 0));
        }
        let Some((slot, blocks)) = &mut lane.slot else { return Err(Stop::Hung) };
        let job = SealJob { slot: slot.clone(), ordinal: *blocks, block };
        *blocks += 1;
        self.seals.send(job).map_err(|_| Stop::Hung)
    }

    /// Forgets chunks that the local index knows by now.
    fn drain_flushed(&mut self) {
        while let Ok(packs) = self.flushed.try_recv() {
            for (id, _) in packs.iter().flat_map(|pack| &pack.blocks).flat_map(|block| &block.chunks) {
                self.fresh.remove(id);
            }
        }
    }

    fn finish(&mut self) -> Result<(), Stop> {
        for kind in [ObjectKind::Data, ObjectKind::Meta] {
            let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
            if let Some(block) = lane.gatherer.finish() {
                self.seal(kind, block)?;
            }
            let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
            if let Some((slot, blocks)) = lane.slot.take() {
                self.packer.send(PackMessage::Close { slot, blocks }).map_err(|_| Stop::Hung)?;
            }
        }
        Ok(())
    }
}

/// What the assembler made.
pub struct Assembled {
    pub root: TreeRoot,
    pub statistics: Statistics,
    pub problems: Vec<Problem>,
    pub reach: Reach,
    pub given: Yield,
}

/// See the module.
pub struct Assembler<'a> {
    pub order: Receiver<Receiver<Piece>>,
    pub out: Output<'a>,
    pub domain: &'a Domain,
    pub cache: Option<CacheWriter>,
    pub pools: Pools,
    pub progress: Arc<dyn Progress>,
    /// Files that changed after this may change again within the clock's grain, unnoticed: not cached.
    pub settled_before: Timestamp,
    tree: TreeWriter<'a>,
    pages: Vec<(ChunkId, Vec<u8>)>,
    leaders: Leaders,
    /// Reads what turns out to need it only here: a further name of a file that could not be read by its first.
    spare: Worker,
    problems: Vec<Problem>,
}

impl<'a> Assembler<'a> {
    pub fn new(
        order: Receiver<Receiver<Piece>>,
        out: Output<'a>,
        domain: &'a Domain,
        cache: Option<CacheWriter>,
        settled_before: Timestamp,
        spare: Worker,
    ) -> Result<Self, Stop> {
        let tree = TreeWriter::new(domain)?;
        let (pools, progress) = (spare.tools.pools.clone(), spare.tools.progress.clone());
        let (pages, leaders, problems) = (Vec::new(), Leaders::default(), Vec::new());
        Ok(Self {
            order,
            out,
            domain,
            cache,
            pools,
            progress,
            settled_before,
            tree,
            pages,
            leaders,
            spare,
            problems,
        })
    }

    /// Takes all answers in order, then ends the tree and the last packs.
    pub fn run(mut self) -> Result<Assembled, Stop> {
        let order = self.order.clone();
        let mut flushed = std::time::Instant::now();
        for pieces in order {
            self.answer(pieces)?;
            self.out.drain_flushed();
            if flushed.elapsed() >= CACHE_FLUSH
                && let Some(cache) = &mut self.cache
            {
                cache.flush();
                flushed = std::time::Instant::now();
            }
        }
        let mut pages = std::mem::take(&mut self.pages);
        let root = self.tree.finish(&mut |id, page| {
            pages.push((id, page));
            Ok(())
        })?;
        for (id, page) in pages {
            self.out.page(id, &page, check_tree_page)?;
        }
        self.out.finish()?;
        if let Some(cache) = &mut self.cache {
            cache.flush();
        }
        let Output { statistics, reach, given, .. } = self.out;
        Ok(Assembled { root, statistics, problems: self.problems, reach, given: given.finish() })
    }

    /// All pieces of one job. A channel that ends without an end is a worker that stopped.
    fn answer(&mut self, pieces: Receiver<Piece>) -> Result<(), Stop> {
        let (mut recipe, mut ids) = (RecipeWriter::default(), Vec::new());
        loop {
            match pieces.recv().map_err(|_| Stop::Hung)? {
                Piece::Batch { buffer, parts } => {
                    for part in parts {
                        self.part(part, &buffer)?;
                    }
                    self.pools.batches.give(buffer);
                    return Ok(());
                }
                Piece::Segment { buffer, chunks, is_stream } => {
                    for cut in chunks {
                        self.content(&mut recipe, &mut ids, cut, &buffer)?;
                    }
                    ids.truncate(if is_stream { 0 } else { ids.len() });
                    self.pools.segments.give(buffer);
                }
                Piece::End(mut end) => {
                    let bytes = std::mem::take(&mut end.xattr_bytes);
                    return self.end(*end, recipe, ids, &bytes);
                }
                Piece::Lost(problem) => {
                    self.problem(problem);
                    return Ok(());
                }
            }
        }
    }

    fn problem(&mut self, problem: Problem) {
        self.out.statistics.problems += 1;
        if self.problems.len() < PROBLEMS_LIMIT {
            self.problems.push(problem);
        }
    }

    /// One chunk of a file's content.
    fn content(
        &mut self,
        recipe: &mut RecipeWriter,
        ids: &mut Vec<u8>,
        cut: Cut,
        buffer: &[u8],
    ) -> Result<(), Stop> {
        let bytes = &buffer[cut.start..cut.start + cut.length];
        self.out.chunk(ObjectKind::Data, cut.id, bytes)?;
        Record::push_id(ids, ObjectKind::Data, &cut.id.short());
        let reference = ChunkRef { id: cut.id.short(), length: cut.length as u32 };
        let pages = &mut self.pages;
        recipe.add(self.domain, reference, &mut |id, page| {
            pages.push((id, page));
            Ok(())
        })?;
        self.recipe_pages(ids)
    }

    fn recipe_pages(&mut self, ids: &mut Vec<u8>) -> Result<(), Stop> {
        for (id, page) in std::mem::take(&mut self.pages) {
            Record::push_id(ids, ObjectKind::Meta, &id.short());
            self.out.page(id, &page, check_recipe_page)?;
        }
        Ok(())
    }

    fn part(&mut self, part: Part, buffer: &[u8]) -> Result<(), Stop> {
        match part {
            Part::Unchanged { record, stat } => self.unchanged(*record, &stat),
            Part::Link { key, stat } => self.link(key, stat),
            Part::Lost(problem) => {
                self.problem(problem);
                Ok(())
            }
            Part::Read(part) => {
                let ReadPart { end, chunks } = *part;
                let mut recipe = RecipeWriter::default();
                let mut ids = Vec::with_capacity(chunks.len() * 17);
                for cut in chunks {
                    self.content(&mut recipe, &mut ids, cut, buffer)?;
                }
                self.end(end, recipe, ids, buffer)
            }
        }
    }

    fn unchanged(&mut self, record: Record, stat: &Stat) -> Result<(), Stop> {
        for (kind, id) in record.ids() {
            self.out.reach.add(kind, &id)?;
            self.out.statistics.chunks += u64::from(kind == ObjectKind::Data);
        }
        let statistics = &mut self.out.statistics;
        match stat.file_type() {
            FileType::RegularFile => {
                statistics.files += 1;
                statistics.files_unmodified += 1;
            }
            FileType::Directory => statistics.directories += 1,
            _ => statistics.others += 1,
        }
        statistics.total_bytes += record.content_bytes;
        self.progress.add_done(record.content_bytes, 1);
        if stat.links > 1 && !stat.is_directory() {
            self.leaders.add(stat, record.clone(), Counted::Unmodified)?;
        }
        self.store_entry(&record.key, &record.entry, record.content_bytes)?;
        if let Some(cache) = &mut self.cache {
            cache.add(&record);
        }
        Ok(())
    }

    /// Another name of a file: stored as such if its first name was, and it is still that file; else by itself.
    fn link(&mut self, key: Vec<u8>, stat: Stat) -> Result<(), Stop> {
        let Some((leader, counted)) = self.leaders.of(&stat)? else { return self.read_here(key, stat) };
        if leader.identity != Identity::from(&stat) && !self.is_now(&key, &stat, &leader.identity) {
            return self.read_here(key, stat);
        }
        let mut decoder = Decoder::new(&leader.entry, "entry of a hard link");
        let mut entry = Entry::decode(&mut decoder)
            .map_err(|error| crate::repo::RepoError::object("the file cache")(error.into()))?;
        entry.hardlink_to = Some(leader.key);
        self.leaders.took(&stat);
        let record = Record { ids: leader.ids, ..self.record(key, &stat, &entry) };
        for (kind, id) in record.ids() {
            self.out.reach.add(kind, &id)?;
        }
        self.count(&entry, counted);
        self.store_entry(&record.key, &record.entry, record.content_bytes)
    }

    /// Whether a path's file is, by now, the one that was stored: it may have changed between the walk and the read.
    fn is_now(&self, key: &[u8], stat: &Stat, stored: &Identity) -> bool {
        let files = self.spare.tools.files.as_ref();
        let opened = stat.is_file().then(|| files.and_then(|files| files.open(key).ok())).flatten();
        opened.is_some_and(|file| file.stat().device == stat.device && Identity::from(file.stat()) == *stored)
    }

    /// Reads a path now, on a thread of its own: the workers may all be waiting for this one.
    fn read_here(&mut self, key: Vec<u8>, stat: Stat) -> Result<(), Stop> {
        let work = match stat.is_file() && stat.size_bytes >= LARGE_FILE_BYTES {
            true => Work::File { key, stat, known: false },
            false => Work::Items(vec![Item::Read { key, stat, known: false }]),
        };
        let (answer, pieces) = bounded(SEGMENTS_AHEAD);
        let mut worker = self.spare.another()?;
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || worker.job(Job { work, answer, under_way: None }));
            let stored = self.answer(pieces);
            match reading.join().unwrap_or(Err(Stop::Hung)) {
                Err(Stop::Failed(error)) => Err(Stop::Failed(error)),
                // One that was hung up on says less than who hung up.
                _ => stored,
            }
        })
    }

    fn record(&self, key: Vec<u8>, stat: &Stat, entry: &Entry) -> Record {
        let mut encoder = Encoder::new();
        entry.encode(&mut encoder);
        let content_bytes = entry.content().map_or(0, |content| content.size_bytes);
        let (identity, ids) = (Identity::from(stat), Vec::new());
        Record { key, identity, entry: encoder.finish(), content_bytes, ids }
    }

    fn count(&mut self, entry: &Entry, counted: Counted) {
        let statistics = &mut self.out.statistics;
        match &entry.kind {
            Kind::File(content) | Kind::Stream(content) => {
                statistics.files += 1;
                statistics.total_bytes += content.size_bytes;
                match counted {
                    Counted::Changed => statistics.files_changed += 1,
                    Counted::New => statistics.files_new += 1,
                    Counted::Unmodified => statistics.files_unmodified += 1,
                }
            }
            Kind::Directory => statistics.directories += 1,
            _ => statistics.others += 1,
        }
        self.progress.add_done(0, 1);
    }

    /// A path is complete: its entry goes into the tree and, if it can be trusted next time, into the cache.
    fn end(
        &mut self,
        end: FileEnd,
        recipe: RecipeWriter,
        mut ids: Vec<u8>,
        xattr_bytes: &[u8],
    ) -> Result<(), Stop> {
        let FileEnd { key, stat, known, mut entry, long_xattrs, problems, changed, .. } = end;
        for (name, cut) in long_xattrs {
            self.out.chunk(ObjectKind::Data, cut.id, &xattr_bytes[cut.start..cut.start + cut.length])?;
            Record::push_id(&mut ids, ObjectKind::Data, &cut.id.short());
            let at = entry.xattrs.partition_point(|(other, _)| *other < name);
            let reference = ChunkRef { id: cut.id.short(), length: cut.length as u32 };
            entry.xattrs.insert(at, (name, XattrValue::Chunk(reference)));
        }
        if entry.content().is_some() {
            let pages = &mut self.pages;
            let refs = recipe.finish(self.domain, &mut |id, page| {
                pages.push((id, page));
                Ok(())
            })?;
            self.recipe_pages(&mut ids)?;
            if let Some(content) = entry.content_mut() {
                content.refs = refs;
            }
        }
        let has_problems = !problems.is_empty();
        for problem in problems {
            self.problem(problem);
        }
        let counted = if known { Counted::Changed } else { Counted::New };
        self.count(&entry, counted);
        let Some(stat) = stat else {
            let content_bytes = entry.content().map_or(0, |content| content.size_bytes);
            let mut encoder = Encoder::new();
            entry.encode(&mut encoder);
            return self.store_entry(&key, encoder.as_slice(), content_bytes);
        };
        let record = Record { ids, ..self.record(key, &stat, &entry) };
        if stat.links > 1 && !stat.is_directory() {
            self.leaders.add(&stat, record.clone(), counted)?;
        }
        self.store_entry(&record.key, &record.entry, record.content_bytes)?;
        // Whole seconds in both times: a file system of coarse times, FAT's are two seconds wide.
        let coarse = stat.ctime.nanoseconds == 0 && stat.mtime.nanoseconds == 0;
        let mut before = self.settled_before;
        before.seconds -= if coarse { 3 } else { 0 };
        let settled = stat.ctime < before && stat.mtime < before;
        if let Some(cache) = &mut self.cache
            && settled
            && !changed
            && !has_problems
        {
            cache.add(&record);
        }
        Ok(())
    }

    fn store_entry(&mut self, key: &[u8], entry: &[u8], content_bytes: u64) -> Result<(), Stop> {
        self.out.given.add(key, content_bytes);
        let pages = &mut self.pages;
        self.tree.add_encoded(key, entry, content_bytes, &mut |id, page| {
            pages.push((id, page));
            Ok(())
        })?;
        for (id, page) in std::mem::take(&mut self.pages) {
            self.out.page(id, &page, check_tree_page)?;
        }
        Ok(())
    }
}
