//! A text file that is obeyed, so that nobody else may have written it.
//!
//! Invariant: what is judged is what is read. The file is opened once, and the opened file is asked.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum OwnFileError {
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{} may be written by others, and what it says is run as you\nhint: chmod go-w {}", path.display(), path.display())]
    Unsafe { path: PathBuf },
}

/// Who may have written a file that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only we, or root: it is run as us.
    Own,
    /// Anybody: it is only looked at.
    Any,
}

/// Reads a text of at most `limit_bytes`.
///
/// # Errors
/// It cannot be read, is too long or no text; or, with [`Trust::Own`], others may write it.
pub fn read(path: &Path, limit_bytes: u64, trust: Trust) -> Result<String, OwnFileError> {
    let unreadable = |cause| OwnFileError::Unreadable { path: path.to_owned(), cause };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("it is no file")));
    }
    let me = rustix::process::geteuid().as_raw();
    let is_own = metadata.mode() & 0o022 == 0 && [0, me].contains(&metadata.uid());
    if trust == Trust::Own && !is_own {
        return Err(OwnFileError::Unsafe { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(limit_bytes + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > limit_bytes {
        return Err(unreadable(io::Error::other(format!("it is larger than {limit_bytes} bytes"))));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_others_may_write_is_not_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "text").unwrap();
        for (mode, is_own) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 10, Trust::Own).is_ok(), is_own, "{mode:o}");
            assert!(read(&path, 10, Trust::Any).is_ok());
        }
        assert!(read(&path, 3, Trust::Any).is_err());
        assert!(read(folder.path(), 10, Trust::Any).is_err());
    }
}
