//! `copy`: snapshots into another repository, or into a replica.
//!
//! What the destination is decides how. Another repository has other keys: chunks are opened, named and sealed anew
//! (`reseal`). A replica shares keys and id: sealed blocks go over as they are (`replica`). Both plan by
//! chunk id, verify what they read, commit by the protocol's steps 3 to 6, and may be interrupted at any point: run
//! again, they upload only what is not there yet.
//!
//! A snapshot of which anything cannot be read is not copied; the files it would have lost are named.

mod replica;
mod reseal;
mod walk;

use std::collections::HashSet;

use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::format::id::SnapshotId;
use crate::repo::run::{Run, object_name};
use crate::repo::snapshots::{Filter, Snapshot, SnapshotList};
use crate::repo::sync::Thoroughness;
use crate::repo::{RepoError, Repository};
use crate::seal::block::Compression;

/// So many lost files of a snapshot are named; more are counted.
const LOST_LIMIT: usize = 1_000;
/// How often what a prune took away meanwhile is stored again before giving up.
const ROUNDS: usize = 4;

/// What to copy and how.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Selectors; none means all that the filter lets through.
    pub snapshots: Vec<String>,
    pub filter: Filter,
    /// For what is sealed anew.
    pub compression: Compression,
    /// Only say what would be copied.
    pub dry_run: bool,
}

/// How snapshots went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Into a repository with keys of its own.
    Resealed,
    /// Into a replica, as ciphertext.
    Replicated,
}

/// One snapshot that was copied, or in a dry run would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub from: SnapshotId,
    /// The same in a replica. `None` in a dry run.
    pub to: Option<SnapshotId>,
}

/// A snapshot that was not copied because its source is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    pub snapshot: Option<SnapshotId>,
    /// Paths with the reason: the first so many.
    pub lost: Vec<(Vec<u8>, String)>,
    pub lost_count: u64,
}

impl Failed {
    fn add(&mut self, path: Vec<u8>, cause: String) {
        self.lost_count += 1;
        if self.lost.len() < LOST_LIMIT {
            self.lost.push((path, cause));
        }
    }
}

/// What a copy did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOutcome {
    pub way: Way,
    pub copied: Vec<Copied>,
    /// Were there already.
    pub present: Vec<SnapshotId>,
    /// Were forgotten at the replica by its own retention, and stay so.
    pub forgotten: Vec<SnapshotId>,
    pub failed: Vec<Failed>,
    /// Bytes of packs put.
    pub added_bytes: u64,
    /// Blocks put into new packs unopened.
    pub blocks_moved: u64,
    /// Chunks sealed anew.
    pub chunks_sealed: u64,
}

impl CopyOutcome {
    fn new(way: Way) -> Self {
        Self {
            way,
            copied: Vec::new(),
            present: Vec::new(),
            forgotten: Vec::new(),
            failed: Vec::new(),
            added_bytes: 0,
            blocks_moved: 0,
            chunks_sealed: 0,
        }
    }
}

/// The two ends and who watches.
struct Ends<'a> {
    source: &'a Repository,
    target: &'a Repository,
    options: &'a CopyOptions,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

/// Copies. The source's key must open content: the owner's.
pub async fn copy(
    source: &Repository,
    target: &Repository,
    options: &CopyOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CopyOutcome, EngineError> {
    let way = if source.access.repo == target.access.repo { Way::Replicated } else { Way::Resealed };
    if way == Way::Replicated {
        source.require_owner("copy into a replica")?;
        if !target.config.replica && !source.config.replica {
            return Err(same());
        }
    }
    let ends = Ends { source, target, options, progress, cancel };
    progress.phase("planning the copy");
    source.sync(Thoroughness::Tolerant).await?;
    let mut outcome = CopyOutcome::new(way);
    let here = source.snapshots().await?;
    let wanted = choose(&ends, &here, &mut outcome).await?;
    if options.dry_run {
        outcome.copied = wanted.iter().map(|snapshot| Copied { from: snapshot.id, to: None }).collect();
        return Ok(outcome);
    }
    let (run, _) = Run::begin(target).await?;
    if way == Way::Replicated && source.store.get(&object_name(&run.id, 0)).await.is_ok() {
        run.end().await;
        return Err(same());
    }
    progress.phase("copying");
    let total = |snapshot: &&Snapshot| snapshot.summary.statistics.total_bytes;
    progress.add_total(wanted.iter().map(total).sum(), wanted.len() as u64);
    match way {
        Way::Resealed => reseal::all(&ends, run, &here, &wanted, &mut outcome).await?,
        Way::Replicated => replica::all(&ends, run, &wanted, &mut outcome).await?,
    }
    Ok(outcome)
}

fn same() -> EngineError {
    let why =
        "source and destination are the same repository; a second copy is made with `init --replica-of`";
    EngineError::Refused(why.to_owned())
}

/// What a copy counts as being of: the first of a line of copies.
fn origin(snapshot: &Snapshot) -> SnapshotId {
    snapshot.summary.original.unwrap_or(snapshot.id)
}

/// The snapshots asked for that are not at the destination, oldest first.
async fn choose<'l>(
    ends: &Ends<'_>,
    here: &'l SnapshotList,
    outcome: &mut CopyOutcome,
) -> Result<Vec<&'l Snapshot>, EngineError> {
    let there = ends.target.snapshots().await?;
    let there: HashSet<SnapshotId> =
        there.snapshots.iter().filter(|snapshot| snapshot.confirmed).map(origin).collect();
    let asked: HashSet<SnapshotId> = match ends.options.snapshots.as_slice() {
        [] => here.matching(&ends.options.filter).map(|snapshot| snapshot.id).collect(),
        texts => {
            let find = |text: &String| here.select(text, &ends.options.filter).map(|snapshot| snapshot.id);
            texts.iter().map(find).collect::<Result<_, RepoError>>()?
        }
    };
    let mut wanted = Vec::new();
    for snapshot in here.snapshots.iter().filter(|snapshot| asked.contains(&snapshot.id)) {
        if there.contains(&origin(snapshot)) {
            outcome.present.push(snapshot.id);
        } else if outcome.way == Way::Replicated && ends.target.is_forgotten(&snapshot.id).await? {
            outcome.forgotten.push(snapshot.id);
        } else if !snapshot.confirmed {
            let why =
                format!("snapshot {} was never confirmed: there is no knowing that it is whole", snapshot.id);
            return Err(EngineError::Refused(why));
        } else {
            wanted.push(snapshot);
        }
    }
    Ok(wanted)
}
