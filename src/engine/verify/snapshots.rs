//! Manifests: each must be the bytes it is named for, open, be signed, and be the snapshot that its name says.

use std::collections::HashSet;

use super::super::EngineError;
use super::objects::{Marks, get};
use super::outcome::{Report, State, state_of};
use crate::format::FormatError;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, SnapshotId};
use crate::format::manifest::{Contents, parse_object_name};
use crate::repo::Repository;
use crate::repo::snapshots::Snapshot;
use crate::seal::SealError;
use crate::seal::object::{manifest_keyring, open_contents, open_keyring, open_summary};

/// A manifest that opens.
#[derive(Debug)]
pub(in crate::engine) struct Opened {
    pub snapshot: Snapshot,
    /// `None`: this key cannot open it.
    pub contents: Option<Contents>,
}

/// Reads every manifest from storage, never from the cache; returns those that open, confirmed ones first, and the
/// ids of all that are listed.
pub(super) async fn check(
    repo: &Repository,
    marks: &Marks,
    report: &mut Report,
) -> Result<(Vec<Opened>, HashSet<SnapshotId>), EngineError> {
    let (mut opened, mut names) = (Vec::new(), HashSet::new());
    for listed in repo.store.list(ObjectKind::Snapshot.folder()).await? {
        let Some(bytes) = get(repo, &listed.name).await? else { continue };
        report.checked.objects += 1;
        names.extend(parse_object_name(&listed.name).map(|(id, _)| id));
        match open(repo, &listed.name, &bytes, marks, report) {
            Ok(Some(one)) => opened.push(one),
            Ok(None) => report.not_tested("snapshots of domains this key has no part in"),
            Err(cause) => match state_of(&cause) {
                State::Damaged => {
                    report.damaged(listed.name, format!("{cause}: this snapshot cannot be read at all"));
                }
                state => report.add(state, listed.name, cause.to_string()),
            },
        }
    }
    for one in opened.iter().filter(|one| !one.snapshot.confirmed) {
        let what = "was uploaded but never confirmed; the next prune or `forget` clears it away";
        report.add(State::Incomplete, one.snapshot.object.clone(), what);
    }
    opened.sort_by_key(|one| (!one.snapshot.confirmed, one.snapshot.summary.consistent, one.snapshot.id));
    Ok((opened, names))
}

fn open(
    repo: &Repository,
    name: &str,
    bytes: &[u8],
    marks: &Marks,
    report: &mut Report,
) -> Result<Option<Opened>, SealError> {
    let (id, hash) = parse_object_name(name).ok_or(FormatError::Invalid("manifest's name"))?;
    if ObjectHash(*blake3::hash(bytes).as_bytes()) != hash {
        // Judges the version first.
        crate::repo::open::header_of(bytes)?;
        return Err(FormatError::Checksum.into());
    }
    let Some(summary) = open_summary(&repo.access, bytes, |key| repo.verifying_key(key))? else {
        return Ok(None);
    };
    if summary.id != id {
        return Err(FormatError::Invalid("snapshot id").into());
    }
    if let Some(owner) = &repo.owner {
        open_keyring(&owner.root, &repo.access.repo, manifest_keyring(bytes)?)?;
    }
    let contents = match open_contents(&repo.access, bytes, &summary.summary) {
        Ok(contents) => Some(contents),
        Err(SealError::NotPermitted(what)) => {
            report.not_tested(format!("{what}: this key cannot open them"));
            None
        }
        Err(cause) => return Err(cause),
    };
    let snapshot = Snapshot {
        id,
        object: name.to_owned(),
        domain: summary.domain,
        summary: summary.summary,
        confirmed: marks.confirmed.contains(&id),
    };
    Ok(Some(Opened { snapshot, contents }))
}
