//! Everything that may go wrong while buckets are given back: what is there stays, what was made is removed.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::{Store, Subject, machine, says};
use crate::services::influx2::Trouble;

fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<String> =
        store.influx.with(|state| state.buckets.values().map(|bucket| bucket.name.clone()).collect());
    names.sort();
    names
}

#[test]
fn a_restore_that_fails_leaves_what_is_there_as_it_was() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    store.change();
    let (before, there) = (store.content(&store.address()), names(&store));
    let cases = [
        (
            "make",
            0,
            Trouble::Says(500, "internal error", "no space"),
            1,
            "status 500 Internal Server Error: no space",
        ),
        ("make", 0, Trouble::Body(b"{\"id\":\"x\"}".to_vec()), 1, "the answer has no id"),
        ("fill", 0, Trouble::Says(401, "unauthorized", "unauthorized access"), 1, "an operator token"),
        ("fill", 2, Trouble::Says(500, "internal error", "engine is closed"), 1, "engine is closed"),
        ("fill", 3, Trouble::Silent, 1, "restore shard"),
        (
            "query",
            0,
            Trouble::Says(500, "internal error", "timed out"),
            1,
            "hint: what was restored cannot be proven",
        ),
        ("change", 0, Trouble::Says(500, "internal error", "no rename"), 1, "no rename"),
        ("change", 0, Trouble::Silent, 1, "hint: nothing was replaced"),
        ("change", 1, Trouble::Says(500, "internal error", "no rename"), 1, "hint: nothing was replaced"),
    ];
    for (exchange, well, trouble, code, part) in cases {
        store.influx.trouble_after(exchange, well, trouble);
        let said = machine.run(&["restore", "latest", "--to", &store.address(), "--force"]);
        says(&said, code, &[part]);
        // An answer without an id leaves one that nobody can name; the next restore knows it by its mark.
        let left = names(&store).into_iter().filter(|name| name != "shop_lifeboat_new").collect::<Vec<_>>();
        assert_eq!((store.content(&store.address()), &left), (before.clone(), &there), "{exchange} {well}");
    }
    // Points that are missing, for as long as one may hope.
    store.influx.with(|state| state.forgets = true);
    let said = machine.run(&["restore", "latest", "--to", &store.address(), "--force"]);
    says(&said, 20, &["what came back is not what was captured", "has 0 points, and had", "?count=off"]);
    assert_eq!((store.content(&store.address()), names(&store)), (before, there));
}

/// Several are shown one after the other: whoever reads of a failure reads which are new already.
#[test]
fn a_failure_between_buckets_names_those_that_were_replaced() {
    let mut store = Store::new();
    store.fill();
    store.influx.with(|state| {
        let first = state.bucket("first");
        state.write(&first, 0..3);
    });
    let machine = machine();
    let every = store.influx.address("*");
    assert_eq!(machine.run(&["backup", &every]).code, 0);
    store.influx.trouble_after("change", 2, Trouble::Says(500, "internal error", "no rename"));
    let said = machine.run(&["restore", "latest", "--to", &every, "--force"]);
    let there = ["no rename", "bucket \"first\" is the restored one already; the old one is \"first_before_"];
    says(&said, 1, &[&there[..], &["hint: nothing was replaced: \"shop\" is the old bucket"]].concat());
    assert!(names(&store).iter().any(|name| name.starts_with("first_before_")), "{:?}", names(&store));
}

/// The server did what it was asked, and nobody heard: nothing that may be the shown bucket is removed.
#[test]
fn a_rename_that_nobody_heard_of_loses_nothing() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let before = store.content(&store.address());
    store.influx.trouble_after("change", 1, Trouble::Silent);
    let said = machine.run(&["restore", "latest", "--to", &store.address(), "--force"]);
    says(&said, 1, &["cannot be undone now", "influx bucket list"]);
    assert_eq!(store.content(&store.address()), before);
    let kept = names(&store).into_iter().find(|name| name.starts_with("shop_before_")).unwrap();
    assert_eq!(store.influx.content(&kept), before);
}

#[test]
fn a_bucket_that_is_replaced_stays_under_another_name() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let captured = store.content(&store.address());
    store.change();
    let changed = store.content(&store.address());
    let look = machine.run(&["restore", "latest", "--to", &store.address(), "--force", "--dry-run"]);
    assert_eq!(look.code, 0, "{}", look.stderr);
    assert!(look.stdout.contains("shop_before_TIME"), "{}", look.stdout);
    assert_eq!((store.content(&store.address()), names(&store).len()), (changed.clone(), 2));
    let said = machine.run(&["restore", "latest", "--to", &store.address(), "--force"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let all = said.stdout + &said.stderr;
    assert!(all.contains("shop_before_") && all.contains("is another bucket now"), "{all}");
    assert_eq!(store.content(&store.address()), captured);
    let kept = names(&store).into_iter().find(|name| name.starts_with("shop_before_")).unwrap();
    assert_eq!(store.influx.content(&kept), changed);
}

#[test]
fn a_killed_restore_is_known_by_its_mark_and_done_again() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let back = store.influx.address("back");
    let child = |signal| {
        store.influx.trouble_after("fill", 1, Trouble::Waits);
        let mut command = machine.raw(&["restore", "latest", "--to", &back]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        store.influx.stands_still();
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
        machine.said(child.wait_with_output().unwrap())
    };
    let said = child(Signal::INT);
    assert_eq!(said.code, 130, "{}", said.stderr);
    assert!(!names(&store).iter().any(|name| name.starts_with("back")), "{:?}", names(&store));
    child(Signal::KILL);
    assert!(names(&store).contains(&"back_lifeboat_new".into()));
    let said = machine.run(&["restore", "latest", "--to", &back]);
    says(&said, 2, &["an earlier restore was killed, or one is under way", "--force"]);
    let said = machine.run(&["restore", "latest", "--to", &back, "--force"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(store.content(&back), store.content(&store.address()));
    // One of that name that somebody else made is nobody's to remove.
    store.influx.with(|state| state.bucket("other_lifeboat_new"));
    let said = machine.run(&["restore", "latest", "--to", &store.influx.address("other"), "--force"]);
    says(&said, 2, &["\"other_lifeboat_new\" exists", "is not ours"]);
}

/// A snapshot older than a bucket's retention comes back whole and proven; what happens then is said.
#[test]
fn old_shards_come_back_although_their_retention_is_over() {
    let mut store = Store::new();
    store.fill();
    store.influx.with(|state| {
        let bucket = state.buckets.get_mut(&store.id).unwrap();
        bucket.retention_seconds = 30 * 24 * 3600;
    });
    let machine = machine();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let said = machine.run(&["restore", "latest", "--to", &store.influx.address("back")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let all = said.stdout + &said.stderr;
    assert!(all.contains("4 of 4 shards of \"back\" are older than its retention of 720 h"), "{all}");
    assert_eq!(store.influx.content("back"), store.influx.content("shop"));
    let said = machine.run(&["restore", "latest", "--to", &store.influx.address("kept?retention=off")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(!(said.stdout + &said.stderr).contains("older than its retention"));
    let retention = store
        .influx
        .with(|state| state.buckets.values().find(|bucket| bucket.name == "kept").unwrap().retention_seconds);
    assert_eq!(retention, 0);
}
