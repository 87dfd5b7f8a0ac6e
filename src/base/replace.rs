//! A file or folder takes a place in one step; what was there is kept beside it under another name.
//!
//! Invariant: at every instant there is something whole under the name: the old until the exchange, then the new.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Puts `fresh`, which is on the same file system, at `place`. What was there, unless an empty folder, is kept as
/// `PLACE.before-STAMP`; returns that name.
///
/// # Errors
/// What the system says; then `place` is what it was, or `fresh` has it and the old one has `fresh`'s name.
pub fn replace(fresh: &Path, place: &Path, stamp: &str) -> io::Result<Option<PathBuf>> {
    let kept = match std::fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
        Ok(metadata) if metadata.is_dir() && is_empty(place)? => None,
        Ok(_) => Some(free_name(place, stamp)?),
    };
    match &kept {
        // A rename takes the place of an empty folder by itself.
        None => std::fs::rename(fresh, place)?,
        Some(kept) => match renameat_with(CWD, fresh, CWD, place, RenameFlags::EXCHANGE) {
            Ok(()) => std::fs::rename(fresh, kept)?,
            // Not every file system exchanges.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                std::fs::rename(place, kept)?;
                if let Err(error) = std::fs::rename(fresh, place) {
                    let _ = std::fs::rename(kept, place);
                    return Err(error);
                }
            }
            Err(errno) => return Err(errno.into()),
        },
    }
    sync_folder(&File::open(parent(place))?)?;
    Ok(kept)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What the system says, unless that it does no such thing: some network and FUSE file systems promise nothing more.
pub fn sync_folder(folder: &File) -> io::Result<()> {
    match rustix::fs::fsync(folder) {
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        done => Ok(done?),
    }
}

/// Whether a folder holds nothing; a missing one does.
///
/// # Errors
/// It cannot be looked into, or is no folder.
pub fn is_empty(folder: &Path) -> io::Result<bool> {
    match std::fs::read_dir(folder) {
        Ok(mut names) => Ok(names.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The folder that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn free_name(place: &Path, stamp: &str) -> io::Result<PathBuf> {
    let name = place.file_name().ok_or_else(|| io::Error::other("the root cannot be replaced"))?;
    for number in 1..1000 {
        let mut kept = OsString::from(name);
        kept.push(format!(".before-{stamp}"));
        if number > 1 {
            kept.push(format!("-{number}"));
        }
        let kept = place.with_file_name(kept);
        if std::fs::symlink_metadata(&kept).is_err() {
            return Ok(kept);
        }
    }
    Err(io::Error::other("there are too many kept ones already"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_kept_and_nothing_is_kept_of_an_empty_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str| {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join("is"), name).unwrap();
        };
        make("a");
        assert_eq!(replace(&path("a"), &path("place"), "1").unwrap(), None);
        make("b");
        assert_eq!(replace(&path("b"), &path("place"), "1").unwrap(), Some(path("place.before-1")));
        make("c");
        assert_eq!(replace(&path("c"), &path("place"), "1").unwrap(), Some(path("place.before-1-2")));
        let is = |name: &str| std::fs::read_to_string(path(name).join("is")).unwrap();
        assert_eq!(
            (is("place"), is("place.before-1"), is("place.before-1-2")),
            ("c".into(), "a".into(), "b".into())
        );
        std::fs::create_dir(path("empty")).unwrap();
        make("d");
        assert_eq!(replace(&path("d"), &path("empty"), "1").unwrap(), None);
        assert!(replace(Path::new("/nowhere/x"), &path("place"), "9").is_err());
        assert_eq!(is("place"), "c");
    }
}
