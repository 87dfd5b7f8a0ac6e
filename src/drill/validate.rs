//! What is done with the restored state before it counts: the checks that every drill makes, the steps that the
//! drill names, and the checks that it asks for, in this order.

use super::Spec;
use super::check::{self, CheckOutcome, CheckResult, CheckSpec, Restored, command};
use super::evidence::Evidence;
use super::spec::Step;
use crate::base::cancel::Cancelled;
use crate::engine::restore::service::waiting;

/// Why nothing is asked after a step that failed.
const AFTER_A_STEP: &str = "a step before it failed";

/// Asks what every drill asks, unless the drill asks it itself and changes nothing before: once is enough then.
///
/// # Errors
/// The run was cancelled.
pub async fn usual(
    spec: &Spec,
    restored: &mut Restored<'_>,
    evidence: &mut Evidence,
) -> Result<(), Cancelled> {
    for usual in CheckSpec::usual(restored.kind) {
        if spec.steps.is_empty() && spec.checks.contains(&usual) {
            continue;
        }
        restored.cancel.check()?;
        for result in check::check(&usual, restored).await {
            // Nobody asked for it by name: what cannot be compared is told, and fails nothing.
            match result.outcome {
                CheckOutcome::Skipped => {
                    evidence.not_tested.push(format!("{}: {}", result.name, result.detail));
                }
                _ => evidence.checks.push(result),
            }
        }
    }
    Ok(())
}

/// Runs the drill's steps; false if one failed. What comes after it is not run.
///
/// # Errors
/// The run was cancelled.
pub fn steps(spec: &Spec, restored: &mut Restored<'_>, evidence: &mut Evidence) -> Result<bool, Cancelled> {
    for (place, step) in spec.steps.iter().enumerate() {
        restored.cancel.check()?;
        let start = std::time::Instant::now();
        let done = waiting(|| match step {
            Step::Command(words) => {
                command::run(words, restored.sandbox.as_ref(), restored.redactor, restored.cancel)
            }
            Step::Sql(sql) => {
                let done = restored.sandbox.execute(sql).map(|()| "done".to_owned());
                done.map_err(|error| restored.redactor.clean(&error.to_string()))
            }
        });
        restored.cancel.check()?;
        let ok = done.is_ok();
        let (outcome, detail) = match done {
            Ok(said) => (CheckOutcome::Passed, if said.is_empty() { "done".into() } else { said }),
            Err(why) => (CheckOutcome::Failed, why),
        };
        let seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let (is_data, proves_data) = (false, false);
        evidence.checks.push(CheckResult {
            seconds,
            is_data,
            proves_data,
            ..CheckResult::new(step.title(), outcome, detail)
        });
        if !ok {
            let skipped = |title: String| CheckResult {
                is_data,
                proves_data,
                ..CheckResult::new(title, CheckOutcome::Skipped, AFTER_A_STEP)
            };
            let left = spec.steps[place + 1..].iter().map(|step| skipped(step.title()));
            evidence.checks.extend(left);
            evidence.checks.extend(spec.checks.iter().map(|check| skipped(check.title())));
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks what the drill asks for.
///
/// # Errors
/// The run was cancelled.
pub async fn asked(
    spec: &Spec,
    restored: &mut Restored<'_>,
    evidence: &mut Evidence,
) -> Result<(), Cancelled> {
    for wanted in &spec.checks {
        restored.cancel.check()?;
        evidence.checks.extend(check::check(wanted, restored).await);
    }
    restored.cancel.check()
}
