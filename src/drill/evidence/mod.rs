//! What a drill leaves: a record that says what was restored, checked and measured, and what was not.
//!
//! Its canonical form is the JSON of [`Evidence`] in the order of its fields. Each names the one before by hash, and
//! the machine that ran the drill signs it, so a missing, reordered or retouched record shows.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::DrillError;
use super::check::{CheckOutcome, CheckResult};
use super::fault::FaultResult;
use crate::format::id::{from_hex, to_hex};
use crate::repo::from_timestamp;
use crate::repo::snapshots::Snapshot;

/// Names the format of the record.
pub const FORMAT: &str = "lifeboat drill evidence 1";
const CONTEXT: &[u8] = b"lifeboat drill evidence v1\0";

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Restored, proven, in time.
    Met,
    CouldNotRun,
    Interrupted,
    DataWrong,
    CheckFailed,
    ObjectiveMissed,
}

impl Verdict {
    pub fn is_passed(self) -> bool {
        self == Self::Met
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Met => "PASSED",
            Self::CouldNotRun => "COULD NOT RUN",
            Self::Interrupted => "INTERRUPTED",
            Self::DataWrong => "DATA WRONG",
            Self::CheckFailed => "CHECK FAILED",
            Self::ObjectiveMissed => "OBJECTIVE MISSED",
        }
    }

    /// The smaller, the worse.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::DataWrong => 0,
            // What an interruption broke off failed for no other reason.
            Self::Interrupted => 1,
            Self::CheckFailed => 2,
            Self::CouldNotRun => 3,
            Self::ObjectiveMissed => 4,
            Self::Met => 5,
        }
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRow {
    pub id: String,
    pub job: String,
    pub host: String,
    pub source: String,
    /// RFC 3339.
    pub consistent_at: String,
    pub finished_at: String,
    /// Paths its backup could not read.
    pub problems: u64,
}

impl SnapshotRow {
    pub fn of(snapshot: &Snapshot) -> Self {
        let summary = &snapshot.summary;
        Self {
            id: snapshot.id.hex(),
            job: summary.job.clone(),
            host: summary.host.clone(),
            source: summary.source.clone(),
            consistent_at: from_timestamp(summary.consistent).to_string(),
            finished_at: from_timestamp(summary.finished).to_string(),
            problems: summary.statistics.problems,
        }
    }
}

/// Where the drill ran: a recovery time is one machine's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub host: String,
    pub cores: usize,
    pub system: String,
    pub program: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub name: String,
    pub seconds: f64,
}

/// Tolerated, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    pub rto_seconds: Option<f64>,
    pub rpo_seconds: Option<f64>,
}

/// Measured, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// From the start to ready; `None` when it never was.
    pub recovery_seconds: Option<f64>,
    /// Declared, not measured: what people take to notice and to decide.
    pub declared_seconds: f64,
    pub end_to_end_seconds: Option<f64>,
    /// Loss that this snapshot means now: a proven figure once the drill passed.
    pub exposure_seconds: Option<f64>,
    /// The worst loss over the window, whether it was drilled or not.
    pub worst_exposure_seconds: Option<f64>,
    /// The worst loss over the window if only what drills restored had been there, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_worst_seconds: Option<f64>,
    /// Other copies of the repository: what would be left if this one were lost, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyRow>,
    pub window_days: u32,
    /// Seconds per GiB against the median of runs like it, see [`super::trend`]; `None`: there were too few.
    pub trend: Option<f64>,
    /// How many runs like it there were to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend_runs: Option<u32>,
}

/// A stack that was rehearsed as a whole. Times in seconds since the beginning of the drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackRow {
    pub name: String,
    /// RFC 3339: each component as it was at or before it.
    pub at: String,
    /// Between the first and the last of the components' consistency points.
    pub skew_seconds: Option<f64>,
    pub components: Vec<ComponentRow>,
    /// The chain of components that decided when all was back.
    pub critical_path: Vec<String>,
}

/// One component of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentRow {
    pub name: String,
    pub needs: Vec<String>,
    /// Address without secrets; empty where nothing was restored.
    pub repository: String,
    pub snapshot: Option<SnapshotRow>,
    pub sandbox: Option<String>,
    /// `None`: it was not begun.
    pub began_seconds: Option<f64>,
    /// `None`: it never was.
    pub ready_seconds: Option<f64>,
    pub phases: Vec<Phase>,
    pub restored_bytes: u64,
    pub objectives: Objectives,
    pub exposure_seconds: Option<f64>,
    pub worst_exposure_seconds: Option<f64>,
    pub verdict: Verdict,
    pub reason: Option<String>,
}

impl ComponentRow {
    /// The objective it missed. `declared_seconds`: what people take.
    pub(super) fn missed(&self, declared_seconds: f64) -> Option<String> {
        let ready = self.ready_seconds.map(|ready| ready + declared_seconds);
        over("RTO", ready, self.objectives.rto_seconds)
            .or_else(|| over("RPO", self.exposure_seconds, self.objectives.rpo_seconds))
    }
}

/// What is said of a measure that is above what is tolerated, or is not there.
fn over(what: &str, measured: Option<f64>, objective: Option<f64>) -> Option<String> {
    match (measured, objective) {
        (Some(measured), Some(objective)) if measured > objective => {
            Some(format!("{what} {measured:.1} s, objective {objective:.1} s"))
        }
        (None, Some(_)) => Some(format!("{what} was not measured")),
        _ => None,
    }
}

/// The same data in another copy of the repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRow {
    pub name: String,
    /// RFC 3339; of its newest snapshot.
    pub consistent_at: Option<String>,
    pub exposure_seconds: Option<f64>,
    /// Why nothing is known of it.
    pub problem: Option<String>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    pub format: String,
    pub name: String,
    /// 1 for the first of its name.
    pub number: u64,
    /// Hash of the signed record before.
    pub previous: Option<String>,
    pub spec_hash: String,
    pub started_at: String,
    pub machine: Machine,
    /// Address without secrets.
    pub repository: String,
    pub snapshot: Option<SnapshotRow>,
    pub sandbox: Option<String>,
    pub phases: Vec<Phase>,
    pub restored_bytes: u64,
    pub checks: Vec<CheckResult>,
    pub not_tested: Vec<String>,
    pub objectives: Objectives,
    pub measured: Measured,
    /// Of a drill of a stack; what stands above then sums it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<StackRow>,
    pub verdict: Verdict,
    /// Why it is not met.
    pub reason: Option<String>,
    /// What the recovery began with, when it was not this machine as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Faults that were injected, each into a restore of its own after the drill.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultResult>,
}

/// Where a recovery began: nothing else of the machine was at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// `kit`, `replica` or `address`.
    pub from: String,
    /// The recovery kit: when it was made and its fingerprint.
    pub kit: Option<String>,
    pub address: String,
    /// Hash of the program.
    pub program: String,
    /// Variables that the process was given; their values are not kept.
    pub variables: Vec<String>,
    /// Storage options given besides.
    pub options: Vec<String>,
}

impl Start {
    /// For people.
    pub fn words(&self) -> String {
        let what = match &self.kit {
            Some(kit) => format!("recovery kit of {kit}"),
            None => format!("{} {}", self.from, self.address),
        };
        let is_harmless = |name: &&str| ["PATH", "TZ", "LANG", "LIFEBOAT_MACHINE"].contains(name);
        let all = self.variables.iter().map(String::as_str);
        let given: Vec<&str> = all.filter(|name| !is_harmless(name)).collect();
        let credentials = match given.is_empty() {
            true => "no storage credentials".into(),
            false => format!("storage credentials ({})", given.join(", ")),
        };
        format!("{what} + password + {credentials} only; no configuration, no cache, no state, empty home")
    }
}

impl Evidence {
    /// A drill of this name before anything happened.
    pub fn blank(name: &str, machine: Machine) -> Self {
        Self {
            format: FORMAT.into(),
            name: name.to_owned(),
            number: 1,
            previous: None,
            spec_hash: String::new(),
            started_at: String::new(),
            machine,
            repository: String::new(),
            snapshot: None,
            sandbox: None,
            phases: Vec::new(),
            restored_bytes: 0,
            checks: Vec::new(),
            not_tested: Vec::new(),
            objectives: Objectives::default(),
            measured: Measured::default(),
            stack: None,
            verdict: Verdict::CouldNotRun,
            reason: None,
            start: None,
            faults: Vec::new(),
        }
    }

    /// It was broken off. `why`: what that was met with.
    pub fn interrupted(&mut self, why: &str) {
        self.verdict = Verdict::Interrupted;
        let at = self.phases.last().map_or_else(String::new, |phase| format!(" after {}", phase.name));
        self.reason = Some(match why {
            "" | "interrupted" => format!("interrupted{at}"),
            why => format!("interrupted{at}: {why}"),
        });
    }

    /// Decides by the checks and objectives; for a drill that came to its end.
    pub fn judge(&mut self) {
        let failed = |data: bool| {
            move |check: &&CheckResult| check.outcome == CheckOutcome::Failed && check.is_data == data
        };
        let first = |data: bool| self.checks.iter().find(failed(data));
        let say = |check: &CheckResult| Some(format!("{}: {}", check.name, check.detail));
        let (verdict, reason) = if let Some(check) = first(true) {
            (Verdict::DataWrong, say(check))
        } else if let Some(check) = first(false) {
            (Verdict::CheckFailed, say(check))
        } else if let Some(check) = self.checks.iter().find(|check| check.outcome == CheckOutcome::Skipped) {
            (Verdict::CheckFailed, Some(format!("{} was skipped: {}", check.name, check.detail)))
        } else if !self.checks.iter().any(|check| check.proves_data) {
            (Verdict::CouldNotRun, Some("nothing was checked that proves the data".to_owned()))
        } else if let Some(missed) = self.missed() {
            (Verdict::ObjectiveMissed, Some(missed))
        } else {
            (Verdict::Met, None)
        };
        (self.verdict, self.reason) = (verdict, reason);
    }

    fn missed(&self) -> Option<String> {
        over("RTO", self.measured.end_to_end_seconds, self.objectives.rto_seconds)
            .or_else(|| over("RPO", self.measured.exposure_seconds, self.objectives.rpo_seconds))
    }

    fn canonical(&self) -> Result<Vec<u8>, DrillError> {
        serde_json::to_vec(self).map_err(|error| DrillError::Evidence(format!("cannot be written: {error}")))
    }

    /// Signs it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sign(self, key: &SigningKey) -> Result<SignedEvidence, DrillError> {
        let message = [CONTEXT, &self.canonical()?].concat();
        let signature = to_hex(&key.sign(&message).to_bytes());
        Ok(SignedEvidence { evidence: self, key: to_hex(key.verifying_key().as_bytes()), signature })
    }
}

/// A record with its signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedEvidence {
    pub evidence: Evidence,
    /// The signer's Ed25519 key, in hex.
    pub key: String,
    pub signature: String,
}

fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    from_hex(text, &mut bytes).then_some(bytes)
}

impl SignedEvidence {
    /// Reads a record.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, DrillError> {
        let parsed: Self = serde_json::from_slice(bytes)
            .map_err(|error| DrillError::Evidence(format!("cannot be read: {error}")))?;
        if parsed.evidence.format != FORMAT {
            return Err(DrillError::Evidence(format!("is of another format: {:?}", parsed.evidence.format)));
        }
        Ok(parsed)
    }

    /// What the next one names it by.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn hash(&self) -> Result<String, DrillError> {
        let text = serde_json::to_vec(self).map_err(|error| DrillError::Evidence(error.to_string()))?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }

    /// Whether the holder of `key` (hex) signed exactly this.
    ///
    /// # Errors
    /// Why not.
    pub fn attest(&self, key: &str) -> Result<(), DrillError> {
        let wrong = |why: &str| DrillError::Evidence(why.to_owned());
        let key = digits::<32>(&key.trim().to_ascii_lowercase())
            .ok_or_else(|| wrong("key is not 64 hex digits"))?;
        if digits::<32>(&self.key) != Some(key) {
            return Err(wrong("was signed by another key"));
        }
        let key = VerifyingKey::from_bytes(&key).map_err(|_| wrong("key is no Ed25519 key"))?;
        let signature = digits::<64>(&self.signature).ok_or_else(|| wrong("has no signature"))?;
        let message = [CONTEXT, &self.evidence.canonical()?].concat();
        key.verify_strict(&message, &Signature::from_bytes(&signature))
            .map_err(|_| wrong("is not what was signed: it was changed"))
    }
}

#[cfg(test)]
pub(super) mod tests;
