//! Level 6: executable Markdown. A runbook is a document that people follow in the worst hour, and that a program
//! can follow before, so that what was rehearsed is what will be read.
//!
//! The text's way: [`load`] parses it strictly, [`check`] holds it against rules that no parser sees, [`run`] runs
//! its steps one after the other and records each before and after, [`transcript`] tells what happened.
//!
//! What a runbook keeps: it works without this program, pasted by hand, its variables being the shell's own; what
//! ran is what stands in the document, byte for byte, named by its hash; nothing destructive runs in a drill unless
//! it is proven to aim at the sandbox; no secret reaches a record.

mod attributes;
pub mod audit;
pub mod check;
pub mod drill_rules;
mod front;
mod parse;
pub mod record;
pub mod redact;
pub mod run;
mod shell;
mod step;
#[cfg(test)]
mod tests;
pub mod transcript;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use front::{Front, Measured, Variable};
pub use parse::parse;
pub use step::{Kind, Language, Phase, Role, Rollback, Step};

use crate::base::own_file::{self, OwnFileError, Trust};

/// A longer document is no runbook.
const LIMIT_BYTES: u64 = 1 << 20;

/// A runbook that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RunbookError {
    #[error(transparent)]
    File(#[from] OwnFileError),
    #[error("{}:{line}: {message}{}", path.display(), hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Syntax { path: PathBuf, line: usize, message: String, hint: Option<String> },
    /// What was asked makes no sense or would be unsafe. Nothing was run.
    #[error("{0}")]
    Refused(String),
    #[error("cannot {operation} {}: {cause}", path.display())]
    Local { operation: &'static str, path: PathBuf, cause: std::io::Error },
}

/// What is wrong at a line; what is at that line decides about the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub line: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// `given` is none of `known`.
    fn unknown(line: usize, what: &str, given: &str, known: &[&str]) -> Self {
        let fault = Self::new(line, format!("unknown {what} {given:?}"));
        match crate::base::url::nearest(given, known) {
            Some(near) if strsim::jaro_winkler(given, near) > 0.7 => {
                fault.hint(format!("did you mean {near}?"))
            }
            _ => fault.hint(format!("there are {}", known.join(", "))),
        }
    }
}

/// A document that was understood.
#[derive(Clone, Debug)]
pub struct Runbook {
    pub path: PathBuf,
    /// The document as it is.
    pub text: String,
    pub front: Front,
    /// Its first heading.
    pub title: String,
    /// In the order of the document.
    pub steps: Vec<Step>,
    links: Vec<Link>,
    /// As forges make anchors of them.
    anchors: Vec<String>,
}

#[derive(Clone, Debug)]
struct Link {
    line: usize,
    target: String,
}

impl Runbook {
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.front.variables.iter().find(|variable| variable.name == name)
    }

    /// Hash of everything that decides about a run: prose may change without it.
    pub fn steps_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for step in &self.steps {
            let Step { name, text, phase, expected, role, kind, .. } = step;
            for part in [name, text, &format!("{phase:?} {expected:?} {role:?} {kind:?}")] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Whether the steps are those that were timed when this was written down.
    pub fn is_as_measured(&self, measured: &Measured) -> bool {
        measured.steps.len() >= SHORT && self.steps_hash().starts_with(&measured.steps)
    }
}

/// What of a hash stands in a document, in hex digits.
pub const SHORT: usize = 16;

/// Reads a runbook. [`Trust::Own`] when it is to be run.
///
/// # Errors
/// It cannot be read, others may write it, or it cannot be understood.
pub fn load(path: &Path, trust: Trust) -> Result<Runbook, RunbookError> {
    parse(path, &own_file::read(path, LIMIT_BYTES, trust)?)
}

/// Writes into a runbook what its rehearsal showed. The file is replaced whole or not at all, and keeps its mode.
///
/// # Errors
/// It cannot be written, or somebody else changed it meanwhile.
pub fn record(runbook: &Runbook, measured: &Measured) -> Result<(), RunbookError> {
    use std::io::Write as _;
    let path = &runbook.path;
    if own_file::read(path, LIMIT_BYTES, Trust::Own)? != runbook.text {
        return Err(RunbookError::Refused(format!(
            "{} was changed during the drill: nothing was recorded",
            path.display()
        )));
    }
    let failed = |operation| move |cause| RunbookError::Local { operation, path: path.clone(), cause };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::metadata(path).map_err(failed("read"))?.permissions();
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed("write"))?;
    let text = front::with_measured(&runbook.text, measured);
    let written = file.write_all(text.as_bytes()).and_then(|()| file.as_file().set_permissions(mode));
    written.and_then(|()| file.as_file().sync_all()).map_err(failed("write"))?;
    file.persist(path).map_err(|error| failed("replace")(error.error))?;
    Ok(())
}

/// A span of time as people write it.
fn duration(line: usize, key: &str, text: &str) -> Result<Duration, Fault> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| {
        Fault::new(line, format!("{key}: {text:?} is no time: write one such as 30s, 15m or 1h30m"))
    })
}
