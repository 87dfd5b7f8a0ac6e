//! Damage heals: verify finds it and says what it costs, `repair packs` saves what is sound and condemns the rest,
//! the next backup of the unchanged source stores again what was lost, and old snapshots are whole again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::bench::random;

pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    /// A source of several blocks and folders, backed up once, then grown by a file and backed up again.
    pub fn new() -> Self {
        let place = Self::once();
        std::fs::write(place.source().join("added"), random(99, 50_000)).unwrap();
        place.back_up();
        place
    }

    fn once() -> Self {
        Self::of(8)
    }

    /// Little data, backed up once.
    pub fn small() -> Self {
        Self::of(0)
    }

    fn of(files: usize) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let source = place.source();
        std::fs::create_dir_all(source.join("deep/er")).unwrap();
        for n in 0..files {
            std::fs::write(source.join(format!("deep/er/{n}")), random(n, 700_000)).unwrap();
        }
        std::fs::write(source.join("small"), "small").unwrap();
        std::fs::write(place.folder.path().join("key"), "4c".repeat(32)).unwrap();
        place.ok(&["init"]);
        place.back_up();
        place
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_at(&self.repository(), arguments)
    }

    pub fn run_at(&self, repository: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.arg("-r").arg(repository).args(arguments).env_clear();
        command.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        if !arguments.contains(&"--key-file") {
            command.env("LIFEBOAT_KEY_FILE", self.folder.path().join("key"));
        }
        command.output().unwrap()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).status.code().unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> (i32, serde_json::Value) {
        let output = self.run(arguments);
        let value = serde_json::from_slice(&output.stdout);
        let value = value.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().unwrap(), value)
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    pub fn back_up(&self) {
        self.ok(&["backup", "--job", "job", self.source().to_str().unwrap()]);
    }

    /// The largest pack of a folder.
    pub fn pack(&self, folder: &str) -> PathBuf {
        let packs = std::fs::read_dir(self.repository().join(folder)).unwrap().flatten();
        packs.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path()
    }

    /// Ids, oldest first.
    pub fn snapshots(&self) -> Vec<String> {
        let list: serde_json::Value = serde_json::from_str(&self.ok(&["--json", "snapshots"])).unwrap();
        let list = list.as_array().or_else(|| list["snapshots"].as_array()).unwrap();
        list.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The oldest snapshot comes back as the source was then.
    pub fn oldest_is_whole(&self, below: &str) {
        let target = self.folder.path().join(below);
        let oldest = &self.snapshots()[0];
        let selector = format!("{oldest}:{}", self.source().display());
        self.ok(&["restore", &selector, "--target", target.to_str().unwrap()]);
        let output = Command::new("diff").arg("-r").arg(self.source()).arg(&target).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let later = format!("Only in {}: added", self.source().display());
        assert!(told.is_empty() || told.trim() == later, "{told}");
    }
}

pub fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = std::fs::read(path).unwrap();
    edit(&mut bytes);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn flip(path: &Path) {
    change(path, |bytes| {
        for byte in &mut bytes[1000..1010] {
            *byte ^= 0xff;
        }
    });
}

fn heals(name: &str, damage: fn(&Path), by_structure: bool) {
    let place = Place::new();
    let pack = place.pack("data");
    damage(&pack);
    let existed = pack.exists();
    let (code, told) = place.json(&["--json", "verify"]);
    assert_eq!(code, if by_structure { 20 } else { 0 }, "{name}: {told}");
    let (code, told) = place.json(&["--json", "verify", "--read-data"]);
    assert_eq!(code, 20, "{name}: {told}");
    assert!(!told["costs"].as_array().unwrap().is_empty(), "{name} costs something: {told}");
    assert!(told["advice"].to_string().contains("repair packs"), "{name}: {told}");
    let costs = told["costs"].clone();
    // The dry run changes nothing and says the same.
    let (code, plan) = place.json(&["--json", "repair", "packs", "--dry-run"]);
    assert_eq!(code, 0, "{plan}");
    assert_eq!(plan["packs"].as_array().unwrap().len(), usize::from(existed), "{name}: {plan}");
    assert_eq!(plan["costs"], costs, "{name}");
    assert!(
        !place.repository().join("tombstones").exists() || {
            std::fs::read_dir(place.repository().join("tombstones")).unwrap().count() == 0
        }
    );
    let (code, told) = place.json(&["--json", "repair", "packs"]);
    // What is lost stays lost until a backup, and is known without reading data from now on.
    let expected = if told["plan"]["lost_chunks"] == 0 { 0 } else { 20 };
    assert_eq!((code, place.code(&["verify"])), (expected, expected), "{name}: {told}");
    let (_, again) = place.json(&["--json", "repair", "packs"]);
    assert_eq!(again["done"]["condemned"], 0, "{name}: once is enough: {again}");
    place.back_up();
    for arguments in [&["--json", "verify"][..], &["--json", "verify", "--read-data"]] {
        let (code, told) = place.json(arguments);
        assert_eq!(code, 0, "{name}: {told}");
    }
    place.oldest_is_whole("restored");
    place.ok(&["prune", "--grace", "0s", "--yes"]);
    assert!(!pack.exists(), "{name}: the prune deletes the damaged pack");
    assert_eq!(place.code(&["verify", "--read-data"]), 0, "{name}");
    assert_eq!(place.run(&["verify", "--keyless"]).status.code(), Some(0), "{name}");
    place.oldest_is_whole("once more");
}

#[test]
fn a_flipped_pack_heals() {
    heals("flipped", flip, false);
}

#[test]
fn a_truncated_pack_heals() {
    let cut = |path: &Path| change(path, |bytes| bytes.truncate(bytes.len() * 2 / 3));
    heals("truncated", cut, true);
}

#[test]
fn a_missing_pack_heals() {
    heals("missing", |path| std::fs::remove_file(path).unwrap(), true);
}

#[test]
fn a_pack_that_is_longer_or_has_no_readable_head_heals() {
    heals("longer", |path| change(path, |bytes| bytes.extend([7; 100])), true);
    heals("no header", |path| change(path, |bytes| bytes[..600].fill(0)), true);
}

#[test]
fn what_is_sound_in_a_damaged_pack_is_saved() {
    let place = Place::new();
    flip(&place.pack("data"));
    let (_, told) = place.json(&["--json", "verify", "--read-data"]);
    let lost = told["costs"][0]["files"].as_u64().unwrap();
    assert!(lost < 9, "only what lies in one block: {told}");
    // The source is gone, so nothing heals; what is sound must survive a prune that would delete the pack.
    let (_, told) = place.json(&["--json", "repair", "packs"]);
    assert_eq!(told["verify"]["costs"][0]["files"].as_u64().unwrap(), lost, "{told}");
    assert_ne!(place.code(&["prune", "--grace", "0s", "--yes"]), 0, "a prune does not go past lost data");
    let (_, told) = place.json(&["--json", "verify", "--read-data"]);
    assert_eq!(told["costs"][0]["files"].as_u64().unwrap(), lost, "{told}");
}

#[test]
fn a_damaged_page_costs_its_own_snapshots_and_no_later_one() {
    for damage in [flip, |path: &Path| change(path, |bytes| bytes.truncate(bytes.len() * 2 / 3))] {
        let place = Place::once();
        damage(&place.pack("meta"));
        let (code, told) = place.json(&["--json", "verify"]);
        assert_eq!(code, 20);
        assert!(told["costs"][0]["unlisted"].as_u64().unwrap() > 0, "{told}");
        assert_eq!(place.code(&["repair", "packs"]), 20);
        // The folder above the source has another time now, so the old page is made nowhere again.
        std::fs::write(place.folder.path().join("later"), "").unwrap();
        place.back_up();
        let (_, told) = place.json(&["--json", "verify", "--read-data"]);
        assert_eq!(told["costs"].as_array().unwrap().len(), 1, "{told}");
        let lost = told["costs"][0]["snapshot"].as_str().unwrap();
        place.ok(&["forget", "--yes", lost]);
        place.ok(&["prune", "--grace", "0s", "--yes"]);
        place.ok(&["verify", "--read-data"]);
    }
}

#[test]
fn a_replica_gives_back_what_is_lost() {
    let place = Place::new();
    let replica = place.folder.path().join("replica");
    let repository = place.repository();
    let output = place.run_at(&replica, &["init", "--replica-of", repository.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    place.ok(&["copy", "--to", replica.to_str().unwrap()]);
    flip(&place.pack("data"));
    std::fs::remove_file(place.pack("meta")).unwrap();
    assert_eq!(place.code(&["verify", "--read-data"]), 20);
    let from = ["--json", "repair", "packs", "--from", replica.to_str().unwrap()];
    let (code, told) = place.json(&from);
    assert_eq!(code, 0, "{told}");
    assert_eq!(told["plan"]["lost_chunks"], told["plan"]["replica_chunks"], "{told}");
    assert_eq!(place.code(&["verify", "--read-data"]), 0);
    place.oldest_is_whole("restored");
    // Another repository is no replica.
    let other = place.folder.path().join("other");
    assert!(place.run_at(&other, &["init"]).status.success());
    assert_eq!(place.code(&["repair", "packs", "--from", other.to_str().unwrap()]), 2);
}

#[test]
fn a_prune_by_the_owner_keeps_what_the_index_says_of_a_writers_packs() {
    let place = Place::once();
    let key = place.folder.path().join("writer key");
    std::fs::write(&key, "5d".repeat(32)).unwrap();
    let key = key.to_str().unwrap();
    place.ok(&["key", "add", "--role", "writer", "--label", "web", "--new-key-file", key]);
    place.ok(&["--key-file", key, "backup", "--job", "web", place.source().to_str().unwrap()]);
    std::fs::write(place.source().join("deep/er/0"), random(77, 900_000)).unwrap();
    std::fs::remove_file(place.source().join("deep/er/1")).unwrap();
    place.back_up();
    let oldest = place.snapshots()[0].clone();
    place.ok(&["forget", "--yes", &oldest]);
    place.ok(&["prune", "--grace", "0s", "--max-unused", "0", "--yes"]);
    let (code, told) = place.json(&["--json", "verify"]);
    assert_eq!(code, 0, "{told}");
    assert!(!told["notes"].to_string().contains("in no index object"), "{told}");
    place.ok(&["--key-file", key, "backup", "--job", "web", place.source().to_str().unwrap()]);
    place.ok(&["verify", "--read-data"]);
}

#[test]
fn repair_index_says_why_it_ends_with_damage() {
    let place = Place::once();
    let run = place.folder.path().join("repository/runs");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join(format!("{}.0", "0".repeat(32))), "not a run").unwrap();
    let output = place.run(&["repair", "index"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(20), "{told}");
    assert!(told.contains("damaged: runs/0000"), "{told}");
}
