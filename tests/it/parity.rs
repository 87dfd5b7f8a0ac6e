//! Parity: made as packs are written or afterwards, it makes damaged packs whole again byte for byte, and is never
//! needed for anything else.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::{NoProgress, Progress};
use lifeboat::engine::parity::{self, ParityOptions};
use lifeboat::engine::repair::{PacksOptions, heal_packs, plan_packs};
use lifeboat::format::parity::Share;
use lifeboat::store::memory::MemoryStore;
use lifeboat::store::{Listed, Store, StoreError, StoreErrorKind};

use crate::damage::build::{back_up, check, create_in, noise, open_in};
use crate::heal::{Place, change};

fn names(place: &Place, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(place.repository().join(folder)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Packs that have parity, by the names of both.
fn covered(place: &Place) -> bool {
    let mut packs = [names(place, "data"), names(place, "meta")].concat();
    packs.sort();
    let of = |name: &String| name.split('.').next().unwrap().to_owned();
    packs == names(place, "parity").iter().map(of).collect::<Vec<_>>()
}

fn parity_of(place: &Place, pack: &Path) -> PathBuf {
    let leaf = pack.file_name().unwrap().to_str().unwrap();
    let names = names(place, "parity");
    place.repository().join("parity").join(names.iter().find(|name| name.starts_with(leaf)).unwrap())
}

fn flips(path: &Path, places: impl Iterator<Item = usize>) {
    change(path, |bytes| places.for_each(|at| bytes[at] ^= 0x40));
}

/// Damages a pack, repairs, and expects its very bytes back and nothing condemned.
fn is_made_whole(place: &Place, pack: &Path, name: &str, damage: impl FnOnce(&Path)) {
    let whole = std::fs::read(pack).unwrap();
    damage(pack);
    let damaged = std::fs::read(pack).ok();
    let (code, plan) = place.json(&["--json", "repair", "packs", "--dry-run"]);
    assert_eq!(code, 0, "{name}: {plan}");
    assert_eq!(plan["healable"].as_array().unwrap().len(), 1, "{name}: {plan}");
    assert_eq!(std::fs::read(pack).ok(), damaged, "{name}: a dry run changed the pack");
    let (code, done) = place.json(&["--json", "repair", "packs"]);
    assert_eq!(code, 0, "{name}: {done}");
    assert_eq!(
        (&done["healed"][0]["parts"].is_u64(), &done["done"]["condemned"]),
        (&true, &0.into()),
        "{done}"
    );
    assert!(std::fs::read(pack).unwrap() == whole, "{name}");
    place.ok(&["verify", "--read-data"]);
    place.oldest_is_whole(&format!("restored-{name}"));
}

#[test]
fn flipped_cut_and_lost_packs_are_made_whole_again() {
    let place = Place::new();
    assert_eq!(names(&place, "parity").len(), 0);
    place.ok(&["parity", "--share", "10%"]);
    assert!(covered(&place));
    let data = place.pack("data");
    let size = std::fs::metadata(&data).unwrap().len() as usize;
    is_made_whole(&place, &data, "flips", |pack| {
        flips(pack, (0..40).chain((1..50).map(|n| n * (size / 50))))
    });
    is_made_whole(&place, &data, "cut", |pack| change(pack, |bytes| bytes.truncate(size - 100_000)));
    let meta = place.pack("meta");
    is_made_whole(&place, &meta, "pages", |pack| flips(pack, 100..120));
    // As much parity as pack: even one that is gone comes back.
    place.ok(&["parity", "--share", "100%"]);
    assert!(covered(&place), "what was too little gave way");
    is_made_whole(&place, &data, "gone", |pack| std::fs::remove_file(pack).unwrap());
}

#[test]
fn damage_beyond_parity_is_said_and_salvaged_as_without_it() {
    let place = Place::new();
    place.ok(&["parity", "--share", "1%"]);
    let pack = place.pack("data");
    let size = std::fs::metadata(&pack).unwrap().len() as usize;
    flips(&pack, (0..size).step_by(8192));
    let output = place.run(&["repair", "packs"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("does not suffice: parity/") && told.contains("parts of parity are sound"),
        "{told}"
    );
    assert!(told.contains("condemned 1 pack"), "{told}");
    // The source is still there: the next backup stores again what was lost, with parity.
    place.ok(&["--option", "parity=5%", "backup", "--job", "job", place.source().to_str().unwrap()]);
    place.ok(&["verify", "--read-data"]);
    place.oldest_is_whole("again");
}

#[test]
fn each_pack_gets_its_parity_as_it_is_written_and_loses_it_with_a_prune() {
    let place = Place::small();
    let first = names(&place, "data");
    std::fs::write(place.source().join("more"), crate::bench::random(3, 900_000)).unwrap();
    place.ok(&["--option", "parity=5%", "backup", "--job", "job", place.source().to_str().unwrap()]);
    let parity = names(&place, "parity");
    assert!(!parity.is_empty() && !parity.iter().any(|name| name.starts_with(&first[0])), "{parity:?}");
    let (_, told) = place.json(&["--json", "parity"]);
    assert_eq!(
        (&told["plan"]["covered"], &told["done"]["made"]),
        (&(parity.len() as u64).into(), &told["plan"]["wanting"])
    );
    assert!(covered(&place));
    let again = names(&place, "parity");
    let (_, told) = place.json(&["--json", "parity"]);
    assert_eq!(told["done"]["made"], 0);
    assert_eq!(names(&place, "parity"), again);
    std::fs::remove_file(place.source().join("more")).unwrap();
    place.back_up();
    let snapshots = place.snapshots();
    place.ok(&["forget", "--yes", &snapshots[1]]);
    place.ok(&["--option", "parity=5%", "prune", "--yes", "--grace", "0s", "--max-unused", "0"]);
    place.ok(&["parity"]);
    assert!(covered(&place), "{:?} {:?}", names(&place, "data"), names(&place, "parity"));
    place.ok(&["verify", "--read-data"]);
    assert_eq!(place.code(&["parity", "--remove"]), 2, "it asks");
    place.ok(&["parity", "--remove", "--yes"]);
    assert_eq!(names(&place, "parity").len(), 0);
}

#[test]
fn damaged_parity_is_found_made_anew_and_costs_nothing() {
    let place = Place::new();
    place.ok(&["parity"]);
    let pack = place.pack("data");
    let parity = parity_of(&place, &pack);
    let whole = std::fs::read(&parity).unwrap();
    flips(&parity, [whole.len() - 10].into_iter());
    assert_eq!(place.code(&["verify"]), 0, "structure does not read parity");
    for how in [&["--json", "verify", "--read-data"][..], &["--json", "verify", "--keyless"]] {
        let (code, told) = place.json(how);
        assert_eq!((code, told["costs"].as_array().unwrap().len()), (20, 0), "{told}");
        assert!(told["findings"][0]["object"].as_str().unwrap().starts_with("parity/"), "{told}");
        assert!(told["advice"].to_string().contains("parity --check"), "{told}");
    }
    assert_eq!(place.json(&["--json", "parity", "--check", "--dry-run"]).1["plan"]["wanting"], 1);
    let (code, told) = place.json(&["--json", "parity", "--check"]);
    assert_eq!((code, &told["done"]["made"]), (0, &1.into()), "{told}");
    assert!(std::fs::read(&parity).unwrap() == whole);
    place.ok(&["verify", "--read-data"]);
    // Of a damaged pack none is made: parity of damage would hide it.
    std::fs::remove_file(&parity).unwrap();
    flips(&pack, [5000].into_iter());
    let output = place.run(&["parity"]);
    assert_eq!(output.status.code(), Some(20), "{output:?}");
    assert!(
        !parity.exists() && String::from_utf8_lossy(&output.stderr).contains("repair packs"),
        "{output:?}"
    );
}

#[test]
fn whoever_keeps_the_storage_needs_no_password() {
    let place = Place::small();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.arg("-r").arg(place.repository()).arg("parity").env_clear();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(covered(&place));
    let empty = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    let output = command.arg("-r").arg(empty.path()).arg("parity").env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    for bad in ["0%", "101%", "5", "abc"] {
        assert_eq!(place.code(&["parity", "--share", bad]), 2, "{bad}");
        assert_eq!(place.code(&["--option", &format!("parity={bad}"), "snapshots"]), 2, "{bad}");
    }
}

/// A disk with a sector of one object that it cannot read, until the object is written anew.
#[derive(Debug)]
struct BadSector {
    inner: MemoryStore,
    bad: Mutex<Option<(String, u64)>>,
    /// Everything that was put or replaced, in order.
    written: Mutex<Vec<String>>,
}

impl BadSector {
    fn read(&self, name: &str, from: u64, length: u64) -> Result<(), StoreError> {
        let bad = self.bad.lock().unwrap();
        let hit = |(object, at): &(String, u64)| object == name && from < at + 4096 && *at < from + length;
        if !bad.as_ref().is_some_and(hit) {
            return Ok(());
        }
        let (subject, location) = (name.to_owned(), self.inner.location());
        let cause = "Input/output error".into();
        Err(StoreError { kind: StoreErrorKind::Truncated, operation: "read", subject, location, cause })
    }
}

#[async_trait::async_trait]
impl Store for BadSector {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn settle(&self) -> std::time::Duration {
        self.inner.settle()
    }
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.written.lock().unwrap().push(name.to_owned());
        self.inner.put(name, bytes).await
    }
    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.written.lock().unwrap().push(name.to_owned());
        *self.bad.lock().unwrap() = None;
        self.inner.replace(name, bytes).await
    }
    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.read(name, 0, u64::MAX / 2)?;
        self.inner.get(name).await
    }
    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.read(name, offset, length)?;
        self.inner.get_range(name, offset, length).await
    }
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder).await
    }
    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
}

#[tokio::test]
async fn a_sector_that_cannot_be_read_costs_no_more_than_itself() {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    create_in(&store).await;
    let folder = tempfile::tempdir().unwrap();
    let files = [("a".to_owned(), noise(1, 600_000)), ("b".to_owned(), noise(2, 300_000))].into();
    back_up(&open_in(&store).await.unwrap(), folder.path(), &files).await;
    let (options, cancel) =
        (ParityOptions { share: Share::parse("5%").unwrap(), check: false }, Cancel::new());
    let plan = parity::plan(&store, options, &NoProgress, &cancel).await.unwrap();
    parity::apply(&store, &plan, options.share, &NoProgress, &cancel).await.unwrap();
    let before = memory.snapshot();

    let packs = store.list("data").await.unwrap();
    let pack = packs.iter().max_by_key(|listed| listed.size_bytes).unwrap();
    // In a block, in the header, and in the directory.
    for at in [40_960, 0, pack.size_bytes / 4096 * 4096 - 4096] {
        let bad = Mutex::new(Some((pack.name.clone(), at)));
        let disk = Arc::new(BadSector { inner: memory.clone(), bad, written: Mutex::default() });
        let store: Arc<dyn Store> = disk.clone();
        let repo = open_in(&store).await.unwrap();
        let progress: Arc<dyn Progress> = Arc::new(NoProgress);
        let plan = plan_packs(&repo, None, &PacksOptions::default(), &progress, &cancel).await.unwrap();
        assert_eq!((plan.healable.len(), plan.healable[0].rebuilt), (1, 1), "at {at}");
        heal_packs(&repo, &plan, &NoProgress, &cancel).await.unwrap();
        // What the pack comes back from out of nothing stands first, for services that do not replace in one step.
        let written = disk.written.lock().unwrap().clone();
        assert!(written[0].starts_with("parity/") && written[1] == pack.name, "{written:?}");
        assert_eq!(memory.snapshot(), before, "at {at}: all as it was, and nothing besides");
        assert!(!check(&memory, true).await.unwrap().is_damaged());
    }
}
