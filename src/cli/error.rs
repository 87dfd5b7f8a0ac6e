//! From an error of any level to one message, a hint and an exit code. The one mapping there is.

use std::error::Error;
use std::io::Write as _;

use super::exit::Exit;
use crate::app::AppError;
use crate::base::cancel::Cancelled;
use crate::base::names;
use crate::config::ConfigError;
use crate::config::file::FileError;
use crate::drill::DrillError;
use crate::engine::EngineError;
use crate::pack::PackError;
use crate::repo::RepoError;
use crate::runbook::RunbookError;
use crate::source::capture::SourceError;
use crate::store::{StoreError, StoreErrorKind};

/// Why a verb failed, ready to be told.
#[derive(Clone, Debug)]
pub struct CliError {
    pub exit: Exit,
    /// The error and its causes, outermost first, none repeated.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl CliError {
    /// An error of this level's own.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, causes: vec![message.into()], hint: None }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Writing to stdout failed. Whoever closed the pipe had seen enough: then it is silent and no failure.
    pub fn stdout(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Ok, causes: Vec::new(), hint: None };
        }
        Self::new(Exit::Failed, format!("write to stdout: {error}"))
    }

    /// Says first what it is about.
    pub fn within(mut self, subject: &str) -> Self {
        self.causes.insert(0, subject.to_owned());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }

    /// Collects an error and its causes. A cause that the message above it already repeats is left out, and a
    /// `hint:` line inside one becomes the hint.
    pub fn from_chain(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        let mut found = Self { exit, causes: Vec::new(), hint: None };
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            let (message, hint) = match text.split_once("hint: ") {
                Some((message, hint)) => (message.trim_end(), Some(hint)),
                None => (text.as_str(), None),
            };
            if let Some(hint) = hint {
                found.hint.get_or_insert(hint.to_owned());
            }
            if !message.is_empty() && !found.causes.iter().any(|cause| cause.contains(message)) {
                found.causes.push(message.to_owned());
            }
            next = error.source();
        }
        found
    }

    /// Tells it, once, on stderr. Returns the exit code.
    pub fn report(&self, verb: &str, json: bool) -> Exit {
        if !self.causes.is_empty() {
            // With stderr closed there is nobody left to tell; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "{}", if json { self.json(verb) } else { self.text(verb) });
        }
        self.exit
    }

    fn text(&self, verb: &str) -> String {
        // Several drills or jobs in one run are told by their names, which some errors begin with.
        let causes = self.causes.strip_prefix(&[verb.to_owned()]).unwrap_or(&self.causes);
        let mut text = format!("error: {verb}: {}", causes.join(": "));
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        names::plain(&text).into_owned()
    }

    fn json(&self, verb: &str) -> String {
        serde_json::json!({
            "error": self.causes.first(),
            "operation": verb,
            "causes": self.causes.get(1..),
            "hint": self.hint,
            "exit_code": self.exit.code(),
        })
        .to_string()
    }
}

/// A command line that clap refused, or help and version, which it treats the same.
pub fn arguments(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // Help into a closed pipe is no failure.
        let _ = error.print();
        return Exit::Ok;
    }
    if super::json_to::is_asked(std::env::args_os()) {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        return CliError::usage(text.trim_end()).report("arguments", true);
    }
    let text = error.to_string();
    // What was typed is repeated there, and may have come from somewhere else.
    if text.chars().any(|c| c != '\n' && names::steers(c)) {
        let lines: Vec<String> = text.lines().map(|line| names::shown(line.as_bytes())).collect();
        let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
    } else {
        let _ = error.print();
    }
    Exit::Usage
}

fn store_exit(error: &StoreError) -> Exit {
    match error.kind {
        StoreErrorKind::Config => Exit::Usage,
        StoreErrorKind::Conflict => Exit::Conflict,
        // Only what was listed or referred to is read: its absence is damage.
        StoreErrorKind::NotFound if error.operation == "open" => Exit::NoRepository,
        StoreErrorKind::NotFound | StoreErrorKind::Truncated => Exit::Damage,
        StoreErrorKind::Denied | StoreErrorKind::Full | StoreErrorKind::Temporary | StoreErrorKind::Other => {
            Exit::Failed
        }
    }
}

fn repo_exit(error: &RepoError) -> Exit {
    match error {
        _ if error.newer_version().is_some() => Exit::Failed,
        _ if error.is_damage() => Exit::Damage,
        RepoError::NoRepository { .. } | RepoError::NotARepository { .. } => Exit::NoRepository,
        RepoError::Exists { .. } | RepoError::Conflict(_) | RepoError::Forgotten(_) => Exit::Conflict,
        RepoError::WrongKey { .. } => Exit::WrongKey,
        RepoError::AmbiguousSnapshot { .. } | RepoError::Refused(_) => Exit::Usage,
        RepoError::Store(error) => store_exit(error),
        RepoError::Pack(PackError::Store(error)) => store_exit(error),
        RepoError::Cancelled(_) => Exit::Interrupted,
        _ => Exit::Failed,
    }
}

fn store_hint(error: &StoreError) -> Option<&'static str> {
    match error.kind {
        StoreErrorKind::Denied => Some("`lifeboat doctor` tells what these credentials may do"),
        StoreErrorKind::Full => {
            Some("free space, or forget snapshots and prune; what is stored stays usable")
        }
        StoreErrorKind::Temporary => Some("run the same command again: it goes on where it stopped"),
        _ => None,
    }
}

/// What a recovery kit holds, and nothing opens without.
fn is_key_object(object: &str) -> bool {
    let folder = object.split('/').next().unwrap_or_default();
    matches!(folder, "config" | "roster" | "keyring" | "slots")
}

fn repo_hint(error: &RepoError) -> Option<&'static str> {
    match error {
        _ if error.newer_version().is_some() => Some("install that version; nothing here is damaged"),
        RepoError::NoRepository { .. } => Some("check the address, or make one with `lifeboat init`"),
        RepoError::NotARepository { .. } => Some("check the address"),
        RepoError::Exists { .. } => Some("a repository is never overwritten: choose another place"),
        RepoError::Damaged { object, .. } if is_key_object(object) => Some(
            "a recovery kit has it: `lifeboat --kit FILE repair keys` puts it back; else look at a replica",
        ),
        RepoError::Missing { .. } => Some(
            "a recovery kit has it: `lifeboat --kit FILE repair keys` puts it back; else look at a replica",
        ),
        RepoError::NoSnapshot(_) => Some("`lifeboat snapshots` lists what there is"),
        RepoError::AmbiguousSnapshot { .. } => {
            Some("write JOB@latest, narrow it with --job, --host or --tag, or give more of the id")
        }
        RepoError::Conflict(_) => Some("nothing is lost: run the same command again"),
        RepoError::Store(error) | RepoError::Pack(PackError::Store(error)) => store_hint(error),
        RepoError::Cache { .. } | RepoError::Pack(PackError::Cache { .. } | PackError::CacheFile { .. }) => {
            Some("nothing in the local cache is needed: --no-cache goes on without it")
        }
        _ if error.is_damage() => Some("`lifeboat verify` names everything that is damaged"),
        _ => None,
    }
}

impl From<RepoError> for CliError {
    fn from(error: RepoError) -> Self {
        let found = Self::from_chain(repo_exit(&error), &error);
        if let RepoError::AmbiguousSnapshot { hint: Some(hint), .. } = &error {
            return found.hint(hint);
        }
        match repo_hint(&error) {
            Some(hint) => found.hint(hint),
            None => found,
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        RepoError::Store(error).into()
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        let exit = match error {
            EngineError::Repo(error) => return error.into(),
            EngineError::Guard(_) => {
                let hint = "--force removes them all the same";
                return Self::from_chain(Exit::RetentionGuard, &error).hint(hint);
            }
            EngineError::Full { .. } => {
                let hint = "make room and run the same command again: it goes on where it stopped";
                return Self::from_chain(Exit::Failed, &error).hint(hint);
            }
            EngineError::Local { .. } | EngineError::Source(_) => Exit::Failed,
            EngineError::Refused(_) => Exit::Usage,
            EngineError::Differs(_) => Exit::Damage,
            EngineError::Cancelled(_) => Exit::Interrupted,
        };
        Self::from_chain(exit, &error)
    }
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> Self {
        Self::from_chain(Exit::Usage, &error)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::from_chain(Exit::Usage, &error)
    }
}

fn error_is_no_snapshot(error: &EngineError) -> bool {
    matches!(error, EngineError::Repo(RepoError::NoSnapshot(_)))
}

impl From<DrillError> for CliError {
    fn from(error: DrillError) -> Self {
        match error {
            // Nothing was started, so nothing failed.
            DrillError::Engine(cause) if error_is_no_snapshot(&cause) => {
                Self { exit: Exit::Usage, ..Self::from(cause) }
            }
            DrillError::Engine(error) => error.into(),
            DrillError::Spec(_) => Self::from_chain(Exit::Usage, &error),
            DrillError::UnderWay { .. } => Self::from_chain(Exit::Conflict, &error)
                .hint("let it end; another name is another drill, with a history of its own"),
            DrillError::Local { .. } | DrillError::Evidence(_) | DrillError::Chain { .. } => {
                Self::from_chain(Exit::Failed, &error)
            }
        }
    }
}

impl From<RunbookError> for CliError {
    fn from(error: RunbookError) -> Self {
        let exit = match error {
            RunbookError::Local { .. } => Exit::Failed,
            RunbookError::File(_) | RunbookError::Syntax { .. } | RunbookError::Refused(_) => Exit::Usage,
        };
        Self::from_chain(exit, &error)
    }
}

impl From<AppError> for CliError {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Repo(error) => error.into(),
            AppError::Engine(error) => error.into(),
            AppError::Store(error) => error.into(),
            AppError::Occupied { .. } => Self::from_chain(Exit::Conflict, &error)
                .hint("a repository gets a folder of its own: name one that is empty or does not exist"),
            AppError::NoRepositoryNamed => {
                Self::from_chain(Exit::Usage, &error).hint("write -r PATH|URL or set LIFEBOAT_REPOSITORY")
            }
            AppError::Drill(error) => error.into(),
            AppError::Source(SourceError::Differs(_)) => Self::from_chain(Exit::Damage, &error),
            AppError::Source(SourceError::Cancelled(cancelled)) => cancelled.into(),
            AppError::Source(SourceError::Refused(_)) | AppError::Refused(_) => {
                Self::from_chain(Exit::Usage, &error)
            }
            AppError::Source(_) => Self::from_chain(Exit::Failed, &error),
            AppError::LogFilter { .. } => Self::from_chain(Exit::Usage, &error),
            AppError::System { .. } | AppError::State { .. } => Self::from_chain(Exit::Failed, &error),
        }
    }
}

impl From<Cancelled> for CliError {
    fn from(error: Cancelled) -> Self {
        Self::from_chain(Exit::Interrupted, &error)
    }
}
