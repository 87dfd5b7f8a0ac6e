//! SQLite: captured while a writer is at work, given back proven.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::conformance::{self, Subject};
use crate::cli::Machine;

struct Sqlite {
    folder: tempfile::TempDir,
    made: u32,
}

impl Sqlite {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), made: 0 }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn source(&self) -> Connection {
        Connection::open(self.path("app.db")).unwrap()
    }
}

impl Subject for Sqlite {
    fn address(&self) -> String {
        format!("sqlite:{}", self.path("app.db").display())
    }
    fn vacant(&mut self) -> String {
        self.made += 1;
        format!("sqlite:{}", self.path(&format!("restored-{}.db", self.made)).display())
    }
    fn fill(&mut self) {
        self.source()
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE \"odd \"\" name\" (id INTEGER PRIMARY KEY, body TEXT);
                 CREATE VIRTUAL TABLE notes USING fts5(body);
                 INSERT INTO notes SELECT 'note ' || value FROM json_each('[1,2,3]');
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                 INSERT INTO \"odd \"\" name\" SELECT i, hex(i * 7919) FROM n;",
            )
            .unwrap();
    }
    fn change(&mut self) {
        self.source().execute_batch("DELETE FROM \"odd \"\" name\" WHERE id % 100 = 0").unwrap();
    }
    fn content(&self, address: &str) -> String {
        let path = address.strip_prefix("sqlite:").unwrap();
        let dump = std::process::Command::new("sqlite3").args([path, ".dump"]).output().unwrap();
        assert!(dump.status.success(), "{dump:?}");
        String::from_utf8(dump.stdout).unwrap()
    }
    fn nowhere(&self) -> String {
        format!("sqlite:{}", self.path("missing.db").display())
    }
}

#[test]
fn an_sqlite_database_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Sqlite::new());
}

#[test]
fn an_sqlite_database_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Sqlite::new());
}

#[test]
fn damage_in_the_repository_leaves_an_sqlite_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Sqlite::new());
}

#[test]
fn a_file_that_is_no_database_gives_no_snapshot() {
    let subject = Sqlite::new();
    let machine = Machine::with_repository();
    std::fs::write(subject.path("app.db"), "this is text, and more of it than a header has".repeat(100))
        .unwrap();
    let said = machine.run(&["backup", &subject.address()]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("app.db: file is not a database"), "{}", said.stderr);
}

/// Money moves between two accounts in transactions all the while: the sum must be what it always is.
#[test]
fn a_capture_beside_a_writer_is_of_one_moment() {
    let mut subject = Sqlite::new();
    subject.fill();
    let accounts = "CREATE TABLE account (id INTEGER PRIMARY KEY, cents INTEGER);
                    INSERT INTO account VALUES (1, 500000), (2, 500000);";
    subject.source().execute_batch(accounts).unwrap();
    let machine = Machine::with_repository();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let connection = subject.source();
            connection.busy_timeout(Duration::from_secs(10)).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let transfer = "BEGIN IMMEDIATE;
                     UPDATE account SET cents = cents - 7 WHERE id = 1;
                     UPDATE account SET cents = cents + 7 WHERE id = 2; COMMIT";
                connection.execute_batch(transfer).unwrap();
            }
        });
        for number in 0..3 {
            let said = machine.run(&["backup", &subject.address()]);
            assert_eq!(said.code, 0, "{}", said.stderr);
            let target = subject.path(&format!("moment-{number}.db"));
            let to = format!("sqlite:{}", target.display());
            let said = machine.run(&["restore", "latest", "--to", &to]);
            assert_eq!(said.code, 0, "{}", said.stderr);
            let sum = "SELECT sum(cents) FROM account";
            let sum: i64 = Connection::open(&target).unwrap().query_row(sum, [], |row| row.get(0)).unwrap();
            assert_eq!(sum, 1_000_000);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// The old database is whole only with its journal: both come back when the new one cannot take the place.
#[test]
fn a_replaced_database_keeps_its_owner_and_mode_and_leaves_no_old_journal() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let mut subject = Sqlite::new();
    subject.fill();
    let machine = Machine::with_repository();
    assert_eq!(machine.run(&["backup", &subject.address()]).code, 0);
    let target = subject.path("live.db");
    let writer = Connection::open(&target).unwrap();
    writer
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE old (a); INSERT INTO old VALUES (1)")
        .unwrap();
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o640)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&target, Some(12345), Some(12346)).unwrap();
    }
    let before = std::fs::metadata(&target).unwrap();
    assert!(subject.path("live.db-wal").exists());
    let to = format!("sqlite:{}", target.display());
    let said = machine.run(&["restore", "latest", "--to", &to, "--force"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let after = std::fs::metadata(&target).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino());
    assert!(!subject.path("live.db-wal").exists());
    let left = std::fs::read_dir(subject.folder.path()).unwrap().flatten();
    assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().starts_with(".lifeboat")));
}
