//! The small signed objects with fixed names: config, roster, runs, confirms, forgotten, tombstones.
//!
//! ```text
//! header ‖ body ‖ author's key id (16) ‖ Ed25519 signature (64) ‖ BLAKE3 of all before it (32)
//! ```
//!
//! The signature covers a context string, the header and the body. The unkeyed BLAKE3 at the end lets anybody
//! verify the bytes without a key, since a fixed name cannot be the hash of its content.

use super::codec::{Decoder, Encoder, FormatError};
use super::header::{Header, ObjectKind};
use super::id::{KeyId, ObjectHash, RunId, SnapshotId};

/// Bytes of the BLAKE3 at the end of fixed-name objects.
pub const CHECKSUM_BYTES: usize = 32;
/// Most bytes of any fixed-name object.
pub const OBJECT_LIMIT_BYTES: usize = 64 << 20;

/// Appends the checksum.
pub fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// Verifies the checksum and returns the bytes before it.
pub fn check_checksum(bytes: &[u8]) -> Result<&[u8], FormatError> {
    let (content, checksum) =
        bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FormatError::Truncated("object"))?;
    if blake3::hash(content).as_bytes() == checksum { Ok(content) } else { Err(FormatError::Checksum) }
}

/// A signed object taken apart; the signature is not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub header: Header,
    pub body: Vec<u8>,
    pub author: KeyId,
    pub signature: [u8; 64],
}

impl Signed {
    /// What the signature is over.
    pub fn message(header: &Header, body: &[u8]) -> Vec<u8> {
        let mut message = b"lifeboat signed object v1\0".to_vec();
        message.extend_from_slice(&header.encode());
        message.extend_from_slice(body);
        message
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header.encode();
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(self.author.as_bytes());
        bytes.extend_from_slice(&self.signature);
        with_checksum(bytes)
    }

    pub fn decode(bytes: &[u8], kind: ObjectKind) -> Result<Self, FormatError> {
        // The header first, so that a newer version is named before its unknown layout is called damage.
        let (header, start) = Header::decode_kind(bytes, kind)?;
        let content = check_checksum(bytes)?;
        let (content, signature) =
            content.split_last_chunk::<64>().ok_or(FormatError::Truncated("signed object"))?;
        let (content, author) =
            content.split_last_chunk::<16>().ok_or(FormatError::Truncated("signed object"))?;
        let body = content.get(start..).ok_or(FormatError::Truncated("signed object"))?.to_vec();
        Ok(Self { header, body, author: KeyId(*author), signature: *signature })
    }
}

/// `config/<n>`: what a repository is. Numbered; a client refuses a lower number than it has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub number: u64,
    pub created_seconds: i64,
    pub owner_key: [u8; 32],
    /// Set on a replica: the id it shares keys with, which is its own repository id too.
    pub replica: bool,
    /// Packs aim at this size in bytes.
    pub pack_bytes: u64,
    /// zstd level that `default` compression means in this repository.
    pub compression_level: i32,
}

impl Config {
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.varint(self.number);
        encoder.signed(self.created_seconds);
        encoder.raw(&self.owner_key);
        encoder.bool(self.replica);
        encoder.varint(self.pack_bytes);
        encoder.signed(i64::from(self.compression_level));
        encoder.finish()
    }
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "config");
        let config = Self {
            number: decoder.varint()?,
            created_seconds: decoder.signed()?,
            owner_key: decoder.array()?,
            replica: decoder.bool()?,
            pack_bytes: decoder.bounded("pack size", 1 << 30)?,
            compression_level: i32::try_from(decoder.signed()?).map_err(|_| decoder.invalid())?,
        };
        decoder.finish()?;
        Ok(config)
    }
}

/// `runs/<run>/<n>`: a run that may reuse chunks says that it is alive; n counts its signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub run: RunId,
    pub number: u64,
}

impl Run {
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.raw(self.run.as_bytes());
        encoder.varint(self.number);
        encoder.finish()
    }
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "run");
        let run = Self { run: RunId(decoder.array()?), number: decoder.varint()? };
        decoder.finish()?;
        Ok(run)
    }
}

/// `confirms/<snapshot>` and `forgotten/<snapshot>`: the snapshot they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub snapshot: SnapshotId,
}

impl Mark {
    pub fn encode(&self) -> Vec<u8> {
        self.snapshot.as_bytes().to_vec()
    }
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "snapshot mark");
        let mark = Self { snapshot: SnapshotId(decoder.array()?) };
        decoder.finish()?;
        Ok(mark)
    }
}

/// `tombstones/<pruner's run>`: packs that will be deleted. Irrevocable: nobody may rely on them from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub pruner: RunId,
    /// Whether the run that put this deletes the packs it names. A notice (false) only condemns them: whoever
    /// deletes does so under a tombstone of its own, so that a notice may be cleared away by others once every
    /// pack it names is gone.
    pub sweeps: bool,
    /// Condemned packs with their kind, ascending.
    pub packs: Vec<(ObjectKind, ObjectHash)>,
}

impl Tombstone {
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.raw(self.pruner.as_bytes());
        encoder.bool(self.sweeps);
        encoder.list(self.packs.iter(), |e, (kind, hash)| {
            e.u8(*kind as u8);
            e.raw(hash.as_bytes());
        });
        encoder.finish()
    }
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "tombstone");
        let pruner = RunId(decoder.array()?);
        let sweeps = decoder.bool()?;
        let packs = decoder.list(33, |d| {
            let kind = match d.u8()? {
                1 => ObjectKind::Data,
                2 => ObjectKind::Meta,
                _ => return Err(d.invalid()),
            };
            Ok((kind, ObjectHash(d.array()?)))
        })?;
        if !packs.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(decoder.invalid());
        }
        decoder.finish()?;
        Ok(Self { pruner, sweeps, packs })
    }
}
