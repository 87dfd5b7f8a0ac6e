//! The house rules, each as a function from a file's text to what breaks it.

use std::collections::BTreeMap;
use std::fmt;

use super::imports::imports;
use super::lex::{Kind, Token, after_close, lex};

/// The longest a file may be, in lines.
pub const MAX_LINES: usize = 500;
/// From this many characters on, an `expect` message counts as a reason.
pub const MIN_REASON: usize = 15;
/// The lowest level that may read the environment.
const ENVIRONMENT_LEVEL: u32 = 8;
/// The lowest level that may print.
const PRINT_LEVEL: u32 = 10;

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    Header,
    Length,
    Import,
    Panic,
    Print,
    Environment,
    Hidden,
    Ignored,
    Unfinished,
}

impl Rule {
    pub const ALL: [Rule; 9] = [
        Rule::Header,
        Rule::Length,
        Rule::Import,
        Rule::Panic,
        Rule::Print,
        Rule::Environment,
        Rule::Hidden,
        Rule::Ignored,
        Rule::Unfinished,
    ];

    fn mend(self) -> &'static str {
        match self {
            Rule::Header => "open the file with //! lines: what it is, its place, the invariant it keeps",
            Rule::Length => "split the file where its parts know least of each other",
            Rule::Import => "move the shared part to a lower level, or take it as a parameter",
            Rule::Panic => "return an error, or say in expect(\"…\") why this cannot fail",
            Rule::Print => "return the value, or report it through base::progress or tracing",
            Rule::Environment => "take it as a parameter; config/ and above read the environment",
            Rule::Hidden => "use plain `mod name;`, so that levels can be read off the folders",
            Rule::Ignored => "make the test run, or delete it",
            Rule::Unfinished => "do it, or open an issue and delete the mark",
        }
    }
}

/// One broken rule.
#[derive(Debug)]
pub struct Breach {
    pub file: String,
    pub line: usize,
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Breach { file, line, rule, what } = self;
        write!(f, "{file}:{line}: {rule:?}: {what}; {}", rule.mend())
    }
}

/// Folder → level, read from the table in the crate's documentation, where it is stated once.
pub struct Levels(BTreeMap<String, u32>);

impl Levels {
    pub fn parse(lib: &str) -> Result<Self, String> {
        let mut levels = BTreeMap::new();
        for row in lib.lines().filter_map(|line| line.strip_prefix("//! |")) {
            let mut cells = row.split('|').map(str::trim);
            let Some(Ok(level)) = cells.next().map(str::parse::<u32>) else { continue };
            for folder in cells.next().unwrap_or("").split('`').skip(1).step_by(2) {
                if levels.insert(folder.to_owned(), level).is_some() {
                    return Err(format!("src/lib.rs: the level table names `{folder}` twice"));
                }
            }
        }
        if levels.is_empty() { Err("src/lib.rs has no level table".into()) } else { Ok(Self(levels)) }
    }

    pub fn of(&self, folder: &str) -> Option<u32> {
        self.0.get(folder).copied()
    }

    /// What stands directly in `src/` without a level; given as file names.
    pub fn missing<'a>(&self, entries: &'a [String]) -> Vec<&'a str> {
        let names = entries.iter().map(|entry| entry.trim_end_matches(".rs"));
        names.filter(|name| !matches!(*name, "lib" | "main") && self.of(name).is_none()).collect()
    }
}

/// A source file as the rules see it.
pub struct File<'a> {
    /// Relative to the crate, with `/`.
    pub path: &'a str,
    pub text: &'a str,
    /// Built only for tests, because another file declares it so or because of where it is.
    pub is_test: bool,
}

/// Everything a file breaks.
pub fn check(file: &File, levels: &Levels) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut report = |rule, line, what: String| {
        breaches.push(Breach { file: file.path.to_owned(), line, rule, what });
    };
    let count = file.text.lines().count();
    if count > MAX_LINES {
        report(Rule::Length, MAX_LINES + 1, format!("{count} lines, the limit is {MAX_LINES}"));
    }
    unfinished(file, &mut report);
    if !file.path.ends_with(".rs") {
        return breaches;
    }
    header(file, &mut report);
    let tokens = lex(file.text);
    ignored(file, &tokens, &mut report);
    if let Some(inside) = file.path.strip_prefix("src/") {
        let module = module_of(inside);
        // The two crate roots see everything.
        let home = module.first().map(String::as_str);
        let level = home.map_or(Some(u32::MAX), |home| levels.of(home)).unwrap_or(0);
        if let Some(home) = home {
            climbing(&tokens, &module, home, level, levels, &mut report);
        }
        hidden(&tokens, &mut report);
        if !file.is_test {
            panics(&tokens, &mut report);
            outside_world(&tokens, level, &mut report);
        }
    }
    // A group names its sibling once for every branch.
    breaches.dedup_by(|a, b| (a.rule, a.line, &a.what) == (b.rule, b.line, &b.what));
    breaches
}

type Report<'a> = dyn FnMut(Rule, usize, String) + 'a;

/// `pack/writer.rs` → pack, writer; a crate root is empty.
pub fn module_of(inside_src: &str) -> Vec<String> {
    let stem = inside_src.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    match stem {
        "lib" | "main" => Vec::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    }
}

fn header(file: &File, report: &mut Report) {
    const MIN_HEADER: usize = 20;
    let mut lines = file.text.lines().skip_while(|line| line.starts_with("#!/"));
    let first = lines.next().unwrap_or("");
    if first.strip_prefix("//!").is_none_or(|words| words.trim().len() < MIN_HEADER) {
        report(Rule::Header, 1, "no //! header".into());
    }
}

fn unfinished(file: &File, report: &mut Report) {
    // Assembled, so that this file does not report itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for (number, line) in file.text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(mark) = words.find(|word| marks.contains(word)) {
            report(Rule::Unfinished, number + 1, format!("the line says {mark}"));
        }
    }
}

fn ignored(file: &File, tokens: &[Token], report: &mut Report) {
    for (at, token) in tokens.iter().enumerate() {
        let opens = token.is('#') && tokens.get(at + 1).is_some_and(|t| t.is('['));
        if !opens {
            continue;
        }
        let attribute = &tokens[at + 2..after_close(tokens, at + 1)];
        let first = attribute.first().and_then(Token::word);
        let conditional = first == Some("cfg_attr") && attribute.iter().any(|t| t.word() == Some("ignore"));
        if first == Some("ignore") || conditional {
            report(Rule::Ignored, token.line, "a test that does not run".into());
        }
    }
    for (number, line) in file.text.lines().enumerate() {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let fence = doc.and_then(|doc| doc.trim_start().strip_prefix("```"));
        if fence.is_some_and(|info| info.split([',', ' ']).any(|word| word.starts_with("ignore"))) {
            report(Rule::Ignored, number + 1, "an example that does not run".into());
        }
    }
}

fn climbing(
    tokens: &[Token],
    module: &[String],
    home: &str,
    level: u32,
    levels: &Levels,
    report: &mut Report,
) {
    for import in imports(tokens, module) {
        let Some(target) = import.path.first() else {
            report(Rule::Import, import.line, "imports the crate's root, which hides the level".into());
            continue;
        };
        if target == home {
            continue;
        }
        let what = match levels.of(target) {
            Some(other) if other < level => continue,
            Some(other) if other == level => format!("`{home}` and `{target}` are siblings of level {level}"),
            Some(other) => format!("`{home}` (level {level}) imports `{target}` (level {other})"),
            None => format!("`{target}` is not in the level table"),
        };
        report(Rule::Import, import.line, what);
    }
}

/// Ways to place a module, or code, where the folder tree does not show it.
fn hidden(tokens: &[Token], report: &mut Report) {
    for (at, token) in tokens.iter().enumerate() {
        let path_attribute =
            at >= 2 && tokens[at - 2].is('#') && tokens[at - 1].is('[') && token.word() == Some("path");
        let include = token.word() == Some("include") && tokens.get(at + 1).is_some_and(|t| t.is('!'));
        if path_attribute || include {
            report(Rule::Hidden, token.line, "a module is placed by path or include".into());
        }
    }
}

fn panics(tokens: &[Token], report: &mut Report) {
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_test) {
        let Some(word) = token.word() else { continue };
        let is_member = at > 0 && (tokens[at - 1].is('.') || tokens[at - 1].is(':'));
        let is_macro = tokens.get(at + 1).is_some_and(|t| t.is('!'));
        // The argument of `expect(…)` or `unreachable!(…)`.
        let message = tokens.get(at + 2 + usize::from(is_macro)).map(|t| &t.kind);
        let has_reason = matches!(message, Some(Kind::Text(text)) if text.chars().count() >= MIN_REASON);
        let what = match word {
            "unwrap" | "unwrap_err" | "unwrap_unchecked" if is_member => format!("{word} outside tests"),
            "panic" | "todo" | "unimplemented" if is_macro => format!("{word}! outside tests"),
            "expect" | "expect_err" if is_member && !has_reason => {
                format!("{word} without a reason of {MIN_REASON} characters")
            }
            "unreachable" if is_macro && !has_reason => "unreachable! without a reason".into(),
            _ => continue,
        };
        report(Rule::Panic, token.line, what);
    }
}

fn outside_world(tokens: &[Token], level: u32, report: &mut Report) {
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_test) {
        let Some(word) = token.word() else { continue };
        let is_macro = tokens.get(at + 1).is_some_and(|t| t.is('!'));
        let parent = || match at {
            0..=2 => None,
            _ if tokens[at - 1].is(':') && tokens[at - 2].is(':') => tokens[at - 3].word(),
            _ => None,
        };
        let is_parent = tokens.get(at + 1).is_some_and(|t| t.is(':'));
        let in_group = at > 0 && (tokens[at - 1].is('{') || tokens[at - 1].is(','));
        match word {
            "dbg" if is_macro => report(Rule::Print, token.line, "dbg! was left behind".into()),
            "println" | "eprintln" | "print" | "eprint" if is_macro && level < PRINT_LEVEL => {
                report(Rule::Print, token.line, format!("{word}! below level {PRINT_LEVEL}"));
            }
            "stdout" | "stderr" if parent() == Some("io") && level < PRINT_LEVEL => {
                report(Rule::Print, token.line, format!("io::{word} below level {PRINT_LEVEL}"));
            }
            "env" | "option_env" if is_macro => {
                // What Cargo sets is a fact of the build, not of the machine.
                let name = tokens.get(at + 3).map(|t| &t.kind);
                let of_build = matches!(name, Some(Kind::Text(name)) if name.starts_with("CARGO_PKG_"));
                if !of_build && level < ENVIRONMENT_LEVEL {
                    report(Rule::Environment, token.line, format!("{word}! below level {ENVIRONMENT_LEVEL}"));
                }
            }
            "env" if level < ENVIRONMENT_LEVEL && (parent() == Some("std") || is_parent || in_group) => {
                let what = format!("std::env below level {ENVIRONMENT_LEVEL}");
                report(Rule::Environment, token.line, what);
            }
            "home_dir" if level < ENVIRONMENT_LEVEL => {
                let what = format!("the home folder below level {ENVIRONMENT_LEVEL}");
                report(Rule::Environment, token.line, what);
            }
            _ => {}
        }
    }
}
