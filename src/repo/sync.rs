//! Reconciles the local index with the repository.
//!
//! Order: tombstones, **then** packs, then index objects. Packs listed before tombstones would lose data: a
//! pruner could put its tombstone, delete the pack and remove the tombstone between the two, and the pack would
//! look both present and uncondemned.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::marks::condemned;
use super::{RepoError, Repository};
use crate::format::header::{Header, ObjectKind};
use crate::format::id::{ObjectHash, RunId};
use crate::format::keyring::Role;
use crate::format::pack::{Index, IndexPack, PACK_LIMIT_BYTES};
use crate::format::signed::Tombstone;
use crate::pack::pack_name;
use crate::seal::block::origin_of;
use crate::seal::object::{open_directory, open_index};
use crate::store::{StoreError, StoreErrorKind};

/// Bytes read first of a pack whose directory is wanted: the header and then some.
const HEADER_PROBE_BYTES: u64 = 256;

/// A listed pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedPack {
    pub kind: ObjectKind,
    pub size_bytes: u64,
}

/// What the storage holds, as far as the protocol asks.
#[derive(Debug)]
pub struct Inventory {
    pub tombstones: BTreeMap<RunId, Tombstone>,
    pub condemned: HashSet<ObjectHash>,
    pub packs: HashMap<ObjectHash, ListedPack>,
    /// Index objects with their sizes in bytes.
    pub indexes: HashMap<ObjectHash, u64>,
    /// Index objects named as superseded by another that was read.
    pub superseded: HashSet<ObjectHash>,
    /// Packs without a row: no index object names them yet, and their directory was not taken in.
    pub unindexed: Vec<ObjectHash>,
    /// Index objects that could not be read, with why. Their packs may count as unindexed.
    pub unreadable: Vec<(ObjectHash, RepoError)>,
}

/// How thorough a sync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// An unreadable index object or directory is left out: its chunks are only stored again.
    Tolerant,
    /// Any of them is an error: for whoever decides what to delete.
    Strict,
}

impl Repository {
    /// Brings the local index up to date.
    pub async fn sync(&self, thoroughness: Thoroughness) -> Result<Inventory, RepoError> {
        self.index.refresh()?;
        let tombstones = self.tombstones().await?;
        let packs = self.list_packs().await?;
        let mut inventory = Inventory {
            condemned: condemned(&tombstones),
            tombstones,
            packs,
            indexes: HashMap::new(),
            superseded: HashSet::new(),
            unindexed: Vec::new(),
            unreadable: Vec::new(),
        };
        self.absorb_indexes(&mut inventory, thoroughness).await?;
        let mut known: HashSet<ObjectHash> = HashSet::new();
        let mut gone = Vec::new();
        for pack in self.index.packs() {
            // A pack of another size is not the one the rows were made of: cut off, its chunks count as absent here
            // too, as they do on every machine that learns of it from the index objects.
            let is = ListedPack { kind: pack.kind, size_bytes: pack.size_bytes };
            if inventory.packs.get(&pack.hash) == Some(&is) {
                known.insert(pack.hash);
            } else {
                gone.push(pack.hash);
            }
        }
        self.index.remove_packs(&gone)?;
        inventory.unindexed = inventory.packs.keys().filter(|hash| !known.contains(hash)).copied().collect();
        inventory.unindexed.sort();
        self.absorb_directories(&mut inventory, thoroughness).await?;
        self.index.condemn(&inventory.condemned)?;
        Ok(inventory)
    }

    /// Every pack that exists.
    pub async fn list_packs(&self) -> Result<HashMap<ObjectHash, ListedPack>, RepoError> {
        let mut packs = HashMap::new();
        for kind in [ObjectKind::Data, ObjectKind::Meta] {
            for listed in self.store.list(kind.folder()).await? {
                let hash = listed.name.rsplit('/').next().and_then(ObjectHash::from_hex);
                if let Some(hash) = hash {
                    packs.insert(hash, ListedPack { kind, size_bytes: listed.size_bytes });
                }
            }
        }
        Ok(packs)
    }

    async fn absorb_indexes(
        &self,
        inventory: &mut Inventory,
        thoroughness: Thoroughness,
    ) -> Result<(), RepoError> {
        let mut absorbed = self.index.absorbed()?;
        for listed in self.store.list(ObjectKind::Index.folder()).await? {
            if let Some(hash) = listed.name.rsplit('/').next().and_then(ObjectHash::from_hex) {
                inventory.indexes.insert(hash, listed.size_bytes);
            }
        }
        let before = absorbed.len();
        absorbed.retain(|hash| inventory.indexes.contains_key(hash));
        let mut changed = absorbed.len() != before;
        let mut fresh: Vec<ObjectHash> =
            inventory.indexes.keys().filter(|hash| !absorbed.contains(*hash)).copied().collect();
        fresh.sort();
        for hash in fresh {
            match self.read_index(&hash).await {
                Ok(Some((domain, index))) => {
                    inventory.superseded.extend(index.supersedes.iter().copied());
                    let packs = self.trusted_packs(index, &inventory.packs);
                    self.index.add_packs(domain, &packs)?;
                    absorbed.insert(hash);
                    changed = true;
                }
                Ok(None) => {}
                Err(RepoError::Store(error)) if error.is_not_found() => {
                    inventory.indexes.remove(&hash);
                }
                Err(error @ RepoError::Damaged { .. }) if thoroughness == Thoroughness::Tolerant => {
                    inventory.unreadable.push((hash, error));
                }
                Err(error) => return Err(error),
            }
        }
        if changed {
            self.index.set_absorbed(&absorbed)?;
        }
        Ok(())
    }

    /// Reads an index object. `None`: of a domain this key has no part in.
    pub async fn read_index(&self, hash: &ObjectHash) -> Result<Option<(u32, Index)>, RepoError> {
        let name = format!("index/{hash}");
        let bytes = self.store.get(&name).await?;
        if blake3::hash(&bytes).as_bytes() != hash.as_bytes() {
            let cause = crate::format::FormatError::Checksum.into();
            return Err(RepoError::Damaged { object: name, cause });
        }
        open_index(&self.access, &bytes, |key| self.verifying_key(key)).map_err(RepoError::object(name))
    }

    /// The rows of an index that may be believed: signed by the owner or a maintainer, or by the pack's own author
    /// while that key stands. Of packs that are not listed nothing is kept.
    pub fn trusted_packs(&self, index: Index, listed: &HashMap<ObjectHash, ListedPack>) -> Vec<IndexPack> {
        let author = index.author;
        let vouches = author
            .and_then(|key| self.member(&key))
            .is_some_and(|member| matches!(member.role, Role::Owner | Role::Maintainer));
        // Another writer's rows say themselves who made the pack and what is in it: its signed directory decides.
        let own = author == Some(self.access.identity.key);
        let revoked = author.is_some_and(|key| self.is_revoked(&key));
        let mut packs = index.packs;
        packs.retain(|pack| {
            (vouches || own && Some(pack.author) == author)
                && !revoked
                && listed
                    .get(&pack.pack)
                    .is_some_and(|listed| listed.kind == pack.kind && listed.size_bytes == pack.size_bytes)
        });
        packs
    }

    /// Takes in packs that no index object names: what an interrupted run had uploaded.
    async fn absorb_directories(
        &self,
        inventory: &mut Inventory,
        thoroughness: Thoroughness,
    ) -> Result<(), RepoError> {
        let mut left = Vec::new();
        for hash in std::mem::take(&mut inventory.unindexed) {
            let Some(listed) = inventory.packs.get(&hash).copied() else { continue };
            match self.read_directory(&hash, &listed).await {
                // A revoked key's pack counts only where the owner signed a row for it.
                Ok(Some((_, pack))) if self.is_revoked(&pack.author) => left.push(hash),
                Ok(Some((domain, pack))) => self.index.add_packs(domain, &[pack])?,
                Ok(None) => left.push(hash),
                Err(RepoError::Store(error)) if error.is_not_found() => {
                    inventory.packs.remove(&hash);
                }
                // Nobody relies on a condemned pack; what lives in it only is missed when the trees are walked.
                Err(error @ RepoError::Damaged { .. })
                    if thoroughness == Thoroughness::Tolerant
                        || (inventory.condemned.contains(&hash) && error.newer_version().is_none()) =>
                {
                    tracing::warn!(%error, "a pack without index entry cannot be read; its chunks are not reused");
                    left.push(hash);
                }
                Err(error) => return Err(error),
            }
        }
        inventory.unindexed = left;
        Ok(())
    }

    /// Reads and verifies a pack's directory. `None`: of a domain this key has no part in.
    pub async fn read_directory(
        &self,
        hash: &ObjectHash,
        listed: &ListedPack,
    ) -> Result<Option<(u32, IndexPack)>, RepoError> {
        let Some((header, directory)) = self.open_pack_directory(hash, listed).await? else {
            return Ok(None);
        };
        let pack =
            IndexPack::from_directory(*hash, header.kind, listed.size_bytes, origin_of(&header), &directory);
        Ok(Some((header.domain, pack)))
    }

    /// Reads and verifies a pack's header and directory, with the full ids. `None`: of a domain without a key here.
    pub async fn open_pack_directory(
        &self,
        hash: &ObjectHash,
        listed: &ListedPack,
    ) -> Result<Option<(Header, crate::format::pack::Directory)>, RepoError> {
        let name = pack_name(listed.kind, hash);
        let damaged = |cause| RepoError::object(name.clone())(cause);
        if listed.size_bytes > PACK_LIMIT_BYTES {
            let (what, value, limit) = ("pack", listed.size_bytes, PACK_LIMIT_BYTES);
            return Err(damaged(crate::format::FormatError::TooLarge { what, value, limit }.into()));
        }
        // The listing told its size: what cannot be read to there is no other trouble of the storage.
        let unread = |error: StoreError| match error.kind {
            StoreErrorKind::Truncated => damaged(crate::format::FormatError::Truncated("pack").into()),
            _ => error.into(),
        };
        let probe = listed.size_bytes.min(HEADER_PROBE_BYTES);
        let head = self.store.get_range(&name, 0, probe).await.map_err(unread)?;
        let (header, length) =
            Header::decode_kind(&head, listed.kind).map_err(|error| damaged(error.into()))?;
        let Ok(domain) = self.access.domain(header.domain) else { return Ok(None) };
        let end = header.directory_offset.checked_add(header.directory_length);
        if end != Some(listed.size_bytes) || header.directory_offset < length as u64 {
            return Err(damaged(crate::seal::SealError::Damaged));
        }
        let (from, length_bytes) = (header.directory_offset, header.directory_length);
        let sealed = self.store.get_range(&name, from, length_bytes).await.map_err(unread)?;
        let (directory, seal) =
            open_directory(&self.access.repo, domain, &header, sealed.into()).map_err(damaged)?;
        let verifying = self.verifying_key(&directory.author);
        let verifying =
            verifying.ok_or_else(|| damaged(crate::seal::SealError::Signature("a pack directory")))?;
        seal.verify(&verifying).map_err(damaged)?;
        let blocks: u64 = directory.blocks.iter().map(|block| u64::from(block.stored_length)).sum();
        if length as u64 + blocks != header.directory_offset {
            return Err(damaged(crate::seal::SealError::Damaged));
        }
        Ok(Some((header, directory)))
    }
}
