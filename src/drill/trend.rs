//! Whether recovery became slower: a run against runs like it, and against nothing else.
//!
//! Like it: the same job, kind of data and beginning, on as many cores. The pace is compared, seconds per GiB, because
//! data grows; what differs by less than a second is the machine's mood and counts as no difference.

use std::time::Duration;

use super::evidence::{ComponentRow, Evidence, Measured};
use crate::base::byte_size::plural;
use crate::policy::objective;

/// A regression: this many times the median per byte of the runs before.
pub const REGRESSION: f64 = 1.5;
/// Runs before that make a median worth the name.
pub const RUNS_NEEDED: u32 = 3;
/// A smaller difference is none.
const FLOOR_SECONDS: f64 = 1.0;
/// Smaller restores are mostly fixed costs: each counts as one of this size.
const FROM_BYTES: u64 = 64 << 20;

impl Evidence {
    fn gib(&self) -> f64 {
        self.restored_bytes.max(FROM_BYTES) as f64 / (1u64 << 30) as f64
    }

    /// Seconds per GiB restored; `None` where recovery never came to its end.
    pub fn pace(&self) -> Option<f64> {
        self.measured.recovery_seconds.map(|seconds| seconds / self.gib())
    }

    /// Whether the two rehearsed the same on a like machine, so that their times may be compared.
    pub fn is_like(&self, other: &Self) -> bool {
        let data = |of: &Self| {
            of.snapshot.as_ref().map(|row| (row.job.clone(), row.host.clone(), row.source.clone()))
        };
        let parts = |of: &Self| {
            let stack = of.stack.as_ref()?;
            let host = |row: &ComponentRow| row.snapshot.as_ref().map(|snapshot| snapshot.host.clone());
            let names: Vec<_> = stack.components.iter().map(|row| (row.name.clone(), host(row))).collect();
            Some((stack.name.clone(), names))
        };
        let began = |of: &Self| of.start.as_ref().map(|start| start.from.clone());
        self.name == other.name
            && self.machine.cores == other.machine.cores
            && data(self) == data(other)
            && parts(self) == parts(other)
            && began(self) == began(other)
    }
}

/// Notes how a run stands to the newest `most` of those before it that are like it. `before`: oldest first.
pub fn compare<'e>(
    evidence: &mut Evidence,
    before: impl DoubleEndedIterator<Item = &'e Evidence>,
    most: usize,
) {
    let Some(recovery) = evidence.measured.recovery_seconds else { return };
    let paces: Vec<Duration> = before
        .rev()
        .filter(|before| before.is_like(evidence))
        .filter_map(Evidence::pace)
        .filter_map(|pace| Duration::try_from_secs_f64(pace).ok())
        .take(most)
        .collect();
    let runs = paces.len() as u32;
    evidence.measured.trend_runs = Some(runs);
    let median = objective::median(&paces).filter(|_| runs >= RUNS_NEEDED);
    let expected =
        median.map(|median| median.as_secs_f64() * evidence.gib()).filter(|expected| *expected > 0.0);
    evidence.measured.trend = expected.map(|expected| match (recovery - expected).abs() < FLOOR_SECONDS {
        true => 1.0,
        false => (recovery / expected * 100.0).round() / 100.0,
    });
}

/// For people; `None` where nothing was compared.
pub fn words(measured: &Measured) -> Option<String> {
    match (measured.trend, measured.trend_runs) {
        (Some(trend), runs) => {
            let of = runs
                .map_or("the runs before".into(), |runs| format!("{} like it", plural(runs.into(), "run")));
            let flag = if is_slower(measured) { ": slower than it was" } else { "" };
            Some(format!("{trend:.2} × the median per GiB of {of}{flag}"))
        }
        (None, Some(runs)) => Some(format!("too few runs like it to tell: {runs} of {RUNS_NEEDED}")),
        (None, None) => None,
    }
}

/// Whether it is a regression.
pub fn is_slower(measured: &Measured) -> bool {
    measured.trend.is_some_and(|trend| trend > REGRESSION)
}

#[cfg(test)]
mod tests {
    use super::super::evidence::tests::sample;
    use super::super::evidence::{Machine, SnapshotRow};
    use super::*;

    fn run(job: &str, recovery: f64, bytes: u64) -> Evidence {
        let mut run = sample();
        run.snapshot = Some(SnapshotRow {
            id: String::new(),
            job: job.into(),
            host: "h".into(),
            source: "files".into(),
            consistent_at: String::new(),
            finished_at: String::new(),
            problems: 0,
        });
        (run.measured.recovery_seconds, run.restored_bytes) = (Some(recovery), bytes);
        run
    }

    fn trend(new: Evidence, before: &[Evidence]) -> (Option<f64>, Option<u32>) {
        let mut new = new;
        compare(&mut new, before.iter(), 6);
        (new.measured.trend, new.measured.trend_runs)
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn three_runs_like_it_are_needed_and_others_do_not_count() {
        let like = run("db", 10.0, GIB);
        let other_cores = Evidence { machine: Machine { cores: 64, ..like.machine.clone() }, ..like.clone() };
        let mut before = vec![like.clone(), run("files", 1.0, GIB), other_cores, like.clone()];
        assert_eq!(trend(run("db", 20.0, GIB), &before), (None, Some(2)));
        before.push(like);
        assert_eq!(trend(run("db", 20.0, GIB), &before), (Some(2.0), Some(3)));
        // Twice the data may take twice the time.
        assert_eq!(trend(run("db", 20.0, 2 * GIB), &before), (Some(1.0), Some(3)));
        let mut never = run("db", 1.0, GIB);
        never.measured.recovery_seconds = None;
        assert_eq!(trend(never, &before), (None, None));
    }

    #[test]
    fn a_difference_under_a_second_is_none() {
        let before = vec![run("db", 0.2, 10); 3];
        assert_eq!(trend(run("db", 0.9, 10), &before), (Some(1.0), Some(3)));
        assert_eq!(trend(run("db", 1.6, 10), &before), (Some(8.0), Some(3)));
        let slow = Measured { trend: Some(8.0), trend_runs: Some(3), ..Measured::default() };
        assert!(is_slower(&slow) && words(&slow).unwrap().ends_with("3 runs like it: slower than it was"));
        let few = Measured { trend_runs: Some(1), ..Measured::default() };
        assert_eq!(words(&few).unwrap(), "too few runs like it to tell: 1 of 3");
    }
}
