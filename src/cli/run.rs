//! `run JOB…`: jobs as the configuration file names them, one after the other.
//!
//! One that fails stops no other; the exit code is the worst of all.

use super::backup;
use super::{CliError, Context, Exit};

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
    let mut exits = Vec::new();
    for name in names {
        if context.cancel.is_cancelled() {
            exits.push(Exit::Interrupted);
            break;
        }
        let Some(job) = file.job.get(name) else { continue };
        let ended = async {
            let (_, repository) = file.repository_of(job).map_err(CliError::usage)?;
            let of_job = context.with(context.settings_of(repository)?);
            let args = backup::Args::of_job(name, job, args.dry_run);
            backup::run(args, &of_job).await
        };
        exits.push(match ended.await {
            Ok(exit) => exit,
            Err(error) => error.report(&format!("run {name}"), context.json),
        });
    }
    Ok(Exit::worst_of(exits))
}
