//! What goes wrong: then there is no snapshot, the exit code says it, the message says why and what to do, and
//! nothing is left on the server or here.

use rustix::process::Signal;

use super::super::under_way::{self, child_of, kill, no_snapshot, spawn, wait};
use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::mariadb::{Maria, shared};

/// A database whose dump takes a while.
fn large(maria: &Maria) -> String {
    let name = maria.database();
    maria.sql(
        &name,
        "CREATE TABLE t (i int PRIMARY KEY, text text);
         INSERT INTO t SELECT seq, REPEAT(MD5(seq), 20) FROM seq_1_to_60000",
    );
    name
}

/// Waits until the child `program` of `parent` is there and reads `database`.
fn streaming(maria: &Maria, parent: u32, program: &str, query: &str) -> i32 {
    let sql = format!("SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '{query}%'");
    loop {
        if maria.sql("", &sql) != "0"
            && let Some(pid) = child_of(parent, program)
        {
            return pid;
        }
    }
}

fn nothing_left(machine: &Machine, maria: &Maria, database: &str) {
    under_way::nothing_left(machine, || maria.sessions(database));
}

const READING: &str = "SELECT /*!40001 SQL_NO_CACHE */";

#[test]
fn a_killed_dump_gives_no_snapshot() {
    let maria = shared();
    let database = large(maria);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &["backup", &maria.address(&database)], &[]);
    let dump = streaming(maria, child.id(), "(mariadb-dump", &format!("{READING}%"));
    kill(dump, Signal::KILL);
    let said = wait(&machine, child);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("was killed by SIGKILL"), "{}", said.stderr);
    assert!(said.stderr.contains(&format!("dump database \"{database}\"")), "{}", said.stderr);
    no_snapshot(&machine);
    nothing_left(&machine, maria, &database);
}

#[test]
fn a_killed_server_gives_no_snapshot() {
    let maria = Maria::start(&[]);
    let database = large(&maria);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &["backup", &maria.address(&database)], &[]);
    streaming(&maria, child.id(), "(mariadb-dump", &format!("{READING}%"));
    maria.server.signal(Signal::KILL);
    let said = wait(&machine, child);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("Lost connection"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: the server ended"), "{}", said.stderr);
    no_snapshot(&machine);
}

#[test]
fn an_interrupted_capture_leaves_nothing_behind() {
    let maria = shared();
    let database = large(maria);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &["backup", &maria.address(&database)], &[]);
    streaming(maria, child.id(), "(mariadb-dump", &format!("{READING}%"));
    kill(child.id().cast_signed(), Signal::INT);
    let said = wait(&machine, child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    no_snapshot(&machine);
    nothing_left(&machine, maria, &database);
}

/// Into nothing, into an empty database, and beside a full one; two at once.
#[test]
fn an_interrupted_restore_leaves_what_was_there() {
    let maria = shared();
    let source = large(maria);
    let machine = Machine::with_repository();
    back_up(&machine, &maria.address(&source));
    let (missing, empty, full) = (maria.vacant(), maria.database(), maria.database());
    maria.sql(&full, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    maria.sql("", &format!("ALTER DATABASE {empty} CHARACTER SET ascii"));
    for (target, work) in
        [(&missing, missing.clone()), (&empty, empty.clone()), (&full, format!("{full}_lifeboat_new"))]
    {
        let before = maria.databases(target);
        let child = spawn(&machine, &["restore", "latest", "--to", &maria.address(target), "--force"], &[]);
        let sql = format!(
            "SELECT count(*) FROM information_schema.PROCESSLIST WHERE DB = '{work}' AND INFO LIKE 'INSERT%'"
        );
        while maria.sql("", &sql) == "0" {}
        let other = machine.run(&["restore", "latest", "--to", &maria.address(target), "--force"]);
        assert_eq!(other.code, 2, "{}", other.stderr);
        assert!(other.stderr.contains("another restore into"), "{}", other.stderr);
        if *target == empty {
            maria.sql(target, "CREATE TABLE somebodys (a int)");
        }
        kill(child.id().cast_signed(), Signal::INT);
        let said = wait(&machine, child);
        assert_eq!(said.code, 130, "{}", said.stderr);
        assert_eq!(maria.databases(target), before);
        nothing_left(&machine, maria, &work);
    }
    assert_eq!(maria.sql(&empty, "SHOW TABLES; SELECT @@character_set_database"), "somebodys\nascii");
    assert_eq!(maria.sql(&full, "SELECT * FROM t"), "1");
    // Killed: the next one sweeps up.
    let child = spawn(&machine, &["restore", "latest", "--to", &maria.address(&missing)], &[]);
    let sql = format!(
        "SELECT count(*) FROM information_schema.PROCESSLIST WHERE DB = '{missing}' AND INFO LIKE 'INSERT%'"
    );
    while maria.sql("", &sql) == "0" {}
    kill(child.id().cast_signed(), Signal::KILL);
    wait(&machine, child);
    while maria.sessions(&missing) != "0" {}
    let said = restore(&machine, &["latest", "--to", &maria.address(&missing)]);
    assert!(said.contains("broke off; what it left was dropped"), "{said}");
    assert_eq!(maria.sql(&missing, "SELECT count(*) FROM t"), "60000");
}

#[test]
fn passwords_are_used_and_shown_nowhere() {
    let maria = shared();
    let database = large(maria);
    let password = "s3cret: w\\o\"r#d";
    maria.sql("", &format!("CREATE USER keeper@'127.0.0.1' IDENTIFIED BY '{}'; GRANT ALL ON *.* TO keeper@'127.0.0.1' WITH GRANT OPTION", password.replace('\\', "\\\\")));
    let machine = Machine::with_repository();
    let address = maria.address(&database).replace("root@", "keeper@");
    let said = machine.run_with(&[("MYSQL_PWD", "wrong")], &["backup", &address]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("Access denied"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: give the password"), "{}", said.stderr);
    no_snapshot(&machine);
    // In a variable, and in a file; every command line is looked at meanwhile.
    let said = machine.run_with(&[("MYSQL_PWD", password)], &["backup", &address]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let file = machine.file("password", format!("{password}\n"));
    let child = spawn(&machine, &["backup", &format!("{address}?password-file={}", file.display())], &[]);
    let mut seen = (false, false);
    while std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
        .is_ok_and(|stat| !stat.contains(") Z"))
    {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            seen.0 |= line.contains("--single-transaction") && line.contains(&database);
            seen.1 |= line.contains("s3cret");
        }
    }
    let said = wait(&machine, child);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(seen, (true, false), "the dump was seen, its password not");
    assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none());
    // In the user's own option file.
    machine.file(
        "home/.my.cnf",
        "[client]\nuser=keeper\npassword=\"s3cret: w\\\\o\\\"r#d\"\n[mysqldump]\nno-data\n",
    );
    let home = machine.path("home");
    let said = machine.run_with(
        &[("HOME", home.to_str().unwrap())],
        &["backup", &maria.address(&database).replace("root@", "")],
    );
    assert_eq!(said.code, 0, "{}", said.stderr);
    let snapshot = format!("{}@latest", maria.address(&database).replace("root@", ""));
    let said = restore(&machine, &[&snapshot, "--to", &maria.address(&maria.vacant())]);
    assert!(said.contains("(60000 rows)"), "{said}");
    // In the address: refused, and not repeated.
    let inside = address.replace("keeper@", "keeper:s3cret@").replace("mariadb:", "mysql:");
    for arguments in [vec!["backup", &inside], vec!["restore", &snapshot, "--to", &inside]] {
        let said = machine.run(&arguments);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(
            said.stderr.contains("holds a password") && !said.stderr.contains("s3cret"),
            "{}",
            said.stderr
        );
    }
    maria.sql("", "DROP USER keeper@'127.0.0.1'");
}

#[test]
fn what_cannot_be_is_said_before_anything_is_fetched() {
    let maria = shared();
    let database = maria.database();
    maria.sql(&database, "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE TABLE gone (a int); CREATE VIEW v AS SELECT * FROM gone; DROP TABLE gone");
    let machine = Machine::with_repository();
    let address = maria.address(&database);
    let said = machine.run(&["backup", &address]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("hint: a view there names what does not exist"), "{}", said.stderr);
    no_snapshot(&machine);
    let without = format!("{address}?exclude-table=v");
    back_up(&machine, &without);
    let said = machine.run(&["backup", &format!("{address}?sokcet=/x")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("hint: socket="), "{}", said.stderr);
    let said = machine.run(&["backup", &format!("{address}?tools=/nonexistent")]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("hint: apt-get install mariadb-client"), "{}", said.stderr);
    let socket =
        format!("mariadb://root@/{}?socket={}&exclude-table=v", maria.vacant(), maria.socket().display());
    restore(&machine, &["latest", "--to", &socket]);
    // Somebody else's foreign key would be left with the old tables.
    let (target, other) = (maria.database(), maria.database());
    maria.sql(&target, "CREATE TABLE p (id int PRIMARY KEY)");
    maria.sql(&other, &format!("CREATE TABLE c (p int, FOREIGN KEY (p) REFERENCES {target}.p (id))"));
    let said = machine.run(&["restore", "latest", "--to", &maria.address(&target), "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("table {other}.c refers to")), "{}", said.stderr);
    // Nobody listens there.
    let said = machine.run(&["backup", "mariadb://root@127.0.0.1:1/x"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("Can't connect"), "{}", said.stderr);
}
