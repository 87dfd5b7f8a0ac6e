//! A drill's run as people read it on a terminal.

use super::super::text::{plural, shown};
use crate::base::byte_size::human;
use crate::drill::check::{CheckOutcome, CheckResult};
use crate::drill::evidence::{CopyRow, Evidence};
use crate::drill::report::{faults, left, span};
use crate::drill::trend;

/// Longest name that others are lined up with; a query is longer.
const NAME_WIDTH: usize = 14;

/// Phases by the names of what happens in them: what is fetched is restored as it comes.
fn phase(name: &str) -> &str {
    match name {
        "locate" => "locate, unlock",
        "restore" => "fetch, restore",
        name => name,
    }
}

/// `2026-11-21 14:00:03 UTC`
fn time(rfc3339: &str) -> String {
    let parsed = rfc3339.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| shown(rfc3339.as_bytes()), |time| time.strftime("%F %T UTC").to_string())
}

/// See the module.
pub fn text(evidence: &Evidence) -> String {
    with_result(evidence, "")
}

/// The same; `more` stands behind the verdict.
pub fn with_result(evidence: &Evidence, more: &str) -> String {
    let mut lines = head(evidence);
    match &evidence.stack {
        Some(stack) => lines.extend(super::table::lines(evidence, stack)),
        None => {
            lines.push(String::new());
            lines.extend(phases(evidence));
        }
    }
    if !evidence.checks.is_empty() || !evidence.not_tested.is_empty() {
        lines.push(String::new());
    }
    lines.extend(evidence.checks.iter().map(check));
    lines.extend(faults::lines(evidence).iter().map(|line| shown(line.as_bytes())));
    lines.extend(evidence.not_tested.iter().map(|what| format!("– not tested: {}", shown(what.as_bytes()))));
    lines.push(String::new());
    lines.extend(measured(evidence));
    lines.push(format!("Result: {}{more}", evidence.verdict.words()));
    if let Some(reason) = &evidence.reason {
        lines.extend(reason.lines().map(|line| format!("  {}", shown(line.as_bytes()))));
    }
    lines.join("\n")
}

fn head(evidence: &Evidence) -> Vec<String> {
    let first = format!("Drill {} #{}", shown(evidence.name.as_bytes()), evidence.number);
    let began =
        evidence.start.as_ref().map(|start| format!("Began with the {}", shown(start.words().as_bytes())));
    let Some(row) = &evidence.snapshot else { return [first].into_iter().chain(began).collect() };
    let id = row.id.get(..8).unwrap_or_default();
    let (job, host) = (shown(row.job.as_bytes()), shown(row.host.as_bytes()));
    let mut lines = vec![format!("{first}   snapshot {id} of {job} on {host}")];
    let machine = &evidence.machine;
    if let Some(sandbox) = &evidence.sandbox {
        let cores = plural(machine.cores as u64, "core");
        lines.push(format!(
            "Sandbox: {} · {cores} of {}",
            shown(sandbox.as_bytes()),
            shown(machine.host.as_bytes())
        ));
    }
    lines.extend(began);
    let age = evidence.measured.exposure_seconds;
    let age = age.map_or_else(String::new, |age| format!(", {} ago", span(age)));
    let bytes = match evidence.restored_bytes {
        0 => String::new(),
        bytes => format!(" · {} restored", human(bytes)),
    };
    let from = shown(evidence.repository.as_bytes());
    lines.push(format!("Data of {}{age}{bytes} from {from}", time(&row.consistent_at)));
    lines
}

fn phases(evidence: &Evidence) -> Vec<String> {
    let mut rows: Vec<(&str, String)> =
        evidence.phases.iter().map(|done| (phase(&done.name), span(done.seconds))).collect();
    if let Some(seconds) = evidence.measured.recovery_seconds {
        rows.push(("ready at", span(seconds)));
    }
    if rows.is_empty() {
        return rows.into_iter().map(|_| String::new()).collect();
    }
    let names = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut lines = vec![format!("{:<names$}  {:>8}", "PHASE", "TIME")];
    lines.extend(rows.iter().map(|(name, time)| format!("{name:<names$}  {time:>8}")));
    lines
}

fn check(check: &CheckResult) -> String {
    let sign = match check.outcome {
        CheckOutcome::Passed => "✓",
        CheckOutcome::Failed => "✗",
        CheckOutcome::Skipped => "–",
    };
    let (name, detail) = (shown(check.name.as_bytes()), shown(check.detail.as_bytes()));
    let skipped = if check.outcome == CheckOutcome::Skipped { "skipped: " } else { "" };
    match name.chars().count() {
        0..=NAME_WIDTH => format!("{sign} {name:<NAME_WIDTH$} {skipped}{detail}"),
        _ => format!("{sign} {name}: {skipped}{detail}"),
    }
}

fn verdict(measured: Option<f64>, objective: Option<f64>) -> String {
    match (measured, objective) {
        (Some(measured), Some(limit)) => {
            format!(" of {}   {}", span(limit), if measured <= limit { "MET" } else { "MISSED" })
        }
        (None, Some(limit)) => format!(", objective {}   MISSED", span(limit)),
        (_, None) => ", no objective".into(),
    }
}

fn measured(evidence: &Evidence) -> Vec<String> {
    let (measured, objectives) = (&evidence.measured, &evidence.objectives);
    let recovery = match (measured.recovery_seconds, measured.end_to_end_seconds) {
        (Some(recovery), Some(whole)) if measured.declared_seconds > 0.0 => format!(
            "measured {} + declared {} to detect and decide = {}",
            span(recovery),
            span(measured.declared_seconds),
            span(whole)
        ),
        (Some(recovery), _) => format!("measured {}", span(recovery)),
        (None, _) => "not measured".into(),
    };
    let mut lines =
        vec![format!("RTO   {recovery}{}", verdict(measured.end_to_end_seconds, objectives.rto_seconds))];
    let exposure = measured.exposure_seconds.map_or_else(|| "not measured".to_owned(), span);
    let mut line = format!("RPO   {exposure}{}", verdict(measured.exposure_seconds, objectives.rpo_seconds));
    if let Some(worst) = measured.worst_exposure_seconds {
        line.push_str(&format!(" · worst in {} d: {}", measured.window_days, span(worst)));
    }
    match measured.proven_worst_seconds {
        Some(proven) => line.push_str(&format!(" · proven: {}", span(proven))),
        None if measured.worst_exposure_seconds.is_some() && evidence.stack.is_none() => {
            line.push_str(" · proven: nothing yet")
        }
        None => {}
    }
    lines.push(line);
    lines.extend(measured.copies.iter().map(copy));
    lines.extend(trend::words(measured).map(|words| format!("Trend {words}")));
    lines
}

fn copy(copy: &CopyRow) -> String {
    let of = copy.consistent_at.as_ref().map_or_else(String::new, |at| format!(", data of {}", time(at)));
    format!("      in {} {}{of}", shown(copy.name.as_bytes()), shown(left(copy).as_bytes()))
}
