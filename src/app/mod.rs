//! Level 9: the composition root. Builds the pieces from the settings; knows no terminal.
//!
//! Invariant: this is the only place where the system's clock and randomness, a store and a repository meet.

pub mod acceptances;
pub mod drills;
pub mod kits;
pub mod lent;
mod logging;
pub mod runbooks;
mod series;
pub mod services;
mod signals;
mod unserved;

use std::path::Path;
use std::sync::Arc;

use crate::base::clock::SystemClock;
use crate::base::random::SystemRandom;
use crate::config::Settings;
use crate::format::id::RepoId;
use crate::pack::parity::ParityStore;
use crate::repo::create::{CreateOptions, create, require_vacant};
use crate::repo::open::{OpenOptions, open};
use crate::repo::replica::KeysCopied;
use crate::repo::{RepoError, Repository, World};
use crate::seal::slot::Unlock;
use crate::store::{self, Location, Store, StoreError, StoreErrorKind};

pub use logging::start_logging;
pub use signals::cancel_on_signals;

/// CPU work runs on threads of its own; these only move bytes.
const RUNTIME_THREADS: usize = 2;

/// Why the pieces do not come together.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// `init` where something else is.
    #[error("{location} is not empty: it holds {found}")]
    Occupied { location: String, found: String },
    #[error("no repository was named")]
    NoRepositoryNamed,
    #[error("the log filter {filter:?} makes no sense: {cause}")]
    LogFilter { filter: String, cause: String },
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Source(#[from] crate::source::capture::SourceError),
    #[error(transparent)]
    Drill(#[from] crate::drill::DrillError),
    #[error("{0}")]
    Refused(String),
    /// This machine's own state.
    #[error("cannot {operation} {}: {cause}", path.display())]
    State { operation: &'static str, path: std::path::PathBuf, cause: std::io::Error },
    #[error("cannot start {what}: {cause}")]
    System { what: &'static str, cause: std::io::Error },
}

/// The asynchronous machinery everything runs in.
pub fn runtime() -> Result<tokio::runtime::Runtime, AppError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .map_err(|cause| AppError::System { what: "the runtime", cause })
}

/// The real world.
pub fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) }
}

/// Where the repository is said to be.
pub fn location(settings: &Settings) -> Result<&Location, AppError> {
    settings.repository.as_ref().map(|found| &found.value).ok_or(AppError::NoRepositoryNamed)
}

/// The store at a location. A local folder that does not exist is a repository that does not exist. With a recovery
/// kit, the store of the repository that the settings name is completed from it.
pub fn open_store(settings: &Settings, location: &Location) -> Result<Arc<dyn Store>, AppError> {
    let store = storage(settings, location)?;
    match kit(settings, location) {
        Some(path) => Ok(crate::engine::kit::load(path)?.over(store)),
        None => Ok(store),
    }
}

fn storage(settings: &Settings, location: &Location) -> Result<Arc<dyn Store>, AppError> {
    let store = store::open(location, &settings.store).map_err(|error| match error.kind {
        StoreErrorKind::NotFound => RepoError::NoRepository { location: location.to_string() }.into(),
        _ => AppError::from(error),
    })?;
    Ok(match settings.store.parity {
        Some(share) => Arc::new(ParityStore::new(store, share)),
        None => store,
    })
}

fn kit<'s>(settings: &'s Settings, location: &Location) -> Option<&'s Path> {
    let own = settings.repository.as_ref().is_some_and(|found| found.value == *location);
    settings.kit.as_deref().filter(|_| own)
}

/// Opens the repository at `location`.
pub async fn open_repository(
    settings: &Settings,
    location: &Location,
    unlock: &Unlock,
) -> Result<Repository, AppError> {
    open_as(settings, location, unlock, false).await
}

/// Opens it to be verified, even with a damaged config or roster.
pub async fn open_to_verify(
    settings: &Settings,
    location: &Location,
    unlock: &Unlock,
) -> Result<Repository, AppError> {
    open_as(settings, location, unlock, true).await
}

async fn open_as(
    settings: &Settings,
    location: &Location,
    unlock: &Unlock,
    lenient: bool,
) -> Result<Repository, AppError> {
    let kit = kit(settings, location).map(crate::engine::kit::load).transpose()?;
    let cache = settings.cache.value.as_deref();
    let options = OpenOptions { cache, kit: kit.as_ref(), lenient, ..OpenOptions::default() };
    Ok(open(storage(settings, location)?, unlock, &options, world()).await?)
}

/// The store at a location where nothing of a repository is yet; a local folder is made.
pub async fn vacant_store(settings: &Settings, location: &Location) -> Result<Arc<dyn Store>, AppError> {
    let store = store::create(location, &settings.store)?;
    require_vacant(store.as_ref()).await?;
    match whats_there(location) {
        Some(found) => Err(AppError::Occupied { location: location.to_string(), found }),
        None => Ok(store),
    }
}

/// What a local folder without a repository holds, for a message: the first names.
fn whats_there(location: &Location) -> Option<String> {
    let Location::Local { path } = location else { return None };
    let names = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.file_name());
    // A disk of its own has this one from the start; a dot and "tmp-" is what a killed write of ours leaves.
    let foreign = names.filter(|name| name != "lost+found" && !name.as_encoded_bytes().starts_with(b".tmp-"));
    let mut names: Vec<String> = foreign.map(|name| format!("{:?}", name.to_string_lossy())).collect();
    names.sort();
    match names.len() {
        0 => None,
        more @ 4.. => Some(format!("{} and {} more", names[..3].join(", "), more - 3)),
        _ => Some(names.join(", ")),
    }
}

/// Errors unless there is a repository, naming what is there instead.
pub async fn probe(location: &Location, store: &dyn Store) -> Result<(), RepoError> {
    match crate::repo::open::probe(store).await {
        Err(RepoError::NoRepository { location: shown }) => Err(match whats_there(location) {
            Some(found) => RepoError::NotARepository { location: shown, found: format!("it holds {found}") },
            None => RepoError::NoRepository { location: shown },
        }),
        result => result,
    }
}

/// Makes a repository there.
pub async fn create_repository(
    store: Arc<dyn Store>,
    unlock: &Unlock,
    options: &CreateOptions,
) -> Result<RepoId, AppError> {
    Ok(create(store, unlock, options, &world()).await?)
}

/// Makes a replica of an opened repository there, keys only.
pub async fn create_replica(source: &Repository, store: Arc<dyn Store>) -> Result<KeysCopied, AppError> {
    Ok(crate::repo::replica::create(source, store).await?)
}
