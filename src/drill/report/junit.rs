//! JUnit XML: a test suite a drill, a test case a check, and one for each objective.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{against, span};
use crate::drill::DrillError;
use crate::drill::check::CheckOutcome;
use crate::drill::evidence::{Evidence, Verdict};

/// Writes it.
///
/// # Errors
/// It cannot be written as XML.
pub fn junit(evidence: &Evidence) -> Result<String, DrillError> {
    let mut report = Report::new("lifeboat drill");
    let mut suite = TestSuite::new(evidence.name.clone());
    for check in &evidence.checks {
        let mut status = match check.outcome {
            CheckOutcome::Passed => TestCaseStatus::success(),
            CheckOutcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
            CheckOutcome::Skipped => TestCaseStatus::skipped(),
        };
        if check.outcome != CheckOutcome::Passed {
            status.set_message(check.detail.clone());
        }
        let mut case = TestCase::new(check.name.clone(), status);
        case.set_classname(evidence.name.clone());
        case.set_time(std::time::Duration::from_secs_f64(check.seconds.max(0.0)));
        case.set_system_out(check.detail.clone());
        suite.add_test_case(case);
    }
    super::faults::junit(evidence, &mut suite);
    let objectives = [
        ("RTO", evidence.measured.end_to_end_seconds, evidence.objectives.rto_seconds),
        ("RPO", evidence.measured.exposure_seconds, evidence.objectives.rpo_seconds),
    ];
    for (name, measured, objective) in objectives {
        let Some(limit) = objective else { continue };
        let status = match measured {
            Some(measured) if measured <= limit => TestCaseStatus::success(),
            _ => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(against(measured, objective));
                status
            }
        };
        let mut case = TestCase::new(format!("{name} within {}", span(limit)), status);
        case.set_classname(evidence.name.clone());
        suite.add_test_case(case);
    }
    for row in evidence.stack.iter().flat_map(|stack| &stack.components) {
        let mut status = match row.verdict {
            Verdict::Met => TestCaseStatus::success(),
            Verdict::CouldNotRun | Verdict::Interrupted => TestCaseStatus::non_success(NonSuccessKind::Error),
            _ => TestCaseStatus::non_success(NonSuccessKind::Failure),
        };
        if let Some(reason) = &row.reason {
            status.set_message(reason.clone());
        }
        let mut case = TestCase::new(format!("component {}", row.name), status);
        case.set_classname(evidence.name.clone());
        let took = row.ready_seconds.unwrap_or_default() - row.began_seconds.unwrap_or_default();
        case.set_time(std::time::Duration::try_from_secs_f64(took).unwrap_or_default());
        suite.add_test_case(case);
    }
    // What kept a drill from its end is no check's failure, and must not look like a pass.
    if matches!(evidence.verdict, Verdict::CouldNotRun | Verdict::Interrupted | Verdict::DataWrong) {
        let kind = match evidence.verdict {
            Verdict::DataWrong => NonSuccessKind::Failure,
            _ => NonSuccessKind::Error,
        };
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(evidence.reason.clone().unwrap_or_default());
        let mut case = TestCase::new("drill", status);
        case.set_classname(evidence.name.clone());
        suite.add_test_case(case);
    }
    report.add_test_suite(suite);
    report.to_string().map_err(|error| DrillError::Evidence(format!("cannot be written as JUnit: {error}")))
}
