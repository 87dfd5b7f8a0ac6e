//! Recipes: which chunks make up a file that has too many to list in its entry.
//!
//! Pages are cut where a chunk's id says so, so a change rewrites only the pages around it.

use super::RepoError;
use crate::format::entry::{ChunkRef, Content, INLINE_REFS, Refs};
use crate::format::header::ObjectKind;
use crate::format::id::{ChunkId, ShortId};
use crate::format::page::{Child, LEVEL_LIMIT, PAGE_MAX_BYTES, PAGE_MIN_BYTES, RecipePage};
use crate::pack::read::Reader;
use crate::seal::SealError;
use crate::seal::access::Domain;

/// Bytes one reference takes, about.
const REF_BYTES: usize = 19;
const CHILD_BYTES: usize = 24;

/// Where finished pages go.
pub type PageSink<'s> = dyn FnMut(ChunkId, Vec<u8>) -> Result<(), RepoError> + 's;

/// Judges a new page before it is stored.
pub type PageCheck = fn(&[u8]) -> Result<(), RepoError>;

/// Whether a page that was just encoded is one that readers accept: looked at before it is stored.
pub fn check_recipe_page(page: &[u8]) -> Result<(), RepoError> {
    RecipePage::decode(page).map(drop).map_err(|error| RepoError::object("new recipe page")(error.into()))
}

/// Whether a page ends after the item with this id: one in 256.
fn ends_page(id: &ShortId) -> bool {
    id.0[15] == 0
}

/// Builds the recipe of one file as its chunks come.
#[derive(Debug, Default)]
pub struct RecipeWriter {
    refs: Vec<ChunkRef>,
    levels: Vec<Vec<Child>>,
    pages_made: bool,
}

impl RecipeWriter {
    pub fn add(
        &mut self,
        domain: &Domain,
        reference: ChunkRef,
        sink: &mut PageSink<'_>,
    ) -> Result<(), RepoError> {
        self.refs.push(reference);
        let length = self.refs.len() * REF_BYTES;
        if length >= PAGE_MIN_BYTES && (ends_page(&reference.id) || length >= PAGE_MAX_BYTES) {
            self.end_leaf(domain, sink)?;
        }
        Ok(())
    }

    fn end_leaf(&mut self, domain: &Domain, sink: &mut PageSink<'_>) -> Result<(), RepoError> {
        let refs = std::mem::take(&mut self.refs);
        let (count, bytes) = (refs.len() as u64, refs.iter().map(|r| u64::from(r.length)).sum());
        self.pages_made = true;
        self.end_page(domain, 0, RecipePage::Leaf(refs), count, bytes, sink)
    }

    fn end_page(
        &mut self,
        domain: &Domain,
        level: usize,
        page: RecipePage,
        count: u64,
        bytes: u64,
        sink: &mut PageSink<'_>,
    ) -> Result<(), RepoError> {
        let encoded = page.encode();
        let id = domain.meta_id(&encoded)?;
        let child = Child { page: ChunkRef { id: id.short(), length: encoded.len() as u32 }, count, bytes };
        sink(id, encoded)?;
        if self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(child);
        let length = self.levels[level].len() * CHILD_BYTES;
        if length >= PAGE_MIN_BYTES && (ends_page(&id.short()) || length >= PAGE_MAX_BYTES) {
            self.end_inner(domain, level, sink)?;
        }
        Ok(())
    }

    fn end_inner(&mut self, domain: &Domain, level: usize, sink: &mut PageSink<'_>) -> Result<(), RepoError> {
        let children = std::mem::take(&mut self.levels[level]);
        let count = children.iter().map(|child| child.count).sum();
        let bytes = children.iter().map(|child| child.bytes).sum();
        let page = RecipePage::Inner { level: level as u8 + 1, children };
        self.end_page(domain, level + 1, page, count, bytes, sink)
    }

    /// The references to put into the entry.
    pub fn finish(mut self, domain: &Domain, sink: &mut PageSink<'_>) -> Result<Refs, RepoError> {
        if !self.pages_made && self.refs.len() <= INLINE_REFS {
            return Ok(Refs::Inline(self.refs));
        }
        if !self.refs.is_empty() {
            self.end_leaf(domain, sink)?;
        }
        let mut level = 0;
        loop {
            let top = self.levels.len() == level + 1;
            if let (true, [root]) = (top, self.levels[level].as_slice()) {
                return Ok(Refs::Recipe { root: root.page.id, level: level as u8 });
            }
            if !self.levels[level].is_empty() {
                self.end_inner(domain, level, sink)?;
            }
            level += 1;
        }
    }
}

/// Reads a content's references in order, one leaf page at a time.
pub struct RecipeReader<'r> {
    reader: &'r Reader,
    domain: u32,
    /// Pages still to read, next last: (page, level).
    stack: Vec<(ShortId, u8)>,
    inline: Option<Vec<ChunkRef>>,
}

impl<'r> RecipeReader<'r> {
    pub fn new(reader: &'r Reader, domain: u32, content: &Content) -> Self {
        let (stack, inline) = match &content.refs {
            Refs::Inline(refs) => (Vec::new(), Some(refs.clone())),
            Refs::Recipe { root, level } => (vec![(*root, *level)], None),
        };
        Self { reader, domain, stack, inline }
    }

    /// The next references; `None` at the end. `visit` is called with every page before it is read; where it
    /// returns false the page and all below it are left out.
    pub async fn next(
        &mut self,
        visit: &mut (dyn FnMut(&ShortId) -> bool + Send),
    ) -> Result<Option<Vec<ChunkRef>>, RepoError> {
        if let Some(refs) = self.inline.take() {
            return Ok(Some(refs));
        }
        while let Some((id, level)) = self.stack.pop() {
            if !visit(&id) {
                continue;
            }
            let bytes = self.reader.chunk(self.domain, ObjectKind::Meta, &id).await?;
            let damaged = |cause: SealError| RepoError::object(format!("recipe page {id}"))(cause);
            let page = RecipePage::decode(&bytes).map_err(|error| damaged(error.into()))?;
            if page.level() != level || level > LEVEL_LIMIT {
                return Err(damaged(SealError::Damaged));
            }
            match page {
                RecipePage::Leaf(refs) => return Ok(Some(refs)),
                RecipePage::Inner { children, .. } => {
                    self.stack.extend(children.iter().rev().map(|child| (child.page.id, level - 1)));
                }
            }
        }
        Ok(None)
    }
}
