//! Find: paths that match, over many snapshots, at the cost of what differs between them.
//!
//! Snapshots share the pages of their trees. A page in which nothing matched is remembered and not read again, nor
//! is anything below it; so a search for something rare reads each distinct page once, however many snapshots there
//! are.

use std::collections::HashSet;

use super::EngineError;
use super::read::filter::{compile, slashed};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::entry::{Entry, Kind, Timestamp};
use crate::format::id::ShortId;
use crate::format::page::{Child, TreePage};
use crate::repo::Repository;
use crate::repo::snapshots::Snapshot;
use crate::repo::tree::read::read_page;
use crate::source::files::exclude::Excludes;

/// What is looked for. Every condition must hold.
#[derive(Clone, Debug, Default)]
pub struct FindOptions {
    /// Gitignore syntax over the original path; any of them.
    pub patterns: Vec<String>,
    pub any_case: bool,
    pub kind: Option<FindKind>,
    /// mtime at or after, and before.
    pub newer_than: Option<Timestamp>,
    pub older_than: Option<Timestamp>,
    /// Content length in bytes, inclusive.
    pub min_size_bytes: Option<u64>,
    pub max_size_bytes: Option<u64>,
}

/// Kinds of entries that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindKind {
    File,
    Directory,
    Symlink,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub matches: u64,
    pub snapshots: u64,
    pub pages_read: u64,
    pub pages_skipped: u64,
    /// Pages that cannot be read: what they held was not searched.
    pub unreadable_pages: u64,
}

struct Search<'s> {
    options: &'s FindOptions,
    patterns: Excludes,
    /// Pages, by domain, in which and below which nothing matches.
    barren: HashSet<(u32, ShortId)>,
    found: Found,
}

/// Takes a match: in which snapshot, its key, the entry.
pub type Visit<'v> = dyn FnMut(&Snapshot, &[u8], &Entry) -> Result<(), EngineError> + Send + 'v;

/// Searches `snapshots` in their order.
///
/// # Errors
/// A pattern that is not valid, storage that does not answer, the visitor's own.
pub async fn find(
    repo: &Repository,
    snapshots: &[&Snapshot],
    options: &FindOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
    visit: &mut Visit<'_>,
) -> Result<Found, EngineError> {
    progress.phase("searching");
    progress.add_total(0, snapshots.len() as u64);
    let patterns = compile(&options.patterns, options.any_case)?;
    let mut search = Search { options, patterns, barren: HashSet::new(), found: Found::default() };
    for snapshot in snapshots {
        search.snapshot(repo, snapshot, cancel, visit).await?;
        search.found.snapshots += 1;
        progress.add_done(0, 1);
    }
    Ok(search.found)
}

/// An inner page that is gone through.
struct Frame {
    id: ShortId,
    level: u8,
    children: std::vec::IntoIter<(Vec<u8>, Child)>,
    matched: bool,
}

impl Search<'_> {
    async fn snapshot(
        &mut self,
        repo: &Repository,
        snapshot: &Snapshot,
        cancel: &Cancel,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        let root = repo.contents(snapshot).await?.root;
        let domain = snapshot.domain;
        let mut stack: Vec<Frame> = Vec::new();
        let mut next = Some((root.page, root.level));
        loop {
            cancel.check()?;
            if let Some((id, level)) = next.take() {
                let matched = self.page(repo, snapshot, (id, level), &mut stack, visit).await?;
                if let (Some(matched), Some(above)) = (matched, stack.last_mut()) {
                    above.matched |= matched;
                }
            }
            let Some(frame) = stack.last_mut() else { return Ok(()) };
            if let Some((_, child)) = frame.children.next() {
                next = Some((child.page.id, frame.level - 1));
                continue;
            }
            let done = stack.pop();
            if let Some(frame) = done {
                match (frame.matched, stack.last_mut()) {
                    (false, _) => drop(self.barren.insert((domain, frame.id))),
                    (true, Some(above)) => above.matched = true,
                    (true, None) => {}
                }
            }
        }
    }

    /// Reads a page: a leaf is searched (whether anything matched comes back), an inner one goes on the stack.
    async fn page(
        &mut self,
        repo: &Repository,
        snapshot: &Snapshot,
        (id, level): (ShortId, u8),
        stack: &mut Vec<Frame>,
        visit: &mut Visit<'_>,
    ) -> Result<Option<bool>, EngineError> {
        if self.barren.contains(&(snapshot.domain, id)) {
            self.found.pages_skipped += 1;
            return Ok(Some(false));
        }
        self.found.pages_read += 1;
        match read_page(&repo.reader, snapshot.domain, &id, level).await {
            Ok(TreePage::Inner { level, children }) => {
                stack.push(Frame { id, level, children: children.into_iter(), matched: false });
                Ok(None)
            }
            Ok(TreePage::Leaf(entries)) => {
                let mut matched = false;
                for (key, entry) in &entries {
                    if self.matches(key, entry) {
                        matched = true;
                        self.found.matches += 1;
                        visit(snapshot, key, entry)?;
                    }
                }
                if !matched {
                    self.barren.insert((snapshot.domain, id));
                }
                Ok(Some(matched))
            }
            Err(error) if error.is_damage() => {
                self.found.unreadable_pages += 1;
                // Not barren: the next snapshot that needs it counts it again.
                Ok(Some(true))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn matches(&self, key: &[u8], entry: &Entry) -> bool {
        let options = self.options;
        let kind = match options.kind {
            None => true,
            Some(FindKind::File) => entry.content().is_some(),
            Some(FindKind::Directory) => entry.is_directory(),
            Some(FindKind::Symlink) => matches!(entry.kind, Kind::Symlink(_)),
        };
        let size = entry.content().map(|content| content.size_bytes);
        let size_fits = (options.min_size_bytes.is_none() && options.max_size_bytes.is_none())
            || size.is_some_and(|size| {
                options.min_size_bytes.is_none_or(|least| size >= least)
                    && options.max_size_bytes.is_none_or(|most| size <= most)
            });
        kind && size_fits
            && options.newer_than.is_none_or(|time| entry.mtime >= time)
            && options.older_than.is_none_or(|time| entry.mtime < time)
            && !key.is_empty()
            && (options.patterns.is_empty() || self.patterns.matches(&slashed(key), entry.is_directory()))
    }
}
