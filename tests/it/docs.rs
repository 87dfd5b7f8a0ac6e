//! What the pages say of the program, held against its sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// Code before a file's own tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

fn is_variable(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Names of our own, wherever they stand; and what is asked of the environment by its name.
fn variables(path: &Path, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    found.extend(
        words
            .filter(|word| word.len() > 9 && word.starts_with("LIFEBOAT_") && is_variable(word))
            .map(|word| word.trim_end_matches('_').to_owned()),
    );
    let is_config = path.starts_with(root().join("src/config"));
    for (line, next) in text.lines().zip(text.lines().skip(1).chain([""])) {
        let asks = ["var_os(", "env::var(", "set(\"", "HARMLESS"].iter().any(|call| line.contains(call));
        if (is_config && !line.trim_start().starts_with("//")) || asks {
            // The list may begin on the next line.
            let both = if line.contains("HARMLESS") { format!("{line}{next}") } else { line.to_owned() };
            found.extend(
                both.split('"').skip(1).step_by(2).filter(|name| is_variable(name)).map(str::to_owned),
            );
        }
    }
    found
}

#[test]
fn every_variable_that_is_read_is_in_the_table() {
    let page = std::fs::read_to_string(root().join("docs/environment.md")).unwrap();
    let told: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let read: BTreeSet<String> = files.iter().flat_map(|path| variables(path, &code(path))).collect();
    for known in
        ["LIFEBOAT_PASSWORD_FILE", "PGPASSFILE", "NO_COLOR", "SSH_AUTH_SOCK", "LIFEBOAT_DRILL_PATH", "HOME"]
    {
        assert!(read.contains(known), "{known} is read, and the walk does not see it: {read:?}");
    }
    let is_told = |name: &&String| {
        told.contains(name.as_str()) || told.iter().any(|told| told.strip_suffix("_NAME") == Some(name))
    };
    let missing: Vec<&String> = read.iter().filter(|name| !is_told(name)).collect();
    assert!(missing.is_empty(), "not in docs/environment.md: {missing:?}");
    let own = told.iter().filter(|name| name.starts_with("LIFEBOAT_"));
    let gone: Vec<&&str> =
        own.filter(|name| !read.contains(name.strip_suffix("_NAME").unwrap_or(name))).collect();
    assert!(gone.is_empty(), "docs/environment.md has what nobody reads: {gone:?}");
}
