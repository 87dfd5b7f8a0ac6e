//! `restore` and `dump` as people meet them: what `--delete` leaves alone, what a full disk says, what patterns miss.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::json;

use super::{Machine, damage};

/// Takes a mounted folder away again.
pub(super) struct Mount(std::path::PathBuf);

impl Mount {
    /// A disk of so many bytes.
    pub(super) fn of_bytes(folder: std::path::PathBuf, size: u64) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let size = format!("size={size}");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder);
        assert!(mount.status().unwrap().success(), "mounting a small tmpfs needs root");
        Self(folder)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn delete_leaves_alone_what_the_backup_was_told_to_leave_out() {
    let machine = Machine::with_repository();
    for file in ["a", "x.log", "node_modules/m", "cache/CACHEDIR.TAG", "cache/c", "big", "gone"] {
        machine.file(&format!("data/{file}"), "content");
    }
    machine.file("data/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    machine.file("data/big", vec![1; 5000]);
    machine.file("data/kept/.nobackup", "");
    machine.file("data/kept/k", "content");
    machine.file("patterns", "*.bak\n");
    let patterns = ["-e", "*.log", "-e", "node_modules/", "--exclude-file", "patterns"];
    let others = ["--exclude-caches", "--exclude-if-present", ".nobackup", "--exclude-larger-than", "4000"];
    let said = machine.run(&[&["backup", "data"], &patterns[..], &others].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);

    let snapshot = format!("latest:{}", machine.path("data").display());
    machine.file("data/extra/deep/new", "new");
    machine.file("data/extra/y.log", "new");
    machine.file("data/z.bak", "new");
    let restore = ["restore", &snapshot, "--target", "data", "--delete", "--yes"];
    let said = machine.run(&[&restore[..], &["--dry-run", "--json"]].concat());
    let paths = |name: &str| {
        let list = said.json()[name].as_array().unwrap().clone();
        list.iter().map(|row| row["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths("delete"), ["/extra/deep"]);
    let left_out = ["/big", "/cache/c", "/extra/y.log", "/kept/k", "/node_modules", "/x.log", "/z.bak"];
    assert_eq!(paths("left_out"), left_out);

    let said = machine.run(&restore);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        !said.stderr.contains("would") && said.stderr.contains("to remove: /extra/deep"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("7 paths that the backup left out will stay"), "{}", said.stderr);
    assert!(said.stdout.contains("; 1 removed"));
    for file in ["x.log", "node_modules/m", "cache/c", "big", "kept/k", "extra/y.log", "z.bak"] {
        assert!(machine.path("data").join(file).exists(), "{file}");
    }
    assert!(!machine.path("data/extra/deep").exists());

    let said = machine.run(&[&restore[..], &["--delete-excluded"]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    for file in ["x.log", "node_modules", "cache/c", "big", "kept/k", "extra", "z.bak"] {
        assert!(!machine.path("data").join(file).exists(), "{file}");
    }
    assert!(machine.path("data/a").exists() && machine.path("data/kept/.nobackup").exists());
}

#[test]
fn delete_leaves_alone_what_lies_outside_the_paths_of_the_backup_and_on_other_file_systems() {
    let machine = Machine::with_repository();
    machine.file("srv/app/a", "a");
    fs::create_dir_all(machine.path("srv/app/mnt")).unwrap();
    assert_eq!(machine.run(&["backup", "srv/app", "-x"]).code, 0);
    machine.file("srv/other", "never in the backup");
    let snapshot = format!("latest:{}", machine.path("srv").display());
    let _mount = Mount::of_bytes(machine.path("srv/app/mnt"), 1 << 20);
    machine.file("srv/app/mnt/m", "mounted");
    machine.file("srv/app/extra", "x");
    let said = machine.run(&["restore", &snapshot, "--target", "srv", "--delete", "--yes"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(machine.path("srv/other").exists() && machine.path("srv/app/mnt/m").exists());
    assert!(!machine.path("srv/app/extra").exists());
}

#[test]
fn a_dry_run_names_what_another_type_replaces() {
    let machine = Machine::with_repository();
    machine.file("data/file", "f");
    machine.file("data/folder/in", "f");
    symlink("file", machine.path("data/link")).unwrap();
    machine.file("data/full", "f");
    machine.run(&["backup", "data", "-e", "*.log"]);
    let snapshot = format!("latest:{}", machine.path("data").display());
    machine.file("out/folder", "a file");
    machine.file("out/link", "a file");
    fs::create_dir_all(machine.path("out/file")).unwrap();
    machine.file("out/full/of", "things");
    let dry = ["restore", &snapshot, "--target", "out", "--dry-run"];
    let said = machine.run(&dry);
    let lines = |text: &str| text.lines().skip(3).map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(
        lines(&said.stdout),
        ["replace    /file", "replace    /folder", "replace    /link", "in the way /full"]
    );
    let said = machine.run(&[&dry[..], &["--delete"]].concat());
    let replaced = ["replace    /file", "replace    /folder", "replace    /full", "replace    /link"];
    assert_eq!(lines(&said.stdout), replaced);
    machine.file("out/full/excluded.log", "precious");
    let said = machine.run(&[&dry[..], &["--delete"]].concat());
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("--delete-excluded"), "{}", said.stderr);
}

#[test]
fn a_target_that_existed_keeps_its_own_mode_and_time() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    fs::set_permissions(machine.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
    machine.run(&["backup", "data"]);
    let snapshot = format!("latest:{}", machine.path("data").display());
    fs::create_dir(machine.path("out")).unwrap();
    fs::set_permissions(machine.path("out"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(machine.run(&["restore", &snapshot, "--target", "out"]).code, 0);
    assert_eq!(machine.run(&["restore", &snapshot, "--target", "fresh"]).code, 0);
    let stat = |name: &str| fs::metadata(machine.path(name)).unwrap();
    assert_eq!(stat("out").mode() & 0o777, 0o755);
    assert_ne!(stat("out").mtime_nsec(), stat("data").mtime_nsec());
    assert_eq!(stat("fresh").mode() & 0o777, 0o700);
    assert_eq!(stat("fresh").mtime_nsec(), stat("data").mtime_nsec());
}

#[test]
fn a_full_disk_says_how_much_is_missing_and_the_same_command_goes_on() {
    let machine = Machine::with_repository();
    for file in 0..8u8 {
        machine.file(&format!("data/f{file}"), vec![file; 500_000]);
    }
    machine.run(&["backup", "data"]);
    let snapshot = format!("latest:{}", machine.path("data").display());
    let small = Mount::of_bytes(machine.path("small"), 2 << 20);
    let restore = ["restore", &snapshot, "--target", "small"];
    let said = machine.run(&restore);
    assert_eq!(said.code, 1, "{}", said.stderr);
    let words = ["No space left on device", "still to be written", "are free", "run the same command again"];
    assert!(words.iter().all(|word| said.stderr.contains(word)), "{}", said.stderr);
    assert!(said.stderr.lines().count() <= 3, "{}", said.stderr);
    let whole = |file: &fs::DirEntry| file.metadata().unwrap().len() == 500_000;
    assert!(fs::read_dir(&small.0).unwrap().all(|file| whole(&file.unwrap())), "only whole files");
    let remount = ["-o", "remount,size=8m"];
    assert!(std::process::Command::new("mount").args(remount).arg(&small.0).status().unwrap().success());
    assert_eq!(machine.run(&restore).code, 0);
    assert_eq!(fs::read_dir(&small.0).unwrap().count(), 8);
}

#[test]
fn patterns_that_match_nothing_are_said_and_no_success() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    machine.run(&["backup", "data"]);
    for extra in [&[][..], &["--dry-run"], &["--json"]] {
        let arguments =
            [&["restore", "latest", "--target", "out", "--include", "nomatch"][..], extra].concat();
        let said = machine.run(&arguments);
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert!(said.stderr.contains("nothing in the snapshot is left by these patterns"), "{}", said.stderr);
    }
}

#[test]
fn a_dump_into_a_file_is_whole_or_not_there() {
    let machine = Machine::with_repository();
    machine.file("data/a", vec![7; 3_000_000]);
    machine.file("data/b", (0..3_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    machine.run(&["backup", "data"]);
    let snapshot = format!("latest:{}", machine.path("data/b").display());
    let old = machine.file("out/b", "old");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    let dump = ["dump", &snapshot, "--no-cache", "-o", "out/b"];
    assert_eq!(machine.run(&dump).code, 0);
    assert_eq!(fs::read(&old).unwrap(), fs::read(machine.path("data/b")).unwrap());
    assert_eq!(fs::metadata(&old).unwrap().mode() & 0o777, 0o640);
    assert_eq!(machine.run(&["dump", &snapshot, "-o", "/dev/null"]).code, 0);
    let full = machine.run(&["dump", &snapshot, "-o", "/dev/full"]);
    assert_eq!(full.code, 1, "{}", full.stderr);

    fs::write(&old, "old").unwrap();
    for folder in fs::read_dir(machine.path("repository/data")).unwrap().map(|entry| entry.unwrap().path()) {
        damage(&folder);
    }
    assert_eq!(machine.run(&dump).code, 20);
    assert_eq!(fs::read(&old).unwrap(), b"old");
    assert_eq!(fs::read_dir(machine.path("out")).unwrap().count(), 1, "nothing half is left");
    assert_eq!(machine.run(&["snapshots", "--json"]).json()[0]["partial"], json!(false));
}

#[test]
fn the_files_of_every_job_come_back_at_once() {
    let machine = Machine::with_repository();
    let backup = |job: &str, folder: &str, host: &str| {
        let said = machine.run(&["backup", "--job", job, "--host", host, folder]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    machine.file("etc/conf", "old");
    machine.file("shop/a", "1");
    backup("shop", "shop", "box");
    backup("etc", "etc", "box");
    let then = jiff::Timestamp::now().to_string();
    machine.file("etc/conf", "new");
    backup("etc", "etc", "box");
    let restore = |what: &str, more: &[&str]| {
        let _ = fs::remove_dir_all(machine.path("back"));
        machine.run(&[&["restore", what, "--target", "back"][..], more].concat())
    };
    let back = |name: &str| {
        let root = machine.path("back").join(machine.path("").strip_prefix("/").unwrap());
        fs::read_to_string(root.join(name)).unwrap()
    };
    let said = restore("*@latest", &["--dry-run"]);
    let planned = said.stdout.matches("would restore").count();
    assert_eq!((said.code, planned), (0, 2), "{}{}", said.stdout, said.stderr);
    assert!(!machine.path("back").exists());
    let said = restore("*@latest", &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!((back("etc/conf").as_str(), back("shop/a").as_str()), ("new", "1"));
    assert_eq!(restore(&format!("*@{then}"), &[]).code, 0);
    assert_eq!((back("etc/conf").as_str(), back("shop/a").as_str()), ("old", "1"));

    // One tar of all, which ends once.
    assert_eq!(machine.run(&["dump", "*@latest", "-o", "all.tar"]).code, 0);
    let mut names = Vec::new();
    for entry in tar::Archive::new(fs::File::open(machine.path("all.tar")).unwrap()).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    for wanted in ["etc/conf", "shop/a"] {
        assert_eq!(names.iter().filter(|name| name.ends_with(wanted)).count(), 1, "{names:?}");
    }

    for (what, more, expected) in [
        ("*@latest:/etc", &[][..], "a path is one snapshot's"),
        ("*@2020-01-01T00:00Z", &[], "no snapshot matches"),
        ("*@soon", &[], "no snapshot matches"),
        ("*@latest", &["--delete"], "every job's files go into one folder"),
        ("latest", &[], "several jobs"),
    ] {
        let said = restore(what, more);
        assert_ne!(said.code, 0, "{what}");
        assert!(said.stderr.contains(expected), "{what}: {}", said.stderr);
    }
    // Two machines' files are not mixed; the own name is enough to tell.
    backup("etc", "etc", "other");
    let said = restore("*@latest", &[]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    let expected = "several machines: box, other\nhint: --host NAME, or LIFEBOAT_MACHINE";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
    assert_eq!(restore("*@latest", &["--host", "box"]).code, 0);
    let own = [("LIFEBOAT_MACHINE", "box")];
    let said = machine.run_with(&own, &["restore", "*@latest", "--target", "back"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stderr.contains("these are of box") && said.stderr.contains("also: other"),
        "{}",
        said.stderr
    );
    // Nor does another machine's job of the same name pass for the own one.
    assert_ne!(restore("etc@latest", &[]).code, 0);
    let said = machine.run_with(&own, &["--json", "restore", "etc@latest", "--target", "own"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let mine = machine.run(&["snapshots", "--json", "--host", "box", "--job", "etc"]).json();
    let newest = mine.as_array().unwrap().last().unwrap()["id"].clone();
    assert!(said.stdout.contains(newest.as_str().unwrap()), "{}", said.stdout);
    // A snapshot that cannot be read may be a job's only one: the rest comes back, and the run is no success.
    let lost =
        machine.run(&["snapshots", "--json", "--host", "box", "--job", "shop"]).json()[0]["id"].clone();
    let manifest = fs::read_dir(machine.path("repository/snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(lost.as_str().unwrap()))
        .unwrap();
    let bytes = fs::read(&manifest).unwrap();
    fs::set_permissions(&manifest, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&manifest, &bytes[..bytes.len() / 2]).unwrap();
    let said = restore("*@latest", &["--host", "box", "--quiet", "--no-cache"]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("cannot be read, so it is not known whose it is"), "{}", said.stderr);
    assert_eq!(back("etc/conf"), "new");
}
