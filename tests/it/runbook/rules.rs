//! `runbook check`: the shipped runbooks keep every rule, and every rule catches what it is there for.

use std::collections::BTreeSet;
use std::path::Path;

use lifeboat::runbook::check::{Problem, Severity, check};
use lifeboat::runbook::{Runbook, parse};

use super::book;
use crate::cli::Machine;

const GOOD: &str = r#"---
name: good
components: files, db
rto: 1h
rpo: 26h
variables:
  LIFEBOAT_REPOSITORY:
    about: address of the backups
    read-only: yes
  TARGET:
    about: where it goes
    drill: $SANDBOX/target
---
# A good one

See [above](#a-good-one).

```sh {step=restore phase=restore timeout=45m destructive confirm=TARGET rollback=back expect="restored"}
rm -rf "$TARGET/old"
lifeboat restore latest --target "$TARGET"
```

```text {step=look phase=look manual takes=5m}
Look at it.
```

```sh {step=proof phase=verify timeout=5m}
test -e "$TARGET/a"
```

```sh {step=back phase=rollback timeout=5m destructive confirm=TARGET}
mv "$TARGET.before" "$TARGET"
```
"#;

fn read(text: &str) -> Result<Runbook, String> {
    parse(Path::new("good.md"), text).map_err(|error| error.to_string())
}

fn problems(text: &str) -> Vec<Problem> {
    let own = |words: &[&str]| match words.get(1) {
        Some(&"restore" | &"snapshots" | &"backup" | &"forget") => Ok(()),
        _ => Err("there is no such verb".to_owned()),
    };
    let found = check(&read(text).unwrap(), &own);
    found.into_iter().filter(|problem| problem.severity == Severity::Error).collect()
}

#[test]
fn the_shipped_runbooks_keep_every_rule() {
    let machine = Machine::new();
    let folder = book("x").parent().unwrap().to_str().unwrap().to_owned();
    let said = machine.run(&["--json", "runbook", "check", &folder]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    let answer = said.json();
    assert_eq!(answer["files"].as_array().map(Vec::len), Some(13));
    // Each was rehearsed as it stands, and says in which time.
    assert_eq!((&answer["errors"], &answer["notes"]), (&0.into(), &0.into()), "{}", said.stdout);
    let said = machine.run(&["--json", "runbook", "list", &folder]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for row in said.json().as_array().unwrap() {
        assert!(row["measured_seconds"].as_f64().is_some() && row["is_current"] == true, "{row}");
    }
}

#[test]
fn every_rule_catches_its_broken_sample() {
    assert_eq!(problems(GOOD), []);
    // Rule, what is replaced, by what.
    let broken = [
        ("name", "name: good", "name: other"),
        ("objective", "rto: 1h", "rto: 0s"),
        ("timeout", "timeout=45m", "timeout=2h"),
        ("timeout", "timeout=45m", "timeout=30h"),
        ("confirm", " confirm=TARGET rollback=back", " rollback=back"),
        ("confirm", "confirm=TARGET rollback", "confirm=TARGT rollback"),
        ("confirm", "destructive confirm=TARGET rollback=back", "confirm=TARGET"),
        ("rollback", " rollback=back", ""),
        ("rollback", "rollback=back", "rollback=nothing"),
        ("rollback", "rollback=back", "rollback=proof"),
        ("destructive", "test -e \"$TARGET/a\"", "rm \"$TARGET/a\""),
        ("destructive", "test -e \"$TARGET/a\"", "lifeboat restore latest --target \"$TARGET\" --delete"),
        ("destructive", "test -e \"$TARGET/a\"", "find \"$TARGET\" -delete"),
        ("destructive", "test -e \"$TARGET/a\"", "psql -c 'DROP TABLE a'"),
        ("destructive", "test -e \"$TARGET/a\"", "ls \"$TARGET\" | xargs rm"),
        ("destructive", "test -e \"$TARGET/a\"", "sh -c 'true; rm a'"),
        ("destructive", "test -e \"$TARGET/a\"", "find \"$TARGET\" -exec rm {} +"),
        ("drill", "rm -rf \"$TARGET/old\"", "X=$(cat x); rm -rf \"$X\" \"$TARGET\""),
        ("drill", "test -e \"$TARGET/a\"", "X=/srv/real; ls \"$X\""),
        ("drill", "test -e \"$TARGET/a\"", "sh -c 'touch /srv/real/a'"),
        ("drill", "test -e \"$TARGET/a\"", "cp a --target-directory=/srv/real"),
        ("host", "test -e \"$TARGET/a\"", "systemctl stop shop"),
        ("host", "test -e \"$TARGET/a\"", "sudo docker compose up -d"),
        ("command", "lifeboat restore latest", "lifeboat restor latest"),
        ("command", "test -e \"$TARGET/a\"", "if true; then X=1 lifeboat nonsense; fi"),
        ("variable", "test -e \"$TARGET/a\"", "test -e \"$TARGT/a\""),
        ("variable", "  TARGET:\n", "  UNUSED:\n    about: nothing\n  TARGET:\n"),
        ("secret", "Look at it.", "export LIFEBOAT_PASSWORD=hunter2"),
        ("secret", "See [", "Connect to postgres://app:hunter2@db/shop. See ["),
        ("link", "(#a-good-one)", "(#nowhere)"),
        ("link", "(#a-good-one)", "(missing.md)"),
        ("verify", "phase=verify", "phase=resume"),
        // What would be real in a drill.
        ("drill", "    drill: $SANDBOX/target\n", ""),
        ("drill", "drill: $SANDBOX/target", "drill: /srv/real"),
        ("drill", "drill: $SANDBOX/target", "drill: $SANDBOX/../real"),
        ("drill", "drill: $SANDBOX/target", "drill: $HOME/target"),
        ("drill", "rm -rf \"$TARGET/old\"", "rm -rf /srv/old \"$TARGET\""),
        ("drill", "rm -rf \"$TARGET/old\"", "rm -rf old \"$TARGET\""),
        ("drill", "rm -rf \"$TARGET/old\"", "rm -rf \"$TARGET/../old\""),
        ("drill", "test -e \"$TARGET/a\"", "lifeboat backup \"$TARGET\""),
        ("drill", "test -e \"$TARGET/a\"", "lifeboat restore latest --target /srv/real"),
        (
            "drill",
            "step=proof phase=verify timeout=5m",
            "step=proof phase=verify drill=stand-in for=x because=\"y\"",
        ),
    ];
    let mut caught = BTreeSet::new();
    for (rule, old, new) in broken {
        assert!(GOOD.contains(old), "{old}");
        let found = problems(&GOOD.replacen(old, new, 1));
        assert!(found.iter().any(|problem| problem.rule == rule), "{rule}: {new}: {found:?}");
        caught.insert(rule);
    }
    assert_eq!(caught.len(), 13);
}

#[test]
fn what_cannot_be_read_names_the_line_and_the_nearest_word() {
    // What is replaced, by what, and what is said.
    let broken = [
        ("---\nname", "name", "good.md:1: a runbook begins with its front matter"),
        ("name: good", "name: ../good", "good.md:2: name: is lower-case"),
        ("rto: 1h", "rtoo: 1h", "good.md:4: unknown key \"rtoo\"\nhint: did you mean rto?"),
        ("rto: 1h", "rto: soon", "good.md:4: rto: \"soon\" is no time"),
        ("rto: 1h\n", "", "good.md:1: the front matter does not say rto:"),
        ("rpo: 26h", "rto: 26h", "good.md:5: rto is given twice"),
        (
            "about: where it goes",
            "about: where: it goes",
            "good.md:11: where: it goes: YAML would read this otherwise",
        ),
        ("drill: $SANDBOX", "dril: $SANDBOX", "good.md:12: unknown key \"dril\"\nhint: did you mean drill?"),
        (
            "timeout=45m",
            "timout=45m",
            "good.md:18: unknown attribute \"timout\"\nhint: did you mean timeout?",
        ),
        (
            "phase=restore",
            "phase=restor",
            "good.md:18: unknown phase \"restor\"\nhint: did you mean restore?",
        ),
        ("phase=restore ", "", "good.md:18: a step needs a phase"),
        ("expect=\"restored\"", "expect=\"restored", "good.md:18: expect: the quote does not end"),
        ("step=proof", "step=restore", "good.md:27: step restore is there already, at line 18"),
        ("step=proof", "step=Proof", "good.md:27: step \"Proof\": a name is lower-case"),
        ("manual takes=5m", "manual", "good.md:23: a manual step says how long it takes"),
        (" {step=proof phase=verify timeout=5m}", "", "good.md:27: a block of sh is no step"),
        ("See [", "<b>See</b> [", "good.md:16: HTML"),
        ("Look at it.", "Look\u{1b}[2J.", "good.md:24: a control character"),
        ("Look at it.", "Look\r\nat it.", "good.md:24: a carriage return"),
    ];
    for (old, new, expected) in broken {
        assert!(GOOD.contains(old), "{old}");
        let said = read(&GOOD.replacen(old, new, 1)).unwrap_err();
        assert!(said.starts_with(expected), "{said}\n  expected {expected}");
    }
    // Whatever is left of a document is an error or a runbook, never a panic.
    for end in 0..GOOD.len() {
        let _ = read(&GOOD[..end]);
    }
}
