//! Level 10: the face of the tool. Arguments in; text or JSON, and an exit code, out.
//!
//! Only this level knows a terminal: stdout carries data, stderr progress and messages.
//!
//! One verb is one file (or folder) `cli/<verb>.rs` with
//!
//! ```text
//! #[derive(Debug, clap::Args)]
//! pub struct Args { … }
//! pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError>
//! ```
//!
//! and is registered by three lines here: `mod verb;`, a variant of `Command`, an arm of `dispatch`. It opens
//! the repository with [`Context::open`], shows progress with [`Context::progress`], asks before it destroys with
//! [`Context::confirm`], and prints through [`Context::out`] or [`Context::json`]. Errors of the levels below turn
//! into a [`CliError`], and so into an exit code, by `?`.

mod address;
mod backup;
mod cache;
mod completions;
mod configuration;
mod context;
mod copy;
mod copy_to;
mod demo;
mod diff;
mod doctor;
mod drill;
mod dump;
mod entries;
mod error;
mod every;
pub mod exit;
pub mod filter;
mod find;
mod forget;
mod globals;
mod init;
mod job;
mod json_to;
mod key;
mod kit;
mod ls;
mod new_secret;
pub mod output;
mod parity;
mod paths;
mod plan;
mod production;
pub mod progress;
mod prompt;
mod prune;
mod repair;
mod restore;
mod restore_service;
mod restore_stack;
mod run;
mod runbook;
mod snapshots;
mod stats;
pub mod text;
mod verify;
mod version;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

pub use context::Context;
pub use error::CliError;
pub use exit::Exit;

use globals::Globals;

/// How long tasks that are still running may take to notice that the process ends.
const SHUTDOWN: Duration = Duration::from_millis(200);

/// Encrypted, deduplicated backups that are proven by restoring them.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, max_term_width = 100)]
#[command(
    after_help = "New here? `lifeboat demo` shows the whole way on made-up data in a temporary folder."
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// The verbs, in the order help shows them.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one value a process")]
enum Command {
    /// Make a new repository
    Init(init::Args),
    /// Back up folders, a stream or a command's output
    Backup(backup::Args),
    /// Back up the jobs that the configuration file names
    Run(run::Args),
    /// Restore a snapshot, or one path of it, into a folder or a service; or a whole stack
    Restore(restore::Args),
    /// Write a file to stdout, or a folder as tar
    Dump(dump::Args),
    /// List snapshots
    Snapshots(snapshots::Args),
    /// Remove snapshots by rules or by name
    Forget(forget::Args),
    /// Free the space of what no snapshot needs
    Prune(prune::Args),
    /// Check that everything is there and whole
    #[command(visible_alias = "check")]
    Verify(verify::Args),
    /// Make parity that `repair packs` mends damaged packs from; needs no password
    Parity(parity::Args),
    /// Put right what can be put right from what is there
    Repair(repair::Args),
    /// Show or clear the local cache
    Cache(cache::Args),
    /// Write, check or describe the configuration file
    Config(configuration::Args),
    /// Check the settings, the storage and the repository, and say what to mend
    Doctor(doctor::Args),
    /// Show the whole way on made-up data: back up, destroy, recover, prove
    Demo(demo::Args),
    /// List what is in a snapshot
    Ls(ls::Args),
    /// Find paths in all snapshots
    Find(find::Args),
    /// Show what changed between two snapshots
    Diff(diff::Args),
    /// Count what snapshots hold and what the repository takes
    Stats(stats::Args),
    /// Copy snapshots into another repository or a replica
    Copy(copy::Args),
    /// List and change the keys
    Key(key::Args),
    /// Hold objectives against schedules and what was measured: met, at risk or impossible
    Plan(plan::Args),
    /// Rehearse a recovery: restore into a sandbox, check, measure, keep the evidence
    Drill(drill::Args),
    /// Follow or rehearse a document for the worst hour
    Runbook(runbook::Args),
    /// Say what is meant to be gone from a job
    Job(job::Args),
    /// Make or show the recovery kit: what is needed when everything else is gone
    Kit(kit::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the version and what this build can read
    Version(version::Args),
}

impl Command {
    /// The verb as it was typed, for messages.
    fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(_) => "backup",
            Self::Restore(_) => "restore",
            Self::Run(_) => "run",
            Self::Config(_) => "config",
            Self::Dump(_) => "dump",
            Self::Snapshots(_) => "snapshots",
            Self::Forget(_) => "forget",
            Self::Prune(_) => "prune",
            Self::Verify(_) => "verify",
            Self::Parity(_) => "parity",
            Self::Repair(_) => "repair",
            Self::Cache(_) => "cache",
            Self::Doctor(_) => "doctor",
            Self::Demo(_) => "demo",
            Self::Ls(_) => "ls",
            Self::Find(_) => "find",
            Self::Diff(_) => "diff",
            Self::Stats(_) => "stats",
            Self::Copy(_) => "copy",
            Self::Key(_) => "key",
            Self::Plan(_) => "plan",
            Self::Drill(_) => "drill",
            Self::Runbook(_) => "runbook",
            Self::Job(_) => "job",
            Self::Kit(_) => "kit",
            Self::Completions(_) => "completions",
            Self::Version(_) => "version",
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Init(args) => init::run(args, context).await,
        Command::Backup(args) => backup::run(args, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Config(args) => configuration::run(&args, context),
        Command::Restore(args) => restore::run(args, context).await,
        Command::Dump(args) => dump::run(args, context).await,
        Command::Snapshots(args) => snapshots::run(args, context).await,
        Command::Forget(args) => forget::run(args, context).await,
        Command::Prune(args) => prune::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Parity(args) => parity::run(args, context).await,
        Command::Repair(args) => repair::run(args, context).await,
        Command::Cache(args) => cache::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Ls(args) => ls::run(args, context).await,
        Command::Find(args) => find::run(args, context).await,
        Command::Diff(args) => diff::run(args, context).await,
        Command::Stats(args) => stats::run(args, context).await,
        Command::Copy(args) => copy::run(args, context).await,
        Command::Key(args) => key::run(args, context).await,
        Command::Plan(args) => plan::run(&args, context).await,
        Command::Drill(args) => drill::run(args, context).await,
        Command::Runbook(args) => runbook::run(args, context).await,
        Command::Job(args) => job::run(args, context).await,
        Command::Kit(args) => kit::run(args, context).await,
        Command::Completions(args) => completions::run(args, context).await,
        Command::Version(args) => version::run(args, context).await,
    }
}

/// Everything `main` does.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return error::arguments(&error).into(),
    };
    let json = cli.globals.is_json();
    let verb = cli.command.name();
    start(cli).unwrap_or_else(|error| error.report(verb, json)).into()
}

fn start(cli: Cli) -> Result<Exit, CliError> {
    let context = Context::new(&cli.globals)?;
    let cancel = context.cancel.clone();
    let runtime = crate::app::runtime()?;
    let mut result = runtime.block_on(async {
        context.listen_to_signals()?;
        if matches!(cli.command, Command::Completions(_) | Command::Version(_)) {
            return dispatch(cli.command, &context).await;
        }
        let left = crate::app::services::repair(context.settings.state.value.clone(), &context.cancel).await;
        left.into_iter().for_each(|line| context.warn(line));
        let context = match &cli.command {
            Command::Config(_) | Command::Demo(_) => context,
            _ => context.with_kit().await?,
        };
        dispatch(cli.command, &context).await
    });
    // Whatever an interrupted verb stumbled over last, the interruption was the reason.
    if cancel.is_cancelled() && matches!(&result, Err(error) if error.exit == Exit::Failed) {
        result = Err(crate::base::cancel::Cancelled.into());
    }
    // A read of a terminal or a pipe cannot be called back; the process ends without it.
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

/// The whole command line as clap knows it: for completions.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
