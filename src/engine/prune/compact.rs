//! Keeps the index small: rows of deleted packs go, and small index objects are merged in tiers.
//!
//! Crash-safe at every write: an object that repeats others is put first, then those are deleted. While both
//! exist rows stand twice, which is harmless; if an old one is gone and the new one not yet visible, packs without a
//! row are read from their own directories.

use std::collections::{BTreeMap, HashSet};

use super::PruneOutcome;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::format::pack::IndexPack;
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
    // Packs first: a pack that an index object names and that is not listed here is gone.
    let packs = repo.list_packs().await?;
    let mut listed = Vec::new();
    for object in repo.store.list(ObjectKind::Index.folder()).await? {
        if let Some(hash) = object.name.rsplit('/').next().and_then(ObjectHash::from_hex) {
            listed.push(Old { hash, size_bytes: object.size_bytes });
        }
    }
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
        let keep = repo.trusted_packs(index, &packs);
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
