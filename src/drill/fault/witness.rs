//! Remembers what a healthy restore brought, so that a restore through a fault is held against it and not against
//! what the damaged storage says of itself.
//!
//! 32 bytes a file: the hash of its path and the hash of what it is.

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::drill::sandbox::Sandbox;

/// Filled while the sandbox stands.
#[derive(Debug, Default)]
pub struct Witness(Mutex<Option<Seen>>);

/// What stood in a sandbox right after the restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// (path, content), ascending; `None` where a service holds the data.
    pub files: Option<Vec<([u8; 16], [u8; 16])>>,
    /// Checks that the restore itself had made by then.
    pub own_checks: usize,
}

impl Witness {
    /// Looks at the sandbox. `own_checks`: how many checks the restore made by itself.
    ///
    /// # Errors
    /// A file in it cannot be read.
    pub fn look(&self, sandbox: &dyn Sandbox, own_checks: usize) -> io::Result<()> {
        let files = match (sandbox.address(), sandbox.path()) {
            (None, Some(path)) => {
                let mut files = Vec::new();
                walk(path, path, &mut files)?;
                files.sort_unstable();
                Some(files)
            }
            _ => None,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { files, own_checks });
        Ok(())
    }

    /// For a process that restores to tell the one that judges; empty if nothing was looked at.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Some(seen) = self.seen() else { return Vec::new() };
        let mut bytes = (seen.own_checks as u64).to_le_bytes().to_vec();
        if let Some(files) = &seen.files {
            bytes.push(1);
            files.iter().for_each(|(name, content)| bytes.extend([*name, *content].concat()));
        }
        bytes
    }

    /// What another process saw. What makes no sense was not seen.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let read = || {
            let (own_checks, rest) = bytes.split_first_chunk::<8>()?;
            let files = match rest.split_first() {
                Some((1, rest)) => {
                    let (pairs, []) = rest.as_chunks::<32>() else { return None };
                    let half = |pair: &[u8]| pair.try_into().unwrap_or_default();
                    let mut files: Vec<_> =
                        pairs.iter().map(|pair| (half(&pair[..16]), half(&pair[16..]))).collect();
                    files.sort_unstable();
                    Some(files)
                }
                Some(_) => return None,
                None => None,
            };
            Some(Seen { files, own_checks: u64::from_le_bytes(*own_checks) as usize })
        };
        Self(Mutex::new(read()))
    }

    pub(super) fn seen(&self) -> Option<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn half(hash: blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

/// Folders themselves do not count: a restore that fails may have made some.
fn walk(root: &Path, folder: &Path, files: &mut Vec<([u8; 16], [u8; 16])>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            walk(root, &path, files)?;
            continue;
        }
        let mut hasher = blake3::Hasher::new();
        if kind.is_symlink() {
            hasher.update(b"link\0").update(std::fs::read_link(&path)?.as_os_str().as_bytes());
        } else if kind.is_file() {
            let mut file = std::fs::File::open(&path)?;
            let mut buffer = vec![0; 256 << 10];
            hasher.update(b"file\0");
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => drop(hasher.update(&buffer[..read])),
                }
            }
        } else {
            hasher.update(b"other\0");
        }
        let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes();
        files.push((half(blake3::hash(name)), half(hasher.finalize())));
    }
    Ok(())
}

impl Seen {
    /// Whether all of this is in the other, as far as files can be looked at.
    pub fn is_part_of(&self, whole: &Self) -> bool {
        match (&self.files, &whole.files) {
            (Some(part), Some(whole)) => part.iter().all(|file| whole.binary_search(file).is_ok()),
            _ => true,
        }
    }

    /// Whether both are the same, as far as files can be looked at.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.files, &other.files) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(folder: &Path) -> Seen {
        let mut files = Vec::new();
        walk(folder, folder, &mut files).unwrap();
        files.sort_unstable();
        Seen { files: Some(files), own_checks: 0 }
    }

    #[test]
    fn what_was_seen_is_told_to_another_process() {
        let some = Seen { files: Some(vec![([1; 16], [2; 16]), ([3; 16], [4; 16])]), own_checks: 3 };
        for seen in [Some(some), Some(Seen { files: None, own_checks: 2 }), None] {
            let witness = Witness(Mutex::new(seen.clone()));
            assert_eq!(Witness::from_bytes(&witness.to_bytes()).seen(), seen);
        }
        for bytes in [&[0; 7][..], &[2; 9], &[1; 20]] {
            assert_eq!(Witness::from_bytes(bytes).seen(), None);
        }
    }

    #[test]
    fn a_file_less_is_a_part_and_a_byte_other_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("deep")).unwrap();
        std::fs::write(path("a"), "a").unwrap();
        std::fs::write(path("deep/b"), "b").unwrap();
        std::os::unix::fs::symlink("a", path("l")).unwrap();
        let whole = seen(folder.path());
        std::fs::remove_file(path("a")).unwrap();
        let part = seen(folder.path());
        assert!(part.is_part_of(&whole) && !whole.is_part_of(&part) && !part.is_same(&whole));
        std::fs::write(path("a"), "a").unwrap();
        assert!(seen(folder.path()).is_same(&whole));
        std::fs::write(path("a"), "A").unwrap();
        assert!(!seen(folder.path()).is_part_of(&whole));
        std::fs::write(path("a"), "a").unwrap();
        std::fs::remove_file(path("l")).unwrap();
        std::os::unix::fs::symlink("b", path("l")).unwrap();
        assert!(!seen(folder.path()).is_part_of(&whole));
    }
}
