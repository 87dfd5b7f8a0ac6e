//! Puts the next config, keyring or roster, so that of two owners at once at most one believes to have won.
//!
//! Storage that refuses other bytes under a taken name (local disk, memory) decides by itself. Elsewhere a later put
//! replaces an earlier one, so the name is looked at right before, and after Δ the object is read back: who finds
//! other bytes has lost. Scenario that remains there: both look, A puts and reads itself back, then B puts. A's
//! newer keys are then only in A's manifests, from which the owner's open takes the newest keyring.

use super::super::{RepoError, Repository};
use crate::format::header::ObjectKind;
use crate::store::StoreErrorKind;

fn lost(name: &str) -> RepoError {
    RepoError::Conflict(format!(
        "{name} was written by somebody else at the same time: their change stands, this one was not made"
    ))
}

/// Puts `kind/number`, which must not exist.
pub async fn put(repo: &Repository, kind: ObjectKind, number: u64, bytes: Vec<u8>) -> Result<(), RepoError> {
    let name = format!("{}/{number}", kind.folder());
    match repo.store.get(&name).await {
        Ok(_) => return Err(lost(&name)),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    match repo.store.put(&name, bytes.clone().into()).await {
        Ok(()) => {}
        Err(error) if error.kind == StoreErrorKind::Conflict => return Err(lost(&name)),
        Err(error) => return Err(error.into()),
    }
    repo.settle().await;
    if repo.store.get(&name).await? == bytes { Ok(()) } else { Err(lost(&name)) }
}
