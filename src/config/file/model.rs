//! What stands in the file: its shapes, and nothing about what they mean together.
//!
//! Keys of two words are written with a dash or an underscore.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::super::parse_duration;
use super::check::{Check, DrillStep};

/// All of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Such as `production`: restoring over what the jobs back up asks for this word.
    pub environment: Option<String>,
    /// IANA name of the zone that schedules are in.
    pub timezone: Option<String>,
    /// Machines by name: `LIFEBOAT_MACHINE`, else the host's. None: a single machine that does everything.
    #[serde(default)]
    pub machine: BTreeMap<String, Machine>,
    #[serde(default)]
    pub repository: BTreeMap<String, Repository>,
    #[serde(default)]
    pub defaults: Defaults,
    #[serde(default)]
    pub job: BTreeMap<String, Job>,
    /// Components by name; one named as a job is that job's data.
    #[serde(default)]
    pub stack: BTreeMap<String, BTreeMap<String, Component>>,
    #[serde(default)]
    pub drill: BTreeMap<String, Drill>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    pub url: String,
    /// The repository whose keys and password it shares.
    #[serde(alias = "replica-of")]
    pub replica_of: Option<String>,
    /// Its address as these machines see it.
    #[serde(default)]
    pub via: BTreeMap<String, String>,
    pub password: Option<SecretReference>,
    /// Storage options, as `--option` takes them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What may be done where.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What it opens repositories with.
    pub key: Option<SecretReference>,
    /// `None`: all of them.
    pub duties: Option<BTreeSet<Duty>>,
}

/// Work that a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    Backup,
    Copy,
    Retention,
    Prune,
    Verify,
    Drill,
}

impl Duty {
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Copy => "copy",
            Self::Retention => "retention",
            Self::Prune => "prune",
            Self::Verify => "verify",
            Self::Drill => "drill",
        }
    }
}

/// Where a secret is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretReference {
    File(PathBuf),
    Command(String),
    Env(String),
    /// Of systemd.
    Credential(String),
    #[serde(alias = "key_file")]
    KeyFile(PathBuf),
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    pub repository: Option<String>,
    /// Repositories that jobs are copied to which say nothing else.
    #[serde(default, alias = "copy-to")]
    pub copy_to: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Job {
    pub source: OneOrMany,
    pub repository: Option<String>,
    /// Cron expression.
    pub schedule: Option<String>,
    /// Repositories that its snapshots are copied to after each run.
    #[serde(alias = "copy_to")]
    pub copy_to: Option<Vec<String>>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default, alias = "exclude_caches")]
    pub exclude_caches: bool,
    #[serde(default, alias = "one_file_system")]
    pub one_file_system: bool,
    #[serde(default)]
    pub tags: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

struct ForOneOrMany;

impl<'de> Visitor<'de> for ForOneOrMany {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an address or path, or a list of paths")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
        let mut many = Vec::new();
        while let Some(one) = all.next_element()? {
            many.push(one);
        }
        Ok(OneOrMany::Many(many))
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ForOneOrMany)
    }
}

/// A component: its objectives, and what must be there first.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Component {
    pub rto: Option<String>,
    pub rpo: Option<String>,
    #[serde(default)]
    pub needs: BTreeSet<String>,
    /// Whose snapshots it is made of, where several machines have a job of its name.
    pub machine: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Drill {
    /// `SNAP`, as every verb takes it.
    pub restore: Option<String>,
    /// Or a stack, all of it.
    pub stack: Option<String>,
    /// Or a runbook: its file, relative to this one.
    pub runbook: Option<PathBuf>,
    /// Of a runbook: values of its variables.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Whose snapshots are rehearsed, where several machines have such.
    pub machine: Option<String>,
    /// Of a stack: as it was at or before this time.
    pub at: Option<String>,
    /// Of a stack: what is asked of a component.
    #[serde(default)]
    pub component: BTreeMap<String, DrillComponent>,
    /// Variables of containers that a drill in Docker keeps although they look like secrets.
    #[serde(default)]
    pub secrets: Vec<String>,
    pub repository: Option<String>,
    pub sandbox: Option<String>,
    pub rto: Option<String>,
    pub rpo: Option<String>,
    pub detect: Option<String>,
    pub decide: Option<String>,
    #[serde(default)]
    pub steps: Vec<DrillStep>,
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Injected after it, each into a restore of its own.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What the recovery begins with: `repository`, `replica` or `kit`.
    pub from: Option<String>,
    /// The recovery kit to begin with.
    pub kit: Option<PathBuf>,
}

/// A fault with its declared outcome.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: String,
    #[serde(rename = "expect")]
    pub declared: Option<String>,
}

/// What a drill of a stack asks of one component.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillComponent {
    pub sandbox: Option<String>,
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// A time in the file, or what is wrong with it.
pub fn time(what: &str, key: &str, text: Option<&String>) -> Result<Option<Duration>, String> {
    let parsed = text.map(|text| parse_duration(text)).transpose();
    parsed.map_err(|error| format!("{what}: {key}: {error}"))
}
