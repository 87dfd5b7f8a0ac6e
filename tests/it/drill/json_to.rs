//! `--json` of the verbs that write evidence: a switch, or a file that is told by its dot or slash.

use crate::cli::Said;

#[test]
fn json_is_a_switch_and_with_a_file_behind_it_writes_that() {
    let machine = super::with_files();
    let run = |arguments: &[&str]| machine.run(&[&["drill", "run"], arguments].concat());
    let is_json = |said: &Said| {
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        let found: Option<serde_json::Value> = serde_json::from_str(&said.stdout).ok();
        found.map(|found| found["evidence"]["name"].as_str().unwrap().to_owned())
    };
    let written = |file: &str| {
        let text = std::fs::read_to_string(machine.path(file)).unwrap();
        std::fs::remove_file(machine.path(file)).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["evidence"]["name"].as_str().unwrap().to_owned()
    };
    for (arguments, name) in [
        (&["weekly", "--json"][..], "weekly"),
        (&["--json", "weekly"], "weekly"),
        (&["--json=-", "weekly"], "weekly"),
        (&["weekly", "--json", "-"], "weekly"),
        (&["--json"], "drill"),
        (&["--json", "--snapshot", "latest"], "drill"),
    ] {
        assert_eq!(is_json(&run(arguments)).as_deref(), Some(name), "{arguments:?}");
    }
    let said = machine.run(&["drill", "--json", "run", "weekly"]);
    assert_eq!(is_json(&said).as_deref(), Some("weekly"));
    for (arguments, file, name) in [
        (&["weekly", "--json", "out.json"][..], "out.json", "weekly"),
        (&["--json", "./out", "weekly"], "out", "weekly"),
        (&["--json=e.json"], "e.json", "drill"),
    ] {
        let said = run(arguments);
        assert_eq!(is_json(&said), None, "{arguments:?}");
        assert!(said.stdout.contains("Result: PASSED"), "{}", said.stdout);
        assert_eq!(written(file), name, "{arguments:?}");
    }
    // What is neither is not guessed.
    let said = run(&["weekly", "--json", "out"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("--json ./out writes it"), "{}", said.stderr);
    let show = |arguments: &[&str]| machine.run(&[&["drill", "show"], arguments].concat());
    assert_eq!(is_json(&show(&["--json", "weekly#1"])).as_deref(), Some("weekly"));
    assert_eq!(is_json(&show(&["weekly", "--json", "out.json"])), None);
    assert_eq!(written("out.json"), "weekly");
    let said = show(&["--json"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("which run?"), "{}", said.stderr);
    // Other verbs take no file.
    assert_eq!(machine.run(&["snapshots", "--json=x.json"]).code, 2);
    assert_eq!(machine.run(&["snapshots", "--json"]).code, 0);
    // A drill of the file that is named like a file could not be told from one.
    let text = format!(
        "[repository.main]\nurl = {:?}\n[drill.\"a.b\"]\nrestore = \"latest\"\n",
        machine.path("repository")
    );
    machine.file("lifeboat.toml", text);
    let said = machine.run(&["--config", "lifeboat.toml", "config", "check"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(said.stderr.contains("a drill's name has no . and no /"), "{}", said.stderr);
}
