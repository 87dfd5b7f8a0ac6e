//! A provider's snapshot by programs of the user's. The programs here stand in for a provider's client: they are
//! scripts that keep a list in a file. No provider was asked.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cli::Machine;

fn script(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, format!("#!/bin/sh\nset -eu\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

#[test]
fn a_providers_snapshot_is_recorded_and_given_back_by_its_programs() {
    let machine = Machine::with_repository();
    let log = machine.path("log");
    let create = script(
        &machine.path("create"),
        &format!(
            "test -z \"${{LIFEBOAT_PASSWORD:-}}\"\necho \"create $LIFEBOAT_SNAPSHOT_OF\" >> {0}\n\
             echo '{{\"image\": {{\"id\": 4711, \"description\": \"before the upgrade\"}}}}'",
            log.display()
        ),
    );
    let restore = script(
        &machine.path("restore"),
        &format!("echo \"restore $LIFEBOAT_SNAPSHOT_ID of $LIFEBOAT_SNAPSHOT_OF\" >> {}", log.display()),
    );
    let address = format!("provider-snapshot:web-1?create={}", create.display());
    let said = machine.run(&["--json", "backup", &address]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.json()["job"], "provider-snapshot:web-1");

    let said = machine.run(&["restore", "latest", "--to", "provider-snapshot:web-1"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("snapshot 4711 (before the upgrade)"), "{}", said.stderr);
    let to = format!("provider-snapshot:web-1?restore={}", restore.display());
    let said = machine.run(&["restore", "latest", "--to", &to]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("LIFEBOAT_SNAPSHOT_ID=4711"), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "create web-1\n");
    let said = machine.run(&["restore", "latest", "--to", &to, "--force"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "create web-1\nrestore 4711 of web-1\n");
}

#[test]
fn a_program_that_fails_or_names_no_snapshot_gives_none() {
    let machine = Machine::with_repository();
    for (text, why) in [
        ("echo 'quota exceeded' >&2; exit 3", "quota exceeded"),
        ("echo done", "it printed no JSON"),
        ("echo '{}'", "holds no id"),
        ("echo '{\"id\": 1}'; kill -9 $$", "was killed by SIGKILL"),
    ] {
        let create = script(&machine.path("create"), text);
        let said = machine.run(&["backup", &format!("provider-snapshot:web-1?create={}", create.display())]);
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert!(said.stderr.contains(why), "{}", said.stderr);
    }
    let said = machine.run(&["backup", "provider-snapshot:web-1?create=/nowhere/create"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    let said = machine.run(&["backup", "provider-snapshot:web-1"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0));
}
