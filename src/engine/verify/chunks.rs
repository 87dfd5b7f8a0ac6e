//! Where chunks are, and which of those places may be relied upon: packs that exist, minus what reading found bad.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::EngineError;
use super::packs::Stock;
use crate::format::entry::ChunkRef;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, ShortId};
use crate::pack::PackError;
use crate::pack::index::BlockInfo;
use crate::pack::read::Reader;
use crate::repo::RepoError;
use crate::seal::SealError;
use crate::seal::block::Codecs;
use crate::store::StoreErrorKind;

/// What is known of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Place {
    Sound,
    /// Only in packs under a tombstone: their pruner copies it before it deletes them.
    Condemned,
    Missing,
}

/// See the module.
pub(in crate::engine) struct View {
    pub stock: Stock,
    /// Blocks that do not open, by pack and offset.
    blocks: HashSet<(ObjectHash, u64)>,
    /// Chunks that are not what their directory says, in blocks that open.
    chunks: HashSet<(ObjectHash, u64, ShortId)>,
    /// Blocks that were opened one by one, all of whose other chunks are what they should be.
    proven: HashSet<(ObjectHash, u64)>,
    /// Packs with anything wrong, and what.
    pub bad: HashMap<ObjectHash, String>,
}

impl View {
    pub fn new(stock: Stock) -> Self {
        let bad = stock.bad.clone();
        let (blocks, chunks, proven) = (HashSet::new(), HashSet::new(), HashSet::new());
        Self { stock, blocks, chunks, proven, bad }
    }

    /// Whether a block opened as far as anybody looked.
    pub fn is_sound(&self, pack: ObjectHash, offset: u64) -> bool {
        !self.blocks.contains(&(pack, offset))
    }

    /// Whether a chunk in a sound block is what it should be as far as anybody looked.
    pub fn is_right(&self, pack: ObjectHash, offset: u64, id: ShortId) -> bool {
        !self.chunks.contains(&(pack, offset, id))
    }

    pub fn bad_block(&mut self, pack: ObjectHash, offset: u64) {
        self.blocks.insert((pack, offset));
    }

    pub fn bad_chunk(&mut self, pack: ObjectHash, offset: u64, id: ShortId) {
        self.chunks.insert((pack, offset, id));
    }

    pub fn serves(&self, block: &BlockInfo, reference: &ChunkRef) -> bool {
        let place = (block.pack.hash, block.offset);
        block.place(&reference.id).is_some_and(|(_, length)| length == reference.length as usize)
            && !self.stock.cut.contains(&block.pack.hash)
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

    /// Whether a chunk that stands only in condemned packs can still be had from them. A prune copies it before it
    /// deletes them, but a pack may have been condemned because it is damaged, so it is read.
    pub async fn prove(
        &mut self,
        reader: &Reader,
        domain: u32,
        kind: ObjectKind,
        reference: &ChunkRef,
    ) -> Result<bool, EngineError> {
        let all = self.stock.index.locations(domain, kind, &reference.id).map_err(RepoError::from)?;
        for block in all {
            if self.opens(reader, &block, reference).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this block has the chunk. It is opened unless that was done before; one that this key may not open
    /// is believed.
    pub async fn opens(
        &mut self,
        reader: &Reader,
        block: &Arc<BlockInfo>,
        reference: &ChunkRef,
    ) -> Result<bool, EngineError> {
        let place = (block.pack.hash, block.offset);
        if self.serves(block, reference) && !self.proven.contains(&place) {
            match open_block(reader, block).await {
                Ok(wrong) => {
                    self.proven.insert(place);
                    self.chunks.extend(wrong.into_iter().map(|id| (place.0, place.1, id)));
                }
                Err(PackError::Seal(SealError::NotPermitted(_))) => return Ok(true),
                Err(PackError::Store(error)) if !is_loss(error.kind) => return Err(error.into()),
                Err(PackError::Cache { path, cause }) => {
                    return Err(PackError::Cache { path, cause }.into());
                }
                Err(_) => self.bad_block(place.0, place.1),
            }
        }
        Ok(self.serves(block, reference))
    }

    /// The pack that held a missing chunk, as far as an index object remembers.
    pub fn former_pack(&self, domain: u32, kind: ObjectKind, id: &ShortId) -> Option<String> {
        let here = self.stock.index.locations(domain, kind, id).ok()?;
        let gone = self.stock.gone.locations(domain, kind, id).ok()?;
        here.iter().chain(&gone).next().map(|block| block.object())
    }

    /// Whether a pack is there, by its object's name.
    pub fn is_listed(&self, object: &str) -> bool {
        let hash = object.rsplit('/').next().and_then(ObjectHash::from_hex);
        hash.is_some_and(|hash| self.stock.packs.contains_key(&hash))
    }
}

fn is_loss(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::NotFound | StoreErrorKind::Truncated)
}

/// Opens a block; returns its chunks that are not what they should be.
async fn open_block(reader: &Reader, block: &Arc<BlockInfo>) -> Result<Vec<ShortId>, PackError> {
    let stored = reader.fetch(block).await?;
    let mut codecs = Codecs::new().map_err(PackError::Seal)?;
    let opened = reader.open(block, &stored, &mut codecs)?;
    let domain = reader.access().domain(block.pack.domain).map_err(PackError::Seal)?;
    let wrong = |id: &&ShortId| opened.chunk(domain, id).is_err();
    Ok(block.chunks.iter().map(|(id, _)| id).filter(wrong).copied().collect())
}
