//! Where chunks are, and which of those places may be relied upon: packs that exist, minus what reading found bad.

use std::collections::HashSet;

use super::super::EngineError;
use super::packs::Stock;
use crate::format::entry::ChunkRef;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, ShortId};
use crate::pack::index::BlockInfo;
use crate::repo::RepoError;

/// What is known of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Sound,
    /// Only in packs under a tombstone: their pruner copies it before it deletes them.
    Condemned,
    Missing,
}

/// See the module.
pub(super) struct View {
    pub stock: Stock,
    /// Blocks that do not open, by pack and offset.
    blocks: HashSet<(ObjectHash, u64)>,
    /// Chunks that are not what their directory says, in blocks that open.
    chunks: HashSet<(ObjectHash, u64, ShortId)>,
}

impl View {
    pub fn new(stock: Stock) -> Self {
        Self { stock, blocks: HashSet::new(), chunks: HashSet::new() }
    }

    pub fn bad_block(&mut self, pack: ObjectHash, offset: u64) {
        self.blocks.insert((pack, offset));
    }

    pub fn bad_chunk(&mut self, pack: ObjectHash, offset: u64, id: ShortId) {
        self.chunks.insert((pack, offset, id));
    }

    fn serves(&self, block: &BlockInfo, reference: &ChunkRef) -> bool {
        let place = (block.pack.hash, block.offset);
        block.place(&reference.id).is_some_and(|(_, length)| length == reference.length as usize)
            && !self.blocks.contains(&place)
            && !self.chunks.contains(&(place.0, place.1, reference.id))
    }

    /// Where a chunk is. The usual case costs one look at a list in memory.
    pub fn place(&self, domain: u32, kind: ObjectKind, reference: &ChunkRef) -> Result<Place, EngineError> {
        let index = &self.stock.index;
        if let Some(block) = index.find(domain, kind, &reference.id).map_err(RepoError::from)?
            && self.serves(&block, reference)
        {
            return Ok(Place::Sound);
        }
        let all = index.locations(domain, kind, &reference.id).map_err(RepoError::from)?;
        let mut place = Place::Missing;
        for block in all.iter().filter(|block| self.serves(block, reference)) {
            if !index.is_condemned(&block.pack.hash) {
                return Ok(Place::Sound);
            }
            place = Place::Condemned;
        }
        Ok(place)
    }

    /// The pack that held a missing chunk, as far as an index object remembers.
    pub fn former_pack(&self, domain: u32, kind: ObjectKind, id: &ShortId) -> Option<String> {
        let blocks = self.stock.gone.locations(domain, kind, id).ok()?;
        blocks.first().map(|block| block.object())
    }
}
