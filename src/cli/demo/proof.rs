//! The demo's own comparison: nothing of Lifeboat's is asked whether Lifeboat did well.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Failure;

/// Everything that must come back, of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    /// Type and permissions.
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds. Of the stack's own folder too.
    modified: (i64, i64),
    size_bytes: u64,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    File(blake3::Hash),
    Link(PathBuf),
    Folder,
}

/// A folder as it was.
#[derive(Clone, Debug)]
pub struct Fingerprint(BTreeMap<PathBuf, Facts>);

impl Fingerprint {
    /// Reads every byte below `folder`.
    pub fn take(folder: &Path) -> Result<Self, Failure> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let full = folder.join(&path);
            let metadata = fs::symlink_metadata(&full)?;
            let content = if metadata.is_symlink() {
                Content::Link(fs::read_link(&full)?)
            } else if metadata.is_dir() {
                for entry in fs::read_dir(&full)? {
                    waiting.push(path.join(entry?.file_name()));
                }
                Content::Folder
            } else {
                Content::File(blake3::hash(&fs::read(&full)?))
            };
            let facts = Facts {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                // A folder's size is its file system's affair.
                size_bytes: if metadata.is_dir() { 0 } else { metadata.len() },
                content,
            };
            found.insert(path, facts);
        }
        Ok(Self(found))
    }

    /// Regular files and their bytes.
    pub fn files(&self) -> (u64, u64) {
        let files = self.0.values().filter(|facts| matches!(facts.content, Content::File(_)));
        files.fold((0, 0), |(count, bytes), facts| (count + 1, bytes + facts.size_bytes))
    }

    /// Everything, folders and links included.
    pub fn paths(&self) -> u64 {
        self.0.len() as u64
    }

    /// The paths in which two folders differ, with what differs.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys().filter(|path| !self.0.contains_key(*path)));
        let differ = |path: &PathBuf| {
            let what = match (self.0.get(path), other.0.get(path)) {
                (Some(a), Some(b)) => a.difference(b)?,
                (Some(_), None) => "missing",
                _ => "was not there before",
            };
            Some(format!("{}: {what}", path.display()))
        };
        names.filter_map(differ).collect()
    }
}

impl Facts {
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let rows = [
            (self.content != other.content, "other content"),
            (self.size_bytes != other.size_bytes, "another size"),
            (self.mode != other.mode, "another type or other permissions"),
            (self.owner != other.owner, "another owner"),
            (self.modified != other.modified, "another modification time"),
        ];
        rows.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_found() {
        let folder = tempfile::tempdir().unwrap();
        super::super::stack::create(folder.path()).unwrap();
        let before = Fingerprint::take(folder.path()).unwrap();
        assert_eq!(before.differences(&before), [""; 0]);
        let path = |name: &str| folder.path().join(name);
        let file = fs::File::options().write(true).open(path("certs/shop.key")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 40).unwrap();
        file.set_modified(modified).unwrap();
        fs::remove_file(path("uploads/latest.jpg")).unwrap();
        fs::File::open(path("log/archive")).unwrap().set_modified(modified).unwrap();
        let after = Fingerprint::take(folder.path()).unwrap();
        assert_eq!(
            before.differences(&after),
            [
                "certs/shop.key: other content",
                "log/archive: another modification time",
                "uploads: another modification time",
                "uploads/latest.jpg: missing",
            ]
        );
    }
}
