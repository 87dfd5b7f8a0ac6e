//! What stands in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::super::parse_duration;
use crate::policy::objective;
use crate::policy::schedule::Schedule;

/// All of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// IANA name of the zone that schedules are in.
    pub timezone: Option<String>,
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

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    pub url: String,
    pub password: Option<SecretReference>,
    /// Storage options, as `--option` takes them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
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
    KeyFile(PathBuf),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    pub repository: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Job {
    pub source: OneOrMany,
    pub repository: Option<String>,
    /// Cron expression.
    pub schedule: Option<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default)]
    pub exclude_caches: bool,
    #[serde(default)]
    pub one_file_system: bool,
    #[serde(default)]
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn all(&self) -> Vec<&str> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many.iter().map(String::as_str).collect(),
        }
    }
}

/// A component's objectives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    pub rto: Option<String>,
    pub rpo: Option<String>,
    #[serde(default)]
    pub needs: BTreeSet<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Drill {
    /// `SNAP`, as every verb takes it.
    pub restore: String,
    pub repository: Option<String>,
    pub sandbox: Option<String>,
    pub rto: Option<String>,
    pub rpo: Option<String>,
    pub detect: Option<String>,
    pub decide: Option<String>,
    #[serde(default)]
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    Sql(String),
    /// Run by `sh -c`.
    Command(String),
}

/// A time in the file, or what is wrong with it.
pub fn time(what: &str, key: &str, text: Option<&String>) -> Result<Option<Duration>, String> {
    let parsed = text.map(|text| parse_duration(text)).transpose();
    parsed.map_err(|error| format!("{what}: {key}: {error}"))
}

impl File {
    /// The repository a job or drill means: its own, the default, or the only one.
    fn repository_named(&self, named: Option<&String>) -> Result<(&str, &Repository), String> {
        if let Some(name) = named.or(self.defaults.repository.as_ref()) {
            let found = self.repository.get_key_value(name);
            let known: Vec<&str> = self.repository.keys().map(String::as_str).collect();
            return found
                .map(|(name, repository)| (name.as_str(), repository))
                .ok_or_else(|| format!("there is no repository {name:?} (there are: {})", known.join(", ")));
        }
        let mut all = self.repository.iter();
        match (all.next(), all.next()) {
            (Some((name, repository)), None) => Ok((name, repository)),
            (None, _) => Err("no repository is defined".into()),
            _ => Err("which repository? write repository = or [defaults] repository =".into()),
        }
    }

    /// # Errors
    /// It is not to be told.
    pub fn repository_of(&self, job: &Job) -> Result<(&str, &Repository), String> {
        self.repository_named(job.repository.as_ref())
    }

    /// # Errors
    /// It is not to be told.
    pub fn repository_of_drill(&self, drill: &Drill) -> Result<(&str, &Repository), String> {
        self.repository_named(drill.repository.as_ref())
    }

    /// The one that verbs use which name none.
    ///
    /// # Errors
    /// It is not to be told.
    pub fn default_repository(&self) -> Result<(&str, &Repository), String> {
        self.repository_named(None)
    }

    /// The zone that schedules are in.
    ///
    /// # Errors
    /// There is no such zone.
    pub fn zone(&self) -> Result<jiff::tz::TimeZone, String> {
        match &self.timezone {
            None => Ok(jiff::tz::TimeZone::system()),
            Some(name) => jiff::tz::TimeZone::get(name).map_err(|error| format!("timezone: {error}")),
        }
    }

    /// Looks for what each part alone does not show.
    pub(super) fn check(&self) -> Result<(), String> {
        let zone = self.zone()?;
        if let Some(name) = &self.defaults.repository {
            self.repository_named(Some(name)).map_err(|error| format!("defaults: {error}"))?;
        }
        for (name, job) in &self.job {
            let at = |error: String| format!("job {name}: {error}");
            self.repository_of(job).map_err(at)?;
            if job.source.all().iter().all(|source| source.is_empty()) {
                return Err(at("there is nothing to back up".into()));
            }
            if let Some(schedule) = &job.schedule {
                Schedule::parse(schedule, zone.clone()).map_err(|error| at(format!("schedule: {error}")))?;
            }
        }
        for (name, components) in &self.stack {
            let at = |error: String| format!("stack {name}: {error}");
            for (component, wanted) in components {
                time(component, "rto", wanted.rto.as_ref()).map_err(at)?;
                time(component, "rpo", wanted.rpo.as_ref()).map_err(at)?;
            }
            let parts = components.iter().map(|(name, component)| {
                // Jobs without objectives of their own may be needed too.
                let needs = component
                    .needs
                    .iter()
                    .filter(|need| !self.job.contains_key(*need) || components.contains_key(*need));
                let needs = needs.cloned().collect();
                (name.clone(), objective::Component { takes: Duration::ZERO, needs })
            });
            objective::critical_path(&parts.collect()).map_err(|error| at(error.to_string()))?;
        }
        for (name, drill) in &self.drill {
            let what = format!("drill {name}");
            self.repository_of_drill(drill).map_err(|error| format!("{what}: {error}"))?;
            for (key, text) in [
                ("rto", &drill.rto),
                ("rpo", &drill.rpo),
                ("detect", &drill.detect),
                ("decide", &drill.decide),
            ] {
                time(&what, key, text.as_ref())?;
            }
        }
        Ok(())
    }
}
