//! What goes wrong: then there is no snapshot, the exit code says it, the message says why and what to do, and
//! nothing is left on the server or here.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::super::under_way::{self, child_of, kill, no_snapshot, wait};
use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::postgres::{Postgres, bin, shared};

/// Starts a backup.
fn spawn(machine: &Machine, address: &str, variables: &[(&str, &str)]) -> Child {
    under_way::spawn(machine, &["backup", address], variables)
}

fn nothing_left(machine: &Machine, postgres: &Postgres, database: &str) {
    under_way::nothing_left(machine, || postgres.our_sessions(database));
}

/// A database whose dump takes a while.
fn large(postgres: &Postgres) -> String {
    let name = postgres.database();
    postgres.sql(
        &name,
        "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS text FROM generate_series(1, 120000) i",
    );
    name
}

/// Waits until the dump of `database` streams; the process of the session that serves it.
fn streaming(postgres: &Postgres, database: &str) -> i32 {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND application_name LIKE 'lifeboat-%'
         AND query LIKE 'COPY%'"
    );
    loop {
        if let Ok(pid) = postgres.sql("postgres", &sql).parse() {
            return pid;
        }
    }
}

#[test]
fn a_killed_pg_dump_gives_no_snapshot() {
    let postgres = shared(15);
    let database = large(postgres);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &postgres.address(&database), &[]);
    streaming(postgres, &database);
    kill(child_of(child.id(), "(pg_dump").unwrap(), Signal::KILL);
    let said = wait(&machine, child);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("was killed by SIGKILL"), "{}", said.stderr);
    assert!(said.stderr.contains(&format!("dump database \"{database}\"")), "{}", said.stderr);
    no_snapshot(&machine);
    nothing_left(&machine, postgres, &database);
}

#[test]
fn a_killed_server_gives_no_snapshot() {
    let postgres = Postgres::start(15, "");
    let database = large(&postgres);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &postgres.address(&database), &[]);
    let backend = streaming(&postgres, &database);
    postgres.server.signal(Signal::KILL);
    kill(backend, Signal::KILL);
    let said = wait(&machine, child);
    assert_eq!(said.code, 1, "{}", said.stderr);
    // On a busy machine the tool may have come to its end before.
    let at_its_end = said.stderr.contains("cannot end the transaction that held the snapshot");
    let closed = said.stderr.contains("server closed the connection") && said.stderr.contains("hint: ");
    assert!(at_its_end || closed, "{}", said.stderr);
    no_snapshot(&machine);
}

#[test]
fn an_interrupted_capture_leaves_nothing_behind() {
    let postgres = shared(15);
    let database = large(postgres);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &postgres.address(&database), &[]);
    streaming(postgres, &database);
    kill(child.id().cast_signed(), Signal::INT);
    let said = wait(&machine, child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    no_snapshot(&machine);
    nothing_left(&machine, postgres, &database);
}

/// A lock keeps pg_dump waiting on the server, where a client that is gone is not noticed.
#[test]
fn an_interrupted_wait_for_a_lock_ends_on_the_server_too() {
    let postgres = shared(15);
    let (database, mut holder) = locked(postgres);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &postgres.address(&database), &[]);
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    );
    while postgres.sql("postgres", &waiting) == "0" {}
    kill(child.id().cast_signed(), Signal::INT);
    let said = wait(&machine, child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    nothing_left(&machine, postgres, &database);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// A database with a table that somebody keeps to himself.
fn locked(postgres: &Postgres) -> (String, Child) {
    let database = postgres.database();
    postgres.sql(&database, "CREATE TABLE t (a int)");
    let mut holder = postgres.tool("psql", &database);
    let sql = "BEGIN; LOCK TABLE t; SELECT pg_sleep(600)";
    let holder = holder.args(["-c", sql]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let held =
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 't'::regclass";
    while postgres.sql(&database, held) == "0" {}
    (database, holder)
}

#[test]
fn a_lock_that_is_held_too_long_is_said() {
    let postgres = shared(15);
    let (database, mut holder) = locked(postgres);
    let machine = Machine::with_repository();
    let child = spawn(&machine, &format!("{}?lock-timeout=1s", postgres.address(&database)), &[]);
    let said = wait(&machine, child);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("LOCK TABLE public.t"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: somebody holds a lock"), "{}", said.stderr);
    no_snapshot(&machine);
    nothing_left(&machine, postgres, &database);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// A server that wants a password, and speaks TLS with a certificate of its own making.
fn guarded() -> (Postgres, std::path::PathBuf) {
    let postgres = Postgres::start_with(15, "password_encryption = 'scram-sha-256'", |bin, data| {
        let mut command = Command::new("/bin/sh");
        let script = "umask 077 && echo 's3cret: w\\ord' > $1.pw && $0/initdb -A scram-sha-256 --pwfile $1.pw --no-sync \
                      -U postgres -D $1 && openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=localhost \
                      -addext subjectAltName=DNS:localhost -keyout $1/server.key -out $1/server.crt \
                      && echo 'ssl = on' >> $1/postgresql.conf";
        command.args(["-c", script]).arg(bin).arg(data);
        command
    });
    let root = postgres.data().join("server.crt");
    (postgres, root)
}

#[test]
fn passwords_are_used_and_shown_nowhere() {
    let (postgres, root) = guarded();
    let sql = |sql: &str| {
        let mut command = postgres.tool("psql", "postgres");
        command.env("PGPASSWORD", "s3cret: w\\ord").args(["-X", "-q", "-A", "-t", "-c", sql]);
        let said = command.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    };
    sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS text FROM generate_series(1, 60000) i");
    let machine = Machine::with_repository();
    let address = postgres.address("postgres");

    let said = machine.run_with(&[("PGPASSWORD", "wrong")], &["backup", &address]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("password authentication failed"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: give the password"), "{}", said.stderr);
    let said = machine.run(&["backup", &address]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    no_snapshot(&machine);

    // In a file; every command line is looked at meanwhile.
    let file = machine.file("password", "s3cret: w\\ord\n");
    let with_file = format!("{address}?password-file={}", file.display());
    let child = spawn(&machine, &with_file, &[]);
    let seen = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut seen = (false, false);
            while std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
                .is_ok_and(|stat| !stat.contains(") Z"))
            {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line);
                    seen.0 |= line.contains("--snapshot=") && line.contains("pg_dump");
                    seen.1 |= line.contains("s3cret");
                }
            }
            seen
        });
        looking.join().unwrap()
    });
    let said = wait(&machine, child);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(seen, (true, false), "pg_dump was seen, its password not");
    assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none());

    // In the address: refused, and not repeated.
    let inside = address.replace("postgres@", "postgres:s3cret%3A%20w%5Cord@");
    for arguments in [vec!["backup", &inside], vec!["restore", "latest", "--to", &inside]] {
        let said = machine.run(&arguments);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains("holds a password"), "{}", said.stderr);
        assert!(!(said.stdout.clone() + &said.stderr).contains("s3cret"), "{}{}", said.stdout, said.stderr);
    }
    let listed = machine.run(&["--json", "snapshots"]).stdout;
    assert!(listed.contains("postgres://postgres@127.0.0.1") && !listed.contains("s3cret"), "{listed}");

    // Protected: the name in the certificate is looked at only by verify-full.
    let root = root.display();
    for (host, options, code) in [
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}"), 0),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}"), 0),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}"), 1),
        ("localhost", "sslmode=require".to_owned(), 0),
        ("localhost", "sslmode=verify-ca".to_owned(), 1),
    ] {
        let address = format!("{with_file}&{options}").replace("127.0.0.1", host);
        let said = machine.run(&["backup", &address]);
        assert_eq!(said.code, code, "{host} {options}: {}", said.stderr);
    }
}

#[test]
fn tools_must_suit_the_server() {
    let machine = Machine::with_repository();
    let (old, new) = (shared(15), shared(18));
    let (old_db, new_db) = (old.database(), new.database());
    old.sql(&old_db, "CREATE TABLE t AS SELECT 1 AS one");
    new.sql(&new_db, "CREATE TABLE t AS SELECT 1 AS one");
    let with = |address: String, major: u32| {
        let plain = address.split('?').next().unwrap();
        format!("{plain}?tools={}", bin(major).display())
    };

    let said = machine.run(&["backup", &with(new.address(&new_db), 15)]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("version 18") && said.stderr.contains("hint: install"), "{}", said.stderr);
    no_snapshot(&machine);

    // Newer tools will do, marked; what they write an old server may not take.
    let said = back_up(&machine, &with(old.address(&old_db), 18));
    assert!(said.contains("warning: pg_dump 18"), "{said}");
    let said = machine.run(&["restore", "latest", "--to", &old.address(&old.vacant())]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("no pg_restore that reads it"), "{}", said.stderr);
    let machine = Machine::with_repository();
    back_up(&machine, &with(new.address(&new_db), 18));
    let said = machine.run(&["restore", "latest", "--to", &old.address(&old.vacant())]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("hint: restore into a server of version 17 or newer"), "{}", said.stderr);
    let machine = Machine::with_repository();
    // 15's archive is read by 16's tools, which suit 15.
    back_up(&machine, &with(old.address(&old_db), 15));
    let target = old.vacant();
    restore(&machine, "latest", &with(old.address(&target), 16));
    assert_eq!(old.sql(&target, "SELECT one FROM t"), "1");
}

#[test]
fn a_standby_is_captured_at_what_it_replayed_and_takes_nothing() {
    let primary = Postgres::start(15, "");
    primary.sql("postgres", "CREATE DATABASE d");
    primary.sql(
        "d",
        "CREATE TABLE t AS SELECT generate_series(1, 5000) AS i; CREATE UNLOGGED TABLE u AS SELECT 1 AS i",
    );
    let port = primary.port().to_string();
    let standby = Postgres::start_with(15, "hot_standby = on", |bin, data| {
        let mut command = Command::new(bin.join("pg_basebackup"));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "--no-sync", "-c", "fast", "-X", "stream"]);
        command.arg("-p").arg(&port).arg("-D").arg(data);
        command
    });
    primary.sql("d", "INSERT INTO t VALUES (0)");
    while standby.try_sql("d", "SELECT count(*) FROM t") != Ok("5001".into()) {}
    let machine = Machine::with_repository();
    back_up(&machine, &standby.address("d"));
    let said = restore(&machine, "latest", &primary.address("back"));
    assert!(said.contains("(5001 rows)"), "{said}");
    assert!(said.contains("public.u: unlogged"), "{said}");
    let said = machine.run(&["restore", "latest", "--to", &standby.address("back2")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is a standby"), "{}", said.stderr);
}

/// As on a managed server: a user who may make databases and read everything, and no more.
#[test]
fn without_a_superuser_what_is_not_permitted_is_left_out_and_said() {
    let postgres = Postgres::start(15, "");
    postgres.sql("postgres", "CREATE ROLE manager LOGIN CREATEDB; CREATE ROLE other");
    postgres.sql("postgres", "CREATE DATABASE d");
    postgres.sql(
        "d",
        "CREATE TABLE t AS SELECT generate_series(1, 10) AS i; ALTER TABLE t OWNER TO other;
         CREATE EXTENSION hstore; CREATE EXTENSION dblink;
         CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION e();
         SELECT lo_from_bytea(77, 'x'); GRANT SELECT ON t TO manager",
    );
    let machine = Machine::with_repository();
    let address = |database: &str| postgres.address(database).replace("postgres@", "manager@");
    // Large objects have rights of their own.
    let said = machine.run(&["backup", &address("d")]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("permission denied"), "{}", said.stderr);
    postgres.sql("d", "SELECT lo_unlink(77)");
    let said = back_up(&machine, &address("d"));
    assert!(said.contains("without their passwords"), "{said}");
    let said = machine.run(&["restore", "latest", "--to", &address("new")]);
    assert_eq!(said.code, 3, "what was not made is not passed over: {}", said.stderr);
    let said = said.stdout + &said.stderr;
    for part in
        ["EXTENSION dblink was left out", "EVENT TRIGGER e was left out", "without its owners and grants"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("warning: EXTENSION hstore"), "{said}");
    assert_eq!(postgres.sql("new", "SELECT count(*) FROM t"), "10");
    assert_eq!(postgres.sql("new", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "manager");
    // Row security would hide rows: then it is a failure, not a smaller backup.
    postgres.sql("d", "ALTER TABLE t ENABLE ROW LEVEL SECURITY");
    let said = machine.run(&["backup", &address("d")]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(
        said.stderr.contains("row-level security") && said.stderr.contains("BYPASSRLS"),
        "{}",
        said.stderr
    );
    // And who may make no database is told before anything is fetched.
    postgres.sql("postgres", "ALTER ROLE manager NOCREATEDB");
    let said = machine.run(&["restore", "latest", "--to", &address("no")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("hint: ALTER ROLE manager CREATEDB"), "{}", said.stderr);
}

#[test]
fn what_the_server_lacks_is_said_before_anything_is_fetched() {
    let (from, to) = (shared(15), shared(16));
    let source = from.database();
    from.sql(&source, "CREATE EXTENSION dblink");
    let machine = Machine::with_repository();
    back_up(&machine, &from.address(&source));
    if to.sql("postgres", "SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'") == "0" {
        let said = machine.run(&["restore", "latest", "--to", &to.address(&to.vacant())]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains("does not have: dblink"), "{}", said.stderr);
    }
    let said = machine.run(&["backup", &format!("{}?shcema=x", from.address(&source))]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("hint: schema="), "{}", said.stderr);
    assert!(Path::new("/usr/lib/postgresql/15/bin/pg_dump").exists());
}

/// A restore that is interrupted leaves no database behind.
#[test]
fn an_interrupted_restore_leaves_no_database_behind() {
    let postgres = shared(15);
    let source = large(postgres);
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    let target = postgres.vacant();
    let mut command = machine.raw(&["restore", "latest", "--to", &postgres.address(&target)]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let beside = format!("{target}_lifeboat_new");
    streaming(postgres, &beside);
    kill(child.id().cast_signed(), Signal::INT);
    let said = wait(&machine, child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    let left = format!("SELECT count(*) FROM pg_database WHERE datname LIKE '{target}%'");
    assert_eq!(postgres.sql("postgres", &left), "0");
}
