//! Calendar periods as retention rules name them: `2y5m7d3h`.
//!
//! Years and months are calendar units, so a period has no length of its own, only a beginning once its end is
//! known. Counting back clamps to the last day of a shorter month (31 March less one month is the end of
//! February), which keeps a little more rather than a little less.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Years, months, days and hours; never zero altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    years: u16,
    months: u16,
    days: u16,
    hours: u16,
}

/// Text that is not a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a period: write years, months, weeks, days and hours such as 1y6m or 7d12h, above zero"
)]
pub struct PeriodError(String);

impl Period {
    /// The instant this period before `end`, by the calendar of `zone`: first years and months, then days, each
    /// at the same time of day, then hours as they pass. Periods longer than recorded time begin with it.
    pub fn before(&self, end: Timestamp, zone: &TimeZone) -> Timestamp {
        let start = || {
            let calendar = Span::new()
                .try_years(self.years)
                .ok()?
                .try_months(self.months)
                .ok()?
                .try_days(self.days)
                .ok()?;
            let day = end.to_zoned(zone.clone()).checked_sub(calendar).ok()?;
            day.checked_sub(Span::new().try_hours(self.hours).ok()?).ok()
        };
        start().map_or(Timestamp::MIN, |zoned| zoned.timestamp())
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    /// Reads numbers each followed by `y`, `m`, `w`, `d` or `h`, each unit at most once; a week is seven days.
    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let wrong = || PeriodError(text.to_owned());
        let mut counts = [0u16; 5];
        let mut rest = text.trim();
        let mut seen = [false; 5];
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let count = rest[..digits].parse().map_err(|_| wrong())?;
            let unit = rest[digits..].chars().next().and_then(|c| "ymwdh".find(c)).ok_or_else(wrong)?;
            if std::mem::replace(&mut seen[unit], true) {
                return Err(wrong());
            }
            counts[unit] = count;
            rest = &rest[digits + 1..];
        }
        let [years, months, weeks, days, hours] = counts;
        let days = weeks.checked_mul(7).and_then(|w| w.checked_add(days)).ok_or_else(wrong)?;
        if [years, months, days, hours] == [0; 4] {
            return Err(wrong());
        }
        Ok(Self { years, months, days, hours })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_prints_what_it_read() {
        for (text, printed) in
            [("2y5m7d3h", "2y5m7d3h"), (" 3h2y ", "2y3h"), ("1w1d", "8d"), ("65535d", "65535d")]
        {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), printed);
        }
        for text in ["", "0d", "7", "d", "7x", "-1d", "1d1d", "65536d", "9999w", "1.5d", "7 d", "1d é"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn counting_back_follows_the_calendar() {
        let table = [
            ("Europe/Berlin", "2026-03-31T12:00[Europe/Berlin]", "1m", "2026-02-28T12:00[Europe/Berlin]"),
            ("Europe/Berlin", "2024-03-31T12:00[Europe/Berlin]", "1m", "2024-02-29T12:00[Europe/Berlin]"),
            // The day with 23 hours: a day back keeps the time of day, 24 hours back do not.
            ("Europe/Berlin", "2026-03-29T12:00[Europe/Berlin]", "1d", "2026-03-28T12:00[Europe/Berlin]"),
            ("Europe/Berlin", "2026-03-29T12:00[Europe/Berlin]", "24h", "2026-03-28T11:00[Europe/Berlin]"),
            ("UTC", "2026-11-20T02:00[UTC]", "2y5m7d3h", "2024-06-12T23:00[UTC]"),
        ];
        for (zone, end, period, start) in table {
            let zone = TimeZone::get(zone).unwrap();
            let end: jiff::Zoned = end.parse().unwrap();
            let start: jiff::Zoned = start.parse().unwrap();
            let found = period.parse::<Period>().unwrap().before(end.timestamp(), &zone);
            assert_eq!(found, start.timestamp(), "{period} before {end}");
        }
    }

    #[test]
    fn a_period_longer_than_time_begins_with_it() {
        let period: Period = "65535y".parse().unwrap();
        assert_eq!(period.before(Timestamp::UNIX_EPOCH, &TimeZone::UTC), Timestamp::MIN);
    }
}
