//! The suite on real servers, and what a server can do to us. One test a server: starting one is the slow part.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lifeboat::store::{HostKeyCheck, Location, Store, StoreErrorKind, StoreOptions, create};
use rustix::process::Signal;

use super::conformance::{self, listed, noise};
use crate::services::seaweed::{self, Seaweed};
use crate::services::sshd::Sshd;
use crate::services::webdav::{self, Apache, Rclone};
use crate::services::{Server, free_port};

fn opened(location: &Location, options: &StoreOptions) -> Arc<dyn Store> {
    create(location, options).expect("create")
}

/// Few and quick tries, for errors that are meant to stay.
fn impatient(options: StoreOptions) -> StoreOptions {
    let timeout = Duration::from_secs(2);
    StoreOptions {
        max_retries: 1,
        retry_delay: Duration::from_millis(20),
        connect_timeout: timeout,
        timeout,
        ..options
    }
}

/// Every operation is refused, none says that something is absent.
async fn denied(location: &Location, options: StoreOptions) {
    let store = opened(location, &impatient(options));
    let kinds = [
        store.put("data/00", Bytes::from_static(b"x")).await.expect_err("put").kind,
        store.get("config").await.expect_err("get").kind,
        store.get_range("config", 0, 1).await.expect_err("range").kind,
        store.list("data").await.expect_err("list").kind,
        store.delete("config").await.expect_err("delete").kind,
    ];
    assert_eq!(kinds, [StoreErrorKind::Denied; 5]);
}

/// As [`denied`], for a server that is not there or does not answer.
async fn unreachable(location: &Location, options: StoreOptions) {
    let store = opened(location, &impatient(options));
    let (put, get, list, delete) = futures::join!(
        store.put("data/00", Bytes::from_static(b"x")),
        store.get("config"),
        store.list("data"),
        store.delete("config"),
    );
    let kinds =
        [put.expect_err("put"), get.expect_err("get"), list.expect_err("list"), delete.expect_err("delete")];
    for error in kinds {
        assert_eq!(error.kind, StoreErrorKind::Temporary, "{error}: {}", error.cause);
    }
}

/// A server that stops answering, goes on, and is killed in the middle of a large write.
async fn outages(server: &mut Server, location: &Location, options: StoreOptions) {
    let store = opened(location, &options);
    store.put("data/before", noise(1, 1000)).await.expect("put");

    server.signal(Signal::STOP);
    unreachable(location, options.clone()).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put("data/across", noise(2, 1 << 20)).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal(Signal::CONT);
    waiting.await.unwrap().expect("a pause of the server is waited out");
    assert!(store.get("data/across").await.expect("get") == noise(2, 1 << 20));

    // Slow enough to be in the middle when the server goes.
    let slow =
        StoreOptions { upload_limit_bytes_per_second: Some(8 << 20), max_retries: 0, ..options.clone() };
    let large = opened(location, &slow);
    let writing = tokio::spawn(async move { large.put("data/torn", noise(3, 32 << 20)).await });
    tokio::time::sleep(Duration::from_millis(1000)).await;
    server.kill();
    let error = writing.await.unwrap().expect_err("the server is gone");
    assert_eq!(error.kind, StoreErrorKind::Temporary, "{}", error.cause);
    unreachable(location, options).await;
}

/// What the limits let through in time. Only the lower bound is asserted: machines may always be slower.
async fn limited(location: &Location, options: StoreOptions) {
    let rate = Some(4 << 20);
    let bytes = noise(5, 4 << 20);
    let up = opened(location, &StoreOptions { upload_limit_bytes_per_second: rate, ..options.clone() });
    let begin = std::time::Instant::now();
    up.put("data/up", bytes.clone()).await.expect("put");
    assert!(begin.elapsed() > Duration::from_millis(900), "upload took {:?}", begin.elapsed());
    let down = opened(location, &StoreOptions { download_limit_bytes_per_second: rate, ..options });
    let begin = std::time::Instant::now();
    assert!(down.get("data/up").await.expect("get") == bytes);
    assert!(begin.elapsed() > Duration::from_millis(900), "download took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let mut seaweed = Seaweed::start().await;
    let options = seaweed.options();
    conformance::run(&seaweed.location("a/prefix"), &options).await;
    limited(&seaweed.location("limited"), options.clone()).await;

    let mut wrong = options.clone();
    wrong.credentials.s3_secret_access_key = Some("wrong".to_owned().into());
    denied(&seaweed.location("a/prefix"), wrong).await;
    let mut unknown = options.clone();
    unknown.credentials.s3_access_key_id = Some("nobody".into());
    denied(&seaweed.location("a/prefix"), unknown).await;

    let mut plain = impatient(options.clone());
    plain.credentials.s3_access_key_id = Some(seaweed::PLAIN_KEY_ID.into());
    let text = seaweed.location("x").to_string().replace(seaweed::BUCKET, "no-such-bucket");
    let store = opened(&text.parse().unwrap(), &plain);
    for error in [
        store.put("config", Bytes::new()).await.expect_err("put"),
        store.get("config").await.expect_err("get"),
        store.list("data").await.expect_err("list"),
    ] {
        assert_ne!(error.kind, StoreErrorKind::NotFound, "{}", error.cause);
    }

    let location = seaweed.location("outages");
    outages(&mut seaweed.0, &location, options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_conforms() {
    let mut sshd = Sshd::start("");
    let options = sshd.options();
    conformance::run(&sshd.location("a/path"), &options).await;
    limited(&sshd.location("limited"), options.clone()).await;
    assert_eq!(
        std::fs::read_dir(sshd.path("root/a/path/.tmp")).unwrap().count(),
        0,
        "nothing temporary stays"
    );

    let absolute = format!("sftp://127.0.0.1:{}/{}", sshd.0.port, sshd.path("root/a/path").display());
    let store = opened(&absolute.parse().unwrap(), &options);
    assert_eq!(store.list("runs/aa").await.unwrap(), [listed("runs/aa/0", 17)]);

    many_at_once(&sshd, &options).await;

    let stranger = StoreOptions { ssh_identity_file: Some(sshd.path("stranger_key")), ..options.clone() };
    denied(&sshd.location("a/path"), stranger).await;
    host_keys(&sshd, &options).await;

    let location = sshd.location("outages");
    let outage_options = options.clone();
    silent_server(&sshd, &location, &outage_options).await;
    sshd.0.kill();
    unreachable(&sshd.location("other"), options).await;
}

/// 200 writes at once are more than any server takes sessions.
async fn many_at_once(sshd: &Sshd, options: &StoreOptions) {
    let wide = StoreOptions { max_concurrent: 200, ..options.clone() };
    let store = opened(&sshd.location("many"), &wide);
    let puts = (0..200u64).map(|n| {
        let store = Arc::clone(&store);
        async move { store.put(&format!("data/{n:04x}"), noise(n, 20_000)).await }
    });
    for done in join_all(puts).await {
        done.unwrap_or_else(|e| panic!("{e}: {}", e.cause));
    }
    assert_eq!(store.list("data").await.unwrap().len(), 200);
}

async fn host_keys(sshd: &Sshd, options: &StoreOptions) {
    let known = sshd.path("new_known_hosts");
    std::fs::write(&known, "").unwrap();
    let strict = StoreOptions { ssh_known_hosts_file: Some(known.clone()), ..impatient(options.clone()) };
    let error = opened(&sshd.location("x"), &strict).list("").await.expect_err("unknown host");
    assert_eq!(error.kind, StoreErrorKind::Config, "{}", error.cause);
    assert!(error.cause.to_string().contains("hint:"), "{}", error.cause);
    assert_eq!(std::fs::read_to_string(&known).unwrap(), "", "known hosts are only read");

    let accept = StoreOptions { ssh_host_key_check: HostKeyCheck::AcceptNew, ..strict };
    opened(&sshd.location("x"), &accept).list("").await.expect("a host never seen is accepted");
    let line = std::fs::read_to_string(&known).unwrap();
    assert!(line.contains("ed25519"), "{line}");

    let other = std::fs::read_to_string(sshd.path("user_key.pub")).unwrap();
    std::fs::write(&known, format!("[127.0.0.1]:{} {other}", sshd.0.port)).unwrap();
    let error = opened(&sshd.location("x"), &accept).list("").await.expect_err("changed key");
    assert_eq!(error.kind, StoreErrorKind::Config, "{}", error.cause);
}

/// The process that serves our sessions, not only the one that listens, is stopped and then killed.
async fn silent_server(sshd: &Sshd, location: &Location, options: &StoreOptions) {
    let store = opened(location, options);
    store.put("data/before", noise(1, 1000)).await.expect("put");
    let slow = StoreOptions { upload_limit_bytes_per_second: Some(8 << 20), ..options.clone() };
    let large = opened(location, &slow);
    let writing = tokio::spawn(async move { large.put("data/torn", noise(3, 16 << 20)).await });
    tokio::time::sleep(Duration::from_millis(800)).await;
    // Its session is cut in the middle of the write; the retry opens another and writes the whole again.
    kill_sessions(sshd.0.pid());
    assert_eq!(store.list("data").await.expect("list after the cut"), [listed("data/before", 1000)]);
    writing.await.unwrap().expect("the retry");
    assert!(store.get("data/torn").await.expect("get") == noise(3, 16 << 20));
}

/// Ends the children of the listening server: one for each session.
fn kill_sessions(listener: u32) {
    let children = std::fs::read_to_string(format!("/proc/{listener}/task/{listener}/children")).unwrap();
    for pid in children.split_whitespace() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_on_a_full_disk_and_without_the_right_to_delete() {
    let sshd = Sshd::start("-P remove,rmdir");
    let store = opened(&sshd.location("append-only"), &sshd.options());
    store.put("data/00", noise(1, 1000)).await.expect("writing needs no right to delete");
    let error = store.delete("data/00").await.expect_err("forbidden");
    assert_eq!(error.kind, StoreErrorKind::Denied, "{}", error.cause);

    let sshd = Sshd::start("");
    let disk = sshd.path("root/disk");
    std::fs::create_dir(&disk).unwrap();
    let disk = super::local::SmallDisk::mount_at(&disk);
    let store = opened(&sshd.location("disk/repo"), &impatient(sshd.options()));
    store.put("data/00", noise(1, 1 << 20)).await.expect("fits");
    let error = store.put("data/01", noise(2, 4 << 20)).await.expect_err("does not fit");
    assert_eq!(error.kind, StoreErrorKind::Full, "{}", error.cause);
    assert_eq!(store.list("data").await.unwrap(), [listed("data/00", 1 << 20)]);
    drop((store, disk));
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_on_apache_conforms() {
    let mut apache = Apache::start();
    dav(&apache.location("a/path"), &apache.location("limited")).await;
    let location = apache.location("outages");
    outages(&mut apache.0, &location, webdav::options()).await;
    let left = std::fs::read_dir(apache.0.dir.path().join("root/dav/outages/data")).unwrap();
    let mut left: Vec<_> = left.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    left.retain(|name| !name.starts_with('.'));
    assert_eq!(left, ["across", "before"], "the torn write has no object's name");
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_on_rclone_conforms() {
    let mut rclone = Rclone::start();
    dav(&rclone.location("a/path"), &rclone.location("limited")).await;
    let location = rclone.location("outages");
    outages(&mut rclone.0, &location, webdav::options()).await;
    let left = std::fs::read_dir(rclone.0.dir.path().join("root/outages/data")).unwrap();
    let mut left: Vec<_> = left.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["across", "before"], "the torn write has no object's name");
}

async fn dav(location: &Location, other: &Location) {
    let options = webdav::options();
    conformance::run(location, &options).await;
    limited(other, options.clone()).await;
    let mut wrong = options;
    wrong.credentials.webdav_password = Some("wrong".to_owned().into());
    denied(location, wrong).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_a_temporary_error() {
    let port = free_port();
    let mut options = webdav::options();
    options.credentials.s3_access_key_id = Some("k".into());
    options.credentials.s3_secret_access_key = Some("s".to_owned().into());
    for text in [
        format!("webdav://127.0.0.1:{port}/x"),
        format!("s3://b/x?endpoint=http://127.0.0.1:{port}"),
        format!("sftp://127.0.0.1:{port}/./x"),
    ] {
        unreachable(&text.parse().unwrap(), options.clone()).await;
    }
}

#[test]
fn a_service_without_keys_is_refused_when_opened() {
    for text in ["s3://bucket/x", "b2://bucket/x?bucket_id=1"] {
        let error = create(&text.parse().unwrap(), &StoreOptions::default()).expect_err(text);
        assert_eq!(error.kind, StoreErrorKind::Config);
        assert!(error.cause.to_string().contains("hint:"));
    }
}
