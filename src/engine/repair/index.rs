//! The repair verb: makes the index anew from the packs' own directories, and puts a lost keyring back.
//!
//! Order: every directory is read and the new index objects are put before any old one is deleted, so a crash
//! leaves at worst both. A pack whose directory cannot be read keeps the rows that a sound index object had of it.
//! Chunks that are gone cannot be made here: [`crate::engine::verify`] names what they cost, and a later backup of the
//! same content puts them back, which heals every snapshot that refers to them.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;

use super::super::EngineError;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::format::keyring::Role;
use crate::format::pack::IndexPack;
use crate::pack::pack_name;
use crate::repo::open::recover_keyring;
use crate::repo::sync::ListedPack;
use crate::repo::{RepoError, Repository};
use crate::seal::block::origin_of;
use crate::seal::object::open_keyring;

/// Chunk rows in one new index object; at about 20 bytes each this bounds memory.
const OBJECT_ROWS: usize = 400_000;
const PARALLEL_READS: usize = 16;

/// What repairing the index would do.
#[derive(Debug, Serialize)]
pub struct IndexPlan {
    /// Packs whose directories will be read.
    pub packs: usize,
    /// Index objects that will be replaced.
    pub replaced: Vec<String>,
    /// Those of them that cannot be read, with why.
    pub unreadable: Vec<(String, String)>,
    /// The keyring object that will be put back from a manifest.
    pub keyring: Option<String>,
    #[serde(skip)]
    listed: HashMap<ObjectHash, ListedPack>,
    #[serde(skip)]
    keyring_bytes: Option<Bytes>,
}

/// What repairing the index did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IndexOutcome {
    pub packs: u64,
    pub chunks: u64,
    pub written: u64,
    pub removed: u64,
    /// Packs whose directory cannot be read, with why; true where an old index object still had their rows.
    pub headless: Vec<(String, String, bool)>,
    pub keyring: Option<String>,
}

/// Looks at what there is. Reads index objects, no packs.
pub async fn plan_index(repo: &Repository) -> Result<IndexPlan, EngineError> {
    if !matches!(repo.access.role, Role::Owner | Role::Maintainer) {
        // Rows about other authors' packs count only when signed by one of these.
        return Err(repo.not_permitted("repair the index").into());
    }
    let listed = repo.list_packs().await?;
    let (mut replaced, mut unreadable) = (Vec::new(), Vec::new());
    for one in repo.store.list(ObjectKind::Index.folder()).await? {
        let Some(hash) = one.name.rsplit('/').next().and_then(ObjectHash::from_hex) else { continue };
        match repo.read_index(&hash).await {
            Ok(Some(_)) => {}
            // Of a domain without a key here: not ours to replace.
            Ok(None) => continue,
            Err(RepoError::Store(error)) if error.is_not_found() => continue,
            Err(error) if error.newer_version().is_some() => return Err(error.into()),
            Err(RepoError::Damaged { cause, .. }) => unreadable.push((one.name.clone(), cause.to_string())),
            Err(error) => return Err(error.into()),
        }
        replaced.push(one.name);
    }
    let lost = lost_keyring(repo).await?;
    let (keyring, keyring_bytes) = lost.map_or((None, None), |(name, bytes)| (Some(name), Some(bytes)));
    Ok(IndexPlan { packs: listed.len(), replaced, unreadable, keyring, listed, keyring_bytes })
}

/// The keyring object to put back, if the stored one is lost or damaged and a manifest has it.
async fn lost_keyring(repo: &Repository) -> Result<Option<(String, Bytes)>, EngineError> {
    let Some(owner) = &repo.owner else { return Ok(None) };
    let name = format!("keyring/{}", owner.keyring.number);
    match repo.storage.get(&name).await {
        Ok(bytes) if open_keyring(&owner.root, &repo.access.repo, &bytes).is_ok() => return Ok(None),
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let found = recover_keyring(repo.store.as_ref(), &owner.root, &repo.access.repo).await?;
    Ok(found.filter(|(number, _)| *number == owner.keyring.number).map(|(_, bytes)| (name, bytes)))
}

struct Repair<'r> {
    repo: &'r Repository,
    rows: BTreeMap<u32, Vec<IndexPack>>,
    outcome: IndexOutcome,
    written: HashSet<ObjectHash>,
}

/// Does what the plan says.
pub async fn apply_index(
    repo: &Repository,
    plan: IndexPlan,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<IndexOutcome, EngineError> {
    let mut repair =
        Repair { repo, rows: BTreeMap::new(), outcome: IndexOutcome::default(), written: HashSet::new() };
    if let (Some(name), Some(bytes)) = (&plan.keyring, plan.keyring_bytes) {
        repo.store.delete(name).await?;
        repo.store.put(name, bytes).await?;
        repair.outcome.keyring = Some(name.clone());
    }
    progress.phase("reading directories");
    progress.add_total(0, plan.listed.len() as u64);
    let (mut headless, mut doubtful) = (HashMap::new(), HashMap::new());
    let mut packs: Vec<_> = plan.listed.into_iter().collect();
    packs.sort_by_key(|(hash, _)| *hash);
    let mut reads = futures::stream::iter(packs)
        .map(|(hash, listed)| async move { (hash, listed, repo.open_pack_directory(&hash, &listed).await) })
        .buffered(PARALLEL_READS);
    while let Some((hash, listed, result)) = reads.next().await {
        cancel.check()?;
        progress.add_done(0, 1);
        match result {
            // A revoked key's own word is not taken; what the owner vouched for stands in the old index.
            Ok(Some((_, directory))) if repo.is_revoked(&directory.author) => {
                doubtful.insert(hash, listed);
            }
            Ok(Some((header, directory))) => {
                let (kind, size) = (header.kind, listed.size_bytes);
                let row = IndexPack::from_directory(hash, kind, size, origin_of(&header), &directory);
                repair.take(header.domain, row).await?;
            }
            Ok(None) => {}
            Err(RepoError::Store(error)) if error.is_not_found() => {}
            Err(error) if error.newer_version().is_some() => return Err(error.into()),
            Err(RepoError::Damaged { cause, .. }) => {
                headless.insert(hash, (listed, cause.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    repair.keep_rows_of(headless, doubtful, &plan.replaced).await?;
    let replaced: Vec<ObjectHash> = plan
        .replaced
        .iter()
        .filter_map(|name| name.rsplit('/').next().and_then(ObjectHash::from_hex))
        .collect();
    repair.flush(&replaced).await?;
    repo.settle().await;
    for hash in replaced.iter().filter(|hash| !repair.written.contains(hash)) {
        repo.store.delete(&format!("index/{hash}")).await?;
        repair.outcome.removed += 1;
    }
    repo.index.save_filter().map_err(RepoError::from)?;
    Ok(repair.outcome)
}

impl Repair<'_> {
    /// Takes a pack into the local index, whatever that said of it, and into the next index object.
    async fn take(&mut self, domain: u32, row: IndexPack) -> Result<(), EngineError> {
        let chunks = |row: &IndexPack| row.blocks.iter().map(|block| block.chunks.len()).sum::<usize>();
        self.outcome.packs += 1;
        self.outcome.chunks += chunks(&row) as u64;
        self.repo.index.remove_packs(&[row.pack]).map_err(RepoError::from)?;
        self.repo.index.add_packs(domain, std::slice::from_ref(&row)).map_err(RepoError::from)?;
        let rows = self.rows.entry(domain).or_default();
        rows.push(row);
        if rows.iter().map(chunks).sum::<usize>() >= OBJECT_ROWS {
            let rows = std::mem::take(rows);
            self.publish(domain, rows, Vec::new()).await?;
        }
        Ok(())
    }

    async fn publish(
        &mut self,
        domain: u32,
        rows: Vec<IndexPack>,
        supersedes: Vec<ObjectHash>,
    ) -> Result<(), EngineError> {
        let domain = self.repo.access.domain(domain)?;
        if let Some(hash) = self.repo.publish(domain, rows, supersedes).await? {
            self.outcome.written += 1;
            self.written.insert(hash);
        }
        Ok(())
    }

    /// What is left; the last object names what it and those before it replace.
    async fn flush(&mut self, replaced: &[ObjectHash]) -> Result<(), EngineError> {
        let mut rows = std::mem::take(&mut self.rows).into_iter().peekable();
        while let Some((domain, packs)) = rows.next() {
            let supersedes = if rows.peek().is_none() { replaced.to_vec() } else { Vec::new() };
            if !packs.is_empty() {
                self.publish(domain, packs, supersedes).await?;
            }
        }
        Ok(())
    }

    /// Rows of packs whose directory is damaged or not to be believed, from the old index objects that can be read.
    async fn keep_rows_of(
        &mut self,
        headless: HashMap<ObjectHash, (ListedPack, String)>,
        doubtful: HashMap<ObjectHash, ListedPack>,
        indexes: &[String],
    ) -> Result<(), EngineError> {
        if headless.is_empty() && doubtful.is_empty() {
            return Ok(());
        }
        let mut kept = HashSet::new();
        let damaged = headless.iter().map(|(hash, (listed, _))| (*hash, *listed));
        let listed = damaged.chain(doubtful).collect();
        for hash in indexes.iter().filter_map(|name| name.rsplit('/').next().and_then(ObjectHash::from_hex)) {
            let (domain, index) = match self.repo.read_index(&hash).await {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(error) if error.is_damage() => continue,
                Err(error) => return Err(error.into()),
            };
            for row in self.repo.trusted_packs(index, &listed) {
                if kept.insert(row.pack) {
                    self.take(domain, row).await?;
                }
            }
        }
        let mut report: Vec<_> = headless.into_iter().collect();
        report.sort_by_key(|(hash, _)| *hash);
        for (hash, (listed, why)) in report {
            let name = pack_name(listed.kind, &hash);
            self.outcome.headless.push((name, why, kept.contains(&hash)));
        }
        Ok(())
    }
}
