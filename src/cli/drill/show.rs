//! `drill list`, `report` and `show`: what earlier runs left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::json_to::{JsonTo, STDOUT, file_and_name};
use super::super::text::{moment, plural, shown, table};
use super::super::{CliError, Context, Exit};
use super::filing::settle;
pub use super::text::text;
use super::write::{pretty, write};
use crate::drill::evidence::Evidence;
use crate::drill::history::{self, Kept};
use crate::drill::report::{html::html, short_time, span};
use crate::drill::trend;
use crate::policy::objective;
use crate::repo::Repository;
use crate::repo::sync::Thoroughness;

/// Runs that are read for a report at most.
const RUNS: usize = 100;

#[derive(Debug, clap::Args)]
pub struct ListArgs {}

#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// One drill [default: all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Only runs since this time, such as 2026-11-01 or 2026-11-20T02:00, or of so long: 36h, 30d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<jiff::Timestamp>,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// NAME#NUMBER, or NAME for its last run
    #[arg(value_name = "RUN", required_unless_present = "json")]
    run: Option<String>,
    /// Print the signed evidence, or write it into a file whose name has a dot or a slash: evidence.json, ./evidence
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, value_parser = JsonTo::parse)]
    json: Option<JsonTo>,
    /// Write the page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

async fn open(context: &Context) -> Result<Repository, CliError> {
    let repo = context.open().await?;
    context.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
    settle(&repo, context).await;
    Ok(repo)
}

pub async fn list(_: ListArgs, context: &Context) -> Result<Exit, CliError> {
    let repo = open(context).await?;
    let kept = history::newest(&repo, None, RUNS, &context.cancel).await?;
    if context.json {
        let all: Vec<_> = kept.iter().map(|kept| &kept.signed).collect();
        context.json(&all)?;
        return Ok(Exit::Ok);
    }
    if kept.is_empty() {
        context.note("no drill was run yet: lifeboat drill run --snapshot latest");
        return Ok(Exit::Ok);
    }
    let head = ["DRILL", "STARTED", "RESULT", "RECOVERY", "LOSS", "DATA OF"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for Kept { signed, .. } in &kept {
        let Evidence { name, number, started_at, verdict, measured, snapshot, .. } = &signed.evidence;
        let time = |seconds: Option<f64>| seconds.map_or("–".into(), span);
        rows.push(vec![
            format!("{}#{number}", shown(name.as_bytes())),
            started_at.get(..16).unwrap_or(started_at).replace('T', " "),
            verdict.words().to_lowercase(),
            time(measured.recovery_seconds),
            time(measured.exposure_seconds),
            snapshot.as_ref().map_or("–".into(), |row| shown(row.job.as_bytes())),
        ]);
    }
    context.print(table(&rows, &[3, 4]))?;
    Ok(Exit::Ok)
}

pub async fn report(args: ReportArgs, context: &Context) -> Result<Exit, CliError> {
    let repo = open(context).await?;
    let kept = history::newest(&repo, args.name.as_deref(), RUNS, &context.cancel).await?;
    let mut drills: BTreeMap<String, Vec<Evidence>> = BTreeMap::new();
    for Kept { signed, .. } in kept {
        let evidence = signed.evidence;
        let started = evidence.started_at.parse::<jiff::Timestamp>().ok();
        if args.since.is_none_or(|since| started.is_none_or(|started| started >= since)) {
            drills.entry(evidence.name.clone()).or_default().push(evidence);
        }
    }
    if context.json {
        context.json(&drills)?;
        return Ok(Exit::Ok);
    }
    let mut out = context.out();
    for (name, runs) in &drills {
        let passed = runs.iter().filter(|run| run.verdict.is_passed()).count();
        let all = plural(runs.len() as u64, "run");
        out.line(format_args!("{}: {passed} of {all} passed", shown(name.as_bytes())))?;
        let seconds = |run: &Evidence| {
            let passed = run.measured.recovery_seconds.filter(|_| run.verdict.is_passed());
            passed.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
        };
        // Times of other data say nothing about these.
        let last = runs.last();
        let like = runs.iter().filter(|run| last.is_some_and(|last| run.is_like(last)));
        let measured: Vec<_> = like.filter_map(seconds).collect();
        if let Some(times) = objective::times(&measured) {
            let of = match times.runs == passed {
                true => plural(times.runs as u64, "run"),
                false => format!("{} like the last", plural(times.runs as u64, "run")),
            };
            let percentiles = match times.percentiles {
                Some((p50, p95)) => {
                    format!("p50 {}, p95 {}, ", span(p50.as_secs_f64()), span(p95.as_secs_f64()))
                }
                None => String::new(),
            };
            out.line(format_args!("  recovery  {percentiles}max {} of {of}", span(times.max.as_secs_f64())))?;
        }
        if let Some(last) = last {
            out.line(format_args!(
                "  last      {} {}",
                short_time(&last.started_at),
                last.verdict.words().to_lowercase()
            ))?;
            if let Some(words) = trend::words(&last.measured) {
                out.line(format_args!("  trend     {words}"))?;
            }
        }
    }
    out.finish()?;
    Ok(Exit::Ok)
}

pub async fn show(args: ShowArgs, context: &Context) -> Result<Exit, CliError> {
    let (json_file, run) = file_and_name(args.json.as_ref(), args.run.as_deref())?;
    let run = run.ok_or_else(|| CliError::usage("which run? NAME#NUMBER, or NAME for its last"))?;
    let (name, number) = match run.rsplit_once('#') {
        Some((name, number)) => {
            let number: u64 =
                number.parse().map_err(|_| CliError::usage(format!("{number:?} is no run's number")))?;
            (name, Some(number))
        }
        None => (run, None),
    };
    let repo = open(context).await?;
    let kept = history::newest(&repo, Some(name), RUNS, &context.cancel).await?;
    let found = match number {
        None => kept.last(),
        Some(number) => kept.iter().find(|kept| kept.signed.evidence.number == number),
    };
    let Some(found) = found else {
        let hint = "`lifeboat drill list` shows what was run";
        return Err(CliError::usage(format!("there is no run {run}")).hint(hint));
    };
    if let Some(path) = json_file {
        write(path, &pretty(&found.signed)?)?;
    }
    if let Some(path) = &args.html {
        let earlier = |kept: &&Kept| kept.signed.evidence.number < found.signed.evidence.number;
        let before: Vec<Evidence> =
            kept.iter().filter(earlier).map(|kept| kept.signed.evidence.clone()).collect();
        write(path, &html(&found.signed.evidence, &before))?;
    }
    if context.json {
        context.json(&found.signed)?;
    } else {
        context.print(text(&found.signed.evidence))?;
    }
    Ok(Exit::Ok)
}
