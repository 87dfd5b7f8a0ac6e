//! Level 7: rehearse a recovery. A snapshot is restored into a sandbox, what came back is checked, and the time
//! it took and the loss it means are measured against objectives.
//!
//! What a drill keeps: it never touches what it rehearses the loss of; every phase is timed by the monotonic clock;
//! a check that was skipped has not passed; whatever happens after the start, a drill ends in [`Evidence`], because
//! a drill that was interrupted is a failed one and never an absent one.

pub mod check;
pub mod evidence;
pub mod exposure;
pub mod fault;
pub mod history;
pub mod recovery;
pub mod redact;
pub mod report;
mod run;
pub mod runbook;
pub mod sandbox;
pub mod spec;
pub mod stack;
pub mod trend;
pub mod underway;
mod validate;

pub use evidence::{Evidence, Verdict};
pub use run::{Stage, run};
pub use spec::Spec;

use report::short_time;

use crate::engine::EngineError;
use crate::repo::RepoError;

/// Why a drill cannot begin. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The specification makes no sense or would prove nothing.
    #[error("{0}")]
    Spec(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot {operation}: {cause}")]
    Local { operation: &'static str, cause: std::io::Error },
    /// Two of a name would be two histories.
    #[error("drill {name} is under way on this machine: process {process}, since {}", short_time(since))]
    UnderWay { name: String, process: u32, since: String },
    #[error("evidence {0}")]
    Evidence(String),
    /// A new record would have to name this one.
    #[error("run #{number} of the drill cannot be read back ({cause}), so no run can follow it")]
    Chain { number: u64, cause: String },
}

impl DrillError {
    /// Whether what was asked for makes no sense, as against something that went wrong.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Spec(_) | Self::Engine(EngineError::Refused(_)) => true,
            Self::Engine(EngineError::Repo(error)) => matches!(
                error,
                RepoError::NoSnapshot(_) | RepoError::AmbiguousSnapshot { .. } | RepoError::Refused(_)
            ),
            _ => false,
        }
    }
}
