//! Keys at rest: the keyring (everything random, sealed for the owner), grants (a member's share of it), the
//! roster (who may sign) and slots (how people and servers get their secret back).
//!
//! Plaintext keys live in [`zeroize::Zeroizing`] or in types that wipe themselves; none of them prints.

use zeroize::Zeroize;

use super::codec::{Decoder, Encoder, FormatError};
use super::id::KeyId;

/// A secret of 32 bytes that wipes itself and does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Longest label of a key, slot or domain, in bytes.
pub const LABEL_LIMIT: usize = 4096;

/// What a key may do. The number is on storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    Owner = 0,
    Maintainer = 1,
    Writer = 2,
    Auditor = 3,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Maintainer => "maintainer",
            Self::Writer => "writer",
            Self::Auditor => "auditor",
        })
    }
}

impl Role {
    fn take(d: &mut Decoder<'_>) -> Result<Self, FormatError> {
        match d.u8()? {
            0 => Ok(Self::Owner),
            1 => Ok(Self::Maintainer),
            2 => Ok(Self::Writer),
            3 => Ok(Self::Auditor),
            _ => Err(d.invalid()),
        }
    }
}

/// The keys of one epoch of a domain. Absent parts are not this holder's to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochKeys {
    pub epoch: u32,
    pub index: Key,
    pub pre_shared: Option<Key>,
    pub data_public: [u8; 32],
    pub meta_public: [u8; 32],
    pub data_secret: Option<Key>,
    pub meta_secret: Option<Key>,
}

/// The keys of one dedup domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainKeys {
    pub domain: u32,
    pub label: String,
    /// Persist across epochs, so that chunks keep their ids and cut points. Absent for who cannot deduplicate.
    pub id: Option<Key>,
    pub cut: Option<Key>,
    /// Ascending, at least one; the last is current.
    pub epochs: Vec<EpochKeys>,
}

impl DomainKeys {
    fn put(&self, e: &mut Encoder) {
        e.varint(u64::from(self.domain));
        e.str(&self.label);
        e.option(self.id.as_ref(), |e, key| e.raw(&key.0));
        e.option(self.cut.as_ref(), |e, key| e.raw(&key.0));
        e.list(self.epochs.iter(), |e, epoch| {
            e.varint(u64::from(epoch.epoch));
            e.raw(&epoch.index.0);
            e.option(epoch.pre_shared.as_ref(), |e, key| e.raw(&key.0));
            e.raw(&epoch.data_public);
            e.raw(&epoch.meta_public);
            e.option(epoch.data_secret.as_ref(), |e, key| e.raw(&key.0));
            e.option(epoch.meta_secret.as_ref(), |e, key| e.raw(&key.0));
        });
    }

    fn take(d: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let key = |d: &mut Decoder<'_>| Ok(Key(d.array()?));
        let keys = Self {
            domain: d.varint_u32()?,
            label: d.str(LABEL_LIMIT)?,
            id: d.option(key)?,
            cut: d.option(key)?,
            epochs: d.list(100, |d| {
                Ok(EpochKeys {
                    epoch: d.varint_u32()?,
                    index: key(d)?,
                    pre_shared: d.option(key)?,
                    data_public: d.array()?,
                    meta_public: d.array()?,
                    data_secret: d.option(key)?,
                    meta_secret: d.option(key)?,
                })
            })?,
        };
        let ascending = keys.epochs.windows(2).all(|pair| pair[0].epoch < pair[1].epoch);
        if ascending && !keys.epochs.is_empty() { Ok(keys) } else { Err(d.invalid()) }
    }
}

/// The domains' keys: all of them with all secrets in the keyring, a share of them in a grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    pub number: u64,
    /// Ascending by domain.
    pub domains: Vec<DomainKeys>,
}

impl Keyring {
    /// Contains secrets: callers wrap the result in `Zeroizing` or seal it at once.
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let mut e = Encoder::with_capacity(64 << 10);
        e.varint(self.number);
        e.list(self.domains.iter(), |e, domain| domain.put(e));
        zeroize::Zeroizing::new(e.finish())
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = Decoder::new(bytes, "keyring");
        let keyring = Self { number: d.varint()?, domains: d.list(102, DomainKeys::take)? };
        d.finish()?;
        let ascending = keyring.domains.windows(2).all(|pair| pair[0].domain < pair[1].domain);
        if ascending { Ok(keyring) } else { Err(FormatError::Invalid("keyring")) }
    }
}

/// One who may sign: the owner and every added key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub key: KeyId,
    pub role: Role,
    /// The domain it writes into.
    pub domain: u32,
    pub verifying: [u8; 32],
    /// X25519 public key that its grant is sealed to.
    pub recipient: [u8; 32],
    pub created_seconds: i64,
    /// Set when revoked: manifests up to these (job, sequence) heads stay trusted, later ones do not.
    pub revoked: Option<Vec<([u8; 16], u64)>>,
    /// The member's share of the keyring, sealed to `recipient`: enc (32) ‖ ciphertext.
    pub grant: Vec<u8>,
}

/// `roster/<n>`: everyone who may sign, owner-signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    pub number: u64,
    pub members: Vec<Member>,
}

impl Roster {
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.varint(self.number);
        e.list(self.members.iter(), |e, member| {
            e.raw(member.key.as_bytes());
            e.u8(member.role as u8);
            e.varint(u64::from(member.domain));
            e.raw(&member.verifying);
            e.raw(&member.recipient);
            e.signed(member.created_seconds);
            e.option(member.revoked.as_ref(), |e, heads| {
                e.list(heads.iter(), |e, (job, sequence)| {
                    e.raw(job);
                    e.varint(*sequence);
                });
            });
            e.bytes(&member.grant);
        });
        e.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = Decoder::new(bytes, "roster");
        let roster = Self {
            number: d.varint()?,
            members: d.list(85, |d| {
                Ok(Member {
                    key: KeyId(d.array()?),
                    role: Role::take(d)?,
                    domain: d.varint_u32()?,
                    verifying: d.array()?,
                    recipient: d.array()?,
                    created_seconds: d.signed()?,
                    revoked: d.option(|d| d.list(17, |d| Ok((d.array()?, d.varint()?))))?,
                    grant: d.bytes(super::signed::OBJECT_LIMIT_BYTES)?.to_vec(),
                })
            })?,
        };
        d.finish()?;
        Ok(roster)
    }
}

/// `slots/<id>`: the readable part of a slot. All of it is authenticated by the seal.
///
/// ```text
/// header (enc = salt) ‖ this ‖ sealed secret ‖ BLAKE3
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub label: String,
    pub role: Role,
    /// Whose secret it holds.
    pub key: KeyId,
    /// The owner's Ed25519 verifying key: what the config, the roster and the keyring are checked against.
    pub owner_key: [u8; 32],
    pub created_seconds: i64,
    /// Argon2id memory in KiB, passes and lanes; zeros in a key file's slot.
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

/// Most memory a slot may ask of Argon2id: 1 GiB. A hostile slot must not exhaust the machine.
pub const ARGON_MEMORY_LIMIT_KIB: u32 = 1 << 20;
/// Most passes a slot may ask for.
pub const ARGON_PASSES_LIMIT: u32 = 64;

impl SlotInfo {
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.str(&self.label);
        e.u8(self.role as u8);
        e.raw(self.key.as_bytes());
        e.raw(&self.owner_key);
        e.signed(self.created_seconds);
        e.varint(u64::from(self.memory_kib));
        e.varint(u64::from(self.passes));
        e.varint(u64::from(self.lanes));
        e.finish()
    }

    /// Takes the readable part; the sealed secret is what the decoder has left.
    pub fn take(d: &mut Decoder<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            label: d.str(LABEL_LIMIT)?,
            role: Role::take(d)?,
            key: KeyId(d.array()?),
            owner_key: d.array()?,
            created_seconds: d.signed()?,
            memory_kib: d.bounded("Argon2id memory", u64::from(ARGON_MEMORY_LIMIT_KIB))? as u32,
            passes: d.bounded("Argon2id passes", u64::from(ARGON_PASSES_LIMIT))? as u32,
            lanes: d.bounded("Argon2id lanes", 16)? as u32,
        })
    }
}

/// What a slot gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotSecret {
    /// The owner root.
    Owner { root: Key },
    /// Any other role: the Ed25519 seed and the X25519 secret of its grant.
    Member { signing: Key, recipient: Key },
}

impl SlotSecret {
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let mut e = Encoder::with_capacity(65);
        match self {
            Self::Owner { root } => {
                e.u8(0);
                e.raw(&root.0);
            }
            Self::Member { signing, recipient } => {
                e.u8(1);
                e.raw(&signing.0);
                e.raw(&recipient.0);
            }
        }
        zeroize::Zeroizing::new(e.finish())
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = Decoder::new(bytes, "slot secret");
        let secret = match d.u8()? {
            0 => Self::Owner { root: Key(d.array()?) },
            1 => Self::Member { signing: Key(d.array()?), recipient: Key(d.array()?) },
            _ => return Err(d.invalid()),
        };
        d.finish()?;
        Ok(secret)
    }
}
