//! Restore: a snapshot, or one path of it, back into a folder.
//!
//! ```text
//! tree → window of files → compare with what is there → chunks by block → blocks opened on threads → files
//! ```
//!
//! The tree is gone through in key order and cut into windows (so many chunks, so many files), which bounds memory
//! whatever the snapshot's size. Inside a window the chunks are grouped by block: each block is fetched and opened
//! once and its chunks are written to every place that wants them, in any order. Two windows are under way at once.
//!
//! **What is checked.** Every byte written comes from a chunk whose keyed hash is its id, and the ids come from
//! authenticated pages: wrong bytes cannot get into a file. The hash over a file's whole stream says the same once
//! more; writes out of order cannot check it in passing, so `dump` and `verify: true` do.
//!
//! **What a failure leaves.** A file appears under its name complete or not at all: one that needs a damaged or
//! missing chunk is named in the outcome and absent (or still what it was before), all others are restored. The
//! exception is [`RestoreOptions::in_place`], which writes only the chunks that differ into the existing file: after
//! an interruption it is a mix of old and new, with the time of the restore as its mtime, until a next run ends.

mod compare;
mod entries;
mod extra;
mod file;
pub mod held;
pub mod outcome;
mod plan;
pub mod service;
mod trees;
mod verify;
mod window;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::EngineError;
use super::read::fetch::{FetchOptions, Fetcher};
use super::read::filter::{FilterOptions, PathFilter};
use super::read::select::Selected;
use crate::base::cancel::{Cancel, Cancelled};
use crate::base::causes::causes;
use crate::base::progress::Progress;
use crate::repo::Repository;
use crate::source::files::target::{Target, TargetError, TargetOptions};

pub use outcome::{Outcome, Problem};
pub use plan::{Plan, plan};

/// What to do where something exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Make it what the snapshot says. Existing files are compared by content, chunk by chunk, never trusted by
    /// their times, and only what differs is fetched.
    #[default]
    Always,
    /// Leave files alone whose size and mtime are the snapshot's.
    IfChanged,
    /// Leave everything alone that exists, of whatever kind.
    Never,
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Made if it is missing.
    pub target: PathBuf,
    pub filter: FilterOptions,
    pub overwrite: Overwrite,
    /// Remove what is in restored folders but not in the snapshot. What a filter leaves out is left alone, and what
    /// the backup never looked at: what it excluded, and all outside its paths.
    pub delete: bool,
    /// With `delete`: also what the backup excluded.
    pub delete_excluded: bool,
    /// Read everything back and compare.
    pub verify: bool,
    /// Write differing chunks into existing files instead of building the file anew beside. See the module.
    pub in_place: bool,
    pub files: TargetOptions,
    pub fetch: FetchOptions,
}

/// What workers and planner share.
struct Shared {
    target: Arc<Target>,
    repo_reader: Arc<crate::pack::read::Reader>,
    domain: u32,
    runtime: tokio::runtime::Handle,
    progress: Arc<dyn Progress>,
    cancel: Cancel,
    outcome: outcome::Report,
}

impl Shared {
    /// Errors when the whole restore should stop.
    fn check(&self) -> Result<(), EngineError> {
        self.cancel.check()?;
        self.outcome.check()
    }

    fn stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.outcome.is_stopped()
    }
}

/// A target's error as the engine's.
fn target_error(error: TargetError) -> EngineError {
    match error {
        TargetError::File(error) => EngineError::Local {
            operation: error.operation,
            path: error.path.display().to_string(),
            cause: error.cause,
        },
        TargetError::Busy(_) | TargetError::Unsafe(_) | TargetError::InTheWay(_) => {
            EngineError::Refused(error.to_string())
        }
    }
}

/// Refuses what makes no sense or could do harm.
fn check_options(options: &RestoreOptions, selected: &Selected) -> Result<(), EngineError> {
    let refuse = |why: &str| Err(EngineError::Refused(why.to_owned()));
    if options.delete {
        if selected.is_single() {
            return refuse("--delete needs a folder: a single file was selected");
        }
        if options.overwrite == Overwrite::Never {
            return refuse("--delete and --overwrite never contradict each other");
        }
        if selected.snapshot.summary.statistics.problems > 0 {
            return refuse(
                "--delete from a partial snapshot could remove the only copy of what its backup could not read",
            );
        }
        let real = options.target.canonicalize().unwrap_or_else(|_| options.target.clone());
        if real.parent().is_none() {
            return refuse("--delete into / would remove the running system");
        }
    }
    if options.verify && options.overwrite == Overwrite::Never {
        return refuse("--verify cannot vouch for files that --overwrite never left alone");
    }
    Ok(())
}

/// Restores. With `delete`, `plan` must be the one made just before: only what it lists is removed.
///
/// # Errors
/// What stops everything: cancelled, a full disk, storage that does not answer, a target that cannot be used.
/// Single files that fail are in the outcome.
pub async fn restore(
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
    plan: Option<&Plan>,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Outcome, EngineError> {
    match run(repo, selected, options, plan, progress, cancel).await {
        Err(EngineError::Local { operation, path, cause }) if is_full(&cause) => {
            Err(full(repo, selected, options, cancel, (operation, path, cause)).await)
        }
        result => result,
    }
}

fn is_full(cause: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(cause.kind(), StorageFull | QuotaExceeded)
}

/// Says how much of a restore is still to be written to a target that is full.
async fn full(
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
    cancel: &Cancel,
    (operation, path, cause): (&'static str, String, std::io::Error),
) -> EngineError {
    let options = RestoreOptions { delete: false, ..options.clone() };
    let plan = plan::plan(repo, selected, &options, &crate::base::progress::NoProgress, cancel).await;
    let (Ok(plan), Ok(space)) = (plan, rustix::fs::statvfs(&options.target)) else {
        return EngineError::Local { operation, path, cause };
    };
    let left_bytes = plan.new_bytes + plan.differing_bytes;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    EngineError::Full { operation, path, cause, left_bytes, free_bytes }
}

async fn run(
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
    plan: Option<&Plan>,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Outcome, EngineError> {
    check_options(options, selected)?;
    let filter = PathFilter::new(&options.filter)?;
    let target = Target::open(&options.target, options.files.clone()).map_err(target_error)?;
    let shared = Arc::new(Shared {
        target,
        repo_reader: repo.reader.clone(),
        domain: selected.snapshot.domain,
        runtime: tokio::runtime::Handle::current(),
        progress: progress.clone(),
        cancel: cancel.clone(),
        outcome: outcome::Report::default(),
    });
    progress.phase("restoring");
    announce_total(selected, &filter, plan, progress.as_ref());
    let handler_shared = shared.clone();
    let fetcher = Fetcher::start(
        repo.reader.clone(),
        &options.fetch,
        Arc::new(move |info, work, opened| window::write_block(&handler_shared, info, work, opened)),
    )
    .map_err(|cause| EngineError::Local { operation: "start", path: "a thread".into(), cause })?;
    let result = entries::Planner::new(&shared, &fetcher, options, &filter).run(repo, selected).await;
    if result.is_err() {
        // Whatever still waits is dropped instead of written.
        shared.outcome.stop.store(true, Ordering::Relaxed);
    }
    let whole = fetcher.finish().await;
    // A worker that met a full disk says more than the planner that saw it stop.
    shared.outcome.check()?;
    result?;
    cancel.check()?;
    if !whole {
        return Err(EngineError::Source("a restoring thread failed unexpectedly".into()));
    }
    if let Some(plan) = plan.filter(|_| options.delete) {
        delete(&shared, plan)?;
    }
    if options.verify {
        verify::verify(repo, selected, options, &filter, &shared).await?;
    }
    Ok(shared.outcome.take())
}

fn announce_total(selected: &Selected, filter: &PathFilter, plan: Option<&Plan>, progress: &dyn Progress) {
    if let Some(plan) = plan {
        progress.add_total(plan.bytes, plan.files);
    } else if selected.key.is_empty() && filter.is_open() {
        let statistics = &selected.snapshot.summary.statistics;
        progress.add_total(statistics.total_bytes, statistics.files);
    }
}

/// Removes what the plan listed, unless a part of the tree could not be read: then nobody knows what is extra.
fn delete(shared: &Shared, plan: &Plan) -> Result<(), EngineError> {
    if plan.unreadable_pages > 0 || shared.outcome.tree_is_damaged() {
        shared.outcome.failed(b"", "nothing was deleted: parts of the snapshot's tree cannot be read".into());
        return Ok(());
    }
    for key in &plan.delete {
        shared.cancel.check().map_err(|Cancelled| EngineError::Cancelled(Cancelled))?;
        match shared.target.remove(key) {
            Ok(_) => shared.outcome.add(|outcome| outcome.deleted += 1),
            Err(error) => shared.outcome.failed(key, causes(&error)),
        }
    }
    Ok(())
}
