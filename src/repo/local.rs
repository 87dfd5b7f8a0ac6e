//! The local cache of one repository, and what this machine remembers of it.
//!
//! All of it may be deleted at any time: backups are then slower once, and rollback is noticed only from then on.
//! Without a folder everything is kept in memory for the run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::RepoError;

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
    /// What is remembered where there is no folder. Clones share it.
    memory: Arc<Mutex<Seen>>,
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
    /// `<cache folder>/<name>`, made if need be. The name is the repository's id, with more to it for a replica.
    pub fn open(cache: Option<&Path>, name: &str) -> Result<Self, RepoError> {
        let (memory, pruning) = (Arc::default(), Arc::default());
        let Some(cache) = cache else { return Ok(Self { folder: None, memory, pruning }) };
        let folder = cache.join(name);
        for folder in [folder.clone(), folder.join("snapshots"), folder.join("files")] {
            make_private_folder(&folder)?;
        }
        // Backup tools, ours included, skip folders that carry this tag (bford.info/cachedir).
        let tag = cache.join("CACHEDIR.TAG");
        if !tag.exists() {
            let text = "Signature: 8a477f597d28d172789f06886806bc55\n# Lifeboat's cache: safe to delete.\n";
            std::fs::write(&tag, text).map_err(error("write", &tag))?;
        }
        Ok(Self { folder: Some(folder), memory, pruning })
    }

    /// Takes the machine's one place for a prune; `None` while another has it, even if that one is stopped: only
    /// its end gives the place up.
    pub fn lock_prune(&self) -> Result<Option<PruneLock>, RepoError> {
        if self.pruning.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let mut lock = PruneLock { _file: None, pruning: self.pruning.clone() };
        if let Some(path) = self.path("prune.lock") {
            let file = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(error("open", &path))?;
            match file.try_lock() {
                Ok(()) => lock._file = Some(file),
                Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
                Err(std::fs::TryLockError::Error(cause)) => return Err(error("lock", &path)(cause)),
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

    /// What was remembered; a missing or unreadable file is nothing remembered.
    pub fn seen(&self) -> Seen {
        if self.folder.is_none() {
            return self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        let bytes = self.path("seen.json").and_then(|path| std::fs::read(path).ok());
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Remembers. Two processes at once: the last wins, which at worst forgets one observation.
    pub fn remember(&self, seen: &Seen) -> Result<(), RepoError> {
        let Some(path) = self.path("seen.json") else {
            *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = seen.clone();
            return Ok(());
        };
        let bytes = serde_json::to_vec_pretty(seen).unwrap_or_default();
        replace_file(&path, &bytes)
    }

    /// A cached manifest.
    pub fn manifest(&self, object: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(object)?).ok()
    }

    /// Keeps a manifest. Failing to is not an error: it will be fetched again.
    pub fn keep_manifest(&self, object: &str, bytes: &[u8]) {
        if let Some(path) = self.path(object) {
            let _ = replace_file(&path, bytes);
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

fn make_private_folder(folder: &Path) -> Result<(), RepoError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(error("create folder", folder))
}

/// Writes beside and renames: a reader sees the old or the new content, whole.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), RepoError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(error("write", path))
}
