//! Services without a server to talk to: repositories, state, certificates and what a program tells.

use super::AppError;
use super::services::{OpenCapture, Surroundings};
use crate::config::SECRET_VARIABLES;
use crate::source::capture::SourceError;
use crate::source::git::capture::GitCapture;
use crate::source::git::target::GitTarget;
use crate::source::git::{Address as GitAddress, Git};
use crate::source::target::Target;

/// Starts a capture of what follows `scheme`; `None` when the scheme is none of these.
///
/// # Errors
/// As [`super::services::capture`].
pub fn capture(scheme: &str, rest: &str, around: &Surroundings) -> Result<Option<OpenCapture>, AppError> {
    Ok(Some(match scheme {
        "git:" => {
            let address = GitAddress::parse(rest).map_err(SourceError::from)?;
            let job = format!("git:{}", address.path.display());
            let capture = Box::new(GitCapture::start(&address, git(around), around.now)?);
            OpenCapture { capture, kind: "git", job }
        }
        _ => return Ok(None),
    }))
}

/// Opens a target; `None` when the scheme is none of these.
///
/// # Errors
/// As [`super::services::target`].
pub fn target(
    scheme: &str,
    rest: &str,
    force: bool,
    around: &Surroundings,
) -> Result<Option<Box<dyn Target>>, AppError> {
    Ok(Some(match scheme {
        "git:" => {
            let address = GitAddress::parse(rest).map_err(SourceError::from)?;
            Box::new(GitTarget::new(address, git(around), force, stamp(around)))
        }
        _ => return Ok(None),
    }))
}

fn git(around: &Surroundings) -> Git {
    Git { withheld: SECRET_VARIABLES, cancel: around.cancel.clone() }
}

/// Ends the names of what a restore replaces and keeps.
fn stamp(around: &Surroundings) -> String {
    let now = jiff::Timestamp::from_second(around.now.seconds);
    now.map_or_else(|_| around.now.seconds.to_string(), |now| now.strftime("%Y%m%dT%H%M%S").to_string())
}
