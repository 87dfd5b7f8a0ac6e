//! Owner, extended attributes, mode, times: in this order, because each step may undo a later one. A change of
//! owner clears set-id bits and file capabilities; an ACL rewrites the mode; every change but the last moves ctime.
//!
//! What cannot be set (another owner without root, attributes the file system lacks) is returned by name and
//! never fails the entry. A set-id bit is not given to a file whose owner could not be set: it would lend the
//! wrong user's rights.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmod, chownat, fchmod, fchown,
    futimens, openat, utimensat,
};
use rustix::io::{Errno, Result};

use super::{Directory, Target, TargetError};
use crate::format::entry::{Entry, Kind, Timestamp, XattrValue};
use crate::source::files::{FileError, xattrs};

/// What metadata is set on.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// Something that is not opened: links, FIFOs, sockets, devices.
    Named(&'a Directory, &'a [u8]),
}

impl Target {
    /// Gives what is at `key` the metadata of `entry`, whose attributes must be inline. Directories come after
    /// everything in them, deepest first. Returns what could not be set.
    ///
    /// # Errors
    /// There is nothing at `key`, or nothing that can be opened.
    pub fn finish_metadata(
        &self,
        key: &[u8],
        entry: &Entry,
    ) -> std::result::Result<Vec<FileError>, TargetError> {
        Self::check_key(key)?;
        if key.is_empty() {
            let subject = Subject::Open(std::os::fd::AsFd::as_fd(&self.root.fd));
            return Ok(self.apply(key, subject, entry, false));
        }
        let (parent, name) = self.existing_parent(key)?;
        let flags = match &entry.kind {
            Kind::Directory => OFlags::DIRECTORY,
            Kind::File(_) | Kind::Stream(_) => OFlags::NONBLOCK | OFlags::NOCTTY,
            _ => return Ok(self.apply(key, Subject::Named(&parent, name), entry, false)),
        };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&parent.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(self.apply(key, Subject::Open(std::os::fd::AsFd::as_fd(&fd)), entry, false)),
            // Ours to change though not to read.
            Err(Errno::ACCESS) => Ok(self.apply(key, Subject::Named(&parent, name), entry, false)),
            Err(errno) => Err(self.error("open", key, errno)),
        }
    }

    /// `fresh`: just made, with no attributes to remove.
    pub(super) fn apply(
        &self,
        key: &[u8],
        subject: Subject<'_>,
        entry: &Entry,
        fresh: bool,
    ) -> Vec<FileError> {
        let mut problems = Vec::new();
        let mut note = |operation, result: Result<()>| {
            if let Err(errno) = result {
                problems.push(self.file_error(operation, key, errno));
            }
        };
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        let mut mode = entry.mode & 0o7777;
        let (uid, gid) = self.options.owners.owner_of(entry, &self.owners);
        if let Err(errno) = subject.change_owner(Some(uid), Some(gid)) {
            mode &= !0o4000;
            if subject.change_owner(None, Some(gid)).is_err() && !matches!(entry.kind, Kind::Directory) {
                mode &= !0o2000;
            }
            note("change the owner of", Err(errno));
        }
        if !(fresh && entry.xattrs.is_empty()) {
            subject.change_xattrs(entry, fresh, &mut note);
        }
        if !is_link {
            note("change the mode of", subject.change_mode(mode));
        }
        note("change the times of", subject.change_mtime(entry.mtime));
        problems
    }
}

impl Subject<'_> {
    fn change_owner(self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        // All ones means "leave it" to the system.
        let uid = uid.filter(|&uid| uid != u32::MAX).map(Uid::from_raw);
        let gid = gid.filter(|&gid| gid != u32::MAX).map(Gid::from_raw);
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Named(parent, name) => chownat(&parent.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn change_mode(self, mode: u32) -> Result<()> {
        match self {
            Self::Open(fd) => fchmod(fd, Mode::from_raw_mode(mode as _)),
            Self::Named(parent, name) => change_mode(parent, name, mode),
        }
    }

    fn change_mtime(self, mtime: Timestamp) -> Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) as _ },
        };
        match self {
            Self::Open(fd) => futimens(fd, &times),
            Self::Named(parent, name) => utimensat(&parent.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn change_xattrs(self, entry: &Entry, fresh: bool, note: &mut impl FnMut(&'static str, Result<()>)) {
        let path;
        let subject = match self {
            Self::Open(fd) => xattrs::Subject::Open(fd),
            Self::Named(parent, name) => {
                path = path_through(parent, name);
                xattrs::Subject::Path(&path)
            }
        };
        let present = if fresh { Ok(Vec::new()) } else { subject.names() };
        for name in present.unwrap_or_default() {
            let name = name.as_bytes();
            let wanted = entry.xattrs.binary_search_by(|(other, _)| other.as_slice().cmp(name)).is_ok();
            // Labels of the system's security modules are the system's to give.
            let system = name.starts_with(b"security.") && name != b"security.capability";
            if !wanted && !system {
                note("remove an extended attribute of", subject.remove(name));
            }
        }
        for (name, value) in &entry.xattrs {
            let result = match value {
                XattrValue::Inline(value) => subject.set(name, value),
                XattrValue::Chunk(_) => Err(Errno::INVAL),
            };
            note("set an extended attribute of", result);
        }
    }
}

/// Changes a mode without following a link of that name: `fchmodat` cannot promise that everywhere.
pub(super) fn change_mode(parent: &Directory, name: &[u8], mode: u32) -> Result<()> {
    let fd = openat(&parent.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == rustix::fs::FileType::Symlink {
        return Err(Errno::LOOP);
    }
    chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(mode as _))
}

/// A path that leads through the open parent, so that its length does not matter.
fn path_through(parent: &Directory, name: &[u8]) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", parent.fd.as_raw_fd())).join(std::ffi::OsStr::from_bytes(name))
}
