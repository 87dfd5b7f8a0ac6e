//! `run JOB…`: jobs as the configuration file names them, one after the other.
//!
//! One that fails stops no other; the exit code is the worst of all. What is no duty of this machine is left out, and
//! that is said.

use super::{CliError, Context, Exit, backup, copy_to};
use crate::config::file::{ConfigFile, Duty, File, Job};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Jobs of the configuration file
    #[arg(value_name = "JOB", required_unless_present = "all")]
    jobs: Vec<String>,
    /// Every job of the file
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// Read and count, store nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let found = context.file()?;
    let file = &found.file;
    let names: Vec<&String> = if args.all { file.job.keys().collect() } else { args.jobs.iter().collect() };
    if names.is_empty() {
        return Err(CliError::usage(format!("{} defines no job", found.path.display())));
    }
    // Before the first one runs: a typo in the last must not cost an hour.
    for name in &names {
        if !file.job.contains_key(*name) {
            let known: Vec<&str> = file.job.keys().map(String::as_str).collect();
            let hint = format!("there are {}", known.join(", "));
            return Err(CliError::usage(format!("there is no job {name:?}")).hint(hint));
        }
    }
    require_known_machine(&found)?;
    if let Some(why) = file.not_its_duty(&found.machine, Duty::Backup) {
        context.note(format_args!("nothing was backed up: {why}"));
        return Ok(Exit::Ok);
    }
    let mut exits = Vec::new();
    for name in names {
        if context.cancel.is_cancelled() {
            exits.push(Exit::Interrupted);
            break;
        }
        let Some(job) = file.job.get(name) else { continue };
        let ended = match one(name, job, file, args.dry_run, context).await {
            Ok(exit) => exit,
            Err(error) => error.report(&format!("run {name}"), context.json),
        };
        exits.push(ended);
        if matches!(ended, Exit::Ok | Exit::Partial) && !args.dry_run {
            copies(name, job, &found, context, &mut exits).await;
        }
    }
    Ok(Exit::worst_of(exits))
}

/// A file that names machines means only those.
fn require_known_machine(found: &ConfigFile) -> Result<(), CliError> {
    let machines = &found.file.machine;
    if machines.is_empty() || machines.contains_key(&found.machine) {
        return Ok(());
    }
    let known: Vec<&str> = machines.keys().map(String::as_str).collect();
    let why = format!("{} defines no machine {:?}", found.path.display(), found.machine);
    let hint = format!("LIFEBOAT_MACHINE says which of these this is: {}", known.join(", "));
    Err(CliError::usage(why).hint(hint))
}

async fn one(name: &str, job: &Job, file: &File, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let (_, repository) = file.repository_of(job).map_err(CliError::usage)?;
    let of_job = context.with(context.settings_of(repository)?);
    backup::run(backup::Args::of_job(name, job, dry_run), &of_job).await
}

/// Copies a job's snapshots to where the file says. A copy that fails stops no other.
async fn copies(name: &str, job: &Job, found: &ConfigFile, context: &Context, exits: &mut Vec<Exit>) {
    for (target, repository) in found.file.copies_of(job) {
        if context.cancel.is_cancelled() {
            exits.push(Exit::Interrupted);
            return;
        }
        if let Some(why) = found.file.not_its_duty(&found.machine, Duty::Copy) {
            context.note(format_args!("{name} was not copied to {target}: {why}"));
            continue;
        }
        let copied = async {
            let (_, own) = found.file.repository_of(job).map_err(CliError::usage)?;
            let from = context.with(context.settings_of(own)?);
            let to = context.with(context.settings_of_other(repository)?);
            copy_to::run(name, target, &from, &to).await
        };
        exits.push(match copied.await {
            Ok(exit) => exit,
            Err(error) => error.report(&format!("run {name}: copy to {target}"), context.json),
        });
    }
}
