//! Gathers consecutive new chunks until there are enough for a block, so that neighbours compress together.

use crate::format::id::ChunkId;

/// A block's plaintext before it is sealed.
#[derive(Debug, Default)]
pub struct RawBlock {
    pub bytes: Vec<u8>,
    pub chunks: Vec<(ChunkId, u32)>,
}

/// Collects chunks in the order they are given.
#[derive(Debug)]
pub struct Gatherer {
    target_bytes: usize,
    block: RawBlock,
}

impl Gatherer {
    /// Blocks are complete once they hold at least `target_bytes`.
    pub fn new(target_bytes: usize) -> Self {
        Self { target_bytes, block: RawBlock::default() }
    }

    /// Whether the next chunk begins a block.
    pub fn is_empty(&self) -> bool {
        self.block.chunks.is_empty()
    }

    /// Gathers the next block in a buffer that was used before. Only while [`Self::is_empty`].
    pub fn begin_in(&mut self, mut buffer: Vec<u8>) {
        debug_assert!(self.is_empty());
        buffer.clear();
        self.block.bytes = buffer;
    }

    /// Adds a chunk; a complete block comes back.
    pub fn add(&mut self, id: ChunkId, bytes: &[u8]) -> Option<RawBlock> {
        if self.block.bytes.capacity() == 0 {
            self.block.bytes.reserve(self.target_bytes + bytes.len());
        }
        self.block.bytes.extend_from_slice(bytes);
        self.block.chunks.push((id, bytes.len() as u32));
        (self.block.bytes.len() >= self.target_bytes).then(|| std::mem::take(&mut self.block))
    }

    /// What is left, if anything.
    pub fn finish(&mut self) -> Option<RawBlock> {
        (!self.block.chunks.is_empty()).then(|| std::mem::take(&mut self.block))
    }
}
