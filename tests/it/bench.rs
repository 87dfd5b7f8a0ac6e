//! A repository over memory, and what every test of the verbs needs to fill it and read it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lifeboat::base::cancel::Cancel;
use lifeboat::base::clock::SystemClock;
use lifeboat::base::progress::NoProgress;
use lifeboat::base::random::SystemRandom;
use lifeboat::engine::EngineError;
use lifeboat::engine::backup::{self, BackupOptions, FilesRequest};
use lifeboat::engine::read::select::{Selected, SnapshotPath};
use lifeboat::engine::restore::{Outcome, RestoreOptions, restore};
use lifeboat::format::entry::Timestamp;
use lifeboat::format::id::{KeyId, SnapshotId};
use lifeboat::format::manifest::{Statistics, Summary};
use lifeboat::repo::create::{CreateOptions, create};
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::repo::snapshots::Filter;
use lifeboat::repo::sync::Thoroughness;
use lifeboat::repo::{Repository, World};
use lifeboat::seal::block::Compression;
use lifeboat::seal::slot::{Cost, Unlock};
use lifeboat::source::files::walk::WalkOptions;
use lifeboat::store::Store;
use lifeboat::store::memory::MemoryStore;

fn unlock() -> Unlock {
    Unlock::Passphrase(zeroize::Zeroizing::new(b"right".to_vec()))
}

fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) }
}

/// Opened anew: nothing of an earlier reader is cached.
pub async fn reopen(store: &Arc<MemoryStore>) -> Repository {
    let store: Arc<dyn Store> = store.clone();
    let repo = open(store, &unlock(), &OpenOptions::default(), world()).await.unwrap();
    repo.sync(Thoroughness::Tolerant).await.unwrap();
    repo
}

/// A new repository in memory.
pub async fn repository() -> (Arc<MemoryStore>, Repository) {
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = memory.clone();
    let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
    create(store, &unlock(), &CreateOptions { cost, ..CreateOptions::default() }, &world()).await.unwrap();
    let repo = reopen(&memory).await;
    (memory, repo)
}

pub async fn back_up(repo: &Repository, job: &str, folder: &Path) -> SnapshotId {
    let options = BackupOptions {
        job: job.into(),
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
    };
    let request = FilesRequest {
        paths: vec![folder.to_path_buf()],
        cwd: PathBuf::from("/"),
        walk: WalkOptions::default(),
    };
    let outcome =
        backup::files(repo, &request, &options, Arc::new(NoProgress), &Cancel::new()).await.unwrap();
    assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
    outcome.snapshot.unwrap()
}

/// `SNAP:PATH` of a folder that was backed up.
pub async fn select(repo: &Repository, snapshot: &str, path: &Path) -> Selected {
    let mut text = std::ffi::OsString::from(snapshot);
    text.push(":");
    text.push(path);
    SnapshotPath::parse(&text).unwrap().select(repo, &Filter::default()).await.unwrap()
}

pub async fn restore_to(
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
) -> Result<Outcome, EngineError> {
    restore(repo, selected, options, None, Arc::new(NoProgress), &Cancel::new()).await
}

pub fn into(target: &Path) -> RestoreOptions {
    RestoreOptions { target: target.to_path_buf(), ..RestoreOptions::default() }
}

/// What a manifest says of a snapshot that a test makes by hand, from `now`.
pub fn summary(job: &str, now: Timestamp) -> Summary {
    Summary {
        author: KeyId([0; 16]),
        source: "files".into(),
        job: job.into(),
        host: "host".into(),
        user: String::new(),
        tags: vec![],
        started: now,
        consistent: now,
        finished: now,
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

/// Every object of a kind's folder.
pub async fn objects(store: &MemoryStore, folder: &str) -> Vec<String> {
    store.list(folder).await.unwrap().into_iter().map(|listed| listed.name).collect()
}

/// Flips one bit in the middle of an object.
pub async fn damage(store: &MemoryStore, name: &str) {
    let mut bytes = store.get(name).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.overwrite(name, Bytes::from(bytes));
}

/// Repeatable bytes that do not compress.
pub fn random(seed: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
