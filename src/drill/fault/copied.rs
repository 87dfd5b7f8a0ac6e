//! Faults for what reaches storage by itself, as the steps of a runbook do: a copy of the repository, broken, in a folder
//! of the sandbox. The repository is read, and never written.

use std::path::Path;
use std::sync::Arc;

use super::loss::{loss_of, needed, seed_of};
use super::{Expect, FaultKind, FaultSpec};
use crate::base::byte_size::human;
use crate::base::cancel::Cancel;
use crate::drill::DrillError;
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::repo::snapshots::Snapshot;
use crate::repo::{RepoError, Repository};
use crate::store::overlay::OverlayStore;
use crate::store::{Location, Store, StoreError, StoreOptions};

impl FaultSpec {
    /// Whether a runbook can be rehearsed with it.
    ///
    /// # Errors
    /// Why not.
    pub fn fits_runbook(self) -> Result<(), DrillError> {
        let why = match (self.kind, self.declared) {
            (FaultKind::NoLocalState, _) => "every drill of a runbook begins with no local state",
            (FaultKind::StorageErrors | FaultKind::StorageTimeouts | FaultKind::SlowStorage, _) => {
                "steps of a runbook reach the storage by themselves: what is lost or damaged can be shown them in a copy, what is \
                 slow or fails at times cannot"
            }
            (_, Some(Expect::RecoversFromReplica)) => {
                "a runbook turns to a replica by its own steps: declare recovers, if it does, or fails_closed"
            }
            _ => return Ok(()),
        };
        Err(DrillError::Spec(format!("{}: {why}", self.kind.name())))
    }
}

/// Copies the repository into `folder` as it would look after the fault: what was done to it, in words. `None`: nothing
/// tells what to break.
///
/// # Errors
/// The repository cannot be read, the folder not written, or it has no room.
pub async fn copy_broken(
    repo: &Repository,
    snapshots: &[Snapshot],
    kind: FaultKind,
    folder: &Path,
    cancel: &Cancel,
) -> Result<Option<String>, DrillError> {
    let mut packs = Vec::new();
    for snapshot in snapshots {
        packs.extend(needed(repo, snapshot, cancel).await?);
    }
    packs.sort_by(|a, b| a.object.cmp(&b.object));
    packs.dedup_by(|a, b| a.object == b.object);
    let ids: String = snapshots.iter().map(|snapshot| snapshot.id.hex()).collect();
    let Some((injected, loss)) = loss_of(kind, &packs, seed_of(&ids, kind)) else { return Ok(None) };
    let failed = |error: StoreError| DrillError::from(EngineError::from(RepoError::Store(error)));
    if loss.unreachable {
        // Nothing is there.
        return Ok(Some(injected));
    }
    std::fs::create_dir_all(folder)
        .map_err(|cause| DrillError::Local { operation: "make a folder for a copy", cause })?;
    let location = Location::local(folder.to_owned());
    let copy = crate::store::open(&location, &StoreOptions::default()).map_err(failed)?;
    let broken = OverlayStore::new(Arc::clone(&repo.storage), loss);
    let mut all = Vec::new();
    for kind in ObjectKind::ALL {
        all.extend(broken.list(kind.folder()).await.map_err(failed)?);
    }
    let needs_bytes = all.iter().map(|object| object.size_bytes).sum();
    has_room(folder, needs_bytes)?;
    for object in all {
        cancel.check().map_err(EngineError::from)?;
        let bytes = broken.get(&object.name).await.map_err(failed)?;
        copy.put(&object.name, bytes).await.map_err(failed)?;
    }
    Ok(Some(injected))
}

fn has_room(folder: &Path, needs_bytes: u64) -> Result<(), DrillError> {
    let above = folder.ancestors().find(|above| above.exists()).unwrap_or(folder);
    let found = rustix::fs::statvfs(above)
        .map_err(|error| DrillError::Local { operation: "look for room for a copy", cause: error.into() })?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    if free_bytes >= needs_bytes {
        return Ok(());
    }
    Err(DrillError::Spec(format!(
        "a fault in a drill of a runbook needs a copy of the repository, {}, and {} has {} free\nhint: --scratch names another \
         folder",
        human(needs_bytes),
        above.display(),
        human(free_bytes)
    )))
}
