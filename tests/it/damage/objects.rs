//! Whole objects truncated, removed, exchanged, rolled back, or of a later format.

use bytes::Bytes;
use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::{NoProgress, Progress};
use lifeboat::engine::EngineError;
use lifeboat::engine::verify::outcome::State;
use lifeboat::engine::verify::subset::Subset;
use lifeboat::engine::verify::{VerifyOptions, verify};
use lifeboat::format::header::ObjectKind;
use lifeboat::format::id::ObjectHash;
use lifeboat::format::signed::with_checksum;
use lifeboat::repo::RepoError;
use lifeboat::store::memory::MemoryStore;

use super::build::*;

#[tokio::test]
async fn an_undamaged_repository_verifies_and_reads_back() {
    let memory = MemoryStore::from_snapshot(sample().objects.clone());
    let outcome = check(&memory, true).await.unwrap();
    assert!(outcome.findings.is_empty() && outcome.costs.is_empty(), "{outcome:?}");
    assert!(outcome.not_tested.is_empty(), "{:?}", outcome.not_tested);
    assert_eq!(outcome.checked.snapshots, 2);
    // Data and metadata of two backups; how many blocks share a pack depends on who seals first.
    assert!(outcome.checked.packs >= 4, "{:?}", outcome.checked);
    assert_eq!(outcome.checked.packs_read, outcome.checked.packs, "{:?}", outcome.checked);
    assert_eq!(read_back(&memory).await, all_files());
    let keyless = check_keyless(&memory).await;
    assert!(keyless.findings.is_empty(), "{keyless:?}");
}

#[tokio::test]
async fn truncation_at_any_length_is_found_and_named() {
    for (name, bytes) in &sample().objects {
        for length in [0, 1, 8, 97, 98, bytes.len() / 2, bytes.len() - 1] {
            let memory = changed(|objects| drop(objects.insert(name.clone(), bytes.slice(..length))));
            let result = check(&memory, false).await;
            let named = names(&result, name) || names(&result, "keyring/0");
            assert!(named, "{name} cut to {length}: {result:?}");
            assert_eq!(check_keyless(&memory).await.damaged, 1, "{name} cut to {length}");
        }
        read_back(&changed(|objects| drop(objects.insert(name.clone(), bytes.slice(..bytes.len() / 2)))))
            .await;
    }
}

#[tokio::test]
async fn random_bytes_in_the_place_of_an_object_are_found() {
    for (name, bytes) in &sample().objects {
        let memory = changed(|objects| drop(objects.insert(name.clone(), noise(9, bytes.len()).into())));
        let result = check(&memory, false).await;
        assert!(names(&result, name) || names(&result, "keyring/0"), "{name}: {result:?}");
        read_back(&memory).await;
    }
}

#[tokio::test]
async fn a_missing_object_is_damage_where_something_needs_it() {
    for name in sample().objects.keys() {
        let memory = changed(|objects| drop(objects.remove(name)));
        let result = check(&memory, false).await;
        match kind_of(name) {
            ObjectKind::Config | ObjectKind::Roster | ObjectKind::Data | ObjectKind::Meta => {
                assert!(names(&result, name), "{name}: {result:?}");
            }
            ObjectKind::Keyring => {
                assert!(names(&result, name), "{name}: {result:?}");
                assert_eq!(read_back(&memory).await, all_files(), "the keyring comes from a manifest");
            }
            ObjectKind::Slot => assert!(names(&result, "slot"), "{result:?}"),
            ObjectKind::Snapshot => {
                let id = &name[..name.find('.').unwrap()];
                assert!(names(&result, id), "{name}: {result:?}");
            }
            ObjectKind::Confirm => {
                let outcome = result.unwrap();
                assert!(!outcome.is_damaged() && outcome.incomplete == 1, "{outcome:?}");
            }
            // Hints: everything can be had without.
            ObjectKind::Index => {
                assert!(!result.unwrap().is_damaged());
                assert_eq!(read_back(&memory).await, all_files());
            }
            kind => panic!("the sample has an object of kind {kind:?}"),
        }
        read_back(&memory).await;
    }
}

#[tokio::test]
async fn a_missing_pack_names_the_files_it_costs_and_leaves_the_others() {
    let mut lost_something = 0;
    for (name, _) in sample().objects.iter().filter(|(name, _)| name.starts_with("data/")) {
        let memory = changed(|objects| drop(objects.remove(name)));
        let outcome = check(&memory, false).await.unwrap();
        let lost: u64 = outcome.costs.iter().map(|cost| cost.files).sum();
        assert!(lost > 0 && outcome.finding(name).is_some(), "{name}: {outcome:?}");
        assert_eq!(read_back(&memory).await as u64, all_files() as u64 - lost, "{name}");
        assert!(outcome.costs.iter().all(|cost| cost.confirmed && cost.paths.len() as u64 == cost.files));
        lost_something += lost;
    }
    assert!(lost_something > 0);
}

async fn other_repository() -> Objects {
    let memory = MemoryStore::new();
    let store: std::sync::Arc<dyn lifeboat::store::Store> = std::sync::Arc::new(memory.clone());
    create_in(&store).await;
    let repo = open_in(&store).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    back_up(&repo, folder.path(), &first_files()).await;
    memory.snapshot()
}

#[tokio::test]
async fn an_object_of_another_repository_is_refused() {
    let other = other_repository().await;
    for kind in ObjectKind::ALL {
        let of_kind = |objects: &Objects| {
            objects.iter().find(|(name, _)| kind_of(name) == kind).map(|(n, b)| (n.clone(), b.clone()))
        };
        let (Some((name, _)), Some((theirs, bytes))) = (of_kind(&sample().objects), of_kind(&other)) else {
            continue;
        };
        // In the place of ours.
        let memory = changed(|objects| drop(objects.insert(name.clone(), bytes.clone())));
        let result = check(&memory, false).await;
        let named = names(&result, &name) || names(&result, "keyring/0");
        // The same key file opens the other's slot: then nothing here is signed by that owner.
        let is_slot = kind == ObjectKind::Slot
            && result.as_ref().is_err_and(|error| error.to_string().contains("damaged"));
        assert!(named || is_slot, "{name}: {result:?}");
        // Beside ours, under its own name.
        if theirs != name && kind != ObjectKind::Slot {
            let memory = changed(|objects| drop(objects.insert(theirs.clone(), bytes)));
            let result = check(&memory, false).await;
            assert!(names(&result, &theirs), "{theirs}: {result:?}");
        }
        read_back(&memory).await;
    }
}

#[tokio::test]
async fn the_whole_repository_set_back_is_noticed_by_a_machine_that_remembers() {
    use lifeboat::repo::open::{OpenOptions, open};
    let cache = tempfile::tempdir().unwrap();
    let check_remembering = async |objects: &Objects| {
        let store = std::sync::Arc::new(MemoryStore::from_snapshot(objects.clone()));
        let options = OpenOptions { cache: Some(cache.path()), ..OpenOptions::default() };
        let repo = open(store, &unlock(), &options, world()).await.unwrap();
        let (options, progress) = (VerifyOptions::default(), std::sync::Arc::new(NoProgress));
        verify(&repo, &options, progress, &Cancel::new()).await.unwrap()
    };
    assert!(!check_remembering(&sample().objects).await.is_damaged());
    let outcome = check_remembering(&sample().earlier).await;
    let second = format!("snapshots/{}", sample().snapshots[1].0);
    assert!(outcome.finding(&second).unwrap().what.contains("set back"), "{outcome:?}");
    // Without memory an older state is a sound repository.
    let memory = MemoryStore::from_snapshot(sample().earlier.clone());
    assert!(!check(&memory, false).await.unwrap().is_damaged());
    // A config under a higher number than it says is an old one put again.
    let memory = changed(|objects| {
        let config = objects["config/0"].clone();
        objects.insert("config/1".into(), config);
    });
    assert!(matches!(check(&memory, false).await, Err(EngineError::Repo(RepoError::RolledBack { .. }))));
    // One manifest of a chain taken away: the next one saw it.
    let first = format!("snapshots/{}", sample().snapshots[0].0);
    let memory = changed(|objects| objects.retain(|name, _| !name.starts_with(&first)));
    let outcome = check(&memory, false).await.unwrap();
    let finding = outcome.finding(&first).unwrap();
    assert!(finding.what.contains("without a forgotten mark"), "{finding:?}");
}

#[tokio::test]
async fn a_wrong_password_is_told_from_damage() {
    use lifeboat::format::keyring::Key;
    use lifeboat::repo::open::{OpenOptions, open};
    use lifeboat::seal::slot::Unlock;
    let try_open = async |objects: Objects, key: u8| {
        let store = std::sync::Arc::new(MemoryStore::from_snapshot(objects));
        open(store, &Unlock::KeyFile(Key([key; 32])), &OpenOptions::default(), world()).await.err().unwrap()
    };
    let error = try_open(sample().objects.clone(), 8).await;
    assert!(matches!(error, RepoError::WrongKey { .. }) && !error.is_damage(), "{error}");
    let mut objects = sample().objects.clone();
    let (name, bytes) = objects.iter().find(|(name, _)| name.starts_with("slots/")).unwrap();
    let (name, mut bytes) = (name.clone(), bytes.to_vec());
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    let content = bytes.len() - 32;
    objects.insert(name.clone(), with_checksum(bytes[..content].to_vec()).into());
    let error = try_open(objects, 7).await;
    assert!(error.is_damage() && error.to_string().contains(&name), "{error}");
}

/// Puts `edit`ed bytes under the name they should have then.
fn renamed(objects: &mut Objects, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = objects.remove(name).unwrap().to_vec();
    edit(&mut bytes);
    let hash = ObjectHash(*blake3::hash(&bytes).as_bytes());
    let name = match kind_of(name) {
        ObjectKind::Snapshot => format!("{}.{hash}", &name[..name.find('.').unwrap()]),
        ObjectKind::Data | ObjectKind::Meta | ObjectKind::Index => {
            format!("{}/{hash}", kind_of(name).folder())
        }
        _ => {
            let content = bytes.len() - 32;
            bytes = with_checksum(bytes[..content].to_vec());
            name.to_owned()
        }
    };
    objects.insert(name.clone(), Bytes::from(bytes));
    name
}

#[tokio::test]
async fn a_newer_version_or_feature_is_named_and_is_no_damage() {
    for kind in ObjectKind::ALL {
        let Some(name) = sample().objects.keys().find(|name| kind_of(name) == kind) else { continue };
        for (at, value) in [(8, 9u8), (12, 0x40)] {
            let mut now = String::new();
            let memory = changed(|objects| now = renamed(objects, name, |bytes| bytes[at] = value));
            let keyless = check_keyless(&memory).await;
            assert!(keyless.newer == 1 && keyless.damaged == 0, "{name}: {keyless:?}");
            assert!(keyless.findings[0].what.contains("newer lifeboat"), "{keyless:?}");
            match check(&memory, false).await {
                Ok(outcome) if kind == ObjectKind::Keyring => assert!(outcome.newer == 1, "{outcome:?}"),
                Ok(outcome) => {
                    let finding = outcome.finding(&now).unwrap_or_else(|| panic!("{now}: {outcome:?}"));
                    assert_eq!(finding.state, State::Newer, "{finding:?}");
                }
                Err(EngineError::Repo(error)) => {
                    assert!(error.newer_version().is_some(), "{name}: {error}");
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn hostile_lengths_are_refused_without_being_believed() {
    for name in sample().objects.keys() {
        // Directory offset, directory length, length of enc.
        for (at, width) in [(48, 8), (56, 8), (64, 2)] {
            for value in [u64::MAX, 0] {
                let mut now = String::new();
                let edit = |bytes: &mut Vec<u8>| {
                    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width])
                };
                let memory = changed(|objects| now = renamed(objects, name, edit));
                if memory.snapshot() == sample().objects {
                    continue;
                }
                let result = check(&memory, false).await;
                let wrong_key = matches!(&result, Err(EngineError::Repo(RepoError::WrongKey { .. })));
                let named = names(&result, &now) || names(&result, "keyring/0");
                assert!(
                    named || wrong_key && kind_of(name) == ObjectKind::Slot,
                    "{name} at {at}: {result:?}"
                );
                read_back(&memory).await;
            }
        }
    }
}

/// Interrupts as soon as packs are read.
struct Interrupt(Cancel, std::sync::atomic::AtomicBool);

impl Progress for Interrupt {
    fn phase(&self, name: &'static str) {
        self.1.store(name == "reading packs", std::sync::atomic::Ordering::Relaxed);
    }
    fn add_total(&self, _bytes: u64, _files: u64) {}
    fn add_done(&self, _bytes: u64, _files: u64) {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            self.0.cancel();
        }
    }
    fn current(&self, _item: &str) {}
}

#[tokio::test]
async fn an_interrupted_verify_ends_and_is_no_result() {
    let store = std::sync::Arc::new(MemoryStore::from_snapshot(sample().objects.clone()));
    let repo = open_in(&(store as std::sync::Arc<dyn lifeboat::store::Store>)).await.unwrap();
    let cancel = Cancel::new();
    let progress = std::sync::Arc::new(Interrupt(cancel.clone(), false.into()));
    let options = VerifyOptions { read_data: Some(Subset::All), threads: 1, ..VerifyOptions::default() };
    let result = verify(&repo, &options, progress, &cancel).await;
    assert!(matches!(result, Err(EngineError::Cancelled(_))), "{result:?}");
}
