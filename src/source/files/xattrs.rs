//! Extended attributes: listed once, fetched only when there are any. POSIX ACLs are among them
//! (`system.posix_acl_access`, `system.posix_acl_default`).

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs as sys;
use rustix::io::{Errno, Result};

/// Linux bounds both a list of names and one value by 64 KiB.
const LIMIT_BYTES: usize = 64 * 1024;
const FIRST_TRY_BYTES: usize = 1024;

/// Names and values, ascending by name.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What the attributes belong to.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// The path's last component is not followed.
    Path(&'a Path),
}

impl Subject<'_> {
    fn list(self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Open(fd) => sys::flistxattr(fd, buffer),
            Self::Path(path) => sys::llistxattr(path, buffer),
        }
    }

    fn get(self, name: &CString, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Open(fd) => sys::fgetxattr(fd, name, buffer),
            Self::Path(path) => sys::lgetxattr(path, name, buffer),
        }
    }

    pub fn set(self, name: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => sys::fsetxattr(fd, name, value, sys::XattrFlags::empty()),
            Self::Path(path) => sys::lsetxattr(path, name, value, sys::XattrFlags::empty()),
        }
    }

    pub fn remove(self, name: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => sys::fremovexattr(fd, name),
            Self::Path(path) => sys::lremovexattr(path, name),
        }
    }

    /// The names, in the system's order. File systems without attributes have none.
    pub fn names(self) -> Result<Vec<CString>> {
        let mut small = [0u8; FIRST_TRY_BYTES];
        let mut large;
        let list = match self.list(&mut small) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(length) => &small[..length],
            Err(Errno::RANGE) => {
                large = vec![0; LIMIT_BYTES];
                let length = self.list(&mut large)?;
                &large[..length]
            }
            Err(errno) => return Err(errno),
        };
        let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        Ok(names.filter_map(|name| CString::new(name).ok()).collect())
    }

    /// One value; `None` when it is gone.
    pub fn value(self, name: &CString) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; FIRST_TRY_BYTES];
        loop {
            match self.get(name, &mut buffer) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Err(Errno::NODATA) => return Ok(None),
                Err(Errno::RANGE) if buffer.len() < LIMIT_BYTES => buffer = vec![0; LIMIT_BYTES],
                Err(errno) => return Err(errno),
            }
        }
    }

    /// All names and values.
    pub fn all(self) -> Result<Xattrs> {
        let mut found = Vec::new();
        for name in self.names()? {
            if let Some(value) = self.value(&name)? {
                found.push((name.into_bytes(), value));
            }
        }
        found.sort_unstable();
        found.dedup_by(|a, b| a.0 == b.0);
        Ok(found)
    }
}
