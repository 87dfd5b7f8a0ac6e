//! The repository level end to end over a memory store: what goes in comes out, and a wrong key does not open it.

use std::sync::Arc;

use super::commit::Draft;
use super::create::{CreateOptions, create};
use super::open::{OpenOptions, open};
use super::reach::Reach;
use super::recipe::{RecipeReader, RecipeWriter};
use super::run::Run;
use super::sink::Sink;
use super::snapshots::Filter;
use super::tree::diff::{Change, diff};
use super::tree::read::{TreeCursor, find};
use super::tree::write::TreeWriter;
use super::{RepoError, Repository, World};
use crate::base::clock::SystemClock;
use crate::base::random::SeededRandom;
use crate::format::entry::{ChunkRef, Content, Entry, Kind, Timestamp};
use crate::format::header::ObjectKind;
use crate::format::id::{ChunkId, SnapshotId};
use crate::format::manifest::{Statistics, Summary};
use crate::seal::block::Compression;
use crate::seal::slot::{Cost, Unlock};
use crate::store::Store;
use crate::store::memory::MemoryStore;

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(zeroize::Zeroizing::new(text.as_bytes().to_vec()))
}

fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), random: Arc::new(SeededRandom::new(1)) }
}

async fn repository(store: &Arc<dyn Store>) -> Repository {
    let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
    let options = CreateOptions { cost, ..CreateOptions::default() };
    create(store.clone(), &passphrase("right"), &options, &world()).await.unwrap();
    open(store.clone(), &passphrase("right"), &OpenOptions::default(), world()).await.unwrap()
}

fn summary(job: &str) -> Summary {
    static SECONDS: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    let seconds = SECONDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Summary {
        author: crate::format::id::KeyId([0; 16]),
        source: "files".into(),
        job: job.into(),
        host: "host".into(),
        user: String::new(),
        tags: vec![],
        started: Timestamp::default(),
        consistent: Timestamp { seconds, nanoseconds: 0 },
        finished: Timestamp::default(),
        statistics: Statistics::default(),
        facts: "{}".into(),
        parent: None,
        original: None,
        chunk_bytes: 65536,
        sequence: 0,
        previous: None,
        heads: vec![],
        program: "test".into(),
        nonce: [0; 16],
        contents_hash: [0; 32],
    }
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

/// Stores `files` and commits a snapshot of them.
async fn snapshot(repo: &Repository, files: &[(String, Vec<u8>)]) -> SnapshotId {
    let (mut run, _) = Run::begin(repo).await.unwrap();
    let home = repo.access.home();
    let mut reach = Reach::new(None);
    let mut sink = Sink::new(&run, Compression::Zstd(3)).unwrap();
    let mut tree = TreeWriter::new(home).unwrap();
    let mut pages: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    for (key, bytes) in files {
        let mut recipe = RecipeWriter::default();
        for piece in bytes.chunks(512) {
            let id = home.data_id(piece).unwrap();
            sink.add(ObjectKind::Data, id, piece, Some(&mut reach)).await.unwrap();
            let reference = ChunkRef { id: id.short(), length: piece.len() as u32 };
            recipe
                .add(home, reference, &mut |id, page| {
                    pages.push((id, page));
                    Ok(())
                })
                .unwrap();
        }
        let mut keep = |id, page| {
            pages.push((id, page));
            Ok(())
        };
        let refs = recipe.finish(home, &mut keep).unwrap();
        let content = Content { size_bytes: bytes.len() as u64, holes: vec![], hash: None, refs };
        tree.add(key.as_bytes(), &file(content), &mut keep).unwrap();
    }
    let root = tree
        .finish(&mut |id, page| {
            pages.push((id, page));
            Ok(())
        })
        .unwrap();
    for (id, page) in pages {
        sink.add(ObjectKind::Meta, id, &page, Some(&mut reach)).await.unwrap();
    }
    sink.finish().await.unwrap();
    let draft = Draft { summary: summary("test"), root, paths: vec![b"/x".to_vec()] };
    let pending = run.put_manifest(&draft).await.unwrap();
    assert!(run.check(&mut reach).await.unwrap().is_empty());
    run.confirm(&pending).await.unwrap();
    run.end().await;
    pending.id
}

async fn read_all(repo: &Repository, id: SnapshotId) -> Vec<(String, Vec<u8>)> {
    let list = repo.snapshots().await.unwrap();
    let filter = Filter::default();
    let found = list.select(&id.hex(), &filter).unwrap();
    assert!(found.confirmed);
    let contents = repo.contents(found).await.unwrap();
    let mut cursor = TreeCursor::new(&repo.reader, found.domain, contents.root, b"");
    let mut files = Vec::new();
    while let Some((key, entry)) = cursor.next().await.unwrap() {
        let mut bytes = Vec::new();
        let mut recipe = RecipeReader::new(&repo.reader, found.domain, entry.content().unwrap());
        while let Some(refs) = recipe.next(&mut |_| true).await.unwrap() {
            for reference in refs {
                let chunk = repo.reader.chunk(found.domain, ObjectKind::Data, &reference.id).await.unwrap();
                assert_eq!(chunk.len(), reference.length as usize);
                bytes.extend_from_slice(&chunk);
            }
        }
        files.push((String::from_utf8(key).unwrap(), bytes));
    }
    files
}

fn sample(count: usize) -> Vec<(String, Vec<u8>)> {
    let random = |seed: usize, length: usize| {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    (0..count)
        .map(|n| (format!("dir\0file{n:06}"), random(n, if n == 7 { 3_000_000 } else { n % 3000 })))
        .collect()
}

#[tokio::test]
async fn a_page_out_of_order_is_refused_before_it_is_stored() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = repository(&store).await;
    let mut tree = TreeWriter::new(repo.access.home()).unwrap();
    let entry = Entry {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime: Default::default(),
        xattrs: vec![],
        hardlink_to: None,
    };
    let mut sink = |_, _| Ok(());
    tree.add(b"b", &entry, &mut sink).unwrap();
    for key in [b"a", b"b"] {
        assert!(tree.add(key, &entry, &mut sink).unwrap_err().to_string().contains("new tree page"));
    }
    for broken in [&b"\x00"[..], b"\x00\x01\xff", b"\x21\x00"] {
        assert!(super::tree::write::check_tree_page(broken).is_err());
        assert!(super::recipe::check_recipe_page(broken).is_err());
    }
    let empty = crate::format::page::TreePage::Leaf(vec![]).encode();
    super::tree::write::check_tree_page(&empty).unwrap();
}

#[tokio::test]
async fn what_is_stored_is_read_back_by_another_process() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = repository(&store).await;
    let mut files = sample(5000);
    let first = snapshot(&repo, &files).await;
    files[4000].1 = b"changed".to_vec();
    files.remove(100);
    let second = snapshot(&repo, &files).await;
    let other = open(store.clone(), &passphrase("right"), &OpenOptions::default(), world()).await.unwrap();
    other.sync(super::sync::Thoroughness::Strict).await.unwrap();
    assert_eq!(read_all(&other, first).await, sample(5000));
    assert_eq!(read_all(&other, second).await, files);

    let list = other.snapshots().await.unwrap();
    assert_eq!(list.snapshots.iter().map(|s| s.summary.sequence).collect::<Vec<_>>(), [0, 1]);
    let (a, b) = (&list.snapshots[0], &list.snapshots[1]);
    let (root_a, root_b) = (other.contents(a).await.unwrap().root, other.contents(b).await.unwrap().root);
    let mut changes = Vec::new();
    diff((&other.reader, 0, root_a), (&other.reader, 0, root_b), &mut |change| {
        changes.push((change.key().to_vec(), matches!(change, Change::Modified(..))));
        Ok(())
    })
    .await
    .unwrap();
    let key = |n: usize| format!("dir\0file{n:06}").into_bytes();
    assert_eq!(changes, [(key(100), false), (key(4000), true)]);
    assert!(find(&other.reader, 0, root_b, &key(100)).await.unwrap().is_none());
    assert!(find(&other.reader, 0, root_b, &key(101)).await.unwrap().is_some());
}

#[tokio::test]
async fn the_second_identical_snapshot_stores_nothing() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = repository(&store).await;
    snapshot(&repo, &sample(500)).await;
    let packs = repo.list_packs().await.unwrap().len();
    snapshot(&repo, &sample(500)).await;
    assert_eq!(repo.list_packs().await.unwrap().len(), packs);
}

#[tokio::test]
async fn a_wrong_password_and_an_empty_place_are_told_apart() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let result = open(store.clone(), &passphrase("right"), &OpenOptions::default(), world()).await;
    assert!(matches!(result, Err(RepoError::NoRepository { .. })));
    repository(&store).await;
    let result = open(store.clone(), &passphrase("wrong"), &OpenOptions::default(), world()).await;
    assert!(matches!(result, Err(RepoError::WrongKey { .. })));
    let result = create(store, &passphrase("x"), &CreateOptions::default(), &world()).await;
    assert!(matches!(result, Err(RepoError::Exists { .. })));
}

#[tokio::test]
async fn a_lost_or_damaged_keyring_is_taken_from_a_manifest() {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repo = repository(&store).await;
    let id = snapshot(&repo, &sample(50)).await;
    for damage in [true, false] {
        if damage {
            memory.overwrite("keyring/0", bytes::Bytes::from_static(b"LIFEBOATxx"));
        } else {
            store.delete("keyring/0").await.unwrap();
        }
        let again =
            open(store.clone(), &passphrase("right"), &OpenOptions::default(), world()).await.unwrap();
        again.sync(super::sync::Thoroughness::Strict).await.unwrap();
        assert_eq!(read_all(&again, id).await, sample(50));
    }
}
