//! `verify` and `repair` as people and scripts meet them: exit codes, JSON, and what is said without a password.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn run(&self, password: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.arg("-r").arg(self.repository()).args(arguments).env_clear();
        command.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        command.envs(password.map(|password| ("LIFEBOAT_PASSWORD", password)));
        command.output().unwrap()
    }

    fn code(&self, arguments: &[&str]) -> i32 {
        self.run(Some("secret"), arguments).status.code().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> (i32, serde_json::Value) {
        let output = self.run(Some("secret"), arguments);
        let value = serde_json::from_slice(&output.stdout);
        let value = value.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().unwrap(), value)
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// The largest pack of file contents.
    fn pack(&self) -> PathBuf {
        let packs = std::fs::read_dir(self.repository().join("data")).unwrap().flatten();
        packs.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path()
    }
}

fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = std::fs::read(path).unwrap();
    edit(&mut bytes);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn place() -> Place {
    let place = Place { folder: tempfile::tempdir().unwrap() };
    let source = place.folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("kept.txt"), "kept").unwrap();
    std::fs::write(source.join("large"), vec![7; 300_000]).unwrap();
    assert_eq!(place.code(&["init"]), 0);
    assert_eq!(place.code(&["backup", source.to_str().unwrap()]), 0);
    place
}

#[test]
fn verify_exits_20_on_damage_and_says_what_it_costs() {
    let place = place();
    assert_eq!(place.code(&["verify", "--read-data"]), 0);
    assert_eq!(place.code(&["verify", "--read-data-subset", "1/3"]), 0);
    assert_eq!(place.code(&["verify", "--read-data-subset", "4/3"]), 2);
    assert_eq!(place.run(Some("wrong"), &["verify"]).status.code(), Some(12));
    change(&place.pack(), |bytes| bytes[140] ^= 1);
    // Blocks are not read by structure alone, and it says so.
    let (code, answer) = place.json(&["--json", "verify"]);
    assert_eq!((code, answer["result"].as_str()), (0, Some("ok")));
    assert!(answer["not_tested"].to_string().contains("file contents"), "{answer}");
    let (code, answer) = place.json(&["--json", "verify", "--read-data"]);
    assert_eq!((code, answer["result"].as_str()), (20, Some("damaged")));
    assert!(answer["costs"][0]["paths"].to_string().contains("large"), "{answer}");
    let keyless = place.run(None, &["verify", "--keyless"]);
    assert_eq!(keyless.status.code(), Some(20));
    let name = place.pack().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(String::from_utf8_lossy(&keyless.stdout).contains(&name), "{keyless:?}");
}

#[test]
fn repair_index_makes_the_index_anew_and_names_what_is_lost() {
    let place = place();
    for entry in std::fs::read_dir(place.repository().join("index")).unwrap().flatten() {
        change(&entry.path(), |bytes| bytes.truncate(50));
    }
    assert_eq!(place.code(&["verify"]), 20);
    let (code, plan) = place.json(&["--json", "repair", "index", "--dry-run"]);
    assert!(code == 0 && plan["unreadable"].as_array().unwrap().len() == 1, "{plan}");
    assert_eq!(place.code(&["repair", "index"]), 0);
    assert_eq!(place.code(&["verify", "--read-data"]), 0);
    std::fs::remove_file(place.pack()).unwrap();
    let output = place.run(Some("secret"), &["repair", "index"]);
    assert_eq!(output.status.code(), Some(20));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/large"), "{output:?}");
}
