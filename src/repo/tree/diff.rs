//! Compares two trees at the cost of what differs: equal pages are skipped unread.

use super::super::RepoError;
use super::read::read_page;
use crate::format::entry::Entry;
use crate::format::id::ShortId;
use crate::format::page::{TreePage, TreeRoot};
use crate::pack::read::Reader;

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Added(Vec<u8>, Box<Entry>),
    Removed(Vec<u8>, Box<Entry>),
    /// Before, after.
    Modified(Vec<u8>, Box<Entry>, Box<Entry>),
}

impl Change {
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Added(key, _) | Self::Removed(key, _) | Self::Modified(key, ..) => key,
        }
    }
}

/// Walks one side, page by page, able to leave a page out without reading it.
struct Side<'r> {
    reader: &'r Reader,
    domain: u32,
    /// What is still to come, next last.
    stack: Vec<Item>,
}

enum Item {
    Page { id: ShortId, level: u8 },
    Entry(Vec<u8>, Box<Entry>),
}

impl Side<'_> {
    /// Opens the next item if it is a page; pages are replaced by what they hold.
    async fn open(&mut self) -> Result<(), RepoError> {
        let Some(Item::Page { id, level }) = self.stack.pop() else { return Ok(()) };
        match read_page(self.reader, self.domain, &id, level).await? {
            TreePage::Leaf(entries) => {
                self.stack
                    .extend(entries.into_iter().rev().map(|(key, entry)| Item::Entry(key, Box::new(entry))));
            }
            TreePage::Inner { level, children } => {
                let pages = children.into_iter().rev();
                self.stack.extend(pages.map(|(_, child)| Item::Page { id: child.page.id, level: level - 1 }));
            }
        }
        Ok(())
    }
}

/// Calls `visit` with every difference, in key order. Both trees must be of the same domain for pages to be
/// recognised as equal; across domains every entry is read.
pub async fn diff(
    before: (&Reader, u32, TreeRoot),
    after: (&Reader, u32, TreeRoot),
    visit: &mut (dyn FnMut(Change) -> Result<(), RepoError> + Send),
) -> Result<(), RepoError> {
    let side = |(reader, domain, root): (_, u32, TreeRoot)| Side {
        reader,
        domain,
        stack: vec![Item::Page { id: root.page, level: root.level }],
    };
    let (mut left, mut right) = (side(before), side(after));
    loop {
        match (left.stack.last(), right.stack.last()) {
            (None, None) => return Ok(()),
            (Some(Item::Page { id: a, level: la }), Some(Item::Page { id: b, level: lb })) => {
                let (equal, levels) = (a == b, la.cmp(lb));
                if equal {
                    left.stack.pop();
                    right.stack.pop();
                    continue;
                }
                if levels.is_ge() {
                    left.open().await?;
                }
                if levels.is_le() {
                    right.open().await?;
                }
            }
            (Some(Item::Page { .. }), _) => left.open().await?,
            (_, Some(Item::Page { .. })) => right.open().await?,
            (Some(Item::Entry(..)), None) => take_left(&mut left, visit)?,
            (None, Some(Item::Entry(..))) => take_right(&mut right, visit)?,
            (Some(Item::Entry(a, _)), Some(Item::Entry(b, _))) => match a.cmp(b) {
                std::cmp::Ordering::Less => take_left(&mut left, visit)?,
                std::cmp::Ordering::Greater => take_right(&mut right, visit)?,
                std::cmp::Ordering::Equal => {
                    if let (Some(Item::Entry(key, before)), Some(Item::Entry(_, after))) =
                        (left.stack.pop(), right.stack.pop())
                        && before != after
                    {
                        visit(Change::Modified(key, before, after))?;
                    }
                }
            },
        }
    }
}

type Visit<'v> = dyn FnMut(Change) -> Result<(), RepoError> + Send + 'v;

fn take_left(side: &mut Side<'_>, visit: &mut Visit<'_>) -> Result<(), RepoError> {
    match side.stack.pop() {
        Some(Item::Entry(key, entry)) => visit(Change::Removed(key, entry)),
        _ => Ok(()),
    }
}

fn take_right(side: &mut Side<'_>, visit: &mut Visit<'_>) -> Result<(), RepoError> {
    match side.stack.pop() {
        Some(Item::Entry(key, entry)) => visit(Change::Added(key, entry)),
        _ => Ok(()),
    }
}
