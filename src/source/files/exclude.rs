//! What a walk leaves out: patterns, marked directories, large files.
//!
//! Patterns are gitignore syntax. One starting with `/` is an absolute path, any other matches at every depth
//! (`foo/bar` as well as `foo`; git would anchor the former to the folder of its ignore file, which a command
//! line does not have). The last matching pattern decides, so `!pattern` takes an earlier one back; as with git,
//! nothing below an excluded directory can be taken back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// A pattern that is not gitignore syntax.
#[derive(Debug, thiserror::Error)]
#[error("exclude pattern {pattern:?} is not valid")]
pub struct PatternError {
    pub pattern: String,
    #[source]
    cause: ignore::Error,
}

/// What to leave out, as the caller gave it. Snapshots record it: a field that is not set is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ExcludeOptions {
    /// Gitignore patterns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<String>,
    /// The same, upper and lower case alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns_any_case: Vec<String>,
    /// Contents of pattern files, a pattern a line, `#` comments; read by the caller.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The same, upper and lower case alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_any_case: Vec<String>,
    /// Leave out what is in directories that hold a `CACHEDIR.TAG` with its signature, but for the tag.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub caches: bool,
    /// Leave out what is in directories that hold such a file: `name`, or `name:header` when it must also start
    /// with `header`. The marker itself is kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub if_present: Vec<String>,
    /// Leave out regular files larger than this many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub larger_than_bytes: Option<u64>,
}

impl ExcludeOptions {
    /// The pattern that matches one absolute path and nothing else.
    pub fn exactly(path: &str) -> String {
        let special =
            |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '/' | '-' | '_' | '.');
        let mut pattern = String::with_capacity(path.len());
        for c in path.chars() {
            if special(c) {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern
    }
}

/// A file whose presence empties its directory.
#[derive(Debug)]
pub(super) struct Marker {
    pub name: Vec<u8>,
    /// How the file must begin; empty when its presence is enough.
    pub header: Vec<u8>,
}

/// [`ExcludeOptions`], compiled.
#[derive(Debug)]
pub struct Excludes {
    exact: Gitignore,
    any_case: Gitignore,
    pub(super) markers: Vec<Marker>,
    larger_than_bytes: u64,
}

/// From the Cache Directory Tagging Specification, <https://bford.info/cachedir/>.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

impl Excludes {
    /// Compiles the options.
    ///
    /// # Errors
    /// The first pattern that is not valid.
    pub fn new(options: &ExcludeOptions) -> Result<Self, PatternError> {
        let mut markers = Vec::new();
        if options.caches {
            markers.push(Marker { name: b"CACHEDIR.TAG".to_vec(), header: CACHE_SIGNATURE.to_vec() });
        }
        for marker in &options.if_present {
            let (name, header) = marker.split_once(':').unwrap_or((marker, ""));
            markers.push(Marker { name: name.into(), header: header.into() });
        }
        Ok(Self {
            exact: compile(&options.files, &options.patterns, false)?,
            any_case: compile(&options.files_any_case, &options.patterns_any_case, true)?,
            markers,
            larger_than_bytes: options.larger_than_bytes.unwrap_or(u64::MAX),
        })
    }

    /// Whether patterns exist at all; without them nobody needs to spell out paths.
    pub fn has_patterns(&self) -> bool {
        !self.exact.is_empty() || !self.any_case.is_empty()
    }

    /// Whether a pattern leaves out `path` (no leading slash).
    pub fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        let decide = |matcher: &Gitignore| match matcher.matched(path, is_directory) {
            Match::Ignore(_) => true,
            Match::None | Match::Whitelist(_) => false,
        };
        decide(&self.exact) || decide(&self.any_case)
    }

    /// Whether a regular file of this size is left out.
    pub fn too_large(&self, size_bytes: u64) -> bool {
        size_bytes > self.larger_than_bytes
    }

    /// Whether a file of this name may empty its directory.
    pub fn is_marker(&self, name: &[u8]) -> bool {
        self.markers.iter().any(|marker| marker.name == name)
    }
}

fn compile(files: &[String], patterns: &[String], any_case: bool) -> Result<Gitignore, PatternError> {
    let mut builder = GitignoreBuilder::new("");
    let failed = |pattern: &str| {
        let pattern = pattern.to_owned();
        move |cause| PatternError { pattern, cause }
    };
    builder.case_insensitive(any_case).map_err(failed(""))?;
    let lines = files.iter().flat_map(|file| file.trim_start_matches('\u{feff}').lines());
    for line in lines.chain(patterns.iter().map(String::as_str)) {
        builder.add_line(None, &at_any_depth(line)).map_err(failed(line))?;
    }
    builder.build().map_err(failed(""))
}

/// Gives a pattern with a slash inside, but none in front, the prefix that lets it match at every depth.
fn at_any_depth(line: &str) -> String {
    let (sign, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", line),
    };
    let body = pattern.trim_end().trim_end_matches('/');
    if line.starts_with('#') || pattern.starts_with('/') || !body.contains('/') || body.starts_with("**/") {
        return line.to_owned();
    }
    format!("{sign}**/{pattern}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(patterns: &[&str]) -> Excludes {
        let patterns = patterns.iter().map(|&p| p.to_owned()).collect();
        Excludes::new(&ExcludeOptions { patterns, ..ExcludeOptions::default() }).unwrap()
    }

    #[test]
    fn patterns_match_like_gitignore_from_the_root() {
        for (pattern, path, is_directory, excluded) in [
            ("*.o", "srv/a/b.o", false, true),
            ("/srv/a", "srv/a", true, true),
            ("/srv/a", "x/srv/a", true, false),
            ("cache/", "srv/cache", true, true),
            ("cache/", "srv/cache", false, false),
            ("app/logs", "srv/app/logs", true, true),
            ("app/logs/", "srv/app/logs", false, false),
            ("**/tmp/*", "a/tmp/x", false, true),
            ("/srv/**/x", "srv/a/b/x", false, true),
            ("# comment", "# comment", false, false),
            ("\\#x", "#x", false, true),
            (&ExcludeOptions::exactly("/a b/[x]*{1} "), "a b/[x]*{1} ", true, true),
            (&ExcludeOptions::exactly("/a b/[x]*{1} "), "a b/xy{1} ", true, false),
            ("a", "A", false, false),
        ] {
            assert_eq!(
                excludes(&[pattern]).matches(path.as_bytes(), is_directory),
                excluded,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn the_last_pattern_decides() {
        let excludes = excludes(&["*.log", "!keep/this.log"]);
        assert!(excludes.matches(b"srv/a.log", false));
        assert!(!excludes.matches(b"srv/keep/this.log", false));
    }

    #[test]
    fn case_is_ignored_where_asked() {
        let options = ExcludeOptions {
            patterns_any_case: vec!["*.TMP".into()],
            files: vec!["# c\n*.bak\n".into()],
            ..Default::default()
        };
        let excludes = Excludes::new(&options).unwrap();
        assert!(excludes.matches(b"a/x.tmp", false));
        assert!(excludes.matches(b"a/x.bak", false));
        assert!(!excludes.matches(b"a/x.BAK", false));
        assert!(!excludes.matches(b"\xff\xfe", false));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let options = ExcludeOptions { patterns: vec!["a{".into()], ..Default::default() };
        let _ = Excludes::new(&options);
        let options = ExcludeOptions { patterns: vec!["[z-a]".into()], ..Default::default() };
        assert!(Excludes::new(&options).unwrap_err().to_string().contains("[z-a]"));
    }
}
