//! Goes through a snapshot's tree below one path, in key order, and leaves subtrees out without reading them.

use crate::format::entry::Entry;
use crate::format::page::TreeRoot;
use crate::pack::read::Reader;
use crate::repo::RepoError;
use crate::repo::tree::is_within;
use crate::repo::tree::read::TreeCursor;

/// Entries read past before a new descent from the root is cheaper.
const READ_PAST: usize = 256;

/// See the module.
pub struct TreeWalk<'r> {
    reader: &'r Reader,
    domain: u32,
    root: TreeRoot,
    top: Vec<u8>,
    cursor: TreeCursor<'r>,
    skip: Option<Vec<u8>>,
}

impl<'r> TreeWalk<'r> {
    /// Stands before `top` itself, if it has an entry, else before the first below it.
    pub fn new(reader: &'r Reader, domain: u32, root: TreeRoot, top: &[u8]) -> Self {
        let cursor = TreeCursor::new(reader, domain, root, top);
        Self { reader, domain, root, top: top.to_vec(), cursor, skip: None }
    }

    /// The next entry with its key. After an error that [`RepoError::is_damage`] the walk stands behind the page
    /// that cannot be read: a caller may note the loss and go on.
    ///
    /// # Errors
    /// A page cannot be had.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Entry)>, RepoError> {
        let mut past = 0;
        loop {
            let Some((key, entry)) = self.cursor.next().await? else { return Ok(None) };
            if !is_within(&key, &self.top) {
                // Siblings such as `a-b` sort behind everything below `a`, but before it stands only `a` itself.
                return Ok(None);
            }
            let Some(skip) = &self.skip else { return Ok(Some((key, entry))) };
            if !is_within(&key, skip) || key == *skip {
                self.skip = None;
                return Ok(Some((key, entry)));
            }
            past += 1;
            if past == READ_PAST {
                let mut behind = skip.clone();
                behind.push(1);
                self.cursor = TreeCursor::new(self.reader, self.domain, self.root, &behind);
            }
        }
    }

    /// Leaves out everything below `key`, which was just returned.
    pub fn skip_below(&mut self, key: &[u8]) {
        self.skip = Some(key.to_vec());
    }
}
