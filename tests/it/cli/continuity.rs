//! Nothing disappears silently: a run that lacks what the run before had fails until that is accepted.

use super::Machine;

#[test]
fn a_folder_that_is_suddenly_empty_gives_no_snapshot_until_it_is_accepted() {
    let machine = Machine::with_repository();
    machine.file("data/a", "one");
    machine.file("more/b", "two");
    let backup = ["backup", "--job", "it's", "data", "more"];
    assert_eq!(machine.run(&backup).code, 0);

    // As when a disk is not mounted.
    std::fs::remove_file(machine.path("data/a")).unwrap();
    let said = machine.run(&backup);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("$T/data is empty; last time it held 2 entries, 3 B"), "{}", said.stderr);
    assert!(said.stderr.contains("lifeboat job accept 'it'\\''s' --reason"), "{}", said.stderr);
    assert_eq!(machine.run(&["--json", "snapshots"]).json().as_array().unwrap().len(), 1);

    // A trial changes nothing.
    let said = machine.run(&["backup", "--dry-run", "--job", "it's", "data", "more"]);
    assert_eq!(said.code, 0, "{}", said.stderr);

    let said = machine.run(&["job", "accept", "its", "--reason", "moved"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("there are it's"), "{}", said.stderr);
    let said = machine.run(&["job", "accept", "it's", "--reason", "moved"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = machine.run(&backup);
    assert_eq!(said.code, 0, "{}", said.stderr);

    // Used up: what goes next fails again, what stays empty does not.
    assert_eq!(machine.run(&backup).code, 0);
    let said = machine.run(&["backup", "--job", "it's", "data"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("$T/more was there last time and is gone"), "{}", said.stderr);
}

#[test]
fn a_stream_far_smaller_than_usual_is_warned_of_and_lets_nothing_go() {
    let machine = Machine::with_repository();
    let dump = |megabytes: usize| {
        let size = (megabytes << 20).to_string();
        let backup =
            ["backup", "--stdin-filename", "d.sql", "--command", "--", "head", "-c", &size, "/dev/urandom"];
        machine.run(&backup)
    };
    for _ in 0..3 {
        assert_eq!(dump(3).stderr, "");
    }
    let said = dump(1);
    assert_eq!(said.code, 0);
    assert!(said.stderr.contains("is under half of what this job usually gives (3"), "{}", said.stderr);
    let said = machine.run(&["--json", "forget", "--keep-last", "1", "--dry-run", "--force"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // The small one as the last, and the newest that is as usual.
    let plan = said.json();
    assert_eq!(plan["plan"]["groups"][0]["keep"].as_array().map(Vec::len), Some(2), "{plan}");
}
