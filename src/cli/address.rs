//! Which repository a run means: the one that is named, the configuration file's, or where a recovery kit leads.
//!
//! Invariant: what the file says of a repository (its password, its storage options) holds however it was named, by
//! its address or by its name in the file.

use std::path::Path;

use super::kit::settings_for;
use super::{CliError, Context};
use crate::app;
use crate::config::file::{self, ConfigFile, FileError, Repository};
use crate::config::{Environment, Origin, Overrides, Settings, location};
use crate::engine;
use crate::format::header::ObjectKind;
use crate::repo::RepoError;
use crate::repo::kit::Kit;
use crate::store::Location;

/// Tries at an address of a kit before the next one has its turn.
const RETRIES: u32 = 1;

/// What a run begins with.
pub struct Resolved {
    pub settings: Settings,
    /// Why the configuration file does not name the repository: told by the verbs that need one.
    pub unnamed: Option<CliError>,
    /// Why it does not give the password of the one that is named: told when nothing else gives it.
    pub withheld: Option<CliError>,
}

/// Settings of the command line, the environment and the configuration file.
///
/// # Errors
/// What they say makes no sense.
pub fn resolve(overrides: &Overrides, environment: &Environment) -> Result<Resolved, CliError> {
    let settings = Settings::resolve(overrides, environment)?;
    let mut resolved = Resolved { settings, unnamed: None, withheld: None };
    if resolved.settings.repository.is_some() {
        let of_file = of_named(&resolved.settings, overrides, environment);
        match of_file {
            Ok(found) => resolved.settings = found.unwrap_or(resolved.settings),
            Err(error) => resolved.withheld = Some(error),
        }
    } else if overrides.kit.is_none() {
        match of_file(overrides, environment) {
            Ok(found) => resolved.settings = found.unwrap_or(resolved.settings),
            Err(error) => resolved.unnamed = Some(error),
        }
    }
    Ok(resolved)
}

/// Settings for a repository that was named, if the file has it. Then the file is of use; else nothing is asked of it.
fn of_named(
    settings: &Settings,
    overrides: &Overrides,
    environment: &Environment,
) -> Result<Option<Settings>, CliError> {
    let Some(named) = &settings.repository else { return Ok(None) };
    let Ok(found) = file::load(overrides.config.as_deref(), environment) else { return Ok(None) };
    let by_address = at(&found, &named.value, environment);
    let Some((name, repository)) = known(&found, &named.value, environment) else { return Ok(None) };
    let mut overrides = overrides.clone();
    overrides.repository = None;
    if by_address.is_some() {
        // As it was written: the file may know it by another of its addresses.
        overrides.repository = Some(named.value.to_string());
    } else if let Origin::Variable(_) = named.origin {
        overrides.repository = Some(repository.url.clone());
    }
    let read = Settings::of_repository(&overrides, environment, repository);
    let within = format!("{}: repository {name}", found.path.display());
    let read = read.map_err(|error| CliError::from(error).within(&within))?;
    let repository = read.repository.map(|found| crate::config::Found { origin: named.origin, ..found });
    Ok(Some(Settings { repository, ..read }))
}

/// The repository of the file that somebody means, by its address or its name.
pub fn known<'f>(
    found: &'f ConfigFile,
    meant: &Location,
    environment: &Environment,
) -> Option<(&'f String, &'f Repository)> {
    at(found, meant, environment).or_else(|| by_name(found, meant))
}

/// The repository that a bare word names, unless a folder here has that name.
fn by_name<'f>(found: &'f ConfigFile, named: &Location) -> Option<(&'f String, &'f Repository)> {
    let Location::Local { path } = named else { return None };
    let name = path.to_str().filter(|name| !name.contains('/') && !Path::new(name).exists())?;
    found.file.repository.get_key_value(name)
}

/// The repository of the file that is at an address, by whichever way.
pub fn at<'f>(
    found: &'f ConfigFile,
    wanted: &Location,
    environment: &Environment,
) -> Option<(&'f String, &'f Repository)> {
    let wanted = absolute(wanted.clone());
    let is_there = |url: &String| location(url, environment).is_ok_and(|url| absolute(url) == wanted);
    found
        .file
        .repository
        .iter()
        .find(|(_, repository)| std::iter::once(&repository.url).chain(repository.via.values()).any(is_there))
}

fn absolute(location: Location) -> Location {
    match location {
        Location::Local { path } => Location::local(std::path::absolute(&path).unwrap_or(path)),
        other => other,
    }
}

/// What the configuration file says of the repository that verbs use which name none; `None`: nothing.
///
/// # Errors
/// Why it does not say: told by the verbs that need a repository, each once.
fn of_file(overrides: &Overrides, environment: &Environment) -> Result<Option<Settings>, CliError> {
    let found = match file::load(overrides.config.as_deref(), environment) {
        Err(FileError::None { .. }) => return Ok(None),
        found => found?,
    };
    let names: Vec<&str> = found.file.repository.keys().map(String::as_str).collect();
    match (found.file.default_repository(), names.as_slice()) {
        (Ok((name, repository)), _) => {
            let settings = Settings::of_repository(overrides, environment, repository);
            let within = format!("{}: repository {name}", found.path.display());
            Ok(Some(settings.map_err(|error| CliError::from(error).within(&within))?))
        }
        (Err(_), []) => Ok(None),
        (Err(_), names) => {
            let why = format!("no repository was named, and {} has several", found.path.display());
            let hint = format!("write -r NAME, or there [defaults] repository = one of {}", names.join(", "));
            Err(CliError::usage(why).hint(hint))
        }
    }
}

/// Of several addresses that a kit holds, the first where its repository is. Says which, and what was wrong with those
/// before it.
///
/// # Errors
/// None of them leads to it.
pub async fn of_kit(path: &Path, context: &Context) -> Result<Settings, CliError> {
    let kit = engine::kit::load(path)?;
    if kit.altered {
        let why = format!("{}: characters of its addresses were changed", path.display());
        let hint = "its keys are sound: give the right address with -r";
        return Err(CliError::new(super::Exit::Damage, why).hint(hint));
    }
    let mut failed: Option<CliError> = None;
    for address in &kit.addresses {
        let shown = super::text::shown(address.as_bytes());
        let settings = settings_for(&kit, address, context)?;
        match context.until_cancelled(is_there(&kit, &settings)).await {
            Ok(()) => {
                context.note(format_args!("using {shown}, an address in {}", path.display()));
                return Ok(settings);
            }
            Err(error) if context.cancel.is_cancelled() => return Err(error),
            Err(error) => {
                let next = if kit.addresses.last() == Some(address) { "" } else { "; trying the next" };
                context.warn(format_args!("not at {shown}: {}{next}", error.causes.join(": ")));
                failed.get_or_insert(error);
            }
        }
    }
    let (exit, why) = match &failed {
        None => (super::Exit::Usage, "it names no address"),
        Some(error) => (error.exit, "its repository is at none of its addresses"),
    };
    let why = format!("{}: {why}", path.display());
    Err(CliError::new(exit, why).hint("give the address with -r"))
}

async fn is_there(kit: &Kit, settings: &Settings) -> Result<(), CliError> {
    let location = app::location(settings)?;
    let mut patient = settings.clone();
    patient.kit = None;
    patient.store.max_retries = patient.store.max_retries.min(RETRIES);
    let store = app::open_store(&patient, location)?;
    kit.require_kin(store.as_ref()).await?;
    for kind in [ObjectKind::Config, ObjectKind::Snapshot, ObjectKind::Meta, ObjectKind::Data] {
        if !store.list(kind.folder()).await?.is_empty() {
            return Ok(());
        }
    }
    Err(RepoError::NoRepository { location: location.to_string() }.into())
}
