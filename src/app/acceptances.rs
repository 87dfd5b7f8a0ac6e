//! What somebody accepted: that the next run of a job may be without something the run before had.
//!
//! Kept on the machine that backs up, one file a job, used up by the first snapshot made under it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AppError;
use crate::config::Settings;
use crate::format::id::RepoId;

/// A longer file is not ours.
const LIMIT_BYTES: u64 = 64 << 10;

/// Why it is meant, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    pub job: String,
    pub host: String,
    pub reason: String,
    pub user: String,
    /// Seconds since 1970.
    pub at: i64,
}

fn path(settings: &Settings, repo: &RepoId, job: &str, host: &str) -> Result<PathBuf, AppError> {
    let missing = || {
        AppError::Refused("there is no folder for this machine's state\nhint: set LIFEBOAT_STATE_DIR".into())
    };
    let state = settings.state.value.as_deref().ok_or_else(missing)?;
    let mut hasher = blake3::Hasher::new();
    for text in [job, host] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let name = hasher.finalize().to_hex();
    Ok(state.join("accepted").join(repo.to_string()).join(format!("{}.json", &name[..32])))
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> AppError {
    move |cause| AppError::State { operation, path: path.to_owned(), cause }
}

/// Remembers it, durably.
///
/// # Errors
/// The state folder cannot be written.
pub fn remember(settings: &Settings, repo: &RepoId, acceptance: &Acceptance) -> Result<(), AppError> {
    let path = path(settings, repo, &acceptance.job, &acceptance.host)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let write = failed("write", &path);
    std::fs::create_dir_all(folder).map_err(failed("make", folder))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(&write)?;
    serde_json::to_writer(&mut file, acceptance).map_err(|error| write(error.into()))?;
    file.as_file().sync_all().map_err(&write)?;
    file.persist(&path).map_err(|error| write(error.error))?;
    Ok(())
}

/// What was accepted for a job's next run.
///
/// # Errors
/// It cannot be read: whoever accepted something must not be left guessing.
pub fn find(
    settings: &Settings,
    repo: &RepoId,
    job: &str,
    host: &str,
) -> Result<Option<Acceptance>, AppError> {
    use io::Read as _;
    // Without a state folder nothing can have been accepted.
    let Ok(path) = path(settings, repo, job, host) else { return Ok(None) };
    let file = match std::fs::File::open(&path) {
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        opened => opened.map_err(failed("open", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES).read_to_end(&mut bytes).map_err(failed("read", &path))?;
    let acceptance = serde_json::from_slice(&bytes).map_err(|error| failed("read", &path)(error.into()))?;
    Ok(Some(acceptance))
}

/// It was used.
///
/// # Errors
/// It cannot be removed, so the next run would use it again.
pub fn use_up(settings: &Settings, repo: &RepoId, acceptance: &Acceptance) -> Result<(), AppError> {
    let path = path(settings, repo, &acceptance.job, &acceptance.host)?;
    std::fs::remove_file(&path).map_err(failed("remove", &path))
}
