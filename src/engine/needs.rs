//! What a snapshot needs of the storage: packs, and the blocks in them that hold anything of it.

use crate::base::cancel::Cancel;
use crate::base::progress::NoProgress;
use crate::engine::EngineError;
use crate::engine::prune::mark;
use crate::format::header::ObjectKind;
use crate::repo::snapshots::{Snapshot, SnapshotList};
use crate::repo::{RepoError, Repository};

/// A pack that a snapshot needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededPack {
    pub object: String,
    pub kind: ObjectKind,
    pub size_bytes: u64,
    /// Offset and length in bytes of each block needed, ascending.
    pub blocks: Vec<(u64, u64)>,
}

/// Every pack that the snapshot reaches, by object name. Of a chunk that is stored more than once, every copy counts.
/// The local index must have been synced.
///
/// # Errors
/// A page of the snapshot cannot be read.
pub async fn needs(
    repo: &Repository,
    snapshot: &Snapshot,
    cancel: &Cancel,
) -> Result<Vec<NeededPack>, EngineError> {
    let list = SnapshotList { snapshots: vec![snapshot.clone()], ..SnapshotList::default() };
    let live = mark(repo, &list, &NoProgress, cancel).await?;
    let mut needed = Vec::new();
    for pack in repo.index.packs() {
        let all = repo.index.blocks_of(&pack).map_err(RepoError::from)?;
        let mine = all.iter().filter(|block| live.blocks.contains_key(&block.row));
        let mut blocks: Vec<(u64, u64)> =
            mine.map(|block| (block.offset, u64::from(block.stored_length))).collect();
        if blocks.is_empty() {
            continue;
        }
        blocks.sort_unstable();
        let object = crate::pack::pack_name(pack.kind, &pack.hash);
        needed.push(NeededPack { object, kind: pack.kind, size_bytes: pack.size_bytes, blocks });
    }
    needed.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(needed)
}
