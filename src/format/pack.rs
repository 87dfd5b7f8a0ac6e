//! The pack: sealed blocks and the sealed directory that names every chunk in them.
//!
//! ```text
//! header ‖ block 0 ‖ block 1 ‖ … ‖ directory
//! ```
//!
//! Blocks lie back to back from the header's end to `directory_offset`, so their offsets follow from their
//! lengths and need not be believed. The directory opens without content keys. A block that a prune moved here
//! names its origin: the header fields its key was agreed with; its AAD leaves the containing pack out, which is
//! why it moves unopened.

use super::codec::{Decoder, Encoder, FormatError};
use super::header::{ENC_LIMIT, Kem};
use super::id::{ChunkId, KeyId, ObjectHash, RunId, ShortId};

/// Most plaintext bytes in one block.
pub const BLOCK_RAW_LIMIT: u32 = 16 << 20;
/// Length of an X25519 public key.
const X25519_BYTES: usize = 32;
/// Longest chunk, in bytes.
pub const CHUNK_LIMIT: u32 = 8 << 20;
/// Most bytes of a pack, directory included.
pub const PACK_LIMIT_BYTES: u64 = 1 << 30;

/// How a block's plaintext is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    Raw = 0,
    Zstd = 1,
}

impl Codec {
    fn take(decoder: &mut Decoder<'_>) -> Result<Self, FormatError> {
        match decoder.u8()? {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(decoder.invalid()),
        }
    }
}

/// What a block's key was agreed with: the fields of the header of the pack it was sealed into.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub version: u16,
    pub epoch: u32,
    pub kem: u8,
    pub enc: Vec<u8>,
    pub commitment: [u8; 32],
}

impl Origin {
    pub fn put(&self, encoder: &mut Encoder) {
        encoder.u16(self.version);
        encoder.varint(u64::from(self.epoch));
        encoder.u8(self.kem);
        encoder.bytes(&self.enc);
        encoder.raw(&self.commitment);
    }
    pub fn take(decoder: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let origin = Self {
            version: decoder.u16()?,
            epoch: decoder.varint_u32()?,
            kem: decoder.u8()?,
            enc: decoder.bytes(ENC_LIMIT)?.to_vec(),
            commitment: decoder.array()?,
        };
        let fits = origin.kem == Kem::X25519 as u8 && origin.enc.len() == X25519_BYTES;
        if fits { Ok(origin) } else { Err(decoder.invalid()) }
    }
}

/// One block, generic over how much of a chunk's id is kept: 32 bytes in directories, 16 in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<Id> {
    /// Ciphertext length in bytes, tag included.
    pub stored_length: u32,
    /// Plaintext length in bytes before compression.
    pub raw_length: u32,
    pub codec: Codec,
    /// 0: sealed into this pack. n: see `origins[n - 1]`.
    pub origin: u32,
    /// The nonce it was sealed with, in its pack of origin.
    pub ordinal: u32,
    /// Chunks with their lengths, in the order of the plaintext. Empty: padding.
    pub chunks: Vec<(Id, u32)>,
}

impl<Id> Block<Id> {
    fn put(&self, encoder: &mut Encoder, mut put_id: impl FnMut(&mut Encoder, &Id)) {
        encoder.varint(u64::from(self.stored_length));
        encoder.varint(u64::from(self.raw_length));
        encoder.u8(self.codec as u8);
        encoder.varint(u64::from(self.origin));
        encoder.varint(u64::from(self.ordinal));
        encoder.list(self.chunks.iter(), |e, (id, length)| {
            put_id(e, id);
            e.varint(u64::from(*length));
        });
    }

    fn take(
        decoder: &mut Decoder<'_>,
        origins: usize,
        id_bytes: usize,
        mut take_id: impl FnMut(&mut Decoder<'_>) -> Result<Id, FormatError>,
    ) -> Result<Self, FormatError> {
        let block = Self {
            stored_length: decoder.bounded("stored block", u64::from(BLOCK_RAW_LIMIT) + 64)? as u32,
            raw_length: decoder.bounded("block", u64::from(BLOCK_RAW_LIMIT))? as u32,
            codec: Codec::take(decoder)?,
            origin: decoder.bounded("origin", origins as u64)? as u32,
            ordinal: decoder.varint_u32()?,
            chunks: decoder.list(id_bytes + 1, |d| {
                let id = take_id(d)?;
                let length = d.bounded("chunk", u64::from(CHUNK_LIMIT))? as u32;
                if length == 0 { Err(d.invalid()) } else { Ok((id, length)) }
            })?,
        };
        let sum: u64 = block.chunks.iter().map(|(_, length)| u64::from(*length)).sum();
        let fits = block.chunks.is_empty() || sum == u64::from(block.raw_length);
        let raw_fits = block.codec != Codec::Raw || block.stored_length == block.raw_length + 16;
        if fits && raw_fits && block.stored_length > 16 { Ok(block) } else { Err(decoder.invalid()) }
    }
}

/// The plaintext of a pack's directory. Signed by its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub author: KeyId,
    pub run: RunId,
    pub origins: Vec<Origin>,
    pub blocks: Vec<Block<ChunkId>>,
    /// BLAKE3 of each block's ciphertext, so that damage is pinned to a block and parity can be checked.
    pub block_hashes: Vec<[u8; 32]>,
}

impl Directory {
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::with_capacity(self.blocks.len() * 1024);
        encoder.raw(self.author.as_bytes());
        encoder.raw(self.run.as_bytes());
        encoder.list(self.origins.iter(), |e, origin| origin.put(e));
        encoder.list(self.blocks.iter().zip(&self.block_hashes), |e, (block, hash)| {
            block.put(e, |e, id| e.chunk_id(id));
            e.raw(hash);
        });
        encoder.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "pack directory");
        let author = KeyId(decoder.array()?);
        let run = RunId(decoder.array()?);
        let origins = decoder.list(40, Origin::take)?;
        let mut block_hashes = Vec::new();
        let blocks = decoder.list(38, |d| {
            let block = Block::take(d, origins.len(), 32, |d| d.chunk_id())?;
            block_hashes.push(d.array()?);
            Ok(block)
        })?;
        decoder.finish()?;
        Ok(Self { author, run, origins, blocks, block_hashes })
    }
}

/// What the index keeps of one pack: enough to fetch and open any block with one ranged read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexPack {
    pub pack: ObjectHash,
    pub kind: super::header::ObjectKind,
    pub size_bytes: u64,
    pub author: KeyId,
    pub run: RunId,
    /// Of the pack's own header; blocks with `origin` 0 were sealed with it.
    pub own: Origin,
    pub origins: Vec<Origin>,
    pub blocks: Vec<Block<ShortId>>,
}

impl IndexPack {
    /// What the index keeps of `directory`.
    pub fn from_directory(
        pack: ObjectHash,
        kind: super::header::ObjectKind,
        size_bytes: u64,
        own: Origin,
        directory: &Directory,
    ) -> Self {
        let blocks = directory
            .blocks
            .iter()
            .map(|block| Block {
                stored_length: block.stored_length,
                raw_length: block.raw_length,
                codec: block.codec,
                origin: block.origin,
                ordinal: block.ordinal,
                chunks: block.chunks.iter().map(|(id, length)| (id.short(), *length)).collect(),
            })
            .collect();
        Self {
            pack,
            kind,
            size_bytes,
            author: directory.author,
            run: directory.run,
            own,
            origins: directory.origins.clone(),
            blocks,
        }
    }

    /// Offset of the first block: the length of the pack's header.
    pub fn first_block_offset(&self) -> u64 {
        (super::header::FIXED_BYTES + self.own.enc.len()) as u64
    }

    /// The row's canonical encoding, as in an index object.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.put(&mut encoder);
        encoder.finish()
    }

    fn put(&self, encoder: &mut Encoder) {
        encoder.raw(self.pack.as_bytes());
        encoder.u8(self.kind as u8);
        encoder.varint(self.size_bytes);
        encoder.raw(self.author.as_bytes());
        encoder.raw(self.run.as_bytes());
        self.own.put(encoder);
        encoder.list(self.origins.iter(), |e, origin| origin.put(e));
        encoder.list(self.blocks.iter(), |e, block| block.put(e, |e, id| e.short_id(id)));
    }

    fn take(decoder: &mut Decoder<'_>) -> Result<Self, FormatError> {
        use super::header::ObjectKind;
        let pack = ObjectHash(decoder.array()?);
        let kind = match decoder.u8()? {
            1 => ObjectKind::Data,
            2 => ObjectKind::Meta,
            _ => return Err(decoder.invalid()),
        };
        let size_bytes = decoder.bounded("pack size", PACK_LIMIT_BYTES)?;
        let author = KeyId(decoder.array()?);
        let run = RunId(decoder.array()?);
        let own = Origin::take(decoder)?;
        let origins = decoder.list(40, Origin::take)?;
        let blocks = decoder.list(6, |d| Block::take(d, origins.len(), 16, |d| d.short_id()))?;
        let pack = Self { pack, kind, size_bytes, author, run, own, origins, blocks };
        let stored: u64 = pack.blocks.iter().map(|block| u64::from(block.stored_length)).sum();
        if pack.first_block_offset() + stored <= size_bytes { Ok(pack) } else { Err(decoder.invalid()) }
    }
}

/// The plaintext of an index object. Rows are hints: the listing of packs decides what exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub author: Option<KeyId>,
    /// Index objects this one repeats in full: harmless if they still exist, unneeded once this one does.
    pub supersedes: Vec<ObjectHash>,
    pub packs: Vec<IndexPack>,
}

impl Index {
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.option(self.author.as_ref(), |e, author| e.raw(author.as_bytes()));
        encoder.list(self.supersedes.iter(), |e, hash| e.raw(hash.as_bytes()));
        encoder.list(self.packs.iter(), |e, pack| pack.put(e));
        encoder.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "index");
        let author = decoder.option(|d| Ok(KeyId(d.array()?)))?;
        let supersedes = decoder.list(32, |d| Ok(ObjectHash(d.array()?)))?;
        let packs = decoder.list(120, IndexPack::take)?;
        decoder.finish()?;
        Ok(Self { author, supersedes, packs })
    }
}
