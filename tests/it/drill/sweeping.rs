//! A drill that is killed leaves servers and folders behind: the next one ends and removes them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::ends;
use crate::cli::Machine;

/// Processes that work below a folder.
fn working_in(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let works = |process: &std::fs::DirEntry| {
        std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    let name = |process: std::fs::DirEntry| std::fs::read_to_string(process.path().join("comm")).ok();
    processes.filter(works).filter_map(name).collect()
}

/// Kills a drill that has come to its check, and runs another in the same scratch folder.
fn killed_and_swept(machine: &Machine, program: &str) {
    // Whoever the server runs as must be able to enter it.
    let scratch = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let folder = scratch.path().to_str().unwrap();
    let check = "touch started; exec sleep 60";
    let mut child = machine.raw(&["drill", "run", "--scratch", folder, "--check-command", check]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut tries = 0;
    while !machine.path("started").exists() {
        assert!(child.try_wait().unwrap().is_none() && tries < 1200, "it never came to the check");
        std::thread::sleep(Duration::from_millis(50));
        tries += 1;
    }
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::KILL).unwrap();
    child.wait().unwrap();
    let left = working_in(scratch.path());
    assert!(left.iter().any(|name| name.contains(program)), "{left:?}");

    let told = ["removed what an earlier drill left behind", "Result: PASSED"];
    ends(machine, &["--scratch", folder], 0, &told);
    assert_eq!(working_in(scratch.path()), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_postgres_server_of_a_killed_drill_is_swept() {
    let machine = Machine::with_repository();
    let source = crate::services::postgres::Postgres::start(15, "");
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql("shop", "CREATE TABLE t AS SELECT 1 AS a");
    assert_eq!(machine.run(&["backup", &source.address("shop")]).code, 0);
    killed_and_swept(&machine, "postgres");
}

#[test]
fn a_redis_server_of_a_killed_drill_is_swept() {
    let machine = Machine::with_repository();
    let source = crate::services::redis::start(&[]);
    source.ask(&["SET", "a", "b"]);
    assert_eq!(machine.run(&["backup", &source.address()]).code, 0);
    killed_and_swept(&machine, "redis-server");
}
