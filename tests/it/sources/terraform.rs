//! Terraform state: in a file, in a bucket of a real S3 service, and through the program where that is installed.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::conformance::{self, Subject};
use crate::cli::Machine;
use crate::services::seaweed::{self, Seaweed};

const LINEAGE: &str = "3f0c4a10-9d43-7c6b-91d5-5b1bc2a7ad1f";

fn state(serial: u64, lineage: &str) -> String {
    serde_json::json!({
        "version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": lineage,
        "outputs": { "address": { "value": format!("10.0.0.{serial}"), "type": "string" } },
        "resources": (0..serial).map(|number| serde_json::json!({
            "mode": "managed", "type": "terraform_data", "name": format!("n{number}"),
            "provider": "provider[\"terraform.io/builtin/terraform\"]",
            "instances": [{ "schema_version": 0, "attributes": { "id": format!("id-{number}"),
                "input": null, "output": null, "triggers_replace": null }, "sensitive_attributes": [] }],
        })).collect::<Vec<_>>(),
        "check_results": null,
    })
    .to_string()
}

struct File {
    folder: tempfile::TempDir,
    made: u32,
}

impl File {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), made: 0 }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        format!("terraform:{}", self.path(name).display())
    }
}

impl Subject for File {
    fn address(&self) -> String {
        format!("terraform:{}", self.path("terraform.tfstate").display())
    }
    fn vacant(&mut self) -> String {
        self.made += 1;
        format!("terraform:{}", self.path(&format!("restored-{}.tfstate", self.made)).display())
    }
    fn fill(&mut self) {
        // Large enough for a pack of its own to be damaged.
        self.write("terraform.tfstate", &state(60, LINEAGE));
    }
    fn change(&mut self) {
        self.write("terraform.tfstate", &state(61, LINEAGE));
    }
    fn content(&self, address: &str) -> String {
        std::fs::read_to_string(address.strip_prefix("terraform:").unwrap()).unwrap()
    }
    fn nowhere(&self) -> String {
        format!("terraform:{}", self.path("missing.tfstate").display())
    }
}

#[test]
fn a_terraform_state_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut File::new());
}

#[test]
fn a_terraform_state_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&File::new());
}

#[test]
fn a_terraform_state_is_replaced_only_by_force_and_the_reason_is_told() {
    let subject = File::new();
    let machine = Machine::with_repository();
    let source = subject.write("terraform.tfstate", &state(5, LINEAGE));
    assert_eq!(machine.run(&["backup", &source]).code, 0);
    let target = subject.path("live.tfstate");
    let cases = [
        (state(9, LINEAGE), "is newer: serial 9, the snapshot has 5"),
        (state(3, "another"), "is of another lineage"),
        (state(3, LINEAGE), "holds a state already: serial 3, the snapshot has 5"),
        ("{".to_owned(), "is no state"),
    ];
    for (number, (there, why)) in cases.iter().enumerate() {
        let to = subject.write("live.tfstate", there);
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o640)).unwrap();
        let said = machine.run(&["restore", "latest", "--to", &to]);
        assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(why), "{}", said.stderr);
        assert!(said.stderr.contains("hint: --force"), "{}", said.stderr);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), *there);
        let said = machine.run(&["restore", "latest", "--to", &to, "--force"]);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), state(5, LINEAGE));
        assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o7777, 0o640);
        let kept = said.stdout.split("is kept as ").nth(1).unwrap().lines().next().unwrap();
        assert_eq!(std::fs::read_to_string(kept).unwrap(), *there, "{number}");
    }
    // The very same one is nothing to force.
    let said = machine.run(&["restore", "latest", "--to", &format!("terraform:{}", target.display())]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    // A new file is its owner's alone.
    let said = machine.run(&["restore", "latest", "--to", &subject.nowhere()]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(std::fs::metadata(subject.path("missing.tfstate")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn what_is_no_state_gives_no_snapshot_and_a_locked_one_is_left_alone() {
    let subject = File::new();
    let machine = Machine::with_repository();
    let source = subject.write("terraform.tfstate", &state(5, LINEAGE)[..200]);
    let said = machine.run(&["backup", &source]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("terraform.tfstate is no state: it is no JSON"), "{}", said.stderr);

    subject.write("terraform.tfstate", &state(5, LINEAGE));
    let lock = r#"{"ID": "1", "Operation": "OperationTypeApply", "Who": "ada@host"}"#;
    std::fs::write(subject.path(".terraform.tfstate.lock.info"), lock).unwrap();
    let said = machine.run(&["backup", &source]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("is locked (OperationTypeApply by ada@host)"), "{}", said.stderr);
    let said = machine.run(&["restore", "latest", "--to", &source, "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is locked"), "{}", said.stderr);
}

#[test]
fn a_state_in_a_bucket_is_captured_and_given_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let weed = runtime.block_on(Seaweed::start());
    let mut machine = Machine::with_repository();
    machine.set("AWS_ACCESS_KEY_ID", seaweed::KEY_ID);
    machine.set("AWS_SECRET_ACCESS_KEY", seaweed::SECRET);
    machine.set("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", weed.0.port));
    machine.set("AWS_REGION", "us-east-1");
    let subject = File::new();
    let file = subject.write("terraform.tfstate", &state(5, LINEAGE));
    assert_eq!(machine.run(&["backup", &file]).code, 0);
    let bucket = format!("terraform:s3://{}/Prod/terraform.tfstate", seaweed::BUCKET);
    let said = machine.run(&["backup", &bucket]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("there is no state"), "{}", said.stderr);
    let said = machine.run(&["restore", "latest", "--to", &bucket]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);

    let said = machine.run(&["--json", "backup", &bucket]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.json()["job"], bucket.as_str());
    let newer = subject.write("terraform.tfstate", &state(6, LINEAGE));
    assert_eq!(machine.run(&["backup", &newer]).code, 0);
    let latest = format!("{newer}@latest");
    let said = machine.run(&["restore", &latest, "--to", &bucket]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("holds a state already: serial 5, the snapshot has 6"), "{}", said.stderr);
    let said = machine.run(&["restore", &latest, "--to", &bucket, "--force"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("terraform.tfstate.before-"), "{}", said.stdout);

    machine.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let said = machine.run(&["backup", &bucket]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.starts_with("error: backup: "), "{}", said.stderr);
}

/// Debian has no Terraform: where it is not installed there is nothing to show.
#[test]
fn a_folder_of_configuration_is_asked_through_the_program() {
    if Command::new("terraform").arg("-version").output().is_err() {
        eprintln!("skipped: terraform is not installed");
        return;
    }
    let subject = File::new();
    let machine = Machine::with_repository();
    let make = |name: &str| {
        let folder = subject.path(name);
        std::fs::create_dir(&folder).unwrap();
        let text = "terraform {\n backend \"local\" {\n path = \"kept/here.tfstate\"\n }\n}\n\
                    resource \"terraform_data\" \"one\" { input = \"secret\" }\n";
        std::fs::write(folder.join("main.tf"), text).unwrap();
        terraform(&folder, &["init", "-input=false"]);
        folder
    };
    let source = make("source");
    let address = format!("terraform:{}", source.display());
    let said = machine.run(&["backup", &address]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("there is no state"), "{}", said.stderr);
    terraform(&source, &["apply", "-auto-approve", "-input=false"]);
    let said = machine.run(&["backup", &address]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let target = make("target");
    let to = format!("terraform:{}", target.display());
    let said = machine.run(&["restore", "latest", "--to", &to]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(terraform(&target, &["state", "list"]), "terraform_data.one\n");
    // What was made since is newer, and goes only by force.
    terraform(&target, &["apply", "-auto-approve", "-input=false", "-replace=terraform_data.one"]);
    let said = machine.run(&["restore", "latest", "--to", &to]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("is newer"), "{}", said.stderr);
    let said = machine.run(&["restore", "latest", "--to", &to, "--force"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let resources = |folder: &Path| {
        let state: serde_json::Value = serde_json::from_str(&terraform(folder, &["state", "pull"])).unwrap();
        (state["lineage"].clone(), state["resources"].clone())
    };
    assert_eq!(resources(&target), resources(&source));
    let kept = std::fs::read_dir(&target).unwrap().flatten().map(|entry| entry.file_name());
    assert!(kept.into_iter().any(|name| name.to_string_lossy().starts_with("terraform.tfstate.before-")));
}

fn terraform(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("terraform");
    command.args(arguments).current_dir(folder).env("CHECKPOINT_DISABLE", "1").env("TF_IN_AUTOMATION", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "terraform {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
