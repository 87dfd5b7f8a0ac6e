//! Puts entries back below one directory, and never outside it, whatever a snapshot contains.
//!
//! Keys here are relative to the target. Invariants:
//! - a component that is empty, `.`, `..` or contains `/` is refused, and no symbolic link below the target is ever
//!   gone through: a link where a directory must be is replaced by a directory;
//! - a regular file appears under its name whole, with its metadata, or not at all: bytes go to
//!   `.lifeboat-restore-…` beside it, renamed at the end. That name follows from the file's, so a run after an
//!   interrupted one takes leftovers away. Only an update in place (asked for) writes under the final name; its
//!   mtime is "now" until it is finished, so it never looks complete;
//! - directories are made 0700 and get their own mode, owner and times last: the caller finishes them deepest
//!   first, after everything in them.
//!
//! One target writes into a directory at a time (`flock`).

mod file;
mod metadata;
mod owner_map;
mod remove;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, flock, linkat, makedev, mkdirat, mknodat, openat,
    renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

pub use file::TargetFile;
pub use owner_map::{OwnerMap, OwnerMapError};

use super::owner::Owners;
use super::place::open_beneath;
use super::stat::Stat;
use super::{FileError, split_key};
use crate::format::entry::{Entry, KEY_LIMIT, Kind};
use crate::format::id::to_hex;

/// Directories kept open.
const OPEN_DIRECTORIES: usize = 256;
const TEMPORARY_PREFIX: &[u8] = b".lifeboat-restore-";

/// How things are put back.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    pub owners: OwnerMap,
    /// Leave runs of zeros in content as holes, besides the holes the snapshot knows of.
    pub sparse: bool,
    /// A directory that is not empty may be removed when an entry of another type takes its name.
    pub replace_directories: bool,
}

/// Something could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    File(#[from] FileError),
    /// Only a hostile or damaged snapshot has such a path.
    #[error("refuses the path {0:?}: it is no path below the target")]
    Unsafe(String),
    #[error("cannot replace {0:?}: it is a directory that is not empty")]
    InTheWay(PathBuf),
    #[error("another restore is writing into {0:?}")]
    Busy(PathBuf),
}

/// An open directory of the target.
#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    /// Nothing that is made in it inherits an ACL.
    plain: bool,
}

/// A directory that entries are put back into. Shared between threads.
#[derive(Debug)]
pub struct Target {
    root: Arc<Directory>,
    path: PathBuf,
    /// The directory itself was made by us.
    made: bool,
    options: TargetOptions,
    owners: Owners,
    /// By key. Emptied when it is full, or when a directory goes away.
    directories: Mutex<HashMap<Vec<u8>, Arc<Directory>>>,
}

impl Target {
    /// Opens `path`, made if it is missing. The path itself may go through links: the caller chose it.
    ///
    /// # Errors
    /// It cannot be made or opened, or another restore writes there.
    pub fn open(path: &Path, options: TargetOptions) -> Result<Arc<Self>, TargetError> {
        let made = !path.exists();
        std::fs::create_dir_all(path).map_err(|cause| FileError::new("make directory", path, cause))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| FileError::new("open directory", path, errno))?;
        if let Err(Errno::WOULDBLOCK) = flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            return Err(TargetError::Busy(path.to_owned()));
        }
        Ok(Arc::new(Self {
            root: Arc::new(Directory::new(fd)),
            path: path.to_owned(),
            made,
            options,
            owners: Owners::default(),
            directories: Mutex::default(),
        }))
    }

    /// Refuses keys that are no path below the target.
    ///
    /// # Errors
    /// [`TargetError::Unsafe`].
    pub fn check_key(key: &[u8]) -> Result<(), TargetError> {
        let safe = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/');
        if key.len() <= KEY_LIMIT && (key.is_empty() || key.split(|&byte| byte == 0).all(safe)) {
            return Ok(());
        }
        let shown = &key[..key.len().min(256)];
        Err(TargetError::Unsafe(String::from_utf8_lossy(shown).replace('\0', "\\0")))
    }

    /// Where `key` is, for messages.
    pub fn path_of(&self, key: &[u8]) -> PathBuf {
        if key.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(&slashed(key))) }
    }

    /// User and group that an entry belongs to here.
    pub fn owner_of(&self, entry: &Entry) -> (u32, u32) {
        self.options.owners.owner_of(entry, &self.owners)
    }

    /// What is at `key` now; `None` also where only a link would lead on.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn existing(&self, key: &[u8]) -> Result<Option<Stat>, TargetError> {
        Self::check_key(key)?;
        let looked = match split_key(key) {
            None => rustix::fs::fstat(&self.root.fd),
            Some((parent, name)) => {
                self.directory(parent).and_then(|at| statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW))
            }
        };
        match looked {
            Ok(stat) => Ok(Some(Stat::from(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.error("stat", key, errno)),
        }
    }

    /// The link target at `key`.
    ///
    /// # Errors
    /// It is no link, or cannot be read.
    pub fn read_link(&self, key: &[u8]) -> Result<Vec<u8>, TargetError> {
        let (parent, name) = self.existing_parent(key)?;
        let target = rustix::fs::readlinkat(&parent.fd, name, Vec::new());
        target.map(|target| target.into_bytes()).map_err(|errno| self.error("read the link", key, errno))
    }

    /// Makes the directory at `key` and those above it; false when it was there. Anything else of that name is
    /// replaced. The target itself: whether opening it made it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_directory(&self, key: &[u8]) -> Result<bool, TargetError> {
        let Some((_, name)) = split_key(key) else { return Ok(self.made) };
        let (parent, _) = self.parent(key)?;
        let made =
            self.ensure_directory(&parent, name).map_err(|errno| self.error("make directory", key, errno))?;
        if made {
            // An open one of that name is another one, removed behind our back.
            self.lock_directories().remove(key);
        }
        Ok(made)
    }

    /// Makes a link, FIFO, socket or device at `key`, replacing what is there.
    ///
    /// # Errors
    /// It cannot be made (devices want root), or a directory that is not empty is in the way. EINVAL for kinds
    /// with content and directories.
    pub fn make_special(&self, key: &[u8], kind: &Kind) -> Result<(), TargetError> {
        let (parent, name) = self.parent(key)?;
        let mode = Mode::from_raw_mode(0o600);
        let make = |name: &[u8]| {
            let node = |file_type, device| mknodat(&parent.fd, name, file_type, mode, device);
            match kind {
                Kind::Symlink(target) => symlinkat(target.as_slice(), &parent.fd, name),
                Kind::Fifo => node(FileType::Fifo, 0),
                Kind::Socket => node(FileType::Socket, 0),
                Kind::CharDevice { major, minor } => node(FileType::CharacterDevice, makedev(*major, *minor)),
                Kind::BlockDevice { major, minor } => node(FileType::BlockDevice, makedev(*major, *minor)),
                Kind::Directory | Kind::File(_) | Kind::Stream(_) => Err(Errno::INVAL),
            }
        };
        self.put_in_place(key, &parent, name, "make", make)
    }

    /// Makes `key` another name of what is at `leader`.
    ///
    /// # Errors
    /// The file system has no such links, or not between these two: the caller can write the content again.
    pub fn make_hardlink(&self, key: &[u8], leader: &[u8]) -> Result<(), TargetError> {
        let (from, from_name) = self.existing_parent(leader)?;
        let (parent, name) = self.parent(key)?;
        // Renaming one name of a file over another does nothing and would leave the temporary one.
        if let (Some(a), Some(b)) = (self.existing(leader)?, self.existing(key)?)
            && (a.device, a.inode) == (b.device, b.inode)
        {
            return Ok(());
        }
        let link = |name: &[u8]| linkat(&from.fd, from_name, &parent.fd, name, AtFlags::empty());
        self.put_in_place(key, &parent, name, "link", link)
    }

    /// Writes everything put back so far to the disk.
    ///
    /// # Errors
    /// What the file system reports, writes it failed earlier among them.
    pub fn sync(&self) -> Result<(), TargetError> {
        rustix::fs::syncfs(&self.root.fd).map_err(|errno| self.error("sync", b"", errno))
    }

    /// Makes something under its name, or beside it and renamed when the name is taken.
    fn put_in_place(
        &self,
        key: &[u8],
        parent: &Directory,
        name: &[u8],
        operation: &'static str,
        make: impl Fn(&[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), TargetError> {
        match make(name) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.error(operation, key, errno)),
        }
        let temporary = temporary_name(name);
        let mut made = make(&temporary);
        if made == Err(Errno::EXIST) {
            made = unlinkat(&parent.fd, &temporary, AtFlags::empty()).and_then(|()| make(&temporary));
        }
        made.map_err(|errno| self.error(operation, key, errno))?;
        self.rename(key, parent, &temporary, name).inspect_err(|_| {
            let _ = unlinkat(&parent.fd, &temporary, AtFlags::empty());
        })
    }

    /// Gives a temporary name its final one, also where a directory stands.
    fn rename(
        &self,
        key: &[u8],
        parent: &Directory,
        temporary: &[u8],
        name: &[u8],
    ) -> Result<(), TargetError> {
        let rename = || renameat(&parent.fd, temporary, &parent.fd, name);
        match rename() {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result.map_err(|errno| self.error("rename to", key, errno)),
        }
        self.lock_directories().clear();
        match unlinkat(&parent.fd, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.options.replace_directories => {
                self.remove(key)?;
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Err(TargetError::InTheWay(self.path_of(key))),
            Err(errno) => return Err(self.error("remove", key, errno)),
            Ok(()) => {}
        }
        rename().map_err(|errno| self.error("rename to", key, errno))
    }

    /// The directory above `key`, made when it is missing, and the key's last component.
    fn parent<'k>(&self, key: &'k [u8]) -> Result<(Arc<Directory>, &'k [u8]), TargetError> {
        Self::check_key(key)?;
        let (parent, name) = split_key(key).ok_or_else(|| self.error("replace", key, Errno::BUSY))?;
        let directory = match self.directory(parent) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.make_chain(parent)?,
            result => result.map_err(|errno| self.error("open directory", parent, errno))?,
        };
        Ok((directory, name))
    }

    fn existing_parent<'k>(&self, key: &'k [u8]) -> Result<(Arc<Directory>, &'k [u8]), TargetError> {
        Self::check_key(key)?;
        let (parent, name) = split_key(key).ok_or_else(|| self.error("replace", key, Errno::BUSY))?;
        let directory =
            self.directory(parent).map_err(|errno| self.error("open directory", parent, errno))?;
        Ok((directory, name))
    }

    /// An existing directory, reached through no link. The key was checked.
    fn directory(&self, key: &[u8]) -> rustix::io::Result<Arc<Directory>> {
        if key.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(directory) = self.lock_directories().get(key) {
            return Ok(directory.clone());
        }
        let root = self.root.fd.as_fd();
        let path = slashed(key);
        let fd = match open_beneath(root, &path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            // Not readable, but perhaps searchable and writable.
            Err(Errno::ACCESS) => open_beneath(root, &path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?,
            result => result?,
        };
        Ok(self.keep(key, Directory::new(fd)))
    }

    fn keep(&self, key: &[u8], directory: Directory) -> Arc<Directory> {
        let directory = Arc::new(directory);
        let mut directories = self.lock_directories();
        if directories.len() >= OPEN_DIRECTORIES {
            directories.clear();
        }
        directories.insert(key.to_vec(), directory.clone());
        directory
    }

    /// Makes every missing directory on the way to `key`, one component at a time.
    fn make_chain(&self, key: &[u8]) -> Result<Arc<Directory>, TargetError> {
        let mut at = self.root.clone();
        let mut end = 0;
        for name in key.split(|&byte| byte == 0) {
            end += name.len() + usize::from(end > 0);
            let error = |errno| self.error("make directory", &key[..end], errno);
            self.ensure_directory(&at, name).map_err(error)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at = Arc::new(Directory::new(openat(&at.fd, name, flags, Mode::empty()).map_err(error)?));
        }
        Ok(at)
    }

    /// Whether the directory had to be made.
    fn ensure_directory(&self, parent: &Directory, name: &[u8]) -> rustix::io::Result<bool> {
        match mkdirat(&parent.fd, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            result => return result.map(|()| true),
        }
        let stat = Stat::from(&statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)?);
        if stat.is_directory() {
            if stat.raw_mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
                // Ours and closed by an earlier restore; its mode comes back at the end.
                metadata::change_mode(parent, name, stat.permissions() | 0o700)?;
            }
            return Ok(false);
        }
        unlinkat(&parent.fd, name, AtFlags::empty())?;
        mkdirat(&parent.fd, name, Mode::RWXU).map(|()| true)
    }

    fn lock_directories(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Directory>>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_error(&self, operation: &'static str, key: &[u8], cause: impl Into<io::Error>) -> FileError {
        FileError::new(operation, self.path_of(key), cause)
    }

    fn error(&self, operation: &'static str, key: &[u8], errno: Errno) -> TargetError {
        TargetError::File(self.file_error(operation, key, errno))
    }
}

impl Directory {
    fn new(fd: OwnedFd) -> Self {
        let acl = rustix::fs::fgetxattr(&fd, c"system.posix_acl_default", &mut [0u8; 0]);
        Self { plain: matches!(acl, Err(Errno::NODATA | Errno::OPNOTSUPP)), fd }
    }
}

/// A key as a relative path.
fn slashed(key: &[u8]) -> Vec<u8> {
    key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect()
}

/// The name that is written to before `name` is there.
fn temporary_name(name: &[u8]) -> Vec<u8> {
    let mut temporary = TEMPORARY_PREFIX.to_vec();
    temporary.extend_from_slice(to_hex(&blake3::hash(name).as_bytes()[..8]).as_bytes());
    temporary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_target_are_taken() {
        for key in [&b""[..], b"a", b"a\0b", b"...", b"-", b"a\n\xff", b"..a"] {
            assert!(Target::check_key(key).is_ok(), "{key:?}");
        }
        for key in [&b".."[..], b".", b"a\0..", b"a\0\0b", b"\0a", b"a\0", b"/etc", b"a/b", b"..\0..\0etc"] {
            assert!(Target::check_key(key).is_err(), "{key:?}");
        }
        assert!(Target::check_key(&vec![b'a'; KEY_LIMIT + 1]).is_err());
    }
}
