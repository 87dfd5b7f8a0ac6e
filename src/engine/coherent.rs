//! The newest coherent set of a stack: of each component's job the newest snapshot that is true for an instant at or
//! before the one asked for.
//!
//! The set is as coherent as the components' own consistency points are close: the time between the first and the last
//! of them, the skew, is part of the answer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::EngineError;
use crate::format::entry::Timestamp;
use crate::repo::from_timestamp;
use crate::repo::snapshots::{Filter, Snapshot, SnapshotList};

/// The snapshot of `job` for the set.
///
/// # Errors
/// There is none that old, or machines share the job's name and `filter` does not say which is meant.
pub fn newest<'l>(
    list: &'l SnapshotList,
    job: &str,
    at: Timestamp,
    filter: &'l Filter,
) -> Result<&'l Snapshot, EngineError> {
    let of_job: Vec<&Snapshot> =
        list.matching(filter).filter(|snapshot| snapshot.summary.job == job).collect();
    let hosts: BTreeSet<&str> = of_job.iter().map(|snapshot| snapshot.summary.host.as_str()).collect();
    if hosts.len() > 1 {
        let hosts: Vec<&str> = hosts.into_iter().collect();
        return Err(EngineError::Refused(format!(
            "several machines have a job {job:?}: {}\nhint: say which one with --host",
            hosts.join(", ")
        )));
    }
    let found = of_job.iter().rfind(|snapshot| snapshot.summary.consistent <= at);
    found.copied().ok_or_else(|| {
        let oldest = of_job.first().map(|snapshot| from_timestamp(snapshot.summary.consistent));
        EngineError::Refused(match oldest {
            Some(oldest) => {
                format!(
                    "job {job:?} has no snapshot as old as {}; its oldest is of {oldest}",
                    from_timestamp(at)
                )
            }
            None => format!("job {job:?} has no snapshot\nhint: lifeboat run {job}"),
        })
    })
}

/// The time between the first and the last of a set's consistency points; `None` for fewer than two.
pub fn skew(points: impl IntoIterator<Item = Timestamp>) -> Option<Duration> {
    let mut points: Vec<Timestamp> = points.into_iter().collect();
    points.sort();
    let (first, last) = (points.first()?, points.last().filter(|_| points.len() > 1)?);
    Duration::try_from(from_timestamp(*last).duration_since(from_timestamp(*first))).ok()
}
