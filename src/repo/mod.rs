//! Level 4: an opened repository. Keys, snapshots, trees, the protocol's objects and the local cache.
//!
//! Nothing here locks. What every writer and pruner does, and in which order, is in `docs/concurrency.md`; the
//! pieces are [`run`] (a run announces itself), [`sync`] (the local index is reconciled with the listings),
//! [`commit`] (a snapshot becomes confirmed) and [`marks`] (confirms, forgotten marks, tombstones).

pub mod commit;
pub mod create;
pub mod keys;
pub mod kit;
pub mod local;
pub mod marks;
mod numbered;
pub mod open;
pub mod reach;
pub mod recipe;
pub mod replica;
pub mod run;
pub mod sink;
pub mod snapshots;
pub mod sync;
pub mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::format::FormatError;
use crate::format::entry::Timestamp;
use crate::format::id::{KeyId, SnapshotId};
use crate::format::keyring::{Keyring, Member, Roster};
use crate::format::manifest::Summary;
use crate::format::signed::Config;
use crate::pack::PackError;
use crate::pack::index::IndexMap;
use crate::pack::read::Reader;
use crate::seal::SealError;
use crate::seal::access::{Access, OwnerRoot};
use crate::store::{Store, StoreError};

/// Why something about a repository could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    #[error("no repository at {location}")]
    NoRepository { location: String },
    #[error("{location} is not a Lifeboat repository: {found}")]
    NotARepository { location: String, found: String },
    #[error("a repository exists already at {location}")]
    Exists { location: String },
    #[error("wrong password or key for the repository at {location}")]
    WrongKey { location: String },
    /// The key is right, but its role may not do this.
    #[error("a {role} key cannot {what}")]
    NotPermitted { role: String, what: &'static str },
    #[error("{object} is damaged: {cause}")]
    Damaged { object: String, cause: SealError },
    /// Something that every repository has is not there, though snapshots are.
    #[error("{object} is missing: the repository is damaged")]
    Missing { object: String },
    /// The storage shows an older state than this machine has seen: restored from a copy, or rolled back.
    #[error(
        "{object} is number {found}, but this machine has seen number {seen}: the storage was rolled back"
    )]
    RolledBack { object: &'static str, found: u64, seen: u64 },
    #[error("no snapshot matches {0:?}")]
    NoSnapshot(String),
    #[error("{selector:?} matches snapshots of several jobs: {jobs}")]
    AmbiguousSnapshot { selector: String, jobs: String, hint: Option<String> },
    /// What was asked makes no sense or would be unsafe.
    #[error("{0}")]
    Refused(String),
    /// Another run got in the way; nothing is lost and the same command may be run again.
    #[error("{0}")]
    Conflict(String),
    #[error("snapshot {0} was forgotten while it was being confirmed")]
    Forgotten(SnapshotId),
    #[error("{operation} {path}: {cause}")]
    Local { operation: &'static str, path: String, cause: std::io::Error },
    /// Of the local cache, by somebody who must not go on without it.
    #[error("the local cache: {operation} {path}: {cause}")]
    Cache { operation: &'static str, path: String, cause: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
}

impl RepoError {
    /// Whether stored data is wrong or gone, as against not reachable or not permitted.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } | Self::RolledBack { .. } => true,
            Self::Pack(error) => error.is_damage(),
            Self::Seal(SealError::Damaged | SealError::Format(_) | SealError::Signature(_)) => true,
            _ => false,
        }
    }

    /// An object that does not open: names it, and keeps a newer version apart from damage.
    pub fn object(object: impl Into<String>) -> impl FnOnce(SealError) -> Self {
        let object = object.into();
        move |cause| match cause {
            SealError::NotPermitted(_) => Self::Seal(cause),
            cause => Self::Damaged { object, cause },
        }
    }

    /// Whether the cause is a format that this build is too old for.
    pub fn newer_version(&self) -> Option<&FormatError> {
        let cause = match self {
            Self::Damaged { cause, .. } | Self::Seal(cause) => cause,
            Self::Pack(PackError::Damaged { cause, .. }) => cause,
            _ => return None,
        };
        match cause {
            SealError::Format(error @ FormatError::Newer { .. }) => Some(error),
            _ => None,
        }
    }
}

/// The world a repository works in.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

impl World {
    /// The time of day as the format keeps it.
    pub fn now(&self) -> Timestamp {
        to_timestamp(self.clock.now())
    }
}

/// A jiff instant as the format keeps it.
pub fn to_timestamp(time: jiff::Timestamp) -> Timestamp {
    let total = time.as_nanosecond();
    Timestamp {
        seconds: total.div_euclid(1_000_000_000) as i64,
        nanoseconds: total.rem_euclid(1_000_000_000) as u32,
    }
}

/// The format's instant for arithmetic and display; out of range becomes the nearest end.
pub fn from_timestamp(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::new(time.seconds, time.nanoseconds as i32).unwrap_or(if time.seconds < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    })
}

/// An opened repository.
pub struct Repository {
    pub store: Arc<dyn Store>,
    /// The storage alone, without what a recovery kit supplies.
    pub storage: Arc<dyn Store>,
    /// What the recovery kit it was opened with holds, by object name; empty without one.
    pub supplied: BTreeMap<String, Bytes>,
    pub access: Arc<Access>,
    pub config: Config,
    pub roster: Roster,
    /// Only the owner has it.
    pub owner: Option<Owner>,
    /// The newest keyring object as stored; travels in every manifest.
    pub keyring_object: Vec<u8>,
    pub local: local::Local,
    pub index: Arc<IndexMap>,
    pub reader: Arc<Reader>,
    pub world: World,
}

/// What opening with an owner's key gives besides access.
pub struct Owner {
    pub root: OwnerRoot,
    pub keyring: Keyring,
}

impl Repository {
    /// The roster's entry of a signing key.
    pub fn member(&self, key: &KeyId) -> Option<&Member> {
        self.roster.members.iter().find(|member| member.key == *key)
    }

    /// The verifying key of anybody on the roster.
    pub fn verifying_key(&self, key: &KeyId) -> Option<[u8; 32]> {
        self.member(key).map(|member| member.verifying)
    }

    /// Whether a key was revoked: what only it signs is not believed any more.
    pub fn is_revoked(&self, key: &KeyId) -> bool {
        self.member(key).is_some_and(|member| member.revoked.is_some())
    }

    /// Whether a manifest counts: not one that a revoked key signed after the snapshots vouched for.
    pub fn trusts(&self, summary: &Summary) -> bool {
        let Some(heads) = self.member(&summary.author).and_then(|member| member.revoked.as_ref()) else {
            return true;
        };
        let own = Summary::job_hash(&summary.job);
        heads.iter().any(|(job, sequence)| *job == own && summary.sequence <= *sequence)
    }

    /// Errors unless this key is the owner's.
    pub fn require_owner(&self, what: &'static str) -> Result<&Owner, RepoError> {
        self.owner.as_ref().ok_or_else(|| self.not_permitted(what))
    }

    /// The error for what this key's role may not do.
    pub fn not_permitted(&self, what: &'static str) -> RepoError {
        RepoError::NotPermitted { role: self.access.role.to_string(), what }
    }

    /// Waits Δ: until what was acknowledged before is seen by everybody.
    pub async fn settle(&self) {
        let settle = self.store.settle();
        if !settle.is_zero() {
            tokio::time::sleep(settle).await;
        }
    }
}
