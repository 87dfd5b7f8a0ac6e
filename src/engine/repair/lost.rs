//! Which chunks the snapshots need and this repository has lost.
//!
//! A page that is lost hides what lies below it. With a replica at hand the page is read there, so that one pass
//! finds everything; without one, what is below a lost page is not counted.

use std::collections::{BTreeSet, HashSet};

use super::packs::is_lost;
use crate::base::cancel::Cancel;
use crate::engine::EngineError;
use crate::engine::verify::Examined;
use crate::format::entry::{ChunkRef, Refs};
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::page::{RecipePage, TreePage};
use crate::pack::read::Reader;
use crate::repo::tree::read::read_page;
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;

/// Domain, kind and id.
pub(super) type Lost = BTreeSet<(u32, ObjectKind, ShortId)>;

struct Search<'s> {
    here: Reader,
    there: Option<&'s Reader>,
    examined: &'s Examined,
    /// Pages of trees (true) and recipes, by domain.
    visited: HashSet<(u32, bool, ShortId)>,
    lost: Lost,
    cancel: &'s Cancel,
}

/// Walks every snapshot, each shared page once.
pub(super) async fn find(
    repo: &Repository,
    replica: Option<&Repository>,
    examined: &Examined,
    cancel: &Cancel,
) -> Result<Lost, EngineError> {
    let here = examined.reader(repo);
    let there = replica.map(|replica| replica.reader.as_ref());
    let (visited, lost) = (HashSet::new(), Lost::new());
    let mut search = Search { here, there, examined, visited, lost, cancel };
    for one in &examined.opened {
        if let Some(contents) = &one.contents {
            let root = contents.root;
            search.tree(one.snapshot.domain, root.page, root.length, root.level).await?;
        }
    }
    Ok(search.lost)
}

/// Damage is `None`; other errors come back.
fn readable<T>(result: Result<T, RepoError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Search<'_> {
    fn note(&mut self, domain: u32, kind: ObjectKind, reference: &ChunkRef) -> Result<(), EngineError> {
        if is_lost(&self.examined.view, domain, kind, reference)? {
            self.lost.insert((domain, kind, reference.id));
        }
        Ok(())
    }

    /// False: the page and all below it were looked at before.
    fn enter(&mut self, domain: u32, is_tree: bool, page: &ChunkRef) -> Result<bool, EngineError> {
        self.cancel.check()?;
        if !self.visited.insert((domain, is_tree, page.id)) {
            return Ok(false);
        }
        self.note(domain, ObjectKind::Meta, page)?;
        Ok(true)
    }

    async fn tree(&mut self, domain: u32, id: ShortId, length: u32, level: u8) -> Result<(), EngineError> {
        let mut stack = vec![(ChunkRef { id, length }, level)];
        while let Some((page, level)) = stack.pop() {
            if !self.enter(domain, true, &page)? {
                continue;
            }
            let mut read = readable(read_page(&self.here, domain, &page.id, level).await)?;
            if let (None, Some(there)) = (&read, self.there) {
                read = readable(read_page(there, domain, &page.id, level).await)?;
            }
            match read {
                None => {}
                Some(TreePage::Inner { level, children }) => {
                    stack.extend(children.iter().map(|(_, child)| (child.page, level - 1)));
                }
                Some(TreePage::Leaf(entries)) => {
                    for (_, entry) in &entries {
                        for reference in entry.direct_refs() {
                            self.note(domain, ObjectKind::Data, reference)?;
                        }
                        if let Some(Refs::Recipe { root, level }) = entry.content().map(|c| &c.refs) {
                            self.recipe(domain, *root, *level).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn recipe(&mut self, domain: u32, root: ShortId, level: u8) -> Result<(), EngineError> {
        // An entry does not say how long its root page is: any copy will do.
        let mut stack = vec![(root, None, level)];
        while let Some((id, length, level)) = stack.pop() {
            if self.visited.contains(&(domain, false, id)) {
                continue;
            }
            let read = self.recipe_page(domain, &id, level).await?;
            let length = length.or(read.as_ref().map(|(length, _)| *length)).unwrap_or(0);
            if !self.enter(domain, false, &ChunkRef { id, length })? {
                continue;
            }
            match read.map(|(_, page)| page) {
                None => {}
                Some(RecipePage::Inner { children, .. }) => {
                    stack.extend(
                        children.iter().map(|child| (child.page.id, Some(child.page.length), level - 1)),
                    );
                }
                Some(RecipePage::Leaf(refs)) => {
                    for reference in &refs {
                        self.note(domain, ObjectKind::Data, reference)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A page and its length in bytes, from wherever it can be had.
    async fn recipe_page(
        &self,
        domain: u32,
        id: &ShortId,
        level: u8,
    ) -> Result<Option<(u32, RecipePage)>, EngineError> {
        for reader in std::iter::once(&self.here).chain(self.there) {
            let bytes = reader.chunk(domain, ObjectKind::Meta, id).await.map_err(RepoError::from);
            let page = readable(bytes)?.map(|bytes| {
                let page = RecipePage::decode(&bytes).map_err(SealError::from);
                page.map(|page| (bytes.len() as u32, page))
            });
            if let Some(Ok((length, page))) = page
                && page.level() == level
            {
                return Ok(Some((length, page)));
            }
        }
        Ok(None)
    }
}
