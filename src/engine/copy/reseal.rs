//! Into another repository: every chunk is opened, named and sealed anew under the destination's keys.
//!
//! New keys mean new ids, so page boundaries, recipes and trees are written anew, and each stream's hash is
//! recomputed while its chunks pass by. Against the last snapshot of the same job that was copied, both trees are
//! walked in step: what did not change takes the entry that the destination has already.

use super::walk::entry_refs;
use super::{Copied, CopyOutcome, Ends, Failed, ROUNDS, origin};
use crate::engine::EngineError;
use crate::format::entry::{ChunkRef, Content, Entry, XattrValue};
use crate::format::header::ObjectKind;
use crate::format::id::{ChunkId, ShortId};
use crate::format::page::TreeRoot;
use crate::repo::RepoError;
use crate::repo::commit::Draft;
use crate::repo::reach::Reach;
use crate::repo::recipe::{RecipeReader, RecipeWriter, check_recipe_page};
use crate::repo::run::Run;
use crate::repo::sink::{Sink, Stored};
use crate::repo::snapshots::{Snapshot, SnapshotList};
use crate::repo::sync::Thoroughness;
use crate::repo::tree::path_of_key;
use crate::repo::tree::read::TreeCursor;
use crate::repo::tree::write::{TreeWriter, check_tree_page};
use crate::seal::SealError;

/// Copies snapshots, each committed before the next begins.
pub async fn all(
    ends: &Ends<'_>,
    mut run: Run<'_>,
    here: &SnapshotList,
    wanted: &[&Snapshot],
    outcome: &mut CopyOutcome,
) -> Result<(), EngineError> {
    for snapshot in wanted {
        ends.cancel.check()?;
        ends.progress.current(&format!("{} {}", snapshot.summary.job, snapshot.id));
        match one(ends, &mut run, here, snapshot, outcome).await? {
            Ok(copied) => outcome.copied.push(copied),
            Err(mut failed) => {
                failed.snapshot = Some(snapshot.id);
                outcome.failed.push(failed);
            }
        }
        ends.progress.add_done(0, 1);
        run.beat().await?;
    }
    run.end().await;
    Ok(())
}

async fn one(
    ends: &Ends<'_>,
    run: &mut Run<'_>,
    here: &SnapshotList,
    snapshot: &Snapshot,
    outcome: &mut CopyOutcome,
) -> Result<Result<Copied, Failed>, EngineError> {
    let contents = match ends.source.contents(snapshot).await {
        Ok(contents) => contents,
        Err(error) if error.is_damage() => {
            let mut failed = Failed::default();
            failed.add(b"/".to_vec(), error.to_string());
            return Ok(Err(failed));
        }
        Err(error) => return Err(error.into()),
    };
    let there = ends.target.snapshots().await?;
    let mut base = Base::find(ends, here, &there, snapshot).await;
    let mut pending = None;
    for _ in 0..ROUNDS {
        let mut reach = Reach::new(ends.target.local.folder());
        let (root, stored) = match store(ends, run, snapshot, contents.root, base.take(), &mut reach).await? {
            Ok(made) => made,
            Err(failed) => return Ok(Err(failed)),
        };
        outcome.added_bytes += stored.pack_bytes;
        outcome.chunks_sealed += stored.new_chunks;
        let put = match pending.take() {
            // The same content makes the same tree, so the manifest that was put still names it.
            Some(put) => put,
            None => {
                let mut summary = snapshot.summary.clone();
                summary.original = Some(origin(snapshot));
                summary.parent = snapshot.summary.parent.and_then(|parent| {
                    there.snapshots.iter().find(|copy| origin(copy) == parent).map(|copy| copy.id)
                });
                summary.statistics.new_bytes = stored.new_bytes;
                summary.statistics.new_chunks = stored.new_chunks;
                summary.statistics.added_bytes = stored.pack_bytes;
                let draft = Draft { summary, root, paths: contents.paths.clone() };
                run.put_manifest(&draft).await?
            }
        };
        if run.check(&mut reach).await?.is_empty() {
            run.confirm(&put).await?;
            return Ok(Ok(Copied { from: snapshot.id, to: Some(put.id) }));
        }
        // A prune condemned what this relied upon. Without a base everything is looked up again.
        pending = Some(put);
        ends.source.sync(Thoroughness::Tolerant).await?;
    }
    let why = format!("prunes at {} keep removing what this copy stores", ends.target.store.location());
    Err(RepoError::Conflict(why).into())
}

/// The snapshot before, at both ends: entry for entry the same keys.
struct Base<'a> {
    source: TreeCursor<'a>,
    target: TreeCursor<'a>,
    current: Option<(Vec<u8>, Entry, Entry)>,
}

impl<'a> Base<'a> {
    /// The newest snapshot of the same job and host before this one that both ends have. Anything that cannot be
    /// read means none: a base only saves work.
    async fn find(
        ends: &Ends<'a>,
        here: &SnapshotList,
        there: &SnapshotList,
        snapshot: &Snapshot,
    ) -> Option<Self> {
        let same = |other: &&Snapshot| {
            other.domain == snapshot.domain
                && other.id != snapshot.id
                && (&other.summary.job, &other.summary.host)
                    == (&snapshot.summary.job, &snapshot.summary.host)
                && other.summary.consistent <= snapshot.summary.consistent
        };
        for before in here.snapshots.iter().rev().filter(same) {
            let copy = there.snapshots.iter().find(|copy| copy.confirmed && origin(copy) == origin(before));
            let Some(copy) = copy.filter(|copy| copy.domain == ends.target.access.home) else { continue };
            let source = ends.source.contents(before).await.ok()?.root;
            let target = ends.target.contents(copy).await.ok()?.root;
            return Some(Self {
                source: TreeCursor::new(&ends.source.reader, before.domain, source, b""),
                target: TreeCursor::new(&ends.target.reader, copy.domain, target, b""),
                current: None,
            });
        }
        None
    }

    /// Goes on to `key`. `Err`: the trees are not in step or cannot be read, and the base must not be used further.
    async fn seek(&mut self, key: &[u8]) -> Result<Option<(&Entry, &Entry)>, ()> {
        while self.current.as_ref().is_none_or(|(at, ..)| at.as_slice() < key) {
            let next = (self.source.next().await.map_err(drop)?, self.target.next().await.map_err(drop)?);
            match next {
                (Some((key, source)), Some((other, target))) if key == other => {
                    self.current = Some((key, source, target));
                }
                (None, None) => return Ok(None),
                _ => return Err(()),
            }
        }
        let found = self.current.as_ref().filter(|(at, ..)| at == key);
        Ok(found.map(|(_, source, target)| (source, target)))
    }
}

type Made = Result<(TreeRoot, Stored), Failed>;

/// Stores the snapshot's content and tree at the destination. The inner error: files that cannot be read.
async fn store(
    ends: &Ends<'_>,
    run: &Run<'_>,
    snapshot: &Snapshot,
    root: TreeRoot,
    mut base: Option<Base<'_>>,
    reach: &mut Reach,
) -> Result<Made, EngineError> {
    let home = ends.target.access.home();
    let sink = Sink::new(run, ends.options.compression)?;
    let mut rekey = Rekey { ends, domain: snapshot.domain, sink, reach, pages: Vec::new() };
    let mut tree = TreeWriter::new(home)?;
    let mut failed = Failed::default();
    let mut cursor = TreeCursor::new(&ends.source.reader, snapshot.domain, root, b"");
    let mut last = Vec::new();
    loop {
        ends.cancel.check()?;
        let (key, entry) = match cursor.next().await {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(error) if error.is_damage() => {
                failed.add(path_of_key(&last), format!("what follows this path: {error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let known = match &mut base {
            Some(trees) => match trees.seek(&key).await {
                Ok(found) => found.filter(|(before, _)| **before == entry).map(|(_, copy)| copy.clone()),
                Err(()) => {
                    base = None;
                    None
                }
            },
            None => None,
        };
        let known = match known {
            Some(copy) if rekey.is_there(&copy).await? => Some(copy),
            _ => None,
        };
        let size = entry.content().map_or(0, |content| content.size_bytes);
        let made = match known {
            Some(copy) => Ok(copy),
            None => rekey.entry(entry).await,
        };
        match made {
            Ok(entry) => tree.add(&key, &entry, &mut keep(&mut rekey.pages, check_tree_page))?,
            Err(error) if error.is_damage() => failed.add(path_of_key(&key), error.to_string()),
            Err(error) => return Err(error.into()),
        }
        rekey.flush().await?;
        ends.progress.add_done(size, 0);
        last = key;
    }
    if failed.lost_count > 0 {
        // What was read is kept for the copy that succeeds once the source is repaired.
        rekey.sink.finish().await?;
        return Ok(Err(failed));
    }
    let root = tree.finish(&mut keep(&mut rekey.pages, check_tree_page))?;
    rekey.flush().await?;
    let stored = rekey.sink.finish().await?;
    Ok(Ok((root, stored)))
}

fn keep(
    pages: &mut Vec<(ChunkId, Vec<u8>)>,
    check: fn(&[u8]) -> Result<(), RepoError>,
) -> impl FnMut(ChunkId, Vec<u8>) -> Result<(), RepoError> + '_ {
    move |id, page| {
        check(&page)?;
        pages.push((id, page));
        Ok(())
    }
}

/// Reads under the source's keys, stores under the destination's.
struct Rekey<'k, 's, 'r> {
    ends: &'k Ends<'k>,
    domain: u32,
    sink: Sink<'s, 'r>,
    reach: &'k mut Reach,
    /// Pages made but not yet handed to the sink.
    pages: Vec<(ChunkId, Vec<u8>)>,
}

impl Rekey<'_, '_, '_> {
    async fn flush(&mut self) -> Result<(), RepoError> {
        for (id, page) in std::mem::take(&mut self.pages) {
            self.sink.add(ObjectKind::Meta, id, &page, Some(self.reach)).await?;
        }
        Ok(())
    }

    /// Whether all that an entry of the destination names may be relied upon; then it counts as reached.
    async fn is_there(&mut self, entry: &Entry) -> Result<bool, RepoError> {
        let target = self.ends.target;
        let home = target.access.home;
        let mut ids: Vec<(ObjectKind, ShortId)> = Vec::new();
        let mut complete = true;
        let mut visit = |kind, id: &ShortId| {
            complete = complete && target.index.contains(home, kind, id)?;
            ids.push((kind, *id));
            Ok(())
        };
        match entry_refs(target, home, entry, None, &mut visit).await {
            Ok(()) => {}
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        }
        if complete {
            for (kind, id) in &ids {
                self.reach.add(*kind, id)?;
            }
        }
        Ok(complete)
    }

    async fn chunk(&mut self, reference: &ChunkRef) -> Result<(ChunkRef, bytes::Bytes), RepoError> {
        let bytes = self.ends.source.reader.chunk(self.domain, ObjectKind::Data, &reference.id).await?;
        if bytes.len() != reference.length as usize {
            return Err(RepoError::object(format!("chunk {}", reference.id))(SealError::Damaged));
        }
        let id = self.ends.target.access.home().data_id(&bytes)?;
        self.sink.add(ObjectKind::Data, id, &bytes, Some(self.reach)).await?;
        Ok((ChunkRef { id: id.short(), length: reference.length }, bytes))
    }

    async fn entry(&mut self, mut entry: Entry) -> Result<Entry, RepoError> {
        for (_, value) in &mut entry.xattrs {
            if let XattrValue::Chunk(reference) = value {
                *reference = self.chunk(reference).await?.0;
            }
        }
        if let Some(content) = entry.content_mut() {
            *content = self.content(content).await?;
        }
        Ok(entry)
    }

    async fn content(&mut self, content: &Content) -> Result<Content, RepoError> {
        let (source, target) = (self.ends.source, self.ends.target);
        let home = target.access.home();
        let mut old = blake3::Hasher::new_keyed(source.access.domain(self.domain)?.content_key()?);
        let mut new = blake3::Hasher::new_keyed(home.content_key()?);
        let mut recipe = RecipeWriter::default();
        let mut reader = RecipeReader::new(&source.reader, self.domain, content);
        let mut length = 0u64;
        while let Some(refs) = reader.next(&mut |_| true).await? {
            for reference in &refs {
                self.ends.cancel.check()?;
                let (reference, bytes) = self.chunk(reference).await?;
                if content.hash.is_some() {
                    old.update(&bytes);
                    new.update(&bytes);
                }
                length += bytes.len() as u64;
                recipe.add(home, reference, &mut keep(&mut self.pages, check_recipe_page))?;
            }
            self.flush().await?;
        }
        let sound = content.hash.is_none_or(|hash| *old.finalize().as_bytes() == hash);
        if !sound || length != content.data_bytes() {
            return Err(RepoError::object("the file's content")(SealError::Damaged));
        }
        let refs = recipe.finish(home, &mut keep(&mut self.pages, check_recipe_page))?;
        self.flush().await?;
        let hash = content.hash.map(|_| *new.finalize().as_bytes());
        Ok(Content { size_bytes: content.size_bytes, holes: content.holes.clone(), hash, refs })
    }
}
