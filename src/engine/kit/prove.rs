//! Proves that a recovery kit opens a repository: with the storage's own keys out of sight, the newest snapshot is
//! listed and its first page is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::keyring::Role;
use crate::format::manifest::DRILL_SOURCE;
use crate::repo::kit::Kit;
use crate::repo::open::{OpenOptions, newest, open, slots};
use crate::repo::snapshots::Snapshot;
use crate::repo::sync::Thoroughness;
use crate::repo::tree::read::TreeCursor;
use crate::repo::{World, from_timestamp};
use crate::seal::slot::Unlock;
use crate::store::Store;

/// How the kit's keys stand to those that the storage holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Keys {
    /// They are the same.
    Current,
    /// The storage has newer ones: the kit opens what was stored before, and should be made anew.
    Older { what: String },
    /// The storage has lost some that the kit holds.
    Lost { what: String },
}

/// What a kit was seen to open.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Proof {
    pub location: String,
    pub snapshots: usize,
    /// `JOB ID` and the second its data is true for; `None` when there is no snapshot yet.
    pub newest: Option<(String, String)>,
    pub keys: Keys,
    /// Snapshots whose manifest cannot be opened.
    pub damaged: usize,
}

impl Proof {
    /// Why this storage gives nothing back although the kit opens it: nothing is there, or nothing that can be read.
    pub fn is_of_nothing(&self) -> Option<String> {
        match &self.keys {
            _ if self.snapshots > 0 => None,
            Keys::Lost { what } => Some(format!(
                "there is no snapshot, and {what} is gone: is this the right place, and mounted?"
            )),
            _ if self.damaged > 0 => Some(format!("none of its {} snapshots can be read", self.damaged)),
            _ => None,
        }
    }
}

/// Opens the repository at `store` by the kit's keys alone and reads a little of its newest snapshot.
///
/// # Errors
/// The storage cannot be reached, the password opens nothing in the kit, the keys do not fit, or what was asked for
/// cannot be read.
pub async fn prove(
    kit: &Kit,
    store: Arc<dyn Store>,
    unlock: &Unlock,
    world: World,
) -> Result<Proof, EngineError> {
    let location = store.location();
    kit.require_kin(store.as_ref()).await?;
    let options = OpenOptions { from_kit: true, ..OpenOptions::default() };
    let repo = open(kit.instead_of_keys(Arc::clone(&store)), unlock, &options, world).await?;
    repo.sync(Thoroughness::Tolerant).await?;
    let list = repo.snapshots().await?;
    // The evidence of drills is kept beside the data; it is not what somebody wants back.
    let is_data = |found: &&Snapshot| found.summary.source != DRILL_SOURCE;
    let newest = list.snapshots.iter().filter(is_data).max_by_key(|found| found.summary.consistent);
    let snapshots = list.snapshots.iter().filter(is_data).count();
    let mut shown = None;
    if let Some(found) = newest {
        let contents = repo.contents(found).await?;
        let mut cursor = TreeCursor::new(&repo.reader, found.domain, contents.root, b"");
        cursor.next().await?;
        let id = found.id.hex();
        let name = format!("{} {}", found.summary.job, id.get(..8).unwrap_or(&id));
        let second = crate::format::entry::Timestamp { nanoseconds: 0, ..found.summary.consistent };
        shown = Some((name, from_timestamp(second).to_string()));
    }
    let keys = compare(kit, store.as_ref()).await?;
    Ok(Proof { location, snapshots, newest: shown, keys, damaged: list.damaged.len() })
}

async fn compare(kit: &Kit, store: &dyn Store) -> Result<Keys, EngineError> {
    let (mut older, mut lost) = (Vec::new(), Vec::new());
    for kind in [ObjectKind::Config, ObjectKind::Roster, ObjectKind::Keyring] {
        let held = kit.number(kind).unwrap_or(0);
        match newest(store, kind).await {
            Ok((number, _)) if number > held => older.push(format!("{} {held} of {number}", kind.folder())),
            Ok((number, _)) if number < held => lost.push(format!("{}/{held}", kind.folder())),
            Ok(_) => {}
            Err(error) if error.is_damage() => lost.push(format!("{}/{held}", kind.folder())),
            Err(error) => return Err(error.into()),
        }
    }
    let mut there = BTreeSet::new();
    for (name, slot) in slots(store).await? {
        if slot.is_ok_and(|slot| slot.info.role == Role::Owner) {
            there.insert(name);
        }
    }
    let here: BTreeSet<String> =
        kit.objects.keys().filter(|name| name.starts_with("slots/")).cloned().collect();
    match there.is_empty() {
        true => lost.push("the owner's slots".into()),
        false if here != there => older.push("the owner's passwords and key files".into()),
        false => {}
    }
    Ok(match (older.is_empty(), lost.is_empty()) {
        (true, true) => Keys::Current,
        (_, false) => Keys::Lost { what: lost.join(", ") },
        (false, true) => Keys::Older { what: older.join(", ") },
    })
}
