//! Into a replica: sealed packs and blocks as they are.
//!
//! Planned by chunk id: what the replica lacks is looked up in the source's index. A pack of which the replica needs
//! at least half goes over byte for byte under its name; from any other pack only the needed blocks go, unopened,
//! into new packs. A name that stands under a tombstone at the replica is never put: its blocks are moved.
//!
//! Manifests go over as they are. Everything is checked on the way: a pack against its name, a block against the
//! hash in its pack's signed directory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::walk::{Seen, lost, walk};
use super::{Copied, CopyOutcome, Ends, Failed, ROUNDS};
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, ShortId};
use crate::format::pack::IndexPack;
use crate::pack::build::{FinishedPack, PackSeed, SerialPacker};
use crate::pack::index::{BlockInfo, PackInfo};
use crate::repo::commit::Pending;
use crate::repo::keys::members::index_rows;
use crate::repo::marks::condemned;
use crate::repo::reach::Reach;
use crate::repo::run::Run;
use crate::repo::snapshots::Snapshot;
use crate::repo::sync::{ListedPack, Thoroughness};
use crate::repo::{RepoError, Repository};
use crate::seal::access::Access;
use crate::seal::block::{Compression, origin_of};

/// Whole packs on their way at a time: each is in memory once.
const PACKS_AT_ONCE: usize = 3;

type Reaches = BTreeMap<u32, Reach>;
/// Blocks to fetch, as rows of the source's index, by pack.
type Plan = BTreeMap<i64, BTreeSet<i64>>;

struct Copier<'a, 'r> {
    ends: &'a Ends<'a>,
    run: Run<'r>,
    /// Names that must not be put.
    condemned: HashSet<ObjectHash>,
    outcome: &'a mut CopyOutcome,
    /// Blocks of the source that could not be read.
    bad: HashSet<i64>,
    packers: HashMap<(u32, ObjectKind), (Access, SerialPacker)>,
    unpublished: BTreeMap<u32, Vec<IndexPack>>,
}

/// Copies snapshots, each committed before the next begins.
pub async fn all(
    ends: &Ends<'_>,
    run: Run<'_>,
    condemned: HashSet<ObjectHash>,
    wanted: &[&Snapshot],
    outcome: &mut CopyOutcome,
) -> Result<(), EngineError> {
    let (packers, unpublished) = (HashMap::new(), BTreeMap::new());
    let mut copier = Copier { ends, run, condemned, outcome, bad: HashSet::new(), packers, unpublished };
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
        let mut fresh = Reach::new(ends.target.local.folder())?;
        if let std::collections::btree_map::Entry::Vacant(entry) = reached.entry(domain) {
            entry.insert(Reach::new(ends.target.local.folder())?);
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
        self.condemned.extend(condemned(&ends.target.tombstones().await?));
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
            // Taken away or condemned meanwhile: store it again, under other names.
            self.condemned.extend(condemned(&ends.target.tombstones().await?));
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
            let mut asis = Vec::new();
            for pack in packs {
                self.ends.cancel.check()?;
                let blocks = self.ends.source.index.blocks_of(&pack)?;
                let size = |blocks: &[std::sync::Arc<BlockInfo>]| {
                    // Padding is nobody's need.
                    let filled = blocks.iter().filter(|block| !block.chunks.is_empty());
                    filled.map(|block| u64::from(block.stored_length)).sum::<u64>()
                };
                let total = size(&blocks);
                let rows = &plan[&pack.row];
                let needed: Vec<_> = blocks.into_iter().filter(|block| rows.contains(&block.row)).collect();
                let free =
                    !self.condemned.contains(&pack.hash) && self.ends.target.index.pack(&pack.hash).is_none();
                if free && size(&needed) * 2 >= total {
                    asis.push((pack, needed));
                    if asis.len() == PACKS_AT_ONCE {
                        self.put_as_they_are(std::mem::take(&mut asis)).await?;
                    }
                } else {
                    self.move_blocks(&pack, &needed).await?;
                }
            }
            self.put_as_they_are(asis).await?;
            self.flush().await?;
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
            let planned = |block: &std::sync::Arc<BlockInfo>| {
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

    async fn put_as_they_are(
        &mut self,
        packs: Vec<(std::sync::Arc<PackInfo>, Vec<std::sync::Arc<BlockInfo>>)>,
    ) -> Result<(), EngineError> {
        let (source, target) = (self.ends.source, self.ends.target);
        let copies = packs.iter().map(|(pack, _)| transfer(source, target, pack));
        let results = futures::future::join_all(copies).await;
        for ((pack, needed), result) in packs.iter().zip(results) {
            if result? {
                let rows = index_rows(source, pack)?;
                target.index.add_packs(pack.domain, std::slice::from_ref(&rows))?;
                self.outcome.packs_as_they_are += 1;
                self.outcome.added_bytes += pack.size_bytes;
                self.unpublished.entry(pack.domain).or_default().push(rows);
            } else {
                // Some of it may still be sound.
                self.move_blocks(pack, needed).await?;
            }
        }
        Ok(())
    }

    /// Moves blocks unopened into new packs. Those that cannot be read are noted as bad.
    async fn move_blocks(
        &mut self,
        pack: &PackInfo,
        needed: &[std::sync::Arc<BlockInfo>],
    ) -> Result<(), EngineError> {
        let source = self.ends.source;
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
        for info in needed {
            self.ends.cancel.check()?;
            let place = places.get(&info.offset).copied();
            let stored = match source.reader.fetch(info).await {
                Ok(stored) => stored,
                Err(error) if error.is_damage() => Bytes::new(),
                Err(error) => return Err(error.into()),
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
                if let Some(finished) = finished {
                    self.put_new(pack.domain, finished).await?;
                }
            }
        }
        Ok(())
    }

    async fn put_new(&mut self, domain: u32, pack: FinishedPack) -> Result<(), EngineError> {
        let target = self.ends.target;
        self.outcome.added_bytes += pack.bytes.len() as u64;
        target.store.put(&pack.name(), pack.bytes).await?;
        target.index.add_packs(domain, std::slice::from_ref(&pack.index)).map_err(RepoError::from)?;
        self.unpublished.entry(domain).or_default().push(pack.index);
        Ok(())
    }

    /// Puts what is left of moved blocks, then index objects that name only packs whose put was acknowledged.
    async fn flush(&mut self) -> Result<(), EngineError> {
        let mut last = Vec::new();
        for ((domain, _), (access, packer)) in &mut self.packers {
            if let Some(pack) = packer.finish(&seed(&self.run, access))? {
                last.push((*domain, pack));
            }
        }
        for (domain, pack) in last {
            self.put_new(domain, pack).await?;
        }
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

/// Copies one pack byte for byte. False: at the source it is gone or is not what its name says.
async fn transfer(source: &Repository, target: &Repository, pack: &PackInfo) -> Result<bool, RepoError> {
    let name = crate::pack::pack_name(pack.kind, &pack.hash);
    let bytes = match source.store.get(&name).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if blake3::hash(&bytes).as_bytes() != pack.hash.as_bytes() {
        return Ok(false);
    }
    target.store.put(&name, bytes).await?;
    Ok(true)
}
