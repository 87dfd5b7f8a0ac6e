//! Chains of manifests: what was removed or rolled back without a forgotten mark shows here.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::objects::Marks;
use super::outcome::Report;
use super::snapshots::Opened;
use crate::format::id::{SnapshotId, to_hex};
use crate::format::manifest::Summary;
use crate::repo::Repository;

/// `listed`: every manifest that is there, whether this key opens it or not.
pub(super) fn check(
    repo: &Repository,
    opened: &[Opened],
    listed: &HashSet<SnapshotId>,
    marks: &Marks,
    report: &mut Report,
) {
    let present: HashMap<SnapshotId, &Summary> =
        opened.iter().map(|opened| (opened.snapshot.id, &opened.snapshot.summary)).collect();
    revoked(repo, opened, report);
    if repo.config.replica {
        // A replica keeps what it likes of the original's chains.
        report.not_tested("chains of manifests: a replica need not hold all of them");
        return;
    }
    let mut missing: BTreeMap<SnapshotId, SnapshotId> = BTreeMap::new();
    let known = |id: &SnapshotId| listed.contains(id) || marks.forgotten.contains(id);
    for one in opened {
        let (id, summary) = (one.snapshot.id, &one.snapshot.summary);
        let seen = summary.previous.iter().copied().chain(summary.heads.iter().map(|head| head.snapshot));
        for other in seen.filter(|other| !known(other)) {
            missing.entry(other).or_insert(id);
        }
        let follows = match summary.previous.and_then(|previous| present.get(&previous)) {
            Some(before) => before.author == summary.author && before.sequence < summary.sequence,
            None => summary.previous.is_some() || summary.sequence == 0,
        };
        if !follows {
            report.damaged(one.snapshot.object.clone(), "does not follow the snapshot it names as previous");
        }
    }
    for (gone, witness) in &missing {
        let what = format!("is gone without a forgotten mark; snapshot {witness} saw it");
        report.damaged(format!("snapshots/{gone}"), what);
    }
    let mut confirmed: Vec<&SnapshotId> =
        marks.confirmed.iter().filter(|id| !known(id) && !missing.contains_key(id)).collect();
    confirmed.sort();
    for id in confirmed {
        let what = "is gone without a forgotten mark, though it was confirmed";
        report.damaged(format!("snapshots/{id}"), what);
    }
    remembered(repo, opened, &known, report);
    forks(opened, report);
}

/// A newer snapshot of a chain that is still here, which this machine has seen and nobody forgot: the storage was
/// set back. A chain that is gone altogether says nothing, since its marks are cleared away in the end.
fn remembered(
    repo: &Repository,
    opened: &[Opened],
    known: &dyn Fn(&SnapshotId) -> bool,
    report: &mut Report,
) {
    let newest = newest(opened);
    for (chain, (sequence, id)) in repo.local.seen().heads {
        let Some(id) = SnapshotId::from_hex(&id).filter(|id| !known(id)) else { continue };
        if newest.get(&chain).is_some_and(|(newest, _)| *newest < sequence) {
            let what =
                "was seen by this machine and is gone without a forgotten mark: the storage was set back";
            report.damaged(format!("snapshots/{id}"), what);
        }
    }
}

/// Per chain, as the local memory names it: the highest sequence and its snapshot.
fn newest(opened: &[Opened]) -> BTreeMap<String, (u64, String)> {
    let mut newest: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for one in opened {
        let summary = &one.snapshot.summary;
        let chain = format!("{}/{}", summary.author, to_hex(&Summary::job_hash(&summary.job)));
        let place = newest.entry(chain).or_default();
        if summary.sequence >= place.0 {
            *place = (summary.sequence, one.snapshot.id.hex());
        }
    }
    newest
}

/// Remembers the heads of a repository that was found whole.
pub(super) fn remember(repo: &Repository, opened: &[Opened]) {
    let mut seen = repo.local.seen();
    let before = seen.clone();
    for (chain, head) in newest(opened) {
        let place = seen.heads.entry(chain).or_default();
        if head.0 > place.0 || place.1.is_empty() {
            *place = head;
        }
    }
    if seen != before {
        repo.local.note(&seen);
    }
}

/// Two snapshots at one place of a chain: two runs of one job at once, or a machine that was rolled back.
fn forks(opened: &[Opened], report: &mut Report) {
    let mut places = HashSet::new();
    for one in opened {
        let summary = &one.snapshot.summary;
        if !places.insert((summary.author, Summary::job_hash(&summary.job), summary.sequence)) {
            let what =
                "has two snapshots with one number: two runs at once, or a machine that was rolled back";
            report.note(format!("job {:?} {what}", summary.job));
        }
    }
}

/// What a revoked key signed after the last number that the owner vouched for.
fn revoked(repo: &Repository, opened: &[Opened], report: &mut Report) {
    for one in opened {
        let summary = &one.snapshot.summary;
        let Some(heads) = repo.member(&summary.author).and_then(|member| member.revoked.as_ref()) else {
            continue;
        };
        let job = Summary::job_hash(&summary.job);
        let vouched = heads.iter().any(|(of, last)| *of == job && summary.sequence <= *last);
        if !vouched {
            report.damaged(one.snapshot.object.clone(), "is signed by a key that had been revoked");
        }
    }
}
