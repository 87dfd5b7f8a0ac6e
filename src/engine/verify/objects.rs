//! The small objects with fixed names: config, roster, keyring, slots, runs, confirms, forgotten marks, tombstones.
//! Each must decode, be about what its name says, and be signed by who may sign it.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;

use super::super::EngineError;
use super::outcome::Report;
use crate::base::cancel::Cancel;
use crate::format::FormatError;
use crate::format::header::{Header, ObjectKind};
use crate::format::id::{KeyId, ObjectHash, SnapshotId};
use crate::format::keyring::{Role, Roster};
use crate::format::signed::{self, Config, Mark, Tombstone, check_checksum};
use crate::repo::{Repository, run};
use crate::seal::SealError;
use crate::seal::access::key_id;
use crate::seal::object::{open_keyring, open_signed};
use crate::seal::slot::Slot;

/// What the marks say, as far as they are valid.
#[derive(Debug, Default)]
pub(in crate::engine) struct Marks {
    pub confirmed: HashSet<SnapshotId>,
    pub forgotten: HashSet<SnapshotId>,
    pub condemned: HashSet<ObjectHash>,
    /// Keyring objects that stand sound under their names; empty when this key cannot judge them.
    pub keyrings: BTreeSet<u64>,
}

/// What a signed object's body must say to fit its name.
type Judge<'j> = dyn Fn(&str, &[u8]) -> Result<bool, FormatError> + Send + Sync + 'j;

/// An object, unless it went away since it was listed. From the storage alone: what a kit supplies hides damage.
pub(super) async fn get(repo: &Repository, name: &str) -> Result<Option<Bytes>, EngineError> {
    match repo.storage.get(name).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn check(
    repo: &Repository,
    report: &mut Report,
    cancel: &Cancel,
) -> Result<Marks, EngineError> {
    let mut marks = Marks::default();
    let owner_key = repo.config.owner_key;
    let owner_id = key_id(&owner_key);
    let owner = move |key: &KeyId| (*key == owner_id).then_some(owner_key);
    let remover = |key: &KeyId| {
        let member = repo.member(key)?;
        matches!(member.role, Role::Owner | Role::Maintainer).then_some(member.verifying)
    };
    let writer = |key: &KeyId| {
        let member = repo.member(key)?;
        (member.role != Role::Auditor).then_some(member.verifying)
    };
    let mut checks = Checks { repo, report, cancel };
    checks
        .signed(
            ObjectKind::Config,
            &owner,
            &|leaf, body| Ok(leaf == Config::decode(body)?.number.to_string()),
        )
        .await?;
    checks
        .signed(
            ObjectKind::Roster,
            &owner,
            &|leaf, body| Ok(leaf == Roster::decode(body)?.number.to_string()),
        )
        .await?;
    checks.newest_is_there(ObjectKind::Config, repo.config.number).await?;
    checks.newest_is_there(ObjectKind::Roster, repo.roster.number).await?;
    checks.keyrings(&mut marks).await?;
    checks.slots().await?;
    checks
        .signed(ObjectKind::Run, &writer, &|leaf, body| {
            let body = signed::Run::decode(body)?;
            Ok(format!("runs/{leaf}") == run::object_name(&body.run, body.number))
        })
        .await?;
    let mark = |leaf: &str, body: &[u8]| Ok(leaf == Mark::decode(body)?.snapshot.hex());
    let confirmed = checks.signed(ObjectKind::Confirm, &writer, &mark).await?;
    marks.confirmed.extend(confirmed.iter().filter_map(|(leaf, _)| SnapshotId::from_hex(leaf)));
    let forgotten = checks.signed(ObjectKind::Forgotten, &remover, &mark).await?;
    marks.forgotten.extend(forgotten.iter().filter_map(|(leaf, _)| SnapshotId::from_hex(leaf)));
    let tombstones = checks
        .signed(ObjectKind::Tombstone, &remover, &|leaf, body| {
            Ok(leaf == Tombstone::decode(body)?.pruner.hex())
        })
        .await?;
    for (_, body) in tombstones {
        if let Ok(tombstone) = Tombstone::decode(&body) {
            marks.condemned.extend(tombstone.packs.iter().map(|(_, hash)| *hash));
        }
    }
    Ok(marks)
}

struct Checks<'c> {
    repo: &'c Repository,
    report: &'c mut Report,
    cancel: &'c Cancel,
}

impl Checks<'_> {
    /// Every object of a kind as (name, leaf, bytes).
    async fn each(&mut self, kind: ObjectKind) -> Result<Vec<(String, Bytes)>, EngineError> {
        let mut objects = Vec::new();
        for listed in self.repo.storage.list(kind.folder()).await? {
            self.cancel.check()?;
            if listed.size_bytes > signed::OBJECT_LIMIT_BYTES as u64 {
                let (what, value) = ("object", listed.size_bytes);
                let limit = signed::OBJECT_LIMIT_BYTES as u64;
                self.report.format(listed.name, FormatError::TooLarge { what, value, limit });
                continue;
            }
            if let Some(bytes) = get(self.repo, &listed.name).await? {
                self.report.checked.objects += 1;
                objects.push((listed.name, bytes));
            }
        }
        Ok(objects)
    }

    /// Checks every signed object of a kind; returns (leaf of the name, body) of the valid ones.
    async fn signed(
        &mut self,
        kind: ObjectKind,
        find: &(dyn Fn(&KeyId) -> Option<[u8; 32]> + Send + Sync),
        judge: &Judge<'_>,
    ) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
        let mut valid = Vec::new();
        for (name, bytes) in self.each(kind).await? {
            let signed = match open_signed(&bytes, kind, &self.repo.access.repo, find) {
                Ok(signed) => signed,
                Err(cause) => {
                    self.report.seal(name, &cause);
                    continue;
                }
            };
            let leaf = leaf(&name);
            match judge(leaf, &signed.body) {
                Ok(true) => valid.push((leaf.to_owned(), signed.body)),
                Ok(false) => self.report.damaged(name, "is about something else than its name says"),
                Err(cause) => self.report.format(name, cause),
            }
        }
        Ok(valid)
    }

    async fn keyrings(&mut self, marks: &mut Marks) -> Result<(), EngineError> {
        let repo = self.repo.access.repo;
        for (name, bytes) in self.each(ObjectKind::Keyring).await? {
            let Some(owner) = &self.repo.owner else {
                self.report.not_tested("the keyring's content: only the owner's key opens it");
                let sound = Header::decode_kind(&bytes, ObjectKind::Keyring)
                    .and_then(|_| check_checksum(&bytes).map(drop));
                if let Err(cause) = sound {
                    self.report.format(name, cause);
                }
                continue;
            };
            match open_keyring(&owner.root, &repo, &bytes) {
                Ok(keyring) if leaf(&name) == keyring.number.to_string() => {
                    marks.keyrings.insert(keyring.number);
                }
                Ok(_) => self.report.damaged(name, "is about something else than its name says"),
                Err(cause) => self.report.seal(name, &cause),
            }
        }
        if let Some(owner) = &self.repo.owner
            && !marks.keyrings.contains(&owner.keyring.number)
        {
            let name = format!("keyring/{}", owner.keyring.number);
            self.report.damaged(name, "is gone or damaged; its content was taken from a manifest");
        }
        Ok(())
    }

    /// What the repository was opened with may have come from a recovery kit.
    async fn newest_is_there(&mut self, kind: ObjectKind, number: u64) -> Result<(), EngineError> {
        let name = format!("{}/{number}", kind.folder());
        if !self.repo.storage.list(kind.folder()).await?.iter().any(|listed| listed.name == name) {
            self.report.damaged(name, "is gone; it was taken from the recovery kit");
        }
        Ok(())
    }

    async fn slots(&mut self) -> Result<(), EngineError> {
        let mut sound = 0;
        for (name, bytes) in self.each(ObjectKind::Slot).await? {
            match Slot::decode(&bytes) {
                Err(cause) => self.report.seal(name, &cause),
                Ok(slot) if slot.header.repo != self.repo.access.repo => {
                    self.report.seal(name, &SealError::OtherRepository);
                }
                Ok(slot) if slot.info.owner_key != self.repo.config.owner_key => {
                    self.report.damaged(name, "names another owner than the config");
                }
                Ok(slot) if self.repo.member(&slot.info.key).is_none() => {
                    self.report.note(format!("{name} is for a key that is not on the roster"));
                }
                Ok(_) => sound += 1,
            }
        }
        if sound == 0 {
            self.report.damaged("slots/", "hold nothing that opens the repository: only a recovery kit does");
        }
        Ok(())
    }
}

fn leaf(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, leaf)| leaf)
}
