//! Files: walk, read and put back everything a Linux file system keeps about a tree.
//!
//! Capture: [`walk`] stats everything below the roots in key order → [`read`] turns one stat into an entry and
//! opens its bytes. Restore: [`target`] creates what an entry says, never outside its directory.
//!
//! A *key* is the absolute path's raw components joined by 0x00 (`/home/x` is `home\0x`, `/` is empty), so that
//! comparing keys as bytes gives the order of the walk: a directory, then all that is below it.

pub mod exclude;
pub mod owner;
pub mod place;
pub mod read;
mod roots;
mod scan;
pub mod stat;
pub mod target;
pub mod walk;
mod xattrs;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

/// One operation on one path failed. In a backup it is counted and named, never fatal by itself.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path:?}")]
pub struct FileError {
    /// What was tried, as a verb: `open`, `stat`, `list`, `read`…
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub cause: io::Error,
}

/// What a [`FileError`] means to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileErrorKind {
    /// It was there a moment ago: removed or replaced while we looked.
    Vanished,
    /// Permissions.
    Denied,
    /// No space left, over quota, or larger than the file system allows.
    Full,
    Other,
}

impl FileError {
    pub(crate) fn new(
        operation: &'static str,
        path: impl Into<PathBuf>,
        cause: impl Into<io::Error>,
    ) -> Self {
        Self { operation, path: path.into(), cause: cause.into() }
    }

    /// The cause as far as a caller can act on it.
    pub fn kind(&self) -> FileErrorKind {
        match self.errno() {
            Some(Errno::NOENT | Errno::STALE | Errno::NOTDIR | Errno::LOOP) => FileErrorKind::Vanished,
            Some(Errno::ACCESS | Errno::PERM) => FileErrorKind::Denied,
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => FileErrorKind::Full,
            None if self.cause.kind() == io::ErrorKind::NotFound => FileErrorKind::Vanished,
            _ => FileErrorKind::Other,
        }
    }

    /// The system's error number, when the system it was.
    pub fn errno(&self) -> Option<Errno> {
        self.cause.raw_os_error().map(Errno::from_raw_os_error)
    }
}

/// The key of an absolute or relative path, made absolute against `cwd`. Purely lexical: `.` disappears, `..`
/// takes the component before it away, symbolic links are not looked at.
pub fn key_of_path(path: &Path, cwd: &Path) -> Vec<u8> {
    let mut parts: Vec<&OsStr> = Vec::new();
    let base = if path.is_absolute() { Path::new("/") } else { cwd };
    for component in base.components().chain(path.components()) {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    let mut key = Vec::new();
    for part in parts {
        push_component(&mut key, part.as_bytes());
    }
    key
}

/// The absolute path a key stands for.
pub fn path_of_key(key: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(b'/');
    bytes.extend(key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }));
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Appends one more component to a key.
pub fn push_component(key: &mut Vec<u8>, name: &[u8]) {
    if !key.is_empty() {
        key.push(0);
    }
    key.extend_from_slice(name);
}

/// Splits a key into its parent's key and its last component; `None` for the root.
pub fn split_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
    if key.is_empty() {
        return None;
    }
    Some(match key.iter().rposition(|&byte| byte == 0) {
        Some(at) => (&key[..at], &key[at + 1..]),
        None => (&key[..0], key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lexical_and_absolute() {
        let key = |path: &str| key_of_path(Path::new(path), Path::new("/w/d"));
        assert_eq!(key("/"), b"");
        assert_eq!(key("/home/./x//"), b"home\0x");
        assert_eq!(key("a/../../b"), b"w\0b");
        assert_eq!(key("../../../.."), b"");
        assert_eq!(path_of_key(b"home\0x"), Path::new("/home/x"));
        assert_eq!(path_of_key(b""), Path::new("/"));
        assert_eq!(split_key(b"a\0b\0c"), Some((&b"a\0b"[..], &b"c"[..])));
        assert_eq!(split_key(b"a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(split_key(b""), None);
    }
}
