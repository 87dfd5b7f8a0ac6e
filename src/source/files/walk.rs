//! The walk: every path below the roots, with its stat, strictly ascending by key.
//!
//! Directories are scanned ahead by several threads; one thread puts their results in order and hands them on in
//! batches. It scans a directory itself when nobody got to it yet, so the order never waits for the queue and
//! nothing can deadlock. Threads stop looking ahead when `LOOKAHEAD` results wait, so memory is bounded
//! whatever the shape of the tree.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::CWD;
use rustix::io::Errno;

use super::exclude::{ExcludeOptions, Excludes, PatternError};
use super::place::Places;
use super::roots::Node;
use super::scan::{Context, DirectoryJob, Job, Scanned, Scope, Step, look_up};
use super::stat::Stat;
use super::{FileError, path_of_key};
use crate::base::cancel::Cancel;

/// Results scanned ahead of the one handed on.
const LOOKAHEAD: usize = 32 * 1024;
/// Items handed on together.
const BATCH: usize = 512;
/// Batches that wait in the channel.
const BATCHES: usize = 16;

/// What a walk takes in.
#[derive(Clone, Debug, Default)]
pub struct WalkOptions {
    pub exclude: ExcludeOptions,
    /// Do not descend into directories on another device than the root above them; the mount point itself is
    /// kept, empty.
    pub one_file_system: bool,
    /// Threads that scan ahead; 0 is one a core, at most eight.
    pub threads: usize,
}

/// One path that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub key: Vec<u8>,
    pub stat: Stat,
}

/// A path that could not be looked at. What is below it is missing from the walk.
#[derive(Debug)]
pub struct WalkProblem {
    pub error: FileError,
    /// The path is one the caller named.
    pub root: bool,
}

impl std::fmt::Display for WalkProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for WalkProblem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl WalkProblem {
    pub(super) fn repeat(&self) -> Self {
        let cause = self.error.errno().unwrap_or(Errno::IO);
        Self { error: FileError::new(self.error.operation, &self.error.path, cause), root: self.root }
    }
}

/// A walk could not start.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// One outcome of a walk.
pub type WalkItem = Result<Found, WalkProblem>;

/// A running walk: an iterator over batches. Dropping it ends its threads.
#[derive(Debug)]
pub struct Walk {
    places: Arc<Places>,
    batches: Option<Receiver<Vec<WalkItem>>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Walks `roots` (relative ones are made absolute against `cwd`, by text).
///
/// Every root's ancestors are emitted as directories, but only the roots are descended into. Roots that overlap
/// or repeat merge. A root that is a symbolic link is stored as a link, unless it was written with a slash at its
/// end (or another root lies below it): then the directory behind it is stored in its place. Roots themselves are
/// never excluded. A cancelled walk just ends.
///
/// # Errors
/// Bad patterns, and a system without `/` or threads; everything else is an item of the walk.
pub fn walk<P: AsRef<Path>>(
    roots: &[P],
    cwd: &Path,
    options: WalkOptions,
    cancel: &Cancel,
) -> Result<Walk, WalkError> {
    let top = Node::tree(roots, cwd);
    let slash = |errno: Errno| FileError::new("open directory", PathBuf::from("/"), errno);
    let places = Arc::new(Places::new(top.followed_links()).map_err(slash)?);
    start(places, Begin::Roots(top), options, cancel)
}

/// Walks the folder that `key` stands for in `places`: it and everything below it, nothing above it.
///
/// # Errors
/// As [`walk`].
pub fn walk_folder(
    places: &Arc<Places>,
    key: &[u8],
    options: WalkOptions,
    cancel: &Cancel,
) -> Result<Walk, WalkError> {
    start(places.clone(), Begin::Folder(key.to_vec()), options, cancel)
}

/// Where a walk begins.
enum Begin {
    /// At `/`, towards the roots.
    Roots(Arc<Node>),
    /// At this key, which the places know.
    Folder(Vec<u8>),
}

fn start(
    places: Arc<Places>,
    begin: Begin,
    options: WalkOptions,
    cancel: &Cancel,
) -> Result<Walk, WalkError> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)),
        threads => threads,
    };
    let excludes = Excludes::new(&options.exclude)?;
    let context = Context { places: places.clone(), excludes, options };
    let shared = Arc::new(Shared {
        context,
        cancel: cancel.clone(),
        queue: Mutex::default(),
        work: Condvar::new(),
        done: Condvar::new(),
        complete: AtomicBool::new(false),
    });
    let (sender, receiver) = bounded(BATCHES);
    let mut walk = Walk { places, batches: Some(receiver), shared: shared.clone(), threads: Vec::new() };
    let emitter = shared.clone();
    walk.start("walk", move || emitter.emit(begin, sender))?;
    for _ in 0..threads {
        let worker = shared.clone();
        walk.start("walk-ahead", move || worker.work_ahead())?;
    }
    Ok(walk)
}

impl Walk {
    fn start(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), WalkError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body).map_err(WalkError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Once the iterator has ended: whether it ended because everything was seen, and not because the walk was
    /// cancelled or one of its threads died.
    pub fn is_complete(&self) -> bool {
        self.shared.complete.load(Ordering::Acquire)
    }

    /// Where the keys of this walk really are; what reads them needs it.
    pub fn places(&self) -> Arc<Places> {
        self.places.clone()
    }
}

impl Iterator for Walk {
    type Item = Vec<WalkItem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.as_ref()?.recv().ok()
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.batches = None;
        self.shared.end();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A job's place in the walk: the key of its first result; the rest of a large directory comes before the
/// directory that may be its first name.
type Place = (Vec<u8>, bool);

/// Jobs by the place of their results: the nearest are done first.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Place, Job>,
    /// Jobs somebody took: `None` until they are done.
    taken: HashMap<Place, Option<Ready>>,
    /// Steps that are ready and not yet handed on.
    ahead: usize,
    ended: bool,
}

/// A job's results, with its following jobs already queued.
#[derive(Debug)]
struct Ready {
    steps: Vec<Step>,
    rest: Option<Place>,
}

#[derive(Debug)]
struct Shared {
    context: Context,
    cancel: Cancel,
    queue: Mutex<Queue>,
    /// Something is waiting, or there is room ahead again.
    work: Condvar,
    /// A taken job is done.
    done: Condvar,
    /// Everything was handed on.
    complete: AtomicBool,
}

fn place_of(job: &Job) -> Place {
    (job.order(), matches!(job, Job::Directory(_)))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().ended = true;
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Queues what follows from a job; the lock is held so that nobody sees its results without their jobs.
    fn follow_up(&self, queue: &mut Queue, scanned: Scanned) -> Ready {
        let Scanned { steps, directories, rest } = scanned;
        let rest = rest.map(|job| {
            let place = place_of(&job);
            queue.waiting.insert(place.clone(), job);
            place
        });
        for job in directories {
            queue.waiting.insert((job.key.clone(), true), Job::Directory(job));
        }
        if !queue.waiting.is_empty() {
            self.work.notify_all();
        }
        Ready { steps, rest }
    }

    fn work_ahead(&self) {
        let mut queue = self.lock();
        while !queue.ended && !self.cancel.is_cancelled() {
            if queue.ahead < LOOKAHEAD
                && let Some((place, job)) = queue.waiting.pop_first()
            {
                queue.taken.insert(place.clone(), None);
                drop(queue);
                let scanned = job.run(&self.context);
                queue = self.lock();
                queue.ahead += scanned.steps.len();
                let ready = self.follow_up(&mut queue, scanned);
                queue.taken.insert(place, Some(ready));
                self.done.notify_all();
            } else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// The results of the job at `place`: done here when nobody took it.
    fn take(&self, place: &Place) -> Option<Ready> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.waiting.remove(place) {
                drop(queue);
                let scanned = job.run(&self.context);
                return Some(self.follow_up(&mut self.lock(), scanned));
            }
            match queue.taken.remove(place) {
                Some(Some(ready)) => {
                    let was_full = queue.ahead >= LOOKAHEAD;
                    queue.ahead -= ready.steps.len();
                    if was_full {
                        self.work.notify_all();
                    }
                    return Some(ready);
                }
                Some(None) => queue.taken.insert(place.clone(), None),
                None => return None,
            };
            if queue.ended {
                return None;
            }
            queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn emit(&self, begin: Begin, sender: Sender<Vec<WalkItem>>) {
        let mut batches = Batches { sender, batch: Vec::with_capacity(BATCH) };
        if self.emit_all(begin, &mut batches).is_some() && !self.cancel.is_cancelled() {
            batches.send();
            self.complete.store(true, Ordering::Release);
        }
        self.end();
    }

    /// `None` when the walk was ended from outside.
    fn emit_all(&self, begin: Begin, batches: &mut Batches) -> Option<()> {
        let (key, top, root) = match begin {
            Begin::Roots(top) => (Vec::new(), Some(top.clone()), top.root),
            Begin::Folder(key) => (key, None, true),
        };
        let looked = match top {
            Some(_) => look_up(CWD, c"/", true),
            None => self.context.places.stat(&key),
        };
        let stat = match looked {
            Ok(stat) => stat,
            Err(errno) => {
                let error = FileError::new("stat", path_of_key(&key), errno);
                return batches.push(Err(WalkProblem { error, root }));
            }
        };
        let scope = if root { Scope::Whole { device: stat.device } } else { Scope::Roots };
        // A folder walked alone is a root that no name above it leads to.
        let node = top.unwrap_or_else(|| Arc::new(Node { root: true, ..Node::default() }));
        let place = (key.clone(), true);
        let job = DirectoryJob { key: key.clone(), scope, node: Some(node) };
        batches.push(Ok(Found { key, stat }))?;
        let first = Scanned { directories: vec![job], ..Scanned::default() };
        self.follow_up(&mut self.lock(), first);
        // Directories being emitted, outermost first: what is left of their results.
        let mut open: Vec<(std::vec::IntoIter<Step>, Option<Place>)> = Vec::new();
        let mut next = Some(place);
        loop {
            if let Some(place) = next.take() {
                let ready = self.take(&place)?;
                open.push((ready.steps.into_iter(), ready.rest));
            }
            let Some((steps, rest)) = open.last_mut() else { return Some(()) };
            match steps.next() {
                Some(Step::Found(found, descend)) => {
                    next = descend.then(|| (found.key.clone(), true));
                    batches.push(Ok(found))?;
                }
                Some(Step::Problem(problem)) => batches.push(Err(problem))?,
                None => {
                    next = rest.take();
                    open.pop();
                }
            }
            if batches.batch.is_empty() && self.cancel.is_cancelled() {
                return None;
            }
        }
    }
}

/// Items gathered until they are worth a wake-up.
struct Batches {
    sender: Sender<Vec<WalkItem>>,
    batch: Vec<WalkItem>,
}

impl Batches {
    /// `None` when nobody listens any more.
    fn push(&mut self, item: WalkItem) -> Option<()> {
        self.batch.push(item);
        if self.batch.len() < BATCH { Some(()) } else { self.send() }
    }

    fn send(&mut self) -> Option<()> {
        if self.batch.is_empty() {
            return Some(());
        }
        self.sender.send(std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH))).ok()
    }
}
