//! Cron expressions: when a job is due, and how far apart its runs can lie.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Runs looked at for the longest interval: more than a year of daily ones, and a week of one every half hour.
const RUNS: usize = 400;

/// A schedule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// When a job is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: croner::Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads a cron expression of five fields, or a name such as `@daily`, in a time zone.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, ScheduleError> {
        let parsed = text.parse::<croner::Cron>();
        let cron = parsed.map_err(|error| ScheduleError(format!("{text:?}: {error}")))?;
        let schedule = Self { cron, zone };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError(format!("{text:?} is never due: there is no such day"))),
        }
    }

    /// The first run after an instant; `None` when there is none any more.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after: Zoned = after.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp())
    }

    /// The longest time between two runs in a row from an instant on.
    pub fn longest_interval(&self, from: Timestamp) -> Option<Duration> {
        let mut last = self.next(from)?;
        let mut longest = None;
        for _ in 0..RUNS {
            let next = self.next(last)?;
            longest = longest.max(Duration::try_from(next.duration_since(last)).ok());
            last = next;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(text: &str, zone: &str) -> Duration {
        let schedule = Schedule::parse(text, TimeZone::get(zone).unwrap()).unwrap();
        schedule.longest_interval("2026-11-21T00:00:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_longest_interval_counts_not_the_usual_one() {
        let hours = |number: u64| Duration::from_secs(number * 3600);
        assert_eq!(longest("0 */6 * * *", "UTC"), hours(6));
        // Working hours only: nights are long, weekends longer.
        assert_eq!(longest("0 9-17 * * 1-5", "UTC"), hours(64));
        // The day on which the clock goes back has 25 hours.
        assert_eq!(longest("0 12 * * *", "Europe/Madrid"), hours(25));
    }

    #[test]
    fn nonsense_is_named() {
        let said = Schedule::parse("61 * * * *", TimeZone::UTC).unwrap_err().to_string();
        assert!(said.starts_with("\"61 * * * *\": "), "{said}");
        assert!(Schedule::parse("", TimeZone::UTC).is_err());
        for never in ["0 3 31 2 *", "0 3 31 4,6,9,11 *", "0 0 30 2 *"] {
            let said = Schedule::parse(never, TimeZone::UTC).unwrap_err().to_string();
            assert_eq!(said, format!("{never:?} is never due: there is no such day"));
        }
        assert!(Schedule::parse("0 3 29 2 *", TimeZone::UTC).is_ok());
    }
}
