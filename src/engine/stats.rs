//! Stats: what snapshots hold, what they share, and what the repository takes.
//!
//! Distinct chunks are counted in one bit each, by their place in the index, so that ten million of them fit in a
//! few megabytes.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::EngineError;
use super::read::locate::Locator;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::entry::{ChunkRef, Content, Entry};
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::page::TreePage;
use crate::repo::Repository;
use crate::repo::recipe::RecipeReader;
use crate::repo::snapshots::Snapshot;
use crate::repo::tree::read::read_page;

/// What a set of snapshots holds together.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct SnapshotStats {
    pub snapshots: u64,
    /// Entries of all snapshots, each counted as often as it appears.
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    /// What restoring every snapshot would write.
    pub restore_bytes: u64,
    /// Distinct chunks of content, and their plaintext.
    pub chunks: u64,
    pub unique_bytes: u64,
    /// Their share of the sealed blocks that hold them.
    pub stored_bytes: u64,
    /// Distinct pages of trees and recipes.
    pub pages: u64,
    /// References to chunks that no listed pack holds, and pages that cannot be read.
    pub missing: u64,
}

/// What the whole repository takes.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct RepositoryStats {
    /// By folder: how many objects, how many bytes.
    pub objects: BTreeMap<String, Objects>,
    pub total_bytes: u64,
    /// Chunks in all blocks of data packs; one stored twice counts twice.
    pub data_chunks: u64,
    pub data_blocks: u64,
    pub data_raw_bytes: u64,
    pub data_stored_bytes: u64,
    pub meta_raw_bytes: u64,
    pub meta_stored_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Objects {
    pub count: u64,
    pub bytes: u64,
}

struct Counting<'r> {
    repo: &'r Repository,
    stats: SnapshotStats,
    pages: HashSet<(u32, ShortId)>,
    /// Per block, which of its chunks were seen.
    seen: HashMap<i64, Vec<u64>>,
    /// Per block: (stored, raw, raw bytes that were seen).
    blocks: HashMap<i64, (u32, u32, u64)>,
}

/// Counts what `snapshots` hold.
///
/// # Errors
/// Storage that does not answer.
pub async fn of_snapshots(
    repo: &Repository,
    snapshots: &[&Snapshot],
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<SnapshotStats, EngineError> {
    progress.phase("counting");
    progress.add_total(0, snapshots.len() as u64);
    let stats = SnapshotStats::default();
    let mut counting =
        Counting { repo, stats, pages: HashSet::new(), seen: HashMap::new(), blocks: HashMap::new() };
    for snapshot in snapshots {
        counting.snapshot(snapshot, cancel).await?;
        progress.add_done(0, 1);
    }
    let mut stats = counting.stats;
    let share = |(stored, raw, seen): &(u32, u32, u64)| u64::from(*stored) * seen / u64::from((*raw).max(1));
    stats.stored_bytes = counting.blocks.values().map(share).sum();
    Ok(stats)
}

impl Counting<'_> {
    async fn snapshot(&mut self, snapshot: &Snapshot, cancel: &Cancel) -> Result<(), EngineError> {
        // What was counted when it was made: shared pages need not be read again for it.
        let counted = &snapshot.summary.statistics;
        self.stats.snapshots += 1;
        self.stats.files += counted.files;
        self.stats.directories += counted.directories;
        self.stats.others += counted.others;
        self.stats.restore_bytes += counted.total_bytes;
        let root = self.repo.contents(snapshot).await?.root;
        let mut locator = Locator::new(self.repo.index.clone(), snapshot.domain);
        let mut stack = vec![(root.page, root.level)];
        while let Some((id, level)) = stack.pop() {
            cancel.check()?;
            if !self.pages.insert((snapshot.domain, id)) {
                continue;
            }
            match read_page(&self.repo.reader, snapshot.domain, &id, level).await {
                Ok(TreePage::Inner { level, children }) => {
                    self.stats.pages += 1;
                    stack.extend(children.iter().map(|(_, child)| (child.page.id, level - 1)));
                }
                Ok(TreePage::Leaf(entries)) => {
                    self.stats.pages += 1;
                    for (_, entry) in &entries {
                        self.entry(snapshot.domain, entry, &mut locator).await?;
                    }
                }
                Err(error) if error.is_damage() => self.stats.missing += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn entry(&mut self, domain: u32, entry: &Entry, locator: &mut Locator) -> Result<(), EngineError> {
        for reference in entry.direct_refs() {
            self.chunk(reference, locator)?;
        }
        match entry.content() {
            Some(content) if matches!(content.refs, crate::format::entry::Refs::Recipe { .. }) => {
                self.recipe(domain, content, locator).await
            }
            _ => Ok(()),
        }
    }

    async fn recipe(
        &mut self,
        domain: u32,
        content: &Content,
        locator: &mut Locator,
    ) -> Result<(), EngineError> {
        let reader = self.repo.reader.clone();
        let mut recipe = RecipeReader::new(&reader, domain, content);
        loop {
            let pages = &mut self.pages;
            let mut fresh = 0;
            let next = recipe
                .next(&mut |id| {
                    let new = pages.insert((domain, *id));
                    fresh += u64::from(new);
                    new
                })
                .await;
            self.stats.pages += fresh;
            match next {
                Ok(Some(refs)) => {
                    for reference in &refs {
                        self.chunk(reference, locator)?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if error.is_damage() => {
                    self.stats.missing += 1;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn chunk(&mut self, reference: &ChunkRef, locator: &mut Locator) -> Result<(), EngineError> {
        let Some(found) = locator.locate(reference)? else {
            self.stats.missing += 1;
            return Ok(());
        };
        let bits = self.seen.entry(found.info.row).or_default();
        let (word, bit) = (found.at / 64, 1u64 << (found.at % 64));
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        if bits[word] & bit == 0 {
            bits[word] |= bit;
            let length = u64::from(reference.length);
            self.stats.chunks += 1;
            self.stats.unique_bytes += length;
            let sizes = (found.info.stored_length, found.info.raw_length, 0);
            self.blocks.entry(found.info.row).or_insert(sizes).2 += length;
        }
        Ok(())
    }
}

/// Counts every object, and what the index says of the packs. The index must be up to date.
///
/// # Errors
/// Storage that does not answer, a local index that cannot be read.
pub async fn of_repository(repo: &Repository, cancel: &Cancel) -> Result<RepositoryStats, EngineError> {
    let mut stats = RepositoryStats::default();
    for kind in ObjectKind::ALL {
        cancel.check()?;
        let listed = repo.store.list(kind.folder()).await?;
        let bytes = listed.iter().map(|object| object.size_bytes).sum();
        stats.total_bytes += bytes;
        stats.objects.insert(kind.folder().to_owned(), Objects { count: listed.len() as u64, bytes });
    }
    for pack in repo.index.packs() {
        cancel.check()?;
        // A block without chunks is padding.
        for block in repo.index.blocks_of(&pack)?.iter().filter(|block| !block.chunks.is_empty()) {
            let (raw, stored) = (u64::from(block.raw_length), u64::from(block.stored_length));
            if pack.kind == ObjectKind::Data {
                stats.data_blocks += 1;
                stats.data_chunks += block.chunks.len() as u64;
                stats.data_raw_bytes += raw;
                stats.data_stored_bytes += stored;
            } else {
                stats.meta_raw_bytes += raw;
                stats.meta_stored_bytes += stored;
            }
        }
    }
    Ok(stats)
}
