//! What verify says to keys that open less than everything, and after keys were rotated or revoked.

use std::sync::Arc;

use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::NoProgress;
use lifeboat::engine::verify::outcome::VerifyOutcome;
use lifeboat::engine::verify::subset::Subset;
use lifeboat::engine::verify::{VerifyOptions, verify};
use lifeboat::repo::Repository;
use lifeboat::repo::keys::{self, NewSlot};
use lifeboat::store::Store;
use lifeboat::store::memory::MemoryStore;

use crate::plain::{CHEAP, backup, new_repository, passphrase, reopen, sample, try_open};

async fn read_data(repo: &Repository) -> VerifyOutcome {
    let options = VerifyOptions { read_data: Some(Subset::All), threads: 2, ..VerifyOptions::default() };
    verify(repo, &options, Arc::new(NoProgress), &Cancel::new()).await.unwrap()
}

#[tokio::test]
async fn a_writer_compares_hashes_and_says_what_it_could_not_open() {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let owner = new_repository(&store, "owner").await;
    backup(&owner, "own", &sample(0..20)).await;
    let unlock = passphrase("writer");
    keys::add_writer(&owner, &NewSlot { label: "web".into(), unlock: &unlock, cost: CHEAP }, None)
        .await
        .unwrap();
    let writer = try_open(&store, &unlock).await.unwrap();
    backup(&writer, "web", &sample(0..60)).await;

    let outcome = read_data(&try_open(&store, &unlock).await.unwrap()).await;
    assert!(outcome.findings.is_empty(), "{outcome:?}");
    let untested = outcome.not_tested.join("\n");
    for what in ["keyring", "domains this key has no part in", "cannot open them"] {
        assert!(untested.contains(what), "{what}: {untested}");
    }
    // It opens nothing, and still finds a flipped byte in a block of its own.
    let before = memory.snapshot();
    let writer = try_open(&store, &unlock).await.unwrap();
    writer.sync(lifeboat::repo::sync::Thoroughness::Strict).await.unwrap();
    let pack = writer.index.packs()[0].clone();
    let name = lifeboat::pack::pack_name(pack.kind, &pack.hash);
    let mut bytes = before[&name].to_vec();
    bytes[140] ^= 1;
    memory.overwrite(&name, bytes.into());
    assert!(read_data(&writer).await.finding(&name).is_some());
    memory.overwrite(&name, before[&name].clone());

    // Rotated and revoked, everything that was vouched for is still sound.
    let owner = reopen(&store, "owner").await;
    keys::rotate(&owner).await.unwrap();
    let owner = reopen(&store, "owner").await;
    backup(&owner, "own", &sample(0..30)).await;
    let outcome = read_data(&reopen(&store, "owner").await).await;
    assert!(outcome.findings.is_empty() && outcome.not_tested.is_empty(), "{outcome:?}");
    keys::revoke(&reopen(&store, "owner").await, &writer.access.identity.key).await.unwrap();
    let outcome = read_data(&reopen(&store, "owner").await).await;
    assert!(outcome.findings.is_empty(), "{outcome:?}");
    assert_eq!(outcome.checked.snapshots, 3);
}
