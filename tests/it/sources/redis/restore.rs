//! What a restore into a server, or a stopped server's folder, must and must not do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::fill;
use crate::cli::{Machine, Said};
use crate::services::redis::{self as servers, Redis};
use crate::services::{Server, program};

fn ok(said: &Said) {
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
}

/// A filled server and a repository with its snapshot.
fn captured() -> (Redis, Machine) {
    let source = servers::start(&[]);
    fill(&source);
    let machine = Machine::with_repository();
    ok(&machine.run(&["backup", &source.address()]));
    (source, machine)
}

/// A server that keeps append-only files in a folder that outlives it.
fn over(folder: &Path, options: &[&str]) -> Redis {
    let server = Server::start("redis-server", |_, port| {
        let mut command = Command::new(program("redis-server"));
        command.args(["--port", &port.to_string(), "--save", "", "--enable-debug-command", "local"]);
        command.args(options).arg("--dir").arg(folder);
        command
    });
    let redis = Redis { server, password: String::new() };
    while redis.info("loading") != "0" {
        std::thread::sleep(Duration::from_millis(20));
    }
    redis
}

#[test]
fn a_server_with_an_append_only_file_keeps_every_restored_key_over_a_restart() {
    let (source, machine) = captured();
    let folder = tempfile::tempdir().unwrap();
    let mut target = over(folder.path(), &["--appendonly", "yes"]);
    let said = machine.run(&["restore", "latest", "--to", &target.address()]);
    ok(&said);
    assert!(
        said.stdout.contains("append-only file") && said.stdout.contains("as a replica"),
        "{}",
        said.stdout
    );
    assert_eq!(target.content(), source.content());
    assert_eq!(
        (target.info("role").as_str(), target.ask(&["CONFIG", "GET", "masterauth"]).as_str()),
        ("master", "masterauth")
    );
    target.server.kill();
    let again = over(folder.path(), &["--appendonly", "yes"]);
    assert_eq!(again.content(), source.content());
}

#[test]
fn a_stopped_servers_folder_gets_append_only_files_that_hold_every_key() {
    let (source, machine) = captured();
    let folder = machine.path("redis data");
    std::fs::create_dir(&folder).unwrap();
    let to = format!("redis-dir:{}", folder.display());
    let mut old = over(&folder, &["--appendonly", "yes"]);
    old.ask(&["SET", "old", "data"]);
    let said = machine.run(&["restore", "latest", "--to", &to, "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("stop it first"), "{}", said.stderr);
    old.server.kill();
    let said = machine.run(&["restore", "latest", "--to", &to]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("appendonlydir") && said.stderr.contains("--force"), "{}", said.stderr);
    let said = machine.run(&["restore", "latest", "--to", &to, "--force"]);
    ok(&said);
    let names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("appendonlydir.before-")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with(".lifeboat-")), "{names:?}");
    for append_only in ["yes", "no"] {
        let again = over(&folder, &["--appendonly", append_only]);
        assert_eq!(again.content(), source.content(), "appendonly {append_only}");
    }
}

#[test]
fn values_are_sent_where_the_target_cannot_follow() {
    let (source, machine) = captured();
    let target = servers::start(&["--rename-command", "CONFIG", "", "--requirepass", "g3heim"]);
    let address = target.address();
    let said = machine.run_with(&[("REDISCLI_AUTH", "g3heim")], &["restore", "latest", "--to", &address]);
    ok(&said);
    assert!(said.stdout.contains("sent one by one"), "{}", said.stdout);
    assert_eq!(target.content(), source.content());
}

#[test]
fn what_is_there_is_added_to_only_when_no_key_is_in_both() {
    let (source, machine) = captured();
    let target = servers::start(&[]);
    target.ask(&["SET", "mine", "stays"]);
    let before = target.content();
    let said = machine.run(&["restore", "latest", "--to", &target.address()]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("holds 1 key") && said.stderr.contains("--flush-first"), "{}", said.stderr);
    // Beforehand it is said what becomes of it, either way.
    for (flush, expected) in [
        (&[][..], "stays     1 key: what comes is added"),
        (&["--flush-first"], "replaced  1 key, which --flush-first empties"),
    ] {
        let address = target.address();
        let said = machine.run(&[&["restore", "latest", "--to", &address, "--force", "-n"], flush].concat());
        ok(&said);
        assert!(said.stdout.contains(expected), "{}", said.stdout);
    }
    let said = machine.run(&["restore", "latest", "--to", &target.address(), "--force"]);
    ok(&said);
    assert_eq!(target.ask(&["GET", "mine"]), "stays");
    // What is proven is that the snapshot's keys are there; of the whole nothing is claimed.
    assert!(said.stdout.contains("keys of the RDB are there; the server held each value"), "{}", said.stdout);
    assert!(said.stdout.contains("1 key that the target holds besides stays"), "{}", said.stdout);
    assert!(!said.stdout.contains("as many as the RDB holds"), "{}", said.stdout);
    target.ask(&["DEL", "mine"]);
    assert_eq!(target.content(), source.content());
    // Now every key is in both.
    let said = machine.run(&["restore", "latest", "--to", &target.address(), "--force"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("nothing was changed"), "{}", said.stderr);
    assert_eq!(target.content(), source.content());
    assert_ne!(before, target.content());
    let said = machine.run(&["restore", "latest", "--to", &target.address(), "--flush-first"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
}

#[test]
fn a_target_with_replicas_or_a_master_is_refused_without_force() {
    let (source, machine) = captured();
    let master = servers::start(&[]);
    let replica = servers::start(&["--replicaof", "127.0.0.1", &master.server.port.to_string()]);
    while replica.info("master_link_status") != "up" {
        std::thread::sleep(Duration::from_millis(20));
    }
    for (target, word) in [(&master, "has replicas"), (&replica, "itself a replica")] {
        let said = machine.run(&["restore", "latest", "--to", &target.address()]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains(word), "{}", said.stderr);
    }
    ok(&machine.run(&["restore", "latest", "--to", &replica.address(), "--force"]));
    assert_eq!((replica.info("role").as_str(), replica.content()), ("master", source.content()));
}

#[test]
fn keys_that_expire_between_capture_and_proof_are_told_apart() {
    let source = servers::start(&[]);
    fill(&source);
    source.script("for i = 1, 500 do redis.call('SET', 'brief' .. i, i, 'PX', 1500 + i) end");
    let machine = Machine::with_repository();
    ok(&machine.run(&["backup", &source.address()]));
    while source.info("db0").contains("keys=3522") || source.ask(&["EXISTS", "brief500"]) == "1" {
        std::thread::sleep(Duration::from_millis(50));
    }
    let targets = [servers::start(&[]), servers::start(&["--rename-command", "CONFIG", ""])];
    for target in &targets {
        let said = machine.run(&["restore", "latest", "--to", &target.address()]);
        ok(&said);
        assert!(said.stdout.contains("500 of the snapshot have expired"), "{}", said.stdout);
        assert_eq!(target.ask(&["EXISTS", "brief1", "brief500", "expires"]), "1");
    }
}

#[test]
fn users_are_made_and_those_that_exist_are_left_alone() {
    let source = servers::start(&[]);
    source.ask(&["SET", "a", "b"]);
    source.ask(&["ACL", "SETUSER", "alice", "on", ">alicespw", "~app:*", "+get", "+set"]);
    source.ask(&["ACL", "SETUSER", "bob", "on", ">bobspw", "~*", "+get"]);
    let machine = Machine::with_repository();
    ok(&machine.run(&["backup", &source.address()]));
    let target = servers::start(&[]);
    target.ask(&["ACL", "SETUSER", "bob", "on", ">another", "~*", "+@all"]);
    let kept = target.ask(&["ACL", "GETUSER", "bob"]);
    let said = machine.run(&["restore", "latest", "--to", &target.address()]);
    ok(&said);
    assert!(said.stderr.contains("user bob is left"), "{}", said.stderr);
    assert_eq!(target.ask(&["ACL", "GETUSER", "bob"]), kept);
    // In whatever order the rights are told.
    let alice = |redis: &Redis| {
        let told = redis.ask(&["ACL", "GETUSER", "alice"]);
        let mut words: Vec<String> = told.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    assert_eq!(alice(&target), alice(&source));
}

#[test]
fn valkey_takes_what_redis_gave_and_an_older_redis_refuses_what_valkey_gave() {
    let (source, machine) = captured();
    // What Valkey itself makes of the file; its digests are not Redis'.
    let folder = machine.path("reference");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(
        folder.join("dump.rdb"),
        machine.command(&["dump", "latest:/dump.rdb"]).output().unwrap().stdout,
    )
    .unwrap();
    let reference = servers::start_program("valkey-server", &["--dir", folder.to_str().unwrap()]);
    let valkey = servers::start_program("valkey-server", &[]);
    ok(&machine.run(&["restore", "latest", "--to", &valkey.address()]));
    assert_eq!(valkey.content(), reference.content());
    assert_eq!(valkey.ask(&["DBSIZE"]), source.ask(&["DBSIZE"]));
    ok(&machine.run(&["backup", &valkey.address()]));
    let redis = servers::start(&[]);
    let said = machine.run(&["restore", &format!("{}@latest", valkey.address()), "--to", &redis.address()]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("RDB version 11") && said.stderr.contains("up to 10"), "{}", said.stderr);
    let another = servers::start_program("valkey-server", &[]);
    let said = machine.run(&["restore", &format!("{}@latest", valkey.address()), "--to", &another.address()]);
    ok(&said);
    assert_eq!(another.content(), reference.content());
}

#[test]
fn a_target_that_a_sentinel_watches_is_refused_without_force() {
    let (_source, machine) = captured();
    let target = servers::start(&[]);
    let watched = target.server.port;
    let sentinel = Server::start("redis-server", |folder, port| {
        let path = folder.join("sentinel.conf");
        std::fs::write(&path, format!("port {port}\nsentinel monitor it 127.0.0.1 {watched} 1\n")).unwrap();
        let mut command = Command::new(program("redis-server"));
        command.arg(path).arg("--sentinel");
        command
    });
    while target.ask(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]).ends_with('0') {
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = machine.run(&["restore", "latest", "--to", &target.address()]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("watched by a Sentinel"), "{}", said.stderr);
    for (verb, words) in
        [("backup", vec!["backup"]), ("restore", vec!["restore", "latest", "--force", "--to"])]
    {
        let address = format!("redis://127.0.0.1:{}", sentinel.port);
        let said = machine.run(&[words, vec![&address]].concat());
        assert_ne!(said.code, 0, "{verb}");
        assert!(said.stderr.contains("is a Sentinel"), "{}", said.stderr);
    }
}

#[test]
fn an_interrupted_restore_leaves_a_master_and_nothing_of_ours() {
    let source = servers::start(&[]);
    source.ask(&["DEBUG", "POPULATE", "20000", "key", "100"]);
    let machine = Machine::with_repository();
    ok(&machine.run(&["backup", &source.address()]));
    // Slow to take over, and answering meanwhile.
    let slow = ["--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"];
    let target = servers::start(&slow);
    let spool = machine.path("spool");
    std::fs::create_dir(&spool).unwrap();
    let mut command = machine.raw(&["restore", "latest", "--to", &target.address()]);
    command.env("TMPDIR", &spool).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    while target.info("loading") != "1" {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 130, "{}{}", said.stdout, said.stderr);
    assert_eq!(target.info("role"), "master");
    assert_eq!(target.ask(&["CONFIG", "GET", "masterauth"]), "masterauth");
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    let ours = spool.to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(ours), "a server of ours is still there");
    }
}

#[test]
fn a_target_that_holds_only_functions_is_not_empty() {
    let (source, machine) = captured();
    let target = servers::start(&[]);
    target.ask(&["FUNCTION", "LOAD", &super::LIBRARY.replace("harbour", "quay").replace("moor", "land")]);
    let before = target.content();
    let said = machine.run(&["restore", "latest", "--to", &target.address()]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("1 library of functions"), "{}", said.stderr);
    assert_eq!(target.content(), before);
    ok(&machine.run(&["restore", "latest", "--to", &target.address(), "--force", "--flush-first"]));
    assert_eq!(target.content(), source.content());
}
