//! Whose snapshots are rehearsed when several machines have a job of one name: this machine's, or the one that was
//! chosen; another's never pass for them.

use crate::cli::{Machine, Said};

/// Jobs `etc` and `srv` of two machines, and a stack of both. `more` stands in the file.
fn two(component: &str, more: &str) -> Machine {
    let mut machine = Machine::with_repository();
    let folder = machine.path("");
    let text = format!(
        "[repository.main]\nurl = \"{0}repository\"\n[job.etc]\nsource = \"{0}etc\"\n[job.srv]\nsource = \"{0}srv\"\n\
         [stack.all]\netc = {{ rto = \"1h\"{component} }}\nsrv = {{ needs = [\"etc\"] }}\n{more}",
        folder.display()
    );
    let config = machine.file("lifeboat.toml", text).display().to_string();
    machine.set("LIFEBOAT_CONFIG", &config);
    machine.set("LIFEBOAT_REPOSITORY", "");
    for host in ["web1", "web2"] {
        machine.file("etc/name", host);
        machine.file("srv/name", host);
        let said = on(&machine, host, &["run", "--all"]);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    }
    machine
}

fn on(machine: &Machine, host: &str, arguments: &[&str]) -> Said {
    machine.run_with(&[("LIFEBOAT_MACHINE", host)], arguments)
}

/// Runs a drill there, which ends with `code`; whose data it restored, or what it said.
fn drill(machine: &Machine, host: &str, arguments: &[&str], code: i32) -> String {
    let said = on(machine, host, &[&["--json", "drill", "run"], arguments].concat());
    assert_eq!(said.code, code, "{arguments:?}: {}{}", said.stdout, said.stderr);
    if said.stdout.is_empty() {
        return said.stderr;
    }
    let found = super::evidence(&said);
    match found["stack"]["components"].as_array() {
        None => found["snapshot"]["host"].as_str().unwrap_or_default().to_owned(),
        Some(rows) => {
            let host = |row: &serde_json::Value| row["snapshot"]["host"].as_str().unwrap_or("-").to_owned();
            rows.iter().map(host).collect::<Vec<_>>().join(" ")
        }
    }
}

#[test]
fn a_drill_restores_this_machines_snapshots_or_those_of_the_one_that_was_chosen() {
    let of_web1 =
        "[drill.one]\nrestore = \"etc@latest\"\nmachine = \"web1\"\n[drill.any]\nrestore = \"etc@latest\"\n";
    let machine = two("", of_web1);
    // Its own, though the other's is newer.
    assert_eq!(drill(&machine, "web1", &["any"], 0), "web1");
    let told = drill(&machine, "ops", &["any"], 2);
    for expected in ["several machines: web1, web2", "--host NAME", "machine = ", "of a drill"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert_eq!(drill(&machine, "ops", &["any", "--host", "web2"], 0), "web2");
    assert_eq!(drill(&machine, "ops", &["one"], 0), "web1");
    assert_eq!(drill(&machine, "web2", &["one"], 0), "web1", "the file chose");
    assert_eq!(drill(&machine, "ops", &["one", "--host", "web2"], 0), "web2", "the flag goes first");
    assert_eq!(drill(&machine, "ops", &["--snapshot", "etc@latest", "--host", "web1"], 0), "web1");
    let told = drill(&machine, "ops", &["any", "--host", "web3"], 2);
    assert!(told.contains("etc@latest --host web3"), "{told}");
    // A fault, and a process that begins with nothing, take the same one.
    assert_eq!(drill(&machine, "ops", &["any", "--host", "web1", "--fault", "no-local-state"], 0), "web1");
}

#[test]
fn a_stack_is_that_of_one_machine_unless_a_component_says_otherwise() {
    let drills = "[drill.any]\nstack = \"all\"\n[drill.one]\nstack = \"all\"\nmachine = \"web2\"\n";
    let machine = two("", drills);
    assert_eq!(drill(&machine, "web1", &["any"], 0), "web1 web1");
    let told = drill(&machine, "ops", &["any"], 2);
    for expected in
        ["component etc: ", "several machines: web1, web2", "--host NAME", "of a stack's component"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let list = on(&machine, "ops", &["--json", "drill", "list"]).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "what was refused is no run: {list}");
    assert_eq!(drill(&machine, "ops", &["any", "--host", "web1"], 0), "web1 web1");
    assert_eq!(drill(&machine, "ops", &["one"], 0), "web2 web2");
    // One that has none there is not filled up with another's.
    let told = drill(&machine, "ops", &["any", "--host", "web3"], 1);
    assert_eq!(told, "- -");
    let said = on(&machine, "ops", &["drill", "show", "any"]);
    assert!(said.stdout.contains("no snapshot of machine web3; there are of web1, web2"), "{}", said.stdout);

    let machine = two(", machine = \"web1\"", drills);
    assert_eq!(drill(&machine, "web2", &["any"], 0), "web1 web2");
    assert_eq!(drill(&machine, "ops", &["one"], 0), "web1 web2");
    assert_eq!(drill(&machine, "ops", &["one", "--host", "web2"], 0), "web2 web2");
    let said = machine.run(&["drill", "run", "one", "--snapshot", "etc@latest"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
}

#[test]
fn a_stack_is_restored_of_the_machine_that_was_chosen() {
    let machine = two(", machine = \"web1\"", "");
    let restore = |host: &str, more: &[&str]| {
        let _ = std::fs::remove_dir_all(machine.path("back"));
        on(&machine, host, &[&["restore", "--stack", "all", "--to-dir", "back"], more].concat())
    };
    let back = |part: &str| {
        let root = machine.path("back").join(part).join(machine.path("").strip_prefix("/").unwrap());
        std::fs::read_to_string(root.join(part).join("name")).unwrap()
    };
    let said = restore("web2", &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!((back("etc"), back("srv")), ("web1".into(), "web2".into()));
    let said = restore("ops", &[]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("srv") && said.stderr.contains("--host NAME"), "{}", said.stderr);
    let said = restore("ops", &["--host", "web2"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!((back("etc"), back("srv")), ("web2".into(), "web2".into()));
}
