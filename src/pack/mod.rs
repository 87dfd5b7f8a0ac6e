//! Level 3: chunks gathered into sealed blocks and packs, and found again.
//!
//! Chunk < block < pack: a chunk is what deduplicates, a block (1 or 2 MiB of new chunks) is compressed and encrypted
//! once, a pack is one storage object. Data and metadata never share a pack.

pub mod build;
pub mod filter;
pub mod gather;
pub mod index;
pub mod parity;
pub mod read;

use crate::format::FormatError;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, ShortId};
use crate::seal::SealError;
use crate::store::StoreError;

/// Name of a pack's object.
pub fn pack_name(kind: ObjectKind, hash: &ObjectHash) -> String {
    format!("{}/{hash}", kind.folder())
}

/// Why chunks could not be packed or found.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot seal: {0}")]
    Seal(#[source] SealError),
    /// An object is not what was stored: names it.
    #[error("{object} is damaged: {cause}")]
    Damaged { object: String, cause: SealError },
    /// No pack that exists holds the chunk.
    #[error("chunk {0} is in no pack: data is missing")]
    Missing(ShortId),
    /// A chunk's plaintext does not have its id, though its block authenticates.
    #[error("{object} holds other content than its directory says for chunk {id}")]
    Mismatch { object: String, id: ShortId },
    #[error("local index {path}: {cause}")]
    Cache { path: String, cause: rusqlite::Error },
    #[error("local index file {path}: {cause}")]
    CacheFile { path: String, cause: std::io::Error },
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl PackError {
    /// Whether this says that stored data is wrong or gone, as against that it could not be reached.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing(_) | Self::Mismatch { .. } | Self::Format(_) => true,
            Self::Store(error) => {
                error.is_not_found() || error.kind == crate::store::StoreErrorKind::Truncated
            }
            Self::Seal(_) | Self::Cache { .. } | Self::CacheFile { .. } => false,
        }
    }
}
