//! What a verb is given: the settings, the repository on demand, and the ways to talk to people and programs.

use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::time::Duration;

use super::address::{self, Resolved};
use super::globals::Globals;
use super::output::Out;
use super::progress::{Display, Mode};
use super::{CliError, Exit, prompt};
use crate::app;
use crate::base::cancel::{Cancel, Cancelled};
use crate::base::names;
use crate::base::progress::Counters;
use crate::config::file::{self, ConfigFile, FileError};
use crate::config::{Environment, Overrides, Password, PasswordSource, Settings};
use crate::repo::{RepoError, Repository};
use crate::store::Location;

/// How often a waiting verb looks whether it was interrupted.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// See the module.
pub struct Context {
    pub settings: Settings,
    /// Set by Ctrl-C and SIGTERM; hand it to the engine.
    pub cancel: Cancel,
    /// Data is wanted as JSON.
    pub json: bool,
    pub quiet: bool,
    /// Consent was given on the command line.
    pub yes: bool,
    /// Some verbs show more.
    pub verbose: u8,
    overrides: Overrides,
    /// Why the configuration file does not name the repository.
    unnamed: Option<CliError>,
    /// Why it does not give the password of the one that is named.
    withheld: Option<CliError>,
}

impl Context {
    pub(super) fn new(globals: &Globals) -> Result<Self, CliError> {
        let (overrides, environment) = (globals.overrides(), Environment::of_process());
        let Resolved { settings, unnamed, withheld } = address::resolve(&overrides, &environment)?;
        app::start_logging(&settings.log, false, std::io::stderr)?;
        Ok(Self {
            settings,
            cancel: Cancel::new(),
            json: globals.is_json(),
            quiet: globals.quiet,
            yes: globals.yes,
            verbose: globals.verbose,
            overrides,
            unnamed,
            withheld,
        })
    }

    /// With a recovery kit and no address, the repository that the kit leads to.
    pub(super) async fn with_kit(self) -> Result<Self, CliError> {
        match &self.overrides.kit {
            Some(kit) if self.settings.repository.is_none() => {
                Ok(self.with(address::of_kit(kit, &self).await?))
            }
            _ => Ok(self),
        }
    }

    /// The repository that the command line names, as against one of the environment or the file.
    pub fn named_repository(&self) -> Option<&str> {
        self.overrides.repository.as_deref()
    }

    /// Storage options of the command line.
    pub fn storage_options(&self) -> Vec<(String, String)> {
        self.overrides.storage.clone()
    }

    /// The same run with other settings.
    pub fn with(&self, settings: Settings) -> Self {
        Self {
            settings,
            cancel: self.cancel.clone(),
            json: self.json,
            quiet: self.quiet,
            yes: self.yes,
            verbose: self.verbose,
            overrides: self.overrides.clone(),
            unnamed: None,
            withheld: None,
        }
    }

    /// `--config`, as it was given.
    pub fn config_flag(&self) -> Option<&std::path::Path> {
        self.overrides.config.as_deref()
    }

    /// `--repository`, as it was given.
    pub fn repository_flag(&self) -> Option<&str> {
        self.overrides.repository.as_deref()
    }

    /// `--option`, as they were given.
    pub fn option_flags(&self) -> &[(String, String)] {
        &self.overrides.storage
    }

    /// The configuration file.
    pub fn file(&self) -> Result<ConfigFile, CliError> {
        Ok(file::load(self.overrides.config.as_deref(), &Environment::of_process())?)
    }

    /// Whether a configuration file was named or is where one is looked for.
    pub fn has_file(&self) -> bool {
        let found = file::load(self.overrides.config.as_deref(), &Environment::of_process());
        !matches!(found, Err(FileError::None { .. }))
    }

    /// Settings for a repository of the configuration file.
    pub fn settings_of(&self, repository: &file::Repository) -> Result<Settings, CliError> {
        Ok(Settings::of_repository(&self.overrides, &Environment::of_process(), repository)?)
    }

    /// The same for a further one: flags that name the repository or its password do not mean it.
    pub fn settings_of_other(&self, repository: &file::Repository) -> Result<Settings, CliError> {
        let overrides = Overrides {
            repository: None,
            password_file: None,
            password_command: None,
            key_file: None,
            kit: None,
            ..self.overrides.clone()
        };
        Ok(Settings::of_other(&overrides, &Environment::of_process(), repository)?)
    }

    pub(super) fn listen_to_signals(&self) -> Result<(), CliError> {
        let quiet = self.quiet;
        let first = move || {
            if !quiet {
                let _ = writeln!(std::io::stderr(), "interrupted: ending cleanly; once more to stop at once");
            }
        };
        Ok(app::cancel_on_signals(self.cancel.clone(), first)?)
    }

    /// Where the repository is said to be.
    pub fn location(&self) -> Result<&Location, CliError> {
        match (&self.settings.repository, &self.unnamed) {
            (None, Some(why)) => Err(why.clone()),
            _ => Ok(app::location(&self.settings)?),
        }
    }

    /// The password or key: from the settings, else asked for on the terminal.
    pub fn password(&self) -> Result<Password, CliError> {
        match self.settings.password.read()? {
            Some(password) => Ok(password),
            None => {
                let asked = prompt::password(&format!("password for {}: ", self.location()?));
                asked.map_err(|error| self.withheld.clone().unwrap_or(error))
            }
        }
    }

    /// The same for a new repository: asked for twice.
    pub fn new_password(&self) -> Result<Password, CliError> {
        match self.settings.password.read()? {
            Some(password) => Ok(password),
            None => prompt::new_password(&format!("new password for {}: ", self.location()?)),
        }
    }

    /// The same run with a further repository, by its address or its name in the file, with what the file says of it.
    pub fn other(&self, text: &str) -> Result<Self, CliError> {
        let environment = Environment::of_process();
        let location = crate::config::location(text, &environment)?;
        if let Ok(found) = self.file()
            && let Some((name, repository)) = address::known(&found, &location, &environment)
        {
            let within = format!("{}: repository {name}", found.path.display());
            let settings = self.settings_of_other(repository);
            return Ok(self.with(settings.map_err(|error| error.within(&within))?));
        }
        let repository = Some(crate::config::Found::flag(location, "an argument"));
        Ok(self.with(Settings { repository, ..self.settings.clone() }))
    }

    /// With what to do where a replica should be and is not.
    pub fn without_replica(&self, error: CliError, location: &Location) -> CliError {
        let environment = Environment::of_process();
        let Some(found) = self.file().ok().filter(|_| error.exit == Exit::NoRepository) else { return error };
        match address::known(&found, location, &environment) {
            Some((name, file::Repository { replica_of: Some(source), .. })) => {
                let hint = format!(
                    "check the address, or make the replica: lifeboat -r {name} init --replica-of {source}"
                );
                CliError { hint: Some(hint), ..error }
            }
            _ => error,
        }
    }

    /// Opens the repository that the settings name.
    pub async fn open(&self) -> Result<Repository, CliError> {
        self.open_at(self.location()?).await
    }

    /// Opens the repository that the settings name, and gives what opened it too.
    pub async fn open_with_key(&self) -> Result<(Repository, Password), CliError> {
        self.open_as(self.location()?, false).await
    }

    /// Opens a repository with the password that the settings give, wherever it is.
    pub async fn open_at(&self, location: &Location) -> Result<Repository, CliError> {
        Ok(self.open_as(location, false).await?.0)
    }

    /// Opens the repository that the settings name to be verified: a damaged config or roster does not stop it.
    pub async fn open_to_verify(&self) -> Result<Repository, CliError> {
        Ok(self.open_as(self.location()?, true).await?.0)
    }

    async fn open_as(
        &self,
        location: &Location,
        to_verify: bool,
    ) -> Result<(Repository, Password), CliError> {
        // Before the password: nobody should type one for a place where nothing is.
        let probing = async {
            let store = app::open_store(&self.settings, location)?;
            Ok(app::probe(location, store.as_ref()).await?)
        };
        let probed = self.until_cancelled(probing).await;
        probed.map_err(|error| self.without_replica(error, location))?;
        let password = self.password()?;
        let opening = async {
            let opened = match to_verify {
                true => app::open_to_verify(&self.settings, location, &password).await,
                false => app::open_repository(&self.settings, location, &password).await,
            };
            match opened {
                Err(app::AppError::Repo(error @ RepoError::WrongKey { .. })) => {
                    let hint = self.wrong_key_hint();
                    Err(CliError::from(error).hint(hint))
                }
                opened => Ok(opened?),
            }
        };
        let repo = self.until_cancelled(opening).await?;
        Ok((repo, password))
    }

    fn wrong_key_hint(&self) -> String {
        let origin = self.settings.password.origin;
        match &self.settings.password.value {
            PasswordSource::Ask => "passwords are told apart by every character, spaces included".into(),
            PasswordSource::Value(_) => format!("it came from {origin}"),
            PasswordSource::Command(_) => format!("it came from the command in {origin}"),
            PasswordSource::File(path) | PasswordSource::KeyFile(path) => {
                format!("it came from {origin}, the file {}", path.display())
            }
        }
    }

    /// Gives up waiting when interrupted. Only for work that may be dropped at any point.
    pub async fn until_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        let cancelled = async {
            while !self.cancel.is_cancelled() {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        };
        tokio::select! {
            result = work => result,
            () = cancelled => Err(Cancelled.into()),
        }
    }

    /// Counters for the engine, and the display that shows them until it is dropped.
    pub fn progress(&self) -> (Arc<Counters>, Display) {
        let counters = Arc::new(Counters::new());
        let display = Display::start(Mode::detect(self.quiet), Arc::clone(&counters));
        (counters, display)
    }

    /// Errors unless whoever runs this agrees to `what` (`remove 3 snapshots`). Off a terminal only `--yes` does.
    pub fn confirm(&self, what: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return Err(CliError::usage(format!("to {what}, consent is needed")).hint("add --yes"));
        }
        let _ = write!(std::io::stderr(), "{what}? [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        match (read, answer.trim()) {
            (Ok(_), "y" | "Y" | "yes") => Ok(()),
            _ => Err(CliError::new(Exit::Failed, "not agreed to: nothing was changed")),
        }
    }

    /// stdout for many lines.
    pub fn out(&self) -> Out {
        Out::new()
    }

    /// The one JSON document a verb answers with.
    pub fn json(&self, value: &impl serde::Serialize) -> Result<(), CliError> {
        let mut out = self.out();
        out.json(value)?;
        out.finish()
    }

    /// A few lines of text on stdout.
    pub fn print(&self, text: impl std::fmt::Display) -> Result<(), CliError> {
        let mut out = self.out();
        out.line(text)?;
        out.finish()
    }

    /// The outcome of a verb that does something, on stdout: with `--quiet` its exit code says enough.
    pub fn tell(&self, text: impl std::fmt::Display) -> Result<(), CliError> {
        if self.quiet { Ok(()) } else { self.print(text) }
    }

    /// Something worth knowing, on stderr; never with `--quiet`.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", names::plain(&text.to_string()));
        }
    }

    /// Something that must not go unseen, on stderr.
    pub fn warn(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr(), "warning: {}", names::plain(&text.to_string()));
    }
}
