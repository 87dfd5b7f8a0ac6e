//! The server is gone, and with it a whole stack: from the program, the kit and the storage's credentials alone, or from
//! a replica.

use std::process::Stdio;

use crate::cli::Machine;

/// What of the machine that drills is seen where the stack is brought back.
const NOTHING: &str = "test -z \\\"$LIFEBOAT_PASSWORD$LIFEBOAT_REPOSITORY$LIFEBOAT_CONFIG$MINE\\\" && \
    test ! -e \\\"$HOME\\\" && test -s \\\"$LIFEBOAT_DRILL_PATH_DB\\\" && \
    grep -rq listen \\\"$LIFEBOAT_DRILL_PATH_FILES\\\"";

/// A stack in a repository with a replica, and a kit that names both. `more` stands in the file.
fn shop(more: &str) -> Machine {
    let mut machine = Machine::with_repository();
    let database = rusqlite::Connection::open(machine.path("app.db")).unwrap();
    database.execute_batch("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1), (2)").unwrap();
    drop(database);
    machine.file("data/a.conf", "listen 80");
    let (repository, replica) = (machine.path("repository"), machine.path("replica"));
    let (repository, replica) = (repository.to_str().unwrap(), replica.to_str().unwrap());
    let text = format!(
        "[repository.main]\nurl = {repository:?}\n[repository.box]\nurl = {replica:?}\nreplica_of = \"main\"\n\
         [job.db]\nsource = \"sqlite:{0}app.db\"\n[job.files]\nsource = \"{0}data\"\n\
         [stack.shop]\ndb = {{ rto = \"1h\", rpo = \"6h\" }}\nfiles = {{ rto = \"1h\", needs = [\"db\"] }}\n\
         app = {{ needs = [\"db\", \"files\"] }}\n\
         [drill.gone]\nstack = \"shop\"\nfrom = \"kit\"\nkit = \"{0}kit.html\"\nrto = \"30m\"\n\
         component.db.checks = [{{ sql = \"select count(*) = 2 from orders\" }}]\n\
         component.app.checks = [{{ command = \"{NOTHING}\" }}]\n\
         [drill.box]\nstack = \"shop\"\nfrom = \"replica\"\n[drill.plain]\nstack = \"shop\"\n{more}",
        machine.path("").display()
    );
    let config = machine.file("lifeboat.toml", text).display().to_string();
    for arguments in [
        &["--config", &config, "run", "db", "files"][..],
        &["-r", replica, "init", "--replica-of", repository],
        &["copy", "--to", replica],
        &["kit", "export", "kit.html", "--replica", replica],
    ] {
        let said = machine.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
    }
    machine.set("LIFEBOAT_CONFIG", &config);
    machine.set("LIFEBOAT_REPOSITORY", "");
    machine.set("MINE", "of this machine");
    std::fs::create_dir(machine.path("scratch")).unwrap();
    machine
}

const RUN: [&str; 4] = ["drill", "run", "--scratch", "scratch"];

#[test]
fn a_stack_comes_back_from_the_kit_and_nothing_else() {
    let machine = shop("");
    let files = ["--json", "e.json", "--junit", "e.xml", "--markdown", "e.md", "--html", "e.html"];
    let said = machine.run(&[&RUN[..], &["gone"], &files].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let words = "no configuration, no cache, no state, empty home";
    for expected in
        ["Began with the recovery kit of 20", words, "✓ db: sql", "✓ app: command", "→ app", "PASSED"]
    {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    let read = |name: &str| std::fs::read_to_string(machine.path(name)).unwrap();
    for page in ["e.md", "e.html"] {
        assert!(read(page).contains(words), "{page}: {}", read(page));
    }
    let record: serde_json::Value = serde_json::from_str(&read("e.json")).unwrap();
    let found = &record["evidence"];
    assert_eq!(
        (&found["start"]["from"], &found["start"]["address"], &found["stack"]["components"][0]["repository"]),
        (&"kit".into(), &found["repository"], &found["repository"]),
        "{found}"
    );
    assert_eq!(found["objectives"]["rto_seconds"], 1800.0, "{found}");
    // Signed by this machine, numbered with the others, and nothing left.
    let said = machine.run(&[&["--json"], &RUN[..], &["plain", "--from-kit", "kit.html"]].concat());
    let found = super::evidence(&said);
    assert_eq!((&found["verdict"], &found["start"]["from"]), (&"met".into(), &"kit".into()), "{found}");
    assert_eq!(std::fs::read_dir(machine.path("scratch")).unwrap().count(), 0);
    let listed = machine.run(&["drill", "list"]);
    assert!(listed.stdout.contains("gone#1") && listed.stdout.contains("plain#1"), "{}", listed.stdout);

    let said = machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &[&RUN[..], &["gone"]].concat());
    assert_eq!(said.code, 12, "{}{}", said.stdout, said.stderr);
    let said = machine.run(&[&RUN[..], &["gone", "--fault", "missing-pack"]].concat());
    assert!(said.code == 2 && said.stderr.contains("a drill of their own"), "{}", said.stderr);
}

#[test]
fn with_the_primary_gone_the_stack_comes_from_the_replica() {
    let machine = shop("");
    let said = machine.run(&[&["--json"], &RUN[..], &["box"]].concat());
    let found = super::evidence(&said);
    assert_eq!(
        (&found["start"]["from"], &found["start"]["address"]),
        (&"replica".into(), &"$T/replica".into())
    );
    std::fs::rename(machine.path("repository"), machine.path("burnt")).unwrap();
    for name in ["gone", "box"] {
        let said = machine.run(&[&["--json"], &RUN[..], &[name]].concat());
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        let found = super::evidence(&said);
        assert_eq!(
            (&found["verdict"], &found["start"]["address"]),
            (&"met".into(), &"$T/replica".into()),
            "{found}"
        );
        assert_eq!(found["stack"]["components"][0]["repository"], "$T/replica", "{found}");
        let tried = found["not_tested"].to_string();
        assert_eq!(tried.contains("$T/repository: no repository"), name == "gone", "{found}");
        assert!(said.stderr.contains("the evidence is not kept"), "{}", said.stderr);
    }
    let said = machine.run(&[&RUN[..], &["gone"]].concat());
    assert!(said.stdout.contains("Result: PASSED, not kept yet"), "{}", said.stdout);
    // Whoever looks once it is back keeps them.
    std::fs::rename(machine.path("burnt"), machine.path("repository")).unwrap();
    let said = machine.run(&["drill", "list"]);
    for kept in ["box#2", "gone#1", "gone#2"] {
        assert!(said.stdout.contains(kept), "{kept}: {}{}", said.stdout, said.stderr);
    }
}

#[test]
fn jobs_of_two_repositories_do_not_come_from_one_kit() {
    let other = "[repository.other]\nurl = \"/nowhere\"\n[defaults]\nrepository = \"main\"\n\
                 [job.far]\nsource = \"/etc/hostname\"\nrepository = \"other\"\n[stack.both]\ndb = {}\nfar = {}\n\
                 [drill.both]\nstack = \"both\"\nfrom = \"kit\"\nkit = \"kit.html\"\n";
    let machine = shop(other);
    let said = machine.run(&[&RUN[..], &["both"]].concat());
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("the stack's jobs are in main, other"), "{}", said.stderr);
}

#[test]
fn a_stack_from_the_kit_that_is_killed_leaves_nothing_running() {
    let check = "[drill.slow]\nstack = \"shop\"\nfrom = \"kit\"\nkit = \"kit.html\"\ncomponent.app.checks = [{ command = \
                 \"touch $LIFEBOAT_DRILL_PATH_FILES/../started; exec sleep 60\" }]\n";
    let machine = shop(check);
    let started = || {
        let sandboxes = std::fs::read_dir(machine.path("scratch")).unwrap().flatten();
        sandboxes.map(|entry| entry.path()).find(|path| path.join("started").exists())
    };
    for (signal, code) in [(rustix::process::Signal::INT, Some(130)), (rustix::process::Signal::KILL, None)] {
        let mut command = machine.raw(&[&RUN[..], &["slow"]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut tries = 0;
        while started().is_none() {
            assert!(child.try_wait().unwrap().is_none() && tries < 1200, "it never came to the check");
            std::thread::sleep(std::time::Duration::from_millis(50));
            tries += 1;
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), code);
        // The process that was started with nothing hears of it, and cleans up by itself.
        let mut tries = 0;
        while started().is_some() {
            assert!(tries < 1200, "{signal:?}: its sandboxes stand still: {:?}", started());
            std::thread::sleep(std::time::Duration::from_millis(50));
            tries += 1;
        }
        let said = machine.run(&["--json", "drill", "show", "slow"]);
        assert_eq!(super::evidence(&said)["verdict"], "interrupted", "{}", said.stderr);
    }
}
