//! The checks themselves.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::text::span;
use super::super::{CliError, Context};
use super::{Check, Status};
use crate::app;
use crate::base::byte_size::human;
use crate::config::{Found, PasswordSource};
use crate::repo::{Repository, from_timestamp};
use crate::store::{Location, Store, StoreError, StoreErrorKind};

/// The object that is written, read and removed. Always the same bytes under the same name: where it cannot be
/// removed there will never be a second one.
const PROBE_FOLDER: &str = "doctor";
const PROBE_NAME: &str = "doctor/probe";
const PROBE_BYTES: usize = 64 << 10;
/// Less free space than this is worth a warning.
const LOW_SPACE_BYTES: u64 = 1 << 30;
/// Less than this part of the file system as well: one in twenty.
const LOW_SPACE_PART: u64 = 20;
/// Clocks of two machines that agree better than this are not worth a word.
const SKEW: Duration = Duration::from_secs(60);

/// What is set, and where it was set.
pub fn settings(context: &Context, found: &mut Vec<Check>) {
    let settings = &context.settings;
    found.push(match (&settings.repository, context.location()) {
        (Some(Found { value, origin }), _) => Check::ok("repository", format!("{value}, from {origin}")),
        (None, Err(error)) => Check::failed("repository", error),
        (None, Ok(_)) => Check::failed("repository", app::AppError::NoRepositoryNamed.into()),
    });
    let origin = settings.password.origin;
    found.push(match &settings.password.value {
        PasswordSource::Ask => Check::new("password", Status::Warning, "asked for on the terminal each time")
            .hint("for runs by a timer set LIFEBOAT_PASSWORD_FILE or LIFEBOAT_PASSWORD_COMMAND"),
        PasswordSource::Value(_) => Check::ok("password", format!("from {origin}")),
        PasswordSource::Command(_) => Check::ok("password", format!("by the command in {origin}")),
        PasswordSource::File(path) => Check::ok("password", format!("{}, from {origin}", path.display())),
        PasswordSource::KeyFile(path) => Check::ok("key", format!("{}, from {origin}", path.display())),
    });
    let Found { value, origin } = &settings.cache;
    found.push(match value {
        None => Check::new("cache", Status::Warning, format!("none, says {origin}"))
            .hint("every file is read again by every backup"),
        Some(path) => match writable(path) {
            Ok(()) => Check::ok("cache", format!("{}, from {origin}", path.display())),
            Err(error) => {
                Check::new("cache", Status::Failed, format!("cannot write to {}: {error}", path.display()))
                    .hint("name another place with --cache-dir or LIFEBOAT_CACHE_DIR")
            }
        },
    });
}

fn writable(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder).map(drop)
}

/// Only a local repository's space can be asked for.
pub fn free_space(location: &Location, found: &mut Vec<Check>) {
    let Location::Local { path } = location else { return };
    let Ok(space) = rustix::fs::statvfs(path) else { return };
    let (free, all) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
    let detail = format!("{} of {} free", human(free), human(all));
    let is_low = free < LOW_SPACE_BYTES || free < all / LOW_SPACE_PART;
    found.push(match is_low {
        true => Check::new("space", Status::Warning, detail)
            .hint("forget snapshots and prune, or move to a larger disk"),
        false => Check::ok("space", detail),
    });
}

/// Writes, reads, lists and removes one object, and says how long each took.
pub async fn storage(context: &Context, location: &Location, found: &mut Vec<Check>) -> Result<(), CliError> {
    let store = match app::open_store(&context.settings, location) {
        Ok(store) => store,
        Err(error) => {
            found.push(Check::failed("storage", error.into()));
            return Ok(());
        }
    };
    let work = async { Ok(round_trip(store.as_ref()).await) };
    found.extend(context.until_cancelled(work).await?);
    Ok(())
}

async fn round_trip(store: &dyn Store) -> Vec<Check> {
    let content = Bytes::from(vec![0x5a; PROBE_BYTES]);
    let failed = |error: StoreError| vec![Check::failed("storage", error.into())];
    let clock = Instant::now();
    match store.put(PROBE_NAME, content.clone()).await {
        Ok(()) => {}
        Err(error) if error.kind == StoreErrorKind::Denied => return read_only(store, error).await,
        Err(error) => return failed(error),
    }
    let put = clock.elapsed();
    tokio::time::sleep(store.settle()).await;
    let clock = Instant::now();
    match store.get(PROBE_NAME).await {
        Ok(bytes) if bytes == content => {}
        Ok(_) => {
            let detail = "what was read is not what was written";
            return vec![Check::new("storage", Status::Failed, detail)];
        }
        Err(error) => return failed(error),
    }
    let get = clock.elapsed();
    let clock = Instant::now();
    let listed = match store.list(PROBE_FOLDER).await {
        Ok(listed) => listed.iter().any(|listed| listed.name == PROBE_NAME),
        Err(error) => return failed(error),
    };
    let list = clock.elapsed();
    if !listed {
        let detail = "an object that was just written is not listed";
        return vec![
            Check::new("storage", Status::Failed, detail)
                .hint("give the storage time to show it: --settle 10s"),
        ];
    }
    let clock = Instant::now();
    let deleted = store.delete(PROBE_NAME).await;
    let delete = clock.elapsed();
    let times = format!("write {}, read {}, list {}", span(put), span(get), span(list));
    let mut found =
        vec![Check::ok("storage", format!("{} of test data: {times}", human(PROBE_BYTES as u64)))];
    found.push(match deleted {
        Ok(()) => removal(store, delete).await,
        Err(error) if error.kind == StoreErrorKind::Denied => {
            Check::ok("removal", "these credentials cannot delete: prune needs others")
        }
        Err(error) => Check::failed("removal", error.into()),
    });
    found
}

async fn removal(store: &dyn Store, took: Duration) -> Check {
    tokio::time::sleep(store.settle()).await;
    match store.get(PROBE_NAME).await {
        Err(error) if error.is_not_found() => {
            let detail = format!("these credentials can delete ({})", span(took));
            let check = Check::new("removal", Status::Ok, detail);
            check.hint("whoever takes over this machine could too: give writers a key that cannot")
        }
        Ok(_) => Check::new("removal", Status::Failed, "an object is still there after it was deleted")
            .hint("give the storage time to show it: --settle 10s"),
        Err(error) => Check::failed("removal", error.into()),
    }
}

async fn read_only(store: &dyn Store, error: StoreError) -> Vec<Check> {
    match store.list("config").await {
        Ok(_) => vec![
            Check::new("storage", Status::Warning, format!("can be read, not written: {}", error.cause))
                .hint("enough to restore and verify, not to back up"),
        ],
        Err(error) => vec![Check::failed("storage", error.into())],
    }
}

/// Opens it, and says what this key may do.
pub async fn repository(context: &Context, found: &mut Vec<Check>) {
    if matches!(context.settings.password.value, PasswordSource::Ask) && context.json {
        found.push(Check::new("opening", Status::Skipped, "no password was given"));
        return;
    }
    let repo = match context.open().await {
        Ok(repo) => repo,
        Err(error) => return found.push(Check::failed("opening", error)),
    };
    let role = format!("{:?}", repo.access.role).to_lowercase();
    found.push(Check::ok("opening", format!("repository {}, opened as {role}", repo.access.repo)));
    match repo.snapshots().await {
        Ok(list) => {
            let status = if list.damaged.is_empty() { Status::Ok } else { Status::Failed };
            let unconfirmed = list.snapshots.iter().filter(|snapshot| !snapshot.confirmed).count();
            let confirmed = list.snapshots.len() - unconfirmed;
            let damaged = list.damaged.len();
            let detail = format!("{confirmed} confirmed, {unconfirmed} unconfirmed, {damaged} damaged");
            found.push(Check::new("snapshots", status, detail));
            let newest = list.snapshots.iter().map(|snapshot| snapshot.summary.finished).max();
            found.extend(newest.map(|newest| clock(&repo, from_timestamp(newest))));
        }
        Err(error) => found.push(Check::failed("snapshots", error.into())),
    }
}

/// A storage tells no time. But a snapshot that was finished in the future was made by another clock than ours.
fn clock(repo: &Repository, newest: jiff::Timestamp) -> Check {
    let ahead = newest.duration_since(repo.world.clock.now());
    match Duration::try_from(ahead) {
        Ok(ahead) if ahead > SKEW => {
            let detail = format!("the newest snapshot was finished {} in the future", span(ahead));
            Check::new("clock", Status::Warning, detail).hint(
                "this machine's clock, or the one that made it, is wrong: compare them with a time server",
            )
        }
        _ => Check::ok("clock", "no snapshot is from the future"),
    }
}
