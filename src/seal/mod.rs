//! Level 2: keys, compression and authenticated encryption. Between chunks and storage.
//!
//! Nothing here reads or writes storage, and no secret leaves a type that wipes itself. What is opened is
//! authenticated first, always: a wrong key ([`SealError::WrongKey`]) is told from damage
//! ([`SealError::Damaged`]) by a key commitment in the header, compared before the cipher runs.

pub mod access;
pub mod block;
pub mod derive;
pub mod member;
pub mod object;
pub mod slot;

use crate::format::FormatError;

/// Why something could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key commitment does not match: this key never sealed that object.
    #[error("wrong key")]
    WrongKey,
    /// The commitment matches but the content does not authenticate.
    #[error("content does not authenticate: damaged or tampered with")]
    Damaged,
    /// This holder's role was not given the key that is needed.
    #[error("this key adds; it cannot restore: {0} open only with the owner's passphrase or recovery kit")]
    NotPermitted(&'static str),
    /// No key is known for the dedup domain and epoch in the header.
    #[error("no key for domain {domain}, epoch {epoch}")]
    UnknownEpoch { domain: u32, epoch: u32 },
    /// Made for another repository.
    #[error("belongs to another repository")]
    OtherRepository,
    /// Not signed by whom it claims, or by nobody who may.
    #[error("signature of {0} is not valid")]
    Signature(&'static str),
    /// A public key that would agree on a predictable secret.
    #[error("key agreement refused: the public key is not valid")]
    WeakKey,
    #[error("compression failed")]
    Compression,
    #[error("key derivation failed: {0}")]
    Derivation(String),
    #[error(transparent)]
    Format(#[from] FormatError),
}
