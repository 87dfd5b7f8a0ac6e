//! The server is gone: what is left is the program, the recovery kit, the password and the storage's credentials.

use std::process::Stdio;

use super::{evidence, with_files};
use crate::cli::Machine;

fn with_kit() -> Machine {
    let machine = with_files();
    let (repository, replica) = (machine.path("repository"), machine.path("replica"));
    let (repository, replica) = (repository.to_str().unwrap(), replica.to_str().unwrap());
    for arguments in [
        &["-r", replica, "init", "--replica-of", repository][..],
        &["copy", "--to", replica],
        &["kit", "export", "kit.html", "--replica", replica],
    ] {
        let said = machine.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
    }
    std::fs::create_dir(machine.path("scratch")).unwrap();
    machine
}

/// What of the machine that drills is seen where the recovery runs.
const NOTHING: &str = "test -z \"$LIFEBOAT_PASSWORD$LIFEBOAT_REPOSITORY$LIFEBOAT_CACHE_DIR$MINE\" && \
    test ! -e \"$HOME\" && test ! -e \"$LIFEBOAT_STATE_DIR/drill.key\" && test \"$AWS_ACCESS_KEY_ID\" = key1";

#[test]
fn a_recovery_from_the_kit_begins_with_nothing_else() {
    let mut machine = with_kit();
    machine.set("MINE", "of this machine");
    machine.set("AWS_ACCESS_KEY_ID", "key1");
    let run =
        ["drill", "run", "server-gone", "--from-kit", "kit.html", "--scratch", "scratch", "--rto", "1h"];
    let said = machine.run(&[&run[..], &["--check-command", NOTHING]].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    for expected in [
        "Drill server-gone #1",
        "Began with the recovery kit of 20",
        "storage credentials (AWS_ACCESS_KEY_ID) only; no configuration, no cache, no state, empty home",
        "2 files read back",
        "Result: PASSED",
    ] {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    assert_eq!(std::fs::read_dir(machine.path("scratch")).unwrap().count(), 0);
    // Signed by this machine, kept and numbered with the others.
    let said = machine.run(&[&["--json"][..], &run[..]].concat());
    let second = evidence(&said);
    assert_eq!((&second["number"], &second["start"]["from"]), (&2.into(), &"kit".into()), "{second}");
    assert!(second["previous"].is_string() && !said.stdout.contains("key1"), "{second}");

    let said = machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &run);
    assert_eq!(said.code, 12, "{}{}", said.stdout, said.stderr);
    let page = std::fs::read_to_string(machine.path("kit.html")).unwrap();
    machine.file("cut.html", &page[..page.len() / 2]);
    let said = machine.run(&["drill", "run", "--from-kit", "cut.html"]);
    assert!(said.code == 2 && said.stderr.contains("cut.html"), "{}", said.stderr);
    let said = machine.run(&["drill", "run", "--from-kit", "kit.html", "--fault", "wrong-key"]);
    assert!(said.code == 2 && said.stderr.contains("of their own"), "{}", said.stderr);
}

#[test]
fn with_the_primary_gone_too_the_kit_leads_to_the_replica_and_without_one_nowhere() {
    let machine = with_kit();
    std::fs::rename(machine.path("repository"), machine.path("burnt")).unwrap();
    let run = ["--json", "drill", "run", "server-gone", "--from-kit", "kit.html"];
    let said = machine.run(&run);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let found = evidence(&said);
    assert_eq!((&found["verdict"], &found["start"]["address"]), (&"met".into(), &"$T/replica".into()));
    assert!(found["not_tested"].to_string().contains("$T/repository: no repository"), "{found}");
    assert!(said.stderr.contains("the evidence is not kept"), "{}", said.stderr);
    std::fs::rename(machine.path("replica"), machine.path("burnt too")).unwrap();
    let said = machine.run(&run);
    assert_eq!(said.code, 10, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("no repository at $T/repository"), "{}", said.stderr);
}

#[test]
fn a_drill_of_the_configuration_file_may_begin_with_a_replica_or_the_kit() {
    let mut machine = with_kit();
    let text = format!(
        "[repository.main]\nurl = {:?}\n[repository.box]\nurl = {:?}\nreplica_of = \"main\"\n\
         [drill.elsewhere]\nrestore = \"latest\"\nfrom = \"replica\"\n\
         [drill.server-gone]\nrestore = \"latest\"\nfrom = \"kit\"\nkit = {:?}\n",
        machine.path("repository"),
        machine.path("replica"),
        machine.path("kit.html")
    );
    let config = machine.file("lifeboat.toml", text).display().to_string();
    machine.set("LIFEBOAT_CONFIG", &config);
    machine.set("LIFEBOAT_REPOSITORY", "");
    for (name, from, address) in
        [("elsewhere", "replica", "$T/replica"), ("server-gone", "kit", "$T/repository")]
    {
        let said = machine.run(&["--json", "drill", "run", name]);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        let found = evidence(&said);
        assert_eq!((&found["start"]["from"], &found["start"]["address"]), (&from.into(), &address.into()));
    }
    // Evidence of the replica's drill is kept in the repository, not in the replica.
    let said = machine.run(&["drill", "list"]);
    assert!(said.stdout.contains("elsewhere#1") && said.stdout.contains("server-gone#1"), "{}", said.stdout);
}

#[test]
fn a_recovery_from_the_kit_that_is_interrupted_is_a_failed_one_and_leaves_nothing() {
    let machine = with_kit();
    let check = format!("touch {}; sleep 60", machine.path("started").display());
    let run =
        ["drill", "run", "gone", "--from-kit", "kit.html", "--scratch", "scratch", "--check-command", &check];
    let mut child = machine.raw(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut tries = 0;
    while !machine.path("started").exists() {
        assert!(child.try_wait().unwrap().is_none() && tries < 600, "it never came to the check");
        std::thread::sleep(std::time::Duration::from_millis(50));
        tries += 1;
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(machine.path("scratch")).unwrap().count(), 0);
    let said = machine.run(&["--json", "drill", "show", "gone"]);
    assert_eq!(evidence(&said)["verdict"], "interrupted", "{}", said.stderr);
}
