//! A Redis server that came back wrong: keys that are not there, and an RDB that a restart ignores.

use super::{ends, replay};
use crate::cli::Machine;

/// What an operator does who copies the RDB into a folder that holds an append-only file already.
const RDB_BESIDE_AOF: &str = r#"
cd "$LIFEBOAT_DRILL_FOLDER" && ask="redis-cli -h $LIFEBOAT_DRILL_HOST -p $LIFEBOAT_DRILL_PORT" &&
$ask config set appendonly no && $ask save && test -s dump.rdb && rm -r appendonlydir && mkdir appendonlydir &&
: > appendonlydir/appendonly.aof.1.incr.aof &&
echo 'file appendonly.aof.1.incr.aof seq 1 type i' > appendonlydir/appendonly.aof.manifest &&
chown -R --reference=. appendonlydir"#;

#[test]
fn keys_that_are_missing_are_caught_before_and_after_a_restart() {
    let machine = Machine::with_repository();
    let source = crate::services::redis::start(&["--appendonly", "yes"]);
    source.script("for i = 1, 40 do redis.call('SET', 'key:' .. i, i) end");
    source.script("for i = 1, 3 do redis.call('SET', 'session:' .. i, i, 'EX', 7200) end");
    let said = machine.run(&["backup", "--job", "cache", &source.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let both = ["--check", "keys", "--check", "append-only"];
    let after = |step: &'static str| [&["--step", step], &both[..]].concat();
    let healthy = ["✓ keys           43 keys equal", "✓ append-only    after a restart 43 of 43 keys"];
    ends(&machine, &both, 0, &healthy);

    // Expired keys may be gone; others may not, not even while as many as are due are there.
    let ask = "redis-cli -h $LIFEBOAT_DRILL_HOST -p $LIFEBOAT_DRILL_PORT";
    let expired: &'static str = format!("{ask} del session:1 session:2").leak();
    ends(&machine, &after(expired), 0, &["41 keys equal (2 expired since, allowed)"]);
    let missing: &'static str = format!("{ask} del key:7").leak();
    let told = ["✗ keys", "database 0: 39, expected 40 keys that never expire", "DATA WRONG"];
    ends(&machine, &after(missing), 20, &told);

    let told = [
        "✓ keys           43 keys equal",
        "✗ append-only    append-only file, database 0: 0 keys, expected 40 to 43 keys (a restart reads the append-only \
         file and ignores the RDB beside it)",
    ];
    ends(&machine, &after(RDB_BESIDE_AOF), 20, &told);
    // The source was only read.
    assert_eq!(source.ask(&["DBSIZE"]), "43");
}

#[test]
fn an_rdb_that_is_cut_or_empty_is_data_that_is_wrong() {
    let machine = Machine::with_repository();
    let source = crate::services::redis::start(&[]);
    source.script("for i = 1, 40 do redis.call('SET', 'key:' .. i, i) end");
    assert_eq!(machine.run(&["backup", "--job", "cache", &source.address()]).code, 0);
    replay::damaged(&machine, "redis", "cut", |_, mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    ends(&machine, &["--snapshot", "cut@latest"], 20, &["DATA WRONG"]);
    source.ask(&["FLUSHALL"]);
    assert_eq!(machine.run(&["backup", "--job", "cache", &source.address()]).code, 0);
    let told = ["✗ not empty", "cache: none, expected at least one of its keys", "DATA WRONG"];
    ends(&machine, &["--snapshot", "cache@latest"], 20, &told);
}

#[test]
fn when_root_drills_the_server_runs_as_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = Machine::with_repository();
    let source = crate::services::redis::start(&[]);
    source.ask(&["SET", "a", "b"]);
    assert_eq!(machine.run(&["backup", &source.address()]).code, 0);
    let user = "pid=$(redis-cli -h $LIFEBOAT_DRILL_HOST -p $LIFEBOAT_DRILL_PORT info server | \
                sed -n 's/^process_id:\\([0-9]*\\).*/\\1/p'); test \"$(stat -c %u /proc/$pid)\" != 0";
    ends(&machine, &["--check-command", user], 0, &["Result: PASSED"]);
}
