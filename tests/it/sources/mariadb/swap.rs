//! A database that is replaced: exchanged whole, the old one kept, or left exactly as it was.

use super::content::full;
use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::mariadb::shared;

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

#[test]
fn what_an_earlier_restore_left_is_told_from_what_is_not_ours() {
    let maria = shared();
    let (source, target) = (maria.database(), maria.database());
    maria.sql(&source, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let machine = Machine::with_repository();
    back_up(&machine, &maria.address(&source));
    let mark = "CREATE TABLE _lifeboat_restore (state varchar(20), kept varchar(64), script longblob); CREATE TABLE half (a int)";
    maria.sql(&target, mark);
    let said = restore(&machine, &["latest", "--to", &maria.address(&target)]);
    assert!(said.contains("broke off; what it left was dropped"), "{said}");
    assert_eq!(maria.sql(&target, "SHOW TABLES"), "t");
    // Beside a full one: the note puts triggers back that a killed restore took.
    maria.sql("", &format!("CREATE DATABASE {target}_lifeboat_new"));
    maria.sql(&format!("{target}_lifeboat_new"), mark);
    maria.sql(
        &format!("{target}_lifeboat_new"),
        &format!(
            "INSERT INTO _lifeboat_restore VALUES ('exchange', '{target}_before_x',
             'CREATE TRIGGER back BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1;')"
        ),
    );
    let said = restore(&machine, &["latest", "--to", &maria.address(&target), "--force"]);
    assert!(said.contains("triggers and events of the old database were put back"), "{said}");
    assert!(maria.text(&kept(&said)).contains("TRIGGER back"), "{said}");
    // Not ours: never dropped.
    maria.sql(
        "",
        &format!("CREATE DATABASE {target}_lifeboat_new; CREATE TABLE {target}_lifeboat_new.t (a int)"),
    );
    let said = machine.run(&["restore", "latest", "--to", &maria.address(&target), "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is not ours"), "{}", said.stderr);
}
