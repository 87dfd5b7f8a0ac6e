//! A step: a fenced block with attributes behind its language.

use std::time::Duration;

use super::Fault;
use super::attributes::{self, Attribute};

/// How long a step may take that says nothing of it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The way of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Find out what happened.
    Look,
    /// Keep it from becoming worse.
    Stop,
    /// Machines, programs, access.
    Prepare,
    Restore,
    /// Prove the data.
    Verify,
    /// Back into service.
    Resume,
    /// Not on the way: only when a step failed.
    Rollback,
}

impl Phase {
    const ALL: [(&'static str, Self); 7] = [
        ("look", Self::Look),
        ("stop", Self::Stop),
        ("prepare", Self::Prepare),
        ("restore", Self::Restore),
        ("verify", Self::Verify),
        ("resume", Self::Resume),
        ("rollback", Self::Rollback),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, phase)| *phase == self).map_or("", |(name, _)| name)
    }
}

/// Which shell runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Sh,
    Bash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Shell(Language),
    /// A person does it, and says when it is done.
    Manual {
        /// How long it usually takes: counted, as declared, in a drill.
        takes: Duration,
    },
}

/// The way back from a destructive step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollback {
    Step(String),
    /// In words, where no command is the way back.
    Words(String),
}

/// What a step is in a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs as in an emergency.
    Same,
    /// It does not run, for this reason.
    Skip(String),
    /// Only in a drill, before the clock starts: sets the scene.
    Before,
    /// Only in a drill, in the place of another step, for this reason.
    StandIn { instead_of: String, because: String },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    /// Line of its fence.
    pub line: usize,
    /// The heading it stands under.
    pub heading: String,
    pub kind: Kind,
    pub phase: Phase,
    /// What the document says before it, since the last heading or block.
    pub prose: String,
    /// What runs, or what a person is told.
    pub text: String,
    pub timeout: Duration,
    pub is_destructive: bool,
    /// The variable whose value has to be typed.
    pub confirm: Option<String>,
    pub rollback: Option<Rollback>,
    /// Its output must contain this.
    pub expected: Option<String>,
    pub role: Role,
}

impl Step {
    /// What ran is named by this.
    pub fn hash(&self) -> String {
        blake3::hash(self.text.as_bytes()).to_hex().to_string()
    }

    pub fn is_manual(&self) -> bool {
        matches!(self.kind, Kind::Manual { .. })
    }

    /// Whether it is on the way of an emergency.
    pub fn is_on_the_way(&self) -> bool {
        self.phase != Phase::Rollback && matches!(self.role, Role::Same | Role::Skip(_))
    }

    /// First line of its text, past comments: for lists.
    pub fn summary(&self) -> &str {
        let mut lines = self.text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.next().unwrap_or_default()
    }
}

/// A block's info string: `sh {step=x …}`. `None`: the block is no step.
///
/// What of it stands around the block is the caller's to fill in.
pub(super) fn parse(info: &str, line: usize, text: &str, heading: &str) -> Result<Option<Step>, Fault> {
    let (language, rest) = info.split_at(info.find([' ', '{']).unwrap_or(info.len()));
    let rest = rest.trim();
    let shell = match language {
        "sh" => Some(Language::Sh),
        "bash" => Some(Language::Bash),
        _ => None,
    };
    if rest.is_empty() {
        return match shell {
            // What is not a step would never be rehearsed.
            Some(_) => Err(Fault::new(line, format!("a block of {language} is no step"))
                .hint(format!("write {language} {{step=NAME phase=…}}, or text if nobody is to run it"))),
            None => Ok(None),
        };
    }
    let given = attributes::parse(rest, line)?;
    let mut fields = Fields { line, given };
    let name = fields.word("step")?.ok_or_else(|| Fault::new(line, "a step needs a name: step=NAME"))?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(Fault::new(line, format!("step {name:?}: a name is lower-case letters, digits and -")));
    }
    let phase = fields.phase()?;
    let takes = fields.time("takes")?;
    let kind = match (fields.flag("manual")?, shell, takes) {
        (true, None, Some(takes)) => Kind::Manual { takes },
        (true, None, None) => {
            return Err(Fault::new(line, "a manual step says how long it takes: takes=10m"));
        }
        (true, Some(_), _) => {
            return Err(
                Fault::new(line, "a manual step is a block of text, not of a shell").hint("write ```text")
            );
        }
        (false, None, _) => {
            return Err(Fault::new(
                line,
                format!("a step of {language:?}: steps are sh, bash, or text with manual"),
            ));
        }
        (false, Some(_), Some(_)) => {
            return Err(Fault::new(line, "takes= is for manual steps; a shell's has timeout="));
        }
        (false, Some(shell), None) => Kind::Shell(shell),
    };
    let step = Step {
        line,
        heading: heading.to_owned(),
        prose: String::new(),
        kind,
        phase,
        text: text.to_owned(),
        timeout: fields.time("timeout")?.unwrap_or(DEFAULT_TIMEOUT),
        is_destructive: fields.flag("destructive")?,
        confirm: fields.word("confirm")?,
        rollback: fields.word("rollback")?.map(|text| match text.contains(' ') {
            true => Rollback::Words(text),
            false => Rollback::Step(text),
        }),
        expected: fields.word("expect")?,
        role: fields.role()?,
        name,
    };
    fields.end()?;
    Ok(Some(step))
}

const KNOWN: [&str; 12] = [
    "step",
    "phase",
    "timeout",
    "takes",
    "manual",
    "destructive",
    "confirm",
    "rollback",
    "expect",
    "drill",
    "for",
    "because",
];

/// Attributes that are taken out one by one, so that what is left is a mistake.
struct Fields {
    line: usize,
    given: Vec<Attribute>,
}

impl Fields {
    fn take(&mut self, key: &str) -> Option<Attribute> {
        let at = self.given.iter().position(|attribute| attribute.key == key)?;
        Some(self.given.remove(at))
    }

    fn word(&mut self, key: &str) -> Result<Option<String>, Fault> {
        match self.take(key) {
            None => Ok(None),
            Some(Attribute { value: Some(value), .. }) if !value.is_empty() => Ok(Some(value)),
            Some(_) => Err(Fault::new(self.line, format!("{key} needs a value: {key}=…"))),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool, Fault> {
        match self.take(key) {
            None => Ok(false),
            Some(Attribute { value: None, .. }) => Ok(true),
            Some(_) => Err(Fault::new(self.line, format!("{key} stands alone, without a value"))),
        }
    }

    fn time(&mut self, key: &str) -> Result<Option<Duration>, Fault> {
        let line = self.line;
        self.word(key)?.map(|text| super::duration(line, key, &text)).transpose()
    }

    fn phase(&mut self) -> Result<Phase, Fault> {
        let names = Phase::ALL.map(|(name, _)| name);
        let word = self.word("phase")?.ok_or_else(|| {
            Fault::new(self.line, "a step needs a phase").hint(format!("phase= one of {}", names.join(", ")))
        })?;
        let found = Phase::ALL.into_iter().find(|(name, _)| *name == word);
        found.map(|(_, phase)| phase).ok_or_else(|| Fault::unknown(self.line, "phase", &word, &names))
    }

    fn role(&mut self) -> Result<Role, Fault> {
        let (word, instead_of, because) = (self.word("drill")?, self.word("for")?, self.word("because")?);
        let fault = |why: &str| Err(Fault::new(self.line, why));
        match (word.as_deref(), instead_of, because) {
            (None, None, None) => Ok(Role::Same),
            (Some("before"), None, None) => Ok(Role::Before),
            (Some("skip"), None, Some(because)) => Ok(Role::Skip(because)),
            (Some("skip"), _, None) => fault("drill=skip says why: because=\"…\""),
            (Some("stand-in"), Some(instead_of), Some(because)) => Ok(Role::StandIn { instead_of, because }),
            (Some("stand-in"), ..) => fault("a stand-in says for which step and why: for=STEP because=\"…\""),
            (Some(word @ ("before" | "skip")), ..) => {
                fault(&format!("drill={word} does not go with these attributes"))
            }
            (Some(word), ..) => {
                Err(Fault::unknown(self.line, "drill=", word, &["before", "skip", "stand-in"]))
            }
            (None, ..) => fault("for= and because= belong to drill=skip or drill=stand-in"),
        }
    }

    fn end(&self) -> Result<(), Fault> {
        match self.given.first() {
            None => Ok(()),
            Some(Attribute { key, .. }) if KNOWN.contains(&key.as_str()) => {
                Err(Fault::new(self.line, format!("{key} is given twice")))
            }
            Some(Attribute { key, .. }) => Err(Fault::unknown(self.line, "attribute", key, &KNOWN)),
        }
    }
}
