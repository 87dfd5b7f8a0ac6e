//! Keeps the index small: rows of deleted packs go, and small index objects are merged in tiers.
//!
//! Crash-safe at every write: an object that repeats others is put first, then those are deleted. While both
//! exist rows stand twice, which is harmless; if an old one is gone and the new one not yet visible, packs without a
//! row are read from their own directories.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::PruneOutcome;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::format::pack::{Index, IndexPack};
use crate::repo::keys::members::index_rows;
use crate::repo::sync::ListedPack;
use crate::repo::{RepoError, Repository};

/// This many objects of one size class are merged.
const MERGE_COUNT: usize = 8;
/// New objects aim at this many bytes: what one merge holds in memory.
const OBJECT_BYTES: u64 = 8 << 20;

struct Old {
    hash: ObjectHash,
    size_bytes: u64,
}

/// Merges and rewrites. `repo.index` must know which packs are gone.
pub(super) async fn compact(
    repo: &Repository,
    outcome: &mut PruneOutcome,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    progress.phase("writing the index");
    // Index objects first: one that is listed names only packs that were there before it. Packs listed first would
    // miss a pack put in between, and the row of an index object put in between would look like that of a pack that
    // is gone.
    let mut listed = Vec::new();
    for object in repo.store.list(ObjectKind::Index.folder()).await? {
        if let Some(hash) = object.name.rsplit('/').next().and_then(ObjectHash::from_hex) {
            listed.push(Old { hash, size_bytes: object.size_bytes });
        }
    }
    repo.settle().await;
    let packs = repo.list_packs().await?;
    listed.sort_by_key(|old| (old.size_bytes, old.hash));
    let mut classes: BTreeMap<u32, usize> = BTreeMap::new();
    for old in &listed {
        *classes.entry(class(old)).or_default() += 1;
    }
    let mut bundles: BTreeMap<u32, Bundle> = BTreeMap::new();
    let mut superseded: Vec<ObjectHash> = Vec::new();
    for old in &listed {
        cancel.check()?;
        let (domain, index) = match repo.read_index(&old.hash).await {
            Ok(Some(read)) => read,
            Ok(None) => continue,
            Err(RepoError::Store(error)) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let named = index.packs.len();
        // A row that nobody may vouch for says what its pack's own directory says, which was read to get here.
        let Some(keep) = carried(repo, domain, index, &packs)? else { continue };
        let crowded = old.size_bytes < OBJECT_BYTES && classes.get(&class(old)) >= Some(&MERGE_COUNT);
        if keep.len() == named && !crowded {
            continue;
        }
        let bundle = bundles.entry(domain).or_default();
        if !bundle.olds.is_empty() && bundle.size_bytes + old.size_bytes > OBJECT_BYTES {
            bundle.put(repo, domain, &mut superseded).await?;
        }
        bundle.add(old, keep);
    }
    for (domain, bundle) in &mut bundles {
        bundle.put(repo, *domain, &mut superseded).await?;
    }
    if superseded.is_empty() {
        return Ok(());
    }
    // So that no reader finds neither.
    repo.settle().await;
    for hash in &superseded {
        repo.store.delete(&format!("index/{hash}")).await?;
        outcome.index_objects_removed += 1;
    }
    let mut absorbed = repo.index.absorbed()?;
    absorbed.retain(|hash| !superseded.contains(hash));
    repo.index.set_absorbed(&absorbed)?;
    Ok(())
}

/// The rows that go on, as far as packs are listed: those that may be believed as they are, and for packs that other
/// writers' index objects name what the packs' signed directories said. `None`: not all are known here, so the
/// object stays as it is.
fn carried(
    repo: &Repository,
    domain: u32,
    index: Index,
    packs: &HashMap<ObjectHash, ListedPack>,
) -> Result<Option<Vec<IndexPack>>, EngineError> {
    let there = |pack: &IndexPack| {
        let is = ListedPack { kind: pack.kind, size_bytes: pack.size_bytes };
        packs.get(&pack.pack) == Some(&is)
    };
    let named: Vec<ObjectHash> = index.packs.iter().filter(|pack| there(pack)).map(|p| p.pack).collect();
    let mut keep = repo.trusted_packs(index, packs);
    let trusted: HashSet<ObjectHash> = keep.iter().map(|pack| pack.pack).collect();
    for hash in named.iter().filter(|hash| !trusted.contains(hash)) {
        match repo.index.pack(hash) {
            Some(pack) if pack.domain == domain => keep.push(index_rows(repo, &pack)?),
            // Somebody claims a pack for a domain that it is not of: not a row to repeat.
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(keep))
}

fn class(old: &Old) -> u32 {
    old.size_bytes.max(1).ilog2() / 3
}

#[derive(Default)]
struct Bundle {
    olds: Vec<ObjectHash>,
    size_bytes: u64,
    packs: Vec<IndexPack>,
    named: HashSet<ObjectHash>,
}

impl Bundle {
    fn add(&mut self, old: &Old, packs: Vec<IndexPack>) {
        self.olds.push(old.hash);
        self.size_bytes += old.size_bytes;
        for pack in packs {
            if self.named.insert(pack.pack) {
                self.packs.push(pack);
            }
        }
    }

    async fn put(
        &mut self,
        repo: &Repository,
        domain: u32,
        superseded: &mut Vec<ObjectHash>,
    ) -> Result<(), EngineError> {
        let Self { olds, packs, .. } = std::mem::take(self);
        if olds.is_empty() {
            return Ok(());
        }
        if !packs.is_empty() {
            repo.publish(repo.access.domain(domain)?, packs, olds.clone()).await?;
        }
        superseded.extend(olds);
        Ok(())
    }
}
