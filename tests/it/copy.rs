//! Copies: into another repository, and into a replica.

use std::sync::Arc;

use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::NoProgress;
use lifeboat::engine::EngineError;
use lifeboat::engine::copy::{CopyOptions, CopyOutcome, Way, copy};
use lifeboat::repo::keys::{self, NewSlot};
use lifeboat::repo::snapshots::Filter;
use lifeboat::repo::{Repository, replica};
use lifeboat::seal::block::Compression;
use lifeboat::store::Store;
use lifeboat::store::count::CountingStore;
use lifeboat::store::memory::MemoryStore;

use crate::plain::{CHEAP, Files, backup, new_repository, passphrase, reopen, restore, sample, try_open};

fn memory() -> (MemoryStore, Arc<dyn Store>) {
    let memory = MemoryStore::new();
    (memory.clone(), Arc::new(memory))
}

async fn try_copy(source: &Repository, target: &Repository) -> Result<CopyOutcome, EngineError> {
    let options = CopyOptions {
        snapshots: vec![],
        filter: Filter::default(),
        compression: Compression::Zstd(3),
        dry_run: false,
    };
    copy(source, target, &options, &NoProgress, &Cancel::new()).await
}

async fn copy_all(source: &Repository, target: &Repository) -> CopyOutcome {
    try_copy(source, target).await.unwrap()
}

/// Three snapshots of two dedup domains, and what they hold.
async fn source(store: &Arc<dyn Store>) -> (Repository, Vec<Files>) {
    let owner = new_repository(store, "source").await;
    let unlock = passphrase("w");
    keys::add_writer(&owner, &NewSlot { label: "w".into(), unlock: &unlock, cost: CHEAP }, None)
        .await
        .unwrap();
    let owner = reopen(store, "source").await;
    let mut changed = sample(0..120);
    changed[60].1 = b"changed".to_vec();
    let contents = vec![sample(0..120), sample(20..80), changed];
    backup(&owner, "a", &contents[0]).await;
    backup(&try_open(store, &unlock).await.unwrap(), "b", &contents[1]).await;
    backup(&owner, "a", &contents[2]).await;
    (reopen(store, "source").await, contents)
}

async fn contents(repo: &Repository) -> Vec<Files> {
    let mut all = Vec::new();
    for snapshot in repo.snapshots().await.unwrap().snapshots {
        all.push(restore(repo, snapshot.id).await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_copy_under_other_keys_restores_the_same_and_is_made_once() {
    let (_, from) = memory();
    let (source, expected) = source(&from).await;
    let (_, to) = memory();
    let target = new_repository(&to, "target").await;
    let outcome = copy_all(&source, &target).await;
    assert_eq!((outcome.way, outcome.copied.len(), outcome.failed.len()), (Way::Resealed, 3, 0));
    let target = reopen(&to, "target").await;
    assert_eq!(contents(&target).await, expected);
    let (here, there) = (source.snapshots().await.unwrap(), target.snapshots().await.unwrap());
    for (old, new) in here.snapshots.iter().zip(&there.snapshots) {
        assert_eq!(new.summary.original, Some(old.id));
        assert_eq!((&new.summary.tags, &new.summary.facts), (&old.summary.tags, &old.summary.facts));
        assert_eq!(new.summary.consistent, old.summary.consistent);
        assert_ne!(new.id, old.id);
    }
    // Both domains of the source became one: the second snapshot's content was all there.
    let chunks = |repo: &Repository| repo.index.chunk_count().unwrap();
    assert!(chunks(&target) < chunks(&source));
    let again = copy_all(&source, &target).await;
    assert_eq!((again.copied.len(), again.present.len(), again.added_bytes), (0, 3, 0));
    // A copy of the copy counts as of the first.
    let (_, third) = memory();
    let third = new_repository(&third, "third").await;
    copy_all(&target, &third).await;
    assert_eq!(copy_all(&source, &third).await.present.len(), 3);
}

#[tokio::test]
async fn the_next_snapshot_of_a_job_reads_only_what_changed() {
    let (_, from) = memory();
    let counted = CountingStore::new(from.clone());
    let counting: Arc<dyn Store> = Arc::new(counted.clone());
    let owner = new_repository(&from, "source").await;
    let mut files = sample(0..400);
    backup(&owner, "a", &files).await;
    let (_, to) = memory();
    let target = new_repository(&to, "target").await;
    copy_all(&reopen(&counting, "source").await, &target).await;
    let first = counted.counts().downloaded_bytes;
    files[200].1 = b"changed".to_vec();
    let owner = reopen(&from, "source").await;
    let (id, _) = backup(&owner, "a", &files).await;
    let outcome = copy_all(&reopen(&counting, "source").await, &reopen(&to, "target").await).await;
    let second = counted.counts().downloaded_bytes - first;
    assert_eq!(outcome.copied[0].from, id);
    assert!(second * 2 < first, "{second} of {first}");
    let target = reopen(&to, "target").await;
    assert_eq!(restore(&target, outcome.copied[0].to.unwrap()).await.unwrap(), files);
}

#[tokio::test]
async fn a_replica_restores_the_same_snapshots_by_the_same_ids() {
    let (_, from) = memory();
    let (source, expected) = source(&from).await;
    let (to_memory, to) = memory();
    replica::create(&source, to.clone()).await.unwrap();
    let target = reopen(&to, "source").await;
    assert!(target.config.replica);
    let outcome = copy_all(&source, &target).await;
    assert_eq!((outcome.way, outcome.copied.len(), outcome.chunks_sealed), (Way::Replicated, 3, 0));
    assert!(outcome.blocks_moved > 0);
    let target = reopen(&to, "source").await;
    assert_eq!(contents(&target).await, expected);
    let ids = |list: lifeboat::repo::snapshots::SnapshotList| -> Vec<_> {
        list.snapshots
            .into_iter()
            .map(|snapshot| (snapshot.id, snapshot.object, snapshot.confirmed))
            .collect()
    };
    assert_eq!(ids(source.snapshots().await.unwrap()), ids(target.snapshots().await.unwrap()));
    // No name is put that the replica may once have condemned.
    let theirs: Vec<_> = source.index.packs().iter().map(|pack| pack.hash).collect();
    for (name, _) in to_memory.snapshot() {
        assert!(!theirs.iter().any(|hash| name.ends_with(&hash.hex())), "{name}");
    }
    assert_eq!(copy_all(&source, &target).await.present.len(), 3);

    // Keys changed at the source reach the replica, and cannot be changed there.
    keys::rotate(&source).await.unwrap();
    let source = reopen(&from, "source").await;
    let (id, _) = backup(&source, "a", &sample(0..130)).await;
    assert!(matches!(keys::rotate(&target).await, Err(lifeboat::repo::RepoError::Refused(_))));
    let copied = replica::sync_keys(&source, to.as_ref()).await.unwrap();
    assert_eq!(copied.copied, ["keyring/2", "roster/2"]);
    assert_eq!(copy_all(&source, &reopen(&to, "source").await).await.copied.len(), 1);
    assert_eq!(restore(&reopen(&to, "source").await, id).await.unwrap(), sample(0..130));
}

#[tokio::test]
async fn an_interrupted_copy_goes_on_without_uploading_again() {
    let (_, from) = memory();
    let (source, expected) = source(&from).await;
    for replicated in [true, false] {
        let (whole, interrupted) = (MemoryStore::new(), MemoryStore::new());
        let mut bytes = Vec::new();
        for (store, cut) in [(whole, false), (interrupted, true)] {
            let store: Arc<dyn Store> = Arc::new(store);
            let password = if replicated { "source" } else { "target" };
            if replicated {
                replica::create(&source, store.clone()).await.unwrap();
            } else {
                new_repository(&store, password).await;
            }
            let counted = CountingStore::new(store.clone());
            let counting: Arc<dyn Store> = Arc::new(counted.clone());
            if cut {
                // Only its first puts arrived.
                let faulty: Arc<dyn Store> =
                    Arc::new(CutStore { inner: counting.clone(), puts_left: 6.into() });
                let target = reopen(&faulty, password).await;
                assert!(try_copy(&source, &target).await.is_err());
            }
            let target = reopen(&counting, password).await;
            let outcome = copy_all(&source, &target).await;
            assert_eq!(outcome.copied.len() + outcome.present.len(), 3);
            assert_eq!(contents(&reopen(&store, password).await).await, expected);
            bytes.push(counted.counts().uploaded_bytes);
        }
        // Besides packs there are run objects and index objects; what was there was not put again.
        assert!(bytes[1] < bytes[0] + bytes[0] / 10, "{bytes:?}, replicated: {replicated}");
    }
}

#[tokio::test]
async fn a_copy_to_itself_is_refused() {
    let (_, from) = memory();
    let (source, _) = source(&from).await;
    let refused = try_copy(&source, &reopen(&from, "source").await).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    let (_, to) = memory();
    replica::create(&source, to.clone()).await.unwrap();
    let (a, b) = (reopen(&to, "source").await, reopen(&to, "source").await);
    assert!(matches!(try_copy(&a, &b).await, Err(EngineError::Refused(_))));
}

#[tokio::test]
async fn a_copy_of_a_damaged_source_names_the_files_and_copies_nothing_false() {
    let (_, from) = memory();
    let owner = new_repository(&from, "source").await;
    let (good, _) = backup(&owner, "a", &sample(0..40)).await;
    let before: Vec<_> = from.list("data").await.unwrap();
    let (bad, _) = backup(&owner, "a", &sample(0..160)).await;
    let fresh = from.list("data").await.unwrap().into_iter().find(|listed| !before.contains(listed)).unwrap();
    for replicated in [true, false] {
        for gone in [false, true] {
            let memory = MemoryStore::new();
            for kind in
                ["config", "keyring", "roster", "slots", "snapshots", "confirms", "index", "data", "meta"]
            {
                for listed in from.list(kind).await.unwrap() {
                    memory.put(&listed.name, from.get(&listed.name).await.unwrap()).await.unwrap();
                }
            }
            if gone {
                memory.delete(&fresh.name).await.unwrap();
            } else {
                let mut bytes = memory.get(&fresh.name).await.unwrap().to_vec();
                bytes[5_000] ^= 1;
                memory.overwrite(&fresh.name, bytes.into());
            }
            let damaged: Arc<dyn Store> = Arc::new(memory);
            let source = reopen(&damaged, "source").await;
            let (_, to) = self::memory();
            if replicated {
                replica::create(&source, to.clone()).await.unwrap();
            } else {
                new_repository(&to, "source").await;
            }
            let outcome = copy_all(&source, &reopen(&to, "source").await).await;
            assert_eq!(outcome.copied.iter().map(|copied| copied.from).collect::<Vec<_>>(), [good]);
            let failed = &outcome.failed[0];
            assert_eq!((failed.snapshot, outcome.failed.len()), (Some(bad), 1));
            assert!(failed.lost_count > 0 && failed.lost_count < 160, "{failed:?}");
            assert!(failed.lost.iter().all(|(path, _)| path.starts_with(b"/dir/file")));
            let target = reopen(&to, "source").await;
            assert_eq!(contents(&target).await, [sample(0..40)]);
        }
    }
}

/// Fails every put after so many.
#[derive(Debug)]
struct CutStore {
    inner: Arc<dyn Store>,
    puts_left: std::sync::atomic::AtomicI64,
}

#[async_trait::async_trait]
impl Store for CutStore {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn settle(&self) -> std::time::Duration {
        self.inner.settle()
    }
    async fn put(&self, name: &str, bytes: bytes::Bytes) -> Result<(), lifeboat::store::StoreError> {
        if self.puts_left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 0 {
            return self.inner.get("runs/cut").await.map(drop);
        }
        self.inner.put(name, bytes).await
    }
    async fn replace(&self, name: &str, bytes: bytes::Bytes) -> Result<(), lifeboat::store::StoreError> {
        self.inner.replace(name, bytes).await
    }
    async fn get(&self, name: &str) -> Result<bytes::Bytes, lifeboat::store::StoreError> {
        self.inner.get(name).await
    }
    async fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: u64,
    ) -> Result<bytes::Bytes, lifeboat::store::StoreError> {
        self.inner.get_range(name, offset, length).await
    }
    async fn list(&self, folder: &str) -> Result<Vec<lifeboat::store::Listed>, lifeboat::store::StoreError> {
        self.inner.list(folder).await
    }
    async fn delete(&self, name: &str) -> Result<(), lifeboat::store::StoreError> {
        self.inner.delete(name).await
    }
}
