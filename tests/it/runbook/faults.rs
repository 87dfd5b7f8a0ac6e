//! Faults in a drill of a runbook: the document is followed again with a broken copy of the repository, and decides by
//! its own steps what comes of it.

use super::{book, data, shop};
use crate::cli::{Machine, Said};

/// Whatever the repository holds, by name and content.
fn content(machine: &Machine) -> Vec<(String, blake3::Hash)> {
    fn walk(folder: &std::path::Path, found: &mut Vec<(String, blake3::Hash)>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), found),
                false => {
                    let hash = blake3::hash(&std::fs::read(entry.path()).unwrap());
                    found.push((entry.path().display().to_string(), hash));
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(&machine.path("repository"), &mut found);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Writes the file with a drill of a document.
fn with_drill(machine: &Machine, document: &std::path::Path, more: &str) {
    let repository = machine.path("repository");
    machine.file(
        "lifeboat.toml",
        format!("[repository.main]\nurl = {repository:?}\n[drill.book]\nrunbook = {document:?}\n{more}"),
    );
    std::fs::create_dir_all(machine.path("scratch")).unwrap();
}

fn run(machine: &Machine, arguments: &[&str]) -> Said {
    let all = [&["--json", "drill", "run", "book", "--scratch", "scratch", "--no-keep"], arguments].concat();
    let file = [("LIFEBOAT_CONFIG", "lifeboat.toml"), ("LIFEBOAT_REPOSITORY", "")];
    let said = machine.run_with(&file, &all);
    assert_eq!(std::fs::read_dir(machine.path("scratch")).unwrap().count(), 0, "{}", said.stderr);
    said
}

fn outcomes(said: &Said) -> Vec<(String, String)> {
    let found = said.json()["evidence"]["faults"].as_array().cloned().unwrap_or_default();
    let text = |fault: &serde_json::Value, key: &str| fault[key].as_str().unwrap().to_owned();
    found.iter().map(|fault| (text(fault, "kind"), text(fault, "outcome"))).collect()
}

#[test]
fn a_shipped_page_fails_closed_on_lost_data_and_recovers_from_a_lost_index() {
    let machine = shop();
    let said = machine.run(&["kit", "export", "kit.html"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let faults = "faults = [{ kind = \"missing-pack\" }, { kind = \"bit-flips\" }, { kind = \"half-gone\" }, \
                  { kind = \"missing-index\" }, { kind = \"primary-gone\" }, { kind = \"wrong-key\" }]\n";
    let kit = machine.path("kit.html");
    with_drill(&machine, &book("server-deleted"), &format!("set = {{ KIT = {kit:?} }}\n{faults}"));
    let before = content(&machine);
    let said = run(&machine, &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let row = |kind: &str, outcome: &str| (kind.to_owned(), outcome.to_owned());
    let expected = [
        row("missing-pack", "fails_closed"),
        row("bit-flips", "fails_closed"),
        row("half-gone", "fails_closed"),
        row("missing-index", "recovers"),
        row("primary-gone", "fails_closed"),
        row("wrong-key", "fails_closed"),
    ];
    assert_eq!(outcomes(&said), expected, "{}", said.stdout);
    // It is the fault that stops it, at the step that meets it.
    let faults = said.json()["evidence"]["faults"].clone();
    for (at, told) in [(0, "step restore: "), (4, "exit status 10"), (5, "exit status 12")] {
        assert!(faults[at]["detail"].as_str().unwrap().contains(told), "{told}: {}", faults[at]);
    }
    assert_eq!(content(&machine), before, "the repository itself is only read");
    // What was declared otherwise fails the drill.
    let said = run(&machine, &["--fault", "truncated-pack=recovers"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    for (fault, told) in [
        ("storage-errors", "what is slow or fails at times cannot"),
        ("no-local-state", "begins with no local state"),
        ("truncated-pack=recovers_from_replica", "by its own steps"),
        ("missing-pack", "is injected once a drill"),
    ] {
        let said = run(&machine, &["--fault", fault]);
        assert_eq!(said.code, 2, "{fault}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(told), "{fault}: {}", said.stderr);
    }
}

#[test]
fn a_page_that_passes_over_what_is_lost_is_caught_by_its_own_proof() {
    let machine = shop();
    let page = "---\nname: careless\ncomponents: files\nrto: 1h\nvariables:\n  SNAPSHOT:\n    about: what\n    read-only: yes\n    \
                default: shop@latest\n  TARGET:\n    about: where to\n    drill: $SANDBOX/restored\n---\n# careless\n\n\
                ```sh {step=restore phase=restore timeout=5m}\nlifeboat restore \"$SNAPSHOT\" --target \"$TARGET\" || echo never mind\n\
                ```\n\n```sh {step=prove phase=verify timeout=5m}\ntest \"$(find \"$TARGET\" -name picture.jpg -size +100k)\"\n```\n";
    let document = machine.file("careless.md", page);
    with_drill(&machine, &document, "");
    let said = run(&machine, &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let said = run(&machine, &["--fault", "missing-pack"]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    assert_eq!(outcomes(&said), [("missing-pack".to_owned(), "silently_wrong".to_owned())]);
    assert!(said.stdout.contains("the restore found nothing wrong, but step prove"), "{}", said.stdout);
    // Where no step opens the repository, nothing was shown.
    assert!(data(&machine).ends_with("shop"));
    let page = page.split("```sh {step=restore").next().unwrap().to_owned()
        + "```sh {step=prove phase=verify timeout=5m}\necho \"$SNAPSHOT\" \"$TARGET\"\n```\n";
    machine.file("careless.md", page);
    let said = run(&machine, &["--fault", "missing-pack"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert_eq!(outcomes(&said), [("missing-pack".to_owned(), "not_run".to_owned())]);
}
