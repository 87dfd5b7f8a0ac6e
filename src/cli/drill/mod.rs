//! `drill`: rehearse a recovery, and look at what earlier rehearsals showed.

mod args;
mod attest;
mod bare;
mod copies;
mod faults;
pub mod filing;
pub mod finish;
mod rehearse;
mod sandbox;
pub mod show;
mod stack;
mod table;
mod text;
mod write;

use super::{CliError, Context, Exit};
use crate::drill::Verdict;

pub use rehearse::{begun, spec_of, sweep_left};
pub use stack::spec_of as stack_spec_of;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one value a process")]
enum Action {
    /// Restore a snapshot into a sandbox, check it, measure it
    Run(args::Args),
    /// List the drills that were run
    List(show::ListArgs),
    /// Show how a drill's runs went, and their trend
    Report(show::ReportArgs),
    /// Show one run, or write its evidence
    Show(show::ShowArgs),
    /// Check, with nothing but the signer's key, that evidence is what was signed
    Attest(attest::Args),
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.action {
        Action::Run(args) => rehearse::run(args, context).await,
        Action::List(args) => show::list(args, context).await,
        Action::Report(args) => show::report(args, context).await,
        Action::Show(args) => show::show(args, context).await,
        Action::Attest(args) => attest::run(&args, context),
    }
}

/// The exit code of a drill.
pub fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Met => Exit::Ok,
        Verdict::CouldNotRun => Exit::Failed,
        Verdict::Interrupted => Exit::Interrupted,
        Verdict::DataWrong => Exit::Damage,
        Verdict::CheckFailed => Exit::DrillCheckFailed,
        Verdict::ObjectiveMissed => Exit::ObjectiveMissed,
    }
}
