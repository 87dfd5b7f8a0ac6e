//! What is empty takes a restore without `--force`: a server as `initdb` made it, a database that somebody created for
//! it. A look says beforehand what the restore will say.

use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::postgres::{Postgres, shared};

const NAMES: &str =
    "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname NOT LIKE 'template%'";

#[test]
fn all_databases_of_a_server_go_into_a_new_one_and_through_a_drill() {
    let (from, to) = (Postgres::start(15, ""), Postgres::start(15, ""));
    from.sql(
        "postgres",
        "CREATE ROLE clerk LOGIN PASSWORD 'x'; CREATE DATABASE shop OWNER clerk; CREATE DATABASE crm",
    );
    from.sql(
        "shop",
        "CREATE TABLE orders AS SELECT generate_series(1, 300) AS id; ALTER TABLE orders OWNER TO clerk;
         GRANT SELECT ON orders TO PUBLIC",
    );
    from.sql("crm", "CREATE TABLE people AS SELECT i, md5(i::text) AS name FROM generate_series(1, 50) i");
    let machine = Machine::with_repository();
    back_up(&machine, &from.address("*"));

    // Rehearsed in a server of its own, each database by its rows and hashes, the roles once.
    let drill = |more: &[&str]| {
        let checks = ["--check", "rows", "--check", "roles", "--check", "constraints"];
        machine.run(&[&["drill", "run", "all", "--snapshot", "latest"], &checks[..], more].concat())
    };
    let said = drill(&["--check-sql", "shop: select count(*) = 300 from orders"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    for expected in [
        "✓ data           shop: rows and row hashes of 1 tables (300 rows)",
        "✓ data           crm: rows and row hashes of 1 tables (50 rows)",
        "✓ data           postgres: rows and row hashes of 0 tables",
        "✓ rows           2 tables, 350 rows equal; hashes equal",
        "✓ roles          2 roles, 4 grants",
    ] {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    // The role that restores is in every server, and worth no word.
    assert!(!said.stdout.contains("roles that exist"), "{}", said.stdout);
    // It is able to fail: one database of several, one value.
    let step = "psql -qd crm -c \"update people set name = 'x' where i = 7\"";
    let said = drill(&["--step", step]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("crm: public.people: 50 rows, but other values"), "{}", said.stdout);

    // `initdb` makes a database postgres everywhere: it is in nobody's way.
    let all = to.address("*");
    let look = machine.run(&["restore", "latest", "--to", &all, "--dry-run"]);
    assert_eq!(look.code, 0, "{}", look.stderr);
    assert!(look.stdout.contains("nothing there is in the way"), "{}", look.stdout);
    assert_eq!(to.sql("template1", NAMES), "postgres");
    restore(&machine, "latest", &all);
    assert_eq!(to.sql("template1", NAMES), "crm postgres shop");
    assert_eq!(to.text("shop"), from.text("shop"));
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'";
    assert_eq!(to.sql("postgres", owner), "clerk");
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'postgres'";
    assert_eq!(to.sql("postgres", comment), from.sql("postgres", comment));

    // Now there is something: the look refuses what the restore refuses, and in the same words.
    let said = machine.run(&["restore", "latest", "--to", &all]);
    let look = machine.run(&["restore", "latest", "--to", &all, "--dry-run"]);
    assert_eq!((said.code, look.code), (2, 2), "{}{}", said.stderr, look.stdout);
    assert!(said.stderr.contains("database \"crm\" exists"), "{}", said.stderr);
    assert_eq!(look.stderr, said.stderr);
    let look = machine.run(&["restore", "latest", "--to", &all, "--dry-run", "--force"]);
    assert_eq!(look.code, 0, "{}", look.stderr);
    assert!(!look.stdout.contains("nothing there is in the way"), "{}", look.stdout);
    assert!(
        look.stdout.contains("replaced  database \"shop\", which is kept as \"shop_before_2"),
        "{}",
        look.stdout
    );
    let missing =
        machine.run(&["restore", "latest", "--to", &all, "--dry-run", "--force", "--after-sql", "none"]);
    assert_eq!(missing.code, 2, "{}", missing.stdout);
    assert!(missing.stderr.contains("cannot read --after-sql none"), "{}", missing.stderr);
    assert_eq!(to.sql("template1", NAMES), "crm postgres shop");
}

#[test]
fn what_somebody_put_into_a_database_is_in_the_way() {
    let postgres = shared(15);
    let source = postgres.database();
    postgres.sql(&source, "CREATE TABLE t AS SELECT 1 AS one");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    for sql in [
        "CREATE TABLE mine ()",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "CREATE TYPE mine AS ENUM ('a')",
        "CREATE EXTENSION hstore",
        "SELECT lo_create(0)",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "ALTER DATABASE :name SET work_mem = '5MB'",
        "GRANT CONNECT ON DATABASE :name TO pg_monitor",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor",
    ] {
        let target = postgres.database();
        postgres.sql(&target, &sql.replace(":name", &target));
        for look in [&["--dry-run"][..], &[]] {
            let address = postgres.address(&target);
            let said = machine.run(&[&["restore", "latest", "--to", &address], look].concat());
            assert_eq!(said.code, 2, "{sql}: {}{}", said.stdout, said.stderr);
            assert!(said.stderr.contains("--force"), "{sql}: {}", said.stderr);
        }
    }
}

#[test]
fn an_empty_database_gives_way_unless_somebody_is_in_it() {
    for major in [15, 16, 18] {
        let postgres = shared(major);
        let (source, target) = (postgres.database(), postgres.database());
        postgres.sql(&source, "CREATE TABLE t AS SELECT 1 AS one");
        let machine = Machine::with_repository();
        back_up(&machine, &postgres.address(&source));
        let address = postgres.address(&target);
        if major == 15 {
            let mut sleeper = postgres.tool("psql", &target);
            let mut sleeper = sleeper.args(["-c", "SELECT pg_sleep(600)"]).spawn().unwrap();
            let there = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{target}' AND query = 'SELECT pg_sleep(600)'"
            );
            while postgres.sql("postgres", &there) == "0" {}
            let said = machine.run(&["restore", "latest", "--to", &address]);
            assert_eq!(said.code, 2, "{}", said.stderr);
            assert!(said.stderr.contains("is empty, but somebody is in it"), "{}", said.stderr);
            assert_eq!(postgres.sql("postgres", &there), "1", "nobody was thrown out");
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
            let end =
                format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{target}'");
            postgres.sql("postgres", &end);
        }
        restore(&machine, "latest", &address);
        assert_eq!(postgres.sql(&target, "SELECT one FROM t"), "1");
        let like = format!("SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE '{target}%'");
        assert_eq!(postgres.sql("postgres", &like), target, "version {major}: the empty one is gone");
    }
}

/// The database was empty when the restore looked; what came into it since is nobody's to take.
#[test]
fn a_database_that_is_filled_during_the_restore_stays() {
    let postgres = shared(15);
    let (source, target) = (postgres.database(), postgres.database());
    postgres.sql(&source, "CREATE TABLE t AS SELECT 1 AS one");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    // SQL that runs once everything is proven.
    let fill = format!(
        "CREATE EXTENSION dblink; SELECT dblink_exec('host={} port={} user=postgres dbname={target}', 'CREATE TABLE mine ()')",
        postgres.folder().display(),
        postgres.port()
    );
    let fill = machine.file("fill.sql", fill);
    let address = postgres.address(&target);
    let said = machine.run(&["restore", "latest", "--to", &address, "--after-sql", fill.to_str().unwrap()]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("somebody has put something into it meanwhile"), "{}", said.stderr);
    assert_eq!(postgres.sql(&target, "SELECT count(*) FROM mine"), "0");
    let like = format!("SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE '{target}%'");
    assert_eq!(postgres.sql("postgres", &like), target, "nothing is left beside");
}

/// The database was empty and nobody in it when the restore looked; who came since is not thrown out.
#[test]
fn whoever_comes_into_an_empty_database_during_the_restore_stays() {
    let postgres = shared(15);
    let (source, target) = (postgres.database(), postgres.database());
    postgres.sql(&source, "CREATE TABLE t AS SELECT 1 AS one");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    // SQL that runs once everything is proven, and waits for somebody.
    let wait = format!(
        "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{target}' AND query = \
         'SELECT pg_sleep(600)') LOOP PERFORM pg_sleep(0.05); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$"
    );
    let wait = machine.file("wait.sql", wait);
    let address = postgres.address(&target);
    let (said, mut sleeper) = std::thread::scope(|scope| {
        let restore =
            || machine.run(&["restore", "latest", "--to", &address, "--after-sql", wait.to_str().unwrap()]);
        let restore = scope.spawn(restore);
        let beside = format!("SELECT count(*) FROM pg_database WHERE datname = '{target}_lifeboat_new'");
        while postgres.sql("postgres", &beside) == "0" && !restore.is_finished() {}
        let mut sleeper = postgres.tool("psql", &target);
        let sleeper = sleeper.args(["-c", "SELECT pg_sleep(600)"]).spawn().unwrap();
        (restore.join().unwrap(), sleeper)
    });
    let there = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND datname = '{target}'"
    );
    let stays = postgres.sql("postgres", &there);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("somebody has come into it meanwhile"), "{}", said.stderr);
    assert_eq!(stays, "1", "nobody was thrown out");
}

/// A look drops nothing that an earlier restore left, and still says what it would.
#[test]
fn a_look_leaves_what_an_earlier_restore_left() {
    let postgres = shared(15);
    let source = postgres.database();
    postgres.sql(&source, "CREATE TABLE t AS SELECT 1 AS one");
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    let target = postgres.vacant();
    let beside = format!("{target}_lifeboat_new");
    let mark = "lifeboat: a restore under way, or broken off; it is not used and may be dropped";
    postgres.sql("postgres", &format!("CREATE DATABASE {beside}; COMMENT ON DATABASE {beside} IS '{mark}'"));
    postgres.sql(&beside, "CREATE TABLE half ()");
    let said = machine.run(&["restore", "latest", "--to", &postgres.address(&target), "-n"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("broke off; the next one drops what it left"), "{}", said.stderr);
    assert_eq!(postgres.sql(&beside, "SELECT count(*) FROM half"), "0");
}

/// A database that waits for its name has nobody at work in it, and is not for that what a broken restore left.
#[test]
fn another_restore_leaves_alone_what_this_one_has_ready() {
    let (from, to) = (shared(15), Postgres::start(15, ""));
    let names = [from.database(), from.database()];
    names.iter().for_each(|name| drop(from.sql(name, "CREATE TABLE t AS SELECT generate_series(1, 9) AS n")));
    let machine = Machine::with_repository();
    back_up(&machine, &from.address(&names.join(",")));
    let script = machine.file("after.sql", "SELECT pg_sleep(4)");
    let all = to.address("*");
    let restore = ["restore", "latest", "--to", &all, "--after-sql", script.to_str().unwrap()];
    std::thread::scope(|scope| {
        let first = scope.spawn(|| machine.run(&restore));
        let asleep =
            "SELECT string_agg(datname, '') FROM pg_stat_activity WHERE query LIKE '%pg_sleep(4)%' AND
             state = 'active' AND pid <> pg_backend_pid()";
        let mut sleeper = String::new();
        for _ in 0..300 {
            sleeper = to.sql("postgres", asleep);
            if !sleeper.is_empty() || first.is_finished() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let waits = names.iter().find(|name| !sleeper.starts_with(name.as_str())).unwrap();
        let part = format!("latest:/databases/{waits}.dump");
        let said = machine.run(&["restore", &part, "--to", &to.address(waits)]);
        assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains("under way"), "{}", said.stderr);
        let said = first.join().unwrap();
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    });
    names.iter().for_each(|name| assert_eq!(to.sql(name, "SELECT count(*) FROM t"), "9"));
}
