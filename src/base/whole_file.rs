//! A file that appears under its name whole or not at all: written beside it, made durable, then renamed.
//!
//! Invariant: on an error, and after a crash, there is what was there before or the whole new file; never a half. The new
//! one is there on an error only where the disk fails as the folder is made durable, which comes last.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::replace::{parent, sync_folder};

/// What a new file may be for others, before their umask.
pub const ORDINARY: u32 = 0o666;
/// A file for its owner's eyes only.
pub const PRIVATE: u32 = 0o600;

fn beside(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lifeboat-").permissions(Permissions::from_mode(mode));
    builder.tempfile_in(parent(path))
}

/// A file that is written, in the place of one that may be there. A device or pipe is written to as it is.
pub enum WholeFile {
    Beside(NamedTempFile, PathBuf),
    Device(File),
}

impl WholeFile {
    /// Begins. What is there stays until [`Self::keep`], and a new one has its mode; `mode` is for one that is not there.
    ///
    /// # Errors
    /// The folder takes no file.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        // Through a link its target is written, as a shell would.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let existing = path.metadata().ok();
        if existing.as_ref().is_some_and(|existing| !existing.is_file()) {
            return Ok(Self::Device(File::options().write(true).open(path)?));
        }
        let mode = existing.map_or(mode, |existing| existing.permissions().mode() & 0o777);
        Ok(Self::Beside(beside(&path, mode)?, path))
    }

    /// Where to write.
    ///
    /// # Errors
    /// What the system says.
    pub fn file(&self) -> io::Result<File> {
        match self {
            Self::Beside(file, _) => file.as_file().try_clone(),
            Self::Device(file) => file.try_clone(),
        }
    }

    /// All was written well.
    ///
    /// # Errors
    /// It could not be made durable or take its place.
    pub fn keep(self) -> io::Result<()> {
        let Self::Beside(file, path) = self else { return Ok(()) };
        let folder = File::open(parent(&path))?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        sync_folder(&folder)
    }
}

/// Writes a file, in the place of one that may be there and keeps its mode; `mode` is for a new one.
///
/// # Errors
/// What the system says; see the module for what is there then.
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let whole = WholeFile::create(path, mode)?;
    whole.file()?.write_all(bytes)?;
    whole.keep()
}

/// Writes a new file.
///
/// # Errors
/// What the system says, [`io::ErrorKind::AlreadyExists`] if something has that name, which is left alone.
pub fn make_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists"));
    }
    let folder = File::open(parent(path))?;
    let mut file = beside(path, mode)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    sync_folder(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_never_written_over_and_an_old_one_keeps_its_mode_and_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mode = |name: &str| path(name).metadata().unwrap().permissions().mode() & 0o777;
        make_new(&path("a"), PRIVATE, b"one").unwrap();
        assert_eq!(mode("a"), 0o600);
        assert_eq!(make_new(&path("a"), PRIVATE, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::os::unix::fs::symlink("a", path("link")).unwrap();
        write(&path("link"), ORDINARY, b"three").unwrap();
        assert_eq!(std::fs::read(path("a")).unwrap(), b"three");
        assert_eq!(mode("a"), 0o600);
        write(Path::new("/dev/null"), ORDINARY, b"gone").unwrap();
        assert!(write(&path("nowhere/b"), ORDINARY, b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside");
        write(&path("private"), PRIVATE, b"four").unwrap();
        assert_eq!(mode("private"), 0o600);
    }
}
