//! What this machine knows of recovery kits: when one was made, and when one was last seen to open its repository.
//!
//! One small file a repository in the state folder. It says nothing secret; losing it costs a warning.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::AppError;
use crate::base::whole_file;
use crate::config::Settings;
use crate::format::id::RepoId;
use crate::repo::kit::Kit;

/// A longer file is not ours.
const LIMIT_BYTES: u64 = 64 << 10;
/// A kit that nobody opened for so long is not relied on.
const OPENED_DAYS: i64 = 90;

/// A kit at an instant, by its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub fingerprint: String,
    pub at: Timestamp,
    pub user: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub exported: Option<Event>,
    pub opened: Option<Event>,
    /// Hash of the configuration file, without its secrets, that the exported kit holds.
    pub config: Option<String>,
}

/// What [`Record::config`] is made of.
pub fn config_hash(redacted: &str) -> String {
    blake3::hash(redacted.trim().as_bytes()).to_hex()[..16].to_owned()
}

fn path(settings: &Settings, repo: &RepoId) -> Option<PathBuf> {
    settings.state.value.as_deref().map(|state| state.join("kits").join(format!("{repo}.json")))
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> AppError {
    move |cause| AppError::State { operation, path: path.to_owned(), cause }
}

/// What is known of the repository's kits; nothing where there is no state folder.
///
/// # Errors
/// The record is there and cannot be read.
pub fn find(settings: &Settings, repo: &RepoId) -> Result<Record, AppError> {
    let Some(path) = path(settings, repo) else { return Ok(Record::default()) };
    let file = match std::fs::File::open(&path) {
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(Record::default());
        }
        opened => opened.map_err(failed("open", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES).read_to_end(&mut bytes).map_err(failed("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| failed("read", &path)(error.into()))
}

/// Notes something about the repository's kits, durably; a record that cannot be read is begun anew.
///
/// # Errors
/// There is no state folder, or it cannot be written.
pub fn note(settings: &Settings, repo: &RepoId, change: impl FnOnce(&mut Record)) -> Result<(), AppError> {
    let missing = "there is no folder for this machine's state\nhint: set LIFEBOAT_STATE_DIR";
    let path = path(settings, repo).ok_or_else(|| AppError::Refused(missing.into()))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(failed("make", folder))?;
    let mut record = find(settings, repo).unwrap_or_default();
    change(&mut record);
    let write = failed("write", &path);
    let bytes = serde_json::to_vec(&record).map_err(|error| write(error.into()))?;
    whole_file::write(&path, whole_file::PRIVATE, &bytes).map_err(&write)
}

/// The event of handling a kit now.
pub fn event(settings: &Settings, kit: &Kit, now: Timestamp) -> Event {
    let at = now.round(jiff::Unit::Second).unwrap_or(now);
    Event { fingerprint: kit.fingerprint(), at, user: settings.user.clone() }
}

impl Record {
    /// What keeps the repository's kits from being relied on, in words; empty when nothing does. `config`: the
    /// configuration file's hash now, if there is one.
    pub fn concerns(&self, config: Option<&str>, now: Timestamp) -> Vec<String> {
        let mut concerns = Vec::new();
        if self.exported.is_none() && self.opened.is_none() {
            concerns.push("no recovery kit is known here: lifeboat kit export kit.html".to_owned());
            return concerns;
        }
        if self.exported.is_some() && self.config.as_deref() != config {
            let text = "the recovery kit is older than the configuration file: lifeboat kit export";
            concerns.push(text.to_owned());
        }
        match &self.opened {
            None => concerns.push("the recovery kit was never opened: lifeboat kit open FILE".to_owned()),
            Some(opened) if now.duration_since(opened.at) > SignedDuration::from_hours(24 * OPENED_DAYS) => {
                let days = now.duration_since(opened.at).as_hours() / 24;
                concerns.push(format!(
                    "the recovery kit was last opened {days} days ago: lifeboat kit open FILE"
                ));
            }
            Some(_) => {}
        }
        concerns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kit_is_worried_about_until_it_was_opened_and_again_after_90_days() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let event = |text| Some(Event { fingerprint: "f".into(), at: at(text), user: "u".into() });
        let now = at("2026-11-22T00:00:00Z");
        let concerns = |exported, opened, held: Option<&str>, config| {
            Record { exported, opened, config: held.map(str::to_owned) }.concerns(config, now).join("; ")
        };
        let made = || event("2026-11-01T00:00:00Z");
        assert!(concerns(None, None, None, None).contains("no recovery kit is known"));
        assert!(concerns(made(), None, Some("a"), Some("a")).contains("never opened"));
        assert_eq!(concerns(made(), made(), Some("a"), Some("a")), "");
        assert!(concerns(made(), made(), Some("a"), Some("b")).contains("older than the configuration"));
        assert!(concerns(made(), made(), None, Some("b")).contains("older than the configuration"));
        assert_eq!(concerns(made(), event("2026-08-25T00:00:00Z"), None, None), "");
        assert!(concerns(made(), event("2026-08-23T00:00:00Z"), None, None).contains("91 days ago"));
    }
}
