//! From a key to a descriptor: opens below a known directory, through no symbolic link, at any depth.
//!
//! Invariant: whatever is opened here is inside the directory it was asked for, even while somebody swaps
//! directories for links. One `openat2(2)` (RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS) does it where the kernel has
//! it; a chain of `O_NOFOLLOW` opens does it elsewhere, and where the path is longer than one call takes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{Errno, Result};

use super::stat::Stat;

/// One system call takes at most 4096 bytes of path, the final NUL among them.
const PIECE_LIMIT_BYTES: usize = 4000;

/// Whether `openat2` works here: old kernels and container sandboxes refuse it in different ways.
fn openat2_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(CWD, c".", flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).is_ok()
    })
}

fn open_piece(at: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        // EAGAIN: a rename elsewhere raced with the lookup; the kernel asks for another try.
        match openat2(at, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens `path` (components joined by `/`, no leading slash; empty is `anchor` itself) below `anchor`.
/// `O_NOFOLLOW` and `O_CLOEXEC` are always added.
///
/// # Errors
/// ELOOP or ENOTDIR when a component is a symbolic link; else what the system says.
pub fn open_beneath(anchor: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.is_empty() {
        return openat(anchor, c".", flags, mode);
    }
    if path.len() <= PIECE_LIMIT_BYTES && openat2_works() {
        return open_piece(anchor, path, flags, mode);
    }
    open_in_pieces(anchor, path, flags, mode)
}

fn open_in_pieces(anchor: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let between = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Without openat2 only the last component of a call is safe from links: one component a call.
    let limit = if openat2_works() { PIECE_LIMIT_BYTES } else { 0 };
    let mut held: Option<OwnedFd> = None;
    let mut rest = path;
    loop {
        let at = held.as_ref().map_or(anchor, AsFd::as_fd);
        let (piece, after) = cut_piece(rest, limit);
        let (flags, mode) = if after.is_empty() { (flags, mode) } else { (between, Mode::empty()) };
        let opened = if limit > 0 {
            open_piece(at, piece, flags, mode)
        } else if matches!(piece, b".." | b"." | b"") {
            Err(Errno::INVAL)
        } else {
            openat(at, piece, flags, mode)
        }?;
        if after.is_empty() {
            return Ok(opened);
        }
        held = Some(opened);
        rest = after;
    }
}

/// Splits off as many whole components as fit `limit` bytes, at least one.
fn cut_piece(path: &[u8], limit: usize) -> (&[u8], &[u8]) {
    if path.len() <= limit {
        return (path, b"");
    }
    let slash = |byte: &u8| *byte == b'/';
    let cut = path[..limit.min(path.len())].iter().rposition(slash);
    match cut.or_else(|| path.iter().position(slash)) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, b""),
    }
}

/// Where keys really are: under `/`, except below roots and ancestors that are symbolic links the caller
/// asked to go through.
#[derive(Debug)]
pub struct Places {
    slash: OwnedFd,
    /// (key, real path without leading slash), longest key first.
    followed: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Places {
    /// `followed`: keys that are links to go through, with the real path of each (no leading slash).
    pub(super) fn new(mut followed: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self> {
        followed.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        let slash = openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { slash, followed })
    }

    /// Keys that stand for folders elsewhere: (key, absolute path of the folder).
    ///
    /// # Errors
    /// The system has no `/`.
    pub fn of_folders<'f>(folders: impl IntoIterator<Item = (&'f [u8], &'f Path)>) -> Result<Self> {
        let place = |(key, path): (&[u8], &Path)| {
            let path = path.as_os_str().as_bytes();
            (key.to_vec(), path.strip_prefix(b"/").unwrap_or(path).to_vec())
        };
        Self::new(folders.into_iter().map(place).collect())
    }

    /// The real path of `key`, without its leading slash.
    pub fn real_path(&self, key: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(key.len() + 1);
        let mut rest = key;
        for (prefix, real) in &self.followed {
            if let Some(after) = key.strip_prefix(prefix.as_slice())
                && matches!(after.first(), None | Some(0))
            {
                path.extend_from_slice(real);
                rest = if path.is_empty() { after.strip_prefix(b"\0").unwrap_or(after) } else { after };
                break;
            }
        }
        path.extend(rest.iter().map(|&byte| if byte == 0 { b'/' } else { byte }));
        path
    }

    /// Looks at what is at `key`, through no link.
    pub(super) fn stat(&self, key: &[u8]) -> Result<Stat> {
        let fd = self.open(key, OFlags::PATH)?;
        Ok(Stat::from(&fstat(&fd)?))
    }

    /// Opens what is at `key`, without disturbing its access time where that is allowed.
    pub fn open(&self, key: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let path = self.real_path(key);
        if flags.contains(OFlags::PATH) {
            return open_beneath(self.slash.as_fd(), &path, flags, Mode::empty());
        }
        match open_beneath(self.slash.as_fd(), &path, flags | OFlags::NOATIME, Mode::empty()) {
            // Only owners and root may leave the access time alone.
            Err(Errno::PERM) => open_beneath(self.slash.as_fd(), &path, flags, Mode::empty()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_components() {
        assert_eq!(cut_piece(b"aa/bb/cc", 5), (&b"aa"[..], &b"bb/cc"[..]));
        assert_eq!(cut_piece(b"aa/bb/cc", 6), (&b"aa/bb"[..], &b"cc"[..]));
        assert_eq!(cut_piece(b"aaaaaa/b", 3), (&b"aaaaaa"[..], &b"b"[..]));
        assert_eq!(cut_piece(b"aa/b", 0), (&b"aa"[..], &b"b"[..]));
        assert_eq!(cut_piece(b"aa", 0), (&b"aa"[..], &b""[..]));
    }

    #[test]
    fn links_and_parents_are_not_gone_through() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::fs::write(dir.path().join("real/f"), b"x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let anchor = std::fs::File::open(dir.path()).unwrap();
        let open = |path: &[u8]| open_beneath(anchor.as_fd(), path, OFlags::RDONLY, Mode::empty());
        assert!(open(b"real/f").is_ok());
        assert!(open(b"link/f").is_err());
        assert!(open(b"link").is_err());
        assert!(open(b"real/../../x").is_err());
        let pieces = |path: &[u8]| {
            open_in_pieces(anchor.as_fd(), path, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())
        };
        assert!(pieces(b"real/f").is_ok());
        assert!(pieces(b"link/f").is_err());
    }

    #[test]
    fn followed_links_give_real_paths() {
        let places = Places::new(vec![(b"var\0run".to_vec(), b"run".to_vec())]).unwrap();
        assert_eq!(places.real_path(b"var\0run\0x"), b"run/x");
        assert_eq!(places.real_path(b"var\0run"), b"run");
        assert_eq!(places.real_path(b"var\0runner\0x"), b"var/runner/x");
        assert_eq!(places.real_path(b""), b"");
    }
}
