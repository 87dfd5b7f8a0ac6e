//! A snapshot that somebody else keeps (a provider's, a hypervisor's), made and given back by programs of the user's.
//!
//! What the program prints is kept with the snapshot's id and description as facts: a record of where the bytes are,
//! not the bytes.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessError, ProcessOptions};
use crate::base::url::{no_option, path_and_options};
use crate::format::entry::Timestamp;
use crate::source::capture::{Captured, Held, SourceError};
use crate::source::target::{Returned, StoredPart, Target};

/// Most bytes of a program's answer.
const ANSWER_LIMIT_BYTES: u64 = 16 << 20;
/// Where an answer may hold the snapshot: itself, or what `hcloud … -o json` and others wrap it in.
const WRAPPED_IN: [&str; 3] = ["image", "snapshot", "action"];
const OPTIONS: [&str; 2] = ["create", "restore"];

/// A hook that cannot be run or says nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("{subject}: {cause}")]
    Tool { subject: String, cause: ProcessError },
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Refused(String),
}

impl From<HookError> for SourceError {
    fn from(error: HookError) -> Self {
        match error {
            HookError::Tool { cause: ProcessError::Cancelled(cancelled), .. } => cancelled.into(),
            HookError::Refused(why) => Self::Refused(why),
            error => Self::Service(Box::new(error)),
        }
    }
}

/// What is snapshotted, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Of the server, volume or machine, as the programs know it.
    pub name: String,
    pub create: Option<PathBuf>,
    pub restore: Option<PathBuf>,
}

impl Address {
    /// Parses what follows the scheme.
    ///
    /// # Errors
    /// No name, an unknown option, a program without its whole path.
    pub fn parse(text: &str) -> Result<Self, HookError> {
        let refused = |why: String| HookError::Refused(why);
        let (name, options) = path_and_options(text).map_err(|error| refused(error.to_string()))?;
        if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == '/' || c.is_control()) {
            return Err(refused(format!(
                "{name:?} is no name of a machine\nhint: provider-snapshot:web-1?create=/usr/local/bin/make-snapshot"
            )));
        }
        let mut address = Self { name, create: None, restore: None };
        for (key, value) in options {
            let program = PathBuf::from(&value);
            if !program.is_absolute() {
                return Err(refused(format!("{key}={value} is no program\nhint: write its whole path")));
            }
            match key.as_str() {
                "create" => address.create = Some(program),
                "restore" => address.restore = Some(program),
                _ => return Err(refused(no_option(&key, &OPTIONS))),
            }
        }
        Ok(address)
    }
}

/// How hooks are run.
#[derive(Clone)]
pub struct Runner {
    pub withheld: &'static [&'static str],
    pub cancel: Cancel,
}

impl Runner {
    fn run(
        &self,
        subject: &str,
        program: &PathBuf,
        variables: &[(&str, &str)],
    ) -> Result<Vec<u8>, HookError> {
        let failed = |cause: ProcessError| HookError::Tool { subject: subject.to_owned(), cause };
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        let options = ProcessOptions { withheld: self.withheld, ..ProcessOptions::default() };
        let mut process = Process::start(command, options, &self.cancel).map_err(failed)?;
        let mut answer = Vec::new();
        let read = (&mut process).take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer);
        process.finish().map_err(failed)?;
        read.map_err(|cause| HookError::Failed(format!("{subject}: {cause}")))?;
        Ok(answer)
    }
}

/// What an answer says of the snapshot.
fn read_answer(answer: &[u8]) -> Result<(String, String), String> {
    let value: Value =
        serde_json::from_slice(answer).map_err(|error| format!("it printed no JSON: {error}"))?;
    let places = std::iter::once(&value).chain(WRAPPED_IN.iter().filter_map(|key| value.get(key)));
    for place in places {
        let id = match &place["id"] {
            Value::String(id) if !id.is_empty() => id.clone(),
            Value::Number(id) => id.to_string(),
            _ => continue,
        };
        return Ok((id, place["description"].as_str().unwrap_or_default().to_owned()));
    }
    Err("what it printed holds no id".into())
}

/// Has the snapshot made. `now`: the instant before.
///
/// # Errors
/// The program fails, or does not say which snapshot it made.
pub fn capture(address: &Address, runner: &Runner, now: Timestamp) -> Result<Held, SourceError> {
    let Address { name, create, restore } = address;
    let program = create.as_ref().ok_or_else(|| {
        let hint = "name the program that makes the snapshot: ?create=/usr/local/bin/make-snapshot";
        HookError::Refused(format!("nothing says how a snapshot of {name} is made\nhint: {hint}"))
    })?;
    let subject = format!("snapshot of {name}");
    let answer = runner.run(&subject, program, &[("LIFEBOAT_SNAPSHOT_OF", name)])?;
    let (id, description) = read_answer(&answer)
        .map_err(|why| HookError::Failed(format!("{subject}: {}: {why}", program.display())))?;
    let mut captured = Captured { consistent: now, ..Captured::default() };
    let fact = json!({
        "of": name, "id": id, "description": description, "create": program, "restore": restore,
    });
    captured.facts.insert("provider_snapshot".into(), fact);
    Ok(Held::new(vec![(format!("/{name}/snapshot.json"), answer)], now, captured))
}

/// Gives a provider's snapshot back by the program that does it; without one, says what to do.
pub struct HookTarget {
    address: Address,
    runner: Runner,
    force: bool,
    fact: Value,
}

impl HookTarget {
    /// `force`: the program may be run; it replaces what runs there.
    pub fn new(address: Address, runner: Runner, force: bool) -> Self {
        Self { address, runner, force, fact: Value::Null }
    }

    fn program(&self) -> Option<PathBuf> {
        let kept = || self.fact["restore"].as_str().map(PathBuf::from);
        self.address.restore.clone().or_else(kept)
    }
}

impl Target for HookTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let refused = |why: String| Err(SourceError::Refused(why));
        match facts.get("provider_snapshot").filter(|fact| fact["id"].is_string()) {
            Some(fact) => self.fact = fact.clone(),
            None => return refused("the snapshot is not the record of a provider's".into()),
        }
        let (name, id) = (&self.address.name, self.fact["id"].as_str().unwrap_or_default());
        let description = self.fact["description"].as_str().unwrap_or_default();
        let Some(program) = self.program() else {
            return refused(format!(
                "nothing says how snapshot {id} ({description}) is given back to {name}\nhint: by hand at the provider, or \
                 name the program: ?restore=/usr/local/bin/restore-snapshot"
            ));
        };
        if !self.force {
            return refused(format!(
                "this would run {} with LIFEBOAT_SNAPSHOT_ID={id} ({description}), which replaces what {name} holds\n\
                 hint: --force does it",
                program.display()
            ));
        }
        Ok((0..parts.len()).collect())
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut answer = Vec::new();
        let read = content.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer);
        read.map_err(|cause| HookError::Failed(format!("cannot read {}: {cause}", part.path)))?;
        match read_answer(&answer) {
            Ok((id, _)) if self.fact["id"] == id.as_str() => Ok(()),
            _ => Err(SourceError::Differs("the record names another snapshot".into())),
        }
    }

    fn finish(self: Box<Self>) -> Result<Returned, SourceError> {
        let name = &self.address.name;
        let word = |key: &str| self.fact[key].as_str().unwrap_or_default().to_owned();
        let (id, description) = (word("id"), word("description"));
        let program =
            self.program().ok_or_else(|| HookError::Failed("the program is gone: this is a bug".into()))?;
        let variables = [
            ("LIFEBOAT_SNAPSHOT_OF", name.as_str()),
            ("LIFEBOAT_SNAPSHOT_ID", &id),
            ("LIFEBOAT_SNAPSHOT_DESCRIPTION", &description),
        ];
        let answer = self.runner.run(&format!("restore of {name}"), &program, &variables)?;
        let mut returned = Returned::default();
        let program = program.display();
        returned.proven.push(format!(
            "{program} ended well with snapshot {id} ({description}); what it did was not looked at"
        ));
        if let Ok(said) = serde_json::from_slice::<Value>(&answer) {
            returned.facts.insert("provider_snapshot".into(), said);
        }
        Ok(returned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_however_it_is_wrapped() {
        let read = |text: &str| read_answer(text.as_bytes());
        assert_eq!(read(r#"{"id": "a-1", "description": "d"}"#).unwrap(), ("a-1".into(), "d".into()));
        let hcloud = r#"{"image": {"id": 4711, "description": "lifeboat", "type": "snapshot"}}"#;
        assert_eq!(read(hcloud).unwrap(), ("4711".into(), "lifeboat".into()));
        assert!(read("Image 4711 created").unwrap_err().contains("no JSON"));
        assert!(read(r#"{"ok": true}"#).unwrap_err().contains("no id"));
        assert!(read(r#"{"id": ""}"#).is_err());
    }

    #[test]
    fn an_address_names_programs_by_their_whole_path() {
        let address = Address::parse("web-1?create=/usr/bin/make&restore=/usr/bin/back").unwrap();
        assert_eq!(address.create, Some("/usr/bin/make".into()));
        let why = |text: &str| Address::parse(text).unwrap_err().to_string();
        assert!(why("web-1?create=make").contains("whole path"));
        assert!(why("web-1?crate=/x").contains("did you mean create?"));
        assert!(why("?create=/x").contains("no name"));
        assert!(why("a%2Fb").contains("no name"));
    }
}
