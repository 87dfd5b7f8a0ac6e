//! What must hold of any bytes that reach a parser, one check for each fuzz target that is no plain parser of the
//! format. Fuzzing and the replay at every test run both call them.

use std::path::Path;

use lifeboat::base::secret::Secret;
use lifeboat::drill::check::CheckSpec;
use lifeboat::drill::evidence::SignedEvidence;
use lifeboat::drill::fault::FaultSpec;
use lifeboat::policy::period::Period;
use lifeboat::repo::kit::Kit;
use lifeboat::repo::snapshots::Selector;
use lifeboat::repo::tree::{key_of_path, path_of_key};
use lifeboat::runbook::redact::{MASK, Redactor};
use lifeboat::source::files::exclude::{ExcludeOptions, Excludes};
use lifeboat::source::files::target::Target;
use lifeboat::source::git::bundle::HeadReader;
use lifeboat::source::postgres::archive::Archive;
use lifeboat::source::{docker, hook, influx, mariadb, postgres, redis, terraform, victoria};
use lifeboat::store::Location;

/// A check; panics when it does not hold.
pub type Check = fn(&[u8]);

/// By the names of their targets, which are those of their corpora too.
pub const CHECKS: [(&str, Check); 24] = [
    ("slot", |bytes| drop(lifeboat::seal::slot::Slot::decode(bytes))),
    ("manifest_parts", |bytes| drop(lifeboat::seal::object::manifest_keyring(bytes))),
    ("location", location),
    ("selector", selector),
    ("period", period),
    ("byte_size", |bytes| drop(lifeboat::base::byte_size::parse(text(bytes)))),
    ("exclude", exclude),
    ("restore_key", restore_key),
    ("path_key", path_key),
    ("postgres_address", |bytes| shown_reads_the_same(bytes, postgres::Address::parse, |of| of.shown())),
    ("postgres_archive", |bytes| assert_eq!(archive(bytes, bytes.len().max(1)), archive(bytes, 7))),
    ("postgres_globals", postgres_globals),
    ("redis_rdb", redis::rdb::reads_alike),
    ("mariadb_address", |bytes| shown_reads_the_same(bytes, mariadb::Address::parse, |of| of.shown())),
    ("mariadb_dump", |bytes| assert_eq!(dump(bytes, bytes.len().max(1)), dump(bytes, 7))),
    ("victoria_export", |bytes| assert_eq!(export(bytes, bytes.len().max(1)), export(bytes, 7))),
    ("git_bundle", |bytes| assert_eq!(bundle(bytes, bytes.len().max(1)), bundle(bytes, 7))),
    ("terraform_state", |bytes| drop(terraform::State::parse(bytes))),
    ("short_words", short_words),
    ("config_file", config_file),
    ("runbook", runbook),
    ("redact", redact),
    ("kit", kit),
    ("evidence", evidence),
];

/// The check of a target.
pub fn check(target: &str, bytes: &[u8]) {
    match CHECKS.iter().find(|(name, _)| *name == target) {
        Some((_, check)) => check(bytes),
        None => panic!("no target {target}"),
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

/// What is accepted is shown as something that is accepted and shown the same.
fn shown_reads_the_same<T, E: std::fmt::Debug>(
    bytes: &[u8],
    parse: impl Fn(&str) -> Result<T, E>,
    shown: impl Fn(&T) -> String,
) {
    if let Ok(found) = parse(text(bytes)) {
        let first = shown(&found);
        let again = parse(&first).expect("what is shown can be read");
        assert_eq!(shown(&again), first);
    }
}

fn location(bytes: &[u8]) {
    shown_reads_the_same(bytes, |text| text.parse::<Location>(), Location::to_string);
}

fn selector(bytes: &[u8]) {
    Selector::parse(text(bytes));
    lifeboat::engine::verify::subset::Subset::parse(text(bytes));
}

fn period(bytes: &[u8]) {
    shown_reads_the_same(bytes, |text| text.parse::<Period>(), Period::to_string);
}

/// The first byte says where the patterns end and the path begins.
fn exclude(bytes: &[u8]) {
    let Some((at, rest)) = bytes.split_first() else { return };
    let (patterns, path) = rest.split_at(usize::from(*at).min(rest.len()));
    let files = vec![String::from_utf8_lossy(patterns).into_owned()];
    if let Ok(excludes) = Excludes::new(&ExcludeOptions { files, ..ExcludeOptions::default() }) {
        excludes.matches(path, path.len() % 2 == 0);
    }
}

/// No accepted key names anything outside the target.
fn restore_key(bytes: &[u8]) {
    if Target::check_key(bytes).is_ok() && !bytes.is_empty() {
        for name in bytes.split(|byte| *byte == 0) {
            assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
        }
    }
}

fn path_key(bytes: &[u8]) {
    if !bytes.contains(&0) {
        let key = key_of_path(bytes);
        assert_eq!(key_of_path(&path_of_key(&key)), key);
    }
}

fn archive(bytes: &[u8], piece: usize) -> String {
    let mut archive = Archive::default();
    for piece in bytes.chunks(piece) {
        if let Err(error) = archive.push(piece) {
            return error.to_string();
        }
    }
    let blocks: Vec<_> = archive.entries().iter().map(|entry| archive.block(entry.id)).collect();
    format!("{:?} {blocks:?} {:?}", archive.entries(), archive.finish())
}

fn postgres_globals(bytes: &[u8]) {
    for statement in postgres::globals::parse(bytes).0 {
        assert!(!statement.sql.trim().is_empty());
    }
}

/// What was in it and what is handed on; `None` when it is refused, which may be noticed earlier or later.
fn dump(bytes: &[u8], piece: usize) -> Option<String> {
    let (mut dump, mut out) = (mariadb::dump::Dump::new(true).renaming("shop", "other"), Vec::new());
    for part in bytes.chunks(piece) {
        dump.push(part, &mut out).ok()?;
    }
    Some(format!("{:?} {out:?}", dump.finish().ok()?))
}

fn export(bytes: &[u8], piece: usize) -> Option<victoria::series::Sum> {
    let mut series = victoria::series::Series::default();
    for part in bytes.chunks(piece) {
        series.push(part).ok()?;
    }
    series.finish().ok()
}

/// The head, and how many bytes it took; `None` while there is none, or when it is refused.
fn bundle(bytes: &[u8], piece: usize) -> Option<String> {
    let (mut reader, mut used) = (HeadReader::default(), 0);
    for part in bytes.chunks(piece) {
        used += part.len();
        if let Some(pack) = reader.push(part).ok()? {
            return Some(format!("{:?} {}", reader.head(), used - pack.len()));
        }
    }
    None
}

/// Addresses and the small languages of the command line.
fn short_words(bytes: &[u8]) {
    let text = text(bytes);
    drop(influx::Address::parse(text));
    drop(victoria::Address::parse(text));
    drop(docker::address::Address::parse("volume", text));
    drop(hook::Address::parse(text));
    drop(CheckSpec::parse(text, |time| Err(time.to_owned())));
    drop(text.parse::<FaultSpec>());
}

/// Refused with a reason, or understood.
fn config_file(bytes: &[u8]) {
    if let Err(error) = lifeboat::config::file::parse(Path::new("lifeboat.toml"), text(bytes)) {
        assert!(!error.to_string().is_empty());
    }
}

/// What is said of a runbook is said of a line it has.
fn runbook(bytes: &[u8]) {
    let Ok(runbook) = lifeboat::runbook::parse(Path::new("runbook.md"), text(bytes)) else { return };
    let lines = runbook.text.lines().count();
    for problem in lifeboat::runbook::check::check(&runbook, &|_| Ok(())) {
        assert!(problem.line <= lines.max(1), "{problem:?} of {lines} lines");
    }
}

/// The first byte says how long the secret is; no part of the text around it holds it afterwards.
fn redact(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let Some((secret, around)) = rest.split_at_checked(usize::from(*length).min(rest.len())) else { return };
    let clean =
        Redactor::new([Secret::from_text(secret.to_owned())]).clean(&format!("{around}{secret}{around}"));
    if secret.len() >= 4 {
        assert!(clean.split(MASK).all(|part| !part.contains(secret)), "{secret:?} in {clean:?}");
    }
}

fn kit(bytes: &[u8]) {
    if let Ok(kit) = Kit::decode(text(bytes)) {
        // What is written anew has a sum of its own.
        let again = Kit::decode(&kit.encode()).expect("what is written is a kit");
        assert_eq!(again, Kit { altered: false, ..kit });
    }
}

/// Nobody signed what is made up.
fn evidence(bytes: &[u8]) {
    if let Ok(evidence) = SignedEvidence::parse(bytes) {
        assert!(evidence.attest(&"11".repeat(32)).is_err());
        evidence.hash().expect("what was read can be written");
    }
}
