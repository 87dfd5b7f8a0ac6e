//! A program that must end with 0.

use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use super::{Answer, Broken};
use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessError, ProcessOptions};
use crate::drill::sandbox::{MAKER, Sandbox, for_programs};
use crate::runbook::redact::Redactor;

/// A program that says nothing for this long is ended.
const SILENCE: Duration = Duration::from_secs(600);
/// What of its last line is told.
const SAID_CHARACTERS: usize = 200;
/// What is kept of its output: its end.
const TAIL_BYTES: usize = 64 << 10;
/// Last lines of each output that are told when it failed, and how much of them.
const TOLD_LINES: usize = 5;
const TOLD_CHARACTERS: usize = 400;

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
    command.args(arguments).envs(environment(sandbox)).env(MAKER, std::process::id().to_string());
    let options = ProcessOptions {
        no_progress: Some(SILENCE),
        withheld: &["LIFEBOAT_PASSWORD"],
        ..ProcessOptions::default()
    };
    let mut process = Process::start(command, options, cancel).map_err(|error| error.to_string())?;
    let (said, read) = tail(&mut process);
    // Cleaned before it is cut: half a secret would not be known for one.
    let said = redactor.clean(&String::from_utf8_lossy(&said));
    // How it ended says more than that it could not be read.
    process.finish().map_err(|error| told(&error, &said, redactor))?;
    read.map_err(|error| error.to_string())?;
    Ok(said.lines().last().unwrap_or_default().chars().take(SAID_CHARACTERS).collect())
}

/// The end of what it writes, and whether that could be read.
fn tail(process: &mut Process) -> (Vec<u8>, std::io::Result<()>) {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        match process.read(&mut buffer) {
            Ok(0) => return (kept, Ok(())),
            Ok(length) => {
                kept.extend_from_slice(&buffer[..length]);
                let surplus = kept.len().saturating_sub(TAIL_BYTES);
                kept.drain(..surplus);
            }
            Err(error) => return (kept, Err(error)),
        }
    }
}

/// How it failed, and the end of both its outputs. `stdout` is clean already.
fn told(error: &ProcessError, stdout: &str, redactor: &Redactor) -> String {
    let ProcessError::Failed { how, stderr, .. } = error else { return redactor.clean(&error.to_string()) };
    let said = [("stderr", last_lines(&redactor.clean(stderr))), ("stdout", last_lines(stdout))];
    let said = said.into_iter().filter(|(_, lines)| !lines.is_empty());
    said.fold(how.clone(), |all, (name, lines)| format!("{all}; {name}: {lines}"))
}

/// The last lines in one.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let joined = lines[lines.len().saturating_sub(TOLD_LINES)..].join(" | ");
    let surplus = joined.chars().count().saturating_sub(TOLD_CHARACTERS);
    joined.chars().skip(surplus).collect()
}

fn environment(sandbox: &dyn Sandbox) -> Vec<(String, String)> {
    let mut variables = sandbox.environment();
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    variables.extend(sandbox.path().map(|found| ("LIFEBOAT_DRILL_PATH".to_owned(), path(found))));
    variables.extend(sandbox.folder().map(|found| ("LIFEBOAT_DRILL_FOLDER".to_owned(), path(found))));
    variables.extend(for_programs(sandbox).map(|address| ("LIFEBOAT_DRILL_ADDRESS".to_owned(), address)));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_output_the_last_lines_are_told() {
        let text = (0..9).map(|n| format!("line {n}\n\n")).collect::<String>();
        assert_eq!(last_lines(&text), "line 4 | line 5 | line 6 | line 7 | line 8");
        assert_eq!(last_lines(""), "");
        let long = format!("{}end", "x".repeat(900));
        assert!(last_lines(&long).ends_with("end") && last_lines(&long).len() == TOLD_CHARACTERS);
    }
}
