//! Runbooks by the real binary: the shipped ones rehearsed for real, the rules, and runs that go wrong.

mod faults;
mod rules;
mod running;
mod shipped;

use std::path::{Path, PathBuf};

use crate::cli::{Machine, Said};

/// A shipped runbook.
pub fn book(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dr-runbooks").join(format!("{name}.md"))
}

/// A machine with a small shop, backed up as job `shop`.
pub fn shop() -> Machine {
    let machine = Machine::with_repository();
    machine.file("shop/config/app.toml", "workers = 4\n");
    machine.file("shop/uploads/picture.jpg", crate::bench::random(5, 200_000));
    machine.file("shop/uploads/deep/er/note", "hello");
    std::os::unix::fs::symlink("picture.jpg", machine.path("shop/uploads/latest")).unwrap();
    let said = machine.run(&["backup", "--job", "shop", "shop"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    machine
}

/// Where the shop is, as its backup names it.
pub fn data(machine: &Machine) -> String {
    machine.path("shop").to_str().unwrap().to_owned()
}

/// Rehearses a document with these variables, in a scratch folder of the machine's.
pub fn drill(machine: &Machine, file: &Path, set: &[(&str, &str)]) -> Said {
    std::fs::create_dir_all(machine.path("scratch")).unwrap();
    let set: Vec<String> =
        set.iter().flat_map(|(name, value)| ["--set".into(), format!("{name}={value}")]).collect();
    let mut arguments =
        vec!["--json", "runbook", "run", file.to_str().unwrap(), "--drill", "--scratch", "scratch"];
    arguments.extend(set.iter().map(String::as_str));
    // How the shipped pages come by their times: RECORD_RUNBOOKS=1 cargo nextest run -j1 -E 'test(shipped)'
    if file.starts_with(env!("CARGO_MANIFEST_DIR")) && std::env::var_os("RECORD_RUNBOOKS").is_some() {
        arguments.push("--record=under 1 MiB of test data");
    }
    let said = machine.run(&arguments);
    let left: Vec<_> =
        std::fs::read_dir(machine.path("scratch")).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    said
}

/// The transcript of the newest run.
pub fn transcript(machine: &Machine, name: &str) -> String {
    let folder = machine.path("state/runbooks").join(name);
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    all.sort();
    all.last().map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default()
}
