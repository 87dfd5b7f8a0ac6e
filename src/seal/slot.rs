//! Slots: how a person (passphrase) or a server (key file) gets its secret back.
//!
//! The commitment is compared in constant time before the cipher runs, so a wrong passphrase is told from a
//! damaged slot, and one ciphertext cannot be made to open under two passphrases.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::SealError;
use super::derive::{check_commitment, commitment, decrypt, derive, encrypt_from};
use crate::base::random::{self, Random};
use crate::format::codec::{Decoder, Encoder};
use crate::format::header::{Header, Kem, ObjectKind};
use crate::format::id::RepoId;
use crate::format::keyring::{Key, SlotInfo, SlotSecret};
use crate::format::signed::{check_checksum, with_checksum};

/// What opens a slot.
#[derive(Clone)]
pub enum Unlock {
    /// A passphrase, through Argon2id.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The content of a key file: 32 random bytes.
    KeyFile(Key),
}

/// Argon2id's cost: 64 MiB, 3 passes, 1 lane is above what RFC 9106 recommends where memory is scarce, and under
/// the 256 MiB that Lifeboat promises to stay within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 1 }
    }
}

fn slot_key(unlock: &Unlock, header: &Header, info: &SlotInfo) -> Result<Key, SealError> {
    let base = match unlock {
        Unlock::Passphrase(passphrase) => {
            let fail = |error: argon2::Error| SealError::Derivation(error.to_string());
            let params = Params::new(info.memory_kib, info.passes, info.lanes, Some(32)).map_err(fail)?;
            let mut key = Key([0; 32]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(passphrase, &header.enc, &mut key.0)
                .map_err(fail)?;
            key
        }
        Unlock::KeyFile(key) => key.clone(),
    };
    Ok(derive("lifeboat v1 slot key", &[&base.0, &header.enc, header.repo.as_bytes(), &[header.kem as u8]]))
}

fn kem(unlock: &Unlock) -> Kem {
    match unlock {
        Unlock::Passphrase(_) => Kem::Passphrase,
        Unlock::KeyFile(_) => Kem::KeyFile,
    }
}

/// Seals `secret` so that `unlock` opens it. Cost fields of `info` are set here.
pub fn seal_slot(
    repo: RepoId,
    mut info: SlotInfo,
    secret: &SlotSecret,
    unlock: &Unlock,
    cost: Cost,
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    if kem(unlock) == Kem::Passphrase {
        (info.memory_kib, info.passes, info.lanes) = (cost.memory_kib, cost.passes, cost.lanes);
    } else {
        (info.memory_kib, info.passes, info.lanes) = (0, 0, 0);
    }
    let mut header = Header::new(ObjectKind::Slot, kem(unlock), repo, 0, 0);
    header.enc = random::array::<32>(random).to_vec();
    let key = slot_key(unlock, &header, &info)?;
    header.commitment = commitment(&key);
    let mut bytes = header.encode();
    let mut encoder = Encoder::new();
    encoder.bytes(&info.encode());
    bytes.extend_from_slice(encoder.as_slice());
    let (aad, from) = (bytes.clone(), bytes.len());
    bytes.extend_from_slice(&secret.encode());
    encrypt_from(&key, 0, &aad, &mut bytes, from)?;
    Ok(with_checksum(bytes))
}

/// A slot taken apart, not yet opened.
#[derive(Clone, Debug)]
pub struct Slot {
    pub header: Header,
    pub info: SlotInfo,
    aad: Vec<u8>,
    sealed: Vec<u8>,
}

impl Slot {
    pub fn decode(bytes: &[u8]) -> Result<Self, SealError> {
        let (header, start) = Header::decode_kind(bytes, ObjectKind::Slot)?;
        let content = check_checksum(bytes)?;
        let mut decoder = Decoder::new(content.get(start..).unwrap_or(&[]), "slot");
        let encoded = decoder.bytes(64 << 10)?;
        let sealed = decoder.rest().to_vec();
        let mut inner = Decoder::new(encoded, "slot");
        let info = SlotInfo::take(&mut inner)?;
        inner.finish()?;
        let aad = content[..content.len() - sealed.len()].to_vec();
        Ok(Self { header, info, aad, sealed })
    }

    /// Whether `unlock` is of the kind that could open this slot.
    pub fn fits(&self, unlock: &Unlock) -> bool {
        self.header.kem == kem(unlock)
    }

    /// Opens the slot. Costs what the slot asks of Argon2id, which decoding has bounded.
    pub fn open(&self, unlock: &Unlock) -> Result<SlotSecret, SealError> {
        if !self.fits(unlock) {
            return Err(SealError::WrongKey);
        }
        let key = slot_key(unlock, &self.header, &self.info)?;
        check_commitment(&key, &self.header.commitment)?;
        let mut sealed = Zeroizing::new(self.sealed.clone());
        let length = decrypt(&key, 0, &self.aad, &mut sealed)?;
        Ok(SlotSecret::decode(&sealed[..length])?)
    }
}
