//! Code that breaks exactly one rule on a known line, and code that looks suspicious but breaks none.

use super::rules::{MAX_LINES, Rule};

/// A level table like the crate's own.
pub const LIB: &str = "//! | level | folders | what |
//! |---|---|---|
//! | 0 | `base` | |
//! | 1 | `format`, `policy` | |
//! | 2 | `seal`, `store` | |
//! | 3 | `pack` | |
//! | 5 | `engine` | |
//! | 8 | `config` | |
//! | 10 | `cli` | |";

/// What every sample opens with: line 1.
pub const HEADER: &str = "//! A sample that only the rules ever read.\n";

/// (rule, line, path, text)
pub fn bad() -> Vec<(Rule, usize, &'static str, String)> {
    let (pack, cli, test) = ("src/pack/writer.rs", "src/cli/mod.rs", "tests/it/pack.rs");
    let mut samples = vec![
        (Rule::Header, 1, pack, "fn f() {}".to_owned()),
        (Rule::Header, 1, test, "//!\nfn f() {}".to_owned()),
        (Rule::Header, 1, pack, "\n//! Too late: the header must come first.".to_owned()),
        (Rule::Length, MAX_LINES + 1, pack, format!("{HEADER}{}", "\n".repeat(MAX_LINES))),
        (Rule::Length, MAX_LINES + 1, "benches/peers/run", "\n".repeat(MAX_LINES + 1)),
    ];
    let rows = [
        (Rule::Import, pack, "use crate::engine::backup;"),
        (Rule::Import, pack, "pub use crate::engine::backup as b;"),
        (Rule::Import, pack, "use crate::{base::clock, engine::{self, backup}};"),
        (Rule::Import, pack, "use {crate::{seal::key, engine}};"),
        (Rule::Import, pack, "fn f() { crate::engine::backup::run() }"),
        (Rule::Import, pack, "fn f(x: &::lifeboat::engine::Options) {}"),
        (Rule::Import, pack, "fn f() { let x = <crate::engine::T as Clone>::clone(y); }"),
        (Rule::Import, pack, "use super::super::engine::backup;"),
        (Rule::Import, pack, "mod inner { use super::super::super::engine::backup; }"),
        (Rule::Import, pack, "mod inner { } use super::super::engine;"),
        (Rule::Import, pack, "macro_rules! m { () => { $crate::engine::run() } }"),
        (Rule::Import, pack, "#[cfg(test)] mod tests { use crate::engine::backup; }"),
        (Rule::Import, pack, "use crate::*;"),
        (Rule::Import, pack, "use crate as everything;"),
        (Rule::Import, pack, "extern crate self as everything;"),
        (Rule::Import, pack, "use super::super::*;"),
        (Rule::Import, pack, "use crate::Reexported;"),
        (Rule::Import, "src/seal/key.rs", "use crate::store::Store;"),
        (Rule::Import, "src/policy/mod.rs", "use super::format::id::SnapshotId;"),
        (Rule::Import, cli, "use crate::unknown::thing;"),
        (Rule::Panic, pack, "fn f() { g().unwrap() }"),
        (Rule::Panic, pack, "fn f() { g().map(Result::unwrap) }"),
        (Rule::Panic, pack, "fn f() { g().unwrap_err() }"),
        (Rule::Panic, pack, "fn f() { g().expect(\"short\") }"),
        (Rule::Panic, pack, "fn f() { g().expect(&message) }"),
        (Rule::Panic, pack, "fn f() { panic!(\"with the best of reasons\") }"),
        (Rule::Panic, pack, "fn f() { todo!() }"),
        (Rule::Panic, pack, "fn f() { unimplemented!(\"with the best of reasons\") }"),
        (Rule::Panic, pack, "fn f() { unreachable!() }"),
        (Rule::Panic, pack, "#[cfg(test)] mod tests { } fn f() { g().unwrap() }"),
        (Rule::Panic, pack, "#[cfg(test)] use a::b; fn f() { g().unwrap() }"),
        (Rule::Panic, pack, "#[cfg(not(test))] fn f() { g().unwrap() }"),
        (Rule::Panic, cli, "fn f<'a>(c: char) { if c == '\"' { g().unwrap() } }"),
        (Rule::Print, pack, "fn f() { println!(\"x\") }"),
        (Rule::Print, pack, "fn f() { std::eprint!(\"x\") }"),
        (Rule::Print, pack, "fn f() { std::io::stdout().flush() }"),
        (Rule::Print, cli, "fn f() { dbg!(x) }"),
        (Rule::Environment, pack, "fn f() { std::env::var(\"HOME\") }"),
        (Rule::Environment, pack, "use std::env;"),
        (Rule::Environment, pack, "use std::{fs, env};"),
        (Rule::Environment, pack, "fn f() { env::temp_dir() }"),
        (Rule::Environment, pack, "const X: &str = env!(\"HOME\");"),
        (Rule::Environment, pack, "const X: Option<&str> = option_env!(\"USER\");"),
        (Rule::Hidden, pack, "#[path = \"../engine/x.rs\"] mod x;"),
        (Rule::Hidden, pack, "include!(\"../engine/x.rs\");"),
        (Rule::Ignored, test, "#[test] #[ignore] fn f() {}"),
        (Rule::Ignored, test, "#[ignore = \"slow\"] #[test] fn f() {}"),
        (Rule::Ignored, test, "#[cfg_attr(windows, ignore)] #[test] fn f() {}"),
        (Rule::Ignored, pack, "/// ```ignore"),
        (Rule::Unfinished, pack, concat!("// TO", "DO: later")),
        (Rule::Unfinished, test, concat!("// FIX", "ME(me)")),
        (Rule::Unfinished, "tests/run", concat!("# X", "XX")),
    ];
    samples.extend(rows.map(|(rule, path, code)| (rule, 3, path, format!("{HEADER}\n{code}\n"))));
    samples
}

/// (path, text)
pub fn good() -> Vec<(&'static str, String)> {
    let pack = "src/pack/writer.rs";
    let rows = [
        (pack, "use crate::{base::clock::Clock, format::{self, id}, pack::reader};"),
        (pack, "use super::reader; use self::inner::x; use super::super::seal::key; mod inner {}"),
        (pack, "mod inner { use super::super::reader; use super::super::super::store::Store; }"),
        (pack, "pub(crate) fn f() -> impl Fn() + use<'static> { crate::seal::key::open() }"),
        (pack, "// use crate::engine; println!(), unwrap()\nconst X: &str = \".unwrap() crate::engine::x\";"),
        (pack, "fn f() { g().unwrap_or_default(); g().expect(\"the list is never empty\") }"),
        (pack, "fn f() { unreachable!(\"checked by the caller above\") }"),
        (pack, "#[cfg(test)] mod tests { use super::*; #[test] fn f() { g().unwrap(); println!() } }"),
        (pack, "#[cfg(all(test, unix))] fn f(x: [u8; 3]) -> Y { panic!() }"),
        (pack, "#[tokio::test(flavor = \"multi_thread\")] async fn f() { g().await.unwrap() }"),
        (pack, "const VERSION: &str = env!(\"CARGO_PKG_VERSION\"); fn f() { c.env(\"A\", \"B\").stdout(x) }"),
        (pack, "/// ```text\n/// ```\nfn f() { let ignore = 1; mktemp(\"a.XXXXXX\") }"),
        ("src/config/mod.rs", "fn f() { std::env::var(\"HOME\") }"),
        ("src/cli/mod.rs", "use crate::engine::backup; fn f() { println!(\"x\"); std::env::args(); }"),
        ("src/main.rs", "use lifeboat::cli; fn main() { eprintln!(\"x\") }"),
        ("tests/it/pack.rs", "use lifeboat::engine; #[test] fn f() { engine::x().unwrap() }"),
    ];
    let mut samples = rows.map(|(path, code)| (path, format!("{HEADER}\n{code}\n"))).to_vec();
    samples.push((pack, format!("{HEADER}{}", "\n".repeat(MAX_LINES - 1))));
    samples
}
