//! The commands `key`, `copy`, `kit` and `init --replica-of`, through the real binary on local disk.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("owner", "owner's password\n"), ("next", "next password\n")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/file"), "content".repeat(1000)).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs with the secret in a file: `key…` is a key file, anything else a password file.
    fn run(&self, repo: &str, secret: &str, arguments: &[&str]) -> (i32, serde_json::Value, String) {
        let flag = if secret.starts_with("key") { "--key-file" } else { "--password-file" };
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().current_dir(self.folder.path());
        command.arg("-r").arg(self.path(repo)).arg(flag).arg(self.path(secret));
        command.args(["--no-cache", "--json", "--yes"]).args(arguments);
        let output = command.output().unwrap();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), json, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn ok(&self, repo: &str, secret: &str, arguments: &[&str]) -> serde_json::Value {
        let (code, json, stderr) = self.run(repo, secret, arguments);
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        json
    }

    fn fails(&self, repo: &str, secret: &str, arguments: &[&str], code: i32) -> String {
        let (found, _, stderr) = self.run(repo, secret, arguments);
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        stderr
    }
}

fn remove_keys(repo: &Path) {
    for folder in ["keyring", "slots", "roster", "config"] {
        std::fs::remove_dir_all(repo.join(folder)).unwrap();
    }
}

#[test]
fn keys_are_added_used_changed_and_ended() {
    let machine = Machine::new();
    machine.ok("repo", "owner", &["init"]);
    let add = ["key", "add", "--role", "writer", "--label", "web", "--new-key-file", "key1"];
    machine.ok("repo", "owner", &add);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(machine.path("key1")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    machine.ok("repo", "key1", &["backup", "data", "--job", "web"]);
    machine.fails("repo", "key1", &["key", "rotate"], 1);
    machine.ok("repo", "owner", &["key", "rotate"]);
    machine.ok("repo", "key1", &["backup", "data", "--job", "web"]);
    machine.ok("repo", "owner", &["key", "passwd", "--new-password-file", "next"]);
    machine.fails("repo", "owner", &["key", "list"], 12);
    machine.fails("repo", "next", &["key", "remove", "owner"], 2);
    let list = machine.ok("repo", "next", &["key", "list"]);
    let web = list["keys"].as_array().unwrap().iter().find(|key| key["label"] == "web").unwrap();
    assert_eq!((&web["role"], &web["snapshots"]), (&"writer".into(), &2.into()));
    let revoked = machine.ok("repo", "next", &["key", "revoke", "web"]);
    assert_eq!(revoked["jobs"][0][1], 1);
    machine.fails("repo", "key1", &["snapshots"], 12);
    assert_eq!(machine.ok("repo", "next", &["snapshots"]).as_array().unwrap().len(), 2);
}

#[test]
fn copies_replicas_and_the_kit_work_from_the_command_line() {
    let machine = Machine::new();
    machine.ok("repo", "owner", &["init"]);
    machine.ok("repo", "owner", &["backup", "data", "--job", "one"]);
    machine.ok("other", "next", &["init"]);
    let to = ["copy", "--to", "other", "--to-password-file", "next"];
    let planned = machine.ok("repo", "owner", &[&to[..], &["--dry-run"]].concat());
    assert_eq!(planned["copied"][0]["to"], serde_json::Value::Null);
    assert_eq!(machine.ok("repo", "owner", &to)["way"], "resealed");
    assert_eq!(machine.ok("repo", "owner", &to)["present"].as_array().unwrap().len(), 1);
    machine.fails("repo", "owner", &["copy", "--to", "other"], 2);
    machine.fails("repo", "owner", &["copy", "--to", "repo"], 2);
    machine.fails("repo", "owner", &["copy", "--to", "nowhere"], 10);

    machine.ok("replica", "owner", &["init", "--replica-of", "repo"]);
    machine.ok("repo", "owner", &["key", "rotate"]);
    machine.ok("repo", "owner", &["backup", "data", "--job", "two"]);
    let copied = machine.ok("repo", "owner", &["copy", "--to", "replica"]);
    assert_eq!((&copied["way"], copied["copied"].as_array().unwrap().len()), (&"replicated".into(), 2));
    let ids = |repo| machine.ok(repo, "owner", &["snapshots"]).as_array().unwrap().len();
    assert_eq!((ids("repo"), ids("replica")), (2, 2));

    let kit = machine.ok("repo", "owner", &["kit", "export", "kit.txt", "--replica", "replica"]);
    assert_eq!(kit["addresses"].as_array().unwrap().len(), 2);
    machine.fails("repo", "owner", &["kit", "export", "kit.txt"], 1);
    assert_eq!(machine.ok("repo", "owner", &["kit", "show", "kit.txt"]), kit);
    remove_keys(&machine.path("repo"));
    machine.fails("repo", "owner", &["snapshots"], 20);
    let rows = machine.ok("repo", "owner", &["--kit", "kit.txt", "snapshots"]);
    assert_eq!(rows.as_array().unwrap().len(), 2);
    machine.fails("repo", "next", &["--kit", "kit.txt", "snapshots"], 12);
}
