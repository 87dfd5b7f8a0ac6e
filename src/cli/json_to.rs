//! Where `--json` goes: to stdout, with every verb; into a file, with those that write evidence.
//!
//! There it may be followed by a file, and is still the switch when it is not. A file is told from what follows by chance
//! (the name of a drill or of a run) by its dot or slash, which those do not have.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::CliError;

/// What stands for stdout.
pub const STDOUT: &str = "-";

/// What stood behind `--json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTo {
    Stdout,
    File(PathBuf),
    /// No file: the switch, and an argument that the verb takes by itself.
    Word(String),
}

impl JsonTo {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a file's name cannot be empty".into()),
            STDOUT => Ok(Self::Stdout),
            text if text.contains(['.', '/']) => Ok(Self::File(text.into())),
            text => Ok(Self::Word(text.to_owned())),
        }
    }

    /// Whether stdout gets JSON.
    pub fn is_switch(&self) -> bool {
        !matches!(self, Self::File(_))
    }
}

/// What a verb that writes evidence makes of `--json` and of the name that it takes: the file, and the name.
///
/// # Errors
/// Two names were given, and one of them was meant for a file.
pub fn file_and_name<'a>(
    json: Option<&'a JsonTo>,
    name: Option<&'a str>,
) -> Result<(Option<&'a Path>, Option<&'a str>), CliError> {
    match (json, name) {
        (Some(JsonTo::File(path)), name) => Ok((Some(path), name)),
        (Some(JsonTo::Word(word)), None) => Ok((None, Some(word))),
        (Some(JsonTo::Word(word)), Some(_)) => {
            let why = format!("--json {word}: a file's name has a dot or a slash in it");
            Err(CliError::usage(why).hint(format!("--json ./{word} writes it")))
        }
        (_, name) => Ok((None, name)),
    }
}

/// Whether a command line asks for JSON on stdout; for one that could not be understood.
pub fn is_asked(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let is_file = |next: &OsStr| {
            let next = next.to_string_lossy();
            !next.starts_with('-') && next.contains(['.', '/'])
        };
        if argument.as_ref() == "--json" && !arguments.peek().is_some_and(|next| is_file(next.as_ref())) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_name_by_its_dot_or_slash() {
        for file in ["out.json", "./out", "/tmp/out", ".."] {
            assert_eq!(JsonTo::parse(file), Ok(JsonTo::File(file.into())));
        }
        assert_eq!(JsonTo::parse("-"), Ok(JsonTo::Stdout));
        assert_eq!(JsonTo::parse("weekly#3"), Ok(JsonTo::Word("weekly#3".into())));
        assert!(JsonTo::parse("").is_err());
        let word = JsonTo::Word("weekly".into());
        assert_eq!(file_and_name(Some(&word), None).unwrap(), (None, Some("weekly")));
        let error = file_and_name(Some(&word), Some("monthly")).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("--json ./weekly writes it"));
    }

    #[test]
    fn errors_are_json_where_stdout_is() {
        assert!(is_asked(["lifeboat", "drill", "run", "--json", "--bogus"]));
        assert!(is_asked(["lifeboat", "--json", "drill"]) && is_asked(["drill", "run", "--json", "weekly"]));
        assert!(!is_asked(["lifeboat", "drill", "run", "--json", "./out", "--bogus"]));
    }
}
