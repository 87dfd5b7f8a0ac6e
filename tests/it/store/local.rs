//! Local disk and memory: the suite, and what a disk can do to us.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat::store::{Location, Store, StoreErrorKind, StoreOptions, create, open};

use super::conformance::{self, listed, noise};

fn opened(path: &Path) -> Arc<dyn Store> {
    create(&Location::local(path), &StoreOptions::default()).expect("create")
}

#[tokio::test]
async fn local_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(&Location::local(dir.path().join("new/repository")), &StoreOptions::default()).await;
}

#[tokio::test]
async fn memory_conforms_and_is_shared_by_name() {
    let options = StoreOptions::default();
    conformance::run(&"memory:conformance".parse().unwrap(), &options).await;
    let nameless: Location = "memory:".parse().unwrap();
    let (one, two) = (open(&nameless, &options).unwrap(), open(&nameless, &options).unwrap());
    one.put("config", Bytes::new()).await.unwrap();
    assert_eq!(two.list("").await.unwrap(), []);
}

#[tokio::test]
async fn opening_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::local(dir.path().join("missing"));
    let error = open(&location, &StoreOptions::default()).expect_err("missing");
    assert_eq!(error.kind, StoreErrorKind::NotFound);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::write(dir.path().join("file"), "x").unwrap();
    let error =
        open(&Location::local(dir.path().join("file")), &StoreOptions::default()).expect_err("a file");
    assert_eq!(error.kind, StoreErrorKind::Config);
}

#[tokio::test]
async fn files_are_private_and_strangers_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir.path().join("repo"));
    store.put("data/00", noise(1, 10)).await.unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("repo"), mode("repo/data"), mode("repo/data/00")], [0o700, 0o700, 0o600]);

    let data = dir.path().join("repo/data");
    for stranger in [".tmp-dead", "lost+found?", "UPPER", ".DS_Store"] {
        fs::write(data.join(stranger), "x").unwrap();
    }
    fs::create_dir(data.join("folder")).unwrap();
    std::os::unix::fs::symlink("/nowhere", data.join("dangling")).unwrap();
    assert_eq!(store.list("data").await.unwrap(), [listed("data/00", 10)]);
    assert!(data.join(".tmp-dead").exists(), "a fresh temporary file may belong to a live run");

    let old = std::time::SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    fs::File::open(data.join(".tmp-dead")).unwrap().set_modified(old).unwrap();
    store.list("data").await.unwrap();
    assert!(!data.join(".tmp-dead").exists());
}

#[tokio::test]
async fn an_unmounted_disk_is_an_error_and_not_an_empty_repository() {
    let dir = tempfile::tempdir().unwrap();
    let (here, away) = (dir.path().join("repo"), dir.path().join("away"));
    let store = opened(&here);
    store.put("data/00", noise(1, 10)).await.unwrap();
    fs::rename(&here, &away).unwrap();
    assert_eq!(store.list("data").await.expect_err("gone").kind, StoreErrorKind::Other);
    assert_eq!(store.get("data/00").await.expect_err("gone").kind, StoreErrorKind::Other);
    assert_eq!(store.delete("data/00").await.expect_err("gone").kind, StoreErrorKind::Other);
    assert_eq!(store.put("data/01", noise(2, 10)).await.expect_err("gone").kind, StoreErrorKind::Other);
    assert_eq!(store.put("new/01", noise(2, 10)).await.expect_err("gone").kind, StoreErrorKind::Other);
    assert!(!here.exists(), "nothing is written under the mount point");
}

/// A tmpfs of two MiB, unmounted when dropped. Needs root, as some of the servers do.
pub struct SmallDisk {
    path: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl SmallDisk {
    pub fn mount_at(path: &Path) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(path);
        assert!(mount.status().unwrap().success(), "mounting a small tmpfs needs root");
        Self { path: path.to_owned(), _dir: None }
    }

    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Self::mount_at(dir.path());
        disk._dir = Some(dir);
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_leaves_nothing_behind() {
    let disk = SmallDisk::mount();
    let store = opened(&disk.path.join("repo"));
    store.put("data/00", noise(1, 1 << 20)).await.unwrap();
    let error = store.put("data/01", noise(2, 4 << 20)).await.expect_err("full");
    assert_eq!(error.kind, StoreErrorKind::Full, "{}", error.cause);
    assert_eq!(store.list("data").await.unwrap(), [listed("data/00", 1 << 20)]);
    assert_eq!(fs::read_dir(disk.path.join("repo/data")).unwrap().count(), 1);
    store.put("data/02", noise(3, 512 << 10)).await.expect("the failed write's space is free again");
    assert_eq!(store.get("data/00").await.unwrap(), noise(1, 1 << 20));
}

#[tokio::test]
async fn a_read_only_disk_is_denied_and_still_read() {
    let disk = SmallDisk::mount();
    let store = opened(&disk.path.join("repo"));
    store.put("data/00", noise(1, 1000)).await.unwrap();
    let done = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.path).status().unwrap();
    assert!(done.success());
    assert_eq!(store.put("data/01", noise(2, 10)).await.expect_err("ro").kind, StoreErrorKind::Denied);
    assert_eq!(store.delete("data/00").await.expect_err("ro").kind, StoreErrorKind::Denied);
    assert_eq!(store.get("data/00").await.unwrap(), noise(1, 1000));
}

#[tokio::test]
async fn an_object_is_never_replaced_by_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    for (first, second) in [(10, 10), (10, 0), (0, 10), (100_000, 100_001), (100_001, 100_000)] {
        let name = format!("data/{first}-{second}");
        store.put(&name, noise(1, first)).await.unwrap();
        let error = store.put(&name, noise(2, second)).await.expect_err("other bytes");
        assert_eq!(error.kind, StoreErrorKind::Conflict);
        assert_eq!(store.get(&name).await.unwrap(), noise(1, first));
    }
}
