//! `runbook`: documents for the worst hour, which are checked, followed and rehearsed.

mod ask;
mod check;
mod faults;
mod follow;
mod list;
mod rehearse;
mod values;

use std::path::{Path, PathBuf};

use super::{CliError, Context, Exit};
use crate::runbook::check::Problem;
use crate::runbook::{self, Runbook};

pub use rehearse::{OfFile, refuse, rehearse_drill};

/// Where runbooks are looked for when none is named.
const FOLDER: &str = "dr-runbooks";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List runbooks with their objectives, and what their last rehearsal showed
    List(list::Args),
    /// Hold runbooks against the rules, without running or reaching anything
    Check(check::Args),
    /// Follow a runbook step by step, or rehearse it with --drill
    Run(follow::Args),
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.action {
        Action::List(args) => list::run(args, context),
        Action::Check(args) => check::run(args, context),
        Action::Run(args) => follow::run(args, context).await,
    }
}

/// The files that arguments mean: a folder stands for the runbooks in it.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let standard = [PathBuf::from(FOLDER)];
    let is_default = named.is_empty();
    let mut found = Vec::new();
    for place in if is_default { &standard } else { named } {
        if !place.is_dir() {
            if is_default {
                return Err(CliError::usage(format!("there is no folder {FOLDER} here"))
                    .hint("name files or a folder"));
            }
            found.push(place.clone());
            continue;
        }
        let entries = std::fs::read_dir(place);
        let entries =
            entries.map_err(|error| CliError::usage(format!("cannot read {}: {error}", place.display())))?;
        let is_runbook = |path: &PathBuf| {
            path.extension().is_some_and(|ending| ending == "md")
                && path.file_stem().is_none_or(|stem| stem != "README")
        };
        let mut inside: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(is_runbook).collect();
        if inside.is_empty() {
            return Err(CliError::usage(format!("there is no runbook in {}", place.display())));
        }
        inside.sort();
        found.append(&mut inside);
    }
    Ok(found)
}

/// The rules, with our own command line as the judge of our own commands.
fn problems(runbook: &Runbook) -> Vec<Problem> {
    runbook::check::check(runbook, &own)
}

/// Whether a line of ours would be understood. Values of variables are not known yet.
fn own(words: &[&str]) -> Result<(), String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let Err(error) = super::command().try_get_matches_from(words) else { return Ok(()) };
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(()),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if value.contains('$') => Ok(()),
        _ => {
            let text = error.to_string();
            let lines: Vec<&str> =
                text.lines().take_while(|line| !line.starts_with("Usage")).map(str::trim).collect();
            let said = lines.join(" ");
            Err(said.trim().trim_start_matches("error: ").to_owned())
        }
    }
}

/// `FILE:LINE: what is wrong`.
fn told(path: &Path, problem: &Problem) -> String {
    format!("{}:{}: {} ({})", path.display(), problem.line, problem.message, problem.rule)
}
