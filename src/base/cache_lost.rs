//! The word that the local cache is of no more use to this run.
//!
//! Everything in the cache can be had again from the repository, so what finds it full, read-only or broken goes on
//! without. Invariant: that is said once a process, however many files turn out to be affected.

use std::fmt::Display;
use std::path::Path;
use std::sync::Once;

/// A database that is opened needs more room.
const LEAST_BYTES: u64 = 64 << 10;

static SAID: Once = Once::new();

/// Says it, naming what could not be kept and why.
pub fn cache_lost(operation: &str, path: &Path, cause: &dyn Display) {
    SAID.call_once(|| {
        let full = if is_full(path) { " (the disk is full)" } else { "" };
        tracing::warn!(
            "going on without the local cache: cannot {operation} {}: {cause}{full}. Nothing is lost by that, but \
             this is slower; make room there, name another folder with --cache-dir, or say --no-cache",
            path.display()
        );
    });
}

/// Whether next to nothing can be written there, which a database may call an I/O error.
fn is_full(path: &Path) -> bool {
    let folder = path.ancestors().find(|folder| folder.is_dir());
    let room = folder.and_then(|folder| rustix::fs::statvfs(folder).ok());
    room.is_some_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < LEAST_BYTES)
}
