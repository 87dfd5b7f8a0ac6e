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
    filter: &Filter,
) -> Result<&'l Snapshot, EngineError> {
    let filter = list.of_one_machine(job, Some(job), filter)?;
    let of_job: Vec<&Snapshot> =
        list.matching(&filter).filter(|snapshot| snapshot.summary.job == job).collect();
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
            None if !filter.hosts.is_empty() => {
                let machines: BTreeSet<&str> = list
                    .matching(&Filter { jobs: vec![job.to_owned()], ..Filter::default() })
                    .map(|snapshot| snapshot.summary.host.as_str())
                    .collect();
                let has = match machines.is_empty() {
                    true => "no machine has one".to_owned(),
                    false => format!("there are of {}", machines.into_iter().collect::<Vec<_>>().join(", ")),
                };
                format!("job {job:?} has no snapshot of machine {}; {has}", filter.hosts.join(" or "))
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
