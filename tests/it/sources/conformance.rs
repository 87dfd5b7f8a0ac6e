//! What every engine that captures a service and gives it back must do, told once.

use crate::cli::Machine;

/// A service of one kind, under the test's control.
pub trait Subject {
    /// Where the backups are made: one that reaches the service.
    fn machine(&self) -> Machine {
        Machine::with_repository()
    }
    /// Where to capture from.
    fn address(&self) -> String;
    /// A place that is empty and takes a restore.
    fn vacant(&mut self) -> String;
    /// Fills the source with data that every run makes the same.
    fn fill(&mut self);
    /// Changes some of it.
    fn change(&mut self);
    /// Everything that must survive, as text, of the service at an address.
    fn content(&self, address: &str) -> String;
    /// What must be said for a restore to replace what is there.
    fn replacing(&self) -> &'static [&'static str] {
        &["--force"]
    }
    /// An address of this kind where nothing answers, or nothing is.
    fn nowhere(&self) -> String;
}

/// Captures, restores, compares; restores twice; refuses what would destroy something.
pub fn captured_and_given_back(subject: &mut dyn Subject) {
    let machine = subject.machine();
    subject.fill();
    let (source, before) = (subject.address(), subject.content(&subject.address()));

    let backup = machine.run(&["--json", "backup", &source]);
    assert_eq!(backup.code, 0, "{}", backup.stderr);
    let first = backup.json()["snapshot_id"].as_str().unwrap().to_owned();
    let listed = machine.run(&["--json", "snapshots"]);
    assert!(listed.stdout.contains(&first), "{}", listed.stdout);

    subject.change();
    let changed = subject.content(&source);
    assert_ne!(before, changed, "the change is one");
    let backup = machine.run(&["backup", &source]);
    assert_eq!(backup.code, 0, "{}", backup.stderr);

    // The older one, as it was.
    let target = subject.vacant();
    let restore = machine.run(&["restore", &first, "--to", &target]);
    assert_eq!(restore.code, 0, "{}{}", restore.stdout, restore.stderr);
    assert!(restore.stdout.contains("proven"), "{}", restore.stdout);
    assert_eq!(subject.content(&target), before);

    // What is there now is refused without --force, and whole afterwards.
    let refused = machine.run(&["restore", "latest", "--to", &target]);
    assert_eq!(refused.code, 2, "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(subject.content(&target), before);
    let forced = [&["restore", "latest", "--to", &target], subject.replacing()].concat();
    let forced = machine.run(&forced);
    assert_eq!(forced.code, 0, "{}{}", forced.stdout, forced.stderr);
    assert_eq!(subject.content(&target), changed);

    // The source itself was only read.
    assert_eq!(subject.content(&source), changed);
}

/// A source that is not there gives no snapshot and a message that names it.
pub fn nothing_there(subject: &dyn Subject) {
    let machine = subject.machine();
    let said = machine.run(&["backup", &subject.nowhere()]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.starts_with("error: backup: "), "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0), "{}", listed.stdout);
}

/// A damaged repository gives nothing back and leaves the target as it was.
pub fn damage_reaches_no_target(subject: &mut dyn Subject) {
    let machine = subject.machine();
    subject.fill();
    let source = subject.address();
    let backup = machine.run(&["backup", &source]);
    assert_eq!(backup.code, 0, "{}", backup.stderr);
    let target = subject.vacant();
    let restore = machine.run(&["restore", "latest", "--to", &target]);
    assert_eq!(restore.code, 0, "{}", restore.stderr);
    let before = subject.content(&target);
    for pack in walk(&machine.path("repository").join("data")) {
        let length = std::fs::metadata(&pack).unwrap().len();
        if length > 4096 {
            crate::cli::damage(&pack);
        }
    }
    let said = machine.run(&[&["restore", "latest", "--to", &target], subject.replacing()].concat());
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    assert_eq!(subject.content(&target), before);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
