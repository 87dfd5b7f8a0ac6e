//! Repair: the index comes back from the packs, a later backup heals, and what stays lost is named.

use std::sync::Arc;

use bytes::Bytes;
use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::NoProgress;
use lifeboat::engine::repair::{apply_index, plan_index};
use lifeboat::store::Store;
use lifeboat::store::memory::MemoryStore;

use super::build::*;

async fn repair(memory: &MemoryStore) -> lifeboat::engine::repair::IndexOutcome {
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repo = open_in(&store).await.unwrap();
    let plan = plan_index(&repo).await.unwrap();
    apply_index(&repo, plan, &NoProgress, &Cancel::new()).await.unwrap()
}

#[tokio::test]
async fn a_damaged_index_and_keyring_are_made_anew() {
    let memory = changed(|objects| {
        let index: Vec<String> = objects.keys().filter(|name| name.starts_with("index/")).cloned().collect();
        assert_eq!(index.len(), 2);
        objects.insert(index[0].clone(), Bytes::from_static(b"LIFEBOAT but not really"));
        objects.remove(&index[1]);
        objects.remove("keyring/0");
    });
    assert!(check(&memory, false).await.unwrap().is_damaged());
    let outcome = repair(&memory).await;
    assert_eq!((outcome.written, outcome.removed), (1, 1), "{outcome:?}");
    assert_eq!(outcome.keyring.as_deref(), Some("keyring/0"));
    let after = check(&memory, true).await.unwrap();
    assert!(after.findings.is_empty() && after.notes.is_empty(), "{after:?}");
    assert_eq!(memory.snapshot()["keyring/0"], sample().objects["keyring/0"]);
    assert_eq!(read_back(&memory).await, all_files());
    // Once more changes nothing but the object itself.
    let again = repair(&memory).await;
    assert_eq!((again.packs, again.chunks), (outcome.packs, outcome.chunks));
    assert!(check(&memory, false).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn a_pack_without_directory_keeps_the_rows_the_index_had() {
    let name = sample().objects.keys().find(|name| name.starts_with("data/")).unwrap();
    let memory = changed(|objects| {
        let mut bytes = objects[name].to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        objects.insert(name.clone(), bytes.into());
    });
    let outcome = repair(&memory).await;
    assert_eq!(outcome.headless.len(), 1);
    assert!(outcome.headless[0].0 == *name && outcome.headless[0].2, "{outcome:?}");
    assert_eq!(read_back(&memory).await, all_files(), "its blocks are still found and opened");
    let after = check(&memory, false).await.unwrap();
    assert!(after.is_damaged() && after.costs.is_empty(), "damaged, but it costs nothing yet: {after:?}");
}

#[tokio::test]
async fn a_later_backup_of_the_same_content_heals_older_snapshots() {
    let lost: Vec<String> =
        sample().objects.keys().filter(|name| name.starts_with("data/")).cloned().collect();
    let memory = changed(|objects| lost.iter().for_each(|name| drop(objects.remove(name))));
    let before = check(&memory, false).await.unwrap();
    assert_eq!(before.costs.len(), 2);
    repair(&memory).await;
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repo = open_in(&store).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let id = back_up(&repo, folder.path(), &first_files()).await;
    let after = check(&memory, true).await.unwrap();
    let first = &sample().snapshots[0].0;
    assert!(
        after.costs.iter().all(|cost| cost.snapshot != *first && cost.snapshot != id),
        "{:?}",
        after.costs
    );
    // What only the second snapshot held is still named.
    assert_eq!(after.costs.len(), 1);
    assert_eq!(after.costs[0].files, 2, "{:?}", after.costs);
}
