//! What the verbs answer, and with which code.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use super::{Machine, damage};

#[test]
fn init_says_what_to_keep_and_refuses_to_do_it_twice() {
    let machine = Machine::new();
    let said = machine.run(&["init", "-r", "other", "--argon-memory", "8M"]);
    let id = said.stdout.split_whitespace().nth(2).unwrap().to_owned();
    insta::assert_snapshot!(said.stdout.replace(&id, "$ID"), @r"
    created repository $ID
        at other

    Keep these away from this machine, or nothing can be restored when it is lost:
      - the address above
      - the password: nobody can reset it

    Next:
      lifeboat -r other backup FOLDER…
      lifeboat -r other snapshots
    ");
    let again = machine.run(&["init", "-r", "other"]);
    assert_eq!(again.code, 11);
    insta::assert_snapshot!(again.stderr, @r"
    error: init: a repository exists already at other
    hint: a repository is never overwritten: choose another place
    ");
}

#[test]
fn senseless_command_lines_are_usage_errors() {
    let machine = Machine::with_repository();
    for arguments in [
        &["frobnicate"][..],
        &["backup"],
        &["backup", "--stdin"],
        &["backup", "--stdin-filename", "x", "/etc"],
        &["backup", "--job", "", "/etc"],
        &["backup", "--time", "yesterday", "/etc"],
        &["init", "--pack-size", "1G"],
        &["snapshots", "--limit-upload", "0"],
        &["snapshots", "--option", "retries=many"],
        &["snapshots", "-r", "ftp://host/x"],
        &["snapshots", "-r", ""],
    ] {
        let said = machine.run(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.starts_with("error: ") && said.stdout.is_empty(), "{arguments:?}");
    }
    let said = machine.run(&["frobnicate", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!((said.code, &error["exit_code"]), (2, &json!(2)));
}

#[test]
fn without_a_repository_the_code_is_10_and_what_is_there_is_named() {
    let machine = Machine::new();
    let said = machine.run(&["snapshots", "--json"]);
    assert_eq!((said.code, said.stdout.as_str()), (10, ""));
    let error: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!(
        error,
        json!({
            "error": "no repository at $T/repository",
            "operation": "snapshots",
            "causes": [],
            "hint": "check the address, or make one with `lifeboat init`",
            "exit_code": 10,
        })
    );
    machine.file("repository/keys/ab12", "{}");
    for (config, found) in
        [("sealed", "a restic or rustic repository"), ("[repository]\n", "a borg repository")]
    {
        machine.file("repository/config", config);
        let said = machine.run(&["snapshots"]);
        assert_eq!(said.code, 10);
        assert!(said.stderr.contains(found), "{}", said.stderr);
    }
    assert!(!machine.path("cache").exists(), "nothing was opened, so nothing is cached");
}

#[test]
fn a_backup_tells_what_it_did_and_a_repeated_one_reads_nothing() {
    let machine = Machine::with_repository();
    machine.file("data/a", vec![7; 300_000]);
    machine.file("data/b", "hello");
    let first = machine.run(&["backup", "data", "--json", "--tag", "t", "--host", "h"]).json();
    let folder = "$T/data";
    assert_eq!(first["job"], json!(format!("files:{folder}")));
    assert_eq!((&first["partial"], &first["problems"]), (&json!(false), &json!([])));
    assert_eq!(first["statistics"]["files_new"], json!(2));
    assert_eq!(first["statistics"]["read_bytes"], json!(300_005));
    // A file that changed within the clock's grain is read once more; afterwards it is known.
    std::thread::sleep(std::time::Duration::from_millis(150));
    machine.run(&["backup", "data"]);
    let third = machine.run(&["backup", "data", "--json"]).json();
    assert_eq!(third["statistics"]["files_unmodified"], json!(2));
    assert_eq!(third["statistics"]["read_bytes"], json!(0));

    let rows = machine.run(&["snapshots", "--json"]).json();
    let row = &rows[0];
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_eq!((&row["id"], &row["tags"]), (&first["snapshot_id"], &json!(["t"])));
    assert_eq!((&row["paths"], &row["confirmed"]), (&json!([folder]), &json!(true)));
    assert_eq!(machine.run(&["snapshots", "--json", "--host", "h"]).json().as_array().unwrap().len(), 1);
    let latest = machine.run(&["snapshots", "--json", "--latest", "1"]).json();
    assert_eq!(latest.as_array().unwrap().len(), 2, "one of each machine");
}

#[test]
fn snapshots_are_shown_by_job() {
    let machine = Machine::with_repository();
    for (job, day) in [("web", 1), ("db", 1), ("web", 2)] {
        machine.file("data/a", format!("{job}{day}"));
        let time = format!("2026-03-0{day}T04:05:06Z");
        let said = machine.run(&["backup", "data", "--job", job, "--host", "box", "--time", &time]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let said = machine.run(&["snapshots"]);
    let mut shown = said.stdout.clone();
    for row in machine.run(&["snapshots", "--json"]).json().as_array().unwrap() {
        shown = shown.replace(row["short_id"].as_str().unwrap(), "deadbeef");
    }
    // Compressed sizes are not this test's affair.
    let shown: Vec<String> = shown
        .lines()
        .map(|line| match line.split_once("4 B  ").or_else(|| line.split_once("3 B  ")) {
            Some((start, _)) => format!("{start}N B …"),
            None => line.to_owned(),
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    db on box
      ID        Time                 Files  Size  Added  Tags  Paths
      deadbeef  2026-03-01 04:05:06      1   N B …

    web on box
      ID        Time                 Files  Size  Added  Tags  Paths
      deadbeef  2026-03-01 04:05:06      1   N B …
      deadbeef  2026-03-02 04:05:06      1   N B …

    3 snapshots
    ");
}

#[test]
fn what_cannot_be_read_is_named_and_makes_the_snapshot_partial() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    // Reading it fails for everybody, root included.
    let data = machine.path("data").display().to_string();
    let said = machine.run(&["backup", &data, "/proc/self/mem", "--json"]);
    assert_eq!(said.code, 3, "{}", said.stderr);
    let answer = said.json();
    assert_eq!(
        (&answer["partial"], &answer["problems"][0]["path"]),
        (&json!(true), &json!("/proc/self/mem"))
    );
    assert!(said.stderr.contains("/proc/self/mem") && said.stderr.contains("partial"), "{}", said.stderr);
    assert_eq!(machine.run(&["snapshots", "--json"]).json()[0]["partial"], json!(true));
}

#[test]
fn a_stream_becomes_a_snapshot_only_when_it_ends_well() {
    let machine = Machine::with_repository();
    let said = machine.run(&[
        "backup",
        "--stdin-filename",
        "d.sql",
        "--command",
        "--",
        "sh",
        "-c",
        "echo x; exit 3",
    ]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("exit status 3"), "{}", said.stderr);
    assert_eq!(
        machine.run(&["backup", "--stdin", "--stdin-filename", "d.sql"]).code,
        1,
        "nothing was piped in"
    );
    assert_eq!(machine.run(&["snapshots", "--json"]).json(), json!([]));

    let mut command = machine.command(&["backup", "--stdin", "--stdin-filename", "d.sql", "--json"]);
    let said = machine.said(command.write_stdin("rows").output().unwrap());
    assert_eq!((said.code, &said.json()["job"]), (0, &json!("d.sql")));
    let said = machine.run(&["backup", "--stdin-filename", "d.sql", "--command", "--", "echo", "x"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn a_file_in_the_way_of_a_folder_is_left_alone_when_asked() {
    let machine = Machine::with_repository();
    machine.file("data/a/b", "from the snapshot");
    machine.file("data/c", "too");
    machine.run(&["backup", "data"]);
    let precious = machine.file("out/a", "precious");
    let snapshot = format!("latest:{}", machine.path("data").display());
    let said = machine.run(&["restore", &snapshot, "--target", "out", "--overwrite", "never"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("in the way"), "{}", said.stderr);
    assert_eq!(std::fs::read(precious).unwrap(), b"precious");
    assert_eq!(std::fs::read(machine.path("out/c")).unwrap(), b"too");
    let partial = machine.run(&["backup", ""]);
    assert_eq!((partial.code, partial.stderr.contains("empty")), (2, true));
}

#[test]
fn a_captured_command_does_not_get_the_password() {
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", "--stdin-filename", "env", "--command", "--", "env"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let environment = machine.run(&["dump", "latest:/env"]).stdout;
    assert!(environment.contains("LIFEBOAT_REPOSITORY=") && !environment.contains("LIFEBOAT_PASSWORD="));
}

#[test]
fn damage_is_20_and_names_the_object() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    machine.run(&["backup", "data"]);
    let manifest = machine.object("snapshots");
    damage(&manifest);
    let said = machine.run(&["snapshots", "--no-cache"]);
    assert_eq!(said.code, 20, "{}", said.stderr);
    assert!(said.stderr.contains(manifest.file_name().unwrap().to_str().unwrap()), "{}", said.stderr);
    std::fs::write(machine.object("roster"), "LIFEBOAT").unwrap();
    let said = machine.run(&["snapshots", "--no-cache"]);
    assert_eq!(said.code, 20);
    assert!(said.stderr.contains("roster/0 is damaged"), "{}", said.stderr);
}

#[test]
fn a_newer_format_is_named_and_is_no_damage() {
    let machine = Machine::with_repository();
    for folder in ["slots", "config", "roster", "keyring"] {
        let object = machine.object(folder);
        let mut bytes = std::fs::read(&object).unwrap();
        // The version stands behind the magic: see the header's table.
        bytes[8..10].copy_from_slice(&7u16.to_le_bytes());
        std::fs::write(object, bytes).unwrap();
    }
    let said = machine.run(&["snapshots"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("format version 7"), "{}", said.stderr);
}

#[test]
fn an_interrupted_backup_ends_with_130_and_makes_no_snapshot() {
    let machine = Machine::with_repository();
    let mut command = machine.raw(&["backup", "--stdin", "--stdin-filename", "endless"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Held open to the end: waiting for the child would close it.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"some, and then nothing for ever").unwrap();
    // Its sign of life means that it is under way, and so listens to signals.
    let runs = machine.path("repository/runs");
    while std::fs::read_dir(&runs).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
    assert_eq!(machine.run(&["snapshots", "--json"]).json(), json!([]));
}

#[test]
fn a_closed_stdout_is_no_failure_and_no_panic() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    for arguments in
        [&["snapshots"][..], &["version"], &["completions", "zsh"], &["backup", "data"], &["demo"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = machine.raw(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{arguments:?}");
    }
    let taken = machine.run(&["snapshots", "--json"]).json();
    assert_eq!(taken.as_array().unwrap().len(), 1, "the backup was made although nobody read about it");
}

#[test]
fn the_cache_is_where_it_was_asked_for() {
    let machine = Machine::new();
    let none = ("LIFEBOAT_CACHE_DIR", "");
    let xdg = machine.path("xdg").display().to_string();
    let flag = machine.path("flag").display().to_string();
    assert_eq!(machine.run(&["init", "--argon-memory", "8M"]).code, 0);
    machine.run_with(&[none, ("XDG_CACHE_HOME", &xdg)], &["snapshots"]);
    assert!(machine.path("xdg/lifeboat/CACHEDIR.TAG").exists());
    machine.run(&["snapshots", "--cache-dir", &flag]);
    assert!(machine.path("flag/CACHEDIR.TAG").exists());
    machine.run(&["snapshots", "--no-cache"]);
    assert!(!machine.path("cache").exists());

    let listed = machine.run(&["cache", "--cache-dir", &flag, "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(listed[0]["size_bytes"].as_u64().unwrap() > 0);
    let id = listed[0]["repository_id"].as_str().unwrap();
    assert_eq!(machine.run(&["cache", "clear", "ffffffffffff", "--cache-dir", &flag]).code, 1);
    assert_eq!(machine.run(&["cache", "clear", &id[..6], "--cache-dir", &flag]).code, 0);
    assert_eq!(machine.run(&["cache", "--cache-dir", &flag, "--json"]).json(), json!([]));
}

#[test]
fn doctor_leaves_nothing_behind_and_ends_as_its_worst_finding() {
    let machine = Machine::with_repository();
    let said = machine.run(&["doctor", "--json"]);
    let answer = said.json();
    assert_eq!((said.code, &answer["ok"]), (0, &json!(true)), "{answer:#}");
    let check = |name: &str| {
        let checks = answer["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {answer:#}"))
    };
    assert!(check("opening")["detail"].as_str().unwrap().ends_with("opened as owner"));
    assert!(check("removal")["detail"].as_str().unwrap().starts_with("these credentials can delete"));
    assert!(check("password")["detail"].as_str().unwrap().ends_with("LIFEBOAT_PASSWORD"));
    let left = machine.path("repository/doctor");
    assert_eq!(std::fs::read_dir(left).map_or(0, Iterator::count), 0);

    assert_eq!(machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &["doctor"]).code, 12);
    assert_eq!(machine.run(&["doctor", "-r", "nowhere"]).code, 10);
    assert_eq!(machine.run_with(&[("LIFEBOAT_REPOSITORY", "")], &["doctor"]).code, 2);
    assert!(!machine.path("nowhere").exists());
}

#[test]
fn the_demo_recovers_everything_and_cleans_up() {
    let machine = Machine::new();
    machine.file("tmp/.keep", "");
    // Servers that run as somebody else than root have to get there.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(machine.path("tmp").parent().unwrap(), mode).unwrap();
    let tmp = machine.path("tmp").display().to_string();
    // The user's own settings must not matter.
    let variables = [("TMPDIR", tmp.as_str()), ("LIFEBOAT_REPOSITORY", "/nonexistent")];
    let said = machine.run_with(&variables, &["demo", "--json"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let answer = said.json();
    assert_eq!((&answer["identical"], &answer["orders"]), (&json!(true), &json!(20_250)));
    let added = |name: &str| answer[name].as_u64().unwrap();
    assert!(added("second_added_bytes") * 4 < added("first_added_bytes"), "{answer}");
    let servers = answer["servers"].as_array().unwrap();
    assert!(servers[0].as_str().unwrap().starts_with("PostgreSQL "), "{answer}");
    assert_eq!((servers.len(), &answer["drill"]), (2, &json!("PASSED")), "{answer}");
    let left = || std::fs::read_dir(machine.path("tmp")).unwrap().count();
    assert_eq!(left(), 1);

    // Without their programs the servers stay away, and nothing else does.
    let path = format!("{}", machine.path("bin").display());
    let bare = [("TMPDIR", tmp.as_str()), ("PATH", path.as_str())];
    let said = machine.run_with(&bare, &["demo", "--json"]);
    assert_eq!((said.code, left()), (0, 1), "{}", said.stderr);

    let said = machine.run_with(&variables, &["demo", "--keep"]);
    assert_eq!((said.code, left()), (0, 2));
    let text = said.stdout;
    assert!(
        text.contains("Nothing was lost.") && text.contains("Kept: ") && !text.contains('\x1b'),
        "{text}"
    );
}

#[test]
fn every_verb_has_help_and_the_shells_their_completions() {
    let machine = Machine::new();
    let help = machine.run(&["--help"]).stdout;
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"demo"), "{help}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        assert_eq!(machine.run(&[verb, "--help"]).code, 0, "{verb}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(machine.run(&["completions", shell]).stdout.contains("snapshots"), "{shell}");
    }
    let version = machine.run(&["version", "--json"]).json();
    assert_eq!(version["version"], json!(env!("CARGO_PKG_VERSION")));
}
