//! Diff: what changed between two snapshots, at the cost of what changed.

use super::EngineError;
use super::read::select::Selected;
use crate::base::cancel::Cancel;
use crate::format::entry::{Content, Entry, Kind};
use crate::repo::tree::diff::{Change, diff};
use crate::repo::tree::is_within;
use crate::repo::{RepoError, Repository};

/// How a path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    Added,
    Removed,
    /// A file became a folder, a link a file…
    Type,
    /// Bytes, link target or device.
    Content,
    /// Mode, owner, times, attributes, links.
    Metadata,
}

/// Entries of one kind of change, and their content bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, entry: &Entry) {
        match &entry.kind {
            Kind::Directory => self.directories += 1,
            Kind::File(content) | Kind::Stream(content) => {
                self.files += 1;
                self.bytes += content.size_bytes;
            }
            _ => self.others += 1,
        }
    }
}

/// All changes, counted. Sizes of changed entries are those after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differences {
    pub added: Tally,
    pub removed: Tally,
    pub type_changed: Tally,
    pub content_changed: Tally,
    pub metadata_changed: Tally,
}

/// Takes one change: how, the key, the entry before and after.
pub type Visit<'v> =
    dyn FnMut(Difference, &[u8], Option<&Entry>, Option<&Entry>) -> Result<(), RepoError> + Send + 'v;

/// Compares two snapshots, or one path of both.
///
/// # Errors
/// Different paths, storage that fails, pages that are damaged.
pub async fn compare(
    repo: &Repository,
    before: &Selected,
    after: &Selected,
    cancel: &Cancel,
    visit: &mut Visit<'_>,
) -> Result<Differences, EngineError> {
    if before.key != after.key {
        return Err(EngineError::Refused("the same path is compared in both snapshots".into()));
    }
    let mut differences = Differences::default();
    let same_domain = before.snapshot.domain == after.snapshot.domain;
    let mut take = |change: Change| {
        cancel.check()?;
        if !is_within(change.key(), &after.key) {
            return Ok(());
        }
        match &change {
            Change::Added(key, entry) => {
                differences.added.add(entry);
                visit(Difference::Added, key, None, Some(entry))
            }
            Change::Removed(key, entry) => {
                differences.removed.add(entry);
                visit(Difference::Removed, key, Some(entry), None)
            }
            Change::Modified(key, old, new) => {
                let Some(difference) = classify(old, new, same_domain) else { return Ok(()) };
                let tally = match difference {
                    Difference::Type => &mut differences.type_changed,
                    Difference::Content => &mut differences.content_changed,
                    _ => &mut differences.metadata_changed,
                };
                tally.add(new);
                visit(difference, key, Some(old), Some(new))
            }
        }
    };
    diff(
        (&repo.reader, before.snapshot.domain, before.root),
        (&repo.reader, after.snapshot.domain, after.root),
        &mut take,
    )
    .await?;
    Ok(differences)
}

/// How two entries of one path differ. Across dedup domains ids cannot be compared: there, size and mtime stand for
/// the content. `None`: only ids differ.
fn classify(before: &Entry, after: &Entry, same_domain: bool) -> Option<Difference> {
    let same_content = |a: &Content, b: &Content| match (a.hash, b.hash) {
        _ if !same_domain => a.size_bytes == b.size_bytes && before.mtime == after.mtime,
        (Some(a_hash), Some(b_hash)) => a_hash == b_hash && a.size_bytes == b.size_bytes,
        _ => a == b,
    };
    let content = match (&before.kind, &after.kind) {
        (Kind::File(a) | Kind::Stream(a), Kind::File(b) | Kind::Stream(b)) => same_content(a, b),
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => return Some(Difference::Type),
        (a, b) => a == b,
    };
    if !content {
        return Some(Difference::Content);
    }
    let bare = |entry: &Entry| {
        let xattrs: Vec<_> = entry.xattrs.iter().map(|(name, _)| name.clone()).collect();
        let spilled = if same_domain { entry.xattrs.clone() } else { Vec::new() };
        let owner = (entry.uid, entry.gid, entry.user.clone(), entry.group.clone());
        (entry.mode, owner, entry.mtime, xattrs, spilled, entry.hardlink_to.clone())
    };
    (bare(before) != bare(after)).then_some(Difference::Metadata)
}
