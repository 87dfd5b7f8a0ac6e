//! Injected faults: each kind ends as it is declared to, the repository stays as it was, and wrong data that nothing
//! complains of is what a drill never forgives.

use std::collections::BTreeMap;
use std::path::Path;

use super::{evidence, with_files};
use crate::cli::{Machine, Said};

/// Every file of a folder with its hash.
fn state(folder: &Path) -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                let hash = blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string();
                found.insert(path.display().to_string(), hash);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, &mut found);
    found
}

fn with_replica() -> Machine {
    let machine = with_files();
    let (repository, replica) = (machine.path("repository"), machine.path("replica"));
    let (repository, replica) = (repository.to_str().unwrap(), replica.to_str().unwrap());
    for arguments in [&["-r", replica, "init", "--replica-of", repository][..], &["copy", "--to", replica]] {
        let said = machine.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
    }
    machine
}

/// Fault → (outcome, what it said).
fn outcomes(said: &Said) -> BTreeMap<String, (String, String)> {
    let faults = evidence(said)["faults"].clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let row =
        |fault: &serde_json::Value| (text(&fault["kind"]), (text(&fault["outcome"]), text(&fault["detail"])));
    faults.as_array().unwrap().iter().map(row).collect()
}

const DATA_LOST: [&str; 5] = ["bit-flips", "truncated-pack", "missing-pack", "half-gone", "primary-gone"];
const OUTLASTED: [&str; 5] =
    ["missing-index", "storage-errors", "storage-timeouts", "slow-storage", "no-local-state"];

#[test]
fn each_fault_ends_as_declared_and_the_repository_is_only_read() {
    let machine = with_files();
    let before = state(&machine.path("repository"));
    let mut arguments = vec!["--json", "drill", "run", "--no-keep", "--fault", "wrong-key"];
    for kind in DATA_LOST.iter().chain(&OUTLASTED) {
        arguments.extend(["--fault", kind]);
    }
    let said = machine.run(&arguments);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let found = outcomes(&said);
    assert_eq!(found.len(), 11);
    for kind in DATA_LOST.iter().chain(&["wrong-key"]) {
        assert_eq!(found[*kind].0, "fails_closed", "{kind}: {}", found[*kind].1);
    }
    for kind in OUTLASTED {
        assert_eq!(found[kind].0, "recovers", "{kind}: {}", found[kind].1);
    }
    for (kind, expected) in [
        ("wrong-key", "wrong password or key"),
        ("primary-gone", "no replica is named to turn to"),
        ("primary-gone", "the storage is gone"),
        ("missing-pack", "did not come back"),
        ("bit-flips", "did not come back"),
    ] {
        assert!(found[kind].1.contains(expected), "{kind}: {}", found[kind].1);
    }
    assert_eq!(state(&machine.path("repository")), before);
    // The same again breaks the same.
    let again = machine.run(&["--json", "drill", "run", "--no-keep", "--fault", "missing-pack"]);
    let injected = |said: &Said, at: usize| evidence(said)["faults"][at]["injected"].clone();
    assert_eq!(injected(&again, 0), injected(&said, 3));
}

#[test]
fn a_replica_gives_back_what_the_primary_lost_and_without_one_it_fails_closed() {
    let machine = with_replica();
    let replica = machine.path("replica").display().to_string();
    let mut arguments = vec!["--json", "drill", "run", "--no-keep", "--replica", &replica];
    for kind in DATA_LOST {
        arguments.extend(["--fault", kind]);
    }
    let said = machine.run(&arguments);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    for (kind, (outcome, detail)) in outcomes(&said) {
        assert_eq!(outcome, "recovers_from_replica", "{kind}: {detail}");
        assert!(detail.contains("all came back from $T/replica"), "{kind}: {detail}");
    }
    // Declared without a replica, it is refused before anything starts.
    let said = machine.run(&["drill", "run", "--fault", "primary-gone=recovers_from_replica"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("there is none") && said.stderr.contains("--replica"), "{}", said.stderr);
    // A replica that lacks the snapshot recovers nothing, and that is a failed check.
    machine.file("data/new", "since the last copy");
    assert_eq!(machine.run(&["backup", "data"]).code, 0);
    let said = machine.run(&["drill", "run", "--no-keep", "--replica", &replica, "--fault", "primary-gone"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("✗ fault primary-gone: fails_closed, declared recovers_from_replica"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("no snapshot matches"), "{}", said.stdout);
}

#[test]
fn an_outcome_that_was_not_declared_is_a_failed_check_in_every_report() {
    let machine = with_files();
    let files = ["--junit", "e.xml", "--markdown", "e.md", "--html", "e.html"];
    let faults = ["--fault", "missing-pack=recovers", "--fault", "missing-index=recovers"];
    let said = machine.run(&[&["drill", "run", "f"][..], &faults, &files].concat());
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("✗ fault missing-pack: fails_closed, declared recovers"), "{}", said.stdout);
    assert!(said.stdout.contains("✓ fault missing-index: recovers, as declared"), "{}", said.stdout);
    assert!(said.stdout.contains("Result: CHECK FAILED"), "{}", said.stdout);
    let read = |name: &str| std::fs::read_to_string(machine.path(name)).unwrap();
    assert!(read("e.md").contains("| missing-pack: data"), "{}", read("e.md"));
    assert!(read("e.html").contains("fails closed, declared recovers"));
    assert!(
        read("e.xml").contains("fault missing-pack: recovers") && read("e.xml").contains("failures=\"1\"")
    );
    // Kept and signed as everything else, also by a record from before there were faults.
    let said = machine.run(&["drill", "show", "f#1", "--json", "e.json"]);
    assert!(said.stdout.contains("✗ fault missing-pack"), "{}", said.stdout);
    let key = serde_json::from_str::<serde_json::Value>(&read("e.json")).unwrap()["key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(machine.run(&["drill", "attest", "e.json", "--pubkey", &key]).code, 0);
    for (fault, expected) in [
        ("no-such", "there are bit-flips"),
        ("missing-pack=works", "there are fails_closed"),
        ("wrong-key=recovers", "only be declared fails_closed"),
    ] {
        let said = machine.run(&["drill", "run", "--fault", fault]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
    let said = machine.run(&["drill", "run", "--fault", "wrong-key", "--fault", "wrong-key"]);
    assert!(said.code == 2 && said.stderr.contains("once a drill"), "{}", said.stderr);
}

#[test]
fn wrong_data_that_the_restore_did_not_notice_is_the_worst_there_is() {
    let machine = with_files();
    // A check that passes once: what comes back through the fault is not what it should be, and only it notices.
    let check = format!("test ! -e {0} && touch {0}", machine.path("mark").display());
    let said =
        machine.run(&["--json", "drill", "run", "--check-command", &check, "--fault", "missing-index"]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    let found = outcomes(&said);
    assert_eq!(found["missing-index"].0, "silently_wrong", "{}", found["missing-index"].1);
    assert_eq!(evidence(&said)["verdict"], "data_wrong");

    // A drill that fails by itself says nothing about faults, and they do not pass.
    let said =
        machine.run(&["--json", "drill", "run", "--check-command", "false", "--fault", "missing-index"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    let fault = evidence(&said)["faults"][0].clone();
    assert_eq!(
        (&fault["outcome"], &fault["detail"]),
        (&"not_run".into(), &"the drill itself did not pass".into())
    );
}

#[test]
fn a_service_is_restored_through_faults_too() {
    let machine = Machine::with_repository();
    let path = machine.path("app.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1), (2)").unwrap();
    let address = format!("sqlite:{}", path.display());
    assert_eq!(machine.run(&["backup", &address]).code, 0);
    let faults = ["--fault", "bit-flips", "--fault", "missing-pack", "--fault", "missing-index"];
    let check = ["--check-sql", "select count(*) = 2 from orders"];
    let said = machine.run(&[&["--json", "drill", "run"][..], &check, &faults].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let found = outcomes(&said);
    let short = |kind: &str| found[kind].0.as_str();
    assert_eq!((short("bit-flips"), short("missing-index")), ("fails_closed", "recovers"));
}

#[test]
fn an_index_that_is_really_gone_costs_nothing() {
    let machine = with_files();
    std::fs::remove_dir_all(machine.path("repository/index")).unwrap();
    std::fs::remove_dir_all(machine.path("cache")).unwrap();
    let said = machine.run(&["drill", "run"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
}

#[test]
fn faults_of_the_configuration_file_are_injected_with_the_replicas_it_names() {
    let mut machine = with_replica();
    let text = |faults: &str| {
        format!(
            "[repository.main]\nurl = {:?}\n[repository.box]\nurl = {:?}\nreplica_of = \"main\"\n\
             [drill.loss]\nrestore = \"latest\"\n{faults}\n",
            machine.path("repository"),
            machine.path("replica")
        )
    };
    let good = text(
        "faults = [{ kind = \"missing-pack\", expect = \"fails_closed\" }, { kind = \"primary-gone\", \
         expect = \"recovers_from_replica\" }]",
    );
    let config = machine.file("lifeboat.toml", good).display().to_string();
    let bad = [
        (text("faults = [{ kind = \"missing-packs\" }]"), "there is no fault \"missing-packs\""),
        (text("faults = [{ kind = \"missing-pack\", expected = \"recovers\" }]"), "unknown field `expected`"),
        (text("from = \"moon\""), "none of repository, replica, kit"),
    ];
    machine.set("LIFEBOAT_CONFIG", &config);
    machine.set("LIFEBOAT_REPOSITORY", "");
    let said = machine.run(&["--json", "drill", "run", "loss"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let found = outcomes(&said);
    assert_eq!(found["missing-pack"].0, "fails_closed");
    assert_eq!(found["primary-gone"].0, "recovers_from_replica");
    // One more of the command line comes on top; another drill does not.
    let said = machine.run(&["--json", "drill", "run", "loss", "--no-keep", "--fault", "missing-index"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!((outcomes(&said).len(), outcomes(&said)["missing-index"].0.as_str()), (3, "recovers"));
    let said = machine.run(&["drill", "run", "loss", "--rto", "1h", "--check", "files"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stderr.contains("lifeboat.toml: --rto, --check would make it another one"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("hint: write it there under [drill.loss]"), "{}", said.stderr);
    for (text, expected) in bad {
        machine.file("lifeboat.toml", text);
        for arguments in [&["config", "check"][..], &["drill", "run", "loss"]] {
            let said = machine.run(arguments);
            assert_eq!(said.code, 2, "{arguments:?}: {}{}", said.stdout, said.stderr);
            assert!(said.stderr.contains(expected), "{arguments:?}: {}", said.stderr);
        }
    }
}
