//! What a drill is told.

use std::time::Duration;

use super::DrillError;
use super::check::CheckSpec;
use super::fault::FaultSpec;
use super::sandbox::SandboxKind;
use crate::repo::snapshots::EVERY_JOB;

/// A drill's specification.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Spec {
    pub name: String,
    /// `SNAP`, as every verb takes it.
    pub snapshot: String,
    /// Whose snapshots; `None`: of several machines that have such, this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// `None`: what suits the snapshot.
    pub sandbox: Option<SandboxKind>,
    /// Address of a server that is lent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<String>,
    /// Variables of containers that keep their values although they look like secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Recovery time tolerated, from the loss to ready.
    pub rto: Option<Duration>,
    /// Loss tolerated.
    pub rpo: Option<Duration>,
    /// How long people may take to notice and to decide; part of the end-to-end time.
    pub detect: Duration,
    pub decide: Duration,
    /// Run in the sandbox once it is restored, before the checks below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Besides those that every drill makes by itself.
    pub checks: Vec<CheckSpec>,
    /// Injected after it, each into a restore of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultSpec>,
    /// What the recovery begins with.
    #[serde(default, skip_serializing_if = "From::is_here")]
    pub from: From,
}

/// What a recovery begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// This machine as it stands.
    #[default]
    Here,
    /// A replica, as if the repository were gone.
    Replica,
    /// The program, a recovery kit and the storage's credentials.
    Kit,
}

impl From {
    pub fn is_here(&self) -> bool {
        *self == Self::Here
    }

    pub const ALL: [(&'static str, Self); 3] =
        [("repository", Self::Here), ("replica", Self::Replica), ("kit", Self::Kit)];
}

/// Something that is done to the restored state: a migration, a rotation of passwords, what an operator would do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A program that must end with 0; it finds the restored state in its environment, as a check's command does.
    Command(Vec<String>),
    /// SQL that may change something.
    Sql(String),
}

impl Step {
    /// Shown in reports.
    pub fn title(&self) -> String {
        match self {
            Self::Command(words) => CheckSpec::Command(words.clone()).title().replacen("command", "step", 1),
            Self::Sql(sql) => format!("step: {sql}"),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            // The last word is what a shell is told.
            Self::Command(words) => words.last().is_none_or(|word| word.trim().is_empty()),
            Self::Sql(sql) => sql.trim().is_empty(),
        }
    }
}

impl Spec {
    /// Looks for what makes no sense, before anything starts.
    ///
    /// # Errors
    /// What it is.
    pub fn validate(&self) -> Result<(), DrillError> {
        let refused = |why: String| Err(DrillError::Spec(why));
        if self.name.is_empty() {
            return refused("a drill needs a name".into());
        }
        if self.snapshot.starts_with(EVERY_JOB) {
            return refused(format!(
                "{:?} means a snapshot of every job, and a drill restores one\nhint: name the job, as in db@latest; a drill \
                 of a stack rehearses several together (stack = \"NAME\" in the configuration file)",
                self.snapshot
            ));
        }
        let repeated = self
            .faults
            .iter()
            .enumerate()
            .find(|(at, fault)| self.faults[..*at].iter().any(|before| before.kind == fault.kind));
        if let Some((_, fault)) = repeated {
            return refused(format!("{} is injected once a drill", fault.kind.name()));
        }
        if !self.faults.is_empty() && !self.from.is_here() {
            return refused(
                "faults are injected by a drill of their own, not by one that begins elsewhere".into(),
            );
        }
        if self.lent.is_some() && !(self.faults.is_empty() && self.from.is_here()) {
            let why = "a server that is lent takes one restore: faults, and recoveries that begin elsewhere, want a sandbox of \
                       their own";
            return refused(why.into());
        }
        if let Some(rto) = self.rto {
            if rto.is_zero() {
                return refused("an RTO of nothing cannot be met".into());
            }
            let people = self.detect + self.decide;
            if people >= rto {
                return refused(format!(
                    "detecting and deciding take {} s by themselves: an RTO of {} s cannot be met",
                    people.as_secs(),
                    rto.as_secs()
                ));
            }
        }
        if self.rpo.is_some_and(|rpo| rpo.is_zero()) {
            return refused("an RPO of nothing cannot be met by backups".into());
        }
        if self.steps.iter().any(Step::is_empty) {
            return refused("a step is empty".into());
        }
        self.checks.iter().try_for_each(CheckSpec::validate)
    }

    /// What the evidence names it by, so that a drill that was made easier shows.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn hash(&self) -> Result<String, DrillError> {
        let text = serde_json::to_vec(self).map_err(|error| DrillError::Evidence(error.to_string()))?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }
}
