//! Level 5: one verb per file or folder. Knows no config files and no terminals.
//!
//! Every verb takes an opened [`Repository`](crate::repo::Repository), its own options, a progress and a cancel
//! flag, and returns a typed outcome: counts, bytes and a list of problems. A partial success is a value, never
//! only a log line. Destructive verbs are `plan` (pure and printable: it is the dry run) and then `apply`.

pub mod backup;
pub mod coherent;
pub mod copy;
pub mod diff;
pub mod dump;
pub mod find;
pub mod forget;
pub mod kit;
pub mod ls;
pub mod needs;
pub mod parity;
pub mod prune;
pub mod read;
pub mod repair;
pub mod restore;
pub mod stats;
pub mod verify;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::base::byte_size::human;
use crate::base::cancel::Cancelled;
use crate::base::progress::Progress;
use crate::pack::PackError;
use crate::repo::RepoError;
use crate::seal::SealError;
use crate::store::{Store, StoreError};

/// Why a verb could not be done.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Repo(RepoError),
    /// A local file, folder or stream on the source's or target's side.
    #[error("cannot {operation} {path}: {cause}")]
    Local { operation: &'static str, path: String, cause: std::io::Error },
    /// The target's disk is full, or a quota is: what was restored stays, and the same restore goes on from there.
    #[error(
        "cannot {operation} {path}: {cause}; {} are still to be written, and {} are free",
        human(*left_bytes),
        human(*free_bytes)
    )]
    Full { operation: &'static str, path: String, cause: std::io::Error, left_bytes: u64, free_bytes: u64 },
    /// The source ended badly: nothing was committed.
    #[error("{0}")]
    Source(String),
    /// What was restored is not what was backed up.
    #[error("{0}")]
    Differs(String),
    /// What was asked makes no sense or would be unsafe.
    #[error("{0}")]
    Refused(String),
    /// A retention guard stopped a removal.
    #[error("{0}")]
    Guard(String),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<RepoError> for EngineError {
    fn from(error: RepoError) -> Self {
        match error {
            RepoError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            RepoError::Refused(why) => Self::Refused(why),
            error => Self::Repo(error),
        }
    }
}

impl From<PackError> for EngineError {
    fn from(error: PackError) -> Self {
        Self::Repo(error.into())
    }
}

impl From<SealError> for EngineError {
    fn from(error: SealError) -> Self {
        Self::Repo(error.into())
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Repo(error.into())
    }
}

/// Deletes in flight at once.
const PARALLEL_DELETES: usize = 8;

/// Deletes every object; after Ok each delete was acknowledged.
async fn delete_all(
    store: &Arc<dyn Store>,
    names: Vec<String>,
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    let mut flying = FuturesUnordered::new();
    for name in names {
        if flying.len() >= PARALLEL_DELETES
            && let Some(done) = flying.next().await
        {
            let _: () = done?;
            progress.add_done(0, 1);
        }
        let store = store.clone();
        flying.push(async move { store.delete(&name).await });
    }
    while let Some(done) = flying.next().await {
        let _: () = done?;
        progress.add_done(0, 1);
    }
    Ok(())
}
