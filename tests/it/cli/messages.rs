//! What people are told when something is not as they think, and what they are not told when they asked for quiet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use super::{Machine, damage};
use crate::bench::random;

#[test]
fn a_folder_that_holds_something_else_is_named_and_left_alone() {
    let machine = Machine::new();
    machine.file("foreign/notes.txt", "precious");
    machine.file("file", "x");
    let init = machine.run(&["init", "-r", "foreign"]);
    assert_eq!(init.code, 11);
    assert!(init.stderr.contains("foreign is not empty: it holds \"notes.txt\""), "{}", init.stderr);
    assert_eq!(fs::read_dir(machine.path("foreign")).unwrap().count(), 1);
    let open = machine.run(&["snapshots", "-r", "foreign"]);
    assert_eq!(open.code, 10);
    assert!(
        open.stderr.contains("foreign is not a Lifeboat repository: it holds \"notes.txt\""),
        "{}",
        open.stderr
    );
    // The root of a disk of its own.
    fs::create_dir_all(machine.path("disk/lost+found")).unwrap();
    assert_eq!(machine.run(&["init", "-r", "disk", "--argon-memory", "8M", "--argon-passes", "1"]).code, 0);

    for (address, expected) in [
        ("file", "open file: it is a file; a repository is a folder"),
        ("", "the repository's address cannot be used: it is empty"),
        ("s4://x/y", "the repository's address s4:… cannot be used: unknown scheme; known: a path"),
    ] {
        for verb in ["snapshots", "init"] {
            let said = machine.run(&[verb, "-r", address]);
            assert_eq!(said.code, 2, "{address:?}: {}", said.stderr);
            assert!(said.stderr.contains(expected), "{}", said.stderr);
        }
    }
    let address = "sftp://nobody@127.0.0.1:1/./x";
    let said = machine.run(&["snapshots", "-r", address, "--option", "retries=0"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains(address) && said.stderr.contains("127.0.0.1 port 1"), "{}", said.stderr);
}

#[test]
fn quiet_is_quiet_but_for_what_was_asked_to_be_shown() {
    let machine = Machine::new();
    machine.file("data/a", "a");
    let other = machine.path("other").display().to_string();
    machine.file("new", "new password");
    fs::set_permissions(machine.path("new"), fs::Permissions::from_mode(0o600)).unwrap();
    for arguments in [
        &["init", "--argon-memory", "8M", "--argon-passes", "1"][..],
        &["backup", "data"],
        &["backup", "data"],
        &["restore", "latest", "--target", "out"],
        &["verify"],
        &["forget", "--keep-last", "1", "--yes"],
        &["prune", "--grace", "0s", "--yes"],
        &["init", "-r", &other, "--argon-memory", "8M", "--argon-passes", "1"],
        &["copy", "--to", &other],
        &["key", "add", "--role", "writer", "--new-password-file", "new", "--label", "w"],
        &["key", "rotate"],
        &["kit", "export", "kit.txt"],
        &["repair", "index"],
    ] {
        let said = machine.run(&[arguments, &["--quiet"]].concat());
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""), "{arguments:?}");
    }
    for arguments in [&["snapshots"][..], &["ls", "latest"], &["key", "list"], &["prune", "--dry-run"]] {
        let said = machine.run(&[arguments, &["--quiet"]].concat());
        assert!(said.code == 0 && !said.stdout.is_empty(), "{arguments:?}");
    }
    let said = machine.run(&["--json", "kit", "export", "kit.json"]);
    assert_eq!((said.json()["addresses"][0].as_str(), said.stderr.as_str()), (Some("$T/repository"), ""));
}

#[test]
fn hints_say_what_to_type_and_it_works() {
    let machine = Machine::with_repository();
    machine.file("it's/a", "a");
    machine.file("data/b", "b");
    machine.run(&["backup", "it's"]);
    machine.run(&["backup", "data"]);
    machine.run(&["backup", "data", "--host", "other box"]);
    let said = machine.run(&["ls", "latest"]);
    assert_eq!(said.code, 2);
    let hint = said.stderr.split_once("write one of these instead: ").unwrap().1;
    let folder = machine.path("").display().to_string();
    for choice in hint.trim().split(", or ") {
        let choice = choice.replace("$T", folder.trim_end_matches('/'));
        let raw = machine.raw(&[]);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{} ls {choice}", env!("CARGO_BIN_EXE_lifeboat"))]).env_clear();
        shell.envs(raw.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        let said = machine.said(shell.output().unwrap());
        assert_eq!(said.code, 0, "{choice}: {}", said.stderr);
    }
    for (arguments, expected) in [
        (&["prune", "--grace", "foo"][..], "write a time such as 30s, 15m, 48h or 1h30m"),
        (&["backup", "--stdin", "--stdin-filename", "../b"], "such as app.sql or db/app.sql"),
        (&["backup", "/etc/hostname", "/nonexistent"], "cannot back up /nonexistent: it does not exist"),
        (&["key", "remove", "nosuch"], "no slot has the id or label \"nosuch\""),
        (&["key", "add", "--role", "writer"], "--new-password-file"),
        (&["forget", "it's@latest", "--yes"], "`lifeboat snapshots` lists what there is"),
    ] {
        let said = machine.run(arguments);
        assert!(matches!(said.code, 1 | 2), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(expected), "{arguments:?}: {}", said.stderr);
    }
    let only = machine.run(&["snapshots", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    let guarded = machine.run(&["forget", &only, "--yes"]);
    assert!(guarded.code == 23 && guarded.stderr.contains("hint: --force"), "{}", guarded.stderr);

    let theirs = [("LIFEBOAT_PASSWORD", "theirs")];
    machine.run_with(&theirs, &["init", "-r", "theirs", "--argon-memory", "8M", "--argon-passes", "1"]);
    let said = machine.run(&["copy", "--to", "theirs"]);
    assert!(said.code == 2 && said.stderr.contains("--to-password-file"), "{}", said.stderr);
}

#[test]
fn a_recovery_kit_is_a_page_of_commands_that_work() {
    let machine = Machine::new();
    let repository = machine.path("it's here").display().to_string();
    let at = [("LIFEBOAT_REPOSITORY", repository.as_str())];
    machine.run_with(&at, &["init", "--argon-memory", "8M", "--argon-passes", "1"]);
    machine.file("data/a", "a");
    machine.run_with(&at, &["backup", "data"]);
    assert_eq!(machine.run_with(&at, &["kit", "export", "kit.txt"]).code, 0);
    let kit = fs::read_to_string(machine.path("kit.txt")).unwrap();
    let restored = machine.path("restored").display().to_string();
    let lines: Vec<&str> =
        kit.lines().filter_map(|line| line.trim().split_once(". lifeboat ").map(|(_, rest)| rest)).collect();
    assert_eq!(lines.len(), 4);
    for line in lines {
        let raw = machine.raw(&[]);
        let command = format!("{} {line}", env!("CARGO_BIN_EXE_lifeboat")).replace("/restored", &restored);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).env_clear().current_dir(machine.path("")).stdin(Stdio::null());
        shell.envs(raw.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env_remove("LIFEBOAT_REPOSITORY");
        let said = machine.said(shell.output().unwrap());
        assert_eq!(said.code, 0, "{line}: {}", said.stderr);
    }
}

#[test]
fn files_count_the_same_everywhere_and_a_first_run_knows_none() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    machine.file("data/b", "b");
    fs::hard_link(machine.path("data/a"), machine.path("data/c")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    let counts = |said: super::Said| {
        let statistics = said.json()["statistics"].clone();
        ["files_new", "files_changed", "files_unmodified", "files"]
            .map(|name| statistics[name].as_u64().unwrap())
    };
    assert_eq!(counts(machine.run(&["backup", "data", "--json"])), [3, 0, 0, 3]);
    assert_eq!(counts(machine.run(&["backup", "data", "--json"])), [0, 0, 3, 3]);
    assert_eq!(machine.run(&["snapshots", "--json"]).json()[0]["statistics"]["files"], json!(3));
}

#[test]
fn a_repository_inside_what_is_backed_up_is_left_out() {
    let machine = Machine::new();
    let inside = machine.path("srv/[1] b").display().to_string();
    let at = [("LIFEBOAT_REPOSITORY", inside.as_str())];
    machine.run_with(&at, &["init", "--argon-memory", "8M", "--argon-passes", "1"]);
    machine.file("srv/a", "a");
    let said = machine.run_with(&at, &["backup", "srv"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("left out: $T/srv/[1] b, the repository itself"), "{}", said.stderr);
    let listed = machine.run_with(&at, &["ls", "latest"]).stdout;
    assert!(listed.contains("srv/a") && !listed.contains("[1]"), "{listed}");
    assert_eq!(machine.run_with(&at, &["backup", &inside]).code, 2);
    // And a restore does not take it for something extra.
    let snapshot = format!("latest:{}", machine.path("srv").display());
    let said = machine.run_with(&at, &["restore", &snapshot, "--target", "srv", "--delete", "--yes"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(machine.path("srv/[1] b/config").exists());
}

#[test]
fn a_copy_from_a_damaged_repository_names_what_stays_behind_and_takes_the_rest() {
    let machine = Machine::with_repository();
    for (seed, job) in ["good", "bad"].into_iter().enumerate() {
        machine.file(&format!("{job}/f"), random(seed, 200_000));
        machine.run(&["backup", job, "--job", job]);
        if job == "good" {
            continue;
        }
        let mut packs: Vec<_> =
            fs::read_dir(machine.path("repository/data")).unwrap().map(|entry| entry.unwrap()).collect();
        packs.sort_by_key(|pack| pack.metadata().unwrap().modified().unwrap());
        damage(&packs.last().unwrap().path());
    }
    machine.run(&["init", "-r", "other", "--argon-memory", "8M", "--argon-passes", "1"]);
    let said = machine.run(&["copy", "--to", "other", "--no-cache"]);
    assert_eq!(said.code, 20, "{}", said.stderr);
    let folder =
        machine.path("bad/f").display().to_string().replace(machine.path("").to_str().unwrap(), "$T/");
    assert!(
        said.stderr.contains("not copied: snapshot ") && said.stderr.contains(&folder),
        "{}",
        said.stderr
    );
    let there = machine.run(&["snapshots", "-r", "other", "--json"]).json();
    assert_eq!((there.as_array().unwrap().len(), &there[0]["job"]), (1, &json!("good")));
}
