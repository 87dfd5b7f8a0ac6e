//! What a capture of a server must and must not do.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::{Proxied, fill};
use crate::cli::{Machine, Said};
use crate::services::redis::{self as servers, Redis};
use crate::services::{Server, program};

/// Slows a full synchronisation down to some seconds, so that something can happen meanwhile.
fn slow(redis: &Redis) {
    redis.ask(&["DEBUG", "POPULATE", "20000", "slow", "100"]);
    redis.ask(&["CONFIG", "SET", "rdb-key-save-delay", "300"]);
}

fn ok(said: &Said) {
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
}

fn no_snapshot(machine: &Machine) {
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0), "{}", listed.stdout);
}

/// What Redis' own tool says of the newest snapshot's RDB.
fn judged(machine: &Machine) -> String {
    let said = machine.command(&["dump", "latest:/dump.rdb"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let path = machine.file("judged.rdb", said.stdout);
    let said = Command::new(program("redis-check-rdb")).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.contains("RDB looks OK"), "{text}");
    text
}

/// The newest snapshot given to a server of its own.
fn restored(machine: &Machine) -> Redis {
    let target = servers::start(&[]);
    ok(&machine.run(&["restore", "latest", "--to", &target.address()]));
    target
}

/// Starts a capture of a slowed server and waits until its RDB streams.
fn begun(machine: &Machine, redis: &Redis) -> std::process::Child {
    let mut command = machine.raw(&["backup", &redis.address()]);
    command.env("REDISCLI_AUTH", &redis.password).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while redis.info("rdb_bgsave_in_progress") != "1" {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn ended(machine: &Machine, child: std::process::Child) -> Said {
    machine.said(child.wait_with_output().unwrap())
}

#[test]
fn both_framings_give_an_rdb_that_redis_itself_accepts() {
    let redis = servers::start(&[]);
    fill(&redis);
    let machine = Machine::with_repository();
    for diskless in ["yes", "no"] {
        redis.ask(&["CONFIG", "SET", "repl-diskless-sync", diskless]);
        ok(&machine.run(&["backup", &redis.address()]));
        judged(&machine);
    }
}

#[test]
fn every_way_of_capturing_gives_the_same_content_back() {
    let redis = servers::start(&[]);
    fill(&redis);
    let machine = Machine::with_repository();
    for mode in ["stream", "scan", "bgsave"] {
        let said = machine.run(&["backup", &format!("{}?mode={mode}", redis.address())]);
        ok(&said);
        assert_eq!(said.stderr.contains("not of one instant"), mode == "scan", "{mode}: {}", said.stderr);
        judged(&machine);
        assert_eq!(restored(&machine).content(), redis.content(), "{mode}");
    }
}

#[test]
fn a_capture_beside_a_writer_is_of_one_moment() {
    let redis = servers::start(&[]);
    fill(&redis);
    let machine = Machine::with_repository();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Two counters and two sets that only ever change together.
            let text = "for i = 1, 50 do local n = redis.call('INCR', 'left'); redis.call('INCR', 'right')
                        redis.call('SADD', 'on the left', n); redis.call('SADD', 'on the right', n) end";
            while !stop.load(Ordering::Relaxed) {
                redis.script(text);
            }
        });
        for mode in ["stream", "bgsave", "stream"] {
            ok(&machine.run(&["backup", &format!("{}?mode={mode}", redis.address())]));
            let target = restored(&machine);
            let left = target.ask(&["GET", "left"]);
            assert_eq!(left, target.ask(&["GET", "right"]));
            assert_eq!(left, target.ask(&["SCARD", "on the left"]));
            assert_eq!(left, target.ask(&["SCARD", "on the right"]));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_empty_server_and_a_huge_value_are_captured_and_given_back() {
    let redis = servers::start(&[]);
    let machine = Machine::with_repository();
    for mode in ["stream", "scan"] {
        ok(&machine.run(&["backup", &format!("{}?mode={mode}", redis.address())]));
        assert_eq!(restored(&machine).content(), redis.content());
    }
    // Not to be packed, so that it is as large in the file.
    redis.ask(&["CONFIG", "SET", "rdbcompression", "no"]);
    redis.script("redis.call('SET', 'huge', string.rep('0123456789abcdef', 3 * 1024 * 1024))");
    ok(&machine.run(&["backup", &redis.address()]));
    let target = servers::start(&["--rename-command", "CONFIG", ""]);
    let said = machine.run(&["restore", "latest", "--to", &target.address()]);
    ok(&said);
    assert!(said.stdout.contains("sent one by one"), "{}", said.stdout);
    assert_eq!(target.content(), redis.content());
}

#[test]
fn a_server_killed_in_the_midst_gives_no_snapshot() {
    let mut redis = servers::start(&[]);
    slow(&redis);
    let machine = Machine::with_repository();
    let child = begun(&machine, &redis);
    redis.server.kill();
    let said = ended(&machine, child);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("lost redis://") && said.stderr.contains("RDB"), "{}", said.stderr);
    no_snapshot(&machine);
}

#[test]
fn an_interrupted_capture_leaves_no_snapshot_and_no_replica() {
    let redis = servers::start(&["--requirepass", "g3heim-und-lang"]);
    slow(&redis);
    let machine = Machine::with_repository();
    let child = begun(&machine, &redis);
    // Nobody who lists processes sees the password.
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_server = process.file_name().to_str() == Some(&redis.server.pid().to_string());
        let line = String::from_utf8_lossy(&line).into_owned();
        // The server itself got it that way from this test; a child of it is its fork.
        assert!(is_server || line.contains("redis-") || !line.contains("g3heim-und-lang"), "{line}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let said = ended(&machine, child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    assert!(!said.stderr.contains("g3heim"), "{}", said.stderr);
    no_snapshot(&machine);
    while redis.info("connected_slaves") != "0" {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_rdb_damaged_or_cut_on_its_way_gives_no_snapshot() {
    let redis = servers::start(&["--repl-diskless-sync", "no"]);
    redis.ask(&["DEBUG", "POPULATE", "5000", "key", "200"]);
    for (proxied, expected) in [(Proxied::Flipped, "damaged"), (Proxied::Cut, "lost")] {
        let machine = Machine::with_repository();
        let port = super::proxy(redis.server.port, proxied, 150_000);
        let said = machine.run(&["backup", &format!("redis://127.0.0.1:{port}?mode=stream")]);
        assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
        let word = said.stderr.contains(expected) || said.stderr.contains("checksum");
        assert!(word, "{}", said.stderr);
        no_snapshot(&machine);
    }
}

#[test]
fn a_wrong_password_is_named_and_not_shown() {
    let redis = servers::start(&["--requirepass", "right"]);
    let machine = Machine::with_repository();
    for (variables, hint) in
        [([("REDISCLI_AUTH", "wr0ng")], "password-file="), ([("REDISCLI_AUTH", "")], "NOAUTH")]
    {
        let said = machine.run_with(&variables, &["backup", &redis.address()]);
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert!(said.stderr.contains(hint) && !said.stderr.contains("wr0ng"), "{}", said.stderr);
    }
    let file = machine.file("password", "right\n");
    let address = format!("{}?password-file={}", redis.address(), file.display());
    ok(&machine.run(&["backup", &address]));
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json()[0]["job"], redis.address().as_str());
    no_password(&machine, "right");
}

fn no_password(machine: &Machine, password: &str) {
    let dumped = machine.run(&["dump", "latest:/users.acl"]);
    assert!(
        dumped.stdout.starts_with("user default") && !dumped.stdout.contains(password),
        "{}",
        dumped.stdout
    );
}

#[test]
fn a_user_without_the_right_is_told_the_line_that_gives_it() {
    let redis = servers::start(&[]);
    fill(&redis);
    redis.ask(&["ACL", "SETUSER", "bob", "on", ">pw", "~*", "+ping"]);
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("pw"), "pw\n").unwrap();
    let pw = secrets.path().join("pw").display().to_string();
    let machine = Machine::with_repository();
    for mode in ["stream", "scan"] {
        let address = format!("redis://bob@127.0.0.1:{}?mode={mode}&password-file={pw}", redis.server.port);
        let said = machine.run(&["backup", &address]);
        assert_eq!(said.code, 1, "{}", said.stderr);
        let line = said.stderr.split("gives the right: ").nth(1).unwrap_or_else(|| panic!("{}", said.stderr));
        assert_eq!(redis.ask(&line.trim().split(' ').collect::<Vec<_>>()), "OK");
        let said = machine.run(&["backup", &address]);
        ok(&said);
        assert!(!said.stderr.contains("not in the snapshot"), "{}", said.stderr);
        assert_eq!(restored(&machine).ask(&["DEBUG", "DIGEST"]), redis.ask(&["DEBUG", "DIGEST"]), "{mode}");
        redis.ask(&["ACL", "SETUSER", "bob", "-@all", "+ping"]);
    }
    // Left to choose, a user who may only read reads key by key, and is told of the better way.
    redis.ask(&["ACL", "SETUSER", "bob", "+@read", "+info", "+time", "+select", "+function|dump"]);
    let machine = Machine::with_repository();
    let said =
        machine.run(&["backup", &format!("redis://bob@127.0.0.1:{}?password-file={pw}", redis.server.port)]);
    ok(&said);
    assert!(said.stderr.contains("ACL SETUSER bob +psync"), "{}", said.stderr);
    assert_eq!(restored(&machine).ask(&["DEBUG", "DIGEST"]), redis.ask(&["DEBUG", "DIGEST"]));
}

#[test]
fn a_server_that_still_loads_is_waited_for() {
    let mut redis = servers::start(&[]);
    redis.ask(&["DEBUG", "POPULATE", "3000", "key", "20"]);
    redis.ask(&["SAVE"]);
    redis.server.kill();
    let folder = redis.server.dir.path().to_owned();
    let again = Server::start("redis-server", |_, port| {
        let mut command = Command::new(program("redis-server"));
        command.args(["--port", &port.to_string(), "--key-load-delay", "300"]);
        // Between keys it looks after its clients.
        command.args(["--loading-process-events-interval-bytes", "1024", "--save", "", "--dir"]).arg(&folder);
        command
    });
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &format!("redis://127.0.0.1:{}", again.port)]);
    ok(&said);
    assert!(judged(&machine).contains("3000 keys read"));
}

#[test]
fn a_replica_is_captured_and_one_without_its_master_refuses() {
    let mut master = servers::start(&[]);
    fill(&master);
    let replica = servers::start(&["--replicaof", "127.0.0.1", &master.server.port.to_string()]);
    while replica.info("master_link_status") != "up" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let machine = Machine::with_repository();
    ok(&machine.run(&["backup", &replica.address()]));
    assert_eq!(restored(&machine).content(), master.content());
    master.server.kill();
    while replica.info("master_link_status") == "up" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = machine.run(&["backup", &replica.address()]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("back up the master"), "{}", said.stderr);
}

#[test]
fn every_master_of_a_cluster_is_captured_and_all_go_into_one_server() {
    let nodes: Vec<Redis> = (0..3).map(|_| servers::start(&["--cluster-enabled", "yes"])).collect();
    let places: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.server.port)).collect();
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &nodes[0].address()]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("not whole"), "{}", said.stderr);
    let mut make = Command::new(program("redis-cli"));
    make.args(["--cluster", "create"]).args(&places).args(["--cluster-yes"]).stdin(Stdio::null());
    let made = make.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    while nodes.iter().any(|node| !node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")) {
        std::thread::sleep(Duration::from_millis(50));
    }
    for number in 0..300 {
        nodes[0].ask(&["-c", "SET", &format!("key {number}"), "value"]);
    }
    ok(&machine.run(&["backup", &nodes[1].address()]));
    let target = restored(&machine);
    assert_eq!(target.ask(&["DBSIZE"]), "300");
    let said = machine.run(&["restore", "latest", "--to", &nodes[0].address(), "--force"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("part of a cluster"), "{}", said.stderr);
}

#[test]
fn a_server_behind_tls_is_captured_and_given_back() {
    let machine = Machine::with_repository();
    let path = |name: &str| machine.path(name).to_str().unwrap().to_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let made = Command::new(program("openssl"))
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let start = |port: u16| {
        let options =
            ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
        let port = port.to_string();
        servers::start(&[&options[..], &["--tls-port", &port, "--tls-auth-clients", "no"]].concat())
    };
    let (one, two) = (crate::services::free_port(), crate::services::free_port());
    let (source, target) = (start(one), start(two));
    fill(&source);
    let address = |port| format!("rediss://localhost:{port}?ca={certificate}");
    let said = machine.run(&["backup", &format!("rediss://localhost:{one}")]);
    assert_eq!(said.code, 1, "an unknown certificate is trusted: {}", said.stdout);
    ok(&machine.run(&["backup", &address(one)]));
    ok(&machine.run(&["restore", "latest", "--to", &address(two)]));
    assert_eq!(target.content(), source.content());
}
