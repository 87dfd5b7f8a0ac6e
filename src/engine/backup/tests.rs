//! The backup pipeline over a memory store.

use std::sync::Arc;

use super::*;
use crate::base::clock::SystemClock;
use crate::base::progress::NoProgress;
use crate::base::random::SystemRandom;
use crate::format::header::ObjectKind;
use crate::repo::World;
use crate::repo::create::{CreateOptions, create};
use crate::repo::open::{OpenOptions, open};
use crate::repo::recipe::RecipeReader;
use crate::repo::snapshots::Filter;
use crate::repo::tree::read::TreeCursor;
use crate::seal::slot::{Cost, Unlock};
use crate::source::capture::Single;
use crate::source::stdin::StreamSource;
use crate::store::Store;
use crate::store::memory::MemoryStore;

fn unlock() -> Unlock {
    Unlock::Passphrase(zeroize::Zeroizing::new(b"right".to_vec()))
}

fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) }
}

async fn repository(store: &Arc<dyn Store>, cache: Option<&Path>) -> Repository {
    if store.list("config").await.unwrap().is_empty() {
        let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        create(store.clone(), &unlock(), &options, &world()).await.unwrap();
    }
    let options = OpenOptions { cache, ..OpenOptions::default() };
    open(store.clone(), &unlock(), &options, world()).await.unwrap()
}

fn options() -> BackupOptions {
    BackupOptions {
        job: "test".into(),
        host: "host".into(),
        user: String::new(),
        tags: vec![],
        compression: Compression::Zstd(3),
        profile: None,
        time: None,
        dry_run: false,
        force: false,
        threads: 2,
        accepted: None,
    }
}

async fn back_up(repo: &Repository, folder: &Path) -> BackupOutcome {
    let request = FilesRequest {
        paths: vec![folder.to_path_buf()],
        cwd: PathBuf::from("/"),
        walk: WalkOptions::default(),
    };
    files(repo, &request, &options(), Arc::new(NoProgress), &Cancel::new()).await.unwrap()
}

async fn read_all(repo: &Repository, id: SnapshotId) -> Vec<(PathBuf, Vec<u8>)> {
    let (list, filter) = (repo.snapshots().await.unwrap(), Filter::default());
    let snapshot = list.select(&id.hex(), &filter).unwrap();
    let contents = repo.contents(snapshot).await.unwrap();
    let mut cursor = TreeCursor::new(&repo.reader, snapshot.domain, contents.root, b"");
    let mut found = Vec::new();
    while let Some((key, entry)) = cursor.next().await.unwrap() {
        let Some(content) = entry.content() else { continue };
        let mut bytes = Vec::new();
        let mut recipe = RecipeReader::new(&repo.reader, snapshot.domain, content);
        while let Some(refs) = recipe.next(&mut |_| true).await.unwrap() {
            for reference in refs {
                let chunk = repo.reader.chunk(snapshot.domain, ObjectKind::Data, &reference.id);
                bytes.extend_from_slice(&chunk.await.unwrap());
            }
        }
        if let Some(hash) = content.hash {
            let key = repo.access.domain(snapshot.domain).unwrap().content_key().unwrap();
            assert_eq!(blake3::keyed_hash(key, &bytes).as_bytes(), &hash);
        }
        assert_eq!(content.data_bytes(), bytes.len() as u64);
        found.push((crate::source::files::path_of_key(&key), bytes));
    }
    found
}

fn random(seed: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn sample(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for n in 0..400 {
        let path = folder.join(format!("d{}", n % 7)).join(format!("f{n:04}"));
        let length = match n {
            3 => 9_000_000,
            4 => 1_200_000,
            5 => 0,
            n => n * 37,
        };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = random(n, length);
        std::fs::write(&path, &bytes).unwrap();
        files.push((path, bytes));
    }
    files.sort();
    std::thread::sleep(std::time::Duration::from_millis(150));
    files
}

#[tokio::test]
async fn files_come_back_and_unchanged_ones_are_not_read_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut expected = sample(source.path());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = repository(&store, Some(cache.path())).await;
    let first = back_up(&repo, source.path()).await;
    assert_eq!(first.statistics.files, 400);
    assert_eq!(read_all(&repo, first.snapshot.unwrap()).await, expected);

    let second = back_up(&repo, source.path()).await;
    assert_eq!((second.statistics.read_bytes, second.statistics.new_chunks), (0, 0));
    assert_eq!(second.statistics.files_unmodified, 400);

    expected[10].1 = b"changed".to_vec();
    std::fs::write(&expected[10].0, b"changed").unwrap();
    let third = back_up(&repo, source.path()).await;
    assert_eq!(third.statistics.files_changed, 1);
    assert_eq!(third.statistics.read_bytes, 7);
    assert_eq!(read_all(&repo, third.snapshot.unwrap()).await, expected);
    let cold = repository(&store, None).await;
    cold.sync(Thoroughness::Strict).await.unwrap();
    assert_eq!(read_all(&cold, third.snapshot.unwrap()).await, expected);
}

#[tokio::test]
async fn a_second_different_stream_under_the_same_name_is_stored_as_itself() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = repository(&store, None).await;
    for bytes in [random(1, 3_000_000), random(2, 3_000_000)] {
        let stream = StreamSource::new(std::io::Cursor::new(bytes.clone()), false, Timestamp::default());
        let source = Box::new(Single::new("dump.sql", stream));
        let request = CaptureRequest { source, kind: "stdin" };
        let outcome =
            capture(&repo, request, &options(), Arc::new(NoProgress), &Cancel::new()).await.unwrap();
        let found = read_all(&repo, outcome.snapshot.unwrap()).await;
        assert!(found == [(PathBuf::from("/dump.sql"), bytes)]);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_commits_nothing_and_ends_its_run() {
    struct Breaks(u64);
    impl std::io::Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 > 5_000_000 {
                return Err(std::io::Error::other("the pipe burst"));
            }
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = repository(&store, None).await;
    let stream = StreamSource::new(Breaks(0), false, Timestamp::default());
    let source = Box::new(Single::new("dump.sql", stream));
    let request = CaptureRequest { source, kind: "stdin" };
    let result = capture(&repo, request, &options(), Arc::new(NoProgress), &Cancel::new()).await;
    assert!(matches!(result, Err(EngineError::Source(_))), "{result:?}");
    assert!(store.list("snapshots").await.unwrap().is_empty());
    assert!(store.list("runs").await.unwrap().is_empty());
}

/// Does something when the first bytes were read.
struct AtFirstBytes(std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Progress for AtFirstBytes {
    fn phase(&self, _name: &'static str) {}
    fn add_total(&self, _bytes: u64, _files: u64) {}
    fn add_done(&self, bytes: u64, _files: u64) {
        if let Some(action) = self.0.lock().unwrap().take_if(|_| bytes > 0) {
            action();
        }
    }
    fn current(&self, _item: &str) {}
}

#[tokio::test]
async fn a_hard_link_whose_first_name_vanished_is_read_by_its_own() {
    for length in [10, 3_000_000] {
        let source = tempfile::tempdir().unwrap();
        let path = |name: &str| source.path().join(name);
        std::fs::write(path("a"), random(1, 2_000_000)).unwrap();
        std::fs::write(path("b"), random(2, length)).unwrap();
        std::fs::hard_link(path("b"), path("c")).unwrap();
        std::fs::hard_link(path("b"), path("d")).unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let repo = repository(&store, None).await;
        let first = path("b");
        // The folder was looked at as a whole by then, and one worker reads in order.
        let vanish: Box<dyn FnOnce() + Send> = Box::new(move || std::fs::remove_file(first).unwrap());
        let progress = Arc::new(AtFirstBytes(std::sync::Mutex::new(Some(vanish))));
        let request = FilesRequest {
            paths: vec![source.path().to_path_buf()],
            cwd: PathBuf::from("/"),
            walk: WalkOptions::default(),
        };
        let options = BackupOptions { threads: 1, ..options() };
        let outcome = files(&repo, &request, &options, progress, &Cancel::new()).await.unwrap();
        let named: Vec<&str> = outcome.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(named, [path("b").to_str().unwrap()], "only the name that is gone");
        let found = read_all(&repo, outcome.snapshot.unwrap()).await;
        let expected = ["c", "d"].map(|name| (path(name), random(2, length)));
        assert_eq!(found[1..], expected);
        assert_eq!(outcome.statistics.files, 3);
    }
}
