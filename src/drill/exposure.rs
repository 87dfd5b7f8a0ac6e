//! What would be lost: by every snapshot there is, and by those alone that a drill restored.
//!
//! Counted from consistency points, never from when something was written.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::evidence::{CopyRow, Measured, Verdict};
use crate::format::manifest::{DRILL_SOURCE, Summary};
use crate::policy::objective::{self, Point};
use crate::repo::from_timestamp;
use crate::repo::snapshots::{Snapshot, SnapshotList};

/// How far back the worst exposure is looked for.
pub const WINDOW_DAYS: u32 = 30;

/// The points of one job.
#[derive(Clone, Debug)]
pub struct Points {
    now: Timestamp,
    all: Vec<Point>,
    /// Of `all`: those that drills restored.
    proven: Vec<Point>,
    /// The one that this drill restores.
    restored: Point,
}

fn point(summary: &Summary) -> Point {
    Point { consistent: from_timestamp(summary.consistent), available: from_timestamp(summary.finished) }
}

/// Confirmed snapshots of the same data.
fn of_job<'l>(list: &'l SnapshotList, job: &'l Summary) -> impl Iterator<Item = &'l Snapshot> {
    list.snapshots.iter().filter(move |found| {
        found.confirmed && found.summary.job == job.job && found.summary.host == job.host
    })
}

/// Ids of the snapshots that drills restored and found right, by what their evidence is filed with.
fn drilled(list: &SnapshotList) -> BTreeSet<String> {
    let evidence =
        list.snapshots.iter().filter(|found| found.confirmed && found.summary.source == DRILL_SOURCE);
    let restored = |found: &Snapshot| {
        let facts: serde_json::Value = serde_json::from_str(&found.summary.facts).ok()?;
        let verdict: Verdict = serde_json::from_value(facts["drill"]["verdict"].clone()).ok()?;
        proves(verdict).then(|| facts["drill"]["snapshot"].as_str().map(str::to_owned))?
    };
    evidence.filter_map(restored).collect()
}

/// Whether a drill that ended so brought the data back.
pub fn proves(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Met | Verdict::ObjectiveMissed)
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn worst(points: &[Point], now: Timestamp) -> Option<f64> {
    let since = now - SignedDuration::from_hours(i64::from(WINDOW_DAYS) * 24);
    objective::exposure(points, since, now).map(|exposure| seconds(exposure.worst))
}

impl Points {
    /// Of the job that `restored` is of.
    pub fn new(list: &SnapshotList, restored: &Summary, now: Timestamp) -> Self {
        let drilled = drilled(list);
        let is_drilled = |found: &&Snapshot| drilled.contains(&found.id.hex());
        let proven = of_job(list, restored).filter(is_drilled).map(|found| point(&found.summary)).collect();
        let all = of_job(list, restored).map(|found| point(&found.summary)).collect();
        Self { now, all, proven, restored: point(restored) }
    }

    /// What the snapshots say before the drill ends.
    pub fn measure(&self, measured: &mut Measured) {
        let lost = self.now.duration_since(self.restored.consistent);
        measured.exposure_seconds = Some(seconds(Duration::try_from(lost).unwrap_or_default()));
        measured.worst_exposure_seconds = worst(&self.all, self.now);
    }

    /// What is proven once it ended so.
    pub fn prove(mut self, verdict: Verdict, measured: &mut Measured) {
        if proves(verdict) {
            self.proven.push(self.restored);
        }
        measured.proven_worst_seconds = worst(&self.proven, self.now);
    }
}

/// The newest point of the same data in another copy of the repository.
pub fn of_copy(name: &str, list: &SnapshotList, job: &str, host: &str, now: Timestamp) -> CopyRow {
    let of_job = list
        .snapshots
        .iter()
        .filter(|found| found.confirmed && found.summary.job == job && found.summary.host == host);
    let newest = of_job.map(|found| from_timestamp(found.summary.consistent)).max();
    CopyRow {
        name: name.to_owned(),
        consistent_at: newest.map(|newest| newest.to_string()),
        exposure_seconds: newest
            .map(|newest| seconds(Duration::try_from(now.duration_since(newest)).unwrap_or_default())),
        problem: newest.is_none().then(|| "it holds no snapshot of this job".to_owned()),
    }
}
