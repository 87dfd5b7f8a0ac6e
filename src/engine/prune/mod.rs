//! `prune`: gives the space of forgotten snapshots back. The pruner's side of the lock-free protocol.
//!
//! `docs/concurrency.md` has the protocol with its reasons. On the data's way it stands beside it: it moves and
//! deletes packs, never chunks a listed snapshot reaches.
//!
//! One run does, in this order: [`plan`] (mark, choose), repack, then condemn. With a grace the run ends after
//! putting a *notice*, and a later run deletes what earlier notices named; with grace zero it deletes at once.
//! Deleting is always the same `sweep`: own tombstone, Δ, final mark, delete, Δ, tombstone away.

mod compact;
mod mark;
mod observe;
mod plan;
mod repack;
mod sweep;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

pub(in crate::engine) use mark::mark;
pub(in crate::engine) use plan::Move;
pub use plan::{MaxUnused, PruneOptions, PrunePlan, Tally, plan};
pub(in crate::engine) use repack::Repacker;
pub(in crate::engine) use sweep::notice;

use super::EngineError;
use crate::base::cancel::Cancel;
use crate::base::progress::{NoProgress, Progress};
use crate::format::header::ObjectKind;
use crate::format::id::SnapshotId;
use crate::repo::run::Run;
use crate::repo::{RepoError, Repository};

/// A mark nobody refers to is kept this long after this machine first saw that: other machines remember heads too.
const MARK_KEEP_SECONDS: i64 = 365 * 86_400;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PruneOutcome {
    /// Packs put, with what moved.
    pub written: Tally,
    /// Packs condemned by this run that a later one deletes.
    pub condemned: Tally,
    pub deleted: Tally,
    /// Condemned packs that had to stay, because this key cannot tell what is in them.
    pub kept: Tally,
    pub index_objects_removed: u64,
}

/// Does what `plan` says. Interrupted at any point, nothing is lost and another prune goes on.
///
/// Errors with [`RepoError::Conflict`] while another prune of this machine is alive.
pub async fn apply(
    repo: &Repository,
    plan: &PrunePlan,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PruneOutcome, EngineError> {
    let Some(_lock) = repo.local.lock_prune()? else {
        let text = "another prune of this repository is at work on this machine";
        return Err(RepoError::Conflict(text.to_owned()).into());
    };
    let (mut run, _) = Run::begin(repo).await?;
    let result = apply_under(&mut run, plan, progress, cancel).await;
    run.end().await;
    result
}

async fn apply_under(
    run: &mut Run<'_>,
    plan: &PrunePlan,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PruneOutcome, EngineError> {
    let repo = run.repo;
    let mut outcome = PruneOutcome::default();
    if !plan.moves.is_empty() {
        progress.phase("repacking");
        progress.add_total(plan.moved_bytes, 0);
        let (packs, bytes) = repack::Repacker::new(run)?.all(&plan.moves, progress, cancel).await?;
        outcome.written = Tally::of(packs, bytes);
    }
    cancel.check()?;
    let mut sweeping = plan.observed.due.clone();
    if plan.grace.is_zero() {
        sweeping.extend(plan.condemn.iter().copied());
    } else {
        sweep::notice(repo, &plan.condemn).await?;
        let bytes = plan.unneeded.bytes + plan.repack.bytes;
        outcome.condemned = Tally::of(plan.condemn.len() as u64, bytes);
    }
    sweep::sweep(run, &sweeping, &plan.observed.retire, &mut outcome, progress, cancel).await?;
    super::parity::clear(repo).await?;
    clear_marks(repo).await?;
    super::delete_all(&repo.store, plan.observed.stale_objects.clone(), &NoProgress).await?;
    Ok(outcome)
}

/// Removes confirms whose snapshot is gone, and forgotten marks that no manifest refers to any more.
///
/// Order: confirms and marks are listed before snapshots. A confirm is put only after its manifest is seen by
/// everybody, so a confirm without a listed manifest means a forgotten snapshot. A mark is put only about a listed
/// manifest; its writer, should it still be about to confirm, fails by the missing manifest alone. Marks that a
/// listed manifest names as previous or as a head explain a gap in a chain to `verify`, and stay.
async fn clear_marks(repo: &Repository) -> Result<(), EngineError> {
    let (confirmed, forgotten) = (repo.confirmed().await?, repo.forgotten().await?);
    let list = repo.snapshots().await?;
    if !list.damaged.is_empty() || !list.foreign.is_empty() {
        return Ok(());
    }
    let all = || list.snapshots.iter().chain(&list.untrusted);
    let there: HashSet<SnapshotId> = all().map(|snapshot| snapshot.id).collect();
    let summaries = all().map(|snapshot| &snapshot.summary);
    let named: HashSet<SnapshotId> = summaries
        .flat_map(|summary| {
            summary.previous.into_iter().chain(summary.heads.iter().map(|head| head.snapshot))
        })
        .collect();
    let gone = confirmed.difference(&there).map(|id| format!("{}/{id}", ObjectKind::Confirm.folder()));
    let mut going: Vec<String> = gone.collect();
    let now = repo.world.now().seconds;
    let mut seen = repo.local.seen();
    let mut marks = BTreeMap::new();
    // At a replica a mark also says that the snapshot is not to be copied again.
    let clears = |id: &&SnapshotId| !repo.config.replica && !named.contains(*id);
    for id in forgotten.difference(&there).filter(clears) {
        let since = *seen.marks.get(&id.hex()).unwrap_or(&now);
        if now.saturating_sub(since) >= MARK_KEEP_SECONDS {
            going.push(format!("{}/{id}", ObjectKind::Forgotten.folder()));
        } else {
            marks.insert(id.hex(), since);
        }
    }
    seen.marks = marks;
    repo.local.remember(&seen)?;
    super::delete_all(&repo.store, going, &NoProgress).await
}
