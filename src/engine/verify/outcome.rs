//! What verify found, as values. The lists are bounded, the counts are not.

use serde::Serialize;

use crate::format::FormatError;
use crate::repo::RepoError;
use crate::seal::SealError;

/// Findings kept with their text.
const FINDINGS_LIMIT: usize = 1000;
/// Notes and untested parts kept.
const LINES_LIMIT: usize = 200;
/// Lost paths kept for each snapshot.
pub const PATHS_LIMIT: usize = 100;

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not what was stored, or is gone although something needs it.
    Damaged,
    /// Never finished: an upload without a commit. Nothing committed is affected.
    Incomplete,
    /// A later version of the format: a newer lifeboat can judge it.
    Newer,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub state: State,
    /// The object's name on storage.
    pub object: String,
    pub what: String,
}

/// What damage costs one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub snapshot: String,
    pub job: String,
    pub confirmed: bool,
    /// Files whose content is not all there.
    pub files: u64,
    /// The first of them: absolute paths, invalid UTF-8 replaced.
    pub paths: Vec<String>,
    /// Entries that cannot even be listed, because a page of the tree cannot be read.
    pub unlisted: u64,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Small objects: keys, marks, manifests, index objects.
    pub objects: u64,
    pub snapshots: u64,
    pub packs: u64,
    /// Parity objects.
    pub parity: u64,
    /// Pages of trees and recipes.
    pub pages: u64,
    /// References from pages to chunks; a shared page counts once.
    pub references: u64,
    pub packs_read: u64,
    pub blocks_read: u64,
    pub chunks_read: u64,
    /// Bytes as stored.
    pub bytes_read: u64,
}

/// The outcome of verify.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyOutcome {
    pub damaged: u64,
    pub incomplete: u64,
    pub newer: u64,
    /// The first of what the counts count.
    pub findings: Vec<Finding>,
    /// Per snapshot that lost something, oldest first.
    pub costs: Vec<Cost>,
    /// Nothing wrong, but good to know.
    pub notes: Vec<String>,
    /// What could not be judged with this key or these options.
    pub not_tested: Vec<String>,
    pub checked: Checked,
}

impl VerifyOutcome {
    /// Whether something that was committed is not as it was.
    pub fn is_damaged(&self) -> bool {
        self.damaged > 0
    }
    /// The finding about an object, if it is among those kept.
    pub fn finding(&self, object: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.object == object)
    }
}

/// Collects an outcome.
#[derive(Debug, Default)]
pub(in crate::engine) struct Report {
    outcome: VerifyOutcome,
    pub costs: Vec<Cost>,
    pub checked: Checked,
}

impl Report {
    pub fn add(&mut self, state: State, object: impl Into<String>, what: impl Into<String>) {
        match state {
            State::Damaged => self.outcome.damaged += 1,
            State::Incomplete => self.outcome.incomplete += 1,
            State::Newer => self.outcome.newer += 1,
        }
        if self.outcome.findings.len() < FINDINGS_LIMIT {
            self.outcome.findings.push(Finding { state, object: object.into(), what: what.into() });
        }
    }

    pub fn damaged(&mut self, object: impl Into<String>, what: impl Into<String>) {
        self.add(State::Damaged, object, what);
    }

    /// An object that does not open.
    pub fn seal(&mut self, object: impl Into<String>, cause: &SealError) {
        self.add(state_of(cause), object, cause.to_string());
    }

    pub fn format(&mut self, object: impl Into<String>, cause: FormatError) {
        self.seal(object, &cause.into());
    }

    /// Takes an error that names a damaged object; any other comes back.
    pub fn absorb(&mut self, error: RepoError) -> Result<(), RepoError> {
        match error {
            RepoError::Damaged { object, cause } => {
                self.seal(object, &cause);
                Ok(())
            }
            error => Err(error),
        }
    }

    pub fn note(&mut self, note: impl Into<String>) {
        push(&mut self.outcome.notes, note.into());
    }

    pub fn not_tested(&mut self, what: impl Into<String>) {
        push(&mut self.outcome.not_tested, what.into());
    }

    pub fn finish(self) -> VerifyOutcome {
        VerifyOutcome { costs: self.costs, checked: self.checked, ..self.outcome }
    }
}

fn push(lines: &mut Vec<String>, line: String) {
    if lines.len() < LINES_LIMIT && !lines.contains(&line) {
        lines.push(line);
    }
}

/// Keeps a newer version apart from damage.
pub(super) fn state_of(cause: &SealError) -> State {
    match cause {
        SealError::Format(FormatError::Newer { .. }) => State::Newer,
        _ => State::Damaged,
    }
}
