//! Everything fuzzing ever found interesting, again, and a little random input, at every test run.

use std::path::PathBuf;

use lifeboat::format::parsers::{PARSERS, is_canonical};
use lifeboat::policy::period::Period;
use lifeboat::repo::snapshots::Selector;
use lifeboat::repo::tree::{key_of_path, path_of_key};
use lifeboat::seal::object::manifest_keyring;
use lifeboat::seal::slot::Slot;
use lifeboat::source::files::exclude::{ExcludeOptions, Excludes};
use lifeboat::source::files::target::Target;
use lifeboat::source::postgres::Address;
use lifeboat::source::postgres::archive::Archive;
use lifeboat::store::Location;
use proptest::prelude::*;

/// What is not a parser of `format`; the same checks as in `fuzz/fuzz_targets/<name>.rs`.
fn check_other(target: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or("");
    match target {
        "slot" => drop(Slot::decode(bytes)),
        "manifest_parts" => drop(manifest_keyring(bytes)),
        "location" => {
            if let Ok(location) = text.parse::<Location>() {
                let shown = location.to_string();
                assert_eq!(shown.parse::<Location>().unwrap().to_string(), shown);
            }
        }
        "selector" => {
            Selector::parse(text);
            lifeboat::engine::verify::subset::Subset::parse(text);
        }
        "period" => {
            if let Ok(period) = text.parse::<Period>() {
                assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
            }
        }
        "redis_rdb" => lifeboat::source::redis::rdb::reads_alike(bytes),
        "postgres_archive" => assert_eq!(read_archive(bytes, bytes.len().max(1)), read_archive(bytes, 7)),
        "postgres_globals" => {
            for statement in lifeboat::source::postgres::globals::parse(bytes).0 {
                assert!(!statement.sql.trim().is_empty());
            }
        }
        "postgres_address" => {
            if let Ok(address) = Address::parse(text) {
                let shown = address.shown();
                assert_eq!(Address::parse(&shown).unwrap().shown(), shown);
            }
        }
        "byte_size" => drop(lifeboat::base::byte_size::parse(text)),
        "exclude" => {
            let Some((at, rest)) = bytes.split_first() else { return };
            let (patterns, path) = rest.split_at(usize::from(*at).min(rest.len()));
            let files = vec![String::from_utf8_lossy(patterns).into_owned()];
            if let Ok(excludes) = Excludes::new(&ExcludeOptions { files, ..ExcludeOptions::default() }) {
                excludes.matches(path, path.len() % 2 == 0);
            }
        }
        "restore_key" if Target::check_key(bytes).is_ok() && !bytes.is_empty() => {
            for name in bytes.split(|byte| *byte == 0) {
                assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
            }
        }
        "path_key" if !bytes.contains(&0) => {
            let key = key_of_path(bytes);
            assert_eq!(key_of_path(&path_of_key(&key)), key);
        }
        _ => {}
    }
}

fn read_archive(bytes: &[u8], piece: usize) -> String {
    let mut archive = Archive::default();
    for piece in bytes.chunks(piece) {
        if let Err(error) = archive.push(piece) {
            return error.to_string();
        }
    }
    let blocks: Vec<_> = archive.entries().iter().map(|entry| archive.block(entry.id)).collect();
    format!("{:?} {blocks:?} {:?}", archive.entries(), archive.finish())
}

const OTHER: [&str; 13] = [
    "redis_rdb",
    "postgres_archive",
    "postgres_globals",
    "postgres_address",
    "slot",
    "manifest_parts",
    "location",
    "selector",
    "period",
    "byte_size",
    "exclude",
    "restore_key",
    "path_key",
];

fn check(target: &str, bytes: &[u8]) {
    if PARSERS.iter().any(|(name, _)| *name == target) {
        if let Err(encoded) = is_canonical(target, bytes) {
            panic!("{target} reads {bytes:?} but would write {encoded:?}");
        }
    } else {
        check_other(target, bytes);
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| std::fs::read(entry.path()).unwrap()).collect()
}

#[test]
fn the_corpora_hold() {
    for target in PARSERS.iter().map(|(name, _)| *name).chain(OTHER) {
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
fn every_fuzz_target_is_replayed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let name = name.strip_suffix(".rs").unwrap();
        assert!(PARSERS.iter().any(|(parser, _)| *parser == name) || OTHER.contains(&name), "{name}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for target in PARSERS.iter().map(|(name, _)| *name).chain(OTHER) {
            check(target, &bytes);
        }
    }

    #[test]
    fn random_periods_print_as_they_are_read(text in "([0-9]{1,6}[ymwdh]){0,5}") {
        check("period", text.as_bytes());
    }

    #[test]
    fn random_text_never_panics(text in "(s3|sftp|b2|webdav|file|memory)?:?/{0,3}[a-z@:~./?=%0-9]{0,40}") {
        for target in OTHER {
            check(target, text.as_bytes());
        }
    }
}
