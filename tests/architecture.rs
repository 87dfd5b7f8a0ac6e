//! Holds the shape of the house: levels, headers, lengths, and what must not be said where.
//!
//! The level table is the one in the documentation of `src/lib.rs`. Every rule has samples that it must catch
//! and samples that it must let pass; a check that cannot fail is a defect.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/lex.rs"]
mod lex;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/samples.rs"]
mod samples;

use lex::{Token, lex};
use rules::{File, Levels, check, module_of};

/// Everything that may stand beside `Cargo.toml`, dot files and what Git ignores apart.
const TOP_LEVEL: [&str; 15] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "Containerfile",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "docs",
    "dr-runbooks",
    "examples",
    "fuzz",
    "rustfmt.toml",
    "src",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().expect("names here are UTF-8"))
        .collect();
    names.sort();
    names
}

/// Every code file below `folder`, relative to the crate: Rust, Python and shell, by ending or by first line.
fn code_files(folder: &str, found: &mut Vec<(String, String)>) {
    if !root().join(folder).is_dir() {
        return;
    }
    for name in names(&root().join(folder)) {
        let path = format!("{folder}/{name}");
        let full = root().join(&path);
        if name.starts_with('.') || ["target", "corpus", "artifacts"].contains(&name.as_str()) {
            continue;
        } else if full.is_dir() {
            code_files(&path, found);
            continue;
        }
        let ending = name.rsplit_once('.').map(|(_, ending)| ending);
        if matches!(ending, Some("rs" | "py" | "sh") | None)
            && let Ok(text) = fs::read_to_string(&full)
            && (ending.is_some() || text.starts_with("#!"))
        {
            found.push((path, text));
        }
    }
}

/// Modules that another file declares under `#[cfg(test)]`: `pack::writer::tests`.
fn test_modules(files: &[(String, String)]) -> BTreeSet<Vec<String>> {
    let mut modules = BTreeSet::new();
    for (path, text) in files {
        let Some(inside) = path.strip_prefix("src/") else { continue };
        for declared in lex(text).windows(3) {
            if let [keyword, name, end] = declared
                && keyword.is_test
                && keyword.word() == Some("mod")
                && end.is(';')
            {
                let mut module = module_of(inside);
                module.extend(name.word().map(str::to_owned));
                modules.insert(module);
            }
        }
    }
    modules
}

#[test]
fn the_house_keeps_its_shape() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let levels = Levels::parse(&lib).unwrap();
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz", "examples"] {
        code_files(folder, &mut files);
    }
    assert!(files.iter().any(|(path, _)| path == "src/base/cancel.rs"), "the walk found no sources");

    let test_modules = test_modules(&files);
    let mut breaches = Vec::new();
    for (path, text) in &files {
        let module = path.strip_prefix("src/").map(module_of);
        let is_test = module
            .is_none_or(|module| test_modules.iter().any(|test_module| module.starts_with(test_module)));
        breaches.extend(check(&File { path, text, is_test }, &levels));
    }
    let mut report: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    for name in levels.missing(&names(&root().join("src"))) {
        report.push(format!(
            "src/{name}: not in the level table; give it a row in the //! table of src/lib.rs"
        ));
    }
    report.extend(strangers(&names(&root())));
    assert!(report.is_empty(), "{} breaches of the house rules:\n{}", report.len(), report.join("\n"));
}

fn strangers(names: &[String]) -> Vec<String> {
    let allowed = |name: &str| {
        name.starts_with('.') || ["target", "tests"].contains(&name) || TOP_LEVEL.contains(&name)
    };
    let strangers = names.iter().filter(|name| !allowed(name));
    strangers.map(|name| format!("{name}: does not belong at the top level; move it into a folder")).collect()
}

#[test]
fn every_rule_catches_its_bad_samples_where_they_are() {
    let levels = Levels::parse(samples::LIB).unwrap();
    for (rule, line, path, text) in samples::bad() {
        let breaches = check(&File { path, text: &text, is_test: false }, &levels);
        let found: Vec<_> = breaches.iter().map(|breach| (breach.rule, breach.line)).collect();
        assert_eq!(found, [(rule, line)], "{path}:\n{text}");
        let message = breaches[0].to_string();
        assert!(
            message.starts_with(&format!("{path}:{line}: {rule:?}: ")) && message.contains("; "),
            "{message}"
        );
    }
    let seen: BTreeSet<_> = samples::bad().into_iter().map(|(rule, ..)| rule).collect();
    assert_eq!(seen, rules::Rule::ALL.into_iter().collect(), "a rule has no bad sample");
}

#[test]
fn good_samples_pass() {
    let levels = Levels::parse(samples::LIB).unwrap();
    for (path, text) in samples::good() {
        let breaches = check(&File { path, text: &text, is_test: false }, &levels);
        let report: Vec<_> = breaches.iter().map(ToString::to_string).collect();
        assert!(report.is_empty(), "{report:?}\n{text}");
    }
}

#[test]
fn the_level_table_is_read_and_gaps_in_it_are_found() {
    let levels = Levels::parse(samples::LIB).unwrap();
    assert_eq!((levels.of("base"), levels.of("policy"), levels.of("cli")), (Some(0), Some(1), Some(10)));
    let entries = ["base", "lib.rs", "main.rs", "stray.rs", "misc"].map(str::to_owned);
    assert_eq!(levels.missing(&entries), ["stray", "misc"]);
    assert!(Levels::parse("//! no table").is_err());
    assert!(Levels::parse("//! | 0 | `a` | |\n//! | 1 | `a` | |").is_err());
    assert_eq!(strangers(&["src".into(), "notes.txt".into()]).len(), 1);
}

#[test]
fn a_test_module_in_its_own_file_counts_as_test_code() {
    let files = [("src/pack/writer.rs".to_owned(), "#[cfg(test)]\nmod tests;\nmod other;".to_owned())];
    let modules = test_modules(&files);
    assert!(modules.contains(["pack", "writer", "tests"].map(str::to_owned).as_slice()));
    assert_eq!(modules.len(), 1);
    let text = format!("{}fn f() {{ g().unwrap() }}", samples::HEADER);
    let levels = Levels::parse(samples::LIB).unwrap();
    assert!(
        check(&File { path: "src/pack/writer/tests.rs", text: &text, is_test: true }, &levels).is_empty()
    );
}

#[test]
fn comments_strings_and_lifetimes_do_not_confuse_the_lexer() {
    let text = r####"/* a /* b */ c */ x<'a>('"', '\'', b'"', "// \" y", r#"z" "#, r#type) // w"####;
    let words: Vec<String> = lex(text).iter().filter_map(Token::word).map(str::to_owned).collect();
    assert_eq!(words, ["x", "type"]);
}
