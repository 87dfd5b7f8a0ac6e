//! `docker-volume:NAME?options` and `docker-project:NAME?options`: what is meant, and how it may be treated.
//!
//! Pure. Options are parsed strictly: a misspelt one is an error, never ignored.

use std::time::Duration;

use super::DockerError;
use crate::base::url::{Url, nearest};

/// Every option there is.
const OPTIONS: [&str; 8] =
    ["crash-unsafe", "exclude-volume", "exec-post", "exec-pre", "max-stop", "pause", "read", "stop"];
/// How long containers may stand still unless somebody says otherwise.
const MAX_STOP: Duration = Duration::from_secs(30 * 60);
/// Longest name believed.
const NAME_LIMIT: usize = 255;

/// How volumes are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// Their folders where the daemon is proven to share our file system, else through the engine.
    #[default]
    Auto,
    /// Always through the engine.
    Engine,
    /// Their folders, or not at all.
    Folder,
}

/// What is done to containers while their volumes are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whom {
    /// Those whose labels ask for it.
    #[default]
    Labelled,
    /// All that write to a volume that is captured.
    All,
    /// These services or containers, by name.
    Named(Vec<String>),
}

/// What was asked for besides the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub reading: Reading,
    /// A database's files under a running server are read all the same.
    pub crash_unsafe: bool,
    pub stop: Whom,
    pub pause: Whom,
    /// Service and command.
    pub exec_pre: Vec<(String, String)>,
    pub exec_post: Vec<(String, String)>,
    pub max_stop: Duration,
    /// Of a project.
    pub exclude_volumes: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reading: Reading::Auto,
            crash_unsafe: false,
            stop: Whom::Labelled,
            pause: Whom::Labelled,
            exec_pre: Vec::new(),
            exec_post: Vec::new(),
            max_stop: MAX_STOP,
            exclude_volumes: Vec::new(),
        }
    }
}

/// A parsed address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Of the volume or project.
    pub name: String,
    pub options: Options,
}

impl Address {
    /// Parses what follows the scheme.
    ///
    /// # Errors
    /// No name of `what` (`volume`, `project`), an unknown option, a value that makes no sense.
    pub fn parse(what: &str, text: &str) -> Result<Self, DockerError> {
        let (name, query) = text.split_once('?').unwrap_or((text, ""));
        if !is_name(name) {
            let why = format!(
                "{name:?} is no name of a {what}\nhint: names begin with a letter or digit; letters, digits, _ . - follow"
            );
            return Err(DockerError::Refused(why));
        }
        let url =
            Url::parse(&format!("?{query}")).map_err(|error| DockerError::Refused(error.to_string()))?;
        let mut options = Options::default();
        for (key, value) in &url.query {
            options.set(key, value)?;
        }
        Ok(Self { name: name.to_owned(), options })
    }
}

/// What the engine takes for a name. Nothing of it needs escaping in a path.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first
        && text.len() <= NAME_LIMIT
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

impl Options {
    fn set(&mut self, key: &str, value: &str) -> Result<(), DockerError> {
        match key {
            "crash-unsafe" => self.crash_unsafe = yes_or_no(key, value)?,
            "stop" => self.stop = whom(value),
            "pause" => self.pause = whom(value),
            "exclude-volume" => self.exclude_volumes.push(value.to_owned()),
            "exec-pre" => self.exec_pre.push(command(key, value)?),
            "exec-post" => self.exec_post.push(command(key, value)?),
            "max-stop" => {
                self.max_stop = duration(value).ok_or_else(|| bad(key, value, "a time such as 90s or 10m"))?
            }
            "read" => {
                self.reading = match value {
                    "auto" => Reading::Auto,
                    "engine" => Reading::Engine,
                    "folder" => Reading::Folder,
                    _ => return Err(bad(key, value, "auto, engine or folder")),
                }
            }
            _ => {
                let hint = match nearest(key, &OPTIONS) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", OPTIONS.join(", ")),
                };
                return Err(DockerError::Refused(format!("there is no option {key:?}\nhint: {hint}")));
            }
        }
        Ok(())
    }
}

fn bad(key: &str, value: &str, wanted: &str) -> DockerError {
    DockerError::Refused(format!("{key}={value} makes no sense\nhint: write {wanted}"))
}

fn yes_or_no(key: &str, value: &str) -> Result<bool, DockerError> {
    match value {
        "" | "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(bad(key, value, "yes or no")),
    }
}

fn whom(value: &str) -> Whom {
    match value {
        "" | "yes" | "true" | "all" => Whom::All,
        "no" | "false" | "none" => Whom::Named(Vec::new()),
        names => Whom::Named(names.split(',').map(str::to_owned).collect()),
    }
}

fn command(key: &str, value: &str) -> Result<(String, String), DockerError> {
    match value.split_once(':') {
        Some((service, command)) if !service.is_empty() && !command.trim().is_empty() => {
            Ok((service.to_owned(), command.to_owned()))
        }
        _ => Err(bad(key, value, "SERVICE:COMMAND")),
    }
}

/// `90s`, `10m`, `2h`; a bare number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => number,
        "m" | "min" => number.checked_mul(60)?,
        "h" => number.checked_mul(3600)?,
        _ => return None,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::parse(
            "volume",
            "my.vol-1_x?stop=web,db&max-stop=90s&exec-pre=web:sync%20%26%26%20true&crash-unsafe=true&read=engine",
        )
        .unwrap();
        assert_eq!(address.name, "my.vol-1_x");
        let options = address.options;
        assert_eq!(options.stop, Whom::Named(vec!["web".into(), "db".into()]));
        assert_eq!(options.pause, Whom::Labelled);
        assert_eq!(options.max_stop, Duration::from_secs(90));
        assert_eq!(options.exec_pre, vec![("web".into(), "sync && true".into())]);
        assert!(options.crash_unsafe);
        assert_eq!(options.reading, Reading::Engine);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_way_out() {
        let why = |text: &str| Address::parse("volume", text).unwrap_err().to_string();
        assert!(why("x?stopp=all").contains("did you mean stop?"), "{}", why("x?stopp=all"));
        assert!(why("").contains("no name of a volume"));
        assert!(why("../etc").contains("no name of a volume"));
        assert!(why("a b").contains("no name"));
        assert!(why("x?max-stop=soon").contains("90s"));
        assert!(why("x?max-stop=0s").contains("90s"));
        assert!(why("x?exec-pre=web").contains("SERVICE:COMMAND"));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("5"), Some(Duration::from_secs(5)));
        assert_eq!(duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(duration("1d"), None);
        assert_eq!(duration("m"), None);
    }
}
