//! Commands inside containers.

use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures::StreamExt;

use super::DockerError;
use super::daemon::Daemon;
use super::volume::User;

/// What is kept of a command's words: its end.
const SAID_BYTES: usize = 4096;

/// Runs a shell command and wants it to end well. Returns the end of what it said.
///
/// # Errors
/// It cannot be run, or ends with another status than 0.
pub fn run(daemon: &Daemon, user: &User, command: &str) -> Result<String, DockerError> {
    let done = daemon.call("run a command in", &user.name, perform(daemon, &user.id, command))?;
    judge(user, command, done)
}

/// The same whether the run was cancelled or not.
///
/// # Errors
/// As [`run`].
pub fn run_to_undo(daemon: &Daemon, user: &User, command: &str) -> Result<String, DockerError> {
    let done = daemon.undo("run a command in", &user.name, perform(daemon, &user.id, command))?;
    judge(user, command, done)
}

/// Runs a program without input; its exit status, and the end of what it said.
///
/// # Errors
/// It cannot be run.
pub fn try_words(daemon: &Daemon, user: &User, words: &[String]) -> Result<(i64, String), DockerError> {
    daemon.call("run a command in", &user.name, perform_words(daemon, &user.id, words.to_vec()))
}

fn judge(user: &User, command: &str, (status, said): (i64, String)) -> Result<String, DockerError> {
    if status == 0 {
        return Ok(said);
    }
    let name = user.called();
    let said = said.trim();
    let said =
        if said.is_empty() { String::new() } else { format!("; it said:\n  {}", said.replace('\n', "\n  ")) };
    Err(DockerError::Failed(format!(
        "in {name} the command {command:?} ended with exit status {status}{said}"
    )))
}

async fn perform(
    daemon: &Daemon,
    container: &str,
    command: &str,
) -> Result<(i64, String), bollard::errors::Error> {
    perform_words(daemon, container, vec!["sh".into(), "-c".into(), command.to_owned()]).await
}

async fn perform_words(
    daemon: &Daemon,
    container: &str,
    words: Vec<String>,
) -> Result<(i64, String), bollard::errors::Error> {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(words),
        ..ExecConfig::default()
    };
    let exec = daemon.api.create_exec(container, config).await?;
    let mut said = Vec::new();
    if let StartExecResults::Attached { mut output, .. } = daemon.patient.start_exec(&exec.id, None).await? {
        while let Some(piece) = output.next().await {
            said.extend_from_slice(&piece?.into_bytes());
            let surplus = said.len().saturating_sub(SAID_BYTES);
            said.drain(..surplus);
        }
    }
    let status = daemon.api.inspect_exec(&exec.id).await?.exit_code.unwrap_or(-1);
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}
