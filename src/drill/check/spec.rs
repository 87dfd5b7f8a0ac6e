//! A check as it is written, in the configuration file and on the command line: `rows`, `certificates=14d`,
//! `freshness=orders.created_at/1h`, a query, a command, an address.
//!
//! Everything that makes no sense is refused here, before anything is started.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HttpCheck;
use crate::base::url::nearest;
use crate::drill::DrillError;
use crate::drill::sandbox::SandboxKind;

/// See the module. Its JSON is part of what a drill's specification is named by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckSpec {
    /// A query whose first value must be true, or a number other than 0.
    Sql(String),
    /// A program that must end with 0. It finds the restored state in its environment.
    Command(Vec<String>),
    /// An address that must answer as wanted.
    Http(HttpCheck),
    /// Something was captured at all. Made by every drill.
    NotEmpty,
    /// Every table's rows, counted and hashed.
    Rows,
    /// Roles, and what they may do.
    Roles,
    /// None behind what it was, none behind its column.
    Sequences,
    Extensions,
    /// Encoding and collation.
    Locale,
    /// Constraints, indexes, triggers and policies: as many as there were, and valid.
    Constraints,
    /// Keys of every database; those that have expired since may be gone.
    Keys,
    /// A restart finds the same keys in the append-only file.
    AppendOnly,
    /// Every file's content.
    Files,
    Modes,
    Owners,
    /// Valid for as many days more, and each key belongs to its certificate.
    Certificates {
        days_left: u32,
    },
    /// The newest value of `[DATABASE:]TABLE.COLUMN` is at most this much older than the data itself.
    Freshness {
        of: String,
        within: Duration,
    },
}

/// The checks that need no more than their name.
const NAMED: [(&str, CheckSpec); 11] = [
    ("rows", CheckSpec::Rows),
    ("roles", CheckSpec::Roles),
    ("sequences", CheckSpec::Sequences),
    ("extensions", CheckSpec::Extensions),
    ("locale", CheckSpec::Locale),
    ("constraints", CheckSpec::Constraints),
    ("keys", CheckSpec::Keys),
    ("append-only", CheckSpec::AppendOnly),
    ("files", CheckSpec::Files),
    ("modes", CheckSpec::Modes),
    ("owners", CheckSpec::Owners),
];
/// Other words for some of them.
const ALSO: [(&str, &str); 5] = [
    ("collation", "locale"),
    ("encoding", "locale"),
    ("aof", "append-only"),
    ("hashes", "rows"),
    ("grants", "roles"),
];

fn refused<T>(why: impl Into<String>) -> Result<T, DrillError> {
    Err(DrillError::Spec(why.into()))
}

/// The names there are, for help and messages.
pub fn names() -> Vec<&'static str> {
    NAMED.iter().map(|(name, _)| *name).chain(["certificates", "freshness"]).collect()
}

/// `14d` or `14`.
fn days(text: &str) -> Option<u32> {
    text.strip_suffix('d').unwrap_or(text).trim().parse().ok()
}

impl CheckSpec {
    /// Reads `NAME` or `NAME=VALUE`. `time` reads a duration.
    ///
    /// # Errors
    /// There is no such check, or its value makes no sense.
    pub fn parse(text: &str, time: impl Fn(&str) -> Result<Duration, String>) -> Result<Self, DrillError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (text.trim(), None),
        };
        let name = ALSO.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| name);
        match (name, value) {
            ("certificates", None) => Ok(Self::Certificates { days_left: 0 }),
            ("certificates", Some(value)) => match days(value) {
                Some(days_left) => Ok(Self::Certificates { days_left }),
                None => refused(format!("certificates={value}: write days, such as 14d")),
            },
            ("freshness", value) => {
                let Some((of, within)) = value.and_then(|value| value.rsplit_once('/')) else {
                    return refused(
                        "freshness is told as freshness=TABLE.COLUMN/TIME, such as orders.created_at/1h",
                    );
                };
                let within = time(within).map_err(|error| DrillError::Spec(format!("{text}: {error}")))?;
                Ok(Self::Freshness { of: of.to_owned(), within })
            }
            (name, value) => match (NAMED.iter().find(|(known, _)| *known == name), value) {
                (Some((_, spec)), None) => Ok(spec.clone()),
                (Some(_), Some(value)) => refused(format!("the check {name} takes no value ({value:?})")),
                (None, _) => {
                    let all = names();
                    let near = nearest(name, &all).unwrap_or_default();
                    let all = all.join(", ");
                    refused(format!("there is no check {name:?}\nhint: did you mean {near}? There are {all}"))
                }
            },
        }
    }

    /// Looks for what makes no sense.
    ///
    /// # Errors
    /// What it is.
    pub fn validate(&self) -> Result<(), DrillError> {
        match self {
            Self::Sql(query) => super::sql::validate(query),
            // The last word is what a shell is told.
            Self::Command(words) if words.last().is_none_or(|word| word.trim().is_empty()) => {
                refused("a check's command is empty")
            }
            Self::Http(wanted) => wanted.validate(),
            Self::Freshness { of, .. } => match super::freshness::Column::parse(of) {
                Some(_) => Ok(()),
                None => refused(format!("freshness of {of:?}: write TABLE.COLUMN")),
            },
            _ => Ok(()),
        }
    }

    /// Shown in reports.
    pub fn title(&self) -> String {
        match self {
            Self::Sql(query) => format!("sql: {query}"),
            Self::Command(words) => {
                let shell = words.first().is_some_and(|word| word == "sh") && words.len() == 3;
                format!("command: {}", if shell { words[2].clone() } else { words.join(" ") })
            }
            Self::Http(wanted) => format!("http: {}", wanted.url),
            Self::NotEmpty => "not empty".into(),
            Self::Certificates { .. } => "certificates".into(),
            Self::Freshness { of, .. } => format!("freshness: {of}"),
            named => {
                let known = NAMED.iter().find(|(_, spec)| spec == named);
                known.map_or("check", |(name, _)| name).into()
            }
        }
    }

    /// Whether a failure means that what came back is not what was captured. Else an expectation was not met.
    pub fn is_of_data(&self) -> bool {
        !matches!(
            self,
            Self::Sql(_)
                | Self::Command(_)
                | Self::Http(_)
                | Self::Certificates { .. }
                | Self::Freshness { .. }
        )
    }

    /// Whether it can prove data in such a sandbox. What answers outside of it is no part of a recovery.
    pub fn proves(&self, kind: SandboxKind) -> bool {
        !matches!(self, Self::Http(_)) || kind == SandboxKind::Docker
    }

    /// What every drill into such a sandbox asks without being told: what costs next to nothing.
    pub fn usual(kind: SandboxKind) -> Vec<Self> {
        match kind {
            SandboxKind::Postgres => vec![
                Self::NotEmpty,
                Self::Roles,
                Self::Sequences,
                Self::Extensions,
                Self::Locale,
                Self::Constraints,
            ],
            SandboxKind::Redis => vec![Self::NotEmpty, Self::Keys],
            SandboxKind::Sqlite => vec![Self::NotEmpty],
            SandboxKind::Directory | SandboxKind::Mariadb | SandboxKind::Docker => Vec::new(),
        }
    }

    /// The sandboxes that it can be asked in; `None`: any.
    fn fitting(&self) -> Option<&'static [SandboxKind]> {
        Some(match self {
            Self::Command(_) | Self::Http(_) | Self::NotEmpty => return None,
            Self::Sql(_) => &[SandboxKind::Postgres, SandboxKind::Mariadb, SandboxKind::Sqlite],
            Self::Rows | Self::Freshness { .. } => &[SandboxKind::Postgres, SandboxKind::Sqlite],
            Self::Roles | Self::Sequences | Self::Extensions | Self::Locale | Self::Constraints => {
                &[SandboxKind::Postgres]
            }
            Self::Keys | Self::AppendOnly => &[SandboxKind::Redis],
            Self::Files | Self::Modes | Self::Owners | Self::Certificates { .. } => &[SandboxKind::Directory],
        })
    }

    /// Whether it can be asked in such a sandbox at all.
    ///
    /// # Errors
    /// Why not, and what can be asked instead.
    pub fn fits(&self, kind: SandboxKind) -> Result<(), String> {
        if let Self::Http(wanted) = self
            && kind != SandboxKind::Docker
            && !wanted.is_of_this_machine()
        {
            return Err(wanted.outside());
        }
        let Some(fitting) = self.fitting().filter(|fitting| !fitting.contains(&kind)) else { return Ok(()) };
        let fitting: Vec<&str> = fitting.iter().map(|kind| kind.name()).collect();
        let is_asked = |spec: &Self| spec.fitting().is_none_or(|fitting| fitting.contains(&kind));
        let mut instead: Vec<&str> =
            NAMED.iter().filter(|(_, spec)| is_asked(spec)).map(|(name, _)| *name).collect();
        let column = Self::Freshness { of: String::new(), within: Duration::ZERO };
        let others = [
            ("certificates=14d", Self::Certificates { days_left: 0 }),
            ("freshness=TABLE.COLUMN/1h", column),
            ("a query", Self::Sql(String::new())),
        ];
        instead.extend(others.iter().filter(|(_, spec)| is_asked(spec)).map(|(name, _)| *name));
        instead.push("a command");
        Err(format!(
            "the check {:?} asks a sandbox of kind {}, and this snapshot is restored into one of kind {}\nhint: that can be \
             asked for {}",
            self.title(),
            fitting.join(" or "),
            kind.name(),
            instead.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CheckSpec, String> {
        let time = |text: &str| match text {
            "1h" => Ok(Duration::from_secs(3600)),
            _ => Err("no time".to_owned()),
        };
        CheckSpec::parse(text, time).map_err(|error| error.to_string())
    }

    #[test]
    fn a_check_is_told_by_its_name_and_perhaps_a_value() {
        for (name, spec) in NAMED {
            assert_eq!(parse(name).unwrap(), spec);
            assert_eq!(spec.title(), name);
            assert!(parse(&format!("{name}=3")).is_err());
        }
        assert_eq!(parse("aof").unwrap(), CheckSpec::AppendOnly);
        assert_eq!(parse("certificates").unwrap(), CheckSpec::Certificates { days_left: 0 });
        assert_eq!(parse("certificates=14d").unwrap(), CheckSpec::Certificates { days_left: 14 });
        let freshness = CheckSpec::Freshness { of: "orders.at".into(), within: Duration::from_secs(3600) };
        assert_eq!(parse("freshness=orders.at/1h").unwrap(), freshness);
    }

    #[test]
    fn what_is_no_check_is_refused_with_the_nearest_there_is() {
        assert!(parse("row").unwrap_err().contains("did you mean rows?"));
        assert!(parse("certificates=soon").unwrap_err().contains("write days"));
        assert!(parse("freshness").unwrap_err().contains("TABLE.COLUMN"));
        assert!(parse("freshness=orders.at/soon").unwrap_err().contains("no time"));
        assert!(CheckSpec::Command(vec!["sh".into()]).validate().is_ok());
        assert!(CheckSpec::Command(vec![" ".into()]).validate().is_err());
        let nameless = CheckSpec::Freshness { of: "orders".into(), within: Duration::ZERO };
        assert!(nameless.validate().is_err());
    }

    #[test]
    fn a_check_that_cannot_be_asked_says_where_it_could() {
        let said = CheckSpec::Rows.fits(SandboxKind::Directory).unwrap_err();
        assert!(said.contains("postgres or sqlite") && said.contains("directory"), "{said}");
        let hint = "hint: that can be asked for files, modes, owners, certificates=14d, a command";
        assert!(said.ends_with(hint), "{said}");
        for kind in SandboxKind::ALL {
            assert!(CheckSpec::usual(kind).iter().all(|spec| spec.fits(kind).is_ok()));
        }
    }
}
