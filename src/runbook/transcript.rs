//! A run as people read it afterwards: Markdown, with times, outcomes and what every step said.

use std::fmt::Write as _;

use super::record::{Ended, Ending, Outcome};
use super::{Kind, Runbook};

/// What stands at the head of a transcript besides the run itself.
pub struct About<'a> {
    pub is_drill: bool,
    /// Who, where and with what: `ana on ops1, lifeboat 0.1.0`.
    pub by: &'a str,
    /// Variables as they may be shown.
    pub variables: &'a [(String, String)],
    pub not_tested: &'a [String],
}

/// Writes it.
pub fn markdown(runbook: &Runbook, outcome: &Outcome, about: &About) -> String {
    let mut text = String::new();
    let what = if about.is_drill { "drill of the runbook" } else { "run of the runbook" };
    let _ = writeln!(text, "# {}\n", runbook.title);
    let _ =
        writeln!(text, "A {what} `{}`, begun {} by {}.", runbook.front.name, outcome.started_at, about.by);
    let _ = writeln!(text, "Document `{}`.\n", blake3::hash(runbook.text.as_bytes()).to_hex());
    let why = match outcome.failure() {
        Some(failed) => format!(": step {} {}", failed.step, failed.why.as_deref().unwrap_or_default()),
        None => String::new(),
    };
    let _ =
        writeln!(text, "**{}** after {}{why}.\n", capitalised(outcome.ended), span(outcome.recovery_seconds));
    for (name, value) in about.variables {
        let _ = writeln!(text, "- `{name}` = `{}`", value.replace(['\n', '\r'], " ").replace('`', "'"));
    }
    let _ = writeln!(text, "\n| at | step | phase | took | how |\n|---|---|---|--:|---|");
    for record in &outcome.steps {
        let at = record.at.get(11..19).unwrap_or(&record.at);
        let took = if record.ending == Ending::Skipped { "–".to_owned() } else { span(record.seconds) };
        let _ = writeln!(
            text,
            "| {at} | {} | {} | {took} | {} |",
            record.step,
            record.phase.name(),
            record.ending.words()
        );
    }
    for record in &outcome.steps {
        let Some(step) = runbook.step(&record.step) else { continue };
        let _ = writeln!(text, "\n## {}: {}\n", record.step, record.ending.words());
        if let Some(why) = &record.why {
            let _ = writeln!(text, "{}", sentence(why));
        }
        if record.ending == Ending::Skipped {
            continue;
        }
        if record.why.is_some() {
            text.push('\n');
        }
        let language = if matches!(step.kind, Kind::Shell(_)) { "sh" } else { "text" };
        let _ = write!(text, "{}", fenced(language, &step.text));
        if !record.output.trim().is_empty() {
            let _ = write!(text, "\n{}", fenced("text", &record.output));
        }
    }
    if !about.not_tested.is_empty() {
        let _ = writeln!(text, "\n## Not tested\n");
        for what in about.not_tested {
            let _ = writeln!(text, "- {what}");
        }
    }
    text
}

fn capitalised(ended: Ended) -> String {
    let words = ended.words();
    words[..1].to_uppercase() + &words[1..]
}

fn sentence(why: &str) -> String {
    let mut letters = why.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}

/// A block whose fence is longer than any in its text.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

/// `0.4 s`, `12.3 s`, `4 min 05 s`.
pub fn span(seconds: f64) -> String {
    match seconds {
        0.0..60.0 => format!("{seconds:.1} s"),
        _ => format!("{} min {:02} s", (seconds / 60.0).floor(), (seconds % 60.0).floor()),
    }
}
