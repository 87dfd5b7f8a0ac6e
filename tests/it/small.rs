//! A backup in a few lines, straight over [`Run`] and [`Sink`]: what the protocol's tests write and read back with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use lifeboat::base::random::SeededRandom;
use lifeboat::format::entry::{ChunkRef, Content, Entry, Kind, Refs, Timestamp};
use lifeboat::format::header::ObjectKind;
use lifeboat::format::id::{ChunkId, ShortId, SnapshotId};
use lifeboat::format::keyring::Key;
use lifeboat::format::page::TreeRoot;
use lifeboat::repo::commit::Draft;
use lifeboat::repo::create::{CreateOptions, create};
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::repo::reach::Reach;
use lifeboat::repo::run::Run;
use lifeboat::repo::sink::Sink;
use lifeboat::repo::tree::read::TreeCursor;
use lifeboat::repo::tree::write::TreeWriter;
use lifeboat::repo::{RepoError, Repository, World};
use lifeboat::seal::access::Access;
use lifeboat::seal::block::Compression;
use lifeboat::seal::slot::Unlock;
use lifeboat::store::Store;

pub use crate::bench::summary;

/// File name → chunks.
pub type Files = BTreeMap<String, Vec<Vec<u8>>>;
/// Everything a snapshot reaches.
pub type Reached = BTreeSet<(ObjectKind, ShortId)>;

pub fn unlock() -> Unlock {
    Unlock::KeyFile(Key([7; 32]))
}

pub async fn new_repository(store: Arc<dyn Store>, world: &World) {
    create(store, &unlock(), &CreateOptions::default(), world).await.unwrap();
}

pub async fn open_repository(store: Arc<dyn Store>, world: World) -> Result<Repository, RepoError> {
    open(store, &unlock(), &OpenOptions { block_cache_bytes: 1 << 16, ..OpenOptions::default() }, world).await
}

pub fn world(seed: u64) -> World {
    let clock = Arc::new(lifeboat::base::clock::SystemClock::new());
    World { clock, random: Arc::new(SeededRandom::new(seed)) }
}

/// Chunk number `n` of everybody's universe.
pub fn chunk(n: u64) -> Vec<u8> {
    let mut bytes = vec![0; 200 + (n as usize * 37) % 100];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// One file per pair of chunks.
pub fn files(chunks: impl IntoIterator<Item = u64>) -> Files {
    let chunks: Vec<u64> = chunks.into_iter().collect();
    let name = |pair: &[u64]| format!("f{:04}", pair[0]);
    chunks.chunks(2).map(|pair| (name(pair), pair.iter().map(|n| chunk(*n)).collect())).collect()
}

fn entry(content: Content) -> Entry {
    Entry {
        kind: Kind::File(content),
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime: Timestamp::default(),
        xattrs: vec![],
        hardlink_to: None,
    }
}

/// A whole backup. `source_stays` says, when chunks went missing under it, whether they can be had again.
pub async fn backup(
    repo: &Repository,
    job: &str,
    files: &Files,
    source_stays: &mut (dyn FnMut() -> bool + Send),
) -> Result<(SnapshotId, Reached), RepoError> {
    let (mut run, _) = Run::begin(repo).await?;
    let result = backup_under(&mut run, job, files, source_stays).await;
    run.end().await;
    result
}

async fn backup_under(
    run: &mut Run<'_>,
    job: &str,
    files: &Files,
    source_stays: &mut (dyn FnMut() -> bool + Send),
) -> Result<(SnapshotId, Reached), RepoError> {
    let repo = run.repo;
    let shm = Path::new("/dev/shm");
    let mut reach = Reach::new(shm.exists().then_some(shm));
    let (chunks, root) = chunks_of(&repo.access, files)?;
    let mut sink = Sink::new(run, Compression::None)?;
    for (kind, id, bytes) in &chunks {
        sink.add(*kind, *id, bytes, Some(&mut reach)).await?;
    }
    sink.finish().await?;
    let draft = Draft { summary: summary(job, repo.world.now()), root, paths: vec![b"/x".to_vec()] };
    let pending = run.put_manifest(&draft).await?;
    let mut rounds = 0;
    loop {
        let missing = run.check(&mut reach).await?;
        if missing.is_empty() {
            break;
        }
        rounds += 1;
        if rounds > 4 || !source_stays() {
            return Err(RepoError::Conflict("chunks went and the source is gone".into()));
        }
        let missing: BTreeSet<_> = missing.into_iter().collect();
        let mut sink = Sink::new(run, Compression::None)?;
        for (kind, id, bytes) in chunks.iter().filter(|(kind, id, _)| missing.contains(&(*kind, id.short())))
        {
            sink.add(*kind, *id, bytes, None).await?;
        }
        sink.finish().await?;
    }
    run.confirm(&pending).await?;
    Ok((pending.id, chunks.iter().map(|(kind, id, _)| (*kind, id.short())).collect()))
}

type Chunks = Vec<(ObjectKind, ChunkId, Vec<u8>)>;

/// What a snapshot of `files` is made of under these keys, its tree's pages included, and its root.
fn chunks_of(access: &Access, files: &Files) -> Result<(Chunks, TreeRoot), RepoError> {
    let home = access.home();
    let mut chunks = Chunks::new();
    let mut tree = TreeWriter::new(home)?;
    let mut pages: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    let mut keep = |id, page| {
        pages.push((id, page));
        Ok(())
    };
    for (name, pieces) in files {
        let mut refs = Vec::new();
        for piece in pieces {
            let id = home.data_id(piece)?;
            refs.push(ChunkRef { id: id.short(), length: piece.len() as u32 });
            chunks.push((ObjectKind::Data, id, piece.clone()));
        }
        let size_bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let content = Content { size_bytes, holes: vec![], hash: None, refs: Refs::Inline(refs) };
        tree.add(name.as_bytes(), &entry(content), &mut keep)?;
    }
    let root = tree.finish(&mut keep)?;
    chunks.extend(pages.into_iter().map(|(id, page)| (ObjectKind::Meta, id, page)));
    Ok((chunks, root))
}

/// The same, as a snapshot reaches it.
pub fn reached(access: &Access, files: &Files) -> Reached {
    let (chunks, _) = chunks_of(access, files).unwrap();
    chunks.iter().map(|(kind, id, _)| (*kind, id.short())).collect()
}

/// Reads a snapshot back through the real reading code. The repository must be synced.
pub async fn restore(repo: &Repository, id: SnapshotId) -> Result<Files, RepoError> {
    let list = repo.snapshots().await?;
    let found = list.snapshots.iter().find(|snapshot| snapshot.id == id && snapshot.confirmed);
    let found = found.ok_or_else(|| RepoError::NoSnapshot(id.hex()))?;
    let contents = repo.contents(found).await?;
    let mut cursor = TreeCursor::new(&repo.reader, found.domain, contents.root, b"");
    let mut files = Files::new();
    while let Some((key, entry)) = cursor.next().await? {
        let Some(Refs::Inline(refs)) = entry.content().map(|content| &content.refs) else { continue };
        let mut pieces = Vec::new();
        for reference in refs {
            let bytes = repo.reader.chunk(found.domain, ObjectKind::Data, &reference.id).await?;
            pieces.push(bytes.to_vec());
        }
        files.insert(String::from_utf8(key).unwrap(), pieces);
    }
    Ok(files)
}
