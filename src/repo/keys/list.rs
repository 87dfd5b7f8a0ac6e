//! Who holds keys: the roster joined with the slots and with what the snapshots tell of each key's use.

use std::collections::BTreeMap;

use super::super::open::slots;
use super::super::{RepoError, Repository};
use super::slots::id_of;
use crate::format::entry::Timestamp;
use crate::format::header::Kem;
use crate::format::id::KeyId;
use crate::format::keyring::Role;

/// A slot as it is shown. Its text is believed only as far as that: it is authenticated when it is opened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SlotRow {
    pub id: String,
    pub label: String,
    /// `passphrase` or `key file`.
    pub kind: &'static str,
    pub created_seconds: i64,
}

/// One key on the roster.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyInfo {
    #[serde(serialize_with = "hex")]
    pub key: KeyId,
    pub role: Role,
    pub label: String,
    /// The dedup domain it writes into.
    pub domain: u32,
    pub created_seconds: i64,
    pub revoked: bool,
    /// The key this command runs with.
    pub in_use: bool,
    /// What opens it. Empty: nothing does any more.
    pub slots: Vec<SlotRow>,
    /// When its newest snapshot was finished, in seconds since 1970; of domains that this key can read.
    pub last_snapshot_seconds: Option<i64>,
    pub snapshots: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct KeyList {
    pub keys: Vec<KeyInfo>,
    /// Slots whose key is not on the roster: of a change that was cut off.
    pub stray_slots: Vec<SlotRow>,
    /// Slots that cannot be read, with why.
    pub damaged_slots: Vec<(String, String)>,
}

/// Writes an id as text.
pub(super) fn hex<S: serde::Serializer>(id: &KeyId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// What each key is called: by its slots, else, for the owner, by the domain that was made for it. A key without
/// either has no name any more.
pub(super) async fn labels(repo: &Repository) -> Result<BTreeMap<KeyId, String>, RepoError> {
    let mut labels = BTreeMap::new();
    for (_, slot) in slots(repo.store.as_ref()).await? {
        if let Ok(slot) = slot {
            labels.entry(slot.info.key).or_insert(slot.info.label);
        }
    }
    for member in &repo.roster.members {
        let domains = repo.owner.as_ref().map(|owner| &owner.keyring.domains);
        let domain = domains.and_then(|all| all.iter().find(|keys| keys.domain == member.domain));
        let first = repo.roster.members.iter().find(|other| other.domain == member.domain);
        if let Some(keys) = domain
            && first.is_some_and(|first| first.key == member.key)
        {
            labels.entry(member.key).or_insert_with(|| keys.label.clone());
        }
    }
    Ok(labels)
}

/// Lists every key. Any role may.
pub async fn list(repo: &Repository) -> Result<KeyList, RepoError> {
    let mut list = KeyList::default();
    let mut by_key: BTreeMap<KeyId, Vec<SlotRow>> = BTreeMap::new();
    for (name, slot) in slots(repo.store.as_ref()).await? {
        match slot {
            Ok(slot) => by_key.entry(slot.info.key).or_default().push(SlotRow {
                id: id_of(&name),
                label: slot.info.label,
                kind: if slot.header.kem == Kem::KeyFile { "key file" } else { "passphrase" },
                created_seconds: slot.info.created_seconds,
            }),
            Err(error) => list.damaged_slots.push((id_of(&name), error.to_string())),
        }
    }
    let mut used: BTreeMap<KeyId, (u64, Timestamp)> = BTreeMap::new();
    for snapshot in repo.snapshots().await?.snapshots {
        let (count, last) = used.entry(snapshot.summary.author).or_default();
        *count += 1;
        *last = (*last).max(snapshot.summary.finished);
    }
    let mut labels = labels(repo).await?;
    for member in &repo.roster.members {
        let used = used.get(&member.key);
        list.keys.push(KeyInfo {
            key: member.key,
            role: member.role,
            label: labels.remove(&member.key).unwrap_or_default(),
            domain: member.domain,
            created_seconds: member.created_seconds,
            revoked: member.revoked.is_some(),
            in_use: member.key == repo.access.identity.key,
            slots: by_key.remove(&member.key).unwrap_or_default(),
            last_snapshot_seconds: used.map(|(_, last)| last.seconds),
            snapshots: used.map_or(0, |(count, _)| *count),
        });
    }
    list.stray_slots = by_key.into_values().flatten().collect();
    Ok(list)
}
