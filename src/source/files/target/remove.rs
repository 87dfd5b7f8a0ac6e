//! Takes away what a snapshot does not have (`--delete`), without ever following a link or leaving the file system
//! the tree stands on.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, fstat, unlinkat};
use rustix::io::{Errno, Result};

use super::{Target, TargetError, slashed};
use crate::source::files::place::open_beneath;
use crate::source::files::{push_component, split_key};

impl Target {
    /// The names in the directory at `key`, ascending; none when there is no such directory.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn names(&self, key: &[u8]) -> std::result::Result<Vec<Vec<u8>>, TargetError> {
        Self::check_key(key)?;
        let listed = self.open_directory(key).and_then(|directory| list(&directory));
        match listed {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
            result => result.map_err(|errno| self.error("list directory", key, errno)),
        }
    }

    /// The keys in the directory at `key` whose last component `keep` does not want: what
    /// [`Target::remove`] would be called for.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn extra(
        &self,
        key: &[u8],
        keep: impl Fn(&[u8]) -> bool,
    ) -> std::result::Result<Vec<Vec<u8>>, TargetError> {
        let names = self.names(key)?.into_iter().filter(|name| !keep(name));
        Ok(names.map(|name| child(key, &name)).collect())
    }

    /// Removes what is at `key` and everything below it. How many names went.
    ///
    /// # Errors
    /// The first thing that cannot be removed; a mount point is one.
    pub fn remove(&self, key: &[u8]) -> std::result::Result<u64, TargetError> {
        Self::check_key(key)?;
        // Open directories must not outlive their names.
        self.lock_directories().clear();
        let mut removed = 0;
        let mut device = None;
        // Paths instead of open directories: a tree may be deeper than descriptors allow.
        let mut stack = vec![(key.to_vec(), false)];
        while let Some((key, emptied)) = stack.pop() {
            let step = self.remove_step(&key, emptied, &mut device);
            match step.map_err(|errno| self.error("remove", &key, errno))? {
                None => removed += 1,
                Some(below) => {
                    removed += below.removed;
                    let directories =
                        below.directories.iter().map(|name| (child(&key, name), false)).collect::<Vec<_>>();
                    stack.push((key, true));
                    stack.extend(directories);
                }
            }
        }
        Ok(removed)
    }

    /// One name: gone (`None`), or a directory now holding nothing but directories.
    fn remove_step(&self, key: &[u8], emptied: bool, device: &mut Option<u64>) -> Result<Option<Below>> {
        let (parent, name) = split_key(key).ok_or(Errno::BUSY)?;
        let parent = self.open_directory(parent)?;
        let flags = if emptied { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(&parent, name, flags) {
            Ok(()) | Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ISDIR | Errno::PERM) if !emptied => {}
            Err(errno) => return Err(errno),
        }
        let directory =
            open_beneath(parent.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        if fstat(&directory)?.st_dev != *device.get_or_insert(fstat(&parent)?.st_dev) {
            return Err(Errno::XDEV);
        }
        let mut below = Below { directories: Vec::new(), removed: 0 };
        for name in list(&directory)? {
            match unlinkat(&directory, name.as_slice(), AtFlags::empty()) {
                Ok(()) => below.removed += 1,
                Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => below.directories.push(name),
                Err(errno) => return Err(errno),
            }
        }
        Ok(Some(below))
    }

    fn open_directory(&self, key: &[u8]) -> Result<OwnedFd> {
        open_beneath(self.root.fd.as_fd(), &slashed(key), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }
}

struct Below {
    directories: Vec<Vec<u8>>,
    removed: u64,
}

fn child(key: &[u8], name: &[u8]) -> Vec<u8> {
    let mut child = key.to_vec();
    push_component(&mut child, name);
    child
}

fn list(directory: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
