//! Every setting that is not a verb's own, resolved.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::password::{self, PasswordSource};
use super::{ConfigError, Environment, ServiceSettings, file, storage};
use crate::base::names;
use crate::format::manifest::NAME_LIMIT;
use crate::store::{Location, StoreOptions};

/// Where a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// A setting and where it came from.
#[derive(Clone, Debug)]
pub struct Found<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Found<T> {
    pub fn flag(value: T, name: &'static str) -> Self {
        Self { value, origin: Origin::Flag(name) }
    }
    pub fn variable(value: T, name: &'static str) -> Self {
        Self { value, origin: Origin::Variable(name) }
    }
}

/// What the command line said.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub repository: Option<String>,
    pub password_file: Option<PathBuf>,
    pub password_command: Option<String>,
    pub key_file: Option<PathBuf>,
    pub kit: Option<PathBuf>,
    pub cache_dir: Option<PathBuf>,
    pub no_cache: bool,
    pub upload_limit_bytes_per_second: Option<u64>,
    pub download_limit_bytes_per_second: Option<u64>,
    pub settle: Option<Duration>,
    /// `key=value` pairs for the storage.
    pub storage: Vec<(String, String)>,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// In the syntax of tracing's filters: `warn,lifeboat=debug`.
    pub filter: String,
    pub format: LogFormat,
}

/// All of it, resolved.
#[derive(Clone)]
pub struct Settings {
    pub repository: Option<Found<Location>>,
    pub password: Found<PasswordSource>,
    /// A recovery kit that stands in for keys that the storage lost.
    pub kit: Option<PathBuf>,
    /// `None`: nothing is kept on disk.
    pub cache: Found<Option<PathBuf>>,
    /// Where this machine remembers what must outlive a cache; `None` when there is no place for it.
    pub state: Found<Option<PathBuf>>,
    pub store: StoreOptions,
    pub log: LogSettings,
    pub services: ServiceSettings,
    /// The word that restoring into production asks for, said beforehand.
    pub confirm: Option<String>,
    /// What this machine is called.
    pub hostname: String,
    pub user: String,
}

impl Settings {
    /// Resolves everything. Reads no secrets and no files.
    pub fn resolve(overrides: &Overrides, environment: &Environment) -> Result<Self, ConfigError> {
        let store = storage::options(overrides, environment)?;
        Ok(Self {
            repository: repository(overrides, environment)?,
            password: password::find(overrides, environment)?,
            kit: overrides.kit.clone(),
            cache: cache(overrides, environment),
            state: state(environment),
            services: ServiceSettings::of(environment, &store),
            store,
            log: log(overrides, environment)?,
            confirm: environment.text("LIFEBOAT_CONFIRM")?,
            hostname: machine(environment)?,
            user: user(environment),
        })
    }
}

impl Settings {
    /// The same for a repository of the configuration file. A repository named by a flag stays what it is, and a
    /// password from a flag or the environment comes before the file's.
    ///
    /// # Errors
    /// What the file says of it makes no sense.
    pub fn of_repository(
        overrides: &Overrides,
        environment: &Environment,
        repository: &file::Repository,
    ) -> Result<Self, ConfigError> {
        let mut overrides = overrides.clone();
        let own = repository.options.iter().map(|(key, value)| (key.clone(), value.clone()));
        overrides.storage = own.chain(std::mem::take(&mut overrides.storage)).collect();
        let is_named = overrides.repository.is_some();
        overrides.repository.get_or_insert_with(|| repository.url.clone());
        let mut settings = Self::resolve(&overrides, environment)?;
        if let Some(found) = settings.repository.as_mut().filter(|_| !is_named) {
            found.origin = file::ORIGIN;
        }
        if matches!(settings.password.value, PasswordSource::Ask) {
            settings.take_password(environment, repository)?;
        }
        Ok(settings)
    }

    /// The same for a further repository, such as one that is copied to: what the environment says of *the*
    /// repository's password does not mean this one, unless the file says nothing of it.
    ///
    /// # Errors
    /// What the file says of it makes no sense.
    pub fn of_other(
        overrides: &Overrides,
        environment: &Environment,
        repository: &file::Repository,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::of_repository(overrides, environment, repository)?;
        settings.take_password(environment, repository)?;
        Ok(settings)
    }

    fn take_password(
        &mut self,
        environment: &Environment,
        repository: &file::Repository,
    ) -> Result<(), ConfigError> {
        let Some(reference) = &repository.password else { return Ok(()) };
        let source = reference.source(environment);
        let value = source.map_err(|cause| ConfigError::Value { name: "password", cause })?;
        self.password = Found { value, origin: file::ORIGIN };
        Ok(())
    }
}

/// Any further address a verb is given, completed as the repository's own is.
pub fn location(text: &str, environment: &Environment) -> Result<Location, ConfigError> {
    storage::complete(text.parse()?, environment)
}

fn repository(
    overrides: &Overrides,
    environment: &Environment,
) -> Result<Option<Found<Location>>, ConfigError> {
    let flag = overrides.repository.clone().map(|text| Found::flag(text, "--repository"));
    let found = match flag {
        Some(found) => Some(found),
        None => {
            let text = environment.text("LIFEBOAT_REPOSITORY")?;
            text.map(|text| Found::variable(text, "LIFEBOAT_REPOSITORY"))
        }
    };
    let Some(Found { value, origin }) = found else { return Ok(None) };
    let value = location(&value, environment)?;
    Ok(Some(Found { value, origin }))
}

/// As root the cache is the system's; a home folder is not needed then.
fn cache(overrides: &Overrides, environment: &Environment) -> Found<Option<PathBuf>> {
    if overrides.no_cache {
        return Found::flag(None, "--no-cache");
    }
    if let Some(path) = &overrides.cache_dir {
        return Found::flag(Some(path.clone()), "--cache-dir");
    }
    if let Some(path) = environment.path("LIFEBOAT_CACHE_DIR") {
        return Found::variable(Some(path), "LIFEBOAT_CACHE_DIR");
    }
    // The specification says that relative paths there are to be ignored.
    if let Some(path) = environment.path("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Found::variable(Some(path.join("lifeboat")), "XDG_CACHE_HOME");
    }
    let value = match environment.is_root {
        true => Some(PathBuf::from("/var/cache/lifeboat")),
        false => environment.home().map(|home| home.join(".cache/lifeboat")),
    };
    Found { value, origin: Origin::Default }
}

/// As root the system's, as for the cache.
fn state(environment: &Environment) -> Found<Option<PathBuf>> {
    if let Some(path) = environment.path("LIFEBOAT_STATE_DIR") {
        return Found::variable(Some(path), "LIFEBOAT_STATE_DIR");
    }
    if let Some(path) = environment.path("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
        return Found::variable(Some(path.join("lifeboat")), "XDG_STATE_HOME");
    }
    let value = match environment.is_root {
        true => Some(PathBuf::from("/var/lib/lifeboat")),
        false => environment.home().map(|home| home.join(".local/state/lifeboat")),
    };
    Found { value, origin: Origin::Default }
}

fn log(overrides: &Overrides, environment: &Environment) -> Result<LogSettings, ConfigError> {
    let default = match overrides.verbose {
        0 => "warn",
        1 => "warn,lifeboat=info",
        2 => "info,lifeboat=debug",
        _ => "debug,lifeboat=trace",
    };
    let filter = environment.text("LIFEBOAT_LOG")?.unwrap_or_else(|| default.to_owned());
    let name = "LIFEBOAT_LOG_FORMAT";
    let format = match environment.text(name)?.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            return Err(ConfigError::Value { name, cause: format!("{other:?} is neither text nor json") });
        }
    };
    Ok(LogSettings { filter, format })
}

fn machine(environment: &Environment) -> Result<String, ConfigError> {
    let name = "LIFEBOAT_MACHINE";
    // Not UTF-8 is refused here, too.
    environment.text(name)?;
    let machine = environment.machine();
    match names::check(&machine, NAME_LIMIT) {
        Ok(()) => Ok(machine),
        Err(cause) => Err(ConfigError::Value { name, cause }),
    }
}

fn user(environment: &Environment) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let name = user.map(|user| user.name);
    name.or_else(|| environment.text("USER").ok().flatten()).unwrap_or_default()
}
