//! The word that the local cache is of no more use to this run.
//!
//! Everything in the cache can be had again from the repository, so what finds it full, read-only or broken goes on
//! without. Invariant: that is said once for each folder, however many files in it turn out to be affected.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A database that is opened needs more room.
const LEAST_BYTES: u64 = 64 << 10;

/// The folders that were named.
static SAID: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Says it, naming what could not be kept and why.
pub fn cache_lost(operation: &str, path: &Path, cause: &dyn Display) {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    if !is_news(&mut SAID.lock().unwrap_or_else(PoisonError::into_inner), folder) {
        return;
    }
    let full = if is_full(path) { " (the disk is full)" } else { "" };
    tracing::warn!(
        "going on without the local cache: cannot {operation} {}: {cause}{full}. Nothing is lost by that, but this \
         is slower; make room there, name another folder with --cache-dir, or say --no-cache",
        path.display()
    );
}

/// Whether neither the folder nor one in it or around it was named; from now on it was.
fn is_news(said: &mut Vec<PathBuf>, folder: &Path) -> bool {
    let is_news = !said.iter().any(|other| other.starts_with(folder) || folder.starts_with(other));
    if is_news {
        said.push(folder.to_owned());
    }
    is_news
}

/// Whether next to nothing can be written there, which a database may call an I/O error.
fn is_full(path: &Path) -> bool {
    let folder = path.ancestors().find(|folder| folder.is_dir());
    let room = folder.and_then(|folder| rustix::fs::statvfs(folder).ok());
    room.is_some_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < LEAST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_once_with_all_in_it_and_another_one_too() {
        let mut said = Vec::new();
        let mut is_news = |folder| is_news(&mut said, Path::new(folder));
        let folders =
            ["/cache/a/files", "/cache/a", "/cache/a/files", "/cache/b", "/cache", "/var/tmp", "/var/tmp"];
        assert_eq!(folders.map(&mut is_news), [true, false, false, true, false, true, false]);
    }
}
