//! Opens a repository: slot → secret → config, roster and keys, each checked against the owner's key in the slot.

use std::path::Path;
use std::sync::Arc;

use super::kit::Kit;
use super::local::Local;
use super::numbered::NumberedReader;
use super::{Owner, RepoError, Repository, World};
use crate::format::FormatError;
use crate::format::header::{Header, ObjectKind};
use crate::format::id::{RepoId, to_hex};
use crate::format::keyring::{Keyring, Role, Roster, SlotSecret};
use crate::format::signed::Config;
use crate::pack::index::IndexMap;
use crate::pack::read::Reader;
use crate::seal::SealError;
use crate::seal::access::{Access, Identity, OwnerRoot};
use crate::seal::member::open_grant;
use crate::seal::object::{manifest_keyring, open_keyring};
use crate::seal::slot::{Slot, Unlock};
use crate::store::Store;

/// Most slots looked at: each passphrase slot costs an Argon2id run, and a hostile storage could offer many.
const SLOT_LIMIT: usize = 64;

/// How an opened repository behaves locally.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions<'a> {
    /// The local cache's folder; `None` keeps everything in memory.
    pub cache: Option<&'a Path>,
    /// Bytes of opened blocks kept for reads; 0 is 16 MiB.
    pub block_cache_bytes: usize,
    /// The keys may come from a recovery kit, which may be older than the last rotation: the keyrings in manifests
    /// are looked at too.
    pub from_kit: bool,
    /// The recovery kit that supplies what the storage has lost of its keys.
    pub kit: Option<&'a Kit>,
    /// For `verify`, which reports it: a damaged config or roster is replaced by an older one, or by what the slot
    /// tells. Nothing may be written through a repository opened so.
    pub lenient: bool,
}

/// What is at a location that should be a repository.
pub async fn probe(store: &dyn Store) -> Result<(), RepoError> {
    let location = store.location();
    let configs = store.list("config").await;
    if matches!(&configs, Ok(configs) if !configs.is_empty()) {
        return Ok(());
    }
    // Other tools keep a file where we have a folder; on some storage that alone makes the listing fail.
    if let Some(found) = foreign(store).await {
        return Err(RepoError::NotARepository { location, found: found.to_owned() });
    }
    configs?;
    if !store.list(ObjectKind::Snapshot.folder()).await?.is_empty() {
        return Err(RepoError::Missing { object: "config/0".to_owned() });
    }
    for kind in [ObjectKind::Keyring, ObjectKind::Slot] {
        if !store.list(kind.folder()).await?.is_empty() {
            let found = "keys without a config: an `init` that did not finish".to_owned();
            return Err(RepoError::NotARepository { location, found });
        }
    }
    Err(RepoError::NoRepository { location })
}

/// Whose repository it is instead. A guess for a message: what cannot be read is not looked at further.
async fn foreign(store: &dyn Store) -> Option<&'static str> {
    let has = async |folder| store.list(folder).await.is_ok_and(|listed| !listed.is_empty());
    match store.get("config").await {
        Ok(config) if config.starts_with(b"[repository]") => Some("a borg repository"),
        Ok(_) if has("keys").await => Some("a restic or rustic repository"),
        _ if has("items").await && has("data").await => Some("a bupstash repository"),
        _ => None,
    }
}

/// Reads all slots that decode, with their names. Damaged ones come back as errors.
pub async fn slots(store: &dyn Store) -> Result<Vec<(String, Result<Slot, SealError>)>, RepoError> {
    let mut slots = Vec::new();
    for listed in store.list("slots").await?.into_iter().take(SLOT_LIMIT) {
        let bytes = store.get(&listed.name).await?;
        slots.push((listed.name, Slot::decode(&bytes)));
    }
    Ok(slots)
}

/// The newest numbered object of a kind: (number, bytes).
pub async fn newest(store: &dyn Store, kind: ObjectKind) -> Result<(u64, bytes::Bytes), RepoError> {
    let number = |name: &str| name.rsplit('/').next().and_then(|number| number.parse::<u64>().ok());
    let listed = store.list(kind.folder()).await?;
    let Some(newest) = listed.iter().filter_map(|listed| number(&listed.name)).max() else {
        return Err(RepoError::Missing { object: format!("{}/0", kind.folder()) });
    };
    Ok((newest, store.get(&format!("{}/{newest}", kind.folder())).await?))
}

struct Unlocked {
    repo: RepoId,
    owner_key: [u8; 32],
    secret: SlotSecret,
}

async fn unlock_slots(store: &dyn Store, unlock: &Unlock) -> Result<Unlocked, RepoError> {
    let location = store.location();
    let slots = slots(store).await?;
    if slots.is_empty() {
        return Err(RepoError::Missing { object: "every key slot".to_owned() });
    }
    let mut damaged = None;
    for (name, slot) in slots {
        let slot = match slot {
            Ok(slot) => slot,
            Err(cause) => {
                damaged = Some(RepoError::Damaged { object: name, cause });
                continue;
            }
        };
        match slot.open(unlock) {
            Ok(secret) => {
                return Ok(Unlocked { repo: slot.header.repo, owner_key: slot.info.owner_key, secret });
            }
            Err(SealError::WrongKey) => {}
            Err(cause) => damaged = Some(RepoError::Damaged { object: name, cause }),
        }
    }
    Err(damaged.unwrap_or(RepoError::WrongKey { location }))
}

/// Opens the repository at `store` with a passphrase or key file.
pub async fn open(
    store: Arc<dyn Store>,
    unlock: &Unlock,
    options: &OpenOptions<'_>,
    world: World,
) -> Result<Repository, RepoError> {
    let storage = store.clone();
    let supplied = options.kit.map(|kit| kit.objects.clone()).unwrap_or_default();
    let store = match options.kit {
        Some(kit) => {
            kit.require_kin(storage.as_ref()).await?;
            kit.clone().over(store)
        }
        None => store,
    };
    probe(store.as_ref()).await?;
    let Unlocked { repo, owner_key, secret } = unlock_slots(store.as_ref(), unlock).await?;
    let reading = NumberedReader { store: store.as_ref(), repo, owner_key, lenient: options.lenient };
    let (config_number, config, is_stored) = reading.config().await?;
    // What a guess is called must not become a cache folder.
    let cache = options.cache.filter(|_| is_stored);
    let local = Local::open(cache, &local_name(&repo, &config, store.as_ref()));
    let (roster_number, roster) = reading.roster().await?;
    let root = match &secret {
        SlotSecret::Owner { root } => Some(OwnerRoot(root.clone())),
        SlotSecret::Member { .. } => None,
    };
    let (keyring_number, keyring_object) =
        find_keyring(store.as_ref(), root.as_ref(), &repo, options.from_kit || options.kit.is_some()).await?;
    check_numbers(&local, config_number, roster_number, keyring_number)?;
    let (access, owner) =
        make_access(repo, &owner_key, secret, &roster, keyring_number, &keyring_object, store.as_ref())?;
    let access = Arc::new(access);
    let index = Arc::new(IndexMap::open(local.folder())?);
    let cache_bytes = if options.block_cache_bytes == 0 { 16 << 20 } else { options.block_cache_bytes };
    let reader = Arc::new(Reader::new(store.clone(), access.clone(), index.clone(), cache_bytes));
    let keyring_object = keyring_object.to_vec();
    Ok(Repository {
        store,
        storage,
        supplied,
        access,
        config,
        roster,
        owner,
        keyring_object,
        local,
        index,
        reader,
        world,
    })
}

/// The newest keyring object; for the owner, if it is lost or damaged, the newest that a manifest carries.
async fn find_keyring(
    store: &dyn Store,
    root: Option<&OwnerRoot>,
    repo: &RepoId,
    from_kit: bool,
) -> Result<(u64, bytes::Bytes), RepoError> {
    let newest = newest(store, ObjectKind::Keyring).await;
    let Some(root) = root else { return newest };
    let cause = match newest {
        Ok((number, bytes)) => match open_keyring(root, repo, &bytes) {
            // A number that is not the name's is judged by the caller: that is a rollback, not a loss.
            Ok(_) if !from_kit => return Ok((number, bytes)),
            Ok(_) => {
                let carried = recover_keyring(store, root, repo).await?;
                return Ok(carried.filter(|(carried, _)| *carried > number).unwrap_or((number, bytes)));
            }
            Err(cause) => RepoError::object(format!("keyring/{number}"))(cause),
        },
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    match recover_keyring(store, root, repo).await? {
        Some(found) => {
            tracing::warn!(error = %cause, "the keyring was taken from a manifest");
            Ok(found)
        }
        None => Err(cause),
    }
}

/// The newest keyring among those that manifests carry. Needs only the owner root.
pub async fn recover_keyring(
    store: &dyn Store,
    root: &OwnerRoot,
    repo: &RepoId,
) -> Result<Option<(u64, bytes::Bytes)>, RepoError> {
    let mut best: Option<(u64, bytes::Bytes)> = None;
    for listed in store.list(ObjectKind::Snapshot.folder()).await? {
        let bytes = match store.get(&listed.name).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let Ok(object) = manifest_keyring(&bytes) else { continue };
        let Ok(keyring) = open_keyring(root, repo, object) else { continue };
        if best.as_ref().is_none_or(|(number, _)| keyring.number > *number) {
            best = Some((keyring.number, bytes.slice_ref(object)));
        }
    }
    Ok(best)
}

/// The local cache's name. A replica has its repository's id, but objects and numbers of its own.
fn local_name(repo: &RepoId, config: &Config, store: &dyn Store) -> String {
    if !config.replica {
        return repo.hex();
    }
    let place = blake3::hash(store.location().as_bytes());
    format!("{repo}-replica-{}", to_hex(&place.as_bytes()[..8]))
}

fn make_access(
    repo: RepoId,
    owner_key: &[u8; 32],
    secret: SlotSecret,
    roster: &Roster,
    keyring_number: u64,
    keyring_object: &[u8],
    store: &dyn Store,
) -> Result<(Access, Option<Owner>), RepoError> {
    match secret {
        SlotSecret::Owner { root } => {
            let root = OwnerRoot(root);
            let identity = root.identity();
            if identity.verifying() != *owner_key {
                return Err(RepoError::WrongKey { location: store.location() });
            }
            let keyring = open_keyring(&root, &repo, keyring_object)
                .map_err(RepoError::object(format!("keyring/{keyring_number}")))?;
            if keyring.number != keyring_number {
                let (found, seen) = (keyring.number, keyring_number);
                return Err(RepoError::RolledBack { object: "the keyring", found, seen });
            }
            let access = Access::new(repo, Role::Owner, identity, 0, keyring.clone())?;
            Ok((access, Some(Owner { root, keyring })))
        }
        SlotSecret::Member { signing, recipient } => {
            let identity = Identity::from_seed(&signing);
            let member = roster.members.iter().find(|member| member.key == identity.key);
            let member = member.ok_or_else(|| RepoError::WrongKey { location: store.location() })?;
            let role = member.role.to_string();
            if member.revoked.is_some() {
                let what = "be used any more: it was revoked by the owner";
                return Err(RepoError::NotPermitted { role, what });
            }
            let share: Keyring = open_grant(&repo, &member.key, &recipient, &member.grant)
                .map_err(RepoError::object("the roster's grant for this key"))?;
            Ok((Access::new(repo, member.role, identity, member.domain, share)?, None))
        }
    }
}

fn check_numbers(local: &Local, config: u64, roster: u64, keyring: u64) -> Result<(), RepoError> {
    let mut seen = local.seen();
    for (object, found, seen) in [
        ("the config", config, seen.config),
        ("the roster", roster, seen.roster),
        ("the keyring", keyring, seen.keyring),
    ] {
        if found < seen {
            return Err(RepoError::RolledBack { object, found, seen });
        }
    }
    if (seen.config, seen.roster, seen.keyring) != (config, roster, keyring) {
        (seen.config, seen.roster, seen.keyring) = (config, roster, keyring);
        local.note(&seen);
    }
    Ok(())
}

/// Reads the header of any object: for messages about what it is.
pub fn header_of(bytes: &[u8]) -> Result<Header, FormatError> {
    Header::decode(bytes).map(|(header, _)| header)
}
