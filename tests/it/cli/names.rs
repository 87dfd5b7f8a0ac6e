//! What jobs and machines may be called, and that what a repository holds steers no terminal.

use std::os::unix::ffi::OsStrExt as _;

use super::Machine;

#[test]
fn what_a_repository_holds_steers_no_terminal() {
    let machine = Machine::with_repository();
    // A job is named by its paths if nobody names it.
    let folder = "da\x1b[2Jt\u{202e}a";
    machine.file(&format!("{folder}/f\x1b[1m"), "a");
    let target = "back\x1b[3m".to_owned();
    for arguments in [
        &["backup", folder][..],
        &["snapshots"],
        &["ls", "latest"],
        &["find", "f*"],
        &["stats"],
        &["diff", "latest", "latest"],
        &["verify"],
        &["restore", "latest", "--target", &target],
        &["restore", "nothing\x1b[2J@latest", "--target", "x"],
        &["drill", "run", "d", "--snapshot", "latest"],
        &["drill", "list"],
        &["drill", "report", "d"],
        &["forget", "--keep-last", "1", "--dry-run"],
        &["job", "accept", "nothing\x1b[2J", "--reason", "r"],
        &["-r", "no\x1bwhere", "snapshots"],
    ] {
        let said = machine.run(arguments);
        for text in [&said.stdout, &said.stderr] {
            assert!(!text.contains(['\x1b', '\u{202e}']), "{arguments:?}: {text:?}");
        }
    }
}

#[test]
fn names_that_would_steer_a_terminal_or_hide_evidence_are_refused() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    for (arguments, why) in [
        (&["--job", "drill:weekly"][..], "hold the evidence of drills"),
        (&["--job", "a\nb"], "control character"),
        (&["--job", "a\x1b[31mb"], "control character"),
        (&["--job", "a\u{202e}b"], "control character"),
        (&["--host", "h\r"], "control character"),
        (&["--tag", "\u{7}"], "control character"),
        (&["--job", ""], "cannot be empty"),
    ] {
        let said = machine.run(&[&["backup", "data"], arguments].concat());
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(why), "{arguments:?}: {}", said.stderr);
        assert!(
            !said.stderr.contains(['\x1b', '\u{202e}', '\r', '\u{7}']),
            "{arguments:?}: {:?}",
            said.stderr
        );
    }
    let mut command = machine.raw(&["backup", "data", "--job"]);
    let said = machine.said(command.arg(std::ffi::OsStr::from_bytes(b"a\xff")).output().unwrap());
    assert!(said.code == 2 && said.stderr.contains("UTF-8"), "{}", said.stderr);
    for name in ["two\nlines", "esc\x1b[2J"] {
        let said = machine.run_with(&[("LIFEBOAT_MACHINE", name)], &["backup", "data"]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(
            said.stderr.contains("LIFEBOAT_MACHINE") && said.stderr.contains("control character"),
            "{}",
            said.stderr
        );
        let text = format!("[repository.r]\nurl = \"/r\"\n[job.{name:?}]\nsource = \"/a\"\n")
            .replace("\\u{1b}", "\\u001b");
        let file = machine.file("lifeboat.toml", text);
        let said = machine.run(&["--config", file.to_str().unwrap(), "config", "check"]);
        assert!(said.code == 2 && said.stderr.contains("control character"), "{}", said.stderr);
    }
    let file =
        machine.file("lifeboat.toml", "[repository.r]\nurl = \"/r\"\n[job.\"drill:d\"]\nsource = \"/a\"\n");
    let said = machine.run(&["--config", file.to_str().unwrap(), "config", "check"]);
    assert!(said.code == 2 && said.stderr.contains("lifeboat.toml:3: job drill:d"), "{}", said.stderr);
}
