//! A drill that was begun is never absent: what was killed is listed as failed by whoever comes next, and two of a name
//! do not run at once.

use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{ends, with_files};
use crate::cli::Machine;

/// Begins a drill and waits until it has come to its check.
fn begin(machine: &Machine, arguments: &[&str]) -> Child {
    let _ = std::fs::remove_file(machine.path("started"));
    let mut child = machine.raw(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut tries = 0;
    while !machine.path("started").exists() {
        assert!(child.try_wait().unwrap().is_none() && tries < 1200, "it never came to the check");
        std::thread::sleep(Duration::from_millis(50));
        tries += 1;
    }
    child
}

fn end(mut child: Child, signal: Signal) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap();
}

const SLOW: [&str; 6] = ["drill", "run", "weekly", "--check-command", "touch started; sleep 60", "--scratch"];

fn slow(scratch: &str) -> Vec<&str> {
    [&SLOW[..], &[scratch]].concat()
}

fn listed(machine: &Machine) -> Vec<(String, u64, String)> {
    let said = machine.run(&["--json", "drill", "list"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let row = |record: &serde_json::Value| {
        let found = &record["evidence"];
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        (text("name"), found["number"].as_u64().unwrap(), text("verdict"))
    };
    said.json().as_array().unwrap().iter().map(row).collect()
}

#[test]
fn a_drill_that_was_killed_is_listed_as_failed_and_chained_like_the_others() {
    let machine = with_files();
    std::fs::create_dir(machine.path("scratch")).unwrap();
    ends(&machine, &["weekly"], 0, &["Drill weekly #1"]);
    end(begin(&machine, &slow("scratch")), Signal::KILL);
    // Whoever looks first files it.
    let said = machine.run(&["drill", "list"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("weekly#2") && said.stdout.contains("interrupted"), "{}", said.stdout);
    assert!(said.stderr.contains("it ended without a word: its process"), "{}", said.stderr);
    let said = machine.run(&["drill", "list"]);
    assert!(said.stderr.is_empty() && !said.stdout.contains("weekly#3"), "{}{}", said.stdout, said.stderr);
    // So does the next run, before it takes its own place.
    end(begin(&machine, &slow("scratch")), Signal::KILL);
    end(begin(&machine, &slow("scratch")), Signal::KILL);
    ends(&machine, &["weekly"], 0, &["Drill weekly #5", "it is kept as a failed one"]);
    let verdicts: Vec<String> = listed(&machine).into_iter().map(|(_, _, verdict)| verdict).collect();
    assert_eq!(verdicts, ["met", "interrupted", "interrupted", "interrupted", "met"]);
    let said = machine.run(&["drill", "report"]);
    assert!(said.stdout.contains("weekly: 2 of 5 runs passed"), "{}", said.stdout);
    let mut before = serde_json::Value::Null;
    for number in 1..=5 {
        let said = machine.run(&["drill", "show", &format!("weekly#{number}"), "--json", "e.json"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let text = std::fs::read_to_string(machine.path("e.json")).unwrap();
        let signed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let found = &signed["evidence"];
        assert_eq!(found["number"], number);
        assert_eq!(found["previous"], before, "{found}");
        let key = signed["key"].as_str().unwrap();
        assert_eq!(machine.run(&["drill", "attest", "e.json", "--pubkey", key]).code, 0);
        let signed: lifeboat::drill::evidence::SignedEvidence = serde_json::from_value(signed).unwrap();
        before = signed.hash().unwrap().into();
    }
    // Nothing was said to be kept: then it is told once, and not kept.
    end(begin(&machine, &[&slow("scratch")[..], &["--no-keep"]].concat()), Signal::KILL);
    let said = machine.run(&["drill", "list"]);
    assert!(said.stderr.contains("nothing of it is kept"), "{}", said.stderr);
    assert_eq!(listed(&machine).len(), 5);
}

#[test]
fn two_drills_of_a_name_are_not_run_at_once() {
    let machine = with_files();
    std::fs::create_dir(machine.path("scratch")).unwrap();
    let first = begin(&machine, &slow("scratch"));
    let said = machine.run(&["drill", "run", "weekly"]);
    assert_eq!(said.code, 11, "{}{}", said.stdout, said.stderr);
    let told = format!("drill weekly is under way on this machine: process {}, since 20", first.id());
    assert!(said.stderr.contains(&told), "{}", said.stderr);
    // The same repository by another name is the same.
    let said = machine.run(&["-r", "./repository", "drill", "run", "weekly"]);
    assert_eq!(said.code, 11, "{}{}", said.stdout, said.stderr);
    // It is not taken for one that was killed, and another name is another drill.
    assert_eq!(listed(&machine), []);
    ends(&machine, &["monthly"], 0, &["Drill monthly #1"]);
    end(first, Signal::INT);
    ends(&machine, &["weekly"], 0, &["Drill weekly #2"]);
    let row = |name: &str, number, verdict: &str| (name.to_owned(), number, verdict.to_owned());
    let all = [row("monthly", 1, "met"), row("weekly", 1, "interrupted"), row("weekly", 2, "met")];
    assert_eq!(listed(&machine), all);
}

#[test]
fn a_drill_that_never_began_is_none() {
    let machine = with_files();
    let said = machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &["drill", "run", "weekly"]);
    assert_eq!(said.code, 12, "{}", said.stderr);
    assert_eq!(machine.run(&["drill", "run", "weekly", "--rto", "0s"]).code, 2);
    let said = machine.run(&["drill", "list"]);
    assert!(!said.stdout.contains("weekly") && !said.stderr.contains("without a word"), "{}", said.stderr);
}

#[test]
fn what_a_fault_cannot_be_recovered_with_is_told_before_the_drill_runs() {
    let mut machine = with_files();
    let text = format!(
        "[repository.main]\nurl = {:?}\n[repository.box]\nurl = {:?}\nreplica_of = \"main\"\npassword = {{ file = {:?} }}\n\
         [drill.loss]\nrestore = \"latest\"\nfaults = [{{ kind = \"primary-gone\" }}]\nchecks = [{{ command = {:?} }}]\n",
        machine.path("repository"),
        machine.path("replica"),
        machine.path("no-password"),
        format!("touch {}", machine.path("ran").display())
    );
    let config = machine.file("lifeboat.toml", text).display().to_string();
    machine.set("LIFEBOAT_CONFIG", &config);
    machine.set("LIFEBOAT_REPOSITORY", "");
    let said = machine.run(&["drill", "run", "loss"]);
    assert_ne!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("no-password"), "{}", said.stderr);
    assert!(!machine.path("ran").exists(), "it ran, and nothing tells of it");
    assert_eq!(listed(&machine), []);
}

#[test]
fn a_run_that_was_killed_after_it_was_kept_is_not_kept_again() {
    let machine = with_files();
    std::fs::create_dir(machine.path("scratch")).unwrap();
    let child = begin(&machine, &slow("scratch"));
    let mut files = std::fs::read_dir(machine.path("state/drills")).unwrap().flatten();
    let place = files.find(|entry| entry.metadata().unwrap().len() > 0).unwrap().path();
    let record = std::fs::read(&place).unwrap();
    end(child, Signal::INT);
    assert_eq!(std::fs::metadata(&place).unwrap().len(), 0, "it was kept");
    // As if it had been killed before it could say so.
    std::fs::write(&place, record).unwrap();
    let said = machine.run(&["drill", "list"]);
    assert!(said.stdout.contains("weekly#1") && !said.stdout.contains("weekly#2"), "{}", said.stdout);
    assert!(said.stderr.is_empty(), "{}", said.stderr);
    assert_eq!(std::fs::metadata(&place).unwrap().len(), 0, "nor is it looked at again");
}

#[test]
fn evidence_that_could_not_be_kept_is_kept_by_the_next() {
    let machine = with_files();
    // A check that takes the storage away, so that what it found has no place to go.
    let take =
        format!("mv {0} {0}.away && touch {0}", machine.path("repository").join("snapshots").display());
    let said = machine.run(&["drill", "run", "weekly", "--check-command", &take]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    let at = |name: &str| machine.path("repository").join(name);
    std::fs::remove_file(at("snapshots")).unwrap();
    std::fs::rename(at("snapshots.away"), at("snapshots")).unwrap();
    let said = machine.run(&["drill", "list"]);
    assert!(
        said.stdout.contains("weekly#1") && said.stdout.contains("passed"),
        "{}{}",
        said.stdout,
        said.stderr
    );
}
