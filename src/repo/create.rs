//! Makes a repository: keys first, `config/0` last, so that a half-made one is never taken for whole.

use std::sync::Arc;

use super::{RepoError, World};
use crate::base::random;
use crate::format::header::ObjectKind;
use crate::format::id::RepoId;
use crate::format::keyring::{Keyring, Member, Role, Roster, SlotInfo, SlotSecret};
use crate::format::signed::Config;
use crate::seal::access::{OwnerRoot, new_domain};
use crate::seal::object::{seal_keyring, sign_object};
use crate::seal::slot::{Cost, Unlock, seal_slot};
use crate::store::Store;

/// What a new repository is made with.
#[derive(Clone)]
pub struct CreateOptions {
    /// What the first key is called.
    pub label: String,
    pub cost: Cost,
    /// Packs aim at this size in bytes.
    pub pack_bytes: u64,
    /// zstd level of `default` compression.
    pub compression_level: i32,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { label: "owner".to_owned(), cost: Cost::default(), pack_bytes: 32 << 20, compression_level: 2 }
    }
}

/// Errors unless nothing of a repository is at the store yet.
pub async fn require_vacant(store: &dyn Store) -> Result<(), RepoError> {
    for kind in [ObjectKind::Config, ObjectKind::Keyring, ObjectKind::Slot, ObjectKind::Snapshot] {
        if !store.list(kind.folder()).await?.is_empty() {
            return Err(RepoError::Exists { location: store.location() });
        }
    }
    Ok(())
}

/// Makes a repository whose owner opens it with `unlock`.
pub async fn create(
    store: Arc<dyn Store>,
    unlock: &Unlock,
    options: &CreateOptions,
    world: &World,
) -> Result<RepoId, RepoError> {
    require_vacant(store.as_ref()).await?;
    let random = world.random.as_ref();
    let repo = RepoId(random::array(random));
    let root = OwnerRoot::generate(random);
    let identity = root.identity();
    let now = world.now().seconds;
    let keyring = Keyring { number: 0, domains: vec![new_domain(random, 0, "owner")] };
    store.put("keyring/0", seal_keyring(&root, repo, &keyring, random)?.into()).await?;
    let owner = Member {
        key: identity.key,
        role: Role::Owner,
        domain: 0,
        verifying: identity.verifying(),
        recipient: [0; 32],
        created_seconds: now,
        revoked: None,
        grant: Vec::new(),
    };
    let roster = Roster { number: 0, members: vec![owner] };
    let roster = sign_object(&identity, repo, ObjectKind::Roster, 0, roster.encode());
    store.put("roster/0", roster.into()).await?;
    let info = SlotInfo {
        label: options.label.clone(),
        role: Role::Owner,
        key: identity.key,
        owner_key: identity.verifying(),
        created_seconds: now,
        memory_kib: 0,
        passes: 0,
        lanes: 0,
    };
    let secret = SlotSecret::Owner { root: root.0.clone() };
    let slot = seal_slot(repo, info, &secret, unlock, options.cost, random)?;
    let slot_id: [u8; 16] = random::array(random);
    store.put(&format!("slots/{}", crate::format::id::to_hex(&slot_id)), slot.into()).await?;
    let config = Config {
        number: 0,
        created_seconds: now,
        owner_key: identity.verifying(),
        replica: false,
        pack_bytes: options.pack_bytes,
        compression_level: options.compression_level,
    };
    let config = sign_object(&identity, repo, ObjectKind::Config, 0, config.encode());
    store.put("config/0", config.into()).await?;
    Ok(repo)
}
