//! Evidence in the forms that people and CI systems read. The JSON is the record; these are views of it.

pub mod faults;
pub mod html;
pub mod junit;
pub mod lanes;
pub mod markdown;

use super::evidence::{ComponentRow, CopyRow};

/// `4m52`, `3.25s`, `2h04`: short, and right to three figures.
pub fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 if seconds < 10.0 => format!("{seconds:.2}s"),
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m{:02}", whole / 60, whole % 60),
        _ if whole < 48 * 3600 => format!("{}h{:02}", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{}h", whole / 86400, whole % 86400 / 3600),
    }
}

/// `2026-11-21 14:00:03` of an RFC 3339 time in UTC; what it is otherwise.
pub fn short_time(text: &str) -> String {
    match (text.get(..19), text.ends_with('Z')) {
        (Some(head), true) => format!("{} UTC", head.replace('T', " ")),
        _ => text.to_owned(),
    }
}

/// Of when a component's data is, and of which machine if that is not the one that drilled; `–`: it has none.
pub fn data_of(row: &ComponentRow, own: &str) -> String {
    match &row.snapshot {
        None => "–".into(),
        Some(found) if found.host == own => short_time(&found.consistent_at),
        Some(found) => format!("{} of {}", short_time(&found.consistent_at), found.host),
    }
}

/// `14m52 of 30m00: met`, for RTO and RPO alike.
pub fn against(measured: Option<f64>, objective: Option<f64>) -> String {
    match (measured, objective) {
        (Some(measured), Some(objective)) => {
            let verdict = if measured <= objective { "met" } else { "MISSED" };
            format!("{} of {}: {verdict}", span(measured), span(objective))
        }
        (Some(measured), None) => format!("{}, no objective", span(measured)),
        (None, Some(objective)) => format!("not measured, objective {}", span(objective)),
        (None, None) => "not measured, no objective".into(),
    }
}

/// What another copy of the repository would leave.
pub fn left(copy: &CopyRow) -> String {
    match (copy.exposure_seconds, &copy.problem) {
        (Some(exposure), _) => span(exposure),
        (None, Some(problem)) => format!("not known: {problem}"),
        (None, None) => "not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let said = [0.25, 9.994, 12.0, 59.7, 61.0, 3599.0, 3840.0, 200_000.0].map(span);
        assert_eq!(said, ["0.25s", "9.99s", "12.0s", "1m00", "1m01", "59m59", "1h04", "2d7h"]);
    }
}
