//! Puts sealed blocks together to a pack: one storage object, named by the hash of its bytes.

use bytes::Bytes;

use super::PackError;
use super::gather::RawBlock;
use crate::format::header::{Header, padme};
use crate::format::id::{ChunkId, ObjectHash, RunId};
use crate::format::pack::{Block, Codec, Directory, IndexPack, Origin};
use crate::seal::access::Access;
use crate::seal::block::{Codecs, Compression, PackSealer, SealedBlock, origin_of};
use crate::seal::derive::TAG_BYTES;
use crate::seal::object::seal_directory;

/// Packs below this many bytes are padded to a Padmé length, larger ones to 4 KiB.
const PADME_BELOW_BYTES: u64 = 4 << 20;

/// Packs that get room of at least this many bytes begin at a page's start in memory.
const LARGE_BYTES: usize = 8 << 20;
const PAGE_BYTES: usize = 4096;

/// A complete pack, ready to be put.
#[derive(Debug)]
pub struct FinishedPack {
    pub hash: ObjectHash,
    pub bytes: Bytes,
    /// What the index will say about it.
    pub index: IndexPack,
}

impl FinishedPack {
    /// The object's name.
    pub fn name(&self) -> String {
        super::pack_name(self.index.kind, &self.hash)
    }
}

/// A pack under construction.
pub struct PackBuilder {
    header: Header,
    /// Where the pack begins in `bytes`.
    start: usize,
    bytes: Vec<u8>,
    origins: Vec<Origin>,
    blocks: Vec<Block<ChunkId>>,
    block_hashes: Vec<[u8; 32]>,
    next_ordinal: u32,
}

impl PackBuilder {
    /// A pack under `sealer`'s key.
    pub fn new(sealer: &PackSealer, capacity_bytes: usize) -> Self {
        Self::new_in(sealer, Vec::with_capacity(capacity_bytes))
    }

    /// [`Self::new`] in a buffer that may have been used before.
    pub fn new_in(sealer: &PackSealer, mut bytes: Vec<u8>) -> Self {
        let header = sealer.header().clone();
        bytes.clear();
        // A large pack that begins at a page's start can go to disk without being copied once more.
        let start = if bytes.capacity() < LARGE_BYTES { 0 } else { bytes.as_ptr().align_offset(PAGE_BYTES) };
        let start = if start < PAGE_BYTES { start } else { 0 };
        bytes.resize(start, 0);
        bytes.extend_from_slice(&header.encode());
        Self {
            header,
            start,
            bytes,
            origins: Vec::new(),
            blocks: Vec::new(),
            block_hashes: Vec::new(),
            next_ordinal: 0,
        }
    }

    /// Bytes so far, without the directory.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Appends a block sealed by this pack's sealer, in any order of ordinals.
    pub fn append(&mut self, sealed: &SealedBlock, chunks: Vec<(ChunkId, u32)>) {
        self.next_ordinal = self.next_ordinal.max(sealed.ordinal + 1);
        self.bytes.extend_from_slice(&sealed.bytes);
        self.block_hashes.push(sealed.hash);
        self.blocks.push(Block {
            stored_length: sealed.bytes.len() as u32,
            raw_length: sealed.raw_length,
            codec: sealed.codec,
            origin: 0,
            ordinal: sealed.ordinal,
            chunks,
        });
    }

    /// Appends a block of another pack as it is. `block.origin` is ignored: `origin` says what sealed it.
    pub fn append_moved(&mut self, mut block: Block<ChunkId>, origin: &Origin, stored: &[u8]) {
        debug_assert_eq!(block.stored_length as usize, stored.len());
        let known = self.origins.iter().position(|known| known == origin);
        let place = known.unwrap_or_else(|| {
            self.origins.push(origin.clone());
            self.origins.len() - 1
        });
        block.origin = place as u32 + 1;
        self.bytes.extend_from_slice(stored);
        self.block_hashes.push(*blake3::hash(stored).as_bytes());
        self.blocks.push(block);
    }

    /// Adds a block of zeros up to the padded length, so that the size tells little.
    fn add_padding(&mut self, sealer: &PackSealer, codecs: &mut Codecs) -> Result<(), PackError> {
        let padded = |length: u64| {
            if length < PADME_BELOW_BYTES { padme(length) } else { length.next_multiple_of(4096) }
        };
        let length = self.len_bytes() as u64;
        let least = length + TAG_BYTES as u64 + 1;
        let target = padded(length);
        if target == length {
            return Ok(());
        }
        let target = if target < least { padded(least) } else { target };
        let zeros = vec![0; (target - length) as usize - TAG_BYTES];
        let sealed =
            sealer.seal(codecs, self.next_ordinal, &zeros, Compression::None).map_err(PackError::Seal)?;
        self.append(&sealed, Vec::new());
        debug_assert_eq!(self.blocks.last().map(|block| block.codec), Some(Codec::Raw));
        Ok(())
    }

    /// Pads, seals and signs the directory, and names the pack.
    pub fn finish(
        mut self,
        sealer: &PackSealer,
        access: &Access,
        run: RunId,
        codecs: &mut Codecs,
    ) -> Result<FinishedPack, PackError> {
        self.add_padding(sealer, codecs)?;
        let directory = Directory {
            author: access.identity.key,
            run,
            origins: self.origins,
            blocks: self.blocks,
            block_hashes: self.block_hashes,
        };
        let sealed = seal_directory(access, &self.header, &directory).map_err(PackError::Seal)?;
        self.header.directory_offset = (self.bytes.len() - self.start) as u64;
        self.header.directory_length = sealed.len() as u64;
        self.bytes.extend_from_slice(&sealed);
        let header = self.header.encode();
        self.bytes[self.start..self.start + header.len()].copy_from_slice(&header);
        let bytes = Bytes::from(self.bytes).slice(self.start..);
        let hash = ObjectHash(*blake3::hash(&bytes).as_bytes());
        let index = IndexPack::from_directory(
            hash,
            self.header.kind,
            bytes.len() as u64,
            origin_of(&self.header),
            &directory,
        );
        Ok(FinishedPack { hash, bytes, index })
    }
}

/// Seals blocks into packs one after the other on the calling thread: for metadata, repacks and small jobs.
pub struct SerialPacker {
    pub kind: crate::format::header::ObjectKind,
    pub compression: Compression,
    pub pack_bytes: usize,
    codecs: Codecs,
    open: Option<(PackSealer, PackBuilder, u32)>,
}

impl SerialPacker {
    pub fn new(
        kind: crate::format::header::ObjectKind,
        compression: Compression,
        pack_bytes: usize,
    ) -> Result<Self, PackError> {
        let codecs = Codecs::new().map_err(PackError::Seal)?;
        Ok(Self { kind, compression, pack_bytes, codecs, open: None })
    }

    fn current(
        &mut self,
        seed: &PackSeed<'_>,
        first: &[ChunkId],
    ) -> Result<&mut (PackSealer, PackBuilder, u32), PackError> {
        if self.open.is_none() {
            let sealer = seed.sealer(self.kind, first)?;
            // Room grows with what comes: a pack of a few kilobytes should not take its full size in memory.
            let builder = PackBuilder::new(&sealer, 64 << 10);
            self.open = Some((sealer, builder, 0));
        }
        self.open.as_mut().ok_or(PackError::Seal(crate::seal::SealError::Compression))
    }

    /// Seals one block; a full pack comes back.
    pub fn add(&mut self, seed: &PackSeed<'_>, block: RawBlock) -> Result<Option<FinishedPack>, PackError> {
        let ids: Vec<ChunkId> = block.chunks.iter().take(8).map(|(id, _)| *id).collect();
        self.current(seed, &ids)?;
        if let Some((sealer, builder, next)) = &mut self.open {
            let sealed = sealer
                .seal(&mut self.codecs, *next, &block.bytes, self.compression)
                .map_err(PackError::Seal)?;
            *next += 1;
            builder.append(&sealed, block.chunks);
        }
        self.finish_if(seed, self.pack_bytes)
    }

    /// Moves one block over unopened; a full pack comes back.
    pub fn add_moved(
        &mut self,
        seed: &PackSeed<'_>,
        block: Block<ChunkId>,
        origin: &Origin,
        stored: &[u8],
    ) -> Result<Option<FinishedPack>, PackError> {
        let ids: Vec<ChunkId> = block.chunks.iter().take(8).map(|(id, _)| *id).collect();
        self.current(seed, &ids)?.1.append_moved(block, origin, stored);
        self.finish_if(seed, self.pack_bytes)
    }

    fn finish_if(
        &mut self,
        seed: &PackSeed<'_>,
        least_bytes: usize,
    ) -> Result<Option<FinishedPack>, PackError> {
        if self.open.as_ref().is_none_or(|(_, builder, _)| builder.len_bytes() < least_bytes) {
            return Ok(None);
        }
        let Some((sealer, builder, _)) = self.open.take() else { return Ok(None) };
        builder.finish(&sealer, seed.access, seed.run, &mut self.codecs).map(Some)
    }

    /// The last pack, if it holds anything.
    pub fn finish(&mut self, seed: &PackSeed<'_>) -> Result<Option<FinishedPack>, PackError> {
        self.finish_if(seed, 0)
    }
}

/// What a new pack's key is made from.
pub struct PackSeed<'a> {
    pub access: &'a Access,
    pub random: &'a dyn crate::base::random::Random,
    pub run: RunId,
    /// Counts the packs of the run.
    pub counter: &'a std::sync::atomic::AtomicU64,
}

impl PackSeed<'_> {
    /// A sealer for the run's next pack.
    pub fn sealer(
        &self,
        kind: crate::format::header::ObjectKind,
        first: &[ChunkId],
    ) -> Result<PackSealer, PackError> {
        let counter = self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        PackSealer::new(self.access, kind, self.random, &self.run, counter, first).map_err(PackError::Seal)
    }
}
