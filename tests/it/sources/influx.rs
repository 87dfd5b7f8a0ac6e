//! InfluxDB 1.x: through its own portable backup, counted.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::conformance::{self, Subject};
use crate::cli::Machine;
use crate::services::influx::Influx;
use crate::services::relay::Relay;

struct Store {
    influx: Influx,
    made: u32,
}

impl Store {
    fn new() -> Self {
        Self { influx: Influx::start(), made: 0 }
    }
}

/// Lines of points a minute apart.
fn points(numbers: std::ops::Range<u64>) -> String {
    let line = |n: u64| {
        let time = (1_700_000_000 + n * 60) * 1_000_000_000;
        format!("cpu,host=h{} v={},s=\"a \\\" b\" {time}\nodd\\ name f={n}i {time}\n", n % 7, n as f64 / 3.0)
    };
    numbers.map(line).collect()
}

impl Subject for Store {
    fn address(&self) -> String {
        self.influx.address("shop")
    }
    fn vacant(&mut self) -> String {
        self.made += 1;
        self.influx.address(&format!("back{}", self.made))
    }
    fn fill(&mut self) {
        self.influx.query("CREATE DATABASE shop");
        self.influx.query("CREATE RETENTION POLICY \"long\" ON shop DURATION 0s REPLICATION 1");
        self.influx.write("shop", "autogen", &points(0..3000));
        self.influx.write("shop", "long", &points(0..100));
    }
    fn change(&mut self) {
        self.influx.write("shop", "autogen", &points(3000..3100));
    }
    fn content(&self, address: &str) -> String {
        let name = address.rsplit('/').next().unwrap().split('?').next().unwrap();
        self.influx.content(name)
    }
    fn nowhere(&self) -> String {
        self.influx.address("missing")
    }
}

#[test]
fn an_influx_database_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Store::new());
}

#[test]
fn an_influx_database_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Store::new());
}

#[test]
fn damage_in_the_repository_leaves_an_influx_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Store::new());
}

#[test]
fn a_capture_beside_a_writer_has_what_was_there_before_it() {
    let mut store = Store::new();
    store.fill();
    let machine = Machine::with_repository();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 3000;
            while !stop.load(Ordering::Relaxed) {
                store.influx.write("shop", "autogen", &points(number..number + 50));
                number += 50;
            }
        });
        let said = machine.run(&["backup", &store.address()]);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(said.code, 0, "{}", said.stderr);
    });
    let said = machine.run(&["restore", "latest", "--to", &store.influx.address("back")]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("points"), "{}", said.stdout);
    let count = store.influx.query("SELECT count(v) FROM back.autogen.cpu");
    let points: u64 =
        count.rsplit(',').next().unwrap().trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    assert!(points >= 3000, "{count}");
}

/// The tool itself would try to reach a server that is gone for minutes.
#[test]
fn a_server_that_takes_no_backups_or_dies_gives_no_snapshot() {
    let mut store = Store::new();
    store.fill();
    let machine = Machine::with_repository();
    let elsewhere = store
        .address()
        .replace(&format!("backup=127.0.0.1:{}", store.influx.backup_port), "backup=127.0.0.1:1");
    let said = machine.run(&["backup", &elsewhere]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("nobody takes backups at 127.0.0.1:1\nhint: "), "{}", said.stderr);
    // Stopped, it takes the connection and says nothing; then it is killed.
    std::fs::create_dir_all(machine.path("tmp")).unwrap();
    let mut command = machine.raw(&["backup", &store.address()]);
    command.env("TMPDIR", machine.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    store.influx.server.signal(Signal::STOP);
    let child = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    store.influx.server.signal(Signal::KILL);
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 1, "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0), "{}", listed.stdout);
    assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none());
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_shard_gives_no_snapshot() {
    let mut store = Store::new();
    store.fill();
    // Nothing that compresses, so that there is a middle.
    let mut number = 1_u64;
    let mut line = |n: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("noise v={} {}\n", number as f64 / 7.0, (1_700_000_000 + n) * 1_000_000_000)
    };
    let lines: String = (0..100_000).map(&mut line).collect();
    store.influx.write("shop", "autogen", &lines);
    let machine = Machine::with_repository();
    std::fs::create_dir_all(machine.path("tmp")).unwrap();
    let relay = Relay::start(store.influx.backup_port, 200 << 10);
    let address =
        format!("influxdb://127.0.0.1:{}/shop?backup=127.0.0.1:{}", store.influx.port(), relay.port);
    let mut command = machine.raw(&["backup", &address]);
    command.env("TMPDIR", machine.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    relay.reached();
    store.influx.server.kill();
    relay.go_on();
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 1, "{}", said.stderr);
    let gone = format!(
        "back up database \"shop\": the server that takes backups at 127.0.0.1:{} is gone",
        relay.port
    );
    assert!(said.stderr.contains(&gone) && said.stderr.contains("hint: its log"), "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0), "{}", listed.stdout);
    assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none());
}

#[test]
fn an_interrupted_capture_leaves_nothing_behind() {
    let mut store = Store::new();
    store.fill();
    let machine = Machine::with_repository();
    std::fs::create_dir_all(machine.path("tmp")).unwrap();
    store.influx.server.signal(Signal::STOP);
    let mut command = machine.raw(&["backup", &store.address()]);
    command.env("TMPDIR", machine.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let said = machine.said(child.wait_with_output().unwrap());
    store.influx.server.signal(Signal::CONT);
    assert_eq!(said.code, 130, "{}", said.stderr);
    assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none());
}
