//! Everything that may go wrong while buckets are captured: no snapshot, a message that says what and where, nothing left.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::{Store, Subject, machine, says, snapshots};
use crate::cli::Machine;
use crate::services::influx2::{TOKEN, Trouble};

fn is_clean(machine: &Machine) {
    assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none(), "something is left in TMPDIR");
}

#[test]
fn a_server_that_dies_anywhere_gives_no_snapshot() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    let lost = ["hint: the server ended"];
    for (exchange, well, at, parts) in [
        ("metadata", 0, 0, &["read the metadata"]),
        ("metadata", 0, 40_000, &["read the metadata"]),
        ("metadata", 0, -1, &["read the metadata"]),
        ("shard", 0, 0, &["read shard"]),
        ("shard", 1, 700, &["read shard"]),
        // The very end: one byte of the last shard is missing.
        ("shard", 3, -1, &["read shard"]),
    ] {
        store.influx.heal();
        store.influx.trouble_after(exchange, well, Trouble::Dies(at));
        let said = machine.run(&["backup", &store.influx.address("*")]);
        says(&said, 1, &[&parts[..], &lost].concat());
        assert_eq!(snapshots(&machine), 0, "{exchange} {well} {at}");
        is_clean(&machine);
    }
    // A way that ends a connection and not what is in it: only the content tells.
    let length = store.influx.with(|state| {
        let id = *state.buckets[&store.id].shards.keys().next().unwrap();
        state.archive(id).unwrap().len()
    });
    for cut in [1, 512, 1024, length / 2] {
        store.influx.heal();
        store.influx.trouble("shard", Trouble::CutTo(length - cut));
        says(
            &machine.run(&["backup", &store.address()]),
            1,
            &["read shard", "breaks off", "hint: the server ended"],
        );
    }
    store.influx.trouble("metadata", Trouble::CutTo(70_900));
    let said = machine.run(&["backup", &store.address()]);
    says(&said, 1, &["read the metadata", "breaks off in part \"buckets\""]);
    assert_eq!(snapshots(&machine), 0);
}

/// A server that fails in the middle has said 200 before, and ends the answer as if nothing were.
#[test]
fn an_error_in_the_middle_of_an_answer_is_told() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    for (exchange, at, parts) in [
        ("metadata", 50_000, ["in part \"kv\"", "says: no space left on device"]),
        ("metadata", 0, ["metadata", "says: no space left on device"]),
        ("shard", 1024, ["read shard", "breaks off"]),
        ("shard", 0, ["read shard", "says: no space left on device"]),
    ] {
        store.influx.trouble(exchange, Trouble::EndsIn(at, "no space left on device"));
        says(&machine.run(&["backup", &store.address()]), 1, &parts);
    }
    let length = 1 << 20;
    store.influx.trouble_after("shard", 2, Trouble::EndsIn(length, "no space left on device"));
    let said = machine.run(&["backup", &store.address()]);
    says(&said, 1, &["read shard", "the server says: no space left on device"]);
    store.influx.trouble_after("shard", 1, Trouble::Says(500, "internal error", "engine is closed"));
    let said = machine.run(&["backup", &store.address()]);
    says(&said, 1, &["read shard", "status 500", "engine is closed"]);
    assert!(!said.stderr.contains("{\"code\""), "{}", said.stderr);
    assert_eq!(snapshots(&machine), 0);
}

#[test]
fn answers_of_hostile_servers_are_refused() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    let page = || Trouble::Body(b"<html>welcome</html>".to_vec());
    let buckets = |text: &str| {
        let head = "Content-Disposition: attachment; name=\"buckets\"\r\n\r\n";
        Trouble::Body(format!("--b\r\n{head}{text}\r\n--b--\r\n").into_bytes())
    };
    let typed = Trouble::Header("Content-Type", "multipart/mixed; boundary=b".into());
    let one = |id: &str, shards: &str| {
        format!(
            "[{{\"organizationID\":\"00000000000000a1\",\"organizationName\":\"home\",\"bucketID\":\"{id}\",\"bucketName\":\"shop\",\
             \"retentionPolicies\":[{{\"shardGroups\":[{{\"shards\":[{shards}]}}]}}]}}]"
        )
    };
    let cases: [(&str, Vec<Trouble>, &[&str]); 12] = [
        ("metadata", vec![page()], &["cannot read the metadata"]),
        (
            "metadata",
            vec![Trouble::Header("Content-Type", "text/html".into())],
            &["\"text/html\", and a multipart one was due"],
        ),
        (
            "metadata",
            vec![Trouble::Header("Content-Type", format!("multipart/mixed; boundary={}", "b".repeat(99)))],
            &["a multipart one was due"],
        ),
        (
            "metadata",
            vec![typed.clone(), Trouble::Body([b"--b\r\n", &[b'x'; 99_999][..]].concat())],
            &["too long"],
        ),
        ("metadata", vec![typed.clone(), buckets("{}")], &["it is no list"]),
        ("metadata", vec![typed.clone(), buckets(&"[".repeat(50_000))], &["it is no list"]),
        ("metadata", vec![typed.clone(), buckets(&one("../../../x", ""))], &["has an id that is none"]),
        ("metadata", vec![typed, buckets(&one("00000000000000b1", "{\"id\":-4}"))], &["a shard has no id"]),
        ("shard", vec![page()], &["it breaks off"]),
        ("shard", vec![Trouble::Header("Content-Encoding", "gzip".into())], &["comes as gzip"]),
        ("shard", vec![Trouble::Header("Content-Length", "99999999999999".into())], &["end of file before"]),
        ("shard", vec![Trouble::Body(vec![b'9'; 3 << 20])], &["what came is no tar archive"]),
    ];
    for (exchange, troubles, parts) in cases {
        for trouble in troubles {
            store.influx.trouble(exchange, trouble);
        }
        says(&machine.run(&["backup", &store.address()]), 1, parts);
    }
    assert_eq!(snapshots(&machine), 0);
    is_clean(&machine);
}

#[test]
fn a_token_is_wanted_and_shown_nowhere() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    let said = machine.run_with(&[("INFLUX_TOKEN", "")], &["backup", &store.address()]);
    says(
        &said,
        2,
        &["there is no token", "hint: give an operator token in INFLUX_TOKEN or by ?token-file=FILE"],
    );
    let said = machine.run_with(&[("INFLUX_TOKEN", "one-of-a-reader")], &["backup", &store.address()]);
    says(
        &said,
        1,
        &["status 401", "unauthorized access", "hint: backups and restores take an operator token"],
    );
    assert!(!said.stderr.contains("one-of-a-reader"), "{}", said.stderr);
    let said = machine.run_with(&[("INFLUX_TOKEN", "a\nb")], &["backup", &store.address()]);
    says(&said, 1, &["characters that no token has"]);
    let said = machine.run(&["backup", &store.address().replace("//", &format!("//:{TOKEN}@"))]);
    says(&said, 2, &["holds a password", "?token-file=FILE or in INFLUX_TOKEN"]);
    let said = machine.run(&["backup", &format!("{}?token-file=/nonexistent", store.address())]);
    says(&said, 1, &["cannot read token-file /nonexistent"]);
    assert_eq!(snapshots(&machine), 0);
    let file = machine.file("token", format!("{TOKEN}\n"));
    let address = format!("{}?token-file={}", store.address(), file.display());
    let said = machine.run_with(&[("INFLUX_TOKEN", "")], &["backup", &address]);
    says(&said, 0, &[]);
    assert!(!machine.run(&["--json", "snapshots"]).stdout.contains(TOKEN));
}

#[test]
fn nobody_there_and_nothing_said_for_long_are_told() {
    let store = Store::new();
    let machine = machine();
    let said = machine.run(&["backup", "influxdb2://127.0.0.1:1/shop"]);
    says(&said, 1, &["Connection refused", "hint: is the server up"]);
    store.influx.with(|state| state.write(&store.id, 0..500));
    store.influx.trouble("shard", Trouble::Stalls(1000));
    let said = machine.run(&["backup", &format!("{}?no-progress=1s", store.address())]);
    says(&said, 1, &["read shard", "nothing came for 1 s", "hint: ?no-progress=1h waits longer"]);
    assert_eq!(snapshots(&machine), 0);
}

/// The server need not tell: then the snapshot is made, and says that nothing proves its points.
#[test]
fn points_that_are_not_counted_are_said_to_be_unproven() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    let error = b"error,reference\r\n\"query was canceled, or so\",897\r\n".to_vec();
    for trouble in [Trouble::Body(error), Trouble::Says(403, "forbidden", "queries are off, or so")] {
        store.influx.trouble("query", trouble);
        let said = machine.run(&["backup", &store.address()]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let all = said.stdout + &said.stderr;
        assert!(all.contains("were not counted") && all.contains(", or so"), "{all}");
    }
    let said = machine.run(&["restore", "latest", "--to", &store.influx.address("back")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let all = said.stdout + &said.stderr;
    assert!(all.contains("4 of 4 shards") && all.contains("nothing proves their number"), "{all}");
    assert_eq!(store.influx.content("back"), store.influx.content("shop"));
    store.influx.asked();
    let said = machine.run(&["backup", &format!("{}?count=off", store.address())]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(store.influx.asked().iter().all(|request| request.exchange != "query"));
}

#[test]
fn an_interrupted_capture_leaves_nothing_behind() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    for (exchange, at) in [("metadata", 20_000), ("shard", 1000)] {
        store.influx.trouble(exchange, Trouble::Stalls(at));
        let mut command = machine.raw(&["backup", &store.influx.address("*")]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        store.influx.stands_still();
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
        let said = machine.said(child.wait_with_output().unwrap());
        assert_eq!(said.code, 130, "{}", said.stderr);
        assert_eq!(snapshots(&machine), 0);
        is_clean(&machine);
    }
}
