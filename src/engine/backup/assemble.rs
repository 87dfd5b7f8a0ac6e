//! The assembler: takes pieces in key order, tells new chunks from known ones, gathers the new into blocks, and
//! writes recipes, the tree and the job's next cache. One thread, so the order of everything stored is the order
//! of the walk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::file_cache::{CacheWriter, Identity, Record};
use super::given::Given;
use super::pieces::{
    Cut, FileEnd, PackMessage, PackSlot, Part, Piece, Pools, Problem, ReadPart, SealJob, Stop,
};
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
use crate::repo::recipe::RecipeWriter;
use crate::repo::tree::write::TreeWriter;
use crate::seal::access::{Access, Domain};
use crate::source::files::path_of_key;
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
        match lane.gatherer.add(id, bytes) {
            Some(block) => self.seal(kind, block),
            None => Ok(()),
        }
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

/// The name a hard-linked file was first seen by.
struct Leader {
    key: Vec<u8>,
    entry: Entry,
    ids: Vec<u8>,
    /// Names still to come, as far as the link count tells.
    left: u32,
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
    leaders: HashMap<(u64, u64), Leader>,
    problems: Vec<Problem>,
}

impl<'a> Assembler<'a> {
    pub fn new(
        order: Receiver<Receiver<Piece>>,
        out: Output<'a>,
        domain: &'a Domain,
        cache: Option<CacheWriter>,
        pools: Pools,
        progress: Arc<dyn Progress>,
        settled_before: Timestamp,
    ) -> Result<Self, Stop> {
        let tree = TreeWriter::new(domain)?;
        let (pages, leaders, problems) = (Vec::new(), HashMap::new(), Vec::new());
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
                cache.flush()?;
                flushed = std::time::Instant::now();
            }
        }
        let mut pages = std::mem::take(&mut self.pages);
        let root = self.tree.finish(&mut |id, page| {
            pages.push((id, page));
            Ok(())
        })?;
        for (id, page) in pages {
            self.out.chunk(ObjectKind::Meta, id, &page)?;
        }
        self.out.finish()?;
        if let Some(cache) = &mut self.cache {
            cache.flush()?;
        }
        let Output { statistics, reach, given, .. } = self.out;
        Ok(Assembled { root, statistics, problems: self.problems, reach, given: given.finish() })
    }

    /// All pieces of one job. A channel that ends without an end is a worker that stopped.
    fn answer(&mut self, pieces: Receiver<Piece>) -> Result<(), Stop> {
        let mut recipe = RecipeWriter::default();
        let mut ids = Vec::new();
        loop {
            match pieces.recv().map_err(|_| Stop::Hung)? {
                Piece::Batch { buffer, parts } => {
                    for part in parts {
                        self.part(part, &buffer)?;
                    }
                    self.pools.batches.give(buffer);
                    return Ok(());
                }
                Piece::Segment { buffer, chunks } => {
                    for cut in chunks {
                        self.content(&mut recipe, &mut ids, cut, &buffer)?;
                    }
                    self.pools.segments.give(buffer);
                }
                Piece::End(end) => {
                    let bytes = end.xattr_bytes.clone();
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
            self.out.chunk(ObjectKind::Meta, id, &page)?;
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
            let mut decoder = Decoder::new(&record.entry, "cached entry");
            let entry = Entry::decode(&mut decoder)
                .map_err(|error| crate::repo::RepoError::object("the file cache")(error.into()))?;
            self.lead(&record.key, stat, entry, record.ids.clone());
        }
        self.store_entry(&record.key, &record.entry, record.content_bytes)?;
        if let Some(cache) = &mut self.cache {
            cache.add(&record)?;
        }
        Ok(())
    }

    fn lead(&mut self, key: &[u8], stat: &Stat, mut entry: Entry, ids: Vec<u8>) {
        entry.hardlink_to = None;
        let leader = Leader { key: key.to_vec(), entry, ids, left: stat.links - 1 };
        self.leaders.insert((stat.device, stat.inode), leader);
    }

    fn link(&mut self, key: Vec<u8>, stat: Stat) -> Result<(), Stop> {
        let inode = (stat.device, stat.inode);
        let Some(leader) = self.leaders.get_mut(&inode) else {
            let path = path_of_key(&key).display().to_string();
            let message = "is a hard link to a file that could not be read".to_owned();
            self.problem(Problem { path, message });
            return Ok(());
        };
        leader.left = leader.left.saturating_sub(1);
        let mut entry = leader.entry.clone();
        entry.hardlink_to = Some(leader.key.clone());
        let ids = leader.ids.clone();
        if leader.left == 0 {
            self.leaders.remove(&inode);
        }
        let record = Record { ids, ..self.record(key, &stat, &entry) };
        for (kind, id) in record.ids() {
            self.out.reach.add(kind, &id)?;
        }
        self.count(&entry, None);
        self.store_entry(&record.key, &record.entry, record.content_bytes)
    }

    fn record(&self, key: Vec<u8>, stat: &Stat, entry: &Entry) -> Record {
        let mut encoder = Encoder::new();
        entry.encode(&mut encoder);
        let content_bytes = entry.content().map_or(0, |content| content.size_bytes);
        let (identity, ids) = (Identity::from(stat), Vec::new());
        Record { key, identity, entry: encoder.finish(), content_bytes, ids }
    }

    fn count(&mut self, entry: &Entry, known: Option<bool>) {
        let statistics = &mut self.out.statistics;
        match &entry.kind {
            Kind::File(content) | Kind::Stream(content) => {
                statistics.files += 1;
                statistics.total_bytes += content.size_bytes;
                match known {
                    Some(true) => statistics.files_changed += 1,
                    Some(false) => statistics.files_new += 1,
                    None => {}
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
        self.count(&entry, Some(known));
        let Some(stat) = stat else {
            let content_bytes = entry.content().map_or(0, |content| content.size_bytes);
            let mut encoder = Encoder::new();
            entry.encode(&mut encoder);
            return self.store_entry(&key, encoder.as_slice(), content_bytes);
        };
        let record = Record { ids, ..self.record(key, &stat, &entry) };
        if stat.links > 1 && !stat.is_directory() {
            self.lead(&record.key, &stat, entry, record.ids.clone());
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
            cache.add(&record)?;
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
            self.out.chunk(ObjectKind::Meta, id, &page)?;
        }
        Ok(())
    }
}
