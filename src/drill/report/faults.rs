//! Injected faults and the beginning of a recovery in each form of report.

use std::fmt::Write as _;

use maud::{Markup, html};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::span;
use crate::drill::evidence::Evidence;
use crate::drill::fault::{FaultResult, Outcome};

fn sign(fault: &FaultResult) -> &'static str {
    if fault.is_as_declared() { "✓" } else { "✗" }
}

/// For a terminal; what comes from storage is not yet escaped.
pub fn lines(evidence: &Evidence) -> Vec<String> {
    let mut lines = Vec::new();
    for fault in &evidence.faults {
        let (name, words, took) = (fault.title(), fault.words(), span(fault.seconds));
        lines.push(format!("{} fault {name}: {words} ({took})", sign(fault)));
        lines.push(format!("    {}: {}", fault.injected, fault.detail));
    }
    lines
}

/// A table in Markdown. `cell` makes text harmless.
pub fn markdown(evidence: &Evidence, cell: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    if evidence.faults.is_empty() {
        return text;
    }
    text.push_str("\n| Fault | | Outcome | Time | |\n|---|---|---|---:|---|\n");
    for fault in &evidence.faults {
        let sign = if fault.is_as_declared() { "✅" } else { "❌" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {}: {} | {sign} | {} | {} | {} |",
            cell(&fault.title()),
            cell(&fault.injected),
            cell(&fault.words()),
            span(fault.seconds),
            cell(&fault.detail)
        );
    }
    text
}

/// A section of the page.
pub fn html(evidence: &Evidence) -> Markup {
    html! {
        @if !evidence.faults.is_empty() {
            h2 { "Faults, each injected into a view of the storage" }
            table.f.wide {
                @for fault in &evidence.faults {
                    tr {
                        td.s {
                            @let class = if fault.is_as_declared() { "good" } else { "bad" };
                            span class=(class) { (fault.words().replace('_', " ")) }
                        }
                        th { (fault.title()) }
                        td { span.soft { (fault.injected) } br; (fault.detail) }
                        td.n { (span(fault.seconds)) }
                    }
                }
            }
        }
    }
}

/// A test case a fault.
pub fn junit(evidence: &Evidence, suite: &mut TestSuite) {
    for fault in &evidence.faults {
        let mut status = match (fault.is_as_declared(), fault.outcome) {
            (true, _) => TestCaseStatus::success(),
            (false, Outcome::NotRun) => TestCaseStatus::non_success(NonSuccessKind::Error),
            (false, _) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        };
        if !fault.is_as_declared() {
            status.set_message(format!("{}: {}", fault.words(), fault.detail));
        }
        let name = format!("fault {}: {}", fault.title(), fault.expected.name());
        let mut case = TestCase::new(name, status);
        case.set_classname(evidence.name.clone());
        case.set_time(std::time::Duration::from_secs_f64(fault.seconds.max(0.0)));
        case.set_system_out(format!("{}: {}", fault.injected, fault.detail));
        suite.add_test_case(case);
    }
}
