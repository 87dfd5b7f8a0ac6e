//! What a process is given besides its arguments. Read once, and injected in tests.
//!
//! It may hold secrets, so it does not print.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;

/// Variables, and who runs us.
pub struct Environment {
    variables: HashMap<String, OsString>,
    pub is_root: bool,
    /// From the user database; `HOME` is asked first.
    home: Option<PathBuf>,
}

impl Environment {
    /// This process's own.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        Self {
            variables: variables.collect(),
            is_root: rustix::process::geteuid().is_root(),
            home: user.map(|user| user.dir),
        }
    }

    /// A made-up one, for tests.
    pub fn of(variables: &[(&str, &str)], is_root: bool) -> Self {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(value));
        Self { variables: variables.iter().map(pair).collect(), is_root, home: None }
    }

    fn raw(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// A variable that must be text.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        match self.raw(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(None) => Err(ConfigError::NotText { name }),
            Some(Some(text)) => Ok(Some(text.to_owned())),
        }
    }

    /// The first of several variables that is set.
    pub fn first_text(&self, names: &[&'static str]) -> Result<Option<String>, ConfigError> {
        for name in names {
            if let Some(text) = self.text(name)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// A variable as bytes: passwords need not be UTF-8.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt;
        self.raw(name).map(|value| value.as_bytes().to_vec())
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    /// What this machine is called: `LIFEBOAT_MACHINE`, else the host's name. Never a container's, if told.
    pub fn machine(&self) -> String {
        let named = self.raw("LIFEBOAT_MACHINE").map(|name| name.to_string_lossy().into_owned());
        named.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
    }

    /// The home folder, if there is one.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME").or_else(|| self.home.clone())
    }
}
