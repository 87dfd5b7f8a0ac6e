//! Level 2: named objects on a storage service. Knows nothing of keys, packs or snapshots.
//!
//! Every object is written once and whole. What the protocol above relies on: after `put` returns Ok the
//! object is durable (locally: file *and* folder were fsynced) and is seen by every `get` and `list` begun
//! [`Store::settle`] later; a read error is never taken for absence; an unknown outcome is an error.
//!
//! [`open`] turns a [`Location`] into a store: [`local`] disk and [`memory`] are our own, the HTTP services go
//! through opendal, SFTP through the system's `ssh` ([`sftp`]). What every one of them promises is
//! what the conformance suite checks; [`fault`] breaks those promises on purpose.

pub mod count;
mod direct;
pub mod fault;
pub mod local;
pub mod location;
pub mod memory;
mod name;
mod open;
mod options;
pub mod overlay;
mod pace;
pub mod patient;
mod remote;
mod retry;
pub mod sftp;
mod ssh;
mod temp;
mod transport;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use location::Location;
pub use open::{create, open};
pub use options::{Credentials, HostKeyCheck, StoreOptions};

/// One object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Relative to the repository, with `/` between parts: `data/<hex>`.
    pub name: String,
    pub size_bytes: u64,
}

/// Named, write-once objects.
///
/// A name is one or more parts joined by `/`; a part is 1 to 255 bytes of `a-z 0-9 - _ .` and starts with no
/// dot, so no name leaves the repository, collides on a case-blind file system or meets a temporary file.
/// Anything else is an error of kind [`StoreErrorKind::Config`] before the service is asked.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Where this is, without secrets; for messages.
    fn location(&self) -> String;
    /// Δ: how long after an acknowledged put or delete every reader sees it. Zero on strong stores.
    fn settle(&self) -> Duration;
    /// Writes the whole object, durably and atomically: never visible half-written under its name.
    ///
    /// Putting the same bytes again is Ok. Putting *other* bytes under an existing name is a caller's fault:
    /// local disk and memory refuse it ([`StoreErrorKind::Conflict`]), services may replace the object.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError>;
    /// As [`Self::put`], but whatever stands under the name gives way, in one step: a reader sees the one or the other.
    /// Only for putting right what was damaged.
    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError>;
    /// The whole object.
    async fn get(&self, name: &str) -> Result<Bytes, StoreError>;
    /// Exactly `length` bytes from `offset`; fewer is an error of kind [`StoreErrorKind::Truncated`].
    /// A `length` of 0 is answered without asking the service.
    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError>;
    /// Every object directly in `folder` (no trailing slash), ascending by name. A missing folder is empty.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;
    /// Removes the object; absent already is Ok.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The service says the object does not exist.
    NotFound,
    /// Credentials or permissions.
    Denied,
    /// No space, or over quota.
    Full,
    /// Shorter than asked for, or with a part that the disk cannot read.
    Truncated,
    /// May work later: connection, timeout, throttling. Retries were already made.
    Temporary,
    /// The name is taken by an object with other bytes.
    Conflict,
    /// The address or its options make no sense.
    Config,
    Other,
}

/// No object is larger: what claims to be is refused before memory is given to it, and no read of one takes longer
/// than this needs on the slowest line we wait for.
pub(crate) const LARGEST_OBJECT_BYTES: u64 = 512 << 20;

/// What is said of an object that is larger.
pub(crate) fn too_large(size_bytes: u64) -> String {
    format!("has {size_bytes} bytes; no object of a repository has more than {LARGEST_OBJECT_BYTES}")
}

/// The location of errors about an address that names none.
pub(crate) const ADDRESS: &str = "the repository's address";

/// A failed storage operation: what, on which object, where, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.what())]
pub struct StoreError {
    pub kind: StoreErrorKind,
    /// `read`, `write`, `list`, `delete`, `open`.
    pub operation: &'static str,
    pub subject: String,
    pub location: String,
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    pub(crate) fn new(
        kind: StoreErrorKind,
        operation: &'static str,
        subject: impl Into<String>,
        location: impl Into<String>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, operation, subject: subject.into(), location: location.into(), cause: cause.into() }
    }

    /// The subject once, where it is the whole location.
    fn what(&self) -> String {
        let Self { operation, subject, location, .. } = self;
        match location.as_str() {
            ADDRESS if subject.is_empty() => format!("{ADDRESS} cannot be used"),
            ADDRESS => format!("{ADDRESS} {subject}:… cannot be used"),
            place if place == subject => format!("{operation} {location}"),
            _ => format!("{operation} {subject:?} on {location}"),
        }
    }

    /// Whether the service said, certainly, that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }
}
