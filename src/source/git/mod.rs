//! Git repositories: one, or every one below a folder, each as a bundle of all its refs.
//!
//! `look` finds repositories and what is known of each → `capture` checks them with `git fsck` and streams their
//! bundles, whose refs and objects `bundle` reads as they pass → `target` makes them anew, has git check them
//! again and compares.
//!
//! Invariant: nothing that a repository says (hooks, filters, helpers, remotes) is run or reached.

pub mod bundle;
pub mod capture;
mod look;
pub mod target;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::cancel::{Cancel, Cancelled};
use crate::base::process::{Feed, Process, ProcessError, ProcessOptions};
use crate::base::url::{no_option, path_and_options};
use crate::source::capture::SourceError;

/// Most bytes of an answer that is kept whole: lists of refs.
const ANSWER_LIMIT_BYTES: usize = 512 << 20;
/// Variables that would lead git elsewhere.
const MISLEADING: [&str; 12] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_SHALLOW_FILE",
    "GIT_TRACE",
];

/// A repository that cannot be captured or given back.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("{subject}: {cause}")]
    Tool { subject: String, cause: ProcessError },
    #[error("cannot {operation} {}: {cause}", path.display())]
    File { operation: &'static str, path: PathBuf, cause: io::Error },
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Differs(String),
}

impl From<GitError> for SourceError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Cancelled(cancelled)
            | GitError::Tool { cause: ProcessError::Cancelled(cancelled), .. } => cancelled.into(),
            GitError::Refused(why) => Self::Refused(why),
            GitError::Differs(how) => Self::Differs(how),
            error => Self::Service(Box::new(error)),
        }
    }
}

fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> GitError {
    move |cause| GitError::File { operation, path: path.to_owned(), cause }
}

/// Where a repository is, and how it may be treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Absolute.
    pub path: PathBuf,
    /// Read every object before the capture.
    pub fsck: bool,
    /// Of a restore: with files (true), bare (false), or as it was.
    pub worktree: Option<bool>,
}

impl Address {
    /// Parses what follows the scheme.
    ///
    /// # Errors
    /// No path, an unknown option, a value that makes no sense.
    pub fn parse(text: &str) -> Result<Self, GitError> {
        let refused = |why: String| GitError::Refused(why);
        let (path, options) = path_and_options(text).map_err(|error| refused(error.to_string()))?;
        if path.is_empty() {
            return Err(refused("the path is missing\nhint: git:/srv/git/shop.git".into()));
        }
        let path = std::path::absolute(&path).map_err(file("find", Path::new(&path)))?;
        let mut address = Self { path, fsck: true, worktree: None };
        for (key, value) in options {
            let yes = match value.as_str() {
                "" | "yes" | "true" => true,
                "no" | "false" => false,
                _ => return Err(refused(format!("{key}={value} makes no sense\nhint: write yes or no"))),
            };
            match key.as_str() {
                "fsck" => address.fsck = yes,
                "worktree" => address.worktree = Some(yes),
                _ => return Err(refused(no_option(&key, &["fsck", "worktree"]))),
            }
        }
        Ok(address)
    }
}

/// The program, kept from everything but the repository it is shown.
#[derive(Clone)]
pub struct Git {
    pub withheld: &'static [&'static str],
    pub cancel: Cancel,
}

impl Git {
    /// A command on the repository whose own folder is `git_dir`.
    fn command(&self, git_dir: Option<&Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        for name in MISLEADING {
            command.env_remove(name);
        }
        // What a repository or a user configured is neither obeyed nor run.
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .current_dir("/");
        for setting in
            ["core.fsmonitor=false", "core.hooksPath=/dev/null", "gc.auto=0", "maintenance.auto=false"]
        {
            command.args(["-c", setting]);
        }
        if let Some(git_dir) = git_dir {
            let mut argument = std::ffi::OsString::from("--git-dir=");
            argument.push(git_dir);
            command.arg(argument);
        }
        command.args(arguments);
        command
    }

    fn options(&self) -> ProcessOptions {
        // Checking a large repository says nothing for hours.
        ProcessOptions { no_progress: None, withheld: self.withheld, ..ProcessOptions::default() }
    }

    fn start(&self, subject: &str, command: Command) -> Result<Process, GitError> {
        let started = Process::start(command, self.options(), &self.cancel);
        started.map_err(|cause| tool(subject, cause))
    }

    fn start_fed(&self, subject: &str, command: Command) -> Result<(Process, Feed), GitError> {
        let started = Process::start_fed(command, self.options(), &self.cancel);
        started.map_err(|cause| tool(subject, cause))
    }

    /// Runs a command to its good end and returns what it printed.
    fn ask(&self, subject: &str, git_dir: Option<&Path>, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        let mut process = self.start(subject, self.command(git_dir, arguments))?;
        let answer = read_all(subject, &mut process)?;
        process.finish().map_err(|cause| tool(subject, cause))?;
        Ok(answer)
    }

    /// The same for a question whose answer may be no: then `None`.
    fn ask_maybe(
        &self,
        subject: &str,
        git_dir: Option<&Path>,
        arguments: &[&str],
    ) -> Result<Option<Vec<u8>>, GitError> {
        match self.ask(subject, git_dir, arguments) {
            Ok(answer) => Ok(Some(answer)),
            Err(GitError::Tool { cause: ProcessError::Failed { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Feeds `input` to a command and wants it to end well.
    fn tell(&self, subject: &str, git_dir: &Path, arguments: &[&str], input: &[u8]) -> Result<(), GitError> {
        use std::io::Write as _;
        let (mut process, mut feed) = self.start_fed(subject, self.command(Some(git_dir), arguments))?;
        // It may have given up, and says why below.
        let _ = feed.write_all(input);
        drop(feed);
        read_all(subject, &mut process)?;
        process.finish().map_err(|cause| tool(subject, cause))?;
        Ok(())
    }
}

fn tool(subject: &str, cause: ProcessError) -> GitError {
    match cause {
        ProcessError::Start { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
            GitError::Failed("git is not installed here\nhint: apt-get install git".into())
        }
        cause => GitError::Tool { subject: subject.to_owned(), cause },
    }
}

fn read_all(subject: &str, process: &mut Process) -> Result<Vec<u8>, GitError> {
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match process.read_some(&mut buffer).map_err(|cause| tool(subject, cause))? {
            0 => return Ok(answer),
            length => answer.extend_from_slice(&buffer[..length]),
        }
        if answer.len() > ANSWER_LIMIT_BYTES {
            return Err(GitError::Failed(format!(
                "{subject}: git says more than {ANSWER_LIMIT_BYTES} bytes"
            )));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_strictly() {
        let address = Address::parse("/srv/my%20repo?worktree=no&fsck=no").unwrap();
        assert_eq!(address.path, Path::new("/srv/my repo"));
        assert_eq!((address.fsck, address.worktree), (false, Some(false)));
        assert_eq!(Address::parse("/a").unwrap().worktree, None);
        let why = |text: &str| Address::parse(text).unwrap_err().to_string();
        assert!(why("/a?worktre").contains("did you mean worktree?"), "{}", why("/a?worktre"));
        assert!(why("/a?fsck=maybe").contains("yes or no"));
        assert!(why("").contains("missing"));
    }
}
