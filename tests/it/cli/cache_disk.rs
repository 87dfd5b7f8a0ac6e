//! The disk of the local cache is full, fills up or takes nothing: nothing but speed is lost by that.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::restoring::Mount;
use super::{Machine, Said};

/// Writes until the disk takes no more.
fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("ballast");
    let mut file = fs::File::create(&path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    path
}

/// Files whose content nothing else has.
fn make_files(machine: &Machine, folder: &str, count: u64) {
    let mut random = 1 + count + folder.len() as u64;
    for number in 0..count {
        let mut bytes = Vec::with_capacity(5_000);
        while bytes.len() < 5_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&random.to_be_bytes()[..4]);
        }
        machine.file(&format!("data/{folder}/{number}"), bytes);
    }
}

fn assert_same(machine: &Machine, restored: &str) {
    let mut diff = std::process::Command::new("diff");
    let output = diff.arg("-r").arg(machine.path("data")).arg(machine.path(restored)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What somebody does in need, and that each step works and says once what is the matter.
fn work_without_cache(machine: &Machine, why: &str) {
    let whole = format!("latest:{}", machine.path("data").display());
    let steps: [&[&str]; 8] = [
        &["snapshots"],
        &["ls", "latest"],
        &["find", "1"],
        &["stats"],
        &["restore", &whole, "--target", "restored", "--verify"],
        &["dump", &format!("{whole}/first/1"), "-o", "one"],
        &["verify", "--read-data"],
        &["backup", "data"],
    ];
    for step in steps {
        let Said { code, stderr, .. } = machine.run(step);
        assert_eq!(code, 0, "{step:?}: {stderr}");
        assert_eq!(stderr.matches("--no-cache").count(), 1, "{step:?}: {stderr}");
        assert!(stderr.contains("$T/cache") && stderr.contains(why), "{step:?}: {stderr}");
        let _ = fs::remove_file(machine.path("one"));
        let said = machine.run(&[&["--no-cache"], step].concat());
        assert!(!said.stderr.contains("cache"), "{step:?}: {}", said.stderr);
    }
    assert_same(machine, "restored");
    fs::remove_dir_all(machine.path("restored")).unwrap();
}

/// Once there is room again, the same cache folder serves as if nothing had been.
fn work_with_it_again(machine: &Machine) {
    for step in [&["backup", "data"][..], &["backup", "data"], &["verify", "--read-data"]] {
        let said = machine.run(step);
        assert_eq!((said.code, said.stderr.contains("cache")), (0, false), "{step:?}: {}", said.stderr);
    }
    let whole = format!("latest:{}", machine.path("data").display());
    assert_eq!(machine.run(&["restore", &whole, "--target", "again"]).code, 0);
    assert_same(machine, "again");
}

#[test]
fn a_full_cache_disk_stops_nothing() {
    let machine = Machine::with_repository();
    make_files(&machine, "first", 40);
    assert_eq!(machine.run(&["--no-cache", "backup", "data"]).code, 0);
    let mount = Mount::of_bytes(machine.path("cache"), 1 << 20);
    let ballast = fill(&machine.path("cache"));
    work_without_cache(&machine, "full");
    fs::remove_file(&ballast).unwrap();
    assert_eq!(machine.run(&["backup", "data"]).code, 0);
    // Full again, now with an index there that another machine's snapshots would have to be added to.
    let ballast = fill(&machine.path("cache"));
    make_files(&machine, "second", 400);
    assert_eq!(machine.run(&["--no-cache", "backup", "data"]).code, 0);
    work_without_cache(&machine, "full");
    let said = machine.run(&["prune", "--grace", "0s", "--yes"]);
    assert!(said.code == 1 && said.stderr.contains("hint: nothing in the local cache"), "{}", said.stderr);
    assert_eq!(machine.run(&["--no-cache", "prune", "--grace", "0s", "--yes"]).code, 0);
    fs::remove_file(ballast).unwrap();
    work_with_it_again(&machine);
    drop(mount);
}

#[test]
fn a_cache_folder_that_takes_nothing_stops_nothing() {
    let machine = Machine::with_repository();
    make_files(&machine, "first", 40);
    let mount = Mount::of_bytes(machine.path("cache"), 4 << 20);
    let remount = |how: &str| {
        let status =
            std::process::Command::new("mount").args(["-o", how]).arg(machine.path("cache")).status();
        assert!(status.unwrap().success());
    };
    remount("remount,ro");
    assert_eq!(machine.run(&["backup", "data"]).code, 0);
    work_without_cache(&machine, "Read-only file system");
    remount("remount,rw");
    assert_eq!(machine.run(&["backup", "data"]).code, 0);
    remount("remount,ro");
    make_files(&machine, "second", 40);
    let said = machine.run(&["backup", "data"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stderr.matches("--no-cache").count(), 1, "{}", said.stderr);
    remount("remount,rw");
    work_with_it_again(&machine);
    drop(mount);
    // A file where the folder should be.
    fs::remove_dir_all(machine.path("cache")).unwrap();
    machine.file("cache", "no folder");
    let said = machine.run(&["snapshots"]);
    assert_eq!((said.code, said.stderr.matches("--no-cache").count()), (0, 1), "{}", said.stderr);
    // A prune would begin its grace anew each time and never delete: it says so.
    let said = machine.run(&["prune", "--yes"]);
    assert!(said.code == 1 && said.stderr.contains("hint: nothing in the local cache"), "{}", said.stderr);
    assert_eq!(machine.run(&["--no-cache", "prune", "--yes"]).code, 0);
}

#[test]
fn what_was_backed_up_past_a_full_disk_is_not_taken_for_known_later() {
    let machine = Machine::with_repository();
    make_files(&machine, "first", 10);
    assert_eq!(machine.run(&["backup", "data"]).code, 0);
    // Only the index is on the small disk: everything else of the cache can be written.
    let mount = Mount::of_bytes(machine.path("small"), 2 << 20);
    let mut own = fs::read_dir(machine.path("cache")).unwrap().map(|entry| entry.unwrap().path());
    let own = own.find(|path| path.is_dir()).unwrap();
    fs::copy(own.join("index.sqlite"), machine.path("small/index.sqlite")).unwrap();
    fs::remove_file(own.join("index.sqlite")).unwrap();
    std::os::unix::fs::symlink(machine.path("small/index.sqlite"), own.join("index.sqlite")).unwrap();
    assert_eq!(machine.run(&["backup", "data"]).code, 0);
    // Room to begin with, not enough for what is new.
    let ballast = fill(&machine.path("small"));
    let file = fs::File::options().write(true).open(&ballast).unwrap();
    file.set_len(file.metadata().unwrap().len() - (96 << 10)).unwrap();
    drop(file);
    make_files(&machine, "second", 1000);
    let said = machine.run(&["backup", "data", "--json"]);
    assert_eq!((said.code, said.stderr.matches("--no-cache").count()), (0, 1), "{}", said.stderr);
    let snapshot = said.json()["snapshot_id"].as_str().unwrap().to_owned();
    // Elsewhere that snapshot is forgotten and its packs go.
    for step in [&["forget", &snapshot, "--yes"][..], &["prune", "--grace", "0s", "--yes"]] {
        let said = machine.run(&[&["--no-cache"], step].concat());
        assert_eq!(said.code, 0, "{step:?}: {}", said.stderr);
    }
    fs::remove_file(ballast).unwrap();
    work_with_it_again(&machine);
    drop(mount);
}
