//! Level 5: one verb per file or folder. Knows no config files and no terminals.
//!
//! Every verb takes an opened [`Repository`](crate::repo::Repository), its own options, a progress and a cancel
//! flag, and returns a typed outcome: counts, bytes and a list of problems. A partial success is a value, never
//! only a log line. Destructive verbs are `plan` (pure and printable: it is the dry run) and then `apply`.

pub mod backup;
pub mod copy;
pub mod diff;
pub mod dump;
pub mod find;
pub mod kit;
pub mod ls;
pub mod read;
pub mod repair;
pub mod restore;
pub mod stats;
pub mod verify;

use crate::base::cancel::Cancelled;
use crate::pack::PackError;
use crate::repo::RepoError;
use crate::seal::SealError;
use crate::store::StoreError;

/// Why a verb could not be done.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Repo(RepoError),
    /// A local file, folder or stream on the source's or target's side.
    #[error("cannot {operation} {path}: {cause}")]
    Local { operation: &'static str, path: String, cause: std::io::Error },
    /// The source ended badly: nothing was committed.
    #[error("{0}")]
    Source(String),
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
