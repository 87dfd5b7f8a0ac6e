//! Seal and open blocks: compress, encrypt once, authenticate.
//!
//! A pack's key is agreed by X25519 between a fresh ephemeral key and the domain's recipient, mixed with the
//! epoch's pre-shared secret, and bound to everything the header says. It is kept until the pack is complete, and
//! each of its nonces is the ordinal of one block. The AAD leaves the containing pack out, so that a block may
//! move to another pack unopened.

use x25519_dalek::{PublicKey, StaticSecret};
use zstd::zstd_safe::CParameter;

use super::SealError;
use super::access::{Access, Domain};
use super::derive::{TAG_BYTES, check_commitment, commitment, decrypt, derive, encrypt_from};
use crate::base::random::{self, Random};
use crate::format::header::{Header, Kem, ObjectKind, VERSION};
use crate::format::id::{ChunkId, RepoId, RunId};
use crate::format::keyring::{EpochKeys, Key};
use crate::format::pack::{BLOCK_RAW_LIMIT, Codec, Origin};

/// At the default level, matches of 6 bytes cost a twelfth more time than they save space: see
/// `docs/decisions/0003-default-compression-level.md`.
const TUNED_LEVEL: i32 = 2;
const TUNED_SHORTEST_MATCH: u32 = 7;
/// Blocks from this length on are searched with a larger table: 1 to 3 % smaller for some 2 % more processor time, see
/// `docs/decisions/0006-larger-blocks-for-files.md`.
const LARGE_BLOCK_BYTES: usize = 2 << 20;
const LARGE_BLOCK_TABLE_LOG: u32 = 17;

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// A zstd level.
    Zstd(i32),
}

/// A block as it goes into a pack.
#[derive(Debug)]
pub struct SealedBlock {
    pub ordinal: u32,
    pub raw_length: u32,
    pub codec: Codec,
    /// Ciphertext and tag.
    pub bytes: Vec<u8>,
    pub hash: [u8; 32],
}

/// What a key is bound to besides the agreed secret.
#[derive(Clone, Copy)]
struct Binding {
    repo: RepoId,
    domain: u32,
    epoch: u32,
    kind: ObjectKind,
    version: u16,
}

impl Binding {
    fn aad(&self, ordinal: u32, raw_length: u32, codec: Codec) -> [u8; 16 + 4 + 4 + 1 + 2 + 4 + 4 + 1] {
        let mut aad = [0; 36];
        aad[..16].copy_from_slice(self.repo.as_bytes());
        aad[16..20].copy_from_slice(&self.domain.to_le_bytes());
        aad[20..24].copy_from_slice(&self.epoch.to_le_bytes());
        aad[24] = self.kind as u8;
        aad[25..27].copy_from_slice(&self.version.to_le_bytes());
        aad[27..31].copy_from_slice(&ordinal.to_le_bytes());
        aad[31..35].copy_from_slice(&raw_length.to_le_bytes());
        aad[35] = codec as u8;
        aad
    }

    fn key(&self, shared: &[u8; 32], pre_shared: &Key, enc: &[u8], recipient: &[u8; 32]) -> Key {
        derive(
            "lifeboat v1 pack key",
            &[
                shared,
                &pre_shared.0,
                enc,
                recipient,
                self.repo.as_bytes(),
                &self.domain.to_le_bytes(),
                &self.epoch.to_le_bytes(),
                &[self.kind as u8],
                &self.version.to_le_bytes(),
                &[Kem::X25519 as u8],
            ],
        )
    }
}

fn recipient(keys: &EpochKeys, kind: ObjectKind) -> (&[u8; 32], Option<&Key>) {
    match kind {
        ObjectKind::Data => (&keys.data_public, keys.data_secret.as_ref()),
        _ => (&keys.meta_public, keys.meta_secret.as_ref()),
    }
}

fn pre_shared(keys: &EpochKeys) -> Result<&Key, SealError> {
    keys.pre_shared.as_ref().ok_or(SealError::NotPermitted("packs"))
}

/// Agrees a new key to the current epoch's recipient of `kind`; returns it with a header whose enc and
/// commitment are set.
///
/// `hedge` is whatever makes this object unlike any other the writer ever made: run, counter, first ids.
pub(super) fn agree_new(
    access: &Access,
    kind: ObjectKind,
    random: &dyn Random,
    hedge: &[&[u8]],
) -> Result<(Header, Key), SealError> {
    let domain = access.home();
    let keys = domain.current();
    let binding =
        Binding { repo: access.repo, domain: domain.number(), epoch: keys.epoch, kind, version: VERSION };
    let fresh: [u8; 32] = random::array(random);
    let writer = access.identity.hedge();
    let mut parts: Vec<&[u8]> = vec![&fresh, &writer];
    parts.extend_from_slice(hedge);
    let ephemeral = StaticSecret::from(derive("lifeboat v1 ephemeral secret", &parts).0);
    let enc = PublicKey::from(&ephemeral).to_bytes();
    let (public, _) = recipient(keys, kind);
    let shared = ephemeral.diffie_hellman(&PublicKey::from(*public));
    if !shared.was_contributory() {
        return Err(SealError::WeakKey);
    }
    let key = binding.key(shared.as_bytes(), pre_shared(keys)?, &enc, public);
    let mut header = Header::new(kind, Kem::X25519, access.repo, domain.number(), keys.epoch);
    header.enc = enc.to_vec();
    header.commitment = commitment(&key);
    Ok((header, key))
}

/// The key that [`agree_new`] made, for who holds the recipient's secret.
pub(super) fn agree_open(
    repo: RepoId,
    domain: &Domain,
    kind: ObjectKind,
    origin: &Origin,
) -> Result<Key, SealError> {
    let keys = domain.epoch(origin.epoch)?;
    let binding =
        Binding { repo, domain: domain.number(), epoch: origin.epoch, kind, version: origin.version };
    let (public, secret) = recipient(keys, kind);
    let what = if kind == ObjectKind::Data { "file contents" } else { "folders and file names" };
    let secret = secret.ok_or(SealError::NotPermitted(what))?;
    let enc: [u8; 32] = origin.enc.as_slice().try_into().map_err(|_| SealError::WeakKey)?;
    let shared = StaticSecret::from(secret.0).diffie_hellman(&PublicKey::from(enc));
    if !shared.was_contributory() {
        return Err(SealError::WeakKey);
    }
    let key = binding.key(shared.as_bytes(), pre_shared(keys)?, &enc, public);
    check_commitment(&key, &origin.commitment)?;
    Ok(key)
}

/// What a header says about the key of the blocks sealed under it.
pub fn origin_of(header: &Header) -> Origin {
    Origin {
        version: header.version,
        epoch: header.epoch,
        kem: header.kem as u8,
        enc: header.enc.clone(),
        commitment: header.commitment,
    }
}

/// Seals the blocks of one pack. Shared by threads: whoever numbers the blocks gives each ordinal out once.
pub struct PackSealer {
    header: Header,
    key: Key,
    binding: Binding,
}

impl PackSealer {
    /// A sealer for a new pack of `kind` in the home domain. `first` names the first chunks that will be in it.
    pub fn new(
        access: &Access,
        kind: ObjectKind,
        random: &dyn Random,
        run: &RunId,
        counter: u64,
        first: &[ChunkId],
    ) -> Result<Self, SealError> {
        let ids: Vec<u8> = first.iter().take(8).flat_map(|id| id.0).collect();
        let (header, key) = agree_new(access, kind, random, &[run.as_bytes(), &counter.to_le_bytes(), &ids])?;
        let binding = Binding {
            repo: header.repo,
            domain: header.domain,
            epoch: header.epoch,
            kind,
            version: header.version,
        };
        Ok(Self { header, key, binding })
    }

    /// The pack's header; directory fields are still zero.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Compresses and encrypts one block, then opens it again: what bad memory spoiled must not be uploaded.
    pub fn seal(
        &self,
        codecs: &mut Codecs,
        ordinal: u32,
        raw: &[u8],
        compression: Compression,
    ) -> Result<SealedBlock, SealError> {
        self.seal_in(codecs, ordinal, raw, compression, Vec::new())
    }

    /// [`Self::seal`] into an empty buffer that was used before.
    pub fn seal_in(
        &self,
        codecs: &mut Codecs,
        ordinal: u32,
        raw: &[u8],
        compression: Compression,
        mut bytes: Vec<u8>,
    ) -> Result<SealedBlock, SealError> {
        debug_assert!(raw.len() <= BLOCK_RAW_LIMIT as usize);
        let raw_length = raw.len() as u32;
        let codec = codecs.compress(raw, compression)?;
        let plain: &[u8] = if codec == Codec::Zstd { &codecs.compressed } else { raw };
        bytes.clear();
        bytes.reserve(plain.len() + TAG_BYTES);
        bytes.extend_from_slice(plain);
        let aad = self.binding.aad(ordinal, raw_length, codec);
        encrypt_from(&self.key, u64::from(ordinal), &aad, &mut bytes, 0)?;
        let hash = *blake3::hash(&bytes).as_bytes();
        codecs.reopened.clear();
        codecs.reopened.extend_from_slice(&bytes);
        let length = decrypt(&self.key, u64::from(ordinal), &aad, &mut codecs.reopened)?;
        if codecs.reopened[..length] != *plain {
            return Err(SealError::Damaged);
        }
        Ok(SealedBlock { ordinal, raw_length, codec, bytes, hash })
    }
}

/// Opens blocks that were sealed under one origin.
pub struct BlockOpener {
    key: Key,
    binding: Binding,
}

impl BlockOpener {
    /// Errors with [`SealError::NotPermitted`] when the role lacks the secret.
    pub fn new(repo: RepoId, domain: &Domain, kind: ObjectKind, origin: &Origin) -> Result<Self, SealError> {
        let key = agree_open(repo, domain, kind, origin)?;
        let binding =
            Binding { repo, domain: domain.number(), epoch: origin.epoch, kind, version: origin.version };
        Ok(Self { key, binding })
    }

    /// Authenticates, decrypts and decompresses. `stored` is the block as it lies in the pack; the result is exactly
    /// `raw_length` bytes, in `room` or in new memory.
    pub fn open(
        &self,
        codecs: &mut Codecs,
        ordinal: u32,
        raw_length: u32,
        codec: Codec,
        stored: &[u8],
        mut room: Vec<u8>,
    ) -> Result<Vec<u8>, SealError> {
        let aad = self.binding.aad(ordinal, raw_length, codec);
        let Codecs { reopened, decompressor, .. } = codecs;
        reopened.clear();
        reopened.extend_from_slice(stored);
        let length = decrypt(&self.key, u64::from(ordinal), &aad, reopened)?;
        if raw_length > BLOCK_RAW_LIMIT {
            return Err(SealError::Damaged);
        }
        room.clear();
        match codec {
            Codec::Raw => room.extend_from_slice(&reopened[..length]),
            Codec::Zstd => {
                room.reserve(raw_length as usize);
                decompressor
                    .decompress_to_buffer(&reopened[..length], &mut room)
                    .map_err(|_| SealError::Damaged)?;
            }
        }
        if room.len() == raw_length as usize { Ok(room) } else { Err(SealError::Damaged) }
    }
}

/// zstd contexts and scratch space of one thread; making them anew for each block costs more than a small block.
pub struct Codecs {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
    /// What the compressor is set to: the level, and whether for large blocks.
    tuning: (i32, bool),
    /// The last block as zstd left it.
    compressed: Vec<u8>,
    /// The last block sealed and opened again, or just opened.
    reopened: Vec<u8>,
}

impl Codecs {
    pub fn new() -> Result<Self, SealError> {
        let level = 3;
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(level).map_err(|_| SealError::Compression)?,
            decompressor: zstd::bulk::Decompressor::new().map_err(|_| SealError::Compression)?,
            tuning: (level, false),
            compressed: Vec::new(),
            reopened: Vec::new(),
        })
    }

    /// Compresses into `self.compressed` and says whether that is smaller than the input.
    fn compress(&mut self, raw: &[u8], compression: Compression) -> Result<Codec, SealError> {
        let Compression::Zstd(level) = compression else { return Ok(Codec::Raw) };
        let tuning = (level, level == TUNED_LEVEL && raw.len() >= LARGE_BLOCK_BYTES);
        if tuning != self.tuning {
            let failed = |_| SealError::Compression;
            self.compressor.set_compression_level(level).map_err(failed)?;
            // 0 is what the level says.
            let shortest = if level == TUNED_LEVEL { TUNED_SHORTEST_MATCH } else { 0 };
            self.compressor.set_parameter(CParameter::MinMatch(shortest)).map_err(failed)?;
            let table = if tuning.1 { LARGE_BLOCK_TABLE_LOG } else { 0 };
            self.compressor.set_parameter(CParameter::HashLog(table)).map_err(failed)?;
            self.tuning = tuning;
        }
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, &mut self.compressed).map_err(|_| SealError::Compression)?;
        Ok(if self.compressed.len() < raw.len() { Codec::Zstd } else { Codec::Raw })
    }
}
