//! Where evidence is kept: as snapshots of a job of its own, `drill:NAME`, in the repository it speaks of.
//!
//! So it is encrypted, signed by the writer, chained, copied to replicas and verified as everything else; plain
//! selectors pass it over.

use std::io::{self, Read as _};
use std::sync::Arc;

use super::evidence::{Evidence, SignedEvidence, Verdict};
use super::{DrillError, trend};
use crate::base::cancel::Cancel;
use crate::base::progress::NoProgress;
use crate::engine::backup::{BackupOptions, CaptureRequest, capture};
use crate::engine::dump::{DumpOptions, dump};
use crate::engine::read::select::SnapshotPath;
use crate::format::entry::Timestamp;
use crate::format::id::SnapshotId;
use crate::format::manifest::DRILL_SOURCE;
use crate::repo::Repository;
use crate::repo::snapshots::Snapshot;
use crate::source::capture::{Capture, Captured, PART_MODE, Part, SourceError};

/// Runs that a new one is compared with.
pub const TREND_OF: usize = 6;
/// A larger record is none.
const RECORD_LIMIT_BYTES: u64 = 16 << 20;
const PATH: &str = "/drill.json";

/// What jobs begin with that hold evidence, and no other may.
pub const RESERVED: &str = "drill:";

/// The job that a drill's evidence is filed under.
pub fn job_of(name: &str) -> String {
    format!("{RESERVED}{name}")
}

/// A record and where it is.
#[derive(Clone, Debug)]
pub struct Kept {
    pub snapshot: SnapshotId,
    pub signed: SignedEvidence,
}

/// Snapshots that hold evidence, oldest first; of one drill if it is named.
///
/// # Errors
/// The repository cannot be listed.
pub async fn list(repo: &Repository, name: Option<&str>) -> Result<Vec<Snapshot>, DrillError> {
    let job = name.map(job_of);
    let found = repo.snapshots().await.map_err(crate::engine::EngineError::from)?;
    let is_wanted = |snapshot: &Snapshot| {
        let summary = &snapshot.summary;
        snapshot.confirmed
            && summary.source == DRILL_SOURCE
            && job.as_ref().is_none_or(|job| summary.job == *job)
    };
    Ok(found.snapshots.into_iter().filter(is_wanted).collect())
}

/// Reads one record.
///
/// # Errors
/// It cannot be read, or is none.
pub async fn read(repo: &Repository, snapshot: &Snapshot, cancel: &Cancel) -> Result<Kept, DrillError> {
    let path = SnapshotPath::parse(format!("{}:{PATH}", snapshot.id.hex()).as_ref())?;
    let selected = path.select(repo, &Default::default()).await?;
    let size_bytes = selected.entry.as_ref().and_then(|entry| entry.content()).map_or(0, |c| c.size_bytes);
    if size_bytes > RECORD_LIMIT_BYTES {
        return Err(DrillError::Evidence(format!("{} is too large to be a record", snapshot.id.hex())));
    }
    let mut bytes = Vec::new();
    dump(repo, &selected, &DumpOptions::default(), &mut bytes, Arc::new(NoProgress), cancel).await?;
    Ok(Kept { snapshot: snapshot.id, signed: SignedEvidence::parse(&bytes)? })
}

/// The newest `count` records of a drill, oldest first.
///
/// # Errors
/// One cannot be read.
pub async fn newest(
    repo: &Repository,
    name: Option<&str>,
    count: usize,
    cancel: &Cancel,
) -> Result<Vec<Kept>, DrillError> {
    let found = list(repo, name).await?;
    let mut kept = Vec::new();
    for snapshot in found.iter().skip(found.len().saturating_sub(count)) {
        kept.push(read(repo, snapshot, cancel).await?);
    }
    Ok(kept)
}

/// The runs before a new one, oldest first, to be followed and compared with. Those before the last are for
/// comparing alone: one of them that cannot be read is left out.
///
/// # Errors
/// [`DrillError::Chain`]: the last one cannot be read. A run that followed nothing would begin a second chain beside
/// the first, and nobody could tell a lost record from a hidden one.
pub async fn before(repo: &Repository, name: &str, cancel: &Cancel) -> Result<Vec<Kept>, DrillError> {
    let found = list(repo, Some(name)).await?;
    let Some((last, earlier)) = found.split_last() else { return Ok(Vec::new()) };
    let mut kept = Vec::new();
    for snapshot in &earlier[earlier.len().saturating_sub(TREND_OF - 1)..] {
        match read(repo, snapshot, cancel).await {
            Ok(record) => kept.push(record),
            Err(error) => {
                tracing::warn!(%error, "run #{} is left out of the comparison", number_of(snapshot))
            }
        }
    }
    let broken = |error: DrillError| DrillError::Chain { number: number_of(last), cause: error.to_string() };
    kept.push(read(repo, last, cancel).await.map_err(broken)?);
    Ok(kept)
}

/// Whether this very run is filed: one that was killed right after it was kept is not filed again. No two runs of a
/// name begin in the same nanosecond.
///
/// # Errors
/// The repository cannot be listed.
pub async fn is_kept(repo: &Repository, evidence: &Evidence) -> Result<bool, DrillError> {
    let began = |snapshot: &Snapshot| {
        let facts: serde_json::Value = serde_json::from_str(&snapshot.summary.facts).unwrap_or_default();
        facts["drill"]["started_at"].as_str().map(str::to_owned)
    };
    let found = list(repo, Some(&evidence.name)).await?;
    Ok(found.iter().any(|snapshot| began(snapshot).as_ref() == Some(&evidence.started_at)))
}

/// The number that a record is filed with; 0 if none is.
fn number_of(snapshot: &Snapshot) -> u64 {
    let facts: serde_json::Value = serde_json::from_str(&snapshot.summary.facts).unwrap_or_default();
    facts["drill"]["number"].as_u64().unwrap_or(0)
}

/// A run that cannot take its place behind the others: whatever it measured, it is no evidence.
pub fn unplaced(evidence: &mut Evidence, error: &DrillError) {
    evidence.number = match error {
        DrillError::Chain { number, .. } => number + 1,
        _ => 0,
    };
    let said = match &evidence.reason {
        Some(reason) => format!("{reason}; and {error}"),
        None => error.to_string(),
    };
    evidence.reason = Some(said);
    if evidence.verdict.is_passed() {
        evidence.verdict = Verdict::CouldNotRun;
    }
}

/// Puts a record into its place in the chain: number, hash of the one before, trend.
///
/// # Errors
/// The one before cannot be written down.
pub fn place(evidence: &mut Evidence, before: &[Kept]) -> Result<(), DrillError> {
    if let Some(last) = before.last() {
        evidence.number = last.signed.evidence.number + 1;
        evidence.previous = Some(last.signed.hash()?);
    }
    trend::compare(evidence, before.iter().map(|kept| &kept.signed.evidence), TREND_OF);
    Ok(())
}

/// Keeps a record. `options`: of the run; the job becomes the drill's.
///
/// # Errors
/// It cannot be stored.
pub async fn keep(
    repo: &Repository,
    signed: &SignedEvidence,
    options: BackupOptions,
) -> Result<Option<SnapshotId>, DrillError> {
    let text = serde_json::to_vec_pretty(signed)
        .map_err(|error| DrillError::Evidence(format!("cannot be written: {error}")))?;
    let options = BackupOptions { job: job_of(&signed.evidence.name), ..options };
    let now = repo.world.now();
    let verdict = serde_json::json!({
        "verdict": signed.evidence.verdict,
        "number": signed.evidence.number,
        "started_at": signed.evidence.started_at,
        "snapshot": signed.evidence.snapshot.as_ref().map(|row| &row.id),
    });
    let source = Box::new(Record { bytes: io::Cursor::new(text), begun: false, now, verdict });
    let request = CaptureRequest { source, kind: DRILL_SOURCE };
    // Not the run's own flag: that a drill was interrupted is what must be kept.
    let outcome = capture(repo, request, &options, Arc::new(NoProgress), &Cancel::new()).await?;
    Ok(outcome.snapshot)
}

struct Record {
    bytes: io::Cursor<Vec<u8>>,
    begun: bool,
    now: Timestamp,
    verdict: serde_json::Value,
}

impl Capture for Record {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let first = !std::mem::replace(&mut self.begun, true);
        Ok(first.then(|| Part { path: PATH.into(), mode: PART_MODE, mtime: self.now }))
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        let facts = serde_json::Map::from_iter([("drill".to_owned(), self.verdict)]);
        Ok(Captured { consistent: self.now, facts, ..Captured::default() })
    }
}
