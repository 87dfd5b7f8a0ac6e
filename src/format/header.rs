//! The plaintext header every object starts with.
//!
//! Its table, and every other layout, is in `docs/format.md`.
//!
//! Why a length-prefixed enc: a post-quantum hybrid's is 1120 bytes and must fit without a new layout.

use super::codec::{Decoder, Encoder, FormatError};
use super::id::RepoId;

/// First bytes of every object.
pub const MAGIC: [u8; 8] = *b"LIFEBOAT";
/// The format version this build writes, and the highest it reads.
pub const VERSION: u16 = 1;
/// Required features this build knows. None yet.
pub const KNOWN_FEATURES: u32 = 0;
/// Longest enc accepted, in bytes.
pub const ENC_LIMIT: usize = 4096;
/// Header bytes besides enc.
pub const FIXED_BYTES: usize = 66 + 32;

/// What an object is. The number is on storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ObjectKind {
    Data = 1,
    Meta = 2,
    Index = 3,
    Snapshot = 4,
    Config = 5,
    Keyring = 6,
    Roster = 7,
    Slot = 8,
    Run = 9,
    Confirm = 10,
    Forgotten = 11,
    Tombstone = 12,
    Parity = 13,
}

impl ObjectKind {
    /// All kinds, in order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Data,
        Self::Meta,
        Self::Index,
        Self::Snapshot,
        Self::Config,
        Self::Keyring,
        Self::Roster,
        Self::Slot,
        Self::Run,
        Self::Confirm,
        Self::Forgotten,
        Self::Tombstone,
        Self::Parity,
    ];

    /// The folder its objects live in.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Meta => "meta",
            Self::Index => "index",
            Self::Snapshot => "snapshots",
            Self::Config => "config",
            Self::Keyring => "keyring",
            Self::Roster => "roster",
            Self::Slot => "slots",
            Self::Run => "runs",
            Self::Confirm => "confirms",
            Self::Forgotten => "forgotten",
            Self::Tombstone => "tombstones",
            Self::Parity => "parity",
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// How the key that seals the object is agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kem {
    /// Not sealed: signed plaintext.
    None = 0,
    /// A symmetric key that the reader holds, and 32 random bytes as enc.
    Symmetric = 1,
    /// X25519 with a pre-shared secret; enc is the ephemeral public key.
    X25519 = 2,
    /// Argon2id over a passphrase; enc is the salt.
    Passphrase = 3,
    /// A key file of 32 random bytes; enc is the salt.
    KeyFile = 4,
}

impl Kem {
    fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Symmetric, Self::X25519, Self::Passphrase, Self::KeyFile]
            .into_iter()
            .find(|kem| *kem as u8 == number)
    }
}

/// The fields, in the order they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u16,
    pub kind: ObjectKind,
    pub kem: Kem,
    pub required_features: u32,
    pub optional_features: u32,
    pub repo: RepoId,
    pub domain: u32,
    pub epoch: u32,
    pub instance: u32,
    pub directory_offset: u64,
    pub directory_length: u64,
    pub enc: Vec<u8>,
    pub commitment: [u8; 32],
}

impl Header {
    /// A header of the current version; enc and commitment are set by whoever seals.
    pub fn new(kind: ObjectKind, kem: Kem, repo: RepoId, domain: u32, epoch: u32) -> Self {
        Self {
            version: VERSION,
            kind,
            kem,
            required_features: 0,
            optional_features: 0,
            repo,
            domain,
            epoch,
            instance: 0,
            directory_offset: 0,
            directory_length: 0,
            enc: Vec::new(),
            commitment: [0; 32],
        }
    }

    /// Encoded length in bytes.
    pub fn encoded_bytes(&self) -> usize {
        FIXED_BYTES + self.enc.len()
    }

    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.enc.len() <= ENC_LIMIT);
        let mut encoder = Encoder::with_capacity(self.encoded_bytes());
        encoder.raw(&MAGIC);
        encoder.u16(self.version);
        encoder.u8(self.kind as u8);
        encoder.u8(self.kem as u8);
        encoder.u32(self.required_features);
        encoder.u32(self.optional_features);
        encoder.raw(self.repo.as_bytes());
        encoder.u32(self.domain);
        encoder.u32(self.epoch);
        encoder.u32(self.instance);
        encoder.u64(self.directory_offset);
        encoder.u64(self.directory_length);
        encoder.u16(self.enc.len() as u16);
        encoder.raw(&self.enc);
        encoder.raw(&self.commitment);
        encoder.finish()
    }

    /// Reads a header from the front of an object; returns it and its length in bytes.
    ///
    /// The version is judged before anything else, so an object of a later format is called that and not damaged.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), FormatError> {
        let mut decoder = Decoder::new(bytes, "object header");
        if decoder.array::<8>()? != MAGIC {
            return Err(FormatError::NotLifeboat);
        }
        let version = decoder.u16()?;
        let kind = decoder.u8()?;
        let kem = decoder.u8()?;
        let required_features = decoder.u32()?;
        if version > VERSION || required_features & !KNOWN_FEATURES != 0 {
            return Err(FormatError::Newer { version, features: required_features, supported: VERSION });
        }
        let header = Self {
            version,
            kind: ObjectKind::from_number(kind).ok_or(FormatError::Invalid("object kind"))?,
            kem: Kem::from_number(kem).ok_or(FormatError::Invalid("key agreement id"))?,
            required_features,
            optional_features: decoder.u32()?,
            repo: RepoId(decoder.array()?),
            domain: decoder.u32()?,
            epoch: decoder.u32()?,
            instance: decoder.u32()?,
            directory_offset: decoder.u64()?,
            directory_length: decoder.u64()?,
            enc: {
                let length = usize::from(decoder.u16()?);
                if length > ENC_LIMIT {
                    return Err(FormatError::TooLarge {
                        what: "enc",
                        value: length as u64,
                        limit: ENC_LIMIT as u64,
                    });
                }
                decoder.raw(length)?.to_vec()
            },
            commitment: decoder.array()?,
        };
        if header.version == 0 {
            return Err(FormatError::Invalid("format version"));
        }
        let length = header.encoded_bytes();
        Ok((header, length))
    }

    /// Like [`Self::decode`], and the object must be of `kind`.
    pub fn decode_kind(bytes: &[u8], kind: ObjectKind) -> Result<(Self, usize), FormatError> {
        let (header, length) = Self::decode(bytes)?;
        if header.kind == kind { Ok((header, length)) } else { Err(FormatError::Invalid("object kind")) }
    }
}

/// Padmé: rounds a length up so that at most its O(log log n) leading bits show; costs at most 12 %, and less
/// as objects grow (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files", PETS 2019).
pub fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = 63 - u64::from(length.leading_zeros());
    let significand = 64 - u64::from(exponent.leading_zeros());
    let mask = (1u64 << exponent.saturating_sub(significand)) - 1;
    (length + mask) & !mask
}

/// Prefixes `content` with its length and pads with zeros to the Padmé length: the plaintext of small objects.
pub fn pad(content: &[u8]) -> Vec<u8> {
    let total = padme(content.len() as u64 + 4) as usize;
    let mut padded = Vec::with_capacity(total);
    padded.extend_from_slice(&(content.len() as u32).to_le_bytes());
    padded.extend_from_slice(content);
    padded.resize(total, 0);
    padded
}

/// Undoes [`pad`]; refuses any padding that it would not have written.
pub fn unpad(padded: &[u8]) -> Result<&[u8], FormatError> {
    let mut decoder = Decoder::new(padded, "padded object");
    let length = decoder.u32()? as usize;
    let content = decoder.raw(length)?;
    let canonical = padme(length as u64 + 4) as usize == padded.len();
    if canonical && decoder.rest().iter().all(|byte| *byte == 0) {
        Ok(content)
    } else {
        Err(FormatError::Invalid("padding"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_names_a_newer_version() {
        let mut header = Header::new(ObjectKind::Data, Kem::X25519, RepoId([7; 16]), 3, 4);
        header.enc = vec![9; 32];
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes).unwrap(), (header, bytes.len()));
        bytes[8] = 2;
        assert!(matches!(Header::decode(&bytes), Err(FormatError::Newer { version: 2, .. })));
        bytes[8] = 1;
        bytes[12] = 1;
        assert!(matches!(Header::decode(&bytes), Err(FormatError::Newer { features: 1, .. })));
    }

    #[test]
    fn padme_never_shrinks_and_costs_at_most_12_percent() {
        for length in (0..5_000u64).chain([1 << 20, (1 << 20) + 1, (1 << 32) - 5]) {
            let padded = padme(length);
            assert!(padded >= length && padded <= length + length * 12 / 100 + 1, "{length} → {padded}");
        }
        for length in 0..300usize {
            let content = vec![1; length];
            assert_eq!(unpad(&pad(&content)).unwrap(), content);
        }
    }
}
