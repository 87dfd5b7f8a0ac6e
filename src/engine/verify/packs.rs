//! Packs and index objects: every directory is read, and what the index says must agree with it.
//!
//! Order as in [`crate::repo::sync`]: tombstones (by [`super::objects`]), packs, index.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;

use super::super::EngineError;
use super::objects::Marks;
use super::outcome::{Report, State, state_of};
use crate::base::byte_size::plural;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::FormatError;
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::format::keyring::Role;
use crate::format::pack::{Index, IndexPack};
use crate::pack::index::IndexMap;
use crate::repo::sync::ListedPack;
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;
use crate::seal::block::origin_of;

/// Directories read at once: each costs a remote storage two round trips.
const PARALLEL_READS: usize = 16;
/// Directories taken into the index with one transaction.
const BATCH_PACKS: usize = 32;

/// What the packs really hold.
pub(in crate::engine) struct Stock {
    /// Made from the packs' own directories; where one cannot be read, from trusted index rows.
    pub index: Arc<IndexMap>,
    /// What trusted index rows say of packs that are not there any more: only to give them a name.
    pub gone: IndexMap,
    /// Listed packs of domains that this key has a part in.
    pub packs: HashMap<ObjectHash, ListedPack>,
    /// Packs whose directory cannot be read.
    pub headless: HashSet<ObjectHash>,
    /// Those of them that are damaged, with why, rather than newer.
    pub bad: HashMap<ObjectHash, String>,
    /// Those that have not the size the index tells: no client reads from them.
    pub cut: HashSet<ObjectHash>,
    /// Packs under a tombstone, listed or not.
    pub condemned: HashSet<ObjectHash>,
}

pub(super) async fn check(
    repo: &Repository,
    marks: &Marks,
    place: Option<&Path>,
    report: &mut Report,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Stock, EngineError> {
    let folder = |name: &str| {
        let Some(folder) = place.map(|place| place.join(name)) else { return Ok(IndexMap::open(None)?) };
        // Where no folder can be made, opening it finds out and keeps the index in memory.
        let _ = std::fs::create_dir(&folder);
        Ok::<_, RepoError>(IndexMap::open(Some(&folder))?)
    };
    let mut stock = Stock {
        index: Arc::new(folder("present")?),
        gone: folder("gone")?,
        packs: repo.list_packs().await?,
        headless: HashSet::new(),
        bad: HashMap::new(),
        condemned: marks.condemned.clone(),
        cut: HashSet::new(),
    };
    note_strangers(repo, report).await?;
    progress.add_total(0, stock.packs.len() as u64);
    let digests = directories(repo, &mut stock, marks, report, progress, cancel).await?;
    let indexed = indexes(repo, &mut stock, &digests, report, cancel).await?;
    stock.index.condemn(&marks.condemned).map_err(RepoError::from)?;
    let condemned = stock.packs.keys().filter(|hash| marks.condemned.contains(hash)).count();
    if condemned > 0 {
        let packs = plural(condemned as u64, "pack");
        report.note(format!("condemned by a prune that has not finished: {packs}"));
    }
    let unindexed = digests.keys().filter(|hash| !indexed.contains(hash)).count();
    if unindexed > 0 {
        report
            .note(format!("{unindexed} packs are in no index object: every client reads their directories"));
    }
    report.checked.packs = stock.packs.len() as u64;
    Ok(stock)
}

/// Objects that no Lifeboat would have named so.
async fn note_strangers(repo: &Repository, report: &mut Report) -> Result<(), EngineError> {
    for kind in [ObjectKind::Data, ObjectKind::Meta, ObjectKind::Index] {
        for listed in repo.store.list(kind.folder()).await? {
            if listed.name.rsplit('/').next().and_then(ObjectHash::from_hex).is_none() {
                report.note(format!("{} is no object of this repository", listed.name));
            }
        }
    }
    Ok(())
}

/// What is compared of a pack: its domain and everything the index would say.
type Digests = HashMap<ObjectHash, [u8; 32]>;

fn digest(domain: u32, pack: &IndexPack) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&domain.to_le_bytes());
    hasher.update(&pack.encode());
    *hasher.finalize().as_bytes()
}

async fn directories(
    repo: &Repository,
    stock: &mut Stock,
    marks: &Marks,
    report: &mut Report,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Digests, EngineError> {
    let mut digests = Digests::new();
    let mut foreign = Vec::new();
    let mut gone = Vec::new();
    let mut batch: HashMap<u32, Vec<IndexPack>> = HashMap::new();
    let packs: Vec<_> = stock.packs.iter().map(|(hash, pack)| (*hash, *pack)).collect();
    let mut reads = futures::stream::iter(packs)
        .map(|(hash, listed)| async move { (hash, listed, repo.open_pack_directory(&hash, &listed).await) })
        .buffer_unordered(PARALLEL_READS);
    while let Some((hash, listed, result)) = reads.next().await {
        cancel.check()?;
        progress.add_done(0, 1);
        match result {
            Ok(Some((header, directory))) => {
                let (kind, size) = (header.kind, listed.size_bytes);
                let pack = IndexPack::from_directory(hash, kind, size, origin_of(&header), &directory);
                digests.insert(hash, digest(header.domain, &pack));
                let packs = batch.entry(header.domain).or_default();
                packs.push(pack);
                if packs.len() >= BATCH_PACKS {
                    stock.index.add_packs(header.domain, packs).map_err(RepoError::from)?;
                    packs.clear();
                }
            }
            Ok(None) => foreign.push(hash),
            // A pruner was faster, or the service contradicts its own listing; the references decide.
            Err(RepoError::Store(error)) if error.is_not_found() => gone.push(hash),
            Err(RepoError::Damaged { object, cause }) => {
                let is_damage = state_of(&cause) == State::Damaged;
                stock.headless.insert(hash);
                if is_damage {
                    stock.bad.insert(hash, cause.to_string());
                }
                if is_damage && marks.condemned.contains(&hash) {
                    report.note(format!("{object} is damaged and condemned: a prune will delete it"));
                } else {
                    report.seal(object, &cause);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (domain, packs) in batch {
        stock.index.add_packs(domain, &packs).map_err(RepoError::from)?;
    }
    if !foreign.is_empty() {
        let packs = plural(foreign.len() as u64, "pack");
        report.not_tested(format!("{packs} of domains this key has no part in"));
    }
    for hash in foreign.iter().chain(&gone) {
        stock.packs.remove(hash);
    }
    Ok(digests)
}

/// Reads every index object; returns the listed packs that one of them names.
async fn indexes(
    repo: &Repository,
    stock: &mut Stock,
    digests: &Digests,
    report: &mut Report,
    cancel: &Cancel,
) -> Result<HashSet<ObjectHash>, EngineError> {
    let mut indexed = HashSet::new();
    let mut stale = 0u64;
    for listed in repo.store.list(ObjectKind::Index.folder()).await? {
        cancel.check()?;
        let Some(hash) = listed.name.rsplit('/').next().and_then(ObjectHash::from_hex) else { continue };
        let (domain, index) = match repo.read_index(&hash).await {
            Ok(Some(read)) => read,
            Ok(None) => {
                report.not_tested("index objects of domains this key has no part in");
                continue;
            }
            Err(RepoError::Store(error)) if error.is_not_found() => continue,
            Err(error) => {
                report.absorb(error)?;
                continue;
            }
        };
        report.checked.objects += 1;
        let rows = trusted(repo, index, &listed.name, report);
        let mut wrong = 0u64;
        for row in rows {
            let hash = row.pack;
            if let Some(known) = digests.get(&hash) {
                indexed.insert(hash);
                wrong += u64::from(*known != digest(domain, &row));
            } else if stock.headless.contains(&hash) {
                if stock.packs.get(&hash).is_some_and(|listed| listed.size_bytes != row.size_bytes) {
                    stock.cut.insert(hash);
                }
                stock.index.add_packs(domain, &[row]).map_err(RepoError::from)?;
            } else {
                stale += 1;
                stock.gone.add_packs(domain, &[row]).map_err(RepoError::from)?;
            }
        }
        if wrong > 0 {
            report.damaged(listed.name, format!("{wrong} packs are not what it says: run `repair index`"));
        }
    }
    if stale > 0 {
        report.note(format!("index objects name {stale} packs that are gone"));
    }
    Ok(indexed)
}

/// Rows that readers would believe: by the pack's own author, or by who may vouch.
fn trusted(repo: &Repository, index: Index, object: &str, report: &mut Report) -> Vec<IndexPack> {
    let author = index.author;
    let member = author.and_then(|key| repo.member(&key));
    if member.is_some_and(|member| matches!(member.role, Role::Owner | Role::Maintainer)) {
        return index.packs;
    }
    let (own, other): (Vec<_>, Vec<_>) =
        index.packs.into_iter().partition(|pack| Some(pack.author) == author);
    if !other.is_empty() {
        report.damaged(object, format!("{} of its rows are about packs of another author", other.len()));
    }
    own
}

/// The error of a pack that is shorter or longer than its header says.
pub(super) fn size_error() -> SealError {
    FormatError::Truncated("pack").into()
}
