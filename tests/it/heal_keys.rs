//! A damaged or lost config, roster, keyring or slot: verify reports it and goes on, and one command with the
//! recovery kit puts it back.

use std::path::PathBuf;

use crate::heal::{Place, change};

fn place() -> (Place, String) {
    let place = Place::small();
    let kit = place.folder.path().join("kit.txt").to_str().unwrap().to_owned();
    place.ok(&["kit", "export", &kit]);
    (place, kit)
}

fn objects(place: &Place) -> Vec<PathBuf> {
    let of = |folder: &str| {
        let entries = std::fs::read_dir(place.repository().join(folder)).unwrap().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    ["config", "roster", "keyring", "slots"].into_iter().flat_map(of).collect()
}

#[test]
fn the_kit_puts_back_each_object_that_opens_a_repository() {
    let (place, kit) = place();
    for path in objects(&place) {
        let before = std::fs::read(&path).unwrap();
        let name = path.strip_prefix(place.repository()).unwrap().to_str().unwrap();
        for missing in [false, true] {
            let what = format!("{name} missing: {missing}");
            if missing {
                std::fs::remove_file(&path).unwrap();
            } else {
                change(&path, |bytes| bytes[before.len() / 2] ^= 1);
            }
            let plain = place.run(&["snapshots"]);
            let told = String::from_utf8_lossy(&plain.stderr).into_owned();
            if !name.starts_with("keyring") {
                assert_eq!(plain.status.code(), Some(20), "{what}: {told}");
                assert!(told.contains("--kit FILE repair keys"), "{what}: {told}");
            }
            assert_eq!(place.code(&["verify", "--read-data"]), 20, "{what}");
            let (code, told) = place.json(&["--json", "--kit", &kit, "verify", "--read-data"]);
            assert_eq!(code, 20, "{what}: {told}");
            let folder = name.split('/').next().unwrap();
            assert!(told["findings"].to_string().contains(folder), "{what}: {told}");
            assert!(told["advice"].to_string().contains("repair keys"), "{what}: {told}");
            assert!(told["costs"].as_array().unwrap().is_empty(), "{what}: {told}");
            let (code, told) = place.json(&["--json", "--kit", &kit, "repair", "keys", "--dry-run"]);
            assert_eq!((code, told["plan"]["put_back"].as_array().unwrap().len()), (0, 1), "{what}: {told}");
            let (code, told) = place.json(&["--json", "--kit", &kit, "repair", "keys"]);
            assert_eq!((code, &told["done"]["put_back"][0]), (0, &name.into()), "{what}: {told}");
            assert_eq!(std::fs::read(&path).unwrap(), before, "{what}");
            assert_eq!(place.code(&["verify", "--read-data"]), 0, "{what}");
        }
    }
}

#[test]
fn verify_without_a_kit_reports_a_damaged_config_or_roster_and_goes_on() {
    let (place, _) = place();
    for name in ["config/0", "roster/0"] {
        let path = place.repository().join(name);
        let before = std::fs::read(&path).unwrap();
        change(&path, |bytes| bytes[before.len() / 2] ^= 1);
        let (code, told) = place.json(&["--json", "verify", "--read-data"]);
        assert_eq!((code, told["damaged"].as_u64()), (20, Some(1)), "{told}");
        assert_eq!(told["findings"][0]["object"], name, "{told}");
        assert!(told["checked"]["chunks_read"].as_u64().unwrap() > 0, "it went on: {told}");
        change(&path, |bytes| *bytes = before);
    }
}

#[test]
fn the_kit_of_another_repository_is_refused_by_name() {
    let (place, _) = place();
    let (_other, kit) = self::place();
    let output = place.run(&["--kit", &kit, "snapshots"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("for another repository"), "{told}");
}

#[test]
fn a_slot_that_was_removed_on_purpose_does_not_come_back() {
    let (place, kit) = place();
    let second = place.folder.path().join("second");
    std::fs::write(&second, "6e".repeat(32)).unwrap();
    let second = second.to_str().unwrap();
    place.ok(&["key", "add", "--role", "owner", "--label", "second", "--new-key-file", second]);
    let slot = objects(&place).pop().unwrap();
    let first = std::fs::read_dir(place.repository().join("slots")).unwrap().count();
    assert_eq!(first, 2);
    drop(slot);
    let list: serde_json::Value = serde_json::from_str(&place.ok(&["--json", "key", "list"])).unwrap();
    let slots = list["keys"][0]["slots"].as_array().unwrap();
    let old = slots.iter().find(|slot| slot["label"] != "second").unwrap()["id"].as_str().unwrap().to_owned();
    place.ok(&["--key-file", second, "key", "remove", "--yes", &old]);
    let (code, told) = place.json(&["--json", "--key-file", second, "--kit", &kit, "repair", "keys"]);
    assert_eq!((code, told["done"]["put_back"].as_array().unwrap().len()), (0, 0), "{told}");
    assert!(told["plan"]["left_out"].to_string().contains("on purpose"), "{told}");
    assert!(!place.repository().join("slots").join(&old).exists());
}
