//! Reads a snapshot's tree: in key order from any key on, page by page.

use super::super::RepoError;
use crate::format::entry::Entry;
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::page::{Child, LEVEL_LIMIT, TreePage, TreeRoot};
use crate::pack::read::Reader;
use crate::seal::SealError;

/// Reads and checks one page.
pub async fn read_page(reader: &Reader, domain: u32, id: &ShortId, level: u8) -> Result<TreePage, RepoError> {
    let bytes = reader.chunk(domain, ObjectKind::Meta, id).await?;
    let damaged = |cause: SealError| RepoError::object(format!("tree page {id}"))(cause);
    let page = TreePage::decode(&bytes).map_err(|error| damaged(error.into()))?;
    if page.level() != level || level > LEVEL_LIMIT { Err(damaged(SealError::Damaged)) } else { Ok(page) }
}

enum Frame {
    Leaf(std::vec::IntoIter<(Vec<u8>, Entry)>),
    Inner { level: u8, children: std::vec::IntoIter<(Vec<u8>, Child)> },
}

/// A position in a tree. After an error of a page that cannot be read the cursor stands behind it, so that a
/// caller may note the loss and go on.
pub struct TreeCursor<'r> {
    reader: &'r Reader,
    domain: u32,
    root: Option<TreeRoot>,
    from: Vec<u8>,
    stack: Vec<Frame>,
}

impl<'r> TreeCursor<'r> {
    /// Stands before the first entry whose key is at least `from`.
    pub fn new(reader: &'r Reader, domain: u32, root: TreeRoot, from: &[u8]) -> Self {
        Self { reader, domain, root: Some(root), from: from.to_vec(), stack: Vec::new() }
    }

    async fn enter(&mut self, id: &ShortId, level: u8) -> Result<(), RepoError> {
        let frame = match read_page(self.reader, self.domain, id, level).await? {
            TreePage::Leaf(mut entries) => {
                let start = entries.partition_point(|(key, _)| *key < self.from);
                Frame::Leaf(entries.split_off(start).into_iter())
            }
            TreePage::Inner { level, mut children } => {
                let start = children.partition_point(|(last, _)| *last < self.from);
                Frame::Inner { level, children: children.split_off(start).into_iter() }
            }
        };
        self.stack.push(frame);
        Ok(())
    }

    /// The next entry with its key.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Entry)>, RepoError> {
        if let Some(root) = self.root.take() {
            self.enter(&root.page, root.level).await?;
        }
        loop {
            let next = match self.stack.last_mut() {
                None => return Ok(None),
                Some(Frame::Leaf(entries)) => match entries.next() {
                    Some(entry) => return Ok(Some(entry)),
                    None => None,
                },
                Some(Frame::Inner { level, children }) => {
                    children.next().map(|(_, child)| (child.page.id, *level - 1))
                }
            };
            match next {
                Some((page, level)) => self.enter(&page, level).await?,
                None => {
                    self.stack.pop();
                }
            }
        }
    }
}

/// The entry with exactly this key.
pub async fn find(
    reader: &Reader,
    domain: u32,
    root: TreeRoot,
    key: &[u8],
) -> Result<Option<Entry>, RepoError> {
    let found = TreeCursor::new(reader, domain, root, key).next().await?;
    Ok(found.filter(|(found, _)| found == key).map(|(_, entry)| entry))
}
