//! How old the newest row is against the instant the data is true for: a backup that runs well on a replica that
//! stopped replicating, or of yesterday's copy, is caught by nothing else.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Answer, Broken, Restored};
use crate::drill::report::span;
use crate::drill::sandbox::SandboxKind;
use crate::repo::from_timestamp;
use crate::source::difference::Difference;
use crate::source::postgres::ident;

/// Later numbers count milliseconds: as seconds they would lie beyond the year 5000.
const SECONDS_UNTIL: i64 = 100_000_000_000;
/// Clocks of servers and of this machine differ a little.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// `[DATABASE:][SCHEMA.]TABLE.COLUMN`
#[derive(Debug, PartialEq, Eq)]
pub struct Column<'t> {
    database: Option<&'t str>,
    table: Vec<&'t str>,
    column: &'t str,
}

impl<'t> Column<'t> {
    pub fn parse(text: &'t str) -> Option<Self> {
        let (database, rest) = match text.split_once(':') {
            Some((database, rest)) => (Some(database.trim()), rest),
            None => (None, text),
        };
        let (table, column) = rest.trim().rsplit_once('.')?;
        let table: Vec<&str> = table.split('.').collect();
        let whole = !column.is_empty() && table.len() <= 2 && table.iter().all(|part| !part.is_empty());
        (whole && database != Some("")).then_some(Self { database, table, column })
    }

    fn query(&self, kind: SandboxKind) -> String {
        let table: Vec<String> = self.table.iter().map(|part| ident(part)).collect();
        let (column, table) = (ident(self.column), table.join("."));
        let query = match kind {
            // Times without a zone are read as UTC.
            SandboxKind::Postgres => format!("SELECT extract(epoch FROM max({column})) FROM {table}"),
            _ => format!("SELECT max({column}) FROM {table}"),
        };
        match self.database {
            Some(database) => format!("{database}: {query}"),
            None => query,
        }
    }
}

pub fn check(of: &str, within: Duration, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let column = Column::parse(of).ok_or("it is no TABLE.COLUMN")?;
    let value = restored.sandbox.sql(&column.query(restored.kind)).map_err(|error| error.to_string())?;
    let limit = format!("at most {} before the data's own time", span(within.as_secs_f64()));
    let value = match value.as_deref() {
        None | Some("" | "null") => return Ok(Answer::wrong(of, limit, "no row at all")),
        Some(value) => value.to_owned(),
    };
    let newest = instant(&value).ok_or_else(|| format!("{value:?} is no time"))?;
    let consistent = from_timestamp(restored.selected.snapshot.summary.consistent);
    let age = consistent.duration_since(newest);
    if age < -AHEAD {
        let why = "a clock was wrong, or the column holds times to come";
        let found = format!("{} after it", span((-age).as_secs_f64()));
        return Ok(Answer::Differs(vec![Difference::new(of, limit, found).because(why)]));
    }
    let age = Duration::try_from(age).unwrap_or_default();
    let told = format!("newest is {} before the consistency point", span(age.as_secs_f64()));
    if age <= within {
        return Ok(Answer::Proven(told));
    }
    let why = "the snapshot is of data that had stopped changing";
    Ok(Answer::Differs(vec![Difference::new(of, limit, format!("newest is {newest}")).because(why)]))
}

/// A time as databases give it: seconds or milliseconds since 1970, RFC 3339, or without a zone, which means UTC.
fn instant(text: &str) -> Option<Timestamp> {
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if number.abs() < SECONDS_UNTIL as f64 { number } else { number / 1000.0 };
        return Timestamp::from_duration(SignedDuration::try_from_secs_f64(seconds).ok()?).ok();
    }
    let zoned = text.parse::<Timestamp>().ok();
    zoned.or_else(|| {
        text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_named_with_its_table() {
        let column = Column::parse("shop: public.orders.created_at").unwrap();
        assert_eq!(
            column.query(SandboxKind::Postgres),
            "shop: SELECT extract(epoch FROM max(\"created_at\")) FROM \"public\".\"orders\""
        );
        let hostile = Column::parse("a\"; drop table b.c").unwrap();
        assert_eq!(hostile.query(SandboxKind::Sqlite), "SELECT max(\"c\") FROM \"a\"\"; drop table b\"");
        for wrong in ["orders", "orders.", ".at", "a.b.c.d", ":a.b", ""] {
            assert_eq!(Column::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_read_in_the_forms_there_are() {
        let expected = "2026-11-21T14:00:00Z".parse::<Timestamp>().unwrap();
        for text in [
            "2026-11-21T14:00:00Z",
            "2026-11-21 14:00:00",
            "2026-11-21T14:00:00",
            "2026-11-21 15:00:00+01:00",
            "1795269600",
            "1795269600.000000",
            "1795269600000",
        ] {
            assert_eq!(instant(text), Some(expected), "{text}");
        }
        assert_eq!(instant("yesterday"), None);
        assert_eq!(instant("NaN"), None);
    }
}
