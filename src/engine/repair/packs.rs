//! Repairs packs: what is sound in a damaged pack moves to new packs, and the damaged one is condemned.
//!
//! Why condemning heals: nothing relies on a condemned pack, so what was lost with it counts as absent for every
//! writer, the next backup of the same content stores it again, and all older snapshots that refer to it are whole
//! again. No name is ever put twice, and nothing is deleted here: a prune does that, once every chunk that any
//! snapshot needs has a sound copy elsewhere.
//!
//! Order, as a prune's repack: new packs, their index object, Δ, then the tombstone (a notice). Cut off before the
//! tombstone, the next run finds the copies, saves only what is missing, and condemns.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::lost;
use super::parity::{self, Healable};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::engine::prune::{Move, Repacker, notice};
use crate::engine::verify::chunks::{Place, View};
use crate::engine::verify::outcome::Cost;
use crate::engine::verify::subset::Subset;
use crate::engine::verify::{Examined, VerifyOptions, examine, scratch};
use crate::format::entry::ChunkRef;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, ShortId};
use crate::pack::index::BlockInfo;
use crate::pack::pack_name;
use crate::pack::read::Reader;
use crate::repo::marks::condemned;
use crate::repo::run::Run;
use crate::repo::sync::Thoroughness;
use crate::repo::{RepoError, Repository};

/// How to look for damaged packs.
#[derive(Clone, Debug, Default)]
pub struct PacksOptions {
    /// Only these are read in full; none: all packs are.
    pub packs: Vec<ObjectHash>,
    /// What parity could rebuild is treated as damage nobody can undo.
    pub without_parity: bool,
    /// Threads, and where a temporary index may lie, as for verify.
    pub verify: VerifyOptions,
}

/// A damaged pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadPack {
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    pub size_bytes: u64,
    /// Blocks that are known to be in it, and how many of them open.
    pub blocks: u64,
    pub sound_blocks: u64,
    /// Chunks in it that can be had from nowhere else here.
    pub lost_chunks: u64,
}

/// What repairing packs would do.
#[derive(Serialize)]
pub struct PacksPlan {
    /// Packs that parity makes whole. While there are any, nothing else is planned: [`heal_packs`] comes first, and
    /// then another plan.
    pub healable: Vec<Healable>,
    /// Damaged packs whose parity does not suffice, and why.
    pub hopeless: Vec<(String, String)>,
    pub packs: Vec<BadPack>,
    /// Stored bytes that move to new packs because they are nowhere else.
    pub moved_bytes: u64,
    /// Chunks that snapshots need and this repository has lost.
    pub lost_chunks: u64,
    /// Those of them that the replica has.
    pub replica_chunks: u64,
    /// What is lost now, before the replica and a new backup.
    pub costs: Vec<Cost>,
    #[serde(skip)]
    condemn: Vec<(ObjectKind, ObjectHash)>,
    #[serde(skip)]
    moves: Vec<Move>,
    #[serde(skip)]
    from_replica: Vec<Move>,
}

/// What repairing packs did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PacksOutcome {
    /// Packs condemned.
    pub condemned: u64,
    pub written_packs: u64,
    pub written_bytes: u64,
    /// Blocks that were sound when they were looked for and are not any more.
    pub failed_blocks: u64,
}

impl PacksPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.condemn.is_empty() && self.from_replica.is_empty()
    }
}

/// Reads the packs and decides. Writes nothing.
///
/// `replica`: another repository with the same keys, which is asked for what is lost here.
pub async fn plan_packs(
    repo: &Repository,
    replica: Option<&Repository>,
    options: &PacksOptions,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<PacksPlan, EngineError> {
    // Whoever cannot open contents cannot tell sound from damaged.
    repo.require_owner("repair packs")?;
    require_kin(repo, replica)?;
    let read_data = options.packs.is_empty().then_some(Subset::All);
    let verify = VerifyOptions { read_data, packs: options.packs.clone(), ..options.verify.clone() };
    let scratch = scratch(&verify);
    let mut examined = examine(repo, &verify, scratch.as_ref(), progress, cancel).await?;
    let found = match options.without_parity {
        true => parity::Found::default(),
        false => parity::find(repo, &examined, progress.as_ref(), cancel).await?,
    };
    let costs = examined.costs(repo, progress.as_ref(), cancel).await?;
    let mut plan = PacksPlan {
        healable: found.healable,
        hopeless: found.hopeless,
        packs: Vec::new(),
        moved_bytes: 0,
        lost_chunks: 0,
        replica_chunks: 0,
        costs,
        condemn: Vec::new(),
        moves: Vec::new(),
        from_replica: Vec::new(),
    };
    if !plan.healable.is_empty() {
        return Ok(plan);
    }
    // Where only some packs were read, nobody knows yet whether the others are sound.
    let reader = (!options.packs.is_empty()).then(|| examined.reader(repo));
    let mut bad: Vec<_> = examined.view.bad.clone().into_iter().collect();
    bad.sort();
    let mut salvage = Salvage { view: &mut examined.view, reader, saved: HashSet::new(), plan: &mut plan };
    for (hash, why) in bad {
        cancel.check()?;
        salvage.pack(repo, hash, &why).await?;
    }
    if !plan.costs.is_empty() || replica.is_some() {
        ask_replica(repo, replica, &examined, &mut plan, progress, cancel).await?;
    }
    plan.moves.sort_by_key(|m| (m.domain, m.kind, m.order));
    plan.moved_bytes = plan.moves.iter().map(|m| m.needed_bytes).sum();
    Ok(plan)
}

fn require_kin(repo: &Repository, replica: Option<&Repository>) -> Result<(), EngineError> {
    let Some(replica) = replica else { return Ok(()) };
    let (here, there) = (repo.store.location(), replica.store.location());
    if repo.access.repo != replica.access.repo {
        let why = format!(
            "{there} is repository {} and no replica of {here}, which is {}: it has other keys",
            replica.access.repo, repo.access.repo
        );
        return Err(EngineError::Refused(why));
    }
    if here == there {
        return Err(EngineError::Refused(format!("{there} is the repository itself, not a replica of it")));
    }
    Ok(())
}

struct Salvage<'s> {
    view: &'s mut View,
    /// Opens what was not read.
    reader: Option<Reader>,
    /// Chunks that a move planned already brings to safety.
    saved: HashSet<(u32, ObjectKind, ShortId)>,
    plan: &'s mut PacksPlan,
}

impl Salvage<'_> {
    async fn pack(&mut self, repo: &Repository, hash: ObjectHash, why: &str) -> Result<(), EngineError> {
        let Some(listed) = self.view.stock.packs.get(&hash).copied() else { return Ok(()) };
        if self.view.stock.condemned.contains(&hash) {
            return Ok(());
        }
        let object = pack_name(listed.kind, &hash);
        let mut bad = BadPack {
            object,
            why: why.to_owned(),
            size_bytes: listed.size_bytes,
            blocks: 0,
            sound_blocks: 0,
            lost_chunks: 0,
        };
        let blocks = match self.view.stock.index.pack(&hash) {
            Some(pack) => self.view.stock.index.blocks_of(&pack).map_err(RepoError::from)?,
            None => Vec::new(),
        };
        // Without its directory nobody knows the full ids: then each block is opened and sealed anew.
        let has_directory = repo.open_pack_directory(&hash, &listed).await.is_ok();
        for block in blocks.iter().filter(|block| !block.chunks.is_empty()) {
            bad.blocks += 1;
            let is_sound = self.view.is_sound(hash, block.offset);
            bad.sound_blocks += u64::from(is_sound);
            self.block(block, is_sound, has_directory, &mut bad).await?;
        }
        self.plan.condemn.push((listed.kind, hash));
        self.plan.packs.push(bad);
        Ok(())
    }

    async fn block(
        &mut self,
        block: &Arc<BlockInfo>,
        is_sound: bool,
        has_directory: bool,
        bad: &mut BadPack,
    ) -> Result<(), EngineError> {
        let (domain, kind) = (block.pack.domain, block.pack.kind);
        let mut wanted = Vec::new();
        let mut is_whole = true;
        for (position, (id, length)) in block.chunks.iter().enumerate() {
            let is_right = is_sound && self.view.is_right(block.pack.hash, block.offset, *id);
            is_whole &= is_right;
            if self.saved.contains(&(domain, kind, *id)) || self.is_elsewhere(block, *id, *length).await? {
                continue;
            }
            if is_right {
                wanted.push(position as u32);
            } else {
                bad.lost_chunks += 1;
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.saved.extend(wanted.iter().map(|at| (domain, kind, block.chunks[*at as usize].0)));
        let order = self.plan.moves.len() as u32;
        self.plan.moves.push(Move {
            domain,
            kind,
            order,
            block: block.clone(),
            needed: wanted,
            needed_bytes: u64::from(block.stored_length),
            reseal: !(is_whole && has_directory),
        });
        Ok(())
    }

    /// Whether a sound pack, outside all tombstones, holds the chunk too.
    async fn is_elsewhere(
        &mut self,
        block: &BlockInfo,
        id: ShortId,
        length: u32,
    ) -> Result<bool, EngineError> {
        let (domain, kind) = (block.pack.domain, block.pack.kind);
        let wanted = ChunkRef { id, length };
        let all = self.view.stock.index.locations(domain, kind, &id).map_err(RepoError::from)?;
        for other in &all {
            let hash = &other.pack.hash;
            if self.view.bad.contains_key(hash)
                || self.view.stock.condemned.contains(hash)
                || !self.view.serves(other, &wanted)
            {
                continue;
            }
            let Some(reader) = &self.reader else { return Ok(true) };
            if self.view.opens(reader, other, &wanted).await? {
                return Ok(true);
            }
            tracing::warn!("{} is damaged too: repair it as well", other.object());
        }
        Ok(false)
    }
}

/// A block of the replica and the positions of the chunks wanted of it.
type Wanted = (Arc<BlockInfo>, Vec<u32>);

/// Finds out what is lost for the snapshots, and where the replica has it.
async fn ask_replica(
    repo: &Repository,
    replica: Option<&Repository>,
    examined: &Examined,
    plan: &mut PacksPlan,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    progress.phase("finding what is lost");
    if let Some(replica) = replica {
        replica.sync(Thoroughness::Tolerant).await?;
    }
    let saved: HashSet<_> = plan
        .moves
        .iter()
        .flat_map(|m| m.needed.iter().map(|at| (m.domain, m.kind, m.block.chunks[*at as usize].0)))
        .collect();
    let lost = lost::find(repo, replica, examined, cancel).await?;
    let mut blocks: BTreeMap<(u32, ObjectKind, i64), Wanted> = BTreeMap::new();
    for (domain, kind, id) in lost.into_iter().filter(|chunk| !saved.contains(chunk)) {
        plan.lost_chunks += 1;
        let Some(replica) = replica else { continue };
        let Some(block) =
            replica.index.locations(domain, kind, &id).map_err(RepoError::from)?.into_iter().next()
        else {
            continue;
        };
        let Some(at) = block.chunks.iter().position(|(chunk, _)| *chunk == id) else { continue };
        plan.replica_chunks += 1;
        let place = blocks.entry((domain, kind, block.row)).or_insert_with(|| (block.clone(), Vec::new()));
        place.1.push(at as u32);
    }
    for (order, ((domain, kind, _), (block, mut needed))) in blocks.into_iter().enumerate() {
        needed.sort_unstable();
        let needed_bytes = u64::from(block.stored_length);
        let order = order as u32;
        plan.from_replica.push(Move { domain, kind, order, block, needed, needed_bytes, reseal: true });
    }
    Ok(())
}

/// Makes the plan's packs whole from their parity.
///
/// Errors with [`RepoError::Conflict`] while a prune of this machine is alive.
pub async fn heal_packs(
    repo: &Repository,
    plan: &PacksPlan,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    let _lock = lock(repo)?;
    let condemned = condemned(&repo.tombstones().await?);
    let sound = |one: &&Healable| !condemned.contains(&one.pack);
    let healable: Vec<_> = plan.healable.iter().filter(sound).collect();
    parity::apply(repo, &healable, progress, cancel).await?;
    repo.sync(Thoroughness::Tolerant).await?;
    Ok(repo.index.save_filter().map_err(RepoError::from)?)
}

fn lock(repo: &Repository) -> Result<impl Drop + use<>, EngineError> {
    let text = "a prune of this repository is at work on this machine";
    repo.local.lock_prune()?.ok_or_else(|| RepoError::Conflict(text.to_owned()).into())
}

/// Does what the plan says. Interrupted at any point, nothing is lost and the same command goes on.
///
/// Errors with [`RepoError::Conflict`] while a prune of this machine is alive.
pub async fn apply_packs(
    repo: &Repository,
    replica: Option<&Repository>,
    plan: &PacksPlan,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PacksOutcome, EngineError> {
    if plan.is_empty() {
        return Ok(PacksOutcome::default());
    }
    let _lock = lock(repo)?;
    let (mut run, _) = Run::begin(repo).await?;
    let result = apply_under(&mut run, replica, plan, progress, cancel).await;
    run.end().await;
    result
}

async fn apply_under(
    run: &mut Run<'_>,
    replica: Option<&Repository>,
    plan: &PacksPlan,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PacksOutcome, EngineError> {
    let repo = run.repo;
    let mut outcome = PacksOutcome::default();
    progress.phase("saving what is sound");
    let all = plan.moves.iter().chain(&plan.from_replica);
    progress.add_total(all.map(|m| m.needed_bytes).sum(), 0);
    save(run, &plan.moves, repo, &mut outcome, progress, cancel).await?;
    if let Some(replica) = replica {
        progress.phase("fetching from the replica");
        save(run, &plan.from_replica, replica, &mut outcome, progress, cancel).await?;
    }
    cancel.check()?;
    // So that no reader finds neither the new packs nor, condemned, the old ones.
    repo.settle().await;
    notice(repo, &plan.condemn.iter().copied().collect()).await?;
    outcome.condemned = plan.condemn.len() as u64;
    repo.settle().await;
    repo.sync(Thoroughness::Tolerant).await?;
    repo.index.save_filter().map_err(RepoError::from)?;
    Ok(outcome)
}

/// Moves blocks of `source` to new packs here; one that turns out damaged is left out and counted.
async fn save(
    run: &mut Run<'_>,
    moves: &[Move],
    source: &Repository,
    outcome: &mut PacksOutcome,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    if moves.is_empty() {
        return Ok(());
    }
    let mut repacker = Repacker::reading(run, source.reader.clone())?;
    for next in moves {
        cancel.check()?;
        match repacker.one(next).await {
            Ok(()) => {}
            Err(EngineError::Repo(error)) if error.is_damage() => {
                tracing::warn!(%error, "a block cannot be saved");
                if !save_otherwise(&mut repacker, next, source).await? {
                    outcome.failed_blocks += 1;
                }
            }
            Err(error) => return Err(error),
        }
        progress.add_done(next.needed_bytes, 0);
    }
    let (packs, bytes) = repacker.end().await?;
    outcome.written_packs += packs;
    outcome.written_bytes += bytes;
    Ok(())
}

/// Takes the chunks of a block that does not open from wherever else `source` has them. Returns whether it has all.
async fn save_otherwise(
    repacker: &mut Repacker<'_, '_>,
    failed: &Move,
    source: &Repository,
) -> Result<bool, EngineError> {
    let mut has_all = true;
    for at in &failed.needed {
        let (id, _) = failed.block.chunks[*at as usize];
        // Those under a tombstone come last.
        let all = source.index.locations(failed.domain, failed.kind, &id).map_err(RepoError::from)?;
        let mut is_saved = false;
        for block in all.into_iter().filter(|block| block.row != failed.block.row) {
            let Some(at) = block.chunks.iter().position(|(chunk, _)| *chunk == id) else { continue };
            let (needed, needed_bytes) = (vec![at as u32], u64::from(block.stored_length));
            let other = Move { block, needed, needed_bytes, reseal: true, ..*failed };
            match repacker.one(&other).await {
                Ok(()) => is_saved = true,
                Err(EngineError::Repo(error)) if error.is_damage() => continue,
                Err(error) => return Err(error),
            }
            break;
        }
        has_all &= is_saved;
    }
    Ok(has_all)
}

/// Whether a chunk can be had here at all.
pub(super) fn is_lost(
    view: &View,
    domain: u32,
    kind: ObjectKind,
    reference: &ChunkRef,
) -> Result<bool, EngineError> {
    Ok(view.place(domain, kind, reference)? == Place::Missing)
}
