//! Golden vectors: fixed values, fixed keys and fixed randomness must give exactly the bytes that earlier builds
//! gave, and `docs/format.md` must list them.
//!
//! The plain vectors are files, `fuzz/corpus/<parser>/golden`, which are the fuzz targets' seeds as well. With
//! `LIFEBOAT_BLESS=1` missing files are written; existing ones are never changed, for a changed vector means a
//! new format version.

mod fixture;
mod sealed;
mod values;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(parser: &str) -> PathBuf {
    root().join("fuzz/corpus").join(parser).join("golden")
}

/// The line that `docs/format.md` must have for a vector.
fn line(name: &str, bytes: &[u8]) -> String {
    let hash = blake3::hash(bytes).to_hex();
    format!("| `{name}` | {} | `{}` |", bytes.len(), &hash[..32])
}

fn require_documented(lines: &[String]) {
    let text = std::fs::read_to_string(root().join("docs/format.md")).unwrap();
    let missing: Vec<_> = lines.iter().filter(|line| !text.contains(line.as_str())).collect();
    assert!(
        missing.is_empty(),
        "docs/format.md does not list\n{}",
        missing.iter().map(|l| format!("{l}\n")).collect::<String>()
    );
}

fn bless(path: &Path, bytes: &[u8]) {
    if std::env::var_os("LIFEBOAT_BLESS").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn every_plain_encoding_is_as_it_was() {
    let mut lines = Vec::new();
    for (parser, bytes) in values::all() {
        let path = file(parser);
        bless(&path, &bytes);
        let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(golden == bytes, "{parser} encodes otherwise than it did");
        assert_eq!(lifeboat::format::parsers::is_canonical(parser, &golden), Ok(true), "{parser}");
        lines.push(line(parser, &bytes));
    }
    for (parser, _) in lifeboat::format::parsers::PARSERS {
        assert!(file(parser).exists(), "{parser} has no golden vector");
    }
    require_documented(&lines);
}

#[test]
fn every_sealed_object_is_as_it_was() {
    let lines: Vec<_> = sealed::all().iter().map(|(name, bytes)| line(name, bytes)).collect();
    require_documented(&lines);
}

#[test]
fn the_documented_masks_are_the_ones_in_use() {
    let text = std::fs::read_to_string(root().join("docs/format.md")).unwrap();
    for bits in 9..=21 {
        let row = format!("| {bits} | `{:016x}` |", fastcdc::v2020::MASKS[bits]);
        assert!(text.contains(&row), "{row}");
    }
}
