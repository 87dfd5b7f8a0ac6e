//! The repository that format version 1 was released with still opens, verifies and restores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat::format::header::VERSION;
use lifeboat::store::Store;
use lifeboat::store::memory::MemoryStore;

use super::super::damage::build;

fn folder() -> PathBuf {
    super::root().join("tests/fixtures").join(format!("v{VERSION}"))
}

fn load(folder: &Path, prefix: &str, objects: &mut build::Objects) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            load(&entry.path(), &format!("{name}/"), objects);
        } else {
            objects.insert(name, std::fs::read(entry.path()).unwrap().into());
        }
    }
}

/// What it holds: the path below the source and the bytes.
fn files(second: bool) -> build::Files {
    let mut files: build::Files = BTreeMap::new();
    files.insert("a/one".into(), b"one\n".to_vec());
    files.insert("a/two".into(), build::noise(1, 20_000));
    // Long enough for a recipe of its own.
    files.insert("long".into(), b"0123456789abcdef".repeat(1_200_000));
    files.insert("empty".into(), Vec::new());
    if second {
        files.insert("a/one".into(), b"changed\n".to_vec());
    }
    files
}

async fn make(folder: &Path) {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    build::create_in(&store).await;
    let repo = build::open_in(&store).await.unwrap();
    let source = tempfile::tempdir().unwrap();
    build::back_up(&repo, source.path(), &files(false)).await;
    build::back_up(&repo, source.path(), &files(true)).await;
    for (name, bytes) in memory.snapshot() {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[tokio::test]
async fn the_repository_of_version_1_opens_verifies_and_reads_back() {
    let folder = folder();
    if std::env::var_os("LIFEBOAT_BLESS").is_some() && !folder.exists() {
        make(&folder).await;
    }
    let mut objects = build::Objects::new();
    load(&folder, "", &mut objects);
    let memory = MemoryStore::from_snapshot(objects);
    let outcome = build::check(&memory, true).await.unwrap();
    assert!(outcome.findings.is_empty() && outcome.not_tested.is_empty(), "{outcome:?}");
    assert_eq!(outcome.checked.snapshots, 2);
    let read = build::read_files(&memory).await;
    assert_eq!(read, [files(false), files(true)]);
}
