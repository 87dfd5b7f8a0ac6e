//! Everything fuzzing ever found interesting, again, and a little random input, at every test run.

use std::path::PathBuf;

use lifeboat::format::parsers::{PARSERS, is_canonical};
use proptest::prelude::*;

#[path = "../../fuzz/checks.rs"]
mod checks;

/// Names of all targets.
fn targets() -> impl Iterator<Item = &'static str> {
    PARSERS.iter().map(|(name, _)| *name).chain(checks::CHECKS.iter().map(|(name, _)| *name))
}

fn check(target: &str, bytes: &[u8]) {
    if PARSERS.iter().any(|(name, _)| *name == target) {
        if let Err(encoded) = is_canonical(target, bytes) {
            panic!("{target} reads {bytes:?} but would write {encoded:?}");
        }
    } else {
        checks::check(target, bytes);
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| std::fs::read(entry.path()).unwrap()).collect()
}

#[test]
fn the_corpora_hold() {
    for target in targets() {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{target} has no corpus");
        for bytes in corpus {
            check(target, &bytes);
            // A truncation and a flip at every place of the small ones.
            for at in 0..bytes.len().min(2000) {
                check(target, &bytes[..at]);
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                check(target, &flipped);
            }
        }
    }
}

#[test]
fn every_fuzz_target_is_built_and_replayed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest: toml::Table = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
    let built: Vec<&str> =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    for entry in std::fs::read_dir(folder.join("fuzz_targets")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let name = name.strip_suffix(".rs").unwrap();
        assert!(targets().any(|known| known == name), "{name} is not replayed");
        assert!(built.contains(&name), "{name} is not in fuzz/Cargo.toml");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for target in targets() {
            check(target, &bytes);
        }
    }

    #[test]
    fn random_periods_print_as_they_are_read(text in "([0-9]{1,6}[ymwdh]){0,5}") {
        check("period", text.as_bytes());
    }

    #[test]
    fn random_text_never_panics(text in "(s3|sftp|b2|webdav|file|memory)?:?/{0,3}[a-z@:~./?=%0-9]{0,40}") {
        for (target, _) in checks::CHECKS {
            check(target, text.as_bytes());
        }
    }
}
