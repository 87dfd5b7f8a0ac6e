//! How a run went: what each step did, and how it all ended. These are the values that the audit, the transcript
//! and a drill's evidence are made of; no secret is in them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Kind, Phase, Step};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Done,
    /// It ended with another status than 0, or its output lacks what was expected.
    Failed,
    TimedOut,
    /// Nobody ran it.
    Skipped,
    Interrupted,
}

impl Ending {
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One step that came to its turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub step: String,
    pub phase: Phase,
    pub ending: Ending,
    /// Of the text that ran: BLAKE3, hex.
    pub hash: String,
    pub seconds: f64,
    /// Exit status of the shell.
    pub status: Option<i32>,
    /// Why it did not do what it should.
    pub why: Option<String>,
    /// The end of what it said, without secrets.
    pub output: String,
    /// RFC 3339.
    pub at: String,
}

impl StepRecord {
    /// A step that did not run.
    pub fn skipped(step: &Step, why: &str, at: String) -> Self {
        Self {
            step: step.name.clone(),
            phase: step.phase,
            ending: Ending::Skipped,
            hash: step.hash(),
            seconds: 0.0,
            status: None,
            why: Some(why.to_owned()),
            output: String::new(),
            at,
        }
    }

    pub fn last_line(&self) -> &str {
        self.output.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
    }
}

/// How it all ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Every step of the way was done or skipped on purpose.
    Completed,
    /// A step failed, and nobody went on.
    Failed,
    /// Somebody stopped it.
    Stopped,
    Interrupted,
}

impl Ended {
    pub fn words(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// RFC 3339.
    pub started_at: String,
    pub steps: Vec<StepRecord>,
    pub ended: Ended,
    /// From the first step of the way to the last.
    pub recovery_seconds: f64,
    /// What people take for the steps that a drill leaves to them: declared.
    pub declared_seconds: f64,
}

impl Outcome {
    /// The step that ended the run.
    pub fn failure(&self) -> Option<&StepRecord> {
        let failed = |record: &&StepRecord| matches!(record.ending, Ending::Failed | Ending::TimedOut);
        self.steps.iter().rev().find(failed).filter(|_| self.ended != Ended::Completed)
    }

    /// Whether something that proves the data was left out.
    pub fn unproven(&self) -> Option<&StepRecord> {
        self.steps.iter().find(|record| record.phase == Phase::Verify && record.ending == Ending::Skipped)
    }
}

/// What people need for manual steps.
pub fn declared(steps: &[&Step]) -> Duration {
    let takes = steps.iter().map(|step| match step.kind {
        Kind::Manual { takes } => takes,
        Kind::Shell(_) => Duration::ZERO,
    });
    takes.sum()
}

/// In the grain of milliseconds.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
