//! Verify's own small promises; what it finds in damaged repositories is in the integration tests.

use super::outcome::{Report, State};

#[test]
fn counts_go_on_where_lists_end() {
    let mut report = Report::default();
    for n in 0..5000 {
        report.add(State::Damaged, format!("data/{n}"), "x");
        report.note(format!("note {n}"));
    }
    let outcome = report.finish();
    assert_eq!((outcome.damaged, outcome.findings.len(), outcome.notes.len()), (5000, 1000, 200));
    assert!(outcome.is_damaged());
}
