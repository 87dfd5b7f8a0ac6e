//! What the commands of a drill find in their environment, and what is told of those that fail or outlive it.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::ends;
use crate::cli::Machine;
use crate::services::postgres::Postgres;

#[test]
fn psql_takes_the_address_of_the_sandbox_and_finds_it_by_itself() {
    let machine = Machine::with_repository();
    let source = Postgres::start(15, "");
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql("shop", "CREATE TABLE t AS SELECT 7 AS a");
    let address = source.address("shop");
    let text = format!(
        "[repository.main]\nurl = \"{0}repository\"\n[job.db]\nsource = \"{address}\"\n[job.files]\nsource = \"{0}data\"\n\
         [stack.shop]\ndb = {{}}\nfiles = {{}}\napp = {{ needs = [\"db\"] }}\nother = {{ needs = [\"files\"] }}\n\
         [drill.alone]\nrestore = \"db@latest\"\nchecks = [{{ command = {ASK:?} }}]\n\
         [drill.whole]\nstack = \"shop\"\ncomponent.db.checks = [{{ command = {ASK:?} }}]\n\
         component.app.checks = [{{ command = \"psql -XAtc 'select a from t' \\\"$LIFEBOAT_DRILL_ADDRESS_DB\\\" && \
         test $(psql -XAtc 'select a from t') = 7\" }}]\n\
         component.other.checks = [{{ command = \"test -z \\\"$PGHOST\\\" && test -d $LIFEBOAT_DRILL_PATH_FILES\" }}]\n",
        machine.path("").display()
    );
    machine.file("data/a", "a");
    machine.file("lifeboat.toml", text);
    let run = |arguments: &[&str]| {
        let file = [("LIFEBOAT_CONFIG", "lifeboat.toml"), ("LIFEBOAT_REPOSITORY", "")];
        let said = machine.run_with(&file, arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.stdout, said.stderr);
        said.stdout
    };
    run(&["run", "--all"]);
    run(&["drill", "run", "alone"]);
    let said = run(&["drill", "run", "whole"]);
    assert!(said.contains("✓ app: command: psql") && said.contains("✓ other: command"), "{said}");
}

const ASK: &str =
    "psql -XAtc 'select a from t' \"$LIFEBOAT_DRILL_ADDRESS\" && test $(psql -XAtc 'select a from t') = 7";

#[test]
fn of_a_command_that_fails_the_end_of_both_its_outputs_is_told() {
    let machine = super::with_files();
    let check = "seq 1 9; echo no such order >&2; echo nor customer >&2; exit 3";
    let told = ["ended with exit status 3; stderr: no such order | nor customer; stdout: 5 | 6 | 7 | 8 | 9"];
    ends(&machine, &["--check-command", check], 21, &told);
    let said =
        ends(&machine, &["--check-command", "echo only here; false"], 21, &["status 1; stdout: only here"]);
    assert!(!said.stdout.contains("stderr"), "{}", said.stdout);
    // However much it writes.
    ends(
        &machine,
        &["--check-command", "head -c 300000000 /dev/zero; echo; echo end; exit 4"],
        21,
        &["| end"],
    );
}

#[test]
fn a_command_that_outlives_a_killed_drill_is_ended_by_the_next() {
    let machine = super::with_files();
    std::fs::create_dir(machine.path("scratch")).unwrap();
    let check = "(setsid sleep 600 & echo $! > beside); echo $$ > pid; touch started; sleep 600; true";
    let run = ["drill", "run", "weekly", "--scratch", "scratch", "--check-command", check];
    let mut child = machine.raw(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut tries = 0;
    while !machine.path("started").exists() {
        assert!(child.try_wait().unwrap().is_none() && tries < 600, "it never came to the check");
        std::thread::sleep(Duration::from_millis(50));
        tries += 1;
    }
    let number = |name: &str| std::fs::read_to_string(machine.path(name)).unwrap().trim().to_owned();
    let runs = |pid: &str| {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    };
    // While it is under way, another drill leaves it alone.
    ends(&machine, &["other", "--scratch", "scratch"], 0, &["Result: PASSED"]);
    let commands = [number("pid"), number("beside")];
    assert!(commands.iter().all(|pid| runs(pid)));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    // Killed, it cannot end them; whichever drill comes first on this machine does.
    ends(&machine, &["other", "--scratch", "scratch"], 0, &["Result: PASSED"]);
    assert!(!commands.iter().any(|pid| runs(pid)));
}
