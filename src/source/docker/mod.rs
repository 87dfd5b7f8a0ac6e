//! Docker volumes and projects (Compose, Swarm), through the Engine API.
//!
//! A volume's folder is read directly only where the daemon is *proven* to share our file system (`proof`);
//! elsewhere its bytes come as a tar stream out of a container that is created and never started (`helper`).
//! Both ways the snapshot holds the same thing: `/volumes/NAME` and all below it, as files with their attributes.
//!
//! Nothing stays behind on the server: what is made for a capture carries a label and is removed when the capture
//! is dropped, and whatever a killed run left is removed by the next ([`journal`]).

pub mod address;
mod archive;
pub mod capture;
pub mod daemon;
mod exec;
mod guard;
mod helper;
pub mod journal;
mod project;
mod proof;
pub mod reach;
pub mod rebuild;
pub mod rehearsal;
mod swarm;
pub mod target;
mod tunnel;
mod volume;

use super::capture::SourceError;
use crate::base::cancel::Cancelled;

/// Volumes stand below this folder of a snapshot.
pub const VOLUMES: &str = "volumes";

/// A volume or project that cannot be captured or given back.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("cannot reach the Docker daemon at {host}: {cause}\nhint: {hint}")]
    Unreachable { host: String, cause: String, hint: &'static str },
    #[error("cannot {operation} {subject}: {}", said(cause))]
    Call { operation: &'static str, subject: String, cause: bollard::errors::Error },
    #[error("the Docker daemon gave nothing of {subject} for {} s", after.as_secs())]
    Stalled { subject: String, after: std::time::Duration },
    #[error("cannot {operation} {subject}: {cause}")]
    Local { operation: &'static str, subject: String, cause: std::io::Error },
    #[error("{0}")]
    Failed(String),
    /// What was asked makes no sense or would destroy something.
    #[error("{0}")]
    Refused(String),
}

/// What the daemon said, without the wrapping.
fn said(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.clone(),
        error => crate::base::causes::causes(error),
    }
}

impl DockerError {
    /// Whether the daemon says that there is no such thing.
    fn is_missing(&self) -> bool {
        use bollard::errors::Error::DockerResponseServerError;
        matches!(self, Self::Call { cause: DockerResponseServerError { status_code: 404, .. }, .. })
    }
}

impl From<DockerError> for SourceError {
    fn from(error: DockerError) -> Self {
        match error {
            DockerError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            DockerError::Refused(why) => Self::Refused(why),
            error => Self::Service(Box::new(error)),
        }
    }
}
