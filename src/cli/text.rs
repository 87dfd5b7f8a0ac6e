//! Words and columns for people: times, spans, hostile names, tables.

use std::time::Duration;

use jiff::tz::TimeZone;

pub use crate::base::byte_size::{count, plural};
use crate::base::names;
pub use crate::base::names::shown;
use crate::config::parse_duration;
use crate::drill::history::RESERVED;
use crate::format::entry::Timestamp;
use crate::format::manifest::NAME_LIMIT;
use crate::repo::from_timestamp;
use crate::repo::snapshots::parse_time;

/// `2026-11-22 00:43:58` in the system's zone.
pub fn local_time(time: Timestamp) -> String {
    from_timestamp(time).to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2026-11-22T00:43:58.123Z`, for programs.
pub fn iso_time(time: Timestamp) -> String {
    from_timestamp(time).to_string()
}

/// `4 ms`, `0.42 s`, `3.1 s`, `2 min 05 s`, `1 h 02 min`.
pub fn span(time: Duration) -> String {
    let (seconds, whole) = (time.as_secs_f64(), time.as_secs());
    match whole {
        0 if seconds < 0.1 => format!("{} ms", time.as_millis()),
        0 => format!("{seconds:.2} s"),
        1..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// A moment: a time of its own (`2026-11-20`, `2026-11-20T02:00`, `2026-11-20T02:00:00Z`), or how long ago (`36h`,
/// `30d`).
pub fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    if let Some(time) = parse_time(text) {
        return Ok(time);
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let ago = match days {
        Some(days) => Some(Duration::from_secs(u64::from(days) * 86_400)),
        None => parse_duration(text).ok(),
    };
    let then = ago.and_then(|ago| jiff::Timestamp::now().checked_sub(ago).ok());
    then.ok_or_else(|| {
        "write a time such as 2026-11-20 or 2026-11-20T02:00, or how long ago: 36h, 30d".to_owned()
    })
}

/// A host's or tag's name, a reason, as an argument: harmless to print.
pub fn name(text: &str) -> Result<String, String> {
    names::check(text, NAME_LIMIT).map(|()| text.to_owned())
}

/// A job's name as an argument: a name, and none under which something else is kept.
pub fn job(text: &str) -> Result<String, String> {
    match text.starts_with(RESERVED) {
        true => Err(format!("jobs called {RESERVED}… hold the evidence of drills: choose another name")),
        false => name(text),
    }
}

/// Columns two spaces apart, the first row being the head. Columns listed in `right` are aligned to the right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |text: &str| text.chars().count();
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[column] - width(cell));
            match right.contains(&column) {
                true => line += &(space + cell),
                false => line += &(cell.clone() + &space),
            }
            line += "  ";
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let at = |text: &str| moment(text).unwrap();
        assert_eq!(at("2026-11-20T02:00:00Z").to_string(), "2026-11-20T02:00:00Z");
        assert!(at("2026-11-20") <= at("2026-11-20T00:01"));
        let ago = |text| (jiff::Timestamp::now().duration_since(at(text)).as_secs_f64() / 3600.0).round();
        assert_eq!((ago("36h"), ago("30d")), (36.0, 720.0));
        assert!(moment("yesterday").unwrap_err().contains("30d"));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["ID".into(), "Size".into()], vec!["abcd".into(), "7".into()]];
        assert_eq!(table(&rows, &[1]), "ID    Size\nabcd     7");
        assert_eq!(table(&[], &[]), "");
    }

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1 000", "1 234 567"]);
        let spans = [0.004, 0.5, 7.25, 65.0, 7320.0].map(|seconds| span(Duration::from_secs_f64(seconds)));
        assert_eq!(spans, ["4 ms", "0.50 s", "7.2 s", "1 min 05 s", "2 h 02 min"]);
    }
}
