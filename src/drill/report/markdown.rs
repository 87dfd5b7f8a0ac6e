//! A job summary in Markdown.

use std::fmt::Write as _;

use super::{against, data_of, left, short_time, span};
use crate::drill::check::CheckOutcome;
use crate::drill::evidence::{Evidence, StackRow};
use crate::drill::trend;

/// Text that shows as itself in a table's cell.
fn cell(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => escaped.push(' '),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '~' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Writes it.
pub fn markdown(evidence: &Evidence) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_to(&mut text, evidence);
    text
}

fn write_to(text: &mut String, evidence: &Evidence) -> std::fmt::Result {
    let sign = if evidence.verdict.is_passed() { "✅" } else { "❌" };
    let (name, number) = (cell(&evidence.name), evidence.number);
    writeln!(text, "## {sign} Drill {name} #{number}: {}\n", evidence.verdict.words())?;
    if let Some(reason) = &evidence.reason {
        writeln!(text, "{}\n", cell(reason))?;
    }
    let measured = &evidence.measured;
    writeln!(text, "| | |\n|---|---|")?;
    if let Some(row) = &evidence.snapshot {
        let id = row.id.get(..8).unwrap_or_default();
        writeln!(text, "| Snapshot | {id} of {} on {} |", cell(&row.job), cell(&row.host))?;
        writeln!(text, "| Data of | {} |", row.consistent_at)?;
    }
    if let Some(start) = &evidence.start {
        writeln!(text, "| Began with | {} |", cell(&start.words()))?;
    }
    if let Some(sandbox) = &evidence.sandbox {
        writeln!(text, "| Sandbox | {} |", cell(sandbox))?;
    }
    let machine = &evidence.machine;
    writeln!(
        text,
        "| Machine | {}, {} cores, {} |",
        cell(&machine.host),
        machine.cores,
        cell(&machine.system)
    )?;
    writeln!(text, "| RTO | {} |", against(measured.end_to_end_seconds, evidence.objectives.rto_seconds))?;
    writeln!(text, "| RPO | {} |", against(measured.exposure_seconds, evidence.objectives.rpo_seconds))?;
    if let Some(worst) = measured.worst_exposure_seconds {
        writeln!(text, "| Worst loss in {} days | {} |", measured.window_days, span(worst))?;
        let proven = measured.proven_worst_seconds.map_or_else(|| "nothing yet".into(), span);
        writeln!(text, "| Of it proven by drills | {proven} |")?;
    }
    for copy in &measured.copies {
        writeln!(text, "| Left in {} | {} |", cell(&copy.name), cell(&left(copy)))?;
    }
    if let Some(words) = trend::words(measured) {
        let flag = if trend::is_slower(measured) { "⚠ " } else { "" };
        writeln!(text, "| Trend | {flag}{words} |")?;
    }
    match &evidence.stack {
        Some(stack) => components(text, evidence, stack)?,
        None => {
            writeln!(text, "\n| Phase | Time |\n|---|---:|")?;
            for phase in &evidence.phases {
                writeln!(text, "| {} | {} |", cell(&phase.name), span(phase.seconds))?;
            }
        }
    }
    if !evidence.checks.is_empty() {
        writeln!(text, "\n| Check | | |\n|---|---|---|")?;
        for check in &evidence.checks {
            let sign = match check.outcome {
                CheckOutcome::Passed => "✅",
                CheckOutcome::Failed => "❌",
                CheckOutcome::Skipped => "– skipped",
            };
            writeln!(text, "| {} | {sign} | {} |", cell(&check.name), cell(&check.detail))?;
        }
    }
    text.push_str(&super::faults::markdown(evidence, cell));
    if !evidence.not_tested.is_empty() {
        writeln!(text, "\nNot tested: {}", cell(&evidence.not_tested.join("; ")))?;
    }
    Ok(())
}

/// A stack's components, one a line.
fn components(text: &mut String, evidence: &Evidence, stack: &StackRow) -> std::fmt::Result {
    let skew = stack.skew_seconds.map(|skew| format!(", its parts {} apart", span(skew))).unwrap_or_default();
    writeln!(text, "| Stack | {} as of {}{skew} |", cell(&stack.name), short_time(&stack.at))?;
    if evidence.measured.recovery_seconds.is_some() {
        writeln!(text, "| Critical path | {} |", cell(&stack.critical_path.join(" → ")))?;
    }
    writeln!(
        text,
        "\n| Component | | Data of | Began | Ready | RTO | RPO |\n|---|---|---|---:|---:|---|---|"
    )?;
    let declared = evidence.measured.declared_seconds;
    for row in &stack.components {
        let sign =
            if row.verdict.is_passed() { "✅".to_owned() } else { format!("❌ {}", row.verdict.words()) };
        let data = cell(&data_of(row, &evidence.machine.host));
        let time = |seconds: Option<f64>| seconds.map_or("–".to_owned(), span);
        let rto = against(row.ready_seconds.map(|ready| ready + declared), row.objectives.rto_seconds);
        let rpo = match (row.exposure_seconds, row.objectives.rpo_seconds) {
            (None, None) => "–".to_owned(),
            (exposure, objective) => against(exposure, objective),
        };
        let (began, ready) = (time(row.began_seconds), time(row.ready_seconds));
        writeln!(text, "| {} | {sign} | {data} | {began} | {ready} | {rto} | {rpo} |", cell(&row.name))?;
    }
    Ok(())
}
