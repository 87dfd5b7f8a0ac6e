//! VictoriaMetrics: series exported and imported, or its files through the storage path.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use super::conformance::{self, Subject};
use crate::cli::Machine;
use crate::services::relay::Relay;
use crate::services::victoria::{Victoria, content};

struct Store {
    victoria: Victoria,
    others: Vec<Victoria>,
}

impl Store {
    fn new() -> Self {
        Self { victoria: Victoria::start(), others: Vec::new() }
    }
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Lines of points a minute apart.
fn points(name: &str, numbers: std::ops::Range<u64>) -> String {
    let line = |n: u64| {
        let (value, time) = (n as f64 / 8.0, (1_700_000_000 + n * 60) * 1_000_000_000);
        format!("{name},host=h{}\\ \"[x] v={value} {time}\n", n % 7)
    };
    numbers.map(line).collect()
}

impl Subject for Store {
    fn address(&self) -> String {
        self.victoria.address()
    }
    fn vacant(&mut self) -> String {
        self.others.push(Victoria::start());
        self.others.last().unwrap().address()
    }
    fn fill(&mut self) {
        self.victoria.write(&points("cpu", 0..20_000));
        self.victoria.write(&points("odd\\,name", 0..3));
    }
    fn change(&mut self) {
        self.victoria.write(&points("cpu", 20_000..20_100));
    }
    fn content(&self, address: &str) -> String {
        content(port(address))
    }
    fn nowhere(&self) -> String {
        "victoria://127.0.0.1:1".into()
    }
}

#[test]
fn victoria_metrics_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Store::new());
}

#[test]
fn victoria_metrics_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Store::new());
}

#[test]
fn damage_in_the_repository_leaves_a_victoria_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Store::new());
}

/// Through the storage path, beside a writer: what was taken before the capture is there, the snapshot is gone from the
/// server, and a server starts over what is restored.
#[test]
fn files_of_a_snapshot_come_back_under_a_new_server() {
    let mut store = Store::new();
    store.fill();
    let before = store.victoria.content();
    let machine = Machine::with_repository();
    let stop = AtomicBool::new(false);
    let address = format!("{}?storage={}", store.victoria.address(), store.victoria.storage().display());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                store.victoria.write(&points("more", number..number + 10));
                number += 10;
            }
        });
        let said = machine.run(&["backup", &address]);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        let said = machine.run(&["backup", &format!("{}?storage=/nonexistent", store.victoria.address())]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains("hint: storage= is the folder"), "{}", said.stderr);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        store.victoria.snapshots().contains("\"snapshots\":[]") || !store.victoria.snapshots().contains("-")
    );
    let said = machine.run(&["restore", "latest", "--to", &store.victoria.address(), "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("hint: stop the server"), "{}", said.stderr);
    let folder = machine.path("again");
    let said = machine.run(&["restore", "latest:/victoria", "--target", folder.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let again = Victoria::start_with(Some(&folder), &[]);
    let after = again.content();
    let of = |text: &str| {
        text.lines().filter(|line| !line.contains("\"more_v\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(&after), of(&before));
}

/// A server that keeps less drops old points without a word: then what came back is not what was captured.
#[test]
fn points_that_a_server_drops_are_missed() {
    let mut store = Store::new();
    store.fill();
    let machine = Machine::with_repository();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let forgetful = Victoria::start_with(None, &["-retentionPeriod=1d"]);
    let said = machine.run(&["restore", "latest", "--to", &forgetful.address()]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("-retentionPeriod"), "{}", said.stderr);
}

/// Points of one series with all sorts of magnitudes: what a server keeps of them depends on their neighbours.
fn uneven(numbers: std::ops::Range<u64>) -> String {
    let line = |n: u64| {
        let value = (n as f64 + 0.1).sqrt() * 10_f64.powi((n % 25) as i32 - 8);
        format!("uneven,of={} v={value} {}\n", n % 3, (1_700_000_000 + n * 7) * 1_000_000_000)
    };
    numbers.map(line).collect()
}

#[test]
fn values_that_a_server_changes_fail_the_proof_and_rounding_does_not() {
    let mut store = Store::new();
    store.fill();
    store.victoria.write(&uneven(0..5000));
    let machine = Machine::with_repository();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let exact = Victoria::start();
    let said = machine.run(&["restore", "latest", "--to", &exact.address()]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("their values are the same"), "{}", said.stdout);
    // It keeps so many bits of each value, without a word.
    let coarse = Victoria::start_with(None, &["-precisionBits=8"]);
    let said = machine.run(&["restore", "latest", "--to", &coarse.address()]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    for part in ["what came back is not what was captured", &coarse.address(), "-precisionBits"] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_gives_no_snapshot() {
    let mut store = Store::new();
    store.fill();
    for begin in 0..4 {
        store.victoria.write(&points("cpu", begin * 100_000..(begin + 1) * 100_000));
    }
    let machine = Machine::with_repository();
    std::fs::create_dir_all(machine.path("tmp")).unwrap();
    let relay = Relay::start(store.victoria.port(), 1 << 20);
    let address = format!("victoria://127.0.0.1:{}", relay.port);
    let mut command = machine.raw(&["backup", &address]);
    command.env("TMPDIR", machine.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    relay.reached();
    store.victoria.server.kill();
    relay.go_on();
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 1, "{}", said.stderr);
    for part in [&*format!("127.0.0.1:{}", relay.port), "export", "hint: the server ended"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0), "{}", listed.stdout);
    assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none());
}

#[test]
fn a_password_is_wanted_and_shown_nowhere() {
    let guarded = Victoria::start_with(None, &["-httpAuth.username=keeper", "-httpAuth.password=s3cret"]);
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &guarded.address()]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("hint: give the user"), "{}", said.stderr);
    let file = machine.file("password", "s3cret\n");
    let address = guarded.address().replace("//", "//keeper@");
    let said = machine.run(&["backup", &format!("{address}?password-file={}", file.display())]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(!(said.stdout + &said.stderr).contains("s3cret"));
}
