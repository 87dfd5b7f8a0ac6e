//! What a backup tells when it is done.

use std::time::Duration;

use serde::Serialize;

use super::super::snapshots::short;
use super::super::text::{count, iso_time, plural, shown, span};
use super::super::{CliError, Context, Exit};
use crate::base::byte_size::human;
use crate::engine::backup::{BackupOptions, BackupOutcome, Problem};
use crate::format::manifest::Statistics;

/// The answer with `--json`.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    snapshot_id: Option<String>,
    job: &'a str,
    host: &'a str,
    tags: &'a [String],
    dry_run: bool,
    partial: bool,
    started_at: String,
    finished_at: String,
    duration_seconds: f64,
    statistics: &'a Statistics,
    problems: &'a [Problem],
    warnings: &'a [String],
}

/// Tells it and returns the exit code. The work is done: that nobody reads about it changes nothing.
pub fn tell(
    context: &Context,
    options: &BackupOptions,
    outcome: &BackupOutcome,
    took: Duration,
) -> Result<Exit, CliError> {
    let told = if context.json {
        context.json(&Answer {
            snapshot_id: outcome.snapshot.map(|id| id.hex()),
            job: &options.job,
            host: &options.host,
            tags: &options.tags,
            dry_run: options.dry_run,
            partial: !outcome.problems.is_empty(),
            started_at: iso_time(outcome.started),
            finished_at: iso_time(outcome.finished),
            duration_seconds: took.as_secs_f64(),
            statistics: &outcome.statistics,
            problems: &outcome.problems,
            warnings: &outcome.warnings,
        })
    } else if context.quiet {
        Ok(())
    } else {
        context.print(summary(options, outcome, took))
    };
    for warning in &outcome.warnings {
        context.warn(shown(warning.as_bytes()));
    }
    if !outcome.problems.is_empty() {
        for Problem { path, message } in &outcome.problems {
            let (path, message) = (shown(path.as_bytes()), shown(message.as_bytes()));
            // Many messages name the path themselves.
            let named = message.contains(&path);
            context.warn(if named { message } else { format!("{path}: {message}") });
        }
        let what = if options.dry_run { "would be" } else { "is" };
        let problems = plural(outcome.problems.len() as u64, "problem");
        context.warn(format_args!("the snapshot {what} partial: {problems}, named above"));
    }
    match told {
        Err(error) if error.exit != Exit::Ok => Err(error),
        _ if outcome.problems.is_empty() => Ok(Exit::Ok),
        _ => Ok(Exit::Partial),
    }
}

/// The end of a backup in a few lines.
pub fn summary(options: &BackupOptions, outcome: &BackupOutcome, took: Duration) -> String {
    let statistics = &outcome.statistics;
    let (job, host) = (shown(options.job.as_bytes()), shown(options.host.as_bytes()));
    let head = match &outcome.snapshot {
        Some(id) => format!("snapshot {} of {job} on {host}", short(id)),
        None => format!("dry run of {job} on {host}: nothing was stored"),
    };
    let Statistics { files_new, files_changed, files_unmodified, .. } = *statistics;
    let mut lines = vec![head];
    if files_new + files_changed + files_unmodified > 0 {
        lines.push(format!(
            "  files   {} new, {} changed, {} unmodified, {} in all",
            count(files_new),
            count(files_changed),
            count(files_unmodified),
            human(statistics.total_bytes)
        ));
    }
    let rate = statistics.read_bytes as f64 / took.as_secs_f64().max(0.001);
    let rate = match statistics.read_bytes {
        0 => String::new(),
        _ => format!(" ({}/s)", human(rate as u64)),
    };
    lines.push(format!("  read    {} in {}{rate}", human(statistics.read_bytes), span(took)));
    lines.push(format!(
        "  added   {} to the repository for {} of new data",
        human(statistics.added_bytes),
        human(statistics.new_bytes)
    ));
    lines.join("\n")
}
