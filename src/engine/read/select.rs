//! `SNAP[:PATH]`: which snapshot, and which path in it.
//!
//! PATH is the original absolute path. The split is at the first `:/` that is not part of `://`, because a
//! selector may hold colons of its own (`JOB@2026-11-20T02:00`, and jobs named by an address such as
//! `postgres://db/app`). So a path never starts with two slashes, and a relative one is refused with a hint.
//!
//! `latest:PATH` means the newest snapshot that contains PATH, whatever its job, and `latest~N:PATH` the Nth newest
//! of those: the question behind is always "the last copy of this".

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::engine::EngineError;
use crate::format::entry::Entry;
use crate::format::page::TreeRoot;
use crate::pack::read::Reader;
use crate::repo::snapshots::{Filter, Selector, Snapshot, SnapshotList};
use crate::repo::tree::{key_of_path, path_of_key};
use crate::repo::{RepoError, Repository};

use super::walk::TreeWalk;

/// A parsed `SNAP[:PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPath {
    pub selector: String,
    /// The path's key; empty for the whole snapshot.
    pub key: Vec<u8>,
}

/// A snapshot with the place in it that was meant.
#[derive(Clone, Debug)]
pub struct Selected {
    pub snapshot: Snapshot,
    pub root: TreeRoot,
    /// Empty for the whole snapshot.
    pub key: Vec<u8>,
    /// What is at `key`. `None` for a folder without an entry of its own, such as `/` mostly is.
    pub entry: Option<Entry>,
}

impl Selected {
    /// Whether only a single file, link or device was meant.
    pub fn is_single(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| !entry.is_directory())
    }
}

impl SnapshotPath {
    /// Parses the argument of restore, dump and ls.
    ///
    /// # Errors
    /// The selector is not UTF-8, or something that looks like a relative path follows it.
    pub fn parse(text: &OsStr) -> Result<Self, EngineError> {
        let bytes = text.as_bytes();
        let splits = |at: usize| bytes[at] == b':' && bytes.get(at + 1) == Some(&b'/');
        let mut places = (0..bytes.len()).filter(|at| splits(*at) && bytes.get(at + 2) != Some(&b'/'));
        // A job's name may itself hold `:/` (`files:/etc@latest`): the path begins where what stands before it is a
        // selector.
        let is_selector =
            |head: &[u8]| std::str::from_utf8(head).is_ok_and(|head| Selector::parse(head).is_some());
        let first = places.clone().next();
        let split =
            places.find(|at| is_selector(&bytes[..*at])).or(if is_selector(bytes) { None } else { first });
        let (selector, path) = match split {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (bytes, None),
        };
        let refused = |why: &str| EngineError::Refused(format!("{:?}: {why}", text.to_string_lossy()));
        let selector = std::str::from_utf8(selector).map_err(|_| refused("not a snapshot selector"))?;
        if Selector::parse(selector).is_none()
            && let Some((head, _)) = selector.rsplit_once(':')
            && Selector::parse(head).is_some()
        {
            return Err(refused("the path after the snapshot must be absolute, as in latest:/etc"));
        }
        if path.is_some_and(|path| path.split(|byte| *byte == b'/').any(|part| matches!(part, b"." | b"..")))
        {
            return Err(refused("the path must not contain . or .."));
        }
        Ok(Self { selector: selector.to_owned(), key: path.map(key_of_path).unwrap_or_default() })
    }
}

/// What stands at `key`: `None` when nothing does, `Some(None)` when only entries below it exist.
pub async fn look_up(
    reader: &Reader,
    domain: u32,
    root: TreeRoot,
    key: &[u8],
) -> Result<Option<Option<Entry>>, RepoError> {
    let first = TreeWalk::new(reader, domain, root, key).next().await?;
    Ok(match first {
        Some((found, entry)) => Some((found == key).then_some(entry)),
        None if key.is_empty() => Some(None),
        None => None,
    })
}

impl SnapshotPath {
    /// Finds the snapshot and looks the path up in it.
    ///
    /// # Errors
    /// No snapshot fits, several jobs do, or the path is not in it.
    pub async fn select(&self, repo: &Repository, filter: &Filter) -> Result<Selected, EngineError> {
        let list = repo.snapshots().await?;
        self.select_from(repo, &list, filter).await
    }

    /// The same with a listing at hand.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub async fn select_from(
        &self,
        repo: &Repository,
        list: &SnapshotList,
        filter: &Filter,
    ) -> Result<Selected, EngineError> {
        if let Some(Selector::Latest { job: None, back }) = Selector::parse(&self.selector)
            && !self.key.is_empty()
        {
            return self.newest_with_path(repo, list, filter, back).await;
        }
        let snapshot = list.select(&self.selector, filter)?;
        match self.look_in(repo, snapshot).await? {
            Some(selected) => Ok(selected),
            None => Err(self.not_in(&format!("snapshot {}", &snapshot.id.hex()[..8]))),
        }
    }

    async fn newest_with_path(
        &self,
        repo: &Repository,
        list: &SnapshotList,
        filter: &Filter,
        mut back: usize,
    ) -> Result<Selected, EngineError> {
        for snapshot in list.matching(filter).rev() {
            if let Some(selected) = self.look_in(repo, snapshot).await? {
                if back == 0 {
                    return Ok(selected);
                }
                back -= 1;
            }
        }
        Err(self.not_in("any snapshot that fits"))
    }

    async fn look_in(&self, repo: &Repository, snapshot: &Snapshot) -> Result<Option<Selected>, EngineError> {
        let root = repo.contents(snapshot).await?.root;
        let found = look_up(&repo.reader, snapshot.domain, root, &self.key).await?;
        let key = self.key.clone();
        Ok(found.map(|entry| Selected { snapshot: snapshot.clone(), root, key, entry }))
    }

    fn not_in(&self, place: &str) -> EngineError {
        let path = path_of_key(&self.key);
        EngineError::Refused(format!("{:?} is not in {place}", String::from_utf8_lossy(&path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, Vec<u8>) {
        let parsed = SnapshotPath::parse(OsStr::new(text)).unwrap();
        (parsed.selector, parsed.key)
    }

    #[test]
    fn the_path_begins_at_the_first_colon_with_one_slash() {
        assert_eq!(parse("latest"), ("latest".into(), vec![]));
        assert_eq!(parse("latest:/"), ("latest".into(), vec![]));
        assert_eq!(parse("latest:/a/b/"), ("latest".into(), b"a\0b".to_vec()));
        assert_eq!(parse("web@2026-11-20T02:00:/a:/b"), ("web@2026-11-20T02:00".into(), b"a:\0b".to_vec()));
        assert_eq!(parse("files:/etc,/srv@latest"), ("files:/etc,/srv@latest".into(), vec![]));
        assert_eq!(parse("files:/etc@latest:/etc/x"), ("files:/etc@latest".into(), b"etc\0x".to_vec()));
        assert_eq!(parse("postgres://db/app@latest"), ("postgres://db/app@latest".into(), vec![]));
        assert_eq!(parse("pg://db@latest~2:/x"), ("pg://db@latest~2".into(), b"x".to_vec()));
    }

    #[test]
    fn relative_paths_are_refused() {
        for text in ["latest:etc", "latest:", "latest:/a/../b", "latest:/./a", "abcd1234:x"] {
            assert!(SnapshotPath::parse(OsStr::new(text)).is_err(), "{text}");
        }
        assert!(SnapshotPath::parse(OsStr::from_bytes(b"lat\xffest")).is_err());
    }
}
