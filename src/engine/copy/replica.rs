//! Into a replica: sealed blocks as they are.
//!
//! Planned by chunk id: what the replica lacks is looked up in the source's index, and its blocks go over unopened,
//! into new packs. Their names are new too, even where a whole pack goes over: the replica may have condemned the
//! source's name before, and a delete that was sent then may still arrive.
//!
//! Manifests go over as they are. Everything is checked on the way: a block against the hash in its pack's signed
//! directory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::walk::{Seen, lost, walk};
use super::{Copied, CopyOutcome, Ends, Failed, ROUNDS};
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::pack::IndexPack;
use crate::pack::build::{FinishedPack, PackSeed, SerialPacker};
use crate::pack::index::{BlockInfo, PackInfo};
use crate::repo::RepoError;
use crate::repo::commit::Pending;
use crate::repo::reach::Reach;
use crate::repo::run::Run;
use crate::repo::snapshots::Snapshot;
use crate::repo::sync::{ListedPack, Thoroughness};
use crate::seal::access::Access;
use crate::seal::block::{Compression, origin_of};

/// Packs of the source read, and new ones put, at a time: each is in memory whole.
const PACKS_AT_ONCE: usize = 2;

type Reaches = BTreeMap<u32, Reach>;
/// Blocks to fetch, as rows of the source's index, by pack.
type Plan = BTreeMap<i64, BTreeSet<i64>>;

/// What is needed of a pack, and its bytes when they were read as one.
struct Read {
    needed: Vec<Arc<BlockInfo>>,
    whole: Option<Bytes>,
}

struct Copier<'a, 'r> {
    ends: &'a Ends<'a>,
    run: Run<'r>,
    outcome: &'a mut CopyOutcome,
    /// Blocks of the source that could not be read.
    bad: HashSet<i64>,
    packers: HashMap<(u32, ObjectKind), (Access, SerialPacker)>,
    /// Waiting to be put.
    finished: Vec<(u32, FinishedPack)>,
    unpublished: BTreeMap<u32, Vec<IndexPack>>,
}

/// Copies snapshots, each committed before the next begins.
pub async fn all(
    ends: &Ends<'_>,
    run: Run<'_>,
    wanted: &[&Snapshot],
    outcome: &mut CopyOutcome,
) -> Result<(), EngineError> {
    let (packers, unpublished) = (HashMap::new(), BTreeMap::new());
    let (bad, finished) = (HashSet::new(), Vec::new());
    let mut copier = Copier { ends, run, outcome, bad, packers, finished, unpublished };
    // Pages of earlier snapshots need no second walk; what they reach stays in `reached` for the last check.
    let (mut seen, mut reached) = (Seen::new(), Reaches::new());
    for snapshot in wanted {
        ends.cancel.check()?;
        ends.progress.current(&format!("{} {}", snapshot.summary.job, snapshot.id));
        match copier.snapshot(snapshot, &mut seen, &mut reached).await? {
            None => {
                let id = snapshot.id;
                copier.outcome.copied.push(Copied { from: id, to: Some(id) });
            }
            Some(mut failed) => {
                failed.snapshot = Some(snapshot.id);
                copier.outcome.failed.push(failed);
                // What is lost must not count as walked when the next snapshot reaches it too.
                (seen, reached) = (Seen::new(), Reaches::new());
            }
        }
        ends.progress.add_done(snapshot.summary.statistics.total_bytes, 1);
        copier.run.beat().await?;
    }
    copier.run.end().await;
    Ok(())
}

impl Copier<'_, '_> {
    async fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        seen: &mut Seen,
        reached: &mut Reaches,
    ) -> Result<Option<Failed>, EngineError> {
        let (ends, domain) = (self.ends, snapshot.domain);
        let root = match ends.source.contents(snapshot).await {
            Ok(contents) => contents.root,
            Err(error) if error.is_damage() => {
                let mut failed = Failed::default();
                failed.add(b"/".to_vec(), error.to_string());
                return Ok(Some(failed));
            }
            Err(error) => return Err(error.into()),
        };
        let mut fresh = Reach::new(ends.target.local.folder());
        if let std::collections::btree_map::Entry::Vacant(entry) = reached.entry(domain) {
            entry.insert(Reach::new(ends.target.local.folder()));
        }
        let mut note = |kind, id: &ShortId| {
            fresh.add(kind, id)?;
            reached.get_mut(&domain).map_or(Ok(()), |all| all.add(kind, id))
        };
        match walk(ends, domain, root, seen, &mut note).await {
            Ok(()) => {}
            Err(error) if error.is_damage() => {
                return Ok(Some(lost(ends, domain, root, &ends.source.index).await?));
            }
            Err(error) => return Err(error.into()),
        }
        if !self.transport(domain, &mut fresh).await? {
            return Ok(Some(lost(ends, domain, root, &ends.target.index).await?));
        }
        let manifest: Bytes = ends.source.manifest(snapshot).await?.into();
        let size_bytes = manifest.len() as u64;
        ends.target.store.put(&snapshot.object, manifest).await.map_err(RepoError::from)?;
        let pending = Pending { id: snapshot.id, object: snapshot.object.clone(), size_bytes };
        for _ in 0..ROUNDS {
            let missing =
                self.run.check_domains(reached.iter_mut().map(|(domain, reach)| (*domain, reach))).await?;
            if missing.is_empty() {
                self.run.confirm(&pending).await?;
                return Ok(None);
            }
            // Taken away or condemned meanwhile: store it again.
            ends.source.sync(Thoroughness::Tolerant).await?;
            for (domain, reach) in reached.iter_mut() {
                if !self.transport(*domain, reach).await? {
                    return Ok(Some(lost(ends, snapshot.domain, root, &ends.target.index).await?));
                }
            }
        }
        let why = format!("prunes at {} keep removing what this copy stores", ends.target.store.location());
        Err(RepoError::Conflict(why).into())
    }

    /// Brings over what the replica lacks of what is reached, and publishes it. False: something cannot be read.
    async fn transport(&mut self, domain: u32, reach: &mut Reach) -> Result<bool, EngineError> {
        loop {
            let (plan, whole) = self.plan(domain, reach)?;
            if plan.is_empty() {
                return Ok(whole);
            }
            let mut packs: Vec<_> = self.ends.source.index.packs();
            packs.retain(|pack| plan.contains_key(&pack.row));
            packs.sort_by_key(|pack| pack.row);
            for group in packs.chunks(PACKS_AT_ONCE) {
                self.ends.cancel.check()?;
                let read = group.iter().map(|pack| self.read(pack, &plan[&pack.row]));
                for (pack, read) in group.iter().zip(futures::future::join_all(read).await) {
                    self.move_blocks(pack, read?).await?;
                }
                self.put_finished(PACKS_AT_ONCE).await?;
            }
            self.flush().await?;
        }
    }

    /// The needed blocks of a pack, and the whole of it when at least half is needed.
    async fn read(&self, pack: &PackInfo, rows: &BTreeSet<i64>) -> Result<Read, EngineError> {
        let source = self.ends.source;
        let blocks = source.index.blocks_of(pack)?;
        let size = |blocks: &[Arc<BlockInfo>]| {
            // Padding is nobody's need.
            let filled = blocks.iter().filter(|block| !block.chunks.is_empty());
            filled.map(|block| u64::from(block.stored_length)).sum::<u64>()
        };
        let total = size(&blocks);
        let needed: Vec<_> = blocks.into_iter().filter(|block| rows.contains(&block.row)).collect();
        if size(&needed) * 2 < total {
            return Ok(Read { needed, whole: None });
        }
        let whole = source.store.get(&crate::pack::pack_name(pack.kind, &pack.hash)).await;
        match whole.map_err(RepoError::from) {
            Ok(whole) => Ok(Read { needed, whole: Some(whole) }),
            // Block by block it is found out what of it is still there.
            Err(error) if gone_or_damaged(&error) => Ok(Read { needed, whole: None }),
            Err(error) => Err(error.into()),
        }
    }

    /// The blocks to fetch, and whether that is everything the replica lacks.
    fn plan(&self, domain: u32, reach: &mut Reach) -> Result<(Plan, bool), RepoError> {
        let (source, target) = (self.ends.source, self.ends.target);
        let (mut plan, mut whole) = (Plan::new(), true);
        reach.for_each(|kind, id| {
            if target.index.contains(domain, kind, &id)? {
                return Ok(());
            }
            let mut found = source.index.locations(domain, kind, &id)?;
            found.retain(|block| !self.bad.contains(&block.row));
            let planned = |block: &Arc<BlockInfo>| {
                plan.get(&block.pack.row).is_some_and(|rows: &BTreeSet<i64>| rows.contains(&block.row))
            };
            if found.iter().any(planned) {
                return Ok(());
            }
            match found.first() {
                Some(block) => {
                    plan.entry(block.pack.row).or_default().insert(block.row);
                }
                None => whole = false,
            }
            Ok(())
        })?;
        Ok((plan, whole))
    }

    /// Moves blocks unopened into new packs. Those that cannot be read are noted as bad.
    async fn move_blocks(&mut self, pack: &PackInfo, read: Read) -> Result<(), EngineError> {
        let (source, Read { needed, whole }) = (self.ends.source, read);
        let listed = ListedPack { kind: pack.kind, size_bytes: pack.size_bytes };
        let opened = match source.open_pack_directory(&pack.hash, &listed).await {
            Ok(opened) => opened,
            Err(error) if gone_or_damaged(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let Some((header, directory)) = opened else {
            self.bad.extend(needed.iter().map(|block| block.row));
            return Ok(());
        };
        let mut offset = header.encoded_bytes() as u64;
        let mut places = HashMap::new();
        for (number, block) in directory.blocks.iter().enumerate() {
            places.insert(offset, number);
            offset += u64::from(block.stored_length);
        }
        for info in &needed {
            self.ends.cancel.check()?;
            let place = places.get(&info.offset).copied();
            let stored = match &whole {
                Some(whole) => slice(whole, info),
                None => match source.reader.fetch(info).await {
                    Ok(stored) => stored,
                    Err(error) if error.is_damage() => Bytes::new(),
                    Err(error) => return Err(error.into()),
                },
            };
            let sound =
                place.filter(|n| directory.block_hashes.get(*n) == Some(blake3::hash(&stored).as_bytes()));
            let Some(number) = sound else {
                self.bad.insert(info.row);
                continue;
            };
            let block = directory.blocks[number].clone();
            let own = origin_of(&header);
            let origin = match block.origin {
                0 => &own,
                n => directory.origins.get(n as usize - 1).unwrap_or(&own),
            };
            self.outcome.blocks_moved += 1;
            let key = (pack.domain, pack.kind);
            if let std::collections::hash_map::Entry::Vacant(entry) = self.packers.entry(key) {
                let mut access = (*self.ends.target.access).clone();
                access.home = pack.domain;
                let pack_bytes = self.ends.target.config.pack_bytes as usize;
                entry.insert((access, SerialPacker::new(pack.kind, Compression::None, pack_bytes)?));
            }
            if let Some((access, packer)) = self.packers.get_mut(&key) {
                let finished = packer.add_moved(&seed(&self.run, access), block, origin, &stored)?;
                self.finished.extend(finished.map(|finished| (pack.domain, finished)));
                self.put_finished(PACKS_AT_ONCE).await?;
            }
        }
        Ok(())
    }

    /// Puts what is finished, once there are so many.
    async fn put_finished(&mut self, least: usize) -> Result<(), EngineError> {
        if self.finished.len() < least {
            return Ok(());
        }
        let target = self.ends.target;
        let packs = std::mem::take(&mut self.finished);
        let puts =
            packs.iter().map(|(_, pack)| async { target.store.put(&pack.name(), pack.bytes.clone()).await });
        let puts = futures::future::join_all(puts).await;
        for ((domain, pack), put) in packs.into_iter().zip(puts) {
            put.map_err(RepoError::from)?;
            self.outcome.added_bytes += pack.bytes.len() as u64;
            target.index.add_packs(domain, std::slice::from_ref(&pack.index)).map_err(RepoError::from)?;
            self.unpublished.entry(domain).or_default().push(pack.index);
        }
        Ok(())
    }

    /// Puts what is left of moved blocks, then index objects that name only packs whose put was acknowledged.
    async fn flush(&mut self) -> Result<(), EngineError> {
        for ((domain, _), (access, packer)) in &mut self.packers {
            let last = packer.finish(&seed(&self.run, access))?;
            self.finished.extend(last.map(|pack| (*domain, pack)));
        }
        self.put_finished(1).await?;
        let target = self.ends.target;
        for (domain, packs) in std::mem::take(&mut self.unpublished) {
            let keys = target.access.domain(domain)?;
            target.publish(keys, packs, Vec::new()).await?;
        }
        Ok(())
    }
}

fn seed<'s>(run: &'s Run<'_>, access: &'s Access) -> PackSeed<'s> {
    PackSeed { access, random: run.repo.world.random.as_ref(), run: run.id, counter: &run.packs }
}

fn gone_or_damaged(error: &RepoError) -> bool {
    let gone = matches!(error, RepoError::Store(error) if error.is_not_found()
        || error.kind == crate::store::StoreErrorKind::Truncated);
    gone || error.is_damage()
}

/// A block of a pack that was read whole; empty where the pack is shorter than it should be.
fn slice(whole: &Bytes, block: &BlockInfo) -> Bytes {
    let range = usize::try_from(block.offset).ok().and_then(|from| {
        let end = from.checked_add(block.stored_length as usize)?;
        (end <= whole.len()).then_some(from..end)
    });
    range.map_or_else(Bytes::new, |range| whole.slice(range))
}
