//! What the holder of a key can do: the domains' keys its role was given, and the key it signs with.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};
use x25519_dalek::{PublicKey, StaticSecret};

use super::SealError;
use super::derive::derive;
use crate::base::random::{self, Random};
use crate::format::id::{ChunkId, KeyId, RepoId};
use crate::format::keyring::{DomainKeys, EpochKeys, Key, Keyring, Role};

/// Name of a signing key.
pub fn key_id(verifying: &[u8; 32]) -> KeyId {
    let hash = blake3::derive_key("lifeboat v1 key id", verifying);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    KeyId(id)
}

/// A signing key with its name.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    pub key: KeyId,
}

impl Identity {
    pub fn from_seed(seed: &Key) -> Self {
        let signing = SigningKey::from_bytes(&seed.0);
        let key = key_id(signing.verifying_key().as_bytes());
        Self { signing, key }
    }
    pub fn verifying(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
    /// Mixed into ephemeral keys, so that a cloned machine's repeated randomness is not enough to repeat one.
    pub(super) fn hedge(&self) -> [u8; 32] {
        derive("lifeboat v1 ephemeral hedge", &[self.signing.as_bytes()]).0
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.key)
    }
}

/// Verifies an Ed25519 signature; `what` names the object in the error.
pub fn verify(
    verifying: &[u8; 32],
    message: &[u8],
    signature: &[u8; 64],
    what: &'static str,
) -> Result<(), SealError> {
    let key = VerifyingKey::from_bytes(verifying).map_err(|_| SealError::Signature(what))?;
    key.verify(message, &ed25519_dalek::Signature::from_bytes(signature))
        .map_err(|_| SealError::Signature(what))
}

/// The owner's 32 random bytes, from which only two keys follow.
#[derive(Clone, Debug)]
pub struct OwnerRoot(pub Key);

impl OwnerRoot {
    pub fn generate(random: &dyn Random) -> Self {
        Self(Key(random::array(random)))
    }
    /// The key that signs config, roster and keyring.
    pub fn identity(&self) -> Identity {
        Identity::from_seed(&derive("lifeboat v1 owner signing key", &[&self.0.0]))
    }
    /// The key that seals the keyring.
    pub fn keyring_key(&self) -> Key {
        derive("lifeboat v1 keyring key", &[&self.0.0])
    }
}

/// An X25519 pair: (secret, public).
pub fn recipient_pair(random: &dyn Random) -> (Key, [u8; 32]) {
    let secret = StaticSecret::from(random::array(random));
    (Key(secret.to_bytes()), PublicKey::from(&secret).to_bytes())
}

/// Fresh keys for one epoch of a domain.
pub fn new_epoch(random: &dyn Random, epoch: u32) -> EpochKeys {
    let (data_secret, data_public) = recipient_pair(random);
    let (meta_secret, meta_public) = recipient_pair(random);
    EpochKeys {
        epoch,
        index: Key(random::array(random)),
        pre_shared: Some(Key(random::array(random))),
        data_public,
        meta_public,
        data_secret: Some(data_secret),
        meta_secret: Some(meta_secret),
    }
}

/// Fresh keys for a new dedup domain.
pub fn new_domain(random: &dyn Random, domain: u32, label: &str) -> DomainKeys {
    DomainKeys {
        domain,
        label: label.to_owned(),
        id: Some(Key(random::array(random))),
        cut: Some(Key(random::array(random))),
        epochs: vec![new_epoch(random, 0)],
    }
}

/// The share of `keyring` that a role gets.
pub fn share(keyring: &Keyring, role: Role, domain: u32) -> Keyring {
    let sees_all = matches!(role, Role::Owner | Role::Maintainer | Role::Auditor);
    let domains = keyring
        .domains
        .iter()
        .filter(|keys| sees_all || keys.domain == domain)
        .map(|keys| {
            let mut keys = keys.clone();
            if matches!(role, Role::Maintainer | Role::Auditor) {
                keys.cut = None;
            }
            if role == Role::Auditor {
                keys.id = None;
            }
            for epoch in &mut keys.epochs {
                if role != Role::Owner {
                    epoch.data_secret = None;
                }
                if !matches!(role, Role::Owner | Role::Maintainer) {
                    epoch.meta_secret = None;
                }
                if role == Role::Auditor {
                    epoch.pre_shared = None;
                }
            }
            keys
        })
        .collect();
    Keyring { number: keyring.number, domains }
}

/// One domain's keys, with what follows from them worked out once.
#[derive(Clone, Debug)]
pub struct Domain {
    pub keys: DomainKeys,
    data_id: Option<Key>,
    meta_id: Option<Key>,
    boundary: Option<Key>,
    content: Option<Key>,
}

impl Domain {
    fn new(keys: DomainKeys) -> Self {
        let from = |context| keys.id.as_ref().map(|id| derive(context, &[&id.0]));
        let (data_id, meta_id) = (from("lifeboat v1 data chunk id"), from("lifeboat v1 meta chunk id"));
        let (boundary, content) = (from("lifeboat v1 page boundary"), from("lifeboat v1 content hash"));
        Self { keys, data_id, meta_id, boundary, content }
    }
    pub fn number(&self) -> u32 {
        self.keys.domain
    }
    /// The epoch that new objects are sealed in.
    pub fn current(&self) -> &EpochKeys {
        self.keys.epochs.last().expect("a domain without epochs does not decode")
    }
    pub fn epoch(&self, epoch: u32) -> Result<&EpochKeys, SealError> {
        self.keys
            .epochs
            .iter()
            .find(|keys| keys.epoch == epoch)
            .ok_or(SealError::UnknownEpoch { domain: self.keys.domain, epoch })
    }
    /// Key of data chunks' ids.
    pub fn data_id_key(&self) -> Result<&[u8; 32], SealError> {
        self.data_id.as_ref().map(|key| &key.0).ok_or(SealError::NotPermitted("chunk ids"))
    }
    /// Id of a page. Pages and file data have ids under different keys, so neither can pass for the other.
    pub fn meta_id(&self, page: &[u8]) -> Result<ChunkId, SealError> {
        let key = self.meta_id.as_ref().ok_or(SealError::NotPermitted("chunk ids"))?;
        Ok(ChunkId(*blake3::keyed_hash(&key.0, page).as_bytes()))
    }
    pub fn data_id(&self, chunk: &[u8]) -> Result<ChunkId, SealError> {
        Ok(ChunkId(*blake3::keyed_hash(self.data_id_key()?, chunk).as_bytes()))
    }
    /// Key of whole streams' hashes.
    pub fn content_key(&self) -> Result<&[u8; 32], SealError> {
        self.content.as_ref().map(|key| &key.0).ok_or(SealError::NotPermitted("content hashes"))
    }
    /// Key that decides where pages end.
    pub fn boundary_key(&self) -> Result<&[u8; 32], SealError> {
        self.boundary.as_ref().map(|key| &key.0).ok_or(SealError::NotPermitted("page boundaries"))
    }
    pub fn cut_key(&self) -> Result<&[u8; 32], SealError> {
        self.keys.cut.as_ref().map(|key| &key.0).ok_or(SealError::NotPermitted("cut points"))
    }
}

/// Everything the holder of a key can do in one repository.
#[derive(Clone, Debug)]
pub struct Access {
    pub repo: RepoId,
    pub role: Role,
    pub identity: Identity,
    /// The domain new objects are written into.
    pub home: u32,
    domains: BTreeMap<u32, Domain>,
}

impl Access {
    /// Access with `keys`, of which `home` must be one.
    pub fn new(
        repo: RepoId,
        role: Role,
        identity: Identity,
        home: u32,
        keys: Keyring,
    ) -> Result<Self, SealError> {
        let domains: BTreeMap<_, _> =
            keys.domains.into_iter().map(|keys| (keys.domain, Domain::new(keys))).collect();
        if domains.contains_key(&home) {
            Ok(Self { repo, role, identity, home, domains })
        } else {
            Err(SealError::UnknownEpoch { domain: home, epoch: 0 })
        }
    }
    pub fn home(&self) -> &Domain {
        self.domains.get(&self.home).expect("checked when the access was made")
    }
    pub fn domain(&self, domain: u32) -> Result<&Domain, SealError> {
        self.domains.get(&domain).ok_or(SealError::UnknownEpoch { domain, epoch: 0 })
    }
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }
    /// Whether this role may write forget marks and tombstones.
    pub fn may_remove(&self) -> bool {
        matches!(self.role, Role::Owner | Role::Maintainer)
    }
}
