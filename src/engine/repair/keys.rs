//! Puts back what opens a repository: config, roster and owner's slots from a recovery kit, the keyring from there or
//! from a manifest.
//!
//! Only what the owner signed or sealed is put, only where the storage has it damaged, or lost it and has nothing
//! newer. A slot that is absent may have been removed on purpose: it comes back only if no other slot is left.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::engine::EngineError;
use crate::format::FormatError;
use crate::format::header::ObjectKind;
use crate::format::keyring::{Role, Roster};
use crate::format::signed::Config;
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;
use crate::seal::access::key_id;
use crate::seal::object::{open_keyring, open_signed};
use crate::seal::slot::Slot;

const KINDS: [ObjectKind; 4] =
    [ObjectKind::Keyring, ObjectKind::Roster, ObjectKind::Slot, ObjectKind::Config];

/// What repairing keys would do.
#[derive(Debug, Default, Serialize)]
pub struct KeysPlan {
    /// Objects to put back, with what is wrong with them now.
    pub put_back: Vec<(String, String)>,
    /// Objects the kit has and the storage has not, and why they stay away.
    pub left_out: Vec<(String, String)>,
    /// Damaged objects that nothing at hand replaces.
    pub hopeless: Vec<(String, String)>,
    #[serde(skip)]
    bytes: BTreeMap<String, Bytes>,
}

/// What repairing keys did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeysOutcome {
    pub put_back: Vec<String>,
}

/// Compares the storage with what the repository was opened with.
pub async fn plan_keys(repo: &Repository) -> Result<KeysPlan, EngineError> {
    let owner = repo.require_owner("repair keys")?;
    let mut offered = repo.supplied.clone();
    offered.insert(format!("keyring/{}", owner.keyring.number), repo.keyring_object.clone().into());
    offered.retain(|name, bytes| judge(repo, name, bytes).is_ok());
    let mut plan = KeysPlan::default();
    for kind in KINDS {
        let (mut highest, mut slots, mut listed_names) = (None, 0, Vec::new());
        for listed in repo.storage.list(kind.folder()).await? {
            let bytes = match repo.storage.get(&listed.name).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            match judge(repo, &listed.name, &bytes) {
                Ok(role) => {
                    highest = highest.max(number(&listed.name));
                    slots += u64::from(role == Some(Role::Owner));
                }
                Err(SealError::Format(cause @ FormatError::Newer { .. })) => {
                    return Err(RepoError::object(listed.name)(cause.into()).into());
                }
                Err(cause) if offered.contains_key(&listed.name) => {
                    plan.put_back.push((listed.name.clone(), cause.to_string()));
                }
                Err(cause) => plan.hopeless.push((listed.name.clone(), cause.to_string())),
            }
            listed_names.push(listed.name);
        }
        let inside = |name: &&String| name.split('/').next() == Some(kind.folder());
        for name in offered.keys().filter(inside).filter(|name| !listed_names.contains(name)) {
            let there = match kind {
                ObjectKind::Slot => slots > 0,
                _ => highest > number(name),
            };
            let text = match (there, kind) {
                (false, _) => "is gone",
                (true, ObjectKind::Slot) => "is not there: it may have been removed on purpose",
                (true, _) => "is not there, but a newer one is",
            };
            let list = if there { &mut plan.left_out } else { &mut plan.put_back };
            list.push((name.clone(), text.to_owned()));
        }
    }
    plan.bytes = offered;
    Ok(plan)
}

fn number(name: &str) -> Option<u64> {
    name.rsplit('/').next().and_then(|number| number.parse().ok())
}

/// Whether an object is what its name says, and the owner's. Of a slot, the role that it says to open.
fn judge(repo: &Repository, name: &str, bytes: &Bytes) -> Result<Option<Role>, SealError> {
    let (id, owner_key) = (repo.access.repo, repo.config.owner_key);
    let find = |key: &_| (*key == key_id(&owner_key)).then_some(owner_key);
    let folder = name.split('/').next().unwrap_or_default();
    let kind = KINDS.into_iter().find(|kind| kind.folder() == folder);
    let said = match kind {
        Some(kind @ ObjectKind::Config) => Config::decode(&open_signed(bytes, kind, &id, find)?.body)?.number,
        Some(kind @ ObjectKind::Roster) => Roster::decode(&open_signed(bytes, kind, &id, find)?.body)?.number,
        Some(ObjectKind::Keyring) => match &repo.owner {
            Some(owner) => open_keyring(&owner.root, &id, bytes)?.number,
            None => return Err(SealError::NotPermitted("keyrings")),
        },
        Some(ObjectKind::Slot) => {
            let slot = Slot::decode(bytes)?;
            if slot.header.repo != id || slot.info.owner_key != owner_key {
                return Err(SealError::OtherRepository);
            }
            return Ok(Some(slot.info.role));
        }
        _ => return Err(FormatError::Invalid("object kind").into()),
    };
    if number(name) == Some(said) { Ok(None) } else { Err(FormatError::Invalid("number").into()) }
}

/// Does what the plan says, the config last as when a repository is made. Cut off, it is run again with the same kit.
pub async fn apply_keys(repo: &Repository, plan: &KeysPlan) -> Result<KeysOutcome, EngineError> {
    let mut outcome = KeysOutcome::default();
    for (name, _) in &plan.put_back {
        let Some(bytes) = plan.bytes.get(name) else { continue };
        repo.storage.delete(name).await?;
        repo.storage.put(name, bytes.clone()).await?;
        repo.settle().await;
        if repo.storage.get(name).await? != *bytes {
            return Err(RepoError::object(name)(SealError::Damaged).into());
        }
        outcome.put_back.push(name.clone());
    }
    Ok(outcome)
}
