//! Terraform's and OpenTofu's state: the file, what a backend holds, or what the program itself gives out.
//!
//! [`State`] reads what a state says of itself; a [`Place`] is where one lies. Invariant: a state is replaced only
//! after it was compared with the one that is there, and that one is kept.

mod file;
mod program;

use std::io::Read;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::base::cancel::{Cancel, Cancelled};
use crate::base::process::ProcessError;
use crate::format::entry::Timestamp;
use crate::source::capture::{Captured, Held, SourceError};
use crate::source::target::{Returned, StoredPart, Target};

pub use file::FilePlace;
pub use program::ProgramPlace;

/// Largest state believed.
pub const STATE_LIMIT_BYTES: u64 = 512 << 20;
/// What a state is called in a snapshot.
const PART: &str = "/terraform.tfstate";
/// Versions of the format that are known.
const VERSIONS: [u64; 2] = [3, 4];

/// A state that cannot be captured or given back.
#[derive(Debug, thiserror::Error)]
pub enum TerraformError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("{subject}: {cause}")]
    Tool { subject: String, cause: ProcessError },
    #[error("cannot {operation} {}: {cause}", path.display())]
    File { operation: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Refused(String),
}

impl From<TerraformError> for SourceError {
    fn from(error: TerraformError) -> Self {
        match error {
            TerraformError::Cancelled(cancelled)
            | TerraformError::Tool { cause: ProcessError::Cancelled(cancelled), .. } => cancelled.into(),
            TerraformError::Refused(why) => Self::Refused(why),
            error => Self::Service(Box::new(error)),
        }
    }
}

/// Where a state lies.
pub trait Place: Send {
    /// For messages, without secrets.
    fn shown(&self) -> String;

    /// The state; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self) -> Result<Option<Vec<u8>>, TerraformError>;

    /// Who is at work with the state right now, as far as its lock says.
    ///
    /// # Errors
    /// The lock cannot be looked at.
    fn lock(&self) -> Result<Option<String>, TerraformError>;

    /// Puts a state there; `old` is what was there, to be kept. Returns where it is kept.
    ///
    /// # Errors
    /// It cannot be written.
    fn write(&self, state: &[u8], old: Option<&[u8]>) -> Result<Option<String>, TerraformError>;
}

/// What a state says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub serial: u64,
    pub lineage: String,
    pub written_by: String,
    pub resources: usize,
    pub outputs: usize,
}

impl State {
    /// Reads a state.
    ///
    /// # Errors
    /// It is none, with the reason.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
        let version = value["version"].as_u64().ok_or("it has no version")?;
        if !VERSIONS.contains(&version) {
            return Err(format!("its format has version {version}; 3 and 4 are known"));
        }
        let lineage = value["lineage"].as_str().filter(|lineage| !lineage.is_empty());
        Ok(Self {
            serial: value["serial"].as_u64().ok_or("it has no serial")?,
            lineage: lineage.ok_or("it has no lineage")?.to_owned(),
            written_by: value["terraform_version"].as_str().unwrap_or("an unknown version").to_owned(),
            resources: value["resources"].as_array().map_or(0, Vec::len),
            outputs: value["outputs"].as_object().map_or(0, Map::len),
        })
    }

    fn fact(&self, bytes: &[u8]) -> Value {
        let Self { serial, lineage, written_by, resources, outputs } = self;
        json!({
            "serial": serial, "lineage": lineage, "terraform_version": written_by, "resources": resources,
            "outputs": outputs, "bytes": bytes.len(), "hash": hash(bytes),
        })
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// What a state is about, without what says when and by whom it was written.
fn content(bytes: &[u8]) -> Option<[Value; 3]> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    Some(["lineage", "outputs", "resources"].map(|key| value[key].clone()))
}

/// Captures the state at a place. `now`: the instant before.
///
/// # Errors
/// There is none, or it is no state.
pub fn capture(place: &dyn Place, now: Timestamp) -> Result<Held, SourceError> {
    let shown = place.shown();
    let lock = place.lock()?;
    let bytes = place.read()?.ok_or_else(|| TerraformError::Failed(format!("{shown}: there is no state")))?;
    let state =
        State::parse(&bytes).map_err(|why| TerraformError::Failed(format!("{shown} is no state: {why}")))?;
    let mut captured = Captured { consistent: now, ..Captured::default() };
    captured.facts.insert("terraform".into(), state.fact(&bytes));
    if let Some(who) = lock {
        captured
            .warnings
            .push(format!("{shown} is locked ({who}): a run is under way, and its result is not in it"));
    }
    Ok(Held::new(vec![(PART.into(), bytes)], now, captured))
}

/// A state on its way back.
pub struct TerraformTarget {
    place: Box<dyn Place>,
    force: bool,
    cancel: Cancel,
    expected: Value,
    fresh: Option<Vec<u8>>,
}

impl TerraformTarget {
    /// `force`: a state that is there may be replaced.
    pub fn new(place: Box<dyn Place>, force: bool, cancel: Cancel) -> Self {
        Self { place, force, cancel, expected: Value::Null, fresh: None }
    }

    /// Whether the state that is there may give way to the one of `serial` and `lineage`.
    fn may_replace(&self, there: &[u8]) -> Result<(), TerraformError> {
        let shown = self.place.shown();
        if self.expected["hash"] == hash(there).as_str() {
            return Ok(());
        }
        let serial = self.expected["serial"].as_u64().unwrap_or_default();
        let why = match State::parse(there) {
            Err(why) => format!("what is at {shown} is no state ({why})"),
            Ok(state) if self.expected["lineage"] != state.lineage.as_str() => {
                format!("the state at {shown} is of another lineage: it describes other infrastructure")
            }
            Ok(state) if state.serial > serial => format!(
                "the state at {shown} is newer: serial {}, the snapshot has {serial}. What was made since would be \
                 forgotten, not removed",
                state.serial
            ),
            Ok(state) => {
                format!("{shown} holds a state already: serial {}, the snapshot has {serial}", state.serial)
            }
        };
        if self.force {
            return Ok(());
        }
        let hint = "--force replaces it and keeps the old one beside it";
        Err(TerraformError::Refused(format!("{why}\nhint: {hint}")))
    }

    fn unlocked(&mut self) -> Result<(), TerraformError> {
        let Some(who) = self.place.lock()? else { return Ok(()) };
        let why = format!("{} is locked ({who})\nhint: wait for that run, or end it", self.place.shown());
        Err(TerraformError::Refused(why))
    }

    fn end(&mut self) -> Result<Returned, TerraformError> {
        self.cancel.check()?;
        let fresh = self.fresh.take().ok_or_else(|| TerraformError::Failed("nothing came".into()))?;
        let shown = self.place.shown();
        // Looked at again: a run may have begun or ended meanwhile.
        self.unlocked()?;
        let old = self.place.read()?;
        if let Some(old) = &old {
            self.may_replace(old)?;
        }
        let state = State::parse(&fresh)
            .map_err(|why| TerraformError::Failed(format!("what came is no state: {why}")))?;
        let mut returned = Returned::default();
        let mut kept = None;
        if old.as_ref() != Some(&fresh) {
            kept = self.place.write(&fresh, old.as_deref())?;
        }
        let found = self.place.read()?.unwrap_or_default();
        // A backend may write the same state in other words, under a serial of its own.
        let is_same = found == fresh || (content(&found).is_some() && content(&found) == content(&fresh));
        if !is_same {
            return Err(TerraformError::Failed(format!("{shown} is not what was put there")));
        }
        let State { serial, lineage, resources, outputs, .. } = &state;
        returned.proven.push(format!(
            "serial {serial} of lineage {lineage}: {resources} resources and {outputs} outputs, read back from {shown}"
        ));
        if let Some(kept) = kept {
            returned.proven.push(format!("the state that was there is kept as {kept}"));
        }
        returned.facts.insert("terraform".into(), state.fact(&found));
        Ok(returned)
    }
}

impl Target for TerraformTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let refused = |why: &str| SourceError::Refused(why.to_owned());
        let expected = facts.get("terraform").filter(|fact| fact["serial"].is_u64());
        self.expected =
            expected.cloned().ok_or_else(|| refused("the snapshot is not of a Terraform state"))?;
        let place = parts.iter().position(|part| part.path == PART);
        let place = place.ok_or_else(|| refused("the snapshot holds no state at that path"))?;
        self.unlocked()?;
        if let Some(there) = self.place.read()? {
            self.may_replace(&there)?;
        }
        Ok(vec![place])
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut bytes = Vec::new();
        let read = content.take(STATE_LIMIT_BYTES).read_to_end(&mut bytes);
        read.map_err(|cause| TerraformError::Failed(format!("cannot read {}: {cause}", part.path)))?;
        if self.expected["hash"] != hash(&bytes).as_str() {
            return Err(SourceError::Differs("the state's hash is another".into()));
        }
        self.fresh = Some(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        Ok(self.end()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_from_what_is_none() {
        let text = r#"{"version": 4, "terraform_version": "1.11.4", "serial": 7, "lineage": "ab-cd",
            "outputs": {"x": {"value": 1}}, "resources": [{"type": "t"}, {"type": "u"}]}"#;
        let state = State::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (state.serial, state.lineage.as_str(), state.resources, state.outputs),
            (7, "ab-cd", 2, 1)
        );
        let why = |text: &str| State::parse(text.as_bytes()).unwrap_err();
        assert!(why(&text[..100]).contains("no JSON"));
        assert!(why("").contains("no JSON"));
        assert!(why("[]").contains("no version"));
        assert!(why(r#"{"version": 9}"#).contains("version 9"));
        assert!(why(r#"{"version": 4, "lineage": "a"}"#).contains("no serial"));
        assert!(why(r#"{"version": 4, "serial": 1, "lineage": ""}"#).contains("no lineage"));
    }
}
