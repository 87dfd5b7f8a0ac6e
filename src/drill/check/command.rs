//! A program that must end with 0.

use std::process::Command;
use std::time::Duration;

use super::{Answer, Broken};
use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessOptions};
use crate::drill::sandbox::Sandbox;
use crate::runbook::redact::Redactor;

/// A program that says nothing for this long is ended.
const SILENCE: Duration = Duration::from_secs(600);
/// What of its last line is told.
const SAID_CHARACTERS: usize = 200;

pub fn check(
    words: &[String],
    sandbox: &dyn Sandbox,
    redactor: &Redactor,
    cancel: &Cancel,
) -> Result<Answer, Broken> {
    let said = run(words, sandbox, redactor, cancel)?;
    Ok(Answer::Proven(if said.is_empty() { "ended with 0".into() } else { said }))
}

/// Runs a program that finds the restored state in its environment, and gives the last line it wrote, without secrets.
///
/// # Errors
/// It cannot be started, did not end with 0, or the run was cancelled: what it said.
pub fn run(
    words: &[String],
    sandbox: &dyn Sandbox,
    redactor: &Redactor,
    cancel: &Cancel,
) -> Result<String, Broken> {
    let Some((program, arguments)) = words.split_first() else { return Err("no command".into()) };
    let mut command = Command::new(program);
    command.args(arguments).envs(environment(sandbox));
    let options = ProcessOptions {
        no_progress: Some(SILENCE),
        withheld: &["LIFEBOAT_PASSWORD"],
        ..ProcessOptions::default()
    };
    let mut process = Process::start(command, options, cancel).map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    let read = std::io::Read::read_to_end(&mut process, &mut said);
    // How it ended says more than that it could not be read.
    process.finish().map_err(|error| redactor.clean(&error.to_string()))?;
    read.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&said);
    // Cleaned before it is cut: half a secret would not be known for one.
    Ok(redactor.clean(said.lines().last().unwrap_or_default()).chars().take(SAID_CHARACTERS).collect())
}

fn environment(sandbox: &dyn Sandbox) -> Vec<(String, String)> {
    let mut variables = sandbox.environment();
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    variables.extend(sandbox.path().map(|found| ("LIFEBOAT_DRILL_PATH".to_owned(), path(found))));
    variables.extend(sandbox.folder().map(|found| ("LIFEBOAT_DRILL_FOLDER".to_owned(), path(found))));
    variables.extend(sandbox.address().map(|address| ("LIFEBOAT_DRILL_ADDRESS".to_owned(), address)));
    variables
}
