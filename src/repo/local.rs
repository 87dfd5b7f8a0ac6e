//! The local cache of one repository, and what this machine remembers of it.
//!
//! All of it may be deleted at any time: backups are then slower once, and rollback is noticed only from then on.
//! Without a folder, or in one that takes no more, everything is kept in memory for the run: the cache is never why a
//! restore or a backup fails. A prune does need what it remembers to outlive it: only a folder that nobody wanted is
//! done without there, since its grace would else begin anew with every run and nothing would ever go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::RepoError;
use crate::base::cache_lost::cache_lost;

/// The newest this machine has seen of what must never go back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub config: u64,
    pub roster: u64,
    pub keyring: u64,
    /// Per "author/job hash": the latest sequence and snapshot.
    pub heads: BTreeMap<String, (u64, String)>,
    /// Per run that a prune saw: its number, and when (seconds since 1970) it was first seen with that number.
    #[serde(default)]
    pub runs: BTreeMap<String, (u64, i64)>,
    /// Per run that a prune saw: when it was first seen at all.
    #[serde(default)]
    pub births: BTreeMap<String, i64>,
    /// Per tombstone: when a prune of this machine first saw it (seconds since 1970).
    #[serde(default)]
    pub tombstones: BTreeMap<String, i64>,
    /// Per forgotten mark whose manifest is gone: when a prune of this machine first saw that.
    #[serde(default)]
    pub marks: BTreeMap<String, i64>,
    /// Sweeping tombstones that this machine put and has not seen removed.
    #[serde(default)]
    pub sweeps: BTreeSet<String>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Local {
    folder: Option<PathBuf>,
    /// The folder that was wanted and cannot be made, and why.
    denied: Option<Arc<(PathBuf, std::io::Error)>>,
    /// What is remembered where there is no folder, or where it takes no more. Clones share it.
    memory: Arc<Mutex<Option<Seen>>>,
    pruning: Arc<AtomicBool>,
}

/// Says that no other prune of this machine is alive; ends when dropped, and with the process.
#[derive(Debug)]
pub struct PruneLock {
    /// Locked while open.
    _file: Option<std::fs::File>,
    pruning: Arc<AtomicBool>,
}

impl Drop for PruneLock {
    fn drop(&mut self) {
        self.pruning.store(false, Ordering::SeqCst);
    }
}

impl Local {
    /// `<cache folder>/<name>`, made if need be. The name is the repository's id, with more to it for a replica. A
    /// folder that cannot be made is done without, but not by a prune.
    pub fn open(cache: Option<&Path>, name: &str) -> Self {
        let (folder, denied) = match cache.map(|cache| make(cache, name)) {
            None => (None, None),
            Some(Ok(folder)) => (Some(folder), None),
            Some(Err((folder, cause))) => {
                cache_lost("make", &folder, &cause);
                (None, Some(Arc::new((folder, cause))))
            }
        };
        Self { folder, denied, memory: Arc::default(), pruning: Arc::default() }
    }

    /// Errs where a folder was wanted and is not there.
    fn require_wanted(&self) -> Result<(), RepoError> {
        let Some(denied) = &self.denied else { return Ok(()) };
        let (folder, cause) = denied.as_ref();
        Err(cache_error("make", folder)(std::io::Error::new(cause.kind(), cause.to_string())))
    }

    /// Takes the machine's one place for a prune; `None` while another has it, even if that one is stopped: only
    /// its end gives the place up.
    ///
    /// # Errors
    /// A folder was wanted and is not there, or takes no file.
    pub fn lock_prune(&self) -> Result<Option<PruneLock>, RepoError> {
        self.require_wanted()?;
        if self.pruning.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let mut lock = PruneLock { _file: None, pruning: self.pruning.clone() };
        if let Some(path) = self.path("prune.lock") {
            let file = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(cache_error("open", &path))?;
            match file.try_lock() {
                Ok(()) => lock._file = Some(file),
                Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
                Err(std::fs::TryLockError::Error(cause)) => return Err(cache_error("lock", &path)(cause)),
            }
        }
        Ok(Some(lock))
    }

    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// A file under the cache folder; `None` without one.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    fn memory(&self) -> MutexGuard<'_, Option<Seen>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was remembered; a missing or unreadable file is nothing remembered.
    pub fn seen(&self) -> Seen {
        if let Some(seen) = self.memory().clone() {
            return seen;
        }
        let bytes = self.path("seen.json").and_then(|path| std::fs::read(path).ok());
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Remembers. Two processes at once: the last wins, which at worst forgets one observation.
    ///
    /// # Errors
    /// There is a folder and it takes no file, or one was wanted: for whoever is about to delete something.
    pub fn remember(&self, seen: &Seen) -> Result<(), RepoError> {
        self.require_wanted()?;
        let Some(path) = self.path("seen.json") else {
            *self.memory() = Some(seen.clone());
            return Ok(());
        };
        // What was noted in memory since is older than what others wrote into the file meanwhile.
        if self.memory().is_some() {
            return Err(cache_error("write", &path)(std::io::Error::other("it took no file a moment ago")));
        }
        let bytes = serde_json::to_vec_pretty(seen).unwrap_or_default();
        replace(&path, &bytes).map_err(cache_error("write", &path))
    }

    /// The same for whoever only adds: where the folder takes no file, it is remembered for this run.
    pub fn note(&self, seen: &Seen) {
        if let Err(RepoError::Cache { operation, path, cause }) = self.remember(seen) {
            cache_lost(operation, Path::new(&path), &cause);
            *self.memory() = Some(seen.clone());
        }
    }

    /// A cached manifest.
    pub fn manifest(&self, object: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(object)?).ok()
    }

    /// Keeps a manifest. Failing to is not an error: it will be fetched again.
    pub fn keep_manifest(&self, object: &str, bytes: &[u8]) {
        if let Some(path) = self.path(object) {
            let _ = replace(&path, bytes);
        }
    }

    /// Drops cached manifests that are not listed any more.
    pub fn retain_manifests(&self, listed: &std::collections::BTreeSet<String>) {
        let Some(folder) = self.path("snapshots") else { return };
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let known = name.to_str().is_some_and(|name| listed.contains(&format!("snapshots/{name}")));
            if !known {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Maps an I/O error on `path`.
pub fn error(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RepoError {
    let path = path.display().to_string();
    move |cause| RepoError::Local { operation, path, cause }
}

fn cache_error(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RepoError {
    let path = path.display().to_string();
    move |cause| RepoError::Cache { operation, path, cause }
}

/// The folders of a repository's cache; with an error the one that cannot be made.
fn make(cache: &Path, name: &str) -> Result<PathBuf, (PathBuf, std::io::Error)> {
    use std::os::unix::fs::DirBuilderExt;
    let own = cache.join(name);
    for folder in [own.clone(), own.join("snapshots"), own.join("files")] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|cause| (folder, cause))?;
    }
    // Backup tools, ours included, skip folders that carry this tag (bford.info/cachedir).
    let tag = cache.join("CACHEDIR.TAG");
    if !tag.exists() {
        let text = b"Signature: 8a477f597d28d172789f06886806bc55\n# Lifeboat's cache: safe to delete.\n";
        // On a disk without room the files that follow will tell.
        let _ = replace(&tag, text);
    }
    Ok(own)
}

/// Writes beside and renames: a reader sees the old or the new content, whole.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}
