//! Replicas: a repository that shares id and keys with another and has its own retention and repacking.
//!
//! Keys only ever come from the repository it was made of: numbers it lacks are copied as they are. Slots are
//! added, never removed: a source that lost its slots must not take the replica's along.

use std::sync::Arc;

use super::create::require_vacant;
use super::open::{header_of, newest};
use super::{RepoError, Repository};
use crate::format::FormatError;
use crate::format::header::ObjectKind;
use crate::format::id::RepoId;
use crate::format::signed::{Config, Signed};
use crate::seal::object::sign_object;
use crate::store::{Store, StoreErrorKind};

/// What [`sync_keys`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct KeysCopied {
    /// Names of the objects the replica did not have.
    pub copied: Vec<String>,
    /// Slots of the replica that its source does not have (any more).
    pub only_here: Vec<String>,
}

/// Makes a replica of `source` at `store`. The config, last, is signed anew, so it takes the owner.
pub async fn create(source: &Repository, store: Arc<dyn Store>) -> Result<KeysCopied, RepoError> {
    let owner = source.require_owner("make replicas")?;
    require_vacant(store.as_ref()).await?;
    let copied = sync_keys(source, store.as_ref()).await?;
    let config = Config { number: 0, replica: true, ..source.config.clone() };
    let identity = owner.root.identity();
    let bytes = sign_object(&identity, source.access.repo, ObjectKind::Config, 0, config.encode());
    store.put("config/0", bytes.into()).await?;
    Ok(copied)
}

/// Brings the replica's keys up to its source's: keyring before roster before slots, as every change of keys does.
pub async fn sync_keys(source: &Repository, replica: &dyn Store) -> Result<KeysCopied, RepoError> {
    let mut done = KeysCopied::default();
    for kind in [ObjectKind::Keyring, ObjectKind::Roster, ObjectKind::Slot] {
        let number = |name: &str| name.rsplit('/').next().and_then(|number| number.parse::<u64>().ok());
        let there = replica.list(kind.folder()).await?;
        let newest_there = there.iter().filter_map(|listed| number(&listed.name)).max();
        let mut here = source.store.list(kind.folder()).await?;
        here.sort_by_key(|listed| (number(&listed.name), listed.name.clone()));
        for listed in &here {
            let is_slot = kind == ObjectKind::Slot;
            let known = there.iter().any(|other| other.name == listed.name);
            let older = !is_slot && newest_there.is_some_and(|newest| number(&listed.name) <= Some(newest));
            if known || older {
                continue;
            }
            let bytes = source.store.get(&listed.name).await?;
            let damaged = |error: FormatError| RepoError::object(listed.name.clone())(error.into());
            let header = header_of(&bytes).map_err(damaged)?;
            crate::format::signed::check_checksum(&bytes).map_err(damaged)?;
            if header.kind != kind || header.repo != source.access.repo {
                return Err(damaged(FormatError::Invalid("object kind")));
            }
            replica.put(&listed.name, bytes).await.map_err(|error| match error.kind {
                StoreErrorKind::Conflict => RepoError::Conflict(format!(
                    "{} is another object at the replica: its keys were changed there, not at its source",
                    listed.name
                )),
                _ => error.into(),
            })?;
            done.copied.push(listed.name.clone());
        }
        if kind == ObjectKind::Slot {
            let gone = there.iter().filter(|slot| !here.iter().any(|other| other.name == slot.name));
            done.only_here = gone.map(|slot| slot.name.clone()).collect();
        }
    }
    Ok(done)
}

/// What a location says of itself before any key: the repository's id and whether it is a replica.
///
/// The signature is not verified: only for choosing how to go on.
pub async fn peek(store: &dyn Store) -> Result<(RepoId, bool), RepoError> {
    super::open::probe(store).await?;
    let (number, bytes) = newest(store, ObjectKind::Config).await?;
    let damaged = |error: FormatError| RepoError::object(format!("config/{number}"))(error.into());
    let signed = Signed::decode(&bytes, ObjectKind::Config).map_err(damaged)?;
    let config = Config::decode(&signed.body).map_err(damaged)?;
    Ok((signed.header.repo, config.replica))
}
