//! Keys: who may do what, and how they are added, changed, rotated and ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat::format::keyring::{Key, Role};
use lifeboat::repo::RepoError;
use lifeboat::repo::keys::{self, NewSlot};
use lifeboat::repo::kit::{Extras, Kit};
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::seal::SealError;
use lifeboat::seal::slot::Unlock;
use lifeboat::store::Store;
use lifeboat::store::memory::MemoryStore;

use crate::plain::{CHEAP, backup, new_repository, passphrase, reopen, restore, sample, try_open, world};

fn memory() -> (MemoryStore, Arc<dyn Store>) {
    let memory = MemoryStore::new();
    (memory.clone(), Arc::new(memory))
}

fn slot<'a>(label: &str, unlock: &'a Unlock) -> NewSlot<'a> {
    NewSlot { label: label.into(), unlock, cost: CHEAP }
}

#[tokio::test]
async fn a_writer_adds_and_deduplicates_but_opens_nothing() {
    let (_, store) = memory();
    let owner = new_repository(&store, "owner").await;
    let unlock = Unlock::KeyFile(Key([7; 32]));
    let added = keys::add_writer(&owner, &slot("web", &unlock), None).await.unwrap();
    let writer = try_open(&store, &unlock).await.unwrap();
    assert_eq!((writer.access.role, writer.access.home), (Role::Writer, added.domain));
    let (first, stored) = backup(&writer, "web", &sample(0..60)).await;
    assert!(stored.new_chunks > 0);
    let writer = try_open(&store, &unlock).await.unwrap();
    let (_, again) = backup(&writer, "web", &sample(0..60)).await;
    assert_eq!(again.new_chunks, 0);

    // With everything its access holds: no content secret, no root, no manifest contents, no block.
    for domain in writer.access.domains() {
        assert_eq!(domain.number(), added.domain);
        for epoch in &domain.keys.epochs {
            assert!(epoch.data_secret.is_none() && epoch.meta_secret.is_none());
        }
    }
    assert!(writer.owner.is_none());
    let error = restore(&writer, first).await.unwrap_err();
    assert!(matches!(error, RepoError::Seal(SealError::NotPermitted(_))));
    assert!(error.to_string().contains("this key adds; it cannot restore"), "{error}");
    for pack in writer.index.packs() {
        let block = writer.index.blocks_of(&pack).unwrap()[0].clone();
        let stored = writer.reader.fetch(&block).await.unwrap().to_vec();
        let mut codecs = lifeboat::seal::block::Codecs::new().unwrap();
        assert!(writer.reader.open(&block, &stored, &mut codecs).is_err());
    }
    for result in [
        keys::rotate(&writer).await.map(drop),
        keys::revoke(&writer, &owner.access.identity.key).await.map(drop),
        keys::add_writer(&writer, &slot("x", &unlock), None).await.map(drop),
    ] {
        assert!(matches!(result, Err(RepoError::NotPermitted { .. })), "{result:?}");
    }
    let owner = reopen(&store, "owner").await;
    assert_eq!(restore(&owner, first).await.unwrap(), sample(0..60));
}

#[tokio::test]
async fn domains_deduplicate_inside_and_never_across() {
    let (_, store) = memory();
    let mut owner = new_repository(&store, "owner").await;
    let unlocks = ["a", "b", "c"].map(passphrase);
    let a = keys::add_writer(&owner, &slot("a", &unlocks[0]), None).await.unwrap();
    owner = reopen(&store, "owner").await;
    let b = keys::add_writer(&owner, &slot("b", &unlocks[1]), None).await.unwrap();
    owner = reopen(&store, "owner").await;
    let c = keys::add_writer(&owner, &slot("c", &unlocks[2]), Some("a")).await.unwrap();
    assert!(a.domain != b.domain && a.domain == c.domain);
    let files = sample(0..40);
    let mut ids = Vec::new();
    let mut fresh = Vec::new();
    for unlock in &unlocks {
        let writer = try_open(&store, unlock).await.unwrap();
        let (id, stored) = backup(&writer, "job", &files).await;
        ids.push(id);
        fresh.push(stored.new_chunks);
    }
    assert_eq!((fresh[0], fresh[2]), (fresh[1], 0));
    let owner = reopen(&store, "owner").await;
    for id in ids {
        assert_eq!(restore(&owner, id).await.unwrap(), files);
    }
    let unknown = keys::add_writer(&owner, &slot("d", &unlocks[0]), Some("nobody")).await;
    assert!(matches!(unknown, Err(RepoError::Refused(_))));
}

#[tokio::test]
async fn after_a_rotation_old_and_new_snapshots_restore_and_writers_go_on() {
    let (_, store) = memory();
    let owner = new_repository(&store, "owner").await;
    let unlock = passphrase("writer");
    keys::add_writer(&owner, &slot("w", &unlock), None).await.unwrap();
    let stale = try_open(&store, &unlock).await.unwrap();
    let (old, _) = backup(&stale, "w", &sample(0..30)).await;
    let owner = reopen(&store, "owner").await;
    let (own, _) = backup(&owner, "o", &sample(0..30)).await;
    let rotated = keys::rotate(&owner).await.unwrap();
    assert_eq!(rotated.epochs, [(0, 1), (1, 1)]);
    // A run that began before goes on with the epoch it knows.
    let (between, _) = backup(&stale, "w", &sample(0..31)).await;
    let writer = try_open(&store, &unlock).await.unwrap();
    assert_eq!(writer.access.home().current().epoch, 1);
    let (new, stored) = backup(&writer, "w", &sample(0..31)).await;
    assert_eq!(stored.new_chunks, 0, "ids persist across epochs");
    let (newest, _) = backup(&writer, "w", &sample(0..33)).await;
    let owner = reopen(&store, "owner").await;
    for (id, range) in [(old, 0..30), (own, 0..30), (between, 0..31), (new, 0..31), (newest, 0..33)] {
        assert_eq!(restore(&owner, id).await.unwrap(), sample(range));
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_and_what_it_signs_later_is_not_trusted() {
    let (_, store) = memory();
    let owner = new_repository(&store, "owner").await;
    let unlock = passphrase("writer");
    let added = keys::add_writer(&owner, &slot("laptop", &unlock), None).await.unwrap();
    let thief = try_open(&store, &unlock).await.unwrap();
    let (before, _) = backup(&thief, "w", &sample(0..30)).await;
    let owner = reopen(&store, "owner").await;
    let revoked = keys::revoke(&owner, &added.key).await.unwrap();
    assert_eq!((revoked.label.as_str(), revoked.epoch), ("laptop", 1));
    assert_eq!(revoked.jobs, [("w".to_owned(), 0)]);
    assert!(revoked.packs > 0 && revoked.slots.len() == 1);
    // The slot is gone for who comes later; who kept the keys in memory can still put objects.
    assert!(matches!(try_open(&store, &unlock).await, Err(RepoError::WrongKey { .. })));
    let (after, _) = backup(&thief, "w", &sample(0..50)).await;
    let (other, _) = backup(&thief, "new job", &sample(0..50)).await;

    let owner = reopen(&store, "owner").await;
    assert_eq!(restore(&owner, before).await.unwrap(), sample(0..30));
    let list = owner.snapshots().await.unwrap();
    let untrusted: BTreeSet<_> = list.untrusted.iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(untrusted, BTreeSet::from([after, other]));
    assert!(list.snapshots.iter().all(|snapshot| snapshot.id != after && snapshot.id != other));
    let trusted = owner.index.packs().iter().filter(|pack| pack.author == added.key).count();
    assert_eq!(trusted as u64, revoked.packs, "no row that only the revoked key signed is believed");
    assert!(matches!(keys::revoke(&owner, &added.key).await, Err(RepoError::Refused(_))));
    assert!(matches!(keys::revoke(&owner, &owner.access.identity.key).await, Err(RepoError::Refused(_))));

    // The slot put back, as a storage that is rolled back would: refused by the roster.
    let unlock = passphrase("other");
    let kept = keys::add_writer(&owner, &slot("desk", &unlock), None).await.unwrap();
    let name = format!("slots/{}", kept.slot);
    let bytes = store.get(&name).await.unwrap();
    keys::revoke(&reopen(&store, "owner").await, &kept.key).await.unwrap();
    store.put(&name, bytes).await.unwrap();
    let refused = try_open(&store, &unlock).await.map(drop);
    assert!(matches!(&refused, Err(RepoError::NotPermitted { .. })), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("revoked"));
}

#[tokio::test]
async fn passwords_change_and_the_last_owner_slot_stays() {
    let (_, store) = memory();
    let owner = new_repository(&store, "first").await;
    let second = passphrase("second");
    let changed = keys::passwd(&owner, &passphrase("first"), &second, CHEAP).await.unwrap();
    assert_eq!((changed.added.len(), changed.removed.len()), (1, 1));
    assert!(matches!(try_open(&store, &passphrase("first")).await, Err(RepoError::WrongKey { .. })));
    let owner = reopen(&store, "second").await;
    let wrong = keys::passwd(&owner, &passphrase("wrong"), &second, CHEAP).await;
    assert!(matches!(wrong, Err(RepoError::WrongKey { .. })));
    assert!(matches!(keys::remove(&owner, "owner", &second).await, Err(RepoError::Refused(_))));
    // Storage that shows a slot as the owner's cannot make the real one look superfluous.
    let name = store.list("slots").await.unwrap()[0].name.clone();
    let mut forged = store.get(&name).await.unwrap().to_vec();
    let end = forged.len() - 32;
    forged[end - 1] ^= 1;
    let sum = blake3::hash(&forged[..end]);
    forged[end..].copy_from_slice(sum.as_bytes());
    store.put("slots/00000000000000000000000000000000", forged.into()).await.unwrap();
    let real = name.rsplit('/').next().unwrap();
    assert!(matches!(keys::remove(&owner, real, &second).await, Err(RepoError::Refused(_))));
    store.delete("slots/00000000000000000000000000000000").await.unwrap();
    let file = Unlock::KeyFile(Key([9; 32]));
    keys::add_owner(&owner, &slot("usb stick", &file)).await.unwrap();
    assert_eq!(try_open(&store, &file).await.unwrap().access.role, Role::Owner);
    let list = keys::list(&owner).await.unwrap();
    assert_eq!(list.keys.len(), 1);
    assert!(list.keys[0].in_use && list.keys[0].slots.len() == 2);
    // The one in use is not proof of the other.
    assert!(matches!(keys::remove(&owner, "owner", &second).await, Err(RepoError::Refused(_))));
    keys::remove(&owner, "owner", &file).await.unwrap();
    assert!(matches!(try_open(&store, &second).await, Err(RepoError::WrongKey { .. })));
    assert!(try_open(&store, &file).await.is_ok());
}

#[tokio::test]
async fn the_list_tells_who_wrote_when_and_what_is_damaged() {
    let (memory, store) = memory();
    let owner = new_repository(&store, "owner").await;
    let unlock = passphrase("w");
    let added = keys::add_writer(&owner, &slot("web", &unlock), None).await.unwrap();
    let writer = try_open(&store, &unlock).await.unwrap();
    backup(&writer, "w", &sample(0..5)).await;
    keys::revoke(&reopen(&store, "owner").await, &added.key).await.unwrap();
    memory.overwrite("slots/00", bytes::Bytes::from_static(b"LIFEBOAT and then nothing"));
    let list = keys::list(&reopen(&store, "owner").await).await.unwrap();
    let row = list.keys.iter().find(|row| row.key == added.key).unwrap();
    assert_eq!((row.label.as_str(), row.role, row.revoked, row.snapshots), ("web", Role::Writer, true, 1));
    assert!(row.slots.is_empty() && row.last_snapshot_seconds.is_some());
    assert_eq!(list.damaged_slots.len(), 1);
    assert!(serde_json::to_string(&list).unwrap().contains(&added.key.hex()));
}

#[tokio::test]
async fn a_wrong_password_is_told_from_a_damaged_slot() {
    let (memory, store) = memory();
    new_repository(&store, "right").await;
    let name = store.list("slots").await.unwrap()[0].name.clone();
    let whole = store.get(&name).await.unwrap();
    assert!(matches!(try_open(&store, &passphrase("wrong")).await, Err(RepoError::WrongKey { .. })));
    for at in [whole.len() - 40, whole.len() / 2, 70] {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        memory.overwrite(&name, bytes.into());
        let error = try_open(&store, &passphrase("right")).await.map(drop).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(&name), "{error}");
    }
}

#[tokio::test]
async fn of_two_owners_at_once_one_is_told_of_the_conflict() {
    let (_, store) = memory();
    new_repository(&store, "owner").await;
    let (a, b) = (reopen(&store, "owner").await, reopen(&store, "owner").await);
    let unlock = passphrase("w");
    keys::add_writer(&a, &slot("a", &unlock), None).await.unwrap();
    let lost = keys::rotate(&b).await;
    assert!(matches!(lost, Err(RepoError::Conflict(_))), "{lost:?}");
    // Nothing of the loser is there, and it succeeds once it has seen the other's change.
    let again = reopen(&store, "owner").await;
    assert_eq!(again.roster.members.len(), 2);
    assert_eq!(keys::rotate(&again).await.unwrap().keyring, 2);
    assert!(try_open(&store, &unlock).await.is_ok());
}

#[tokio::test]
async fn a_change_of_keys_that_was_cut_off_leaves_a_working_repository() {
    let (memory, store) = memory();
    let owner = new_repository(&store, "owner").await;
    let unlock = passphrase("w");
    keys::add_writer(&owner, &slot("w", &unlock), None).await.unwrap();
    let before = memory.snapshot();
    keys::rotate(&reopen(&store, "owner").await).await.unwrap();
    let after = memory.snapshot();
    // Only the keyring was put; and for the addition of a key, everything but its slot.
    let mut cut = before.clone();
    cut.insert("keyring/2".into(), after["keyring/2"].clone());
    let cut: Arc<dyn Store> = Arc::new(MemoryStore::from_snapshot(cut));
    let owner = reopen(&cut, "owner").await;
    let writer = try_open(&cut, &unlock).await.unwrap();
    let (a, _) = backup(&owner, "o", &sample(0..10)).await;
    let (b, _) = backup(&writer, "w", &sample(0..10)).await;
    keys::rotate(&reopen(&cut, "owner").await).await.unwrap();
    let writer = try_open(&cut, &unlock).await.unwrap();
    let (c, _) = backup(&writer, "w", &sample(0..11)).await;
    let owner = reopen(&cut, "owner").await;
    for (id, range) in [(a, 0..10), (b, 0..10), (c, 0..11)] {
        assert_eq!(restore(&owner, id).await.unwrap(), sample(range));
    }
}

#[tokio::test]
async fn a_storage_that_was_rolled_back_is_noticed() {
    let (memory, store) = memory();
    new_repository(&store, "owner").await;
    let cache = tempfile::tempdir().unwrap();
    let options = OpenOptions { cache: Some(cache.path()), ..OpenOptions::default() };
    let unlock = passphrase("owner");
    let owner = open(store.clone(), &unlock, &options, world()).await.unwrap();
    keys::rotate(&owner).await.unwrap();
    open(store.clone(), &unlock, &options, world()).await.unwrap();
    let now = memory.snapshot();
    for gone in ["keyring/1", "roster/1"] {
        let mut old = now.clone();
        old.remove(gone);
        let old: Arc<dyn Store> = Arc::new(MemoryStore::from_snapshot(old));
        let result = open(old, &unlock, &options, world()).await.map(drop);
        assert!(matches!(result, Err(RepoError::RolledBack { .. })), "{gone}: {result:?}");
    }
    // An old object under the newer name, and a config from before.
    for (name, content) in [("roster/1", "roster/0"), ("keyring/1", "keyring/0")] {
        let mut old = now.clone();
        old.insert(name.into(), now[content].clone());
        let old: Arc<dyn Store> = Arc::new(MemoryStore::from_snapshot(old));
        let result = open(old, &unlock, &OpenOptions::default(), world()).await.map(drop);
        assert!(matches!(result, Err(RepoError::RolledBack { .. })), "{name}: {result:?}");
    }
}

fn extras() -> Extras {
    Extras { addresses: vec!["memory:own".into(), "/mnt/replica".into()], ..Extras::default() }
}

#[tokio::test]
async fn the_kit_and_the_passphrase_open_a_repository_without_its_keys() {
    let (_, store) = memory();
    let owner = new_repository(&store, "owner").await;
    let (id, _) = backup(&owner, "o", &sample(0..20)).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kit.txt");
    lifeboat::engine::kit::export(&owner, &path, extras()).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(lifeboat::engine::kit::export(&owner, &path, extras()).await.is_err(), "never overwritten");
    for kind in ["keyring", "slots", "roster", "config"] {
        for listed in store.list(kind).await.unwrap() {
            store.delete(&listed.name).await.unwrap();
        }
    }
    assert!(try_open(&store, &passphrase("owner")).await.is_err());
    let kit = lifeboat::engine::kit::load(&path).unwrap();
    assert_eq!(kit.addresses.len(), 2);
    let helped = kit.clone().over(store.clone());
    assert_eq!(restore(&reopen(&helped, "owner").await, id).await.unwrap(), sample(0..20));
    assert!(matches!(try_open(&helped, &passphrase("wrong")).await, Err(RepoError::WrongKey { .. })));
    let text = std::fs::read_to_string(&path).unwrap().replacen("-----END", "x-----END", 1);
    assert!(Kit::decode(&text).is_err());
}
