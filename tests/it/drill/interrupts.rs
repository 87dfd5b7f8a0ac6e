//! Ctrl-C in any phase and any sandbox: the drill is an interrupted one, not one that could not run, and nothing of it
//! stays.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Machine;

/// The sandbox that stands in a scratch folder.
fn sandbox(scratch: &Path) -> Option<PathBuf> {
    std::fs::read_dir(scratch).ok()?.flatten().map(|entry| entry.path()).next()
}

/// Runs a drill, interrupts it once `is_time` says so of its sandbox, and looks at what is left.
fn interrupted(machine: &Machine, what: &str, arguments: &[&str], is_time: impl Fn(&Path) -> bool) {
    let scratch = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let folder = scratch.path().to_str().unwrap();
    let run = [&["drill", "run", "weekly", "--scratch", folder, "--rto", "1h"], arguments].concat();
    let mut child = machine.raw(&run).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut tries = 0;
    while !sandbox(scratch.path()).is_some_and(|sandbox| is_time(&sandbox)) {
        assert!(child.try_wait().unwrap().is_none() && tries < 30_000, "{what}: it never came to that");
        std::thread::sleep(Duration::from_millis(2));
        tries += 1;
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 130, "{what}: {}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("Result: INTERRUPTED"), "{what}: {}{}", said.stdout, said.stderr);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "{what}");
    let working = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(scratch.path()))
    });
    assert_eq!(working.count(), 0, "{what}");
    let shown = machine.run(&["--json", "drill", "show", "weekly"]);
    let found = super::evidence(&shown);
    assert_eq!(found["verdict"], "interrupted", "{what}: {found}");
    // What it was to keep is told, and that it was not kept.
    assert_eq!(found["objectives"]["rto_seconds"], 3600.0, "{what}: {found}");
}

fn in_check(machine: &Machine) {
    let check = format!("touch {}; sleep 60", machine.path("started").display());
    let _ = std::fs::remove_file(machine.path("started"));
    interrupted(machine, "check", &["--check-command", &check], |_| machine.path("started").exists());
}

#[test]
fn a_postgres_drill_is_interrupted_while_its_server_is_made_started_filled_and_asked() {
    let machine = Machine::with_repository();
    let source = crate::services::postgres::Postgres::start(15, "");
    source.sql("postgres", "CREATE DATABASE shop");
    source
        .sql("shop", "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 60000) n");
    assert_eq!(machine.run(&["backup", &source.address("shop")]).code, 0);
    drop(source);
    interrupted(&machine, "initdb", &[], |sandbox| sandbox.join("data/base").exists());
    interrupted(&machine, "start", &[], |sandbox| sandbox.join("data/postmaster.pid").exists());
    interrupted(&machine, "restore", &[], |sandbox| {
        // Its own databases have these numbers; the restored one a later.
        let databases = std::fs::read_dir(sandbox.join("data/base")).into_iter().flatten().flatten();
        let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
        sandbox.join(".s.PGSQL.5432").exists() && databases.filter_map(number).any(|number| number >= 16384)
    });
    in_check(&machine);
}

#[test]
fn a_redis_drill_is_interrupted_while_its_server_starts_and_is_asked() {
    let machine = Machine::with_repository();
    let source = crate::services::redis::start(&[]);
    source.ask(&["SET", "a", "b"]);
    assert_eq!(machine.run(&["backup", &source.address()]).code, 0);
    interrupted(&machine, "start", &[], |_| true);
    in_check(&machine);
}

#[test]
fn a_mariadb_drill_is_interrupted_while_its_server_is_made() {
    let machine = Machine::with_repository();
    let source = crate::services::mariadb::shared();
    let name = source.database();
    source.sql(&name, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1)");
    assert_eq!(machine.run(&["backup", &source.address(&name)]).code, 0);
    interrupted(&machine, "install", &[], |sandbox| sandbox.join("data").exists());
}
