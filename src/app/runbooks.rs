//! What runbooks need of this machine: where their records are kept, the environment of their steps, and what in it
//! is secret.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::AppError;
use crate::base::secret::Secret;
use crate::config::{Password, PasswordSource, Settings};
use crate::runbook::redact::Redactor;
use crate::seal::slot::Unlock;

/// Variables that say how a repository is opened: one of them counts.
const OPENERS: [&str; 4] =
    ["LIFEBOAT_PASSWORD", "LIFEBOAT_PASSWORD_FILE", "LIFEBOAT_PASSWORD_COMMAND", "LIFEBOAT_KEY_FILE"];
/// Where this machine's own configuration would be found.
const OWN: [&str; 5] =
    ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "CREDENTIALS_DIRECTORY"];

/// Variables of every step.
#[derive(Default)]
pub struct Surroundings(BTreeMap<OsString, OsString>);

/// Where the records of a runbook's runs are kept.
///
/// # Errors
/// There is no folder for this machine's state.
pub fn folder(settings: &Settings, name: &str) -> Result<PathBuf, AppError> {
    let none = "there is no folder for this machine's state\nhint: set LIFEBOAT_STATE_DIR";
    let state = settings.state.value.as_deref().ok_or_else(|| AppError::Refused(none.into()))?;
    Ok(state.join("runbooks").join(name))
}

impl Surroundings {
    /// This process's own, with this very program before others of its name.
    pub fn of_process() -> Self {
        let mut all = Self(std::env::vars_os().collect());
        let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        if let Some(own) = own {
            all.before_path(&own);
        }
        all
    }

    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.0.insert(name.into(), value.as_ref().to_owned());
    }

    /// Puts a folder in front of `PATH`.
    pub fn before_path(&mut self, folder: &Path) {
        let path = self.0.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        let joined =
            std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path)));
        // A folder with a colon in its name cannot be in a path.
        if let Ok(joined) = joined {
            self.set("PATH", joined);
        }
    }

    /// How the repository is opened, as the settings found it.
    pub fn open_with(&mut self, settings: &Settings, asked: Option<&Password>) {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (name, value): (_, OsString) = match (&settings.password.value, asked) {
            (PasswordSource::Value(secret), _) => {
                ("LIFEBOAT_PASSWORD", OsStr::from_bytes(secret.expose()).to_owned())
            }
            (PasswordSource::File(path), _) => ("LIFEBOAT_PASSWORD_FILE", absolute(path).into()),
            (PasswordSource::Command(command), _) => ("LIFEBOAT_PASSWORD_COMMAND", command.into()),
            (PasswordSource::KeyFile(path), _) => ("LIFEBOAT_KEY_FILE", absolute(path).into()),
            (PasswordSource::Ask, Some(Unlock::Passphrase(typed))) => {
                ("LIFEBOAT_PASSWORD", OsStr::from_bytes(typed).to_owned())
            }
            (PasswordSource::Ask, _) => return,
        };
        for opener in OPENERS {
            self.0.remove(OsStr::new(opener));
        }
        self.set(name, value);
    }

    /// A machine that has nothing of its own yet: no configuration, no cache, no state, an empty home.
    ///
    /// # Errors
    /// Its folders cannot be made.
    pub fn bare(&mut self, folder: &Path) -> Result<(), AppError> {
        for name in OWN {
            self.0.remove(OsStr::new(name));
        }
        let made = |place: &Path| {
            std::fs::create_dir_all(place).map_err(|cause| AppError::State {
                operation: "make",
                path: place.to_owned(),
                cause,
            })
        };
        for (name, place) in [
            ("HOME", "home"),
            ("LIFEBOAT_CACHE_DIR", "cache"),
            ("LIFEBOAT_STATE_DIR", "state"),
            ("TMPDIR", "tmp"),
        ] {
            let place = folder.join(place);
            made(&place)?;
            self.set(name, &place);
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// What must not be shown: what is secret by its name, what opens the repository, and these.
    pub fn redactor(&self, settings: &Settings, further: impl IntoIterator<Item = Secret>) -> Redactor {
        let named = self.0.iter().filter(|(name, _)| is_secret(&name.to_string_lossy()));
        let values = named.map(|(_, value)| Secret::from_bytes(value.as_bytes().to_vec()));
        Redactor::new(values.chain(further).chain(opener(settings)))
    }

    pub fn into_pairs(self) -> Vec<(OsString, OsString)> {
        self.0.into_iter().collect()
    }
}

/// What opens the repository, as far as nobody has to be asked for it.
fn opener(settings: &Settings) -> Option<Secret> {
    match &settings.password.value {
        PasswordSource::Value(secret) => Some(secret.clone()),
        PasswordSource::File(path) => std::fs::read(path).ok().map(Secret::from_line),
        PasswordSource::KeyFile(_) | PasswordSource::Command(_) | PasswordSource::Ask => None,
    }
}

/// Whether a variable of this name holds a secret itself, rather than the name of a file.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let says = [
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "TOKEN",
        "AUTH",
        "APPLICATION_KEY",
        "ACCESS_KEY",
        "APIKEY",
        "API_KEY",
    ];
    let harmless = ["_FILE", "_COMMAND", "_ID", "_PATH", "_DIR", "_SOCK", "_HOST", "_URL"];
    says.iter().any(|word| name.contains(word)) && !harmless.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_names() {
        for name in [
            "LIFEBOAT_PASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "REDISCLI_AUTH",
            "HCLOUD_TOKEN",
            "B2_APPLICATION_KEY",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in
            ["LIFEBOAT_PASSWORD_FILE", "AWS_ACCESS_KEY_ID", "PATH", "SSH_AUTH_SOCK", "XAUTHORITY_FILE"]
        {
            assert!(!is_secret(name), "{name}");
        }
    }
}
