//! Which paths of a snapshot are wanted: include and exclude patterns in gitignore syntax, as backup takes them.
//!
//! Patterns see the original absolute path. With includes, only what matches one, or lies below something that
//! does, is wanted; the folders on the way there come along. Excludes win over includes.

use crate::engine::EngineError;
use crate::source::files::exclude::{ExcludeOptions, Excludes};

/// What the caller asked for.
#[derive(Clone, Debug, Default)]
pub struct FilterOptions {
    /// Gitignore patterns; none wants everything.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Upper and lower case alike, for all patterns.
    pub any_case: bool,
}

/// [`FilterOptions`], compiled.
#[derive(Debug)]
pub struct PathFilter {
    include: Option<Excludes>,
    exclude: Option<Excludes>,
}

/// What a path is to the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wanted,
    /// A folder that is not wanted itself, but something below it may be.
    Passage,
    Unwanted,
}

/// Compiles one list of patterns.
///
/// # Errors
/// The first that is not valid.
pub fn compile(patterns: &[String], any_case: bool) -> Result<Excludes, EngineError> {
    let patterns = patterns.to_vec();
    let options = if any_case {
        ExcludeOptions { patterns_any_case: patterns, ..ExcludeOptions::default() }
    } else {
        ExcludeOptions { patterns, ..ExcludeOptions::default() }
    };
    Excludes::new(&options).map_err(|error| EngineError::Refused(error.to_string()))
}

/// A key as the path that patterns see: no leading slash.
pub fn slashed(key: &[u8]) -> Vec<u8> {
    key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect()
}

impl PathFilter {
    /// # Errors
    /// The first pattern that is not valid.
    pub fn new(options: &FilterOptions) -> Result<Self, EngineError> {
        let compile = |patterns: &Vec<String>| {
            (!patterns.is_empty()).then(|| compile(patterns, options.any_case)).transpose()
        };
        Ok(Self { include: compile(&options.include)?, exclude: compile(&options.exclude)? })
    }

    /// Whether every path is wanted.
    pub fn is_open(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Judges a path whose parent was not [`Verdict::Unwanted`]. `parent_wanted`: the parent is wanted itself.
    pub fn judge(&self, key: &[u8], is_directory: bool, parent_wanted: bool) -> Verdict {
        if self.is_open() {
            return Verdict::Wanted;
        }
        if key.is_empty() {
            return if self.include.is_none() { Verdict::Wanted } else { Verdict::Passage };
        }
        let path = slashed(key);
        if self.exclude.as_ref().is_some_and(|exclude| exclude.matches(&path, is_directory)) {
            return Verdict::Unwanted;
        }
        match &self.include {
            None => Verdict::Wanted,
            Some(_) if parent_wanted => Verdict::Wanted,
            Some(include) if include.matches(&path, is_directory) => Verdict::Wanted,
            Some(_) if is_directory => Verdict::Passage,
            Some(_) => Verdict::Unwanted,
        }
    }

    /// Judges a path by itself and everything above it, from below `top` on.
    pub fn judge_deep(&self, key: &[u8], is_directory: bool, top: &[u8]) -> Verdict {
        let ends =
            key.iter().enumerate().filter(|(at, byte)| **byte == 0 && *at > top.len()).map(|(at, _)| at);
        let mut wanted = self.include.is_none();
        for end in ends.chain([key.len()]) {
            let directory = end < key.len() || is_directory;
            match self.judge(&key[..end], directory, wanted && self.include.is_some()) {
                Verdict::Unwanted => return Verdict::Unwanted,
                verdict => wanted = verdict == Verdict::Wanted,
            }
        }
        if wanted { Verdict::Wanted } else { Verdict::Passage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> PathFilter {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let options = FilterOptions { include: owned(include), exclude: owned(exclude), any_case: false };
        PathFilter::new(&options).unwrap()
    }

    #[test]
    fn excludes_win_and_includes_reach_down() {
        let f = filter(&["*.conf", "/srv/keep"], &["secret*"]);
        let judge =
            |path: &str, dir| f.judge_deep(&crate::repo::tree::key_of_path(path.as_bytes()), dir, b"");
        assert_eq!(judge("/etc/a.conf", false), Verdict::Wanted);
        assert_eq!(judge("/etc", true), Verdict::Passage);
        assert_eq!(judge("/etc/a.txt", false), Verdict::Unwanted);
        assert_eq!(judge("/srv/keep/deep/x", false), Verdict::Wanted);
        assert_eq!(judge("/srv/keep/secret.conf", false), Verdict::Unwanted);
        assert_eq!(judge("/x.conf/secret/y", false), Verdict::Unwanted);
    }

    #[test]
    fn without_patterns_everything_is_wanted() {
        let f = filter(&[], &[]);
        assert_eq!(f.judge_deep(b"a\0b", false, b""), Verdict::Wanted);
        assert_eq!(filter(&[], &["b"]).judge_deep(b"a\0b\0c", false, b""), Verdict::Unwanted);
    }
}
