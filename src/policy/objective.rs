//! RTO and RPO arithmetic: what was measured, against what is tolerated.
//!
//! An objective is what is tolerated; measured is what a drill or the history showed. Losses are counted from the
//! instant the data is true for, never from when a file was written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

/// Fewer runs give no percentiles: they would be invented.
pub const PERCENTILES_FROM: usize = 20;

/// A recovery point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The instant the data is true for.
    pub consistent: Timestamp,
    /// From when it could have been restored.
    pub available: Timestamp,
}

/// What would have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Losing everything now.
    pub current: Duration,
    /// Losing everything at the worst instant of the window, the time since the last point included.
    pub worst: Duration,
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    // A point from the future is a clock that is wrong, not a negative loss.
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Exposure at `now` by the points that were available in the window since `since`. `None` without any point
/// available by now.
pub fn exposure(points: &[Point], since: Timestamp, now: Timestamp) -> Option<Exposure> {
    let mut points: Vec<Point> = points.iter().copied().filter(|point| point.available <= now).collect();
    points.sort_by_key(|point| (point.available, point.consistent));
    // The newest consistency point there was at each moment; a late arrival of older data is no progress.
    let mut best: Option<Timestamp> = None;
    let mut worst = Duration::ZERO;
    for point in &points {
        if let Some(consistent) = best
            && point.available >= since
        {
            worst = worst.max(between(consistent, point.available));
        }
        best = best.max(Some(point.consistent));
    }
    let current = between(best?, now);
    Some(Exposure { current, worst: worst.max(current) })
}

/// Whether a schedule can keep a loss below what is tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feasible {
    Met,
    /// Met, with less than a fifth to spare: one slow run misses it.
    AtRisk,
    Impossible,
}

/// The share of an objective that is to be left for a slow run.
pub const SPARE: f64 = 0.2;

/// The worst loss of a schedule: the longest time between two runs, and what a run takes until it can be restored.
pub fn worst_loss(interval: Duration, takes: Duration) -> Duration {
    interval + takes
}

/// Judges a schedule, and gives the longest interval that would do, if any would.
pub fn feasible(interval: Duration, takes: Duration, rpo: Duration) -> (Feasible, Option<Duration>) {
    let worst = worst_loss(interval, takes);
    let verdict = match worst {
        _ if worst > rpo => Feasible::Impossible,
        _ if worst > rpo.mul_f64(1.0 - SPARE) => Feasible::AtRisk,
        _ => Feasible::Met,
    };
    // In whole minutes, as schedules are written, and never rounded up to what would not do.
    let minutes = |interval: Duration| Duration::from_secs(interval.as_secs() / 60 * 60);
    (verdict, rpo.checked_sub(takes).map(minutes).filter(|interval| !interval.is_zero()))
}

/// Times of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub runs: usize,
    pub max: Duration,
    /// Median and 95th percentile, from [`PERCENTILES_FROM`] runs on.
    pub percentiles: Option<(Duration, Duration)>,
}

/// Sums up measured times; `None` without any.
pub fn times(measured: &[Duration]) -> Option<Times> {
    let mut sorted = measured.to_vec();
    sorted.sort_unstable();
    let max = *sorted.last()?;
    // Nearest rank: always a time that was measured.
    let rank =
        |share: f64| sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
    let percentiles = (sorted.len() >= PERCENTILES_FROM).then(|| (rank(0.5), rank(0.95)));
    Some(Times { runs: sorted.len(), max, percentiles })
}

/// The middle of measured times; `None` without any.
pub fn median(measured: &[Duration]) -> Option<Duration> {
    let mut sorted = measured.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// A part of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pub takes: Duration,
    /// Names of what must be there first.
    pub needs: BTreeSet<String>,
}

/// Why a stack's order cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("{component} needs {needed}, which there is not")]
    Unknown { component: String, needed: String },
    #[error("these need each other in a circle: {}", .0.join(", "))]
    Circle(Vec<String>),
}

/// When each component is ready, and the chain of components that decides when all are.
pub fn critical_path(
    components: &BTreeMap<String, Component>,
) -> Result<(BTreeMap<String, Duration>, Vec<String>), OrderError> {
    for (name, component) in components {
        if let Some(needed) = component.needs.iter().find(|needed| !components.contains_key(*needed)) {
            return Err(OrderError::Unknown { component: name.clone(), needed: needed.clone() });
        }
    }
    let mut ready: BTreeMap<String, Duration> = BTreeMap::new();
    let mut waits_for: BTreeMap<String, Option<String>> = BTreeMap::new();
    while ready.len() < components.len() {
        let able = components.iter().find(|(name, component)| {
            !ready.contains_key(*name) && component.needs.iter().all(|needed| ready.contains_key(needed))
        });
        let Some((name, component)) = able else {
            let left = components.keys().filter(|name| !ready.contains_key(*name)).cloned().collect();
            return Err(OrderError::Circle(left));
        };
        let last = component.needs.iter().max_by_key(|needed| ready.get(*needed).copied());
        let start = last.and_then(|last| ready.get(last).copied()).unwrap_or_default();
        ready.insert(name.clone(), start + component.takes);
        waits_for.insert(name.clone(), last.cloned());
    }
    let mut path = Vec::new();
    let mut next = ready.iter().max_by_key(|(_, at)| **at).map(|(name, _)| name.clone());
    while let Some(name) = next {
        next = waits_for.get(&name).cloned().flatten();
        path.push(name);
    }
    path.reverse();
    Ok((ready, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }
    fn hours(number: u64) -> Duration {
        Duration::from_secs(number * 3600)
    }
    fn point(consistent: i64, available: i64) -> Point {
        Point { consistent: at(consistent), available: at(available) }
    }

    #[test]
    fn a_point_counts_from_when_it_is_available() {
        assert_eq!(exposure(&[], at(0), at(10)), None);
        assert_eq!(exposure(&[point(5, 11)], at(0), at(10)), None);
        let one = exposure(&[point(5, 6)], at(0), at(10)).unwrap();
        assert_eq!(one, Exposure { current: hours(5), worst: hours(5) });
        // Every six hours and an hour of uploading: never six hours.
        let points = [point(0, 1), point(6, 7), point(12, 13)];
        let six = exposure(&points, at(0), at(14)).unwrap();
        assert_eq!(six, Exposure { current: hours(2), worst: hours(7) });
    }

    #[test]
    fn old_data_that_arrives_late_is_no_progress_and_the_window_is_kept() {
        let points = [point(10, 11), point(2, 12)];
        assert_eq!(exposure(&points, at(0), at(13)).unwrap().current, hours(3));
        let gap_before_the_window = [point(0, 1), point(99, 100), point(101, 102)];
        assert_eq!(exposure(&gap_before_the_window, at(101), at(103)).unwrap().worst, hours(3));
    }

    #[test]
    fn a_run_every_six_hours_never_keeps_six_hours() {
        let minute = Duration::from_secs(60);
        assert_eq!(feasible(hours(6), minute, hours(6)), (Feasible::Impossible, Some(hours(6) - minute)));
        assert_eq!(feasible(hours(5), minute, hours(6)).0, Feasible::AtRisk);
        assert_eq!(feasible(hours(4), minute, hours(6)).0, Feasible::Met);
        assert_eq!(feasible(hours(4), hours(7), hours(6)), (Feasible::Impossible, None));
    }

    #[test]
    fn few_runs_have_no_percentiles() {
        assert_eq!(times(&[]), None);
        let few = times(&[hours(1), hours(3)]).unwrap();
        assert_eq!(few, Times { runs: 2, max: hours(3), percentiles: None });
        let many: Vec<Duration> = (1..=20).map(hours).collect();
        assert_eq!(times(&many).unwrap().percentiles, Some((hours(10), hours(19))));
    }

    #[test]
    fn a_stack_is_ready_when_its_longest_chain_is() {
        let part = |takes, needs: &[&str]| Component {
            takes: hours(takes),
            needs: needs.iter().map(|name| (*name).to_owned()).collect(),
        };
        let stack = BTreeMap::from([
            ("app".to_owned(), part(1, &["db", "cache"])),
            ("cache".to_owned(), part(2, &[])),
            ("db".to_owned(), part(5, &[])),
        ]);
        let (ready, path) = critical_path(&stack).unwrap();
        assert_eq!(ready["app"], hours(6));
        assert_eq!(path, ["db", "app"]);
        let unknown = BTreeMap::from([("app".to_owned(), part(1, &["db"]))]);
        assert!(matches!(critical_path(&unknown), Err(OrderError::Unknown { .. })));
        let circle = BTreeMap::from([("a".to_owned(), part(1, &["b"])), ("b".to_owned(), part(1, &["a"]))]);
        assert_eq!(critical_path(&circle), Err(OrderError::Circle(vec!["a".into(), "b".into()])));
    }
}
