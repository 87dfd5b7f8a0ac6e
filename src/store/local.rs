//! Level 2: objects as files on a disk of this machine: the end of a backup's way, the start of a restore's.
//!
//! Invariant: a name appears only with its whole content, and `put` returns only when a power cut can no
//! longer undo it. The order that gives this: write the bytes into a file without a name, fsync it, give it
//! its name (never replacing), fsync the folder. Scenarios, by number, are at the lines that answer them:
//!
//! 1. Killed or out of power while writing: the nameless file is gone with its last descriptor.
//! 2. Power cut after the name is given: content was on disk before, so the name is whole or absent.
//! 3. Power cut after `put` returned: the folder, and every folder newly made above it, was fsynced.
//! 4. The disk is not mounted: the root folder is missing, which is an error and never an empty listing.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::direct::write_around_cache;
use super::{LARGEST_OBJECT_BYTES, Listed, Store, StoreError, StoreErrorKind, name, too_large};
use crate::base::pool::Pool;

/// Where a file system has no nameless files, a file with this prefix is renamed instead. A listing never
/// shows one, and removes those older than [`STALE`].
const TEMP_PREFIX: &str = ".tmp-";
/// No write takes this long. Were a clock wrong, the live write would fail at its rename and be repeated.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Buffers of reads kept for use again.
const SPARE_BUFFERS: usize = 2;

/// See the module's page.
#[derive(Clone, Debug)]
pub struct LocalStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    location: String,
    settle: Duration,
    /// Folders known to exist durably.
    folders: Mutex<HashSet<PathBuf>>,
    /// Buffers of reads that are over.
    spare: Pool,
}

impl LocalStore {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] when there is none, [`StoreErrorKind::Config`] when it is no folder.
    pub fn open(root: &Path, location: String, settle: Duration) -> Result<Self, StoreError> {
        let fail = |kind, cause: io::Error| StoreError::new(kind, "open", show(root), &location, cause);
        let about = std::fs::metadata(root).map_err(|e| fail(kind_of(&e), e))?;
        if !about.is_dir() {
            let cause =
                io::Error::new(io::ErrorKind::NotADirectory, "it is a file; a repository is a folder");
            return Err(fail(StoreErrorKind::Config, cause));
        }
        let root = root.canonicalize().map_err(|e| fail(kind_of(&e), e))?;
        let (folders, spare) = (Mutex::default(), Pool::new(SPARE_BUFFERS));
        let shared = Shared { root, location, settle, folders, spare };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes the folder, and those above it, durably; one that exists is opened.
    ///
    /// # Errors
    /// As [`Self::open`], and what stops a folder from being made.
    pub fn create(root: &Path, location: String, settle: Duration) -> Result<Self, StoreError> {
        if !root.is_file() {
            make_folders(root).map_err(|e| StoreError::new(kind_of(&e), "open", show(root), &location, e))?;
        }
        Self::open(root, location, settle)
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        work: impl FnOnce(&Shared, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let location = &self.shared.location;
        if operation == "list" {
            name::check_folder(name, location)?;
        } else {
            name::check(operation, name, location)?;
        }
        let (shared, path) = (Arc::clone(&self.shared), self.shared.root.join(name));
        let done = tokio::task::spawn_blocking(move || work(&shared, &path)).await;
        // The only way to fail here is a panic or shutdown of the runtime while the work was under way.
        let done = done.unwrap_or_else(|e| Err(io::Error::other(e)));
        // A sector that the disk cannot read any more is a part that is gone: what else is there can be had.
        let kind = |e: &io::Error| match e.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::IO) if operation == "read" => StoreErrorKind::Truncated,
            _ => kind_of(e),
        };
        done.map_err(|e| StoreError::new(kind(&e), operation, name, location, e))
    }

    async fn write(
        &self,
        name: &str,
        work: impl FnOnce(&Shared, &Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        self.run("write", name, move |shared, path| {
            // A write has no "not found": the folder vanished under us, and its absence is not the object's.
            work(shared, path).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => io::Error::other(e),
                _ => shared.absence(e),
            })
        })
        .await
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn kind_of(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => StoreErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreErrorKind::Full
        }
        io::ErrorKind::UnexpectedEof => StoreErrorKind::Truncated,
        io::ErrorKind::AlreadyExists => StoreErrorKind::Conflict,
        io::ErrorKind::StaleNetworkFileHandle | io::ErrorKind::TimedOut => StoreErrorKind::Temporary,
        _ => StoreErrorKind::Other,
    }
}

fn fsync_folder(path: &Path) -> io::Result<()> {
    let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fsync(&folder) {
        // Some network and FUSE file systems have no fsync for folders; they promise nothing more.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// Makes `path` and its missing ancestors, each fsynced into its parent (scenario 3).
fn make_folders(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folders(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(e) => return Err(e),
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fsync_folder(parent),
        _ => fsync_folder(Path::new(".")),
    }
}

/// A buffer that goes back when the last who reads it is done.
struct Lent {
    buffer: Vec<u8>,
    /// How much of it was read; the rest is whatever it held before.
    length: usize,
    spare: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.buffer));
    }
}

impl Shared {
    fn folder_exists(&self, folder: &Path) -> io::Result<()> {
        let known = || self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(folder) {
            return Ok(());
        }
        self.root_exists()?;
        make_folders(folder)?;
        // It may have been made by another process that died before its fsync.
        if let Some(parent) = folder.parent() {
            fsync_folder(parent)?;
        }
        known().insert(folder.to_owned());
        Ok(())
    }

    /// Scenario 4.
    fn root_exists(&self) -> io::Result<()> {
        match std::fs::metadata(&self.root) {
            Ok(_) => Ok(()),
            Err(e) => Err(io::Error::other(format!("the repository's folder is gone: {e}"))),
        }
    }

    /// An absence that is certain stays `NotFound`; one under a missing root is another error.
    fn absence(&self, error: io::Error) -> io::Error {
        match (error.kind(), self.root_exists()) {
            (io::ErrorKind::NotFound, Err(gone)) => gone,
            _ => error,
        }
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        self.folder_exists(folder)?;
        if same_content(path, bytes)? {
            // An earlier try may have died between naming and fsync (scenario 3).
            File::open(path)?.sync_all()?;
            return fsync_folder(folder);
        }
        let named = match write_nameless(folder, path, bytes) {
            Err(e) if unsupported(&e) => write_and_rename(folder, path, bytes),
            other => other,
        };
        match named {
            // Another writer was first; the same bytes are as good as ours.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if !same_content(path, bytes)? {
                    // It was there a moment ago: deleted by somebody since.
                    return Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        "deleted while it was being written",
                    ));
                }
            }
            other => other?,
        }
        fsync_folder(folder)
    }

    /// A rename over what is there: after a power cut it is the one or the other.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        self.folder_exists(folder)?;
        let mut temp = temp_file(folder)?;
        write_around_cache(temp.as_file_mut(), bytes)?;
        temp.as_file().sync_all()?;
        temp.persist(path)?;
        fsync_folder(folder)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, u64)>> {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.root_exists()?;
                return Ok(Vec::new());
            }
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(leaf) = entry.file_name().into_string() else { continue };
            let about = match std::fs::metadata(entry.path()) {
                Ok(about) => about,
                // Deleted while we were reading, or a dangling link.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if leaf.starts_with(TEMP_PREFIX) {
                remove_stale(&entry.path(), &about);
            } else if about.is_file() {
                found.push((leaf, about.len()));
            }
        }
        Ok(found)
    }
}

/// Leaves of dead runs take space only; failing to remove one is no failure of a listing.
fn remove_stale(path: &Path, about: &std::fs::Metadata) {
    let age = about.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if age.is_some_and(|age| age > STALE) {
        let _ = std::fs::remove_file(path);
    }
}

/// Whether the file exists with exactly these bytes; other bytes are an error.
fn same_content(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut rest = bytes;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = match file.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        match rest.strip_prefix(&buffer[..n]) {
            Some(after) => rest = after,
            None => break,
        }
        if n == 0 {
            break;
        }
    }
    if rest.is_empty() && file.metadata()?.len() == bytes.len() as u64 {
        return Ok(true);
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists with other bytes"))
}

fn unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::NOENT))
}

/// Scenario 1: `O_TMPFILE` needs nobody to clean up.
fn write_nameless(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?);
    write_around_cache(&mut file, bytes)?;
    file.sync_all()?; // scenario 2
    let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, &by_descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

fn temp_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mode = Permissions::from_mode(0o600);
    tempfile::Builder::new().prefix(TEMP_PREFIX).permissions(mode).tempfile_in(folder)
}

fn write_and_rename(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temp = temp_file(folder)?;
    write_around_cache(temp.as_file_mut(), bytes)?;
    rustix::fs::fsync(temp.as_file().as_fd())?; // scenario 2
    match rustix::fs::renameat_with(CWD, temp.path(), CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {
            // It has its name now: there is nothing left to remove.
            let _ = temp.into_temp_path().keep();
            Ok(())
        }
        // No such flag on this file system: a hard link refuses to replace as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(rustix::fs::link(temp.path(), path)?),
        Err(e) => Err(e.into()),
    }
}

#[async_trait]
impl Store for LocalStore {
    fn location(&self) -> String {
        self.shared.location.clone()
    }

    fn settle(&self) -> Duration {
        self.shared.settle
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(name, move |shared, path| shared.put(path, &bytes)).await
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(name, move |shared, path| shared.replace(path, &bytes)).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let whole = |shared: &Shared, path: &Path| {
            let mut file = File::open(path).map_err(|e| shared.absence(e))?;
            let size = file.metadata()?.len();
            if size > LARGEST_OBJECT_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, too_large(size)));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(io::Error::other)?);
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        self.run("read", name, whole).await.map(Bytes::from)
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let read = move |shared: &Shared, path: &Path| {
            let file = File::open(path).map_err(|e| shared.absence(e))?;
            let size = file.metadata()?.len();
            // Bounded by what is there before any allocation: `length` may come from damaged data.
            if offset.checked_add(length).is_none_or(|end| end > size) {
                let cause = format!("has {size} bytes, wanted {length} from {offset}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause));
            }
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let mut lent =
                Lent { buffer: shared.spare.take_filled(length), length, spare: shared.spare.clone() };
            file.read_exact_at(&mut lent.buffer[..length], offset)?;
            Ok(Bytes::from_owner(lent))
        };
        self.run("read", name, read).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let found = self.run("list", folder, |shared, path| shared.list(path)).await?;
        let named = found.into_iter().filter_map(|(leaf, size_bytes)| {
            name::join(folder, &leaf).map(|name| Listed { name, size_bytes })
        });
        let mut listed: Vec<_> = named.collect();
        listed.sort_unstable();
        Ok(listed)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let remove = |shared: &Shared, path: &Path| match std::fs::remove_file(path) {
            Ok(()) => fsync_folder(path.parent().unwrap_or(&shared.root)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => shared.root_exists(),
            Err(e) => Err(e),
        };
        self.run("delete", name, remove).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to a name: without and with nameless files. The second is for file systems we cannot mount here.
    #[test]
    fn either_way_a_name_is_given_once_and_nothing_else_stays() {
        for write in [write_nameless, write_and_rename] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("00");
            write(dir.path(), &path, b"first").unwrap();
            let error = write(dir.path(), &path, b"second").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&path).unwrap(), b"first");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
