//! Slots: how people and servers get their secret back. A slot is changed by a new one and the removal of the old.

use super::super::open::slots;
use super::super::{RepoError, Repository};
use super::NewSlot;
use crate::base::random;
use crate::format::id::{KeyId, to_hex};
use crate::format::keyring::{Role, SlotInfo, SlotSecret};
use crate::seal::SealError;
use crate::seal::slot::{Slot, Unlock, seal_slot};

/// What a change of slots did. Ids are the last part of the objects' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// A slot's id: the last part of its object's name.
pub fn id_of(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// Puts a slot that gives `secret` back, and reads it back before anybody relies on it. Returns its id.
pub async fn put(
    repo: &Repository,
    new: &NewSlot<'_>,
    role: Role,
    key: KeyId,
    secret: &SlotSecret,
) -> Result<String, RepoError> {
    let random = repo.world.random.as_ref();
    let info = SlotInfo {
        label: new.label.clone(),
        role,
        key,
        owner_key: repo.config.owner_key,
        created_seconds: repo.world.now().seconds,
        memory_kib: 0,
        passes: 0,
        lanes: 0,
    };
    let bytes = seal_slot(repo.access.repo, info, secret, new.unlock, new.cost, random)?;
    let id = to_hex(&random::array::<16>(random));
    let name = format!("slots/{id}");
    repo.store.put(&name, bytes.into()).await?;
    repo.settle().await;
    let stored = repo.store.get(&name).await?;
    let opened =
        Slot::decode(&stored).and_then(|slot| slot.open(new.unlock)).map_err(RepoError::object(name))?;
    if opened == *secret { Ok(id) } else { Err(SealError::Damaged.into()) }
}

/// Replaces what opens a slot: the new slot first, the old one removed after. The role and the key stay.
pub async fn passwd(
    repo: &Repository,
    old: &Unlock,
    new: &Unlock,
    cost: crate::seal::slot::Cost,
) -> Result<Changed, RepoError> {
    let mut opened: Vec<(String, Slot, SlotSecret)> = Vec::new();
    for (name, slot) in slots(repo.store.as_ref()).await? {
        let Ok(slot) = slot else { continue };
        // A slot of another key that happens to have the same password is somebody else's to change.
        if slot.info.key != repo.access.identity.key {
            continue;
        }
        if let Ok(secret) = slot.open(old) {
            opened.push((name, slot, secret));
        }
    }
    let Some((_, first, secret)) = opened.first() else {
        return Err(RepoError::WrongKey { location: repo.store.location() });
    };
    let new = NewSlot { label: first.info.label.clone(), unlock: new, cost };
    let added = put(repo, &new, first.info.role, first.info.key, secret).await?;
    let mut changed = Changed { added: vec![added], removed: Vec::new() };
    for (name, ..) in &opened {
        repo.store.delete(name).await?;
        changed.removed.push(id_of(name));
    }
    Ok(changed)
}

type Found = (String, Result<Slot, SealError>);

/// Errors unless exactly one slot has this id, start of an id, or label.
pub async fn find_slot(repo: &Repository, slot: &str) -> Result<(), RepoError> {
    named(&slots(repo.store.as_ref()).await?, slot).map(drop)
}

fn named<'f>(all: &'f [Found], slot: &str) -> Result<&'f Found, RepoError> {
    let fits = |(name, decoded): &&Found| {
        let label = decoded.as_ref().is_ok_and(|decoded| decoded.info.label == slot);
        label || (slot.len() >= 4 && id_of(name).starts_with(slot))
    };
    let named: Vec<&Found> = all.iter().filter(fits).collect();
    let [found] = named.as_slice() else {
        let shown: Vec<_> = named.iter().map(|(name, _)| id_of(name)).collect();
        return Err(RepoError::Refused(match shown.len() {
            0 => format!("no slot has the id or label {slot:?}\nhint: `lifeboat key list` shows them"),
            _ => format!("{slot:?} names several slots: {}", shown.join(", ")),
        }));
    };
    Ok(found)
}

/// Removes one slot, named by its id, the start of it, or its label. Never the last that opens the owner's root: what
/// a slot says of itself can be forged by the storage, so another must have been opened with `unlock` just now.
///
/// Removing a slot does not end the key in it: see [`super::revoke`].
pub async fn remove(repo: &Repository, slot: &str, unlock: &Unlock) -> Result<Changed, RepoError> {
    let all = slots(repo.store.as_ref()).await?;
    let (name, decoded) = named(&all, slot)?;
    let own = repo.access.identity.key;
    if decoded.as_ref().ok().map(|slot| slot.info.key) != Some(own) {
        repo.require_owner("remove another key's slot")?;
    }
    let Ok(decoded) = decoded else {
        // It opens nothing.
        repo.store.delete(name).await?;
        return Ok(Changed { added: Vec::new(), removed: vec![id_of(name)] });
    };
    // Of a member on the roster that is not the owner: it cannot be the owner's slot in disguise, or it would not open.
    let is_members = repo.member(&decoded.info.key).is_some_and(|member| member.role != Role::Owner);
    if !is_members || decoded.info.role == Role::Owner {
        let secret = repo.owner.as_ref().map(|owner| SlotSecret::Owner { root: owner.root.0.clone() });
        let others = all.iter().filter(|(other, _)| other != name);
        let mut others = others.filter_map(|(_, slot)| slot.as_ref().ok());
        if !others.any(|slot| slot.open(unlock).is_ok_and(|found| Some(found) == secret)) {
            let why = "no other slot was seen to open the owner's key: without one nothing could ever be restored. \
                       hint: run this with the password or key file of the slot that is to stay";
            return Err(RepoError::Refused(why.to_owned()));
        }
    }
    repo.store.delete(name).await?;
    Ok(Changed { added: Vec::new(), removed: vec![id_of(name)] })
}
