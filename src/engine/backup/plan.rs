//! The planner: walks, tells changed from unchanged by the job's cache, and deals out work in key order.

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::io::Errno;

use super::file_cache::{CacheReader, Identity};
use super::links::Names;
use super::pieces::{Item, Job, Piece, Problem, Stop, Work};
use crate::base::cancel::Cancel;
use crate::engine::EngineError;
use crate::pack::index::IndexMap;
use crate::source::files::FileError;
use crate::source::files::stat::Stat;
use crate::source::files::walk::{Walk, WalkItem};

/// Files of at least this many bytes are jobs of their own, cut as they are read.
pub const LARGE_FILE_BYTES: u64 = 1 << 20;
/// Content bytes of one batch, about.
const BATCH_BYTES: u64 = 1 << 20;
/// Items of one batch at most.
const BATCH_ITEMS: usize = 256;
/// Segments of a large file that wait for the assembler.
pub const SEGMENTS_AHEAD: usize = 2;

/// Where the planner sends its work: jobs to whoever is free, and their answers' ends to the assembler, in order.
pub struct Outlet {
    pub jobs: Sender<Job>,
    pub order: Sender<Receiver<Piece>>,
    /// Given to every job while somebody wants to know when all of them were read.
    pub under_way: Option<Sender<()>>,
}

impl Outlet {
    /// Queues work; its answer will be read after those of all work queued before.
    pub fn send(&self, work: Work) -> Result<(), Stop> {
        let (answer, pieces) = bounded(SEGMENTS_AHEAD);
        // The place in the order first: the assembler waits for the earliest job, and jobs start in this order.
        self.order.send(pieces).map_err(|_| Stop::Hung)?;
        let under_way = self.under_way.clone();
        self.jobs.send(Job { work, answer, under_way }).map_err(|_| Stop::Hung)
    }

    fn lost(&self, problem: Problem) -> Result<(), Stop> {
        let (answer, pieces) = bounded(1);
        let _ = answer.send(Piece::Lost(problem));
        self.order.send(pieces).map_err(|_| Stop::Hung)
    }
}

/// Decides what each path needs.
pub struct Planner<'p> {
    pub caches: Vec<CacheReader>,
    pub index: &'p IndexMap,
    pub home: u32,
    pub cancel: Cancel,
    pub outlet: Outlet,
    /// Roots whose absence fails the backup instead of making it partial.
    pub roots_required: bool,
    batch: Vec<Item>,
    batch_bytes: u64,
    names: Names,
}

impl<'p> Planner<'p> {
    pub fn new(
        caches: Vec<CacheReader>,
        index: &'p IndexMap,
        home: u32,
        cancel: Cancel,
        outlet: Outlet,
    ) -> Self {
        let (batch, names) = (Vec::new(), Names::default());
        Self { caches, index, home, cancel, outlet, roots_required: true, batch, batch_bytes: 0, names }
    }

    /// Plans a whole walk and waits until everything it found was read.
    pub fn walk_and_wait(&mut self, walk: Walk) -> Result<(), Stop> {
        let (under_way, read) = bounded(0);
        self.outlet.under_way = Some(under_way);
        let planned = self.walk(walk);
        self.outlet.under_way = None;
        planned?;
        // Nobody sends: it ends when the last job is gone.
        let _ = read.recv();
        self.cancel.check().map_err(Stop::from)
    }

    /// Plans a whole walk.
    pub fn walk(&mut self, mut walk: Walk) -> Result<(), Stop> {
        let mut lost_roots: Vec<String> = Vec::new();
        for items in walk.by_ref() {
            self.cancel.check()?;
            for item in items {
                if let Err(problem) = &item
                    && problem.root
                {
                    lost_roots.push(lost_root(&problem.error));
                }
                self.item(item)?;
            }
        }
        self.cancel.check()?;
        if !walk.is_complete() {
            let message = "the walk ended early: a thread of it died";
            return Err(Stop::Failed(EngineError::Source(message.into())));
        }
        self.flush()?;
        if self.roots_required && !lost_roots.is_empty() {
            let message = format!("cannot back up {}", lost_roots.join(", and "));
            return Err(Stop::Failed(EngineError::Source(message)));
        }
        Ok(())
    }

    fn item(&mut self, item: WalkItem) -> Result<(), Stop> {
        let found = match item {
            Ok(found) => found,
            Err(problem) => {
                self.flush()?;
                let path = problem.error.path.display().to_string();
                let cause = &problem.error.cause;
                let message = format!("cannot {}: {cause}", problem.error.operation);
                return self.outlet.lost(Problem { path, message });
            }
        };
        let stat = found.stat;
        let shared_inode = stat.links > 1 && !stat.is_directory();
        if shared_inode && self.names.is_further(&stat) {
            return self.push(Item::Link { key: found.key, stat }, 0);
        }
        let mut known = false;
        for cache in &mut self.caches {
            let Some(record) = cache.find(&found.key) else { continue };
            known |= cache.complete;
            if record.identity != Identity::from(&stat) {
                continue;
            }
            let complete = cache.trusted || {
                let mut all = true;
                for (kind, id) in record.ids() {
                    all = all && self.index.contains(self.home, kind, &id)?;
                }
                all
            };
            if complete {
                let record = Box::new(record);
                return self.push(Item::Unchanged { record, stat }, 0);
            }
        }
        self.read(found.key, stat, known)
    }

    fn read(&mut self, key: Vec<u8>, stat: Stat, known: bool) -> Result<(), Stop> {
        if stat.is_file() && stat.size_bytes >= LARGE_FILE_BYTES {
            self.flush()?;
            return self.outlet.send(Work::File { key, stat, known });
        }
        let bytes = if stat.is_file() { stat.size_bytes } else { 0 };
        self.push(Item::Read { key, stat, known }, bytes)
    }

    fn push(&mut self, item: Item, bytes: u64) -> Result<(), Stop> {
        self.batch.push(item);
        self.batch_bytes += bytes;
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_ITEMS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let items = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ITEMS));
        self.outlet.send(Work::Items(items))
    }
}

fn lost_root(error: &FileError) -> String {
    let path = error.path.display();
    match error.errno() {
        Some(Errno::NOENT) => format!("{path}: it does not exist"),
        _ => format!("{path}: cannot {} it: {}", error.operation, error.cause),
    }
}
