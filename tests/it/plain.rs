//! What tests of whole repositories share: opening with cheap keys, and snapshots of files given as bytes, made and
//! read through the repository level alone.

use std::sync::Arc;

use lifeboat::base::clock::SystemClock;
use lifeboat::base::random::SystemRandom;
use lifeboat::format::entry::{ChunkRef, Content, Entry, Kind, Timestamp};
use lifeboat::format::header::ObjectKind;
use lifeboat::format::id::{ChunkId, SnapshotId};
use lifeboat::format::manifest::Summary;
use lifeboat::repo::commit::Draft;
use lifeboat::repo::create::{CreateOptions, create};
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::repo::reach::Reach;
use lifeboat::repo::recipe::{RecipeReader, RecipeWriter};
use lifeboat::repo::run::Run;
use lifeboat::repo::sink::{Sink, Stored};
use lifeboat::repo::snapshots::Filter;
use lifeboat::repo::sync::Thoroughness;
use lifeboat::repo::tree::read::TreeCursor;
use lifeboat::repo::tree::write::TreeWriter;
use lifeboat::repo::{RepoError, Repository, World};
use lifeboat::seal::block::Compression;
use lifeboat::seal::slot::{Cost, Unlock};
use lifeboat::store::Store;

pub const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

pub type Files = Vec<(String, Vec<u8>)>;

pub fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(zeroize::Zeroizing::new(text.as_bytes().to_vec()))
}

pub fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) }
}

/// A new repository with small packs, opened by its owner.
pub async fn new_repository(store: &Arc<dyn Store>, password: &str) -> Repository {
    let options = CreateOptions { cost: CHEAP, pack_bytes: 64 << 10, ..CreateOptions::default() };
    create(store.clone(), &passphrase(password), &options, &world()).await.unwrap();
    reopen(store, password).await
}

pub async fn try_open(store: &Arc<dyn Store>, unlock: &Unlock) -> Result<Repository, RepoError> {
    let repo = open(store.clone(), unlock, &OpenOptions::default(), world()).await?;
    repo.sync(Thoroughness::Strict).await?;
    Ok(repo)
}

pub async fn reopen(store: &Arc<dyn Store>, password: &str) -> Repository {
    try_open(store, &passphrase(password)).await.unwrap()
}

/// Files of bytes that do not compress; the same numbers give the same bytes.
pub fn sample(numbers: std::ops::Range<usize>) -> Files {
    let length = |n: usize| if n % 50 == 7 { 100_000 } else { n * 37 % 3000 };
    numbers.map(|n| (format!("dir\0file{n:06}"), crate::bench::random(n, length(n)))).collect()
}

fn summary(job: &str) -> Summary {
    static SECONDS: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    let seconds = SECONDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let time = Timestamp { seconds, nanoseconds: 0 };
    let (tags, facts) = (vec!["tag".into()], r#"{"fact":1}"#.into());
    Summary { tags, facts, ..crate::bench::summary(job, time) }
}

fn file(content: Content) -> Entry {
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

/// Stores `files`, in key order, and commits a snapshot of them.
pub async fn backup(repo: &Repository, job: &str, files: &Files) -> (SnapshotId, Stored) {
    let (mut run, _) = Run::begin(repo).await.unwrap();
    let home = repo.access.home();
    let mut reach = Reach::new(None);
    let mut sink = Sink::new(&run, Compression::Zstd(3)).unwrap();
    let mut tree = TreeWriter::new(home).unwrap();
    let mut pages: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    for (key, bytes) in files {
        let mut recipe = RecipeWriter::default();
        let mut keep = |id, page| {
            pages.push((id, page));
            Ok(())
        };
        let mut hash = blake3::Hasher::new_keyed(home.content_key().unwrap());
        for piece in bytes.chunks(512) {
            hash.update(piece);
            let id = home.data_id(piece).unwrap();
            sink.add(ObjectKind::Data, id, piece, Some(&mut reach)).await.unwrap();
            let reference = ChunkRef { id: id.short(), length: piece.len() as u32 };
            recipe.add(home, reference, &mut keep).unwrap();
        }
        let refs = recipe.finish(home, &mut keep).unwrap();
        let hash = (bytes.len() > 512).then(|| *hash.finalize().as_bytes());
        let content = Content { size_bytes: bytes.len() as u64, holes: vec![], hash, refs };
        tree.add(key.as_bytes(), &file(content), &mut keep).unwrap();
    }
    let mut keep = |id, page| {
        pages.push((id, page));
        Ok(())
    };
    let root = tree.finish(&mut keep).unwrap();
    for (id, page) in pages {
        sink.add(ObjectKind::Meta, id, &page, Some(&mut reach)).await.unwrap();
    }
    let stored = sink.finish().await.unwrap();
    let draft = Draft { summary: summary(job), root, paths: vec![b"/dir".to_vec()] };
    let pending = run.put_manifest(&draft).await.unwrap();
    assert!(run.check(&mut reach).await.unwrap().is_empty());
    run.confirm(&pending).await.unwrap();
    run.end().await;
    (pending.id, stored)
}

/// Reads a confirmed snapshot back, every stream's hash compared.
pub async fn restore(repo: &Repository, id: SnapshotId) -> Result<Files, RepoError> {
    let list = repo.snapshots().await?;
    let filter = Filter::default();
    let found = list.select(&id.hex(), &filter)?;
    assert!(found.confirmed);
    let contents = repo.contents(found).await?;
    let domain = repo.access.domain(found.domain)?;
    let mut cursor = TreeCursor::new(&repo.reader, found.domain, contents.root, b"");
    let mut files = Vec::new();
    while let Some((key, entry)) = cursor.next().await? {
        let content = entry.content().unwrap();
        let mut bytes = Vec::new();
        let mut recipe = RecipeReader::new(&repo.reader, found.domain, content);
        while let Some(refs) = recipe.next(&mut |_| true).await? {
            for reference in refs {
                let chunk = repo.reader.chunk(found.domain, ObjectKind::Data, &reference.id).await?;
                assert_eq!(chunk.len(), reference.length as usize);
                bytes.extend_from_slice(&chunk);
            }
        }
        if let Some(hash) = content.hash {
            assert_eq!(*blake3::keyed_hash(domain.content_key()?, &bytes).as_bytes(), hash);
        }
        files.push((String::from_utf8(key).unwrap(), bytes));
    }
    Ok(files)
}
