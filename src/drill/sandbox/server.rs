//! Starts a server of the sandbox's own: below its folder, not as root, without our secrets, and waits until it answers.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Ground, SandboxError};
use crate::base::process::{Process, ProcessError, ProcessOptions};
use crate::base::url::encode;
use crate::drill::check::database_and_query;

/// A socket's path may not be longer.
const SOCKET_LIMIT_BYTES: usize = 100;
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

pub fn refused(why: impl Into<String>) -> SandboxError {
    SandboxError::Refused(why.into())
}

/// What of the snapshot's databases an address names.
pub fn address_of(databases: &[String]) -> String {
    match databases {
        [one] => encode(one, ""),
        _ => "*".to_owned(),
    }
}

/// Which of the databases a query goes to: `shop: select …` where there are several.
///
/// # Errors
/// It names none of several.
pub fn database_of(databases: &[String], text: &str) -> Result<(String, String), SandboxError> {
    let (named, query) = database_and_query(text);
    let named = named.filter(|name| databases.iter().any(|known| known == name));
    match (databases, named) {
        (_, Some(name)) => Ok((name.to_owned(), query.to_owned())),
        ([one], None) => Ok((one.clone(), text.to_owned())),
        (databases, None) => Err(SandboxError::Query(format!(
            "several databases came back: write NAME: QUERY, with one of {}",
            databases.join(", ")
        ))),
    }
}

/// How its programs are run.
#[derive(Clone)]
pub struct Server {
    /// For people: `PostgreSQL`.
    pub name: &'static str,
    pub folder: PathBuf,
    /// Who it runs as; `None`: us.
    pub user: Option<(u32, u32)>,
    pub withheld: &'static [&'static str],
}

impl Server {
    /// A program in its folder, so that the next drill finds it should this one be killed.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C is ours to hear, and to end it orderly.
        command.current_dir(&self.folder).env("LC_ALL", "C.UTF-8").process_group(0);
        for name in self.withheld {
            command.env_remove(name);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Its socket's path.
    ///
    /// # Errors
    /// It is longer than the system takes.
    pub fn socket(&self, name: &str) -> Result<PathBuf, SandboxError> {
        let socket = self.folder.join(name);
        match socket.as_os_str().len() > SOCKET_LIMIT_BYTES {
            true => Err(refused(format!("the path {} is too long for a socket", socket.display()))),
            false => Ok(socket),
        }
    }

    /// Runs a program that makes its data folder.
    ///
    /// # Errors
    /// It cannot be run or fails: what it said.
    pub fn set_up(&self, program: &Path, arguments: &[String], ground: &Ground) -> Result<(), SandboxError> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let mut command = self.command(program);
        command.args(arguments);
        let options =
            ProcessOptions { no_progress: None, withheld: self.withheld, ..ProcessOptions::default() };
        let started = Process::start(command, options, &ground.cancel);
        let mut process = started.map_err(|error| refused(format!("cannot run {name}: {error}")))?;
        // What it says of its progress is nobody's concern; that it was read to the end shows in how it ended.
        let _ = std::io::copy(&mut process, &mut std::io::sink());
        process.finish().map(drop).map_err(|error| {
            refused(match error {
                ProcessError::Failed { stderr, .. } => format!("{name}: {}", stderr.trim()),
                error => error.to_string(),
            })
        })
    }

    /// Starts it.
    ///
    /// # Errors
    /// It cannot be.
    pub fn start(&self, command: Command, ground: &Ground) -> Result<Process, SandboxError> {
        let options =
            ProcessOptions { no_progress: None, withheld: self.withheld, ..ProcessOptions::default() };
        let started = Process::start(command, options, &ground.cancel);
        started.map_err(|error| refused(format!("cannot start {}: {error}", self.name)))
    }

    /// Waits until it answers. `ask`: a question.
    ///
    /// # Errors
    /// It ended or does not answer within a minute: what it said.
    pub fn wait<T>(
        &self,
        process: &mut Process,
        ground: &Ground,
        ask: impl Fn() -> Result<T, SandboxError>,
    ) -> Result<T, SandboxError> {
        let mut waited = Duration::ZERO;
        loop {
            ground.cancel.check().map_err(|error| refused(error.to_string()))?;
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) if process.has_exited() || waited > STARTS_WITHIN => {
                    let (name, said) = (self.name, process.stderr());
                    return Err(refused(format!("{name} did not start: {error}; {}", said.trim())));
                }
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }
}
