//! The small signed marks of the protocol: confirms, forgotten marks and tombstones.

use std::collections::{BTreeMap, HashSet};

use super::{RepoError, Repository};
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, RunId, SnapshotId};
use crate::format::keyring::Role;
use crate::format::signed::{Mark, Tombstone};
use crate::seal::object::{open_signed, sign_object};

fn id_of(name: &str) -> Option<SnapshotId> {
    SnapshotId::from_hex(name.rsplit('/').next()?)
}

impl Repository {
    /// Ids named in `confirms/` or `forgotten/`, from the listing alone.
    async fn listed_marks(&self, kind: ObjectKind) -> Result<HashSet<SnapshotId>, RepoError> {
        let listed = self.store.list(kind.folder()).await?;
        Ok(listed.iter().filter_map(|listed| id_of(&listed.name)).collect())
    }

    /// Snapshots whose confirm is listed. A confirm's presence is what counts; its signature is judged by `verify`.
    pub async fn confirmed(&self) -> Result<HashSet<SnapshotId>, RepoError> {
        self.listed_marks(ObjectKind::Confirm).await
    }

    /// Snapshots whose forgotten mark is listed. The mark announces; a snapshot is forgotten once its manifest is
    /// gone, so a mark beside a listed manifest hides nothing: see `docs/concurrency.md`.
    pub async fn forgotten(&self) -> Result<HashSet<SnapshotId>, RepoError> {
        self.listed_marks(ObjectKind::Forgotten).await
    }

    /// Whether a valid forgotten mark exists. A mark by somebody who may not forget is damage, not a mark.
    pub async fn is_forgotten(&self, id: &SnapshotId) -> Result<bool, RepoError> {
        let name = format!("forgotten/{id}");
        let bytes = match self.store.get(&name).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let signed = open_signed(&bytes, ObjectKind::Forgotten, &self.access.repo, |key| {
            let member = self.member(key)?;
            matches!(member.role, Role::Owner | Role::Maintainer).then_some(member.verifying)
        })
        .map_err(RepoError::object(name.clone()))?;
        let mark = Mark::decode(&signed.body).map_err(|e| RepoError::object(name)(e.into()))?;
        Ok(mark.snapshot == *id)
    }

    /// Signs a mark about a snapshot.
    pub async fn put_mark(&self, kind: ObjectKind, id: SnapshotId) -> Result<(), RepoError> {
        let body = Mark { snapshot: id }.encode();
        let bytes = sign_object(&self.access.identity, self.access.repo, kind, self.access.home, body);
        Ok(self.store.put(&format!("{}/{id}", kind.folder()), bytes.into()).await?)
    }

    /// All standing tombstones. One that cannot be read or is not signed by who may prune is an error: what it
    /// condemns would otherwise be relied upon.
    pub async fn tombstones(&self) -> Result<BTreeMap<RunId, Tombstone>, RepoError> {
        let mut tombstones = BTreeMap::new();
        for listed in self.store.list(ObjectKind::Tombstone.folder()).await? {
            let bytes = match self.store.get(&listed.name).await {
                Ok(bytes) => bytes,
                // Its pruner removed it between the listing and now: every pack it named is deleted.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            let signed = open_signed(&bytes, ObjectKind::Tombstone, &self.access.repo, |key| {
                let member = self.member(key)?;
                matches!(member.role, Role::Owner | Role::Maintainer).then_some(member.verifying)
            })
            .map_err(RepoError::object(listed.name.clone()))?;
            let tombstone = Tombstone::decode(&signed.body)
                .map_err(|error| RepoError::object(listed.name.clone())(error.into()))?;
            tombstones.insert(tombstone.pruner, tombstone);
        }
        Ok(tombstones)
    }

    /// Puts this pruner's tombstone. Irrevocable from here on.
    pub async fn put_tombstone(&self, tombstone: &Tombstone) -> Result<(), RepoError> {
        let repo = self.access.repo;
        let body = tombstone.encode();
        let bytes = sign_object(&self.access.identity, repo, ObjectKind::Tombstone, self.access.home, body);
        Ok(self.store.put(&format!("tombstones/{}", tombstone.pruner), bytes.into()).await?)
    }

    /// Removes this pruner's own tombstone: only after every pack it names is deleted, and Δ has passed.
    pub async fn remove_tombstone(&self, pruner: RunId) -> Result<(), RepoError> {
        Ok(self.store.delete(&format!("tombstones/{pruner}")).await?)
    }
}

/// Every pack that stands under a tombstone.
pub fn condemned(tombstones: &BTreeMap<RunId, Tombstone>) -> HashSet<ObjectHash> {
    tombstones.values().flat_map(|tombstone| tombstone.packs.iter().map(|(_, hash)| *hash)).collect()
}
