//! Into a database that exists: beside it, proven, then both renamed; broken off anywhere, a rerun mends it.

use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::postgres::{Postgres, shared};

fn databases_like(postgres: &Postgres, name: &str) -> Vec<String> {
    let sql = format!("SELECT datname FROM pg_database WHERE datname LIKE '{name}%' ORDER BY 1");
    postgres.sql("postgres", &sql).lines().map(str::to_owned).collect()
}

#[test]
fn the_old_database_is_kept_and_sessions_in_it_are_ended() {
    let postgres = shared(15);
    let (source, target) = (postgres.database(), postgres.database());
    postgres.sql(&source, "CREATE TABLE t AS SELECT 'new' AS what");
    postgres.sql(&target, "CREATE TABLE t AS SELECT 'old' AS what");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    let address = postgres.address(&target);
    let mut sleeper = postgres.tool("psql", &target);
    let mut sleeper =
        sleeper.args(["-c", "SELECT pg_sleep(600)"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while postgres
        .sql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{target}'"))
        == "0"
    {}
    let after = machine.file(
        "after.sql",
        "CREATE TABLE after AS SELECT what || '!' AS what FROM t; INSERT INTO after VALUES ('2')",
    );
    let arguments =
        ["restore", "latest", "--to", &address, "--force", "--after-sql", after.to_str().unwrap()];
    let said = machine.run(&arguments);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(!sleeper.wait().unwrap().success());
    assert_eq!(postgres.sql(&target, "SELECT what FROM t"), "new");
    assert_eq!(postgres.sql(&target, "SELECT what FROM after ORDER BY 1"), "2\nnew!");
    let found = databases_like(postgres, &target);
    let [_, kept] = found.as_slice() else { panic!("{found:?}") };
    assert!(kept.starts_with(&format!("{target}_before_2")), "{kept}");
    assert!(said.stdout.contains(&**kept), "{}", said.stdout);
    // The way back: it is open and whole.
    assert_eq!(postgres.sql(kept, "SELECT what FROM t"), "old");
}

#[test]
fn sql_that_fails_leaves_everything_as_it_was() {
    let postgres = shared(15);
    let (source, target) = (postgres.database(), postgres.database());
    postgres.sql(&source, "CREATE TABLE t AS SELECT 'new' AS what");
    postgres.sql(&target, "CREATE TABLE t AS SELECT 'old' AS what");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    let after = machine.file("after.sql", "UPDATE missing SET a = 1");
    let address = postgres.address(&target);
    let said = machine.run(&[
        "restore",
        "latest",
        "--to",
        &address,
        "--force",
        "--after-sql",
        after.to_str().unwrap(),
    ]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("\"missing\" does not exist"), "{}", said.stderr);
    assert_eq!(postgres.sql(&target, "SELECT what FROM t"), "old");
    assert_eq!(databases_like(postgres, &target), [target]);
}

/// Every state in which kill -9 can leave the server, made by hand; then the restore again.
#[test]
fn a_restore_that_was_killed_anywhere_is_undone_by_the_next() {
    let postgres = shared(15);
    let source = postgres.database();
    postgres.sql(&source, "CREATE TABLE t AS SELECT 'new' AS what");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    for (mark, closed) in [
        ("lifeboat: a restore under way, or broken off; it is not used and may be dropped", false),
        ("lifeboat: a restore whose rename broke off; run it again, and open the old database", true),
    ] {
        let target = postgres.database();
        postgres.sql(&target, "CREATE TABLE t AS SELECT 'old' AS what");
        let beside = format!("{target}_lifeboat_new");
        postgres
            .sql("postgres", &format!("CREATE DATABASE {beside}; COMMENT ON DATABASE {beside} IS '{mark}'"));
        if closed {
            postgres.sql("postgres", &format!("ALTER DATABASE {target} ALLOW_CONNECTIONS false"));
        }
        // Even one that then fails opens the old database again.
        let after = machine.file("after.sql", "nonsense");
        let address = postgres.address(&target);
        let said = machine.run(&[
            "restore",
            "latest",
            "--to",
            &address,
            "--force",
            "--after-sql",
            after.to_str().unwrap(),
        ]);
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert_eq!(postgres.sql(&target, "SELECT what FROM t"), "old");
        let said = machine.run(&["restore", "latest", "--to", &address, "--force"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert_eq!(postgres.sql(&target, "SELECT what FROM t"), "new");
        assert_eq!(databases_like(postgres, &beside), [""; 0]);
    }
    // A database of that name that is somebody else's is not touched.
    let target = postgres.vacant();
    let beside = format!("{target}_lifeboat_new");
    postgres.sql("postgres", &format!("CREATE DATABASE {beside}"));
    let said = machine.run(&["restore", "latest", "--to", &postgres.address(&target)]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is not ours"), "{}", said.stderr);
}

#[test]
fn names_as_long_as_they_may_be_are_swapped_too() {
    let postgres = shared(15);
    let source = postgres.database();
    postgres.sql(&source, "CREATE TABLE t AS SELECT 1 AS one");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    let target = format!("{}{}", "long".repeat(15), &source[source.len() - 1..]);
    let address = postgres.address(&target);
    restore(&machine, "latest", &address);
    let said = machine.run(&["restore", "latest", "--to", &address, "--force"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(postgres.sql(&target, "SELECT one FROM t"), "1");
}
