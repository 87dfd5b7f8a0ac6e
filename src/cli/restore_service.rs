//! `restore --to ADDRESS`: a captured service back into a service.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::backup::service::{refuse_password, surroundings};
use super::snapshots::short;
use super::text::{plural, span};
use super::{CliError, Context, Exit};
use crate::app::services::{self, TargetFlags};
use crate::base::byte_size;
use crate::engine::read::select::Selected;
use crate::engine::restore::service::{Looked, look, to_service};
use crate::repo::Repository;
use crate::source::target::{Met, Returned, Target};

/// What only a restore into a service knows.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Into a service")]
pub struct ServiceArgs {
    /// Replace what is in the service
    #[arg(long)]
    force: bool,
    /// Empty the service first (Redis)
    #[arg(long, requires = "force")]
    flush_first: bool,
    /// Give roles and users that exist the rights and passwords of the snapshot (PostgreSQL, MariaDB)
    #[arg(long)]
    replace_roles: bool,
    /// SQL to run in the proven database before it takes its name (PostgreSQL)
    #[arg(long, value_name = "FILE")]
    after_sql: Option<PathBuf>,
    /// Sessions that restore at once; more than one spools to a file first (PostgreSQL)
    #[arg(id = "restore_jobs", long = "jobs", value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
}

impl ServiceArgs {
    /// The same again, for a run that goes on; with `flush` also what empties a service first.
    pub fn again(&self, flush: bool) -> Vec<String> {
        let mut words = Vec::new();
        for (set, flag) in [
            (self.force || flush, "--force"),
            (self.flush_first || flush, "--flush-first"),
            (self.replace_roles, "--replace-roles"),
        ] {
            words.extend(set.then(|| flag.to_owned()));
        }
        if let Some(path) = &self.after_sql {
            words.extend(["--after-sql".to_owned(), path.display().to_string()]);
        }
        if self.jobs > 1 {
            words.extend(["--jobs".to_owned(), self.jobs.to_string()]);
        }
        words
    }

    pub fn flags(&self) -> TargetFlags {
        let Self { force, flush_first, replace_roles, after_sql, jobs } = self;
        TargetFlags {
            force: *force,
            flush_first: *flush_first,
            replace_roles: *replace_roles,
            after_sql: after_sql.clone(),
            jobs: *jobs,
        }
    }
}

/// What `--json` answers.
#[derive(Debug, Serialize)]
struct Report<'a> {
    snapshot: String,
    target: &'a str,
    seconds: f64,
    parts: u64,
    bytes: u64,
    proven: &'a [String],
    warnings: &'a [String],
    not_done: &'a [String],
    facts: &'a serde_json::Map<String, serde_json::Value>,
}

/// Opens the service at `address`, which nothing is changed by.
async fn open(
    address: &str,
    flags: TargetFlags,
    repo: &Repository,
    context: &Context,
) -> Result<Box<dyn Target>, CliError> {
    refuse_password(address)?;
    let around = surroundings(context, repo);
    let owned = address.to_owned();
    let target = tokio::task::spawn_blocking(move || services::target(&owned, flags, &around)).await;
    Ok(target.map_err(|_| CliError::new(Exit::Failed, "the target panicked: this is a bug"))??)
}

/// What a restore into the service at `address` would meet; nothing is changed. A target that does not tell what is there
/// is asked without `--force` first, which shows whether anything would be lost.
pub async fn meet(
    address: &str,
    flags: &TargetFlags,
    repo: &Repository,
    selected: &Selected,
    context: &Context,
) -> Result<(Looked, Met), CliError> {
    let try_look = async |flags: TargetFlags| -> Result<Looked, CliError> {
        let target = open(address, flags, repo, context).await?;
        context.until_cancelled(async { Ok(look(repo, selected, target).await?) }).await
    };
    let found = try_look(flags.clone()).await?;
    if let Some(met) = found.met.clone() {
        return Ok((found, met));
    }
    let mut met = Met::default();
    if flags.force {
        let gentle = TargetFlags { force: false, flush_first: false, ..flags.clone() };
        match try_look(gentle).await {
            Err(error) if is_full(&error) => met.replaced.push("what is there".into()),
            other => drop(other?),
        }
    }
    Ok((found, met))
}

/// Something is there that only `--force` replaces.
pub fn is_full(error: &CliError) -> bool {
    error.hint.as_ref().is_some_and(|hint| hint.contains("--force"))
}

/// Looks whether `selected` could be restored into the service at `address`, and changes nothing.
pub async fn plan(
    address: &str,
    flags: TargetFlags,
    repo: &Repository,
    selected: &Selected,
    context: &Context,
) -> Result<Exit, CliError> {
    let (found, met) = meet(address, &flags, repo, selected, context).await?;
    let (address, snapshot) = (services::shown(address), &selected.snapshot);
    let Met { replaced, kept, warnings } = &met;
    if context.json {
        context.json(&serde_json::json!({
            "dry_run": true, "snapshot": snapshot.id.hex(), "target": address, "parts": found.parts,
            "bytes": found.bytes, "replaced": replaced, "kept": kept, "warnings": warnings,
        }))?;
        return Ok(Exit::Ok);
    }
    let in_the_way = match (replaced.is_empty(), kept.is_empty()) {
        (true, true) => ": nothing there is in the way",
        _ => "",
    };
    let mut out = context.out();
    out.line(format_args!(
        "would restore {} ({}) of snapshot {} into {address}{in_the_way}",
        plural(found.parts, "part"),
        byte_size::human(found.bytes),
        short(&snapshot.id)
    ))?;
    for (what, lines) in [("replaced", replaced), ("stays", kept)] {
        for line in lines {
            out.line(format_args!("  {what:<8}  {line}"))?;
        }
    }
    out.finish()?;
    warnings.iter().for_each(|warning| context.warn(warning));
    Ok(Exit::Ok)
}

/// Restores `selected` into the service at `address`.
pub async fn run(
    address: &str,
    flags: TargetFlags,
    repo: &Repository,
    selected: &Selected,
    context: &Context,
) -> Result<Exit, CliError> {
    let start = Instant::now();
    let target = open(address, flags, repo, context).await?;
    let address = &*services::shown(address);
    let (counters, display) = context.progress();
    let result = to_service(repo, selected, target, counters, &context.cancel).await;
    drop(display);
    let given = result?;
    let seconds = start.elapsed().as_secs_f64();
    let Returned { proven, warnings, not_done, facts } = &given.returned;
    let exit = if not_done.is_empty() { Exit::Ok } else { Exit::Partial };
    if context.json {
        let snapshot = selected.snapshot.id.hex();
        let (parts, bytes) = (given.parts, given.bytes);
        context.json(&Report {
            snapshot,
            target: address,
            seconds,
            parts,
            bytes,
            proven,
            warnings,
            not_done,
            facts,
        })?;
        return Ok(exit);
    }
    let mut out = context.out();
    if !context.quiet {
        out.line(format_args!(
            "restored {} of snapshot {} into {address} in {}",
            byte_size::human(given.bytes),
            short(&selected.snapshot.id),
            span(std::time::Duration::from_secs_f64(seconds)),
        ))?;
        for line in proven {
            out.line(format_args!("  proven  {line}"))?;
        }
    }
    out.finish()?;
    for warning in warnings {
        context.warn(warning);
    }
    for what in not_done {
        context.warn(format_args!("not done: {what}"));
    }
    if !not_done.is_empty() {
        let things = plural(not_done.len() as u64, "thing");
        context.note(format_args!("not made, named above: {things} that the snapshot holds: exit code 3"));
    }
    Ok(exit)
}
