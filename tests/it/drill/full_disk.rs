//! Nothing can be written any more: where drills are written down, where a runbook's steps are, where evidence is kept.
//! Each is said together with what the drill found, and none of them makes a drill absent or a failed one a success.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ends;
use crate::cli::Machine;
use crate::services::postgres::Postgres;

/// A small disk of its own, unmounted when dropped. Needs root, as some of the servers do.
struct Small(PathBuf);

impl Small {
    fn at(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&path);
        assert!(mount.status().unwrap().success(), "mounting a small tmpfs needs root");
        Self(path)
    }
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let _ = std::fs::write(&path, vec![1; 1 << 20]);
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A shell line that fills a folder's disk.
fn filling(folder: &Path) -> String {
    format!("head -c 1000000 /dev/zero > {}/filler; true", folder.display())
}

#[test]
fn a_drill_that_cannot_be_written_down_is_not_begun() {
    let machine = super::with_files();
    let state = Small::at(machine.path("state"));
    // The key is made first; it fits.
    ends(&machine, &["weekly"], 0, &["weekly #1"]);
    let filler = state.fill();
    let ran = format!("touch {}", machine.path("ran").display());
    let told = ["cannot write down that a drill begins", "No space left on device"];
    let said = ends(&machine, &["weekly", "--check-command", &ran], 1, &told);
    assert!(said.stdout.is_empty() && !machine.path("ran").exists(), "{}", said.stdout);
    std::fs::remove_file(filler).unwrap();
    ends(&machine, &["weekly"], 0, &["weekly #2"]);
}

#[test]
fn a_disk_that_fills_up_under_a_drill_costs_no_evidence() {
    let machine = super::with_files();
    let state = Small::at(machine.path("state"));
    ends(&machine, &["weekly"], 0, &["weekly #1"]);
    // It was written down before; its end needs no room.
    ends(&machine, &["weekly", "--check-command", &filling(&state.0)], 0, &["weekly #2", "Result: PASSED"]);
    std::fs::remove_file(state.0.join("filler")).unwrap();
    // Nor can it be kept: then what was written down at first is what is told of it, which is the worse.
    let snapshots = machine.path("repository/snapshots").display().to_string();
    let away = format!("mv {snapshots} {snapshots}.away; touch {snapshots}; {}", filling(&state.0));
    // More than what is left of the record's last page.
    let long = ["--check-command", "printf '%0190d' 0"].repeat(20);
    let arguments = [&["weekly"][..], &long, &["--check-command", &away]].concat();
    let said = ends(&machine, &arguments, 1, &["NOT KEPT"]);
    assert!(said.stderr.contains("cannot write down how a drill ended"), "{}", said.stderr);
    std::fs::remove_file(&snapshots).unwrap();
    std::fs::rename(format!("{snapshots}.away"), &snapshots).unwrap();
    std::fs::remove_file(state.0.join("filler")).unwrap();
    let said = machine.run(&["--json", "drill", "show", "weekly"]);
    let found = super::evidence(&said);
    assert_eq!((&found["number"], &found["verdict"]), (&3.into(), &"interrupted".into()), "{found}");
}

#[test]
fn evidence_that_storage_does_not_take_is_told_with_the_verdict() {
    let machine = super::with_files();
    let repository = machine.path("repository").display().to_string();
    let mount = |arguments: &[&str]| {
        assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mounting needs root");
    };
    mount(&["--bind", &repository, &repository]);
    let _back = Small(machine.path("repository"));
    mount(&["-o", "remount,ro,bind", &repository]);
    let said = ends(&machine, &["weekly"], 1, &["Result: PASSED, NOT KEPT", "could not be kept · exit 1"]);
    assert!(
        said.stderr.contains("error: drill weekly: ") && said.stderr.contains("hint: "),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("Read-only file system"), "{}", said.stderr);
    // What the drill found is the worse, and is what it ends with.
    ends(
        &machine,
        &["weekly", "--check-command", "false"],
        21,
        &["Result: CHECK FAILED, NOT KEPT", "· exit 21"],
    );
    ends(&machine, &["weekly", "--rto", "1ms"], 1, &["Result: OBJECTIVE MISSED, NOT KEPT", "· exit 1"]);
    let said = machine.run(&["--json", "drill", "run", "weekly"]);
    assert_eq!((said.code, &super::evidence(&said)["verdict"]), (1, &"met".into()), "{}", said.stderr);
    // Who knows that says so.
    ends(&machine, &["weekly", "--no-keep"], 0, &["Result: PASSED\n"]);
}

#[test]
fn a_runbook_whose_record_breaks_off_is_no_success() {
    let machine = super::with_files();
    let state = Small::at(machine.path("state"));
    let page = "---\nname: full\ncomponents: files\nrto: 1h\n---\n# full\n\n\
                ```sh {step=wait phase=restore timeout=1m}\n\
                touch \"$HOME/waits\"; until [ -e \"$HOME/go\" ]; do sleep 0.05; done; seq 1 2000\n```\n\n\
                ```sh {step=look phase=verify timeout=1m}\necho looked\n```\n";
    machine.file("full.md", page);
    std::fs::create_dir(machine.path("scratch")).unwrap();
    let mut command = machine.raw(&["runbook", "run", "--drill", "--scratch", "scratch", "full.md"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let home = || {
        let sandboxes = std::fs::read_dir(machine.path("scratch")).unwrap().flatten();
        let homes = sandboxes.map(|entry| entry.path().join("restored/home"));
        homes.into_iter().find(|home| home.join("waits").exists())
    };
    let mut tries = 0;
    while home().is_none() {
        assert!(child.try_wait().unwrap().is_none() && tries < 600, "it never came to its step");
        std::thread::sleep(std::time::Duration::from_millis(50));
        tries += 1;
    }
    state.fill();
    std::fs::write(home().unwrap().join("go"), "").unwrap();
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(!said.stdout.contains("looked"), "what cannot be written down is not done: {}", said.stdout);
    assert!(said.stdout.contains("Result: COULD NOT RUN"), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("No space left on device"), "{}", said.stderr);
    std::fs::remove_file(state.0.join("filler")).unwrap();
    let said = machine.run(&["drill", "list"]);
    assert!(said.stdout.contains("full#1") && said.stdout.contains("could not run"), "{}", said.stdout);
}

#[test]
fn a_role_on_a_lent_server_that_cannot_be_dropped_is_told() {
    let machine = Machine::with_repository();
    let (source, lent) = (Postgres::start(15, ""), Postgres::start(15, ""));
    source.sql("postgres", "CREATE DATABASE shop; ");
    source.sql("shop", "CREATE ROLE clerk; CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO clerk");
    assert_eq!(machine.run(&["backup", "--job", "db", &source.address("shop")]).code, 0);
    let place = lent.address("lifeboat_drill_shop");
    // Somebody gives the role something in another database of the server meanwhile.
    let keep = format!(
        "psql -X -h 127.0.0.1 -p {} -U postgres -c 'create schema theirs authorization clerk' postgres",
        lent.server.port
    );
    let arguments = ["--snapshot", "db@latest", "--sandbox", &place, "--check-command", &keep];
    let said = ends(&machine, &arguments, 0, &["not tested: the sandbox was not removed whole: ", "clerk"]);
    assert!(
        said.stdout.contains("some objects depend on it") || said.stdout.contains("depend"),
        "{}",
        said.stdout
    );
    let left = lent.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'clerk'");
    assert_eq!(left.trim(), "1");
    // The database itself is gone.
    let left = lent.sql("postgres", "SELECT count(*) FROM pg_class WHERE relname = 't'");
    assert_eq!(left.trim(), "0");
}
