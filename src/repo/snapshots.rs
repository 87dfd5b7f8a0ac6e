//! Lists, reads and selects snapshots.

use std::collections::{BTreeMap, BTreeSet};

use super::{RepoError, Repository};
use crate::format::FormatError;
use crate::format::entry::Timestamp;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, SnapshotId};
use crate::format::manifest::{Contents, DRILL_SOURCE, Head, Summary, parse_object_name};
use crate::seal::object::{open_contents, open_summary};

/// A snapshot whose manifest is listed.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub id: SnapshotId,
    /// The manifest's object name.
    pub object: String,
    pub domain: u32,
    pub summary: Summary,
    /// False: an upload that was never confirmed. It is a root for every mark until it is forgotten, but it is not
    /// offered for restore unless asked for by its id.
    pub confirmed: bool,
}

/// All manifests that are listed.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// By consistency point, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Manifests that could not be opened, with why.
    pub damaged: Vec<(String, RepoError)>,
    /// Manifests of domains this key has no part in.
    pub foreign: Vec<String>,
    /// Signed by a revoked key after what the owner vouched for: nothing to restore from, nothing to keep for.
    pub untrusted: Vec<Snapshot>,
}

/// Which snapshots a command means.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub jobs: Vec<String>,
    pub hosts: Vec<String>,
    /// Every one must be on the snapshot.
    pub tags: Vec<String>,
    /// Whose snapshots are meant when several machines have what is asked for; empty: nobody's, which is refused.
    pub machine: String,
}

impl Filter {
    /// Those of the machine `chosen`; without one, of several machines those of `own`.
    pub fn of_machine(chosen: Option<&str>, own: &str) -> Self {
        let hosts = chosen.into_iter().map(str::to_owned).collect();
        Self { hosts, machine: own.to_owned(), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.hosts.is_empty() && self.tags.is_empty()
    }
    /// Evidence of drills is meant only where its job is named.
    pub fn matches(&self, summary: &Summary) -> bool {
        (self.jobs.is_empty() && summary.source != DRILL_SOURCE || self.jobs.contains(&summary.job))
            && (self.hosts.is_empty() || self.hosts.contains(&summary.host))
            && self.tags.iter().all(|tag| summary.tags.contains(tag))
    }
}

impl Repository {
    /// Reads every listed manifest's summary. A forgotten mark alone leaves nothing out: whoever put it may have
    /// died before deleting, or a confirm may have cancelled it, and then the snapshot stands.
    pub async fn snapshots(&self) -> Result<SnapshotList, RepoError> {
        // Manifests before confirms: a snapshot that gains its confirm in between shows as confirmed, never the
        // other way round.
        let listed = self.store.list(ObjectKind::Snapshot.folder()).await?;
        let confirmed = self.confirmed().await?;
        let mut list = SnapshotList::default();
        let mut names = BTreeSet::new();
        for object in listed.into_iter().map(|listed| listed.name) {
            names.insert(object.clone());
            match self.read_summary(&object).await {
                Ok(None) => list.foreign.push(object),
                Ok(Some(mut snapshot)) => {
                    snapshot.confirmed = confirmed.contains(&snapshot.id);
                    let trusted = self.trusts(&snapshot.summary);
                    if trusted { &mut list.snapshots } else { &mut list.untrusted }.push(snapshot);
                }
                // Forgotten by somebody else since the listing.
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                Err(error @ (RepoError::Damaged { .. } | RepoError::Seal(_))) => {
                    list.damaged.push((object, error));
                }
                Err(error) => return Err(error),
            }
        }
        list.snapshots
            .sort_by_key(|snapshot| (snapshot.summary.consistent, snapshot.summary.finished, snapshot.id));
        self.local.retain_manifests(&names);
        Ok(list)
    }

    async fn manifest_bytes(&self, object: &str) -> Result<Vec<u8>, RepoError> {
        let (_, hash) = parse_object_name(object)
            .ok_or_else(|| RepoError::object(object)(FormatError::Invalid("manifest's name").into()))?;
        let sound = |bytes: &[u8]| ObjectHash(*blake3::hash(bytes).as_bytes()) == hash;
        if let Some(bytes) = self.local.manifest(object).filter(|bytes| sound(bytes)) {
            return Ok(bytes);
        }
        let bytes = self.store.get(object).await?;
        if !sound(&bytes) {
            // A later format may be named otherwise: say so before calling it damage.
            if let Err(error @ FormatError::Newer { .. }) = super::open::header_of(&bytes) {
                return Err(RepoError::object(object)(error.into()));
            }
            return Err(RepoError::object(object)(FormatError::Checksum.into()));
        }
        self.local.keep_manifest(object, &bytes);
        Ok(bytes.into())
    }

    async fn read_summary(&self, object: &str) -> Result<Option<Snapshot>, RepoError> {
        let bytes = self.manifest_bytes(object).await?;
        let opened = open_summary(&self.access, &bytes, |key| self.verifying_key(key))
            .map_err(RepoError::object(object))?;
        let Some(opened) = opened else { return Ok(None) };
        if parse_object_name(object).is_none_or(|(id, _)| id != opened.id) {
            return Err(RepoError::object(object)(FormatError::Invalid("snapshot id").into()));
        }
        Ok(Some(Snapshot {
            id: opened.id,
            object: object.to_owned(),
            domain: opened.domain,
            summary: opened.summary,
            confirmed: false,
        }))
    }

    /// Reads a snapshot's tree root and paths.
    pub async fn contents(&self, snapshot: &Snapshot) -> Result<Contents, RepoError> {
        let bytes = self.manifest_bytes(&snapshot.object).await?;
        open_contents(&self.access, &bytes, &snapshot.summary)
            .map_err(RepoError::object(snapshot.object.as_str()))
    }

    /// The manifest as stored and its contents in plaintext form: what a copy re-seals.
    pub async fn manifest(&self, snapshot: &Snapshot) -> Result<Vec<u8>, RepoError> {
        self.manifest_bytes(&snapshot.object).await
    }

    /// The latest of every chain among `snapshots`.
    pub fn heads(snapshots: &[Snapshot]) -> Vec<Head> {
        let mut heads: BTreeMap<_, Head> = BTreeMap::new();
        for snapshot in snapshots {
            let summary = &snapshot.summary;
            let job = Summary::job_hash(&summary.job);
            let head =
                Head { author: summary.author, job, sequence: summary.sequence, snapshot: snapshot.id };
            let entry = heads.entry((summary.author, job)).or_insert(head);
            if head.sequence > entry.sequence {
                *entry = head;
            }
        }
        heads.into_values().collect()
    }
}

/// `latest`, `latest~N`, `JOB@latest`, `JOB@latest~N`, `JOB@TIME`, or an id prefix of at least four digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The nth newest, 0 the newest; of one job if named.
    Latest {
        job: Option<String>,
        back: usize,
    },
    /// The newest at or before an instant.
    At {
        job: String,
        time: Timestamp,
    },
    Id(String),
}

impl Selector {
    pub fn parse(text: &str) -> Option<Self> {
        let latest = |text: &str| match text.strip_prefix("latest")? {
            "" => Some(0),
            rest => rest.strip_prefix('~')?.parse::<usize>().ok(),
        };
        if let Some(back) = latest(text) {
            return Some(Self::Latest { job: None, back });
        }
        if let Some((job, when)) = text.rsplit_once('@') {
            if job.is_empty() {
                return None;
            }
            if let Some(back) = latest(when) {
                return Some(Self::Latest { job: Some(job.to_owned()), back });
            }
            let time = super::to_timestamp(parse_time(when)?);
            return Some(Self::At { job: job.to_owned(), time });
        }
        let hex = text.len() >= 4 && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| Self::Id(text.to_ascii_lowercase()))
    }
}

/// Begins a selector that means every job: `*@latest`, `*@latest~N`, `*@TIME`.
pub const EVERY_JOB: &str = "*@";

/// An instant with offset or zone, or a civil date and time in the system's zone.
pub fn parse_time(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time);
    }
    if let Ok(zoned) = text.parse::<jiff::Zoned>() {
        return Some(zoned.timestamp());
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    civil.to_zoned(jiff::tz::TimeZone::system()).ok().map(|zoned| zoned.timestamp())
}

/// How a bare `latest` is written so that it means one of the jobs: words that a shell takes as they are.
fn spelled(text: &str, jobs: &BTreeSet<(&str, &str)>) -> String {
    let quote = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let hosts = |job: &str| jobs.iter().filter(|(_, other)| *other == job).count();
    let each = jobs.iter().map(|(host, job)| match hosts(job) {
        1 => quote(&format!("{job}@{text}")),
        _ => format!("{} --host {}", quote(&format!("{job}@{text}")), quote(host)),
    });
    format!("write one of these instead: {}", each.collect::<Vec<_>>().join(", or "))
}

impl SnapshotList {
    /// Confirmed snapshots that pass the filter, oldest first.
    pub fn matching<'l>(&'l self, filter: &Filter) -> impl DoubleEndedIterator<Item = &'l Snapshot> {
        self.snapshots.iter().filter(|s| s.confirmed && filter.matches(&s.summary))
    }

    /// Of what several machines have, one machine's is meant: the filter's, if it is among them. Another's files must not
    /// pass for its own. `what`: as it was asked for; `job`: only that one counts.
    ///
    /// # Errors
    /// Several machines have it, and the filter's is none of them.
    pub fn of_one_machine(
        &self,
        what: &str,
        job: Option<&str>,
        filter: &Filter,
    ) -> Result<Filter, RepoError> {
        let asked = self.matching(filter).filter(|found| job.is_none_or(|job| found.summary.job == job));
        let hosts: BTreeSet<&str> = asked.map(|found| found.summary.host.as_str()).collect();
        let mut filter = filter.clone();
        if hosts.len() > 1 {
            if !hosts.contains(filter.machine.as_str()) {
                return Err(RepoError::Refused(format!(
                    "{what:?} means snapshots of several machines: {}\nhint: --host NAME, or LIFEBOAT_MACHINE, chooses one; \
                     in the configuration file machine = \"NAME\" of a drill or of a stack's component does",
                    hosts.into_iter().collect::<Vec<_>>().join(", ")
                )));
            }
            filter.hosts = vec![filter.machine.clone()];
        }
        Ok(filter)
    }

    /// Of every job the snapshot that `text` (`*@latest`, `*@latest~N`, `*@TIME`) means, oldest first; jobs that have none
    /// such are left out.
    pub fn every<'l>(&'l self, text: &str, filter: &Filter) -> Result<Vec<&'l Snapshot>, RepoError> {
        let none = || RepoError::NoSnapshot(text.to_owned());
        let when = text.strip_prefix(EVERY_JOB).ok_or_else(none)?;
        Selector::parse(&format!("job@{when}")).ok_or_else(none)?;
        let filter = self.of_one_machine(text, None, filter)?;
        let jobs: BTreeSet<&str> = self.matching(&filter).map(|s| s.summary.job.as_str()).collect();
        let mut ids = BTreeSet::new();
        for job in jobs {
            match self.select(&format!("{job}@{when}"), &filter) {
                Ok(snapshot) => drop(ids.insert(snapshot.id)),
                Err(RepoError::NoSnapshot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let found: Vec<&Snapshot> = self.snapshots.iter().filter(|s| ids.contains(&s.id)).collect();
        if found.is_empty() { Err(none()) } else { Ok(found) }
    }

    /// The one snapshot that `text` selects. A bare `latest` that could mean several jobs is an error.
    pub fn select<'l>(&'l self, text: &str, filter: &Filter) -> Result<&'l Snapshot, RepoError> {
        let selector = Selector::parse(text).ok_or_else(|| RepoError::NoSnapshot(text.to_owned()))?;
        let filter = match &selector {
            Selector::Latest { job: Some(job), .. } | Selector::At { job, .. } => {
                self.of_one_machine(text, Some(job), filter)?
            }
            Selector::Latest { job: None, .. } if !filter.jobs.is_empty() => {
                self.of_one_machine(text, None, filter)?
            }
            Selector::Latest { .. } | Selector::Id(_) => filter.clone(),
        };
        self.selected(text, selector, &filter)
    }

    fn selected<'l>(
        &'l self,
        text: &str,
        selector: Selector,
        filter: &Filter,
    ) -> Result<&'l Snapshot, RepoError> {
        let none = || RepoError::NoSnapshot(text.to_owned());
        match selector {
            Selector::Latest { job, back } => {
                let fits = |s: &&Snapshot| job.as_ref().is_none_or(|job| s.summary.job == *job);
                if job.is_none() && filter.jobs.is_empty() {
                    let jobs: BTreeSet<_> = self
                        .matching(filter)
                        .map(|s| (s.summary.host.as_str(), s.summary.job.as_str()))
                        .collect();
                    if jobs.len() > 1 {
                        let shown: Vec<_> =
                            jobs.iter().map(|(host, job)| format!("{job} on {host}")).collect();
                        return Err(RepoError::AmbiguousSnapshot {
                            selector: text.to_owned(),
                            jobs: shown.join(", "),
                            hint: Some(spelled(text, &jobs)),
                        });
                    }
                }
                self.matching(filter).filter(fits).nth_back(back).ok_or_else(none)
            }
            Selector::At { job, time } => self
                .matching(filter)
                .rfind(|s| s.summary.job == job && s.summary.consistent <= time)
                .ok_or_else(none),
            Selector::Id(prefix) => {
                let mut found = self.snapshots.iter().filter(|s| s.id.hex().starts_with(&prefix));
                let first = found.next().ok_or_else(none)?;
                match found.next() {
                    None => Ok(first),
                    Some(second) => Err(RepoError::AmbiguousSnapshot {
                        selector: text.to_owned(),
                        jobs: format!("{}, {}, …", first.id, second.id),
                        hint: None,
                    }),
                }
            }
        }
    }
}
