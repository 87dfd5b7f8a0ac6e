//! The sweep: tombstone, Δ, final mark, delete, tombstone away. Steps 3 and 5 to 7 of the pruner's protocol.
//!
//! Invariant: a pack is deleted only under a standing tombstone of this very process, and after a final mark begun Δ
//! after that tombstone was acknowledged. Every error leaves the tombstone standing: what it names stays condemned,
//! and the next prune goes on from there.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::mark::{Live, mark};
use super::plan::{Move, Tally};
use super::repack::Repacker;
use super::{PruneOutcome, compact};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::base::random;
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, RunId, ShortId};
use crate::format::keyring::Role;
use crate::format::signed::Tombstone;
use crate::pack::index::{BlockInfo, PackInfo};
use crate::pack::pack_name;
use crate::repo::run::Run;
use crate::repo::sync::{Inventory, Thoroughness};
use crate::repo::{RepoError, Repository};

/// Packs with their kind, ascending, as a tombstone names them.
pub(in crate::engine) type Packs = BTreeSet<(ObjectKind, ObjectHash)>;

/// Condemns without deleting: a later run's sweep does that once the grace is over.
pub(in crate::engine) async fn notice(repo: &Repository, packs: &Packs) -> Result<(), EngineError> {
    if packs.is_empty() {
        return Ok(());
    }
    let pruner = RunId(random::array(repo.world.random.as_ref()));
    let tombstone = Tombstone { pruner, sweeps: false, packs: packs.iter().copied().collect() };
    let mut seen = repo.local.seen();
    seen.tombstones.insert(pruner.hex(), repo.world.now().seconds);
    repo.local.remember(&seen)?;
    Ok(repo.put_tombstone(&tombstone).await?)
}

/// Deletes `packs` as far as nothing needs them, then removes the own tombstone and those of `retire`, all of whose
/// packs must be among `packs`.
pub(super) async fn sweep(
    run: &mut Run<'_>,
    packs: &Packs,
    retire: &[RunId],
    outcome: &mut PruneOutcome,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    let repo = run.repo;
    if packs.is_empty() && retire.is_empty() {
        return Ok(());
    }
    let pruner = RunId(random::array(repo.world.random.as_ref()));
    // Remembered before it is put: if this process dies, the next prune of this machine knows whose it is.
    let mut seen = repo.local.seen();
    seen.sweeps.insert(pruner.hex());
    repo.local.remember(&seen)?;
    let tombstone = Tombstone { pruner, sweeps: true, packs: packs.iter().copied().collect() };
    repo.put_tombstone(&tombstone).await?;
    repo.settle().await;

    let keep = final_mark(run, packs, outcome, progress, cancel).await?;
    // The last moment to stop without a trace of deletion; from here on the run goes to its end.
    cancel.check()?;
    progress.phase("deleting packs");
    let going: Vec<_> = packs.iter().filter(|(_, hash)| !keep.contains(hash)).copied().collect();
    progress.add_total(0, going.len() as u64);
    let names = going.iter().map(|(kind, hash)| pack_name(*kind, hash)).collect();
    crate::engine::delete_all(&repo.store, names, progress).await?;
    for (_, hash) in &going {
        if let Some(pack) = repo.index.pack(hash) {
            outcome.deleted.add(pack.size_bytes);
        }
    }
    repo.index.remove_packs(&going.iter().map(|(_, hash)| *hash).collect::<Vec<_>>())?;
    compact::compact(repo, outcome, progress, cancel).await?;

    // Before Δ a reader could still list a deleted pack, and without the tombstone it would rely on it.
    repo.settle().await;
    if !keep.is_empty() {
        return Ok(());
    }
    for pruner in retire.iter().chain([&pruner]) {
        repo.remove_tombstone(*pruner).await?;
        let mut seen = repo.local.seen();
        seen.sweeps.remove(&pruner.hex());
        seen.tombstones.remove(&pruner.hex());
        repo.local.remember(&seen)?;
    }
    Ok(())
}

/// Decides from listings made now, Δ after the tombstone, what of `packs` is still needed; moves it to new packs.
/// Returns the packs that must stay.
async fn final_mark(
    run: &mut Run<'_>,
    packs: &Packs,
    outcome: &mut PruneOutcome,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<HashSet<ObjectHash>, EngineError> {
    let repo = run.repo;
    let list = repo.snapshots().await?;
    let inventory = repo.sync(Thoroughness::Strict).await?;
    let live = mark(repo, &list, progress, cancel).await?;
    let mut keep = HashSet::new();
    let mut moves = Vec::new();
    let mut trust = Trust { repo, verified: HashSet::new() };
    for (_, hash) in packs {
        if !inventory.packs.contains_key(hash) {
            continue;
        }
        let Some(pack) = repo.index.pack(hash) else {
            // Listed, but of a domain without a key here: nobody can say what is in it.
            if !is_wreck(repo, hash, &inventory).await? {
                keep.insert(*hash);
            }
            continue;
        };
        moves.extend(only_copies(&mut trust, &pack, &live).await?);
    }
    moves.sort_by_key(|m| (m.domain, m.kind, m.order, m.block.row));
    if !moves.is_empty() {
        progress.phase("moving what is still needed");
        progress.add_total(moves.iter().map(|m| m.needed_bytes).sum(), 0);
        let (packs, bytes) = Repacker::new(run)?.all(&moves, progress, cancel).await?;
        outcome.written.packs += packs;
        outcome.written.bytes += bytes;
        // Whoever misses the old packs from now on finds the new ones.
        repo.settle().await;
    }
    outcome.kept.packs += keep.len() as u64;
    Ok(keep)
}

/// Whether nobody can say what is in a pack because it is damaged: nothing reads from it any more. The mark found
/// every live chunk elsewhere, or it would have failed.
async fn is_wreck(repo: &Repository, hash: &ObjectHash, inventory: &Inventory) -> Result<bool, EngineError> {
    let Some(listed) = inventory.packs.get(hash) else { return Ok(false) };
    match repo.read_directory(hash, listed).await {
        Err(error @ RepoError::Damaged { .. }) => Ok(error.newer_version().is_none()),
        Ok(_) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The blocks of a condemned pack with a live chunk that no pack outside all tombstones holds.
async fn only_copies(
    trust: &mut Trust<'_>,
    pack: &Arc<PackInfo>,
    live: &Live,
) -> Result<Vec<Move>, EngineError> {
    let mut moves = Vec::new();
    for block in trust.repo.index.blocks_of(pack)? {
        let Some(live) = live.blocks.get(&block.row) else { continue };
        let mut needed = Vec::new();
        for (position, (id, _)) in block.chunks.iter().enumerate() {
            let earlier = block.chunks[..position].iter().any(|(other, _)| other == id);
            if live.has(position) && !earlier && !trust.has_other(pack, id).await? {
                needed.push(position as u32);
            }
        }
        if needed.is_empty() {
            continue;
        }
        let raw: u64 = block.chunks.iter().map(|(_, length)| u64::from(*length)).sum();
        let wanted: u64 = needed.iter().map(|&at| u64::from(block.chunks[at as usize].1)).sum();
        moves.push(Move {
            domain: pack.domain,
            kind: pack.kind,
            order: live.order,
            needed_bytes: u64::from(block.stored_length) * wanted / raw.max(1),
            needed,
            block,
            // What a later prune may do better; this one is about to delete and moves as little as it can.
            reseal: false,
        });
    }
    Ok(moves)
}

/// Decides which copies may replace which.
struct Trust<'r> {
    repo: &'r Repository,
    /// Chunks of other authors that were opened, by block row.
    verified: HashSet<(i64, ShortId)>,
}

impl Trust<'_> {
    /// Whether a pack outside all tombstones holds the chunk. A stolen writer key can name anything in its packs,
    /// so a copy by another author than this one's counts only once it was opened; except the owner's.
    async fn has_other(&mut self, pack: &PackInfo, id: &ShortId) -> Result<bool, EngineError> {
        let repo = self.repo;
        for block in repo.index.locations(pack.domain, pack.kind, id)? {
            if repo.index.is_condemned(&block.pack.hash) {
                continue;
            }
            let trusted = block.pack.author == pack.author
                || repo.member(&block.pack.author).is_some_and(|member| member.role == Role::Owner);
            if trusted || self.opens(&block, id).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn opens(&mut self, block: &Arc<BlockInfo>, id: &ShortId) -> Result<bool, EngineError> {
        if self.verified.contains(&(block.row, *id)) {
            return Ok(true);
        }
        let reader = &self.repo.reader;
        let domain = self.repo.access.domain(block.pack.domain)?;
        let stored = reader.fetch(block).await?;
        let mut codecs = crate::seal::block::Codecs::new()?;
        let Ok(opened) = reader.open(block, &stored, &mut codecs) else { return Ok(false) };
        for (chunk, _) in &block.chunks {
            if opened.chunk(domain, chunk).is_ok() {
                self.verified.insert((block.row, *chunk));
            }
        }
        Ok(self.verified.contains(&(block.row, *id)))
    }
}

/// For the outcome.
impl Tally {
    pub(super) fn of(packs: u64, bytes: u64) -> Self {
        Self { packs, bytes }
    }
}
