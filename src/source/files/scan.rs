//! One directory at a time: list the names, sort them, stat them, decide what belongs to the walk.
//!
//! Work comes in jobs of at most [`SEGMENT`] stats, so that a directory of a million names costs its names in
//! one arena and nothing more. Runs on any thread; [`super::walk`] puts the results in order.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};
use rustix::io::Errno;

use super::exclude::Excludes;
use super::place::Places;
use super::roots::Node;
use super::stat::Stat;
use super::walk::{Found, WalkOptions, WalkProblem};
use super::{FileError, path_of_key, push_component};
use crate::format::entry::KEY_LIMIT;

/// Names looked at by one job.
const SEGMENT: usize = 1024;
const LIST_BUFFER_BYTES: usize = 64 * 1024;

/// Everything that stays the same during a walk.
#[derive(Debug)]
pub(super) struct Context {
    pub places: Arc<Places>,
    pub excludes: Excludes,
    pub options: WalkOptions,
}

/// How much of a directory belongs to the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything that is not left out, on this device when the walk stays on one.
    Whole { device: u64 },
    /// Only the names that lead to roots.
    Roots,
}

/// A directory to list.
#[derive(Debug)]
pub(super) struct DirectoryJob {
    pub key: Vec<u8>,
    pub scope: Scope,
    /// Roots at or below this directory.
    pub node: Option<Arc<Node>>,
}

/// Work that any thread may do.
#[derive(Debug)]
pub(super) enum Job {
    Directory(DirectoryJob),
    /// The names of a large directory from this index on.
    Rest(Arc<Listing>, usize),
}

/// One outcome, in key order.
#[derive(Debug)]
pub(super) enum Step {
    /// A path, and whether its directory job follows.
    Found(Found, bool),
    Problem(WalkProblem),
}

/// What a job produced, and what remains of its directory after it.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub steps: Vec<Step>,
    /// The directories among `steps` that the walk descends into.
    pub directories: Vec<DirectoryJob>,
    pub rest: Option<Job>,
}

/// A directory's sorted names in one arena, and the open directory.
#[derive(Debug)]
pub(super) struct Listing {
    job: DirectoryJob,
    directory: OwnedFd,
    arena: Vec<u8>,
    /// Offset into the arena and length without the NUL that follows.
    names: Vec<(u32, u16)>,
    /// A marker file says that only itself is kept.
    only: Option<Vec<u8>>,
    problem: Option<WalkProblem>,
}

impl Job {
    /// Where this job's first result stands in the order of the walk.
    pub fn order(&self) -> Vec<u8> {
        match self {
            Self::Directory(job) => job.key.clone(),
            Self::Rest(listing, from) => {
                let mut key = listing.job.key.clone();
                push_component(&mut key, listing.name(*from).to_bytes());
                key
            }
        }
    }

    /// Does it.
    pub fn run(self, context: &Context) -> Scanned {
        match self {
            Self::Directory(job) => match Listing::read(job, context) {
                Ok(listing) => segment(Arc::new(listing), 0, context),
                Err(steps) => Scanned { steps, ..Scanned::default() },
            },
            Self::Rest(listing, from) => segment(listing, from, context),
        }
    }
}

impl Listing {
    fn read(job: DirectoryJob, context: &Context) -> Result<Self, Vec<Step>> {
        let whole = job.scope != Scope::Roots;
        // Only the names of roots are looked up in the others: those need not be readable.
        let flags = if whole { OFlags::RDONLY } else { OFlags::PATH };
        let directory = context
            .places
            .open(&job.key, flags | OFlags::DIRECTORY)
            .map_err(|errno| unreachable_at("open directory", &job.key, job.node.as_deref(), errno))?;
        let mut listing = Self {
            directory,
            arena: Vec::new(),
            names: Vec::new(),
            only: None,
            problem: None,
            job: DirectoryJob { key: Vec::new(), ..job },
        };
        let key = job.key;
        if whole && let Err(errno) = listing.list() {
            listing.problem = Some(WalkProblem {
                error: FileError::new("list directory", path_of_key(&key), errno),
                root: listing.job.node.as_ref().is_some_and(|node| node.root),
            });
        }
        listing.job.key = key;
        listing.sort();
        listing.add_roots();
        if whole {
            listing.only = listing.find_marker(context);
        }
        Ok(listing)
    }

    fn list(&mut self) -> rustix::io::Result<()> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); LIST_BUFFER_BYTES];
        let mut entries = RawDir::new(self.directory.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                push_name(&mut self.arena, &mut self.names, name.to_bytes())?;
            }
        }
        Ok(())
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        let bytes = |&(offset, length): &(u32, u16)| {
            let start = offset as usize;
            &arena[start..start + usize::from(length)]
        };
        self.names.sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
        // A directory that changes while it is listed may show a name twice.
        self.names.dedup_by(|a, b| bytes(a) == bytes(b));
    }

    /// Roots the listing does not show get their turn too: it decides whether they are missing.
    fn add_roots(&mut self) {
        let Some(node) = self.job.node.clone() else { return };
        let mut added = false;
        for name in node.children.keys() {
            if self.names.binary_search_by(|at| self.bytes(at).cmp(name)).is_err() {
                added |= push_name(&mut self.arena, &mut self.names, name).is_ok();
                // The binary search above needs order.
                self.sort();
            }
        }
        if added {
            self.sort();
        }
    }

    fn find_marker(&self, context: &Context) -> Option<Vec<u8>> {
        let marker = context.excludes.markers.iter().find(|marker| {
            self.names.binary_search_by(|at| self.bytes(at).cmp(&marker.name)).is_ok()
                && (marker.header.is_empty() || self.starts_with(&marker.name, &marker.header))
        })?;
        Some(marker.name.clone())
    }

    fn starts_with(&self, name: &[u8], header: &[u8]) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(&self.directory, name, flags, Mode::empty()) else { return false };
        let mut found = vec![0; header.len()];
        matches!(rustix::io::pread(&file, &mut found, 0), Ok(length) if length == header.len())
            && found == header
    }

    fn bytes(&self, &(offset, length): &(u32, u16)) -> &[u8] {
        let start = offset as usize;
        &self.arena[start..start + usize::from(length)]
    }

    fn name(&self, index: usize) -> &CStr {
        let (offset, length) = self.names[index];
        let start = offset as usize;
        CStr::from_bytes_with_nul(&self.arena[start..=start + usize::from(length)]).unwrap_or_default()
    }
}

fn push_name(arena: &mut Vec<u8>, names: &mut Vec<(u32, u16)>, name: &[u8]) -> rustix::io::Result<()> {
    let offset = u32::try_from(arena.len()).map_err(|_| Errno::FBIG)?;
    let length = u16::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
    arena.extend_from_slice(name);
    arena.push(0);
    names.push((offset, length));
    Ok(())
}

fn segment(listing: Arc<Listing>, from: usize, context: &Context) -> Scanned {
    let to = listing.names.len().min(from + SEGMENT);
    let mut look = Look::new(&listing, context);
    let mut steps = Vec::with_capacity(to - from + 1);
    for index in from..to {
        look.at(listing.name(index), &mut steps);
    }
    let rest = (to < listing.names.len()).then(|| Job::Rest(listing.clone(), to));
    if rest.is_none()
        && let Some(problem) = &listing.problem
    {
        steps.push(Step::Problem(problem.repeat()));
    }
    Scanned { steps, directories: look.directories, rest }
}

/// Looks at the names of one directory, reusing the buffers their paths are spelt in.
struct Look<'a> {
    context: &'a Context,
    listing: &'a Listing,
    children: Option<&'a BTreeMap<Vec<u8>, Arc<Node>>>,
    /// The directory's path for patterns, `/` at its end; only kept when there are patterns.
    path: Vec<u8>,
    path_length: usize,
    directories: Vec<DirectoryJob>,
}

impl<'a> Look<'a> {
    fn new(listing: &'a Listing, context: &'a Context) -> Self {
        let mut path = Vec::new();
        if context.excludes.has_patterns() && !listing.job.key.is_empty() {
            path.extend(listing.job.key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }));
            path.push(b'/');
        }
        let children = listing.job.node.as_ref().map(|node| &node.children);
        Self { context, listing, children, path_length: path.len(), path, directories: Vec::new() }
    }

    fn at(&mut self, name: &CStr, steps: &mut Vec<Step>) {
        let job = &self.listing.job;
        let bytes = name.to_bytes();
        let node = self.children.and_then(|children| children.get(bytes));
        if node.is_none() && self.listing.only.as_ref().is_some_and(|only| only != bytes) {
            return;
        }
        let mut key = Vec::with_capacity(job.key.len() + 1 + bytes.len());
        key.extend_from_slice(&job.key);
        push_component(&mut key, bytes);
        let problem = |operation, errno| unreachable_at(operation, &key, node.map(Arc::as_ref), errno);
        if key.len() > KEY_LIMIT {
            return steps.extend(problem("store the path of", Errno::NAMETOOLONG));
        }
        let follow = node.is_some_and(|node| node.goes_through_links());
        let stat = match look_up(self.listing.directory.as_fd(), name, follow) {
            Ok(stat) => stat,
            Err(errno) => return steps.extend(problem("stat", errno)),
        };
        let excluded = self.is_excluded(bytes, &stat);
        if excluded && node.is_none() {
            return;
        }
        let descent = stat.is_directory().then(|| self.scope_below(node, &stat, excluded)).flatten();
        if let Some(scope) = descent {
            self.directories.push(DirectoryJob { key: key.clone(), scope, node: node.cloned() });
        }
        let below = match node {
            Some(node) if descent.is_none() => node.roots_below(&key),
            _ => Vec::new(),
        };
        steps.push(Step::Found(Found { key, stat }, descent.is_some()));
        steps.extend(below.into_iter().map(|key| missing_root("open directory", &key, Errno::NOTDIR)));
    }

    fn is_excluded(&mut self, name: &[u8], stat: &Stat) -> bool {
        let excludes = &self.context.excludes;
        if stat.file_type() == FileType::RegularFile && excludes.too_large(stat.size_bytes) {
            return true;
        }
        if !excludes.has_patterns() {
            return false;
        }
        self.path.truncate(self.path_length);
        self.path.extend_from_slice(name);
        excludes.matches(&self.path, stat.is_directory())
    }

    fn scope_below(&self, node: Option<&Arc<Node>>, stat: &Stat, excluded: bool) -> Option<Scope> {
        if node.is_some_and(|node| node.root) {
            return Some(Scope::Whole { device: stat.device });
        }
        match self.listing.job.scope {
            Scope::Whole { device } if !excluded && self.listing.only.is_none() => {
                let elsewhere = self.context.options.one_file_system && stat.device != device;
                if !elsewhere {
                    return Some(Scope::Whole { device });
                }
            }
            _ => {}
        }
        node.map(|_| Scope::Roots)
    }
}

fn missing_root(operation: &'static str, key: &[u8], errno: Errno) -> Step {
    Step::Problem(WalkProblem { error: FileError::new(operation, path_of_key(key), errno), root: true })
}

/// What cannot be reached when `key` cannot: every root at or below it by its own name, or it alone.
fn unreachable_at(operation: &'static str, key: &[u8], node: Option<&Node>, errno: Errno) -> Vec<Step> {
    let mut roots = node.map(|node| node.roots_below(key)).unwrap_or_default();
    if node.is_some_and(|node| node.root) {
        roots.insert(0, key.to_vec());
    }
    if roots.is_empty() {
        let error = FileError::new(operation, path_of_key(key), errno);
        return vec![Step::Problem(WalkProblem { error, root: false })];
    }
    roots.iter().map(|key| missing_root(operation, key, errno)).collect()
}

/// Stats a name; through a link only where a root needs the directory behind it.
pub(super) fn look_up(directory: BorrowedFd<'_>, name: &CStr, follow: bool) -> rustix::io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = Stat::from(&statat(directory, name, flags)?);
    if follow && stat.file_type() == FileType::Symlink {
        return Ok(Stat::from(&statat(directory, name, AtFlags::NO_AUTOMOUNT)?));
    }
    Ok(stat)
}
