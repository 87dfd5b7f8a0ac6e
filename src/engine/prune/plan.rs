//! The plan: which packs go whole, which are rewritten, which wait. Printing it is the dry run.
//!
//! Invariant: a plan only names candidates. What may really be deleted is decided by the final mark, from listings
//! made after the tombstone was seen by everybody.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::mark::{Live, mark};
use super::observe::{self, Observed};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, RunId, ShortId};
use crate::pack::index::{BlockInfo, PackInfo};
use crate::repo::Repository;
use crate::repo::sync::{Inventory, Thoroughness};

/// Packs below this share of the configured size are small.
const SMALL_SHARE: u64 = 2;
/// This many packs of one size class are merged: so each byte is merged a logarithmic number of times.
const MERGE_COUNT: usize = 8;

/// How much unused data may stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxUnused {
    /// Per cent of the size after the prune.
    Percent(f64),
    Bytes(u64),
    Unlimited,
}

impl MaxUnused {
    fn allowed_bytes(self, used_bytes: u64) -> u64 {
        match self {
            Self::Percent(percent) if percent >= 100.0 => u64::MAX,
            Self::Percent(percent) => {
                (percent.max(0.0) / (100.0 - percent.max(0.0)) * used_bytes as f64) as u64
            }
            Self::Bytes(bytes) => bytes,
            Self::Unlimited => u64::MAX,
        }
    }
}

/// How to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// How long a condemned pack stays, so that running backups notice in time. Politeness only: with zero
    /// everything is done in one run, and a backup that relied on a condemned pack stores its chunks again.
    pub grace: Duration,
    pub max_unused: MaxUnused,
    /// Bytes rewritten at most in one run.
    pub max_repack_bytes: Option<u64>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(48 * 3600),
            max_unused: MaxUnused::Percent(5.0),
            max_repack_bytes: None,
        }
    }
}

/// Packs counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub packs: u64,
    pub bytes: u64,
}

impl Tally {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What would be done.
#[derive(Debug, Serialize)]
pub struct PrunePlan {
    pub snapshots: u64,
    /// All packs that are listed.
    pub total: Tally,
    /// Bytes of packs that live chunks take.
    pub used_bytes: u64,
    /// Nothing in them is needed: condemned.
    pub unneeded: Tally,
    /// Partly needed or small: what is needed moves to new packs, then they are condemned.
    pub repack: Tally,
    /// Bytes of those that move.
    pub moved_bytes: u64,
    /// Unneeded bytes that stay in packs which are not worth rewriting.
    pub unused_left_bytes: u64,
    /// Condemned earlier, and their grace is over: deleted by this run.
    pub due: Tally,
    /// Condemned earlier, and their grace is not over.
    pub waiting: Tally,
    /// Of runs that are at work: left alone.
    pub busy: Tally,
    /// Index objects named as superseded, or to be merged.
    pub index_objects: u64,
    #[serde(skip)]
    pub(super) grace: Duration,
    #[serde(skip)]
    pub(super) condemn: BTreeSet<(ObjectKind, ObjectHash)>,
    #[serde(skip)]
    pub(super) moves: Vec<Move>,
    #[serde(skip)]
    pub(super) observed: Observed,
}

impl PrunePlan {
    /// Whether applying it would change anything about packs.
    pub fn is_empty(&self) -> bool {
        self.condemn.is_empty() && self.observed.due.is_empty()
    }
}

/// A block of a pack to be rewritten.
#[derive(Debug)]
pub(in crate::engine) struct Move {
    pub domain: u32,
    pub kind: ObjectKind,
    pub order: u32,
    pub block: Arc<BlockInfo>,
    /// Positions of the chunks that are needed from here.
    pub needed: Vec<u32>,
    pub needed_bytes: u64,
    /// Open it and seal the needed chunks anew; otherwise it moves whole, with what nobody needs of it.
    pub reseal: bool,
}

impl MaxUnused {
    /// A block moves unopened when at least this share of its plaintext is needed, in per cent: so what is unneeded
    /// in moved blocks stays within what may be unused, and no prune rewrites the same pack again and again.
    fn move_percent(self) -> u64 {
        match self {
            Self::Percent(percent) => 100 - (percent.clamp(0.0, 40.0) as u64),
            Self::Bytes(_) => 90,
            Self::Unlimited => 60,
        }
    }
}

/// Marks and decides. Changes nothing but what this machine remembers of runs and tombstones.
pub async fn plan(
    repo: &Repository,
    options: &PruneOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PrunePlan, EngineError> {
    if !repo.access.may_remove() {
        return Err(repo.not_permitted("prune").into());
    }
    let list = repo.snapshots().await?;
    let inventory = repo.sync(Thoroughness::Strict).await?;
    let live = mark(repo, &list, progress, cancel).await?;
    let observed = observe::observe(repo, &inventory, options.grace).await?;
    let mut shapes =
        Shapes::gather(repo, &inventory, &live, &observed.busy, options.max_unused.move_percent(), cancel)?;
    let mut plan = PrunePlan {
        snapshots: live.snapshots,
        total: Tally::default(),
        used_bytes: shapes.used_bytes,
        unneeded: Tally::default(),
        repack: Tally::default(),
        moved_bytes: 0,
        unused_left_bytes: 0,
        due: Tally::default(),
        waiting: Tally::default(),
        busy: shapes.busy,
        index_objects: inventory.superseded.len() as u64,
        grace: options.grace,
        condemn: BTreeSet::new(),
        moves: Vec::new(),
        observed,
    };
    for (hash, listed) in &inventory.packs {
        plan.total.add(listed.size_bytes);
        if plan.observed.due.contains(&(listed.kind, *hash)) {
            plan.due.add(listed.size_bytes);
        } else if inventory.condemned.contains(hash) {
            plan.waiting.add(listed.size_bytes);
        }
    }
    let chosen = shapes.choose(repo, options);
    for shape in &shapes.packs {
        let pack = &shape.pack;
        if shape.needed.is_empty() {
            plan.unneeded.add(pack.size_bytes);
            plan.condemn.insert((pack.kind, pack.hash));
        } else if chosen.contains(&pack.row) {
            plan.repack.add(pack.size_bytes);
            plan.condemn.insert((pack.kind, pack.hash));
        } else {
            plan.unused_left_bytes += shape.unused_bytes();
        }
    }
    plan.moves = shapes.moves(repo, &live, &chosen)?;
    plan.moved_bytes = plan.moves.iter().map(|m| m.needed_bytes).sum();
    Ok(plan)
}

/// What is needed of one pack.
struct Shape {
    pack: Arc<PackInfo>,
    raw_bytes: u64,
    needed_raw_bytes: u64,
    /// What a rewrite would free, in plaintext bytes.
    reclaimable_raw_bytes: u64,
    /// Per block with anything needed: row and positions.
    needed: Vec<(i64, Vec<u32>)>,
}

impl Shape {
    fn used_bytes(&self) -> u64 {
        let share = u128::from(self.pack.size_bytes) * u128::from(self.needed_raw_bytes);
        (share / u128::from(self.raw_bytes.max(1))) as u64
    }
    fn unused_bytes(&self) -> u64 {
        self.pack.size_bytes.saturating_sub(self.used_bytes())
    }
    fn reclaimable_bytes(&self) -> u64 {
        let share = u128::from(self.pack.size_bytes) * u128::from(self.reclaimable_raw_bytes);
        (share / u128::from(self.raw_bytes.max(1))) as u64
    }
    fn dead_permille(&self) -> u64 {
        self.reclaimable_raw_bytes * 1000 / self.raw_bytes.max(1)
    }
}

/// Whether a block of which so much is needed is to be opened. A maintainer opens no content.
fn reseals(repo: &Repository, needed_bytes: u64, all_bytes: u64, move_percent: u64) -> bool {
    repo.owner.is_some() && needed_bytes * 100 < all_bytes * move_percent
}

struct Shapes {
    move_percent: u64,
    /// Packs that may be condemned.
    packs: Vec<Shape>,
    used_bytes: u64,
    busy: Tally,
}

impl Shapes {
    /// Looks at every pack. A chunk that is stored more than once is needed from one place only: packs of runs at
    /// work first, since they stay anyway, then the oldest row.
    fn gather(
        repo: &Repository,
        inventory: &Inventory,
        live: &Live,
        busy: &HashSet<RunId>,
        move_percent: u64,
        cancel: &Cancel,
    ) -> Result<Self, EngineError> {
        let repeated = repo.index.repeated_keys()?;
        let mut claimed: HashSet<(u32, ObjectKind, ShortId)> = HashSet::new();
        let mut packs = repo.index.packs();
        packs.retain(|p| inventory.packs.contains_key(&p.hash) && !inventory.condemned.contains(&p.hash));
        packs.sort_by_key(|pack| (!busy.contains(&pack.run), pack.row));
        let mut shapes = Self { move_percent, packs: Vec::new(), used_bytes: 0, busy: Tally::default() };
        for pack in packs {
            cancel.check()?;
            let mut shape = Shape {
                pack,
                raw_bytes: 0,
                needed_raw_bytes: 0,
                reclaimable_raw_bytes: 0,
                needed: Vec::new(),
            };
            for block in repo.index.blocks_of(&shape.pack)? {
                let raw: u64 = block.chunks.iter().map(|(_, length)| u64::from(*length)).sum();
                shape.raw_bytes += raw;
                let Some(live) = live.blocks.get(&block.row) else {
                    shape.reclaimable_raw_bytes += raw;
                    continue;
                };
                let mut positions = Vec::new();
                let mut needed = 0;
                for (position, (id, length)) in block.chunks.iter().enumerate() {
                    let name = (shape.pack.domain, shape.pack.kind, *id);
                    let mut first = || !repeated.contains(&id_key(id)) || claimed.insert(name);
                    if live.has(position) && !twice(&block, position) && first() {
                        positions.push(position as u32);
                        needed += u64::from(*length);
                    }
                }
                shape.needed_raw_bytes += needed;
                if needed == 0 || reseals(repo, needed, raw, move_percent) {
                    shape.reclaimable_raw_bytes += raw - needed;
                }
                if !positions.is_empty() {
                    shape.needed.push((block.row, positions));
                }
            }
            shapes.used_bytes += shape.used_bytes();
            if busy.contains(&shape.pack.run) {
                shapes.busy.add(shape.pack.size_bytes);
            } else {
                shapes.packs.push(shape);
            }
        }
        Ok(shapes)
    }

    /// Rows of the packs to rewrite: the emptiest first until little enough is unused, and small ones of one size.
    fn choose(&mut self, repo: &Repository, options: &PruneOptions) -> HashSet<i64> {
        let mut chosen = HashSet::new();
        let mut budget = options.max_repack_bytes.unwrap_or(u64::MAX);
        let mut take = |shape: &Shape, chosen: &mut HashSet<i64>| {
            let cost = shape.used_bytes();
            let fits = cost <= budget && chosen.insert(shape.pack.row);
            if fits {
                budget -= cost;
            }
            fits
        };
        let mut partly: Vec<&Shape> =
            self.packs.iter().filter(|s| !s.needed.is_empty() && s.reclaimable_raw_bytes > 0).collect();
        partly.sort_by_key(|shape| (std::cmp::Reverse(shape.dead_permille()), shape.pack.row));
        let mut unused: u64 = partly.iter().map(|shape| shape.reclaimable_bytes()).sum();
        let allowed = options.max_unused.allowed_bytes(self.used_bytes);
        for shape in partly {
            if unused <= allowed {
                break;
            }
            if take(shape, &mut chosen) {
                unused = unused.saturating_sub(shape.reclaimable_bytes());
            }
        }
        let mut classes: BTreeMap<(u32, ObjectKind, u32), Vec<&Shape>> = BTreeMap::new();
        for shape in self.packs.iter().filter(|s| !s.needed.is_empty() && !chosen.contains(&s.pack.row)) {
            if shape.pack.size_bytes < repo.config.pack_bytes / SMALL_SHARE {
                let class = shape.pack.size_bytes.max(1).ilog2() / 2;
                classes.entry((shape.pack.domain, shape.pack.kind, class)).or_default().push(shape);
            }
        }
        for small in classes.values().filter(|small| small.len() >= MERGE_COUNT) {
            for shape in small {
                take(shape, &mut chosen);
            }
        }
        chosen
    }

    fn moves(&self, repo: &Repository, live: &Live, chosen: &HashSet<i64>) -> Result<Vec<Move>, EngineError> {
        let mut moves = Vec::new();
        for shape in self.packs.iter().filter(|shape| chosen.contains(&shape.pack.row)) {
            let blocks: HashMap<i64, Arc<BlockInfo>> =
                repo.index.blocks_of(&shape.pack)?.into_iter().map(|block| (block.row, block)).collect();
            for (row, needed) in &shape.needed {
                let Some(block) = blocks.get(row) else { continue };
                let raw: u64 = block.chunks.iter().map(|(_, length)| u64::from(*length)).sum();
                let wanted: u64 = needed.iter().map(|&at| u64::from(block.chunks[at as usize].1)).sum();
                moves.push(Move {
                    domain: shape.pack.domain,
                    kind: shape.pack.kind,
                    order: live.blocks.get(row).map_or(u32::MAX, |live| live.order),
                    needed_bytes: u64::from(block.stored_length) * wanted / raw.max(1),
                    needed: needed.clone(),
                    reseal: reseals(repo, wanted, raw, self.move_percent),
                    block: block.clone(),
                });
            }
        }
        moves.sort_by_key(|m| (m.domain, m.kind, m.order, m.block.row));
        Ok(moves)
    }
}

/// Whether the chunk at this position stands in the block before it already.
fn twice(block: &BlockInfo, position: usize) -> bool {
    let id = &block.chunks[position].0;
    block.chunks[..position].iter().any(|(earlier, _)| earlier == id)
}

fn id_key(id: &ShortId) -> u64 {
    crate::pack::index::key_of(id)
}
