//! The mark: which chunks, of all that the local index knows, any snapshot reaches.
//!
//! Fails closed: a manifest that cannot be read, a page that cannot be read, a snapshot of a domain without a key,
//! or a chunk without a location is an error and nothing is deleted. Roots are all listed manifests, confirmed or
//! not, with a forgotten mark or not.
//!
//! Memory: a bit per chunk position and about 100 bytes per block that holds anything live, plus 24 bytes per page.

use std::collections::{HashMap, HashSet};

use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::format::entry::Refs;
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::page::{RecipePage, TreePage, TreeRoot};
use crate::pack::PackError;
use crate::pack::index::BlockInfo;
use crate::repo::snapshots::{Snapshot, SnapshotList};
use crate::repo::tree::read::read_page;
use crate::repo::{RepoError, Repository};

/// What of one block is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveBlock {
    /// Blocks in the order in which the newest snapshot, then the next older, first needs them.
    pub order: u32,
    bits: Box<[u64]>,
}

impl LiveBlock {
    fn new(order: u32, chunks: usize) -> Self {
        Self { order, bits: vec![0; chunks.div_ceil(64)].into() }
    }
    fn set(&mut self, position: usize) {
        self.bits[position / 64] |= 1 << (position % 64);
    }
    /// Whether the chunk at this position in the block is reached.
    pub fn has(&self, position: usize) -> bool {
        self.bits.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }
}

/// The outcome of a mark. Every block that holds a live chunk is in it, so also every copy of a chunk that is
/// stored more than once: which copy is kept is decided later, and by the listings of that moment.
#[derive(Debug, Default)]
pub struct Live {
    /// By the block's row in the local index; rows are never used twice.
    pub blocks: HashMap<i64, LiveBlock>,
    pub chunks: u64,
    pub pages: u64,
    pub snapshots: u64,
}

/// Marks everything that the listed snapshots reach. The local index must be synced strictly, after the list was
/// made.
pub async fn mark(
    repo: &Repository,
    list: &SnapshotList,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Live, EngineError> {
    require_readable(repo, list)?;
    progress.phase("marking");
    // Untrusted ones, by a key that was revoked before, are roots too: whoever forgets them decides, not the mark.
    progress.add_total(0, (list.snapshots.len() + list.untrusted.len()) as u64);
    let mut marker = Marker {
        repo,
        live: Live::default(),
        repeated: repo.index.repeated_keys()?,
        visited: HashSet::new(),
        cancel,
    };
    for snapshot in list.snapshots.iter().rev().chain(&list.untrusted) {
        progress.current(&snapshot.id.hex());
        marker.snapshot(snapshot).await.map_err(|error| explain(snapshot, error))?;
        progress.add_done(0, 1);
    }
    Ok(marker.live)
}

fn require_readable(repo: &Repository, list: &SnapshotList) -> Result<(), EngineError> {
    if let Some((object, error)) = list.damaged.first() {
        let text = format!(
            "{object} cannot be read, so what it needs is unknown ({error}); nothing is deleted. Repair it, or forget it by its id"
        );
        return Err(EngineError::Refused(text));
    }
    if let Some(object) = list.foreign.first() {
        let text = format!(
            "{object} belongs to a domain whose keys this {} key lacks; nothing is deleted",
            format!("{:?}", repo.access.role).to_lowercase()
        );
        return Err(EngineError::Refused(text));
    }
    Ok(())
}

/// Names the snapshot. An unconfirmed one that misses data is its writer's business, or an upload that died.
///
/// Why it stops the prune all the same: its writer may be storing the missing page again at this moment, and the
/// chunks below that page, which cannot be seen without it, would be taken for dead.
fn explain(snapshot: &Snapshot, error: EngineError) -> EngineError {
    match error {
        EngineError::Repo(RepoError::Pack(PackError::Missing(chunk))) if !snapshot.confirmed => {
            EngineError::Refused(format!(
                "snapshot {} was never confirmed and misses chunk {chunk}: wait for its backup, or forget it by its id",
                snapshot.id
            ))
        }
        // It was listed a moment ago, so somebody deleted it since: whom this mark does not know of yet.
        EngineError::Repo(RepoError::Pack(PackError::Store(cause))) if cause.is_not_found() => {
            let text =
                format!("{} was deleted while it was being read: another prune is at work", cause.subject);
            RepoError::Conflict(text).into()
        }
        error => {
            if matches!(&error, EngineError::Repo(error) if error.is_damage()) {
                tracing::error!(snapshot = %snapshot.id, "cannot be read whole; nothing is deleted");
            }
            error
        }
    }
}

struct Marker<'m> {
    repo: &'m Repository,
    live: Live,
    repeated: HashSet<u64>,
    /// Pages of trees (true) and recipes, by domain: the same bytes could mean something as either.
    visited: HashSet<(u32, bool, ShortId)>,
    cancel: &'m Cancel,
}

impl Marker<'_> {
    async fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), EngineError> {
        let contents = self.repo.contents(snapshot).await?;
        self.live.snapshots += 1;
        self.tree(snapshot.domain, contents.root).await
    }

    async fn tree(&mut self, domain: u32, root: TreeRoot) -> Result<(), EngineError> {
        let mut stack = vec![(root.page, root.level)];
        while let Some((id, level)) = stack.pop() {
            if !self.enter(domain, true, &id)? {
                continue;
            }
            match read_page(&self.repo.reader, domain, &id, level).await? {
                TreePage::Inner { level, children } => {
                    stack.extend(children.iter().rev().map(|(_, child)| (child.page.id, level - 1)));
                }
                TreePage::Leaf(entries) => {
                    for (_, entry) in &entries {
                        for reference in entry.direct_refs() {
                            self.touch(domain, ObjectKind::Data, &reference.id)?;
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
        let mut stack = vec![(root, level)];
        while let Some((id, level)) = stack.pop() {
            if !self.enter(domain, false, &id)? {
                continue;
            }
            let bytes = self.repo.reader.chunk(domain, ObjectKind::Meta, &id).await?;
            let name = || format!("recipe page {id}");
            let page = RecipePage::decode(&bytes).map_err(|error| RepoError::object(name())(error.into()))?;
            if page.level() != level {
                return Err(RepoError::object(name())(crate::seal::SealError::Damaged).into());
            }
            match page {
                RecipePage::Inner { children, .. } => {
                    stack.extend(children.iter().rev().map(|child| (child.page.id, level - 1)));
                }
                RecipePage::Leaf(refs) => {
                    for reference in &refs {
                        self.touch(domain, ObjectKind::Data, &reference.id)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks a page. False: it and all below it were visited before.
    fn enter(&mut self, domain: u32, tree: bool, id: &ShortId) -> Result<bool, EngineError> {
        self.cancel.check()?;
        if !self.visited.insert((domain, tree, *id)) {
            return Ok(false);
        }
        self.live.pages += 1;
        self.touch(domain, ObjectKind::Meta, id)?;
        Ok(true)
    }

    /// Marks a chunk in every block that holds it.
    fn touch(&mut self, domain: u32, kind: ObjectKind, id: &ShortId) -> Result<(), EngineError> {
        let blocks = self.repo.index.each_location(domain, kind, id, &self.repeated)?;
        if blocks.is_empty() {
            return Err(PackError::Missing(*id).into());
        }
        self.live.chunks += 1;
        for block in &blocks {
            let order = self.live.blocks.len() as u32;
            let live = self
                .live
                .blocks
                .entry(block.row)
                .or_insert_with(|| LiveBlock::new(order, block.chunks.len()));
            set_all(live, block, id);
        }
        Ok(())
    }
}

/// The same chunk may stand twice in one block.
fn set_all(live: &mut LiveBlock, block: &BlockInfo, id: &ShortId) {
    for (position, (chunk, _)) in block.chunks.iter().enumerate() {
        if chunk == id {
            live.set(position);
        }
    }
}
