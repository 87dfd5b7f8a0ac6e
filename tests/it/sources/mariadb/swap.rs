//! A database that is replaced: exchanged whole, the old one kept, or left exactly as it was.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::Signal;

use super::super::under_way::{kill, spawn};
use super::content::full;
use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::mariadb::{Maria, shared};

fn kept(said: &str) -> String {
    let (_, rest) = said.split_once(" are kept in \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_full_database_is_exchanged_and_the_old_one_kept_whole() {
    let maria = shared();
    let (source, target) = (full(maria), full(maria));
    maria.sql(
        &target,
        "INSERT INTO par VALUES (7); CREATE TABLE only_here (a int); CREATE VIEW old_view AS SELECT * FROM only_here;
         CREATE FUNCTION old_f() RETURNS int RETURN 1; DROP EVENT e; CREATE EVENT old_e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
    );
    let before = maria.text(&target);
    let machine = Machine::with_repository();
    back_up(&machine, &maria.address(&source));
    let said = restore(&machine, &["latest", "--to", &maria.address(&target), "--force"]);
    assert_eq!(maria.text(&target), maria.text(&source), "{said}");
    let old = kept(&said);
    // Its events stand still: two of them would do their work twice.
    let text = maria.text(&old);
    assert!(text.contains(" DISABLE DO "), "{text}");
    assert_eq!(text.replace(" DISABLE DO ", " ENABLE DO "), before);
    maria.sql(&target, "INSERT INTO numbered (t) VALUES ('b')");
    maria.sql(&old, "INSERT INTO numbered (t) VALUES ('b')");
    assert_eq!(maria.databases(&target).lines().count(), 2, "{}", maria.databases(&target));
    assert_eq!(
        maria.sql(
            "",
            &format!("SELECT status FROM information_schema.events WHERE event_schema = '{target}'")
        ),
        "ENABLED"
    );
}

/// What was kept back is put up twice, once beside as a rehearsal; one that fails only in its place is undone.
#[test]
fn an_exchange_that_fails_half_way_leaves_the_old_database_as_it_was() {
    let maria = shared();
    let (source, target) = (full(maria), full(maria));
    maria.sql(&target, "INSERT INTO par VALUES (7)");
    let machine = Machine::with_repository();
    let old = maria.text(&target);
    // An event is not rehearsed; this one names a database that is gone by then.
    let other = maria.database();
    maria.sql(
        &source,
        &format!("ALTER EVENT e DO INSERT INTO {other}.t VALUES (1); CREATE VIEW late AS SELECT 1"),
    );
    back_up(&machine, &maria.address(&source));
    // A trigger that cannot be there: its name is taken in the old database by one that stays with its table.
    maria.sql("", "CREATE USER weak@'127.0.0.1'");
    maria.sql(
        "",
        &format!(
            "GRANT ALL ON *.* TO weak@'127.0.0.1'; REVOKE EVENT ON *.* FROM weak@'127.0.0.1';
             GRANT EVENT ON `{target}\\_before%`.* TO weak@'127.0.0.1'"
        ),
    );
    let address = maria.address(&target).replace("root@", "weak@");
    let said = machine.run(&["restore", "latest", "--to", &address, "--force"]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert_eq!(maria.text(&target), old, "{}", said.stderr);
    assert_eq!(maria.databases(&target), target, "nothing is left");
    maria.sql("", "DROP USER weak@'127.0.0.1'");
}

/// A session that keeps a lock until it is dropped.
struct Holding(std::process::Child);

impl Holding {
    fn new(maria: &Maria, sql: &str) -> Self {
        let mut client = maria.tool("mariadb");
        client.args(["-N", "-B", "--unbuffered"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = client.spawn().unwrap();
        let sql = format!("{sql}; SELECT 'held';\n");
        client.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
        let mut lines = BufReader::new(client.stdout.as_mut().unwrap()).lines();
        while lines.next().unwrap().unwrap() != "held" {}
        Self(client)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// The session whose statement is like this and waits for somebody's lock.
fn waiting(maria: &Maria, like: &str) -> String {
    let sql = format!(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '{like}' AND STATE LIKE 'Waiting%'"
    );
    loop {
        let id = maria.sql("", &sql);
        if !id.is_empty() {
            return id;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Between two looks at a server.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Where a restore is stopped once the tables have changed places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Old views and routines are about to go.
    Clearing,
    /// The new ones are half there.
    Dressing,
    /// The old ones are about to come to the old tables.
    DressingOld,
    /// Somebody pressed Ctrl-C while the new ones came, and killed it while all was put back.
    Undoing,
}

/// Starts a restore of `latest`, kills it where it is told to, and returns what keeps its last statement from ending.
fn killed_at(stop: Stop, machine: &Machine, maria: &Maria, target: &str) -> Option<Holding> {
    let lock = match stop {
        Stop::Clearing => format!("BEGIN; SELECT * FROM {target}.still"),
        _ => "LOCK TABLES mysql.event READ".to_owned(),
    };
    let mut holding = Holding::new(maria, &lock);
    let mut child = spawn(machine, &["restore", "latest", "--to", &maria.address(target), "--force"], &[]);
    let new_event = "%CREATE%EVENT `e`%";
    let mut session = match stop {
        Stop::Clearing => waiting(maria, "DROP VIEW%"),
        _ => waiting(maria, new_event),
    };
    if matches!(stop, Stop::DressingOld | Stop::Undoing) {
        if stop == Stop::Undoing {
            kill(child.id().cast_signed(), Signal::INT);
            // What was begun is still being done, and waited for.
            waiting_for_step(maria);
        }
        let routines = Holding::new(maria, "LOCK TABLES mysql.proc READ");
        holding = routines;
        session = waiting(maria, "%FUNCTION `old_f`%");
    }
    kill(child.id().cast_signed(), Signal::KILL);
    child.wait().unwrap();
    if stop == Stop::Clearing {
        return Some(holding);
    }
    maria.sql("", &format!("KILL {session}"));
    None
}

/// Somebody waits for the statements of an earlier step to end.
fn waiting_for_step(maria: &Maria) {
    let sql = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%GET_LOCK(_lifeboat-step-%' AND STATE = 'User lock'";
    while maria.sql("", sql) == "0" {
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn a_restore_killed_after_its_rename_loses_nothing_of_the_old_database() {
    let maria = shared();
    for stop in [Stop::Clearing, Stop::Dressing, Stop::DressingOld, Stop::Undoing] {
        let (source, target) = (maria.database(), maria.database());
        let routine = match stop {
            Stop::DressingOld | Stop::Undoing => "",
            _ => "CREATE FUNCTION old_f() RETURNS int RETURN 2;",
        };
        maria.sql(
            &source,
            &format!(
                "CREATE TABLE t (a int); INSERT INTO t VALUES (1); {routine} CREATE VIEW v AS SELECT * FROM t;
                 CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1;
                 CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1"
            ),
        );
        maria.sql(
            &target,
            "CREATE TABLE t (b int); CREATE TABLE only_here (a int); INSERT INTO only_here VALUES (7);
             CREATE FUNCTION old_f() RETURNS int RETURN 1; CREATE PROCEDURE old_p() SELECT 'it''s';
             CREATE VIEW still AS SELECT 1 AS one; CREATE VIEW old_v AS SELECT * FROM only_here;
             CREATE SEQUENCE numbers; ALTER TABLE t ADD n bigint DEFAULT NEXTVAL(numbers);
             CREATE TRIGGER old_g BEFORE INSERT ON only_here FOR EACH ROW SET NEW.a = old_f()",
        );
        if stop == Stop::Clearing {
            maria.sql(&target, "CREATE EVENT old_e ON SCHEDULE EVERY 1 DAY DO SELECT 1");
        }
        let before = maria.text(&target);
        let machine = Machine::with_repository();
        back_up(&machine, &maria.address(&source));
        let holding = killed_at(stop, &machine, maria, &target);

        let child = spawn(&machine, &["restore", "latest", "--to", &maria.address(&target), "--force"], &[]);
        if let Some(holding) = holding {
            // The client of the killed one still runs its script; the next restore lets it.
            waiting_for_step(maria);
            drop(holding);
        }
        let said = machine.said(child.wait_with_output().unwrap());
        assert_eq!(said.code, 0, "{stop:?}: {}{}", said.stdout, said.stderr);
        let said = said.stdout + &said.stderr;
        let old = match stop {
            Stop::Undoing => kept(&said),
            _ => {
                let (_, rest) = said.split_once("all that was there before it is in \"").unwrap();
                rest.split('"').next().unwrap().to_owned()
            }
        };
        assert_eq!(maria.text(&old).replace(" DISABLE DO ", " ENABLE DO "), before, "{stop:?}: {said}");
        assert_eq!(maria.text(&target), maria.text(&source), "{stop:?}");
        maria
            .sql(&old, "INSERT INTO t (b) VALUES (1); INSERT INTO only_here VALUES (8); SELECT * FROM old_v");
        let left = maria.databases(&target);
        assert!(!left.contains("lifeboat"), "{stop:?}: {left}");
        assert_eq!(left.lines().count(), if stop == Stop::Undoing { 2 } else { 3 }, "{stop:?}: {left}");
    }
}

#[test]
fn an_exchange_that_fails_after_its_rename_leaves_the_old_database_as_it_was() {
    let maria = shared();
    let (source, target) = (full(maria), full(maria));
    maria.sql(
        &target,
        "DROP EVENT e; INSERT INTO par VALUES (7); CREATE VIEW old_view AS SELECT 1; CREATE FUNCTION old_f() RETURNS int RETURN 1",
    );
    let old = maria.text(&target);
    let machine = Machine::with_repository();
    back_up(&machine, &maria.address(&source));
    // The old one has no event to be moved; the new one's may not be made.
    maria.sql(
        "",
        "CREATE USER weak@'127.0.0.1'; GRANT ALL ON *.* TO weak@'127.0.0.1'; REVOKE EVENT ON *.* FROM weak@'127.0.0.1'",
    );
    let address = maria.address(&target).replace("root@", "weak@");
    let said = machine.run(&["restore", "latest", "--to", &address, "--force"]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("put up views"), "{}", said.stderr);
    assert_eq!(maria.text(&target), old, "{}", said.stderr);
    assert_eq!(maria.databases(&target), target, "nothing is left");
    // Interrupted there: the same.
    let holding = Holding::new(maria, "LOCK TABLES mysql.event READ");
    let child = spawn(&machine, &["restore", "latest", "--to", &maria.address(&target), "--force"], &[]);
    waiting(maria, "%CREATE%EVENT `e`%");
    kill(child.id().cast_signed(), Signal::INT);
    waiting_for_step(maria);
    drop(holding);
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 130, "{}{}", said.stdout, said.stderr);
    assert_eq!(maria.text(&target), old, "{}", said.stderr);
    assert_eq!(maria.databases(&target), target, "nothing is left");
    maria.sql("", "DROP USER weak@'127.0.0.1'");
}

#[test]
fn what_an_earlier_restore_left_is_told_from_what_is_not_ours() {
    let maria = shared();
    let (source, target) = (maria.database(), maria.database());
    maria.sql(&source, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let machine = Machine::with_repository();
    back_up(&machine, &maria.address(&source));
    let mark = "CREATE TABLE _lifeboat_restore (number int, kind varchar(20), script longblob); CREATE TABLE half (a int)";
    maria.sql(&target, mark);
    let brought = r#"INSERT INTO _lifeboat_restore VALUES (0, 'brought', '{"tables": ["half"], "objects":
        {"views": 1, "triggers": 0, "routines": 0, "events": 0, "sequences": 0}}')"#;
    // What others made in it since is not dropped, nor what nothing says is ours.
    for (makes, unmakes, named) in [
        ("DO 1", "DO 1", "half"),
        (brought, "DO 1", ""),
        ("CREATE TABLE mine (a int)", "DROP TABLE mine", "mine"),
        ("CREATE VIEW seen AS SELECT 1 AS one", "DROP VIEW seen", "seen"),
        ("CREATE FUNCTION f() RETURNS int RETURN 1", "DROP FUNCTION f", "f"),
        ("CREATE SEQUENCE numbers", "DROP SEQUENCE numbers", "numbers"),
    ] {
        maria.sql(&target, makes);
        if !named.is_empty() {
            let before = maria.text(&target);
            for force in [&[][..], &["--force"], &["--dry-run"]] {
                let said =
                    machine.run(&[&["restore", "latest", "--to", &maria.address(&target)], force].concat());
                assert_eq!(said.code, 2, "{makes}: {}{}", said.stdout, said.stderr);
                let expected = format!("what is not of it: {named}");
                assert!(said.stderr.contains(&expected), "{makes}: {}", said.stderr);
                assert_eq!(maria.text(&target), before);
            }
        }
        maria.sql(&target, unmakes);
    }
    let said = restore(&machine, &["latest", "--to", &maria.address(&target)]);
    assert!(said.contains("broke off; what it left was dropped"), "{said}");
    assert_eq!(maria.sql(&target, "SHOW TABLES"), "t");
    // Beside a full one: the note puts triggers back that a killed restore took.
    maria.sql("", &format!("CREATE DATABASE {target}_lifeboat_new"));
    maria.sql(&format!("{target}_lifeboat_new"), mark);
    maria.sql(
        &format!("{target}_lifeboat_new"),
        &format!(
            r#"INSERT INTO _lifeboat_restore VALUES
                 (0, 'trigger', 'CREATE TRIGGER back BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1;'),
                 (1, 'trigger', 'CREATE TRIGGER `since` BEFORE UPDATE ON t FOR EACH ROW SET NEW.a = 1;'),
                 (2, 'routine', 'CREATE DEFINER=`root`@`localhost` FUNCTION `made`() RETURNS int RETURN 1;'),
                 (3, 'names', '{{"kept": "{target}_before_x", "new": ["half"], "old": {{"tables": ["t"], "views": [],
                  "triggers": ["back", "since"], "routines": [["FUNCTION", "made"]], "events": []}}}}')"#
        ),
    );
    // By hand, after the kill: what has the name is not made the noted one again.
    maria.sql(
        &target,
        "CREATE TRIGGER since BEFORE UPDATE ON t FOR EACH ROW SET NEW.a = 2; CREATE FUNCTION made() RETURNS int RETURN 2",
    );
    let said = restore(&machine, &["latest", "--to", &maria.address(&target), "--force"]);
    assert!(said.contains("triggers and events of the old database were put back"), "{said}");
    let old = maria.text(&kept(&said));
    assert!(old.contains("TRIGGER back"), "{old}");
    assert!(old.contains("SET NEW.a = 2") && old.contains("RETURN 2"), "{old}");
    // Not ours: never dropped.
    maria.sql(
        "",
        &format!("CREATE DATABASE {target}_lifeboat_new; CREATE TABLE {target}_lifeboat_new.t (a int)"),
    );
    let said = machine.run(&["restore", "latest", "--to", &maria.address(&target), "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is not ours"), "{}", said.stderr);
}

#[test]
fn a_dry_run_changes_nothing() {
    let maria = shared();
    let source = maria.database();
    maria.sql(&source, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let machine = Machine::with_repository();
    back_up(&machine, &maria.address(&source));
    let (missing, empty, full, marked) =
        (maria.vacant(), maria.database(), maria.database(), maria.database());
    let mark = "CREATE TABLE _lifeboat_restore (number int, kind varchar(20), script longblob); CREATE TABLE half (a int)";
    maria.sql("", &format!("ALTER DATABASE {empty} CHARACTER SET ascii"));
    maria.sql(&full, "CREATE TABLE t (a int)");
    maria.sql(&marked, mark);
    maria.sql(&marked, r#"INSERT INTO _lifeboat_restore VALUES (0, 'brought', '{"tables": ["half"], "objects": {"views": 0, "triggers": 0, "routines": 0, "events": 0, "sequences": 0}}')"#);
    let state = |name: &str| {
        let schemas = "SELECT * FROM information_schema.SCHEMATA WHERE SCHEMA_NAME";
        let tables =
            "SELECT TABLE_SCHEMA, TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA";
        maria.sql("", &format!("{schemas} LIKE '{name}%'; {tables} LIKE '{name}%'"))
    };
    let dry = |name: &str, force: &[&str], code: i32| {
        let (before, address) = (state(name), maria.address(name));
        let arguments = [&["restore", "latest", "--to", &address, "--dry-run"], force].concat();
        let said = machine.run(&arguments);
        assert_eq!(said.code, code, "{name}: {}{}", said.stdout, said.stderr);
        assert_eq!(state(name), before, "{}{}", said.stdout, said.stderr);
    };
    for name in [&missing, &empty, &marked] {
        dry(name, &[], 0);
    }
    dry(&full, &[], 2);
    dry(&full, &["--force"], 0);
    maria.sql("", &format!("CREATE DATABASE {full}_lifeboat_new"));
    maria.sql(&format!("{full}_lifeboat_new"), mark);
    dry(&full, &["--force"], 0);
}
