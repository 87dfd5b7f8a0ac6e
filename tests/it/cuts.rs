//! Cut at every storage write: a backup, a forget, a prune and both kinds of copy die at each put and delete in turn, the last write
//! lost, or landed without an answer. Then a cold cache must find everything committed whole, and the same command,
//! run again, must come to its end.

use std::sync::Arc;
use std::time::Duration;

use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::NoProgress;
use lifeboat::engine::EngineError;
use lifeboat::engine::copy::{CopyOptions, CopyOutcome, copy};
use lifeboat::engine::forget::{self, ForgetOptions};
use lifeboat::engine::prune::{self, MaxUnused, PruneOptions};
use lifeboat::format::id::SnapshotId;
use lifeboat::policy::retention::{Keep, Rules};
use lifeboat::repo::snapshots::Filter;
use lifeboat::repo::sync::Thoroughness;
use lifeboat::repo::{Repository, replica};
use lifeboat::seal::block::Compression;
use lifeboat::store::Store;
use lifeboat::store::fault::{FaultPlan, FaultStore, LastWrite};
use lifeboat::store::memory::MemoryStore;

use crate::small::{self, Files, backup, files, restore};

/// What is run and cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Backup,
    Forget,
    Prune,
    /// Condemns only; a second run, past the grace, deletes.
    PruneWithGrace,
    /// Into a repository with other keys.
    Copy,
    /// Into a replica, as ciphertext.
    Replicate,
}

struct Bench {
    /// What is cut.
    memory: MemoryStore,
    kept: Vec<(SnapshotId, Files)>,
    /// Where a copy comes from, at rest.
    source: MemoryStore,
}

/// Snapshots of which some were forgotten, so that packs are wholly, partly and not at all unneeded.
async fn bench() -> Bench {
    let (memory, repo) = repository(1).await;
    let made = backups(&repo, [0..12, 8..20, 30..40, 0..6, 16..30]).await;
    let snapshots = [0, 2].map(|n: usize| made[n].0.hex()).to_vec();
    let options = ForgetOptions { snapshots, guards: None, ..ForgetOptions::default() };
    let plan = forget::plan(&repo, &options).await.unwrap();
    forget::apply(&repo, &plan, &NoProgress, &Cancel::new()).await.unwrap();
    let kept = [1, 3, 4].map(|n: usize| made[n].clone()).to_vec();
    Bench { memory, kept, source: MemoryStore::new() }
}

/// A target that holds some of what a source has, and something of its own.
async fn copy_bench(verb: Verb) -> Bench {
    let (source, from) = repository(1).await;
    let mut made = backups(&from, [0..12, 8..20]).await;
    let (memory, target) = match verb {
        Verb::Replicate => {
            let memory = MemoryStore::new();
            replica::create(&from, Arc::new(memory.clone())).await.unwrap();
            let target = small::open_repository(Arc::new(memory.clone()), small::world(5)).await.unwrap();
            (memory, target)
        }
        _ => repository(4).await,
    };
    let copied = copy_all(&from, &target).await.unwrap().copied;
    for (snapshot, copied) in made.iter_mut().zip(copied) {
        assert_eq!(copied.from, snapshot.0);
        snapshot.0 = copied.to.unwrap();
    }
    made.extend(backups(&target, std::iter::once(18..26)).await);
    backups(&from, [30..40, 0..6, 16..30]).await;
    Bench { memory, kept: made, source }
}

async fn copy_all(source: &Repository, target: &Repository) -> Result<CopyOutcome, EngineError> {
    let options = CopyOptions {
        snapshots: vec![],
        filter: Filter::default(),
        compression: Compression::None,
        dry_run: false,
    };
    copy(source, target, &options, &NoProgress, &Cancel::new()).await
}

async fn repository(seed: u64) -> (MemoryStore, Repository) {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    small::new_repository(store.clone(), &small::world(seed)).await;
    (memory, small::open_repository(store, small::world(seed + 1)).await.unwrap())
}

async fn backups(
    repo: &Repository,
    ranges: impl IntoIterator<Item = std::ops::Range<u64>>,
) -> Vec<(SnapshotId, Files)> {
    let mut made = Vec::new();
    for chunks in ranges {
        let content = files(chunks);
        let (id, _) = backup(repo, "job", &content, &mut || true).await.unwrap();
        made.push((id, content));
    }
    made
}

async fn prune_once(repo: &Repository, grace: Duration) -> Result<(), EngineError> {
    let options = PruneOptions { grace, max_unused: MaxUnused::Percent(0.0), max_repack_bytes: None };
    let plan = prune::plan(repo, &options, &NoProgress, &Cancel::new()).await?;
    prune::apply(repo, &plan, &NoProgress, &Cancel::new()).await.map(|_| ())
}

async fn run(verb: Verb, source: &MemoryStore, store: Arc<dyn Store>, seed: u64) -> Result<(), EngineError> {
    let repo = small::open_repository(store, small::world(seed)).await?;
    match verb {
        Verb::Backup => drop(backup(&repo, "job", &files(4..50), &mut || true).await?),
        Verb::Forget => {
            let rules = Rules { last: Keep::Count(2), ..Rules::default() };
            let options = ForgetOptions { rules, ..ForgetOptions::default() };
            let plan = forget::plan(&repo, &options).await?;
            forget::apply(&repo, &plan, &NoProgress, &Cancel::new()).await?;
        }
        Verb::Prune => prune_once(&repo, Duration::ZERO).await?,
        Verb::PruneWithGrace => prune_once(&repo, Duration::from_secs(1)).await?,
        Verb::Copy | Verb::Replicate => {
            let source = Arc::new(source.clone());
            let source = small::open_repository(source, small::world(seed + 1)).await?;
            let outcome = copy_all(&source, &repo).await?;
            assert_eq!((outcome.copied.len() + outcome.present.len(), outcome.failed.len()), (5, 0));
        }
    }
    Ok(())
}

/// Opens with nothing remembered and reads back what must be there.
async fn check(memory: &MemoryStore, kept: &[(SnapshotId, Files)], what: &str) -> Repository {
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repo = small::open_repository(store, small::world(3)).await.unwrap();
    repo.sync(Thoroughness::Strict).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    for (id, content) in kept {
        let read = restore(&repo, *id).await.unwrap_or_else(|error| panic!("{what}: {id}: {error}"));
        assert!(read == *content, "{what}: {id} restores other bytes");
    }
    repo
}

async fn cut_everywhere(verb: Verb) {
    let copies = matches!(verb, Verb::Copy | Verb::Replicate);
    let bench = if copies { copy_bench(verb).await } else { bench().await };
    // Retention keeps the last two; what it may drop is not asked for afterwards.
    let kept = if verb == Verb::Forget { &bench.kept[1..] } else { &bench.kept[..] };
    let before = bench.memory.snapshot();
    let mut cuts = 0;
    for last_write in [LastWrite::Lost, LastWrite::Landed] {
        for writes in 0.. {
            let memory = MemoryStore::from_snapshot(before.clone());
            let plan = FaultPlan { die_after_writes: Some(writes), last_write, ..FaultPlan::default() };
            let store = Arc::new(FaultStore::new(Arc::new(memory.clone()), plan));
            let result = run(verb, &bench.source, store.clone(), 100 + writes).await;
            let what = format!("{verb:?} cut at write {writes}, {last_write:?}");
            check(&memory, kept, &what).await;
            if !store.is_dead() {
                result.unwrap_or_else(|error| panic!("{what}: {error}"));
                break;
            }
            cuts += 1;
            run(verb, &bench.source, Arc::new(memory.clone()), 7000 + writes)
                .await
                .unwrap_or_else(|e| panic!("{what}: again: {e}"));
            let repo = check(&memory, kept, &what).await;
            if verb == Verb::Prune {
                let all = repo.list_packs().await.unwrap();
                let condemned = repo.tombstones().await.unwrap();
                let left =
                    condemned.values().flat_map(|t| &t.packs).filter(|(_, hash)| all.contains_key(hash));
                assert_eq!(left.count(), 0, "{what}: condemned packs stay");
            }
            if copies {
                let list = repo.snapshots().await.unwrap();
                let whole: Vec<_> = list.snapshots.iter().filter(|snapshot| snapshot.confirmed).collect();
                assert_eq!(whole.len(), 6, "{what}: each snapshot arrives once");
                for snapshot in whole {
                    let files = restore(&repo, snapshot.id).await;
                    assert!(!files.unwrap_or_else(|error| panic!("{what}: {error}")).is_empty());
                }
            }
        }
    }
    println!("{verb:?}: {cuts} cuts");
    assert!(cuts >= 4, "{verb:?} makes only {cuts} writes");
}

#[tokio::test]
async fn a_backup_cut_at_every_write_loses_nothing_and_completes() {
    cut_everywhere(Verb::Backup).await;
}

#[tokio::test]
async fn a_forget_cut_at_every_write_loses_nothing_and_completes() {
    cut_everywhere(Verb::Forget).await;
}

#[tokio::test]
async fn a_prune_cut_at_every_write_loses_nothing_and_completes() {
    cut_everywhere(Verb::Prune).await;
}

#[tokio::test]
async fn a_prune_with_grace_cut_at_every_write_loses_nothing_and_completes() {
    cut_everywhere(Verb::PruneWithGrace).await;
}

#[tokio::test]
async fn a_copy_cut_at_every_write_loses_nothing_and_completes() {
    cut_everywhere(Verb::Copy).await;
}

#[tokio::test]
async fn a_replication_cut_at_every_write_loses_nothing_and_completes() {
    cut_everywhere(Verb::Replicate).await;
}

/// The space of forgotten snapshots comes back, once the grace is over and not before.
#[tokio::test]
async fn condemned_packs_go_after_the_grace_only() {
    let bench = bench().await;
    let store: Arc<dyn Store> = Arc::new(bench.memory.clone());
    let repo = small::open_repository(store, small::world(9)).await.unwrap();
    let packs = async |repo: &Repository| repo.list_packs().await.unwrap().len();
    let before = packs(&repo).await;
    prune_once(&repo, Duration::from_secs(3600)).await.unwrap();
    assert!(packs(&repo).await >= before, "nothing is deleted yet");
    assert_eq!(repo.tombstones().await.unwrap().len(), 1);
    prune_once(&repo, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(repo.tombstones().await.unwrap().len(), 1);
    let mut seen = repo.local.seen();
    seen.tombstones.values_mut().for_each(|since| *since -= 3600);
    repo.local.remember(&seen).unwrap();
    prune_once(&repo, Duration::from_secs(3600)).await.unwrap();
    assert!(packs(&repo).await < before && repo.tombstones().await.unwrap().is_empty());
    check(&bench.memory, &bench.kept, "after the grace").await;
}
