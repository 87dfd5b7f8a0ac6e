//! Walks everything a snapshot reaches: pages first, then what they name. A page seen before is left out with all
//! below it.

use std::collections::HashSet;

use super::{Ends, Failed};
use crate::engine::EngineError;
use crate::format::entry::{Entry, Refs};
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::page::{TreePage, TreeRoot};
use crate::pack::index::IndexMap;
use crate::repo::recipe::RecipeReader;
use crate::repo::tree::path_of_key;
use crate::repo::tree::read::{TreeCursor, read_page};
use crate::repo::{RepoError, Repository};

/// Pages walked already, by domain.
pub type Seen = HashSet<(u32, ShortId)>;

/// Receives what a snapshot reaches.
pub type Visit<'v> = dyn FnMut(ObjectKind, &ShortId) -> Result<(), RepoError> + Send + 'v;

/// Calls `visit` with every chunk the tree reaches and `seen` does not hold. Damage ends the walk with an error that
/// says so: the caller then asks [`lost`].
pub async fn walk(
    ends: &Ends<'_>,
    domain: u32,
    root: TreeRoot,
    seen: &mut Seen,
    visit: &mut Visit<'_>,
) -> Result<(), RepoError> {
    let mut pages = vec![(root.page, root.level)];
    while let Some((id, level)) = pages.pop() {
        if !seen.insert((domain, id)) {
            continue;
        }
        ends.cancel.check()?;
        visit(ObjectKind::Meta, &id)?;
        match read_page(&ends.source.reader, domain, &id, level).await? {
            TreePage::Inner { level, children } => {
                pages.extend(children.iter().rev().map(|(_, child)| (child.page.id, level - 1)));
            }
            TreePage::Leaf(entries) => {
                for (_, entry) in &entries {
                    entry_refs(ends.source, domain, entry, Some(seen), visit).await?;
                }
            }
        }
    }
    Ok(())
}

/// Calls `visit` with every chunk an entry names, recipe pages included.
pub async fn entry_refs(
    repo: &Repository,
    domain: u32,
    entry: &Entry,
    mut seen: Option<&mut Seen>,
    visit: &mut Visit<'_>,
) -> Result<(), RepoError> {
    for reference in entry.direct_refs() {
        visit(ObjectKind::Data, &reference.id)?;
    }
    let Some(content) = entry.content().filter(|content| matches!(content.refs, Refs::Recipe { .. })) else {
        return Ok(());
    };
    let mut recipe = RecipeReader::new(&repo.reader, domain, content);
    loop {
        let mut pages = Vec::new();
        let mut fresh = |id: &ShortId| {
            let fresh = seen.as_mut().is_none_or(|seen| seen.insert((domain, *id)));
            if fresh {
                pages.push(*id);
            }
            fresh
        };
        let refs = recipe.next(&mut fresh).await?;
        for page in &pages {
            visit(ObjectKind::Meta, page)?;
        }
        let Some(refs) = refs else { return Ok(()) };
        for reference in &refs {
            visit(ObjectKind::Data, &reference.id)?;
        }
    }
}

/// Which files of a snapshot need a chunk that `index` does not hold, or cannot be read at all.
pub async fn lost(
    ends: &Ends<'_>,
    domain: u32,
    root: TreeRoot,
    index: &IndexMap,
) -> Result<Failed, EngineError> {
    let mut failed = Failed::default();
    let mut cursor = TreeCursor::new(&ends.source.reader, domain, root, b"");
    let mut last = Vec::new();
    loop {
        ends.cancel.check()?;
        let (key, entry) = match cursor.next().await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(failed),
            Err(error) if error.is_damage() => {
                failed.add(path_of_key(&last), format!("what follows this path: {error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut missing = None;
        let mut visit = |kind, id: &ShortId| {
            if missing.is_none() && !index.contains(domain, kind, id)? {
                missing = Some(*id);
            }
            Ok(())
        };
        match entry_refs(ends.source, domain, &entry, None, &mut visit).await {
            Ok(()) => {}
            Err(error) if error.is_damage() => failed.add(path_of_key(&key), error.to_string()),
            Err(error) => return Err(error.into()),
        }
        if let Some(id) = missing {
            failed.add(path_of_key(&key), format!("chunk {id} cannot be read"));
        }
        last = key;
    }
}
