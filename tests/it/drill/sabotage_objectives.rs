//! What is late, old or cannot be asked; and answers over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::{ends, evidence};
use crate::cli::Machine;

fn database(machine: &Machine, sql: &str) -> String {
    let path = machine.path("app.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch(sql).unwrap();
    let address = format!("sqlite:{}", path.display());
    let said = machine.run(&["backup", "--job", "app", &address]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    address
}

#[test]
fn data_that_had_stopped_changing_or_was_gone_is_caught() {
    let machine = Machine::with_repository();
    database(
        &machine,
        "CREATE TABLE orders (id INTEGER, at TEXT); INSERT INTO orders VALUES (1, datetime('now'))",
    );
    let fresh = ["--check", "freshness=orders.at/1h", "--check", "rows"];
    let told = ["✓ freshness: orders.at: newest is", "✓ rows           1 table, 1 row equal; whole"];
    ends(&machine, &fresh, 0, &told);
    let step = "sqlite3 \"$LIFEBOAT_DRILL_PATH\" 'delete from orders'";
    let told = ["✗ rows           orders: 0 rows, expected 1 row", "no row at all"];
    ends(&machine, &[&["--step", step], &fresh[..]].concat(), 20, &told);

    database(&machine, "UPDATE orders SET at = datetime('now', '-3 days')");
    let told = ["✗ freshness: orders.at: newest is", "had stopped changing", "CHECK FAILED"];
    ends(&machine, &fresh, 21, &told);

    database(&machine, "DELETE FROM orders");
    ends(&machine, &["app"], 20, &["✗ not empty", "app: none, expected at least one of its rows"]);
}

#[test]
fn what_cannot_be_asked_is_refused_before_anything_is_made() {
    let machine = super::with_files();
    std::fs::create_dir(machine.path("scratch")).unwrap();
    for (arguments, code, told) in [
        (&["--check", "row"][..], 2, "did you mean rows?"),
        (&["--check", "rows"], 2, "the check \"rows\" asks a sandbox of kind postgres or sqlite"),
        (&["--check-sql", "select 1"], 2, "and this snapshot is restored into one of kind directory"),
        (&["--check-sql", "update a set b = 1"], 2, "is not a query"),
        (&["--check-sql", "select 1; select 2"], 2, "several statements"),
        (
            &["--check-sql", "with x as (delete from a returning 1) select 1"],
            2,
            "changes what it should check",
        ),
        (&["--check-http", "ftp://host/"], 2, "write http://HOST"),
        (&["--check-http", "http://h/ soon"], 2, "is no status"),
        (&["--step", " "], 2, "a step is empty"),
        (&["--rto", "0s"], 2, "cannot be met"),
        (&["--rpo", "0s"], 2, "cannot be met"),
        (&["weekly", "--json", "evidence"], 2, "--json ./evidence writes it"),
        (&["a.b"], 2, "a drill's name has no . and no /"),
        (&["--snapshot", "*@latest"], 2, "means a snapshot of every job, and a drill restores one"),
        (&["--snapshot", "nosuch@latest"], 2, "nosuch"),
        (&["--sandbox", "redis"], 2, "a snapshot of files is not restored into a sandbox of kind redis"),
    ] {
        ends(&machine, &[&["--scratch", "scratch"], arguments].concat(), code, &[told]);
    }
    assert_eq!(std::fs::read_dir(machine.path("scratch")).unwrap().count(), 0);
}

#[test]
fn a_step_that_fails_leaves_its_checks_skipped_which_is_no_pass() {
    let machine = super::with_files();
    let arguments = ["--step", "echo no such migration >&2; exit 3", "--step", "true", "--check", "files"];
    let told = ["✗ step: echo", "no such migration", "– step: true", "– files", "a step before it failed"];
    let said = ends(&machine, &arguments, 21, &told);
    assert!(said.stdout.contains("CHECK FAILED"), "{}", said.stdout);
}

/// Answers every request with a status and a text, until it is dropped.
fn serve(status: u16, text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let length = text.len();
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{text}").as_bytes());
        }
    });
    port
}

#[test]
fn an_address_must_answer_as_wanted() {
    let machine = super::with_files();
    let port = serve(204, "");
    let url = format!("http://127.0.0.1:{port}/health");
    let told = ["GET answered 204; not of the sandbox: proves nothing"];
    let said = ends(&machine, &["--json", "e.json", "--check-http", &format!("{url} 204")], 0, &told);
    assert!(said.stdout.contains("✓ files"), "what proves it are the files: {}", said.stdout);
    let record = std::fs::read_to_string(machine.path("e.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let checks = record["evidence"]["checks"].as_array().unwrap().clone();
    let of =
        |name: &str| checks.iter().find(|check| check["name"].as_str().unwrap().starts_with(name)).unwrap();
    assert_eq!((&of("http")["proves_data"], &of("files")["proves_data"]), (&false.into(), &true.into()));
    let port = serve(200, "all is well");
    let config = machine.file(
        "lifeboat.toml",
        format!(
            "[repository.main]\nurl = \"{}\"\n[drill.web]\nrestore = \"latest\"\n\
             checks = [{{ http = \"http://127.0.0.1:{port}/\", contains = \"well\" }}]\n",
            machine.path("repository").display()
        ),
    );
    ends(&machine, &["--config", config.to_str().unwrap(), "web"], 0, &["GET answered 200"]);
}

#[test]
fn what_answers_outside_the_sandbox_proves_no_recovery() {
    let machine = super::with_files();
    let dump = ["backup", "--stdin-filename", "d.sql", "--command", "--", "echo", "insert"];
    assert_eq!(machine.run(&dump).code, 0);
    let url = format!("http://127.0.0.1:{}/", serve(200, "production is well"));
    // Bytes that nobody reads, and a server that was never restored: nothing is proven.
    let drill = ["--snapshot", "d.sql@latest", "--check-http", &url];
    ends(&machine, &drill, 2, &["proves no recovery", "add a check that uses it"]);
    let also = ["--check-command", "grep -rq insert $LIFEBOAT_DRILL_PATH"];
    ends(&machine, &[&drill[..], &also].concat(), 0, &["not of the sandbox"]);
    // Others are not even asked.
    for outside in ["http://198.51.100.7/health", "https://shop.example.org/"] {
        let told =
            ["is outside the sandbox: what answers there proves no recovery", "hint: an http check names"];
        let snapshot = format!("files:{}@latest", machine.path("data").display());
        ends(&machine, &["--snapshot", &snapshot, "--check-http", outside], 2, &told);
    }
}

#[test]
fn another_snapshot_is_rehearsed_by_the_same_checks() {
    let machine = super::with_files();
    let repository = machine.path("repository").display().to_string();
    let config = machine.file(
        "lifeboat.toml",
        format!(
            "[repository.main]\nurl = \"{repository}\"\n[drill.weekly]\nrestore = \"latest\"\n\
             checks = [\"files\", {{ command = \"false\" }}]\n"
        ),
    );
    let config = ["--config", config.to_str().unwrap()];
    ends(
        &machine,
        &[&config[..], &["weekly", "--snapshot", "latest~0"]].concat(),
        21,
        &["✗ command: false", "✓ files"],
    );
    let told = ["--check would make it another one"];
    ends(
        &machine,
        &[&config[..], &["weekly", "--snapshot", "latest", "--check", "modes"]].concat(),
        2,
        &told,
    );
    // A name that the file does not know is a drill of its own.
    ends(&machine, &[&config[..], &["other", "--snapshot", "latest"]].concat(), 0, &["Drill other #1"]);
}

#[test]
fn what_drills_restored_is_told_from_what_there_only_is() {
    let machine = super::with_files();
    for day in ["2026-01-01T00:00Z", "2026-01-02T00:00Z"] {
        assert_eq!(machine.run(&["backup", "--time", day, "--job", "old", "data"]).code, 0);
    }
    let said = machine.run(&["--json", "drill", "run", "--snapshot", "old@latest~1"]);
    let measured = evidence(&said)["measured"].clone();
    let seconds = |name: &str| measured[name].as_f64().unwrap();
    // Nothing but the older one is proven.
    assert!(seconds("proven_worst_seconds") >= seconds("exposure_seconds"), "{measured}");
    assert!(seconds("proven_worst_seconds") > seconds("worst_exposure_seconds"), "{measured}");
    // One that failed proves nothing.
    let list = machine.run(&["--json", "snapshots"]).json();
    let data =
        list.as_array().unwrap().iter().find(|row| row["job"] != "old" && row["source"] == "files").unwrap();
    let id = data["short_id"].as_str().unwrap().to_owned();
    let failing = ["--json", "drill", "run", "--snapshot", &id, "--check-command", "false"];
    let said = machine.run(&failing);
    assert_ne!(said.code, 0);
    assert!(evidence(&said)["measured"].get("proven_worst_seconds").is_none(), "{}", said.stdout);
}

#[test]
fn a_run_that_cannot_follow_the_last_one_is_no_evidence() {
    let machine = super::with_files();
    let packs =
        |machine: &Machine| super::packs(machine).into_iter().collect::<std::collections::BTreeSet<_>>();
    let before = packs(&machine);
    ends(&machine, &["weekly"], 0, &["Drill weekly #1"]);
    for pack in packs(&machine).difference(&before) {
        std::fs::remove_file(pack).unwrap();
    }
    let told = ["Drill weekly #2", "COULD NOT RUN", "run #1 of the drill cannot be read back", "is not kept"];
    ends(&machine, &["weekly", "--json", "e.json"], 1, &told);
    let written: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(machine.path("e.json")).unwrap()).unwrap();
    assert_eq!(written["evidence"]["number"], 2);
    assert_eq!(written["evidence"]["verdict"], "could_not_run");
    // It is still the one after the first: nothing was kept, and another name begins anew.
    ends(&machine, &["weekly"], 1, &["Drill weekly #2"]);
    ends(&machine, &["monthly"], 0, &["Drill monthly #1"]);
}

#[test]
fn what_another_copy_would_leave_is_told_apart() {
    let machine = super::with_files();
    let (first, second) = (machine.path("repository"), machine.path("replica"));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let said = machine.run(&["--repository", second, "init", "--replica-of", first]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(machine.run(&["backup", "--time", "2026-01-01T00:00Z", "--job", "old", "data"]).code, 0);
    let said = machine.run(&["copy", "--to", second]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(machine.run(&["backup", "--job", "old", "data"]).code, 0);
    let config = machine.file(
        "lifeboat.toml",
        format!(
            "[repository.main]\nurl = \"{first}\"\n[repository.box]\nurl = \"{second}\"\nreplica_of = \"main\"\n\
             [repository.gone]\nurl = \"{second}-gone\"\nreplica_of = \"main\"\n\
             [drill.old]\nrestore = \"old@latest\"\nrpo = \"1h\"\n"
        ),
    );
    let config = ["--config", config.to_str().unwrap()];
    let told =
        ["of 1h00   MET", "      in box ", "data of 2026-01-01 00:00:00 UTC", "      in gone not known: "];
    ends(&machine, &[&config[..], &["old"]].concat(), 0, &told);
}
