//! How a snapshot becomes committed: steps 3 to 6 of the writer's protocol.
//!
//! 3. Put the manifest: from now it is a root for every mark until it is explicitly forgotten.
//! 4. Wait Δ, list tombstones, then packs and index. Every chunk the snapshot reaches must lie in a listed,
//!    uncondemned pack.
//! 5. If one does not: the caller stores it again from the source and step 4 is repeated. Source gone: the
//!    snapshot stays unconfirmed and the run fails.
//! 6. Put the confirm, wait Δ. If a forgotten mark exists or the manifest is gone: fail. Otherwise it is committed.
//!
//! Why the check comes after the put: checked before, a pruner that marked in between would not see the snapshot
//! and would delete what the check had found.

use super::reach::Reach;
use super::run::Run;
use super::snapshots::SnapshotList;
use super::sync::Thoroughness;
use super::{RepoError, Repository};
use crate::base::random;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, ShortId, SnapshotId};
use crate::format::manifest::{Contents, Summary, object_name};
use crate::format::page::TreeRoot;
use crate::seal::object::seal_manifest;

/// At most this many missing chunks are named.
const MISSING_LIMIT: usize = 100_000;

/// What a new snapshot says of itself; the rest of the manifest follows from the repository.
#[derive(Clone, Debug)]
pub struct Draft {
    /// `author`, chain fields, nonce and hash are filled in.
    pub summary: Summary,
    pub root: TreeRoot,
    pub paths: Vec<Vec<u8>>,
}

/// A manifest that was put but not yet confirmed.
#[derive(Clone, Debug)]
pub struct Pending {
    pub id: SnapshotId,
    pub object: String,
    /// The manifest's size in bytes.
    pub size_bytes: u64,
}

impl Run<'_> {
    /// Step 3.
    pub async fn put_manifest(&self, draft: &Draft) -> Result<Pending, RepoError> {
        self.put_manifest_after(draft, &self.repo.snapshots().await?).await
    }

    /// Step 3 with a listing at hand.
    pub async fn put_manifest_after(
        &self,
        draft: &Draft,
        known: &SnapshotList,
    ) -> Result<Pending, RepoError> {
        let repo = self.repo;
        let random = repo.world.random.as_ref();
        let heads = Repository::heads(&known.snapshots);
        let mut summary = draft.summary.clone();
        summary.author = repo.access.identity.key;
        let job = Summary::job_hash(&summary.job);
        let own = heads.iter().find(|head| head.author == summary.author && head.job == job);
        let seen = repo.local.seen();
        let key = head_key(&summary, &job);
        let remembered = seen.heads.get(&key);
        summary.sequence = own.map(|head| head.sequence + 1).unwrap_or(0);
        summary.previous = own.map(|head| head.snapshot);
        // Forgetting the newest must not let a number be used twice: the chain would look rolled back.
        if let Some((sequence, snapshot)) = remembered
            && *sequence >= summary.sequence
        {
            summary.sequence = sequence + 1;
            summary.previous = SnapshotId::from_hex(snapshot);
        }
        summary.heads = heads;
        summary.nonce = random::array(random);
        let contents =
            Contents { root: draft.root, paths: draft.paths.clone(), nonce: random::array(random) };
        let (id, bytes) =
            seal_manifest(&repo.access, summary.clone(), &contents, &repo.keyring_object, random)?;
        let hash = ObjectHash(*blake3::hash(&bytes).as_bytes());
        let object = object_name(&id, &hash);
        let size_bytes = bytes.len() as u64;
        repo.store.put(&object, bytes.into()).await?;
        let mut seen = repo.local.seen();
        seen.heads.insert(key, (summary.sequence, id.hex()));
        // It is put already: a disk that takes no note of it does not undo that.
        repo.local.note(&seen);
        Ok(Pending { id, object, size_bytes })
    }

    /// Step 4. Which of the chunks the snapshot reaches are in no pack that may be relied upon; empty when all is
    /// well. Cheap when no pack went or was condemned since the run began.
    pub async fn check(&mut self, reach: &mut Reach) -> Result<Vec<(ObjectKind, ShortId)>, RepoError> {
        let home = self.repo.access.home;
        let missing = self.check_domains([(home, reach)]).await?;
        Ok(missing.into_iter().map(|(_, kind, id)| (kind, id)).collect())
    }

    /// Step 4 for what lies in several dedup domains: as only a copy into a replica writes.
    pub async fn check_domains<'l>(
        &mut self,
        reaches: impl IntoIterator<Item = (u32, &'l mut Reach)>,
    ) -> Result<Vec<(u32, ObjectKind, ShortId)>, RepoError> {
        let repo = self.repo;
        repo.settle().await;
        repo.sync(Thoroughness::Tolerant).await?;
        let generation = repo.index.generation()?;
        let mut missing = Vec::new();
        if generation != self.generation {
            for (domain, reach) in reaches {
                reach.for_each(|kind, id| {
                    if missing.len() < MISSING_LIMIT && !repo.index.contains(domain, kind, &id)? {
                        missing.push((domain, kind, id));
                    }
                    Ok(())
                })?;
            }
            if missing.is_empty() {
                self.generation = generation;
            }
        }
        Ok(missing)
    }

    /// Step 6.
    pub async fn confirm(&self, pending: &Pending) -> Result<(), RepoError> {
        let repo = self.repo;
        repo.put_mark(ObjectKind::Confirm, pending.id).await?;
        repo.settle().await;
        if repo.is_forgotten(&pending.id).await? {
            return Err(RepoError::Forgotten(pending.id));
        }
        let listed = repo.store.list(ObjectKind::Snapshot.folder()).await?;
        if listed.iter().any(|listed| listed.name == pending.object) {
            Ok(())
        } else {
            Err(RepoError::Forgotten(pending.id))
        }
    }
}

fn head_key(summary: &Summary, job: &[u8; 16]) -> String {
    format!("{}/{}", summary.author, crate::format::id::to_hex(job))
}
