//! What is asked of the restored state.

use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::DrillError;
use super::sandbox::Sandbox;
use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessOptions};

/// A check as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckSpec {
    /// A query whose first value must be true, or a number other than 0.
    Sql(String),
    /// A program that must end with 0. It finds the restored state in `LIFEBOAT_DRILL_PATH` or
    /// `LIFEBOAT_DRILL_ADDRESS`.
    Command(Vec<String>),
}

impl CheckSpec {
    pub(super) fn validate(&self) -> Result<(), DrillError> {
        let refused = |why: String| Err(DrillError::Spec(why));
        match self {
            Self::Sql(query) => {
                // `shop: select …` asks one of several databases.
                let named =
                    query.split_once(':').filter(|(name, _)| !name.trim().contains(char::is_whitespace));
                let asked = named.map_or(query.as_str(), |(_, query)| query);
                let first = asked.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty());
                let asks = first.is_some_and(|word| {
                    ["select", "with", "values", "table", "explain"]
                        .contains(&word.to_ascii_lowercase().as_str())
                });
                if asks { Ok(()) } else { refused(format!("{query:?} is not a query: a check only asks")) }
            }
            Self::Command(words) if words.iter().all(String::is_empty) => {
                refused("a check's command is empty".into())
            }
            Self::Command(_) => Ok(()),
        }
    }

    /// Shown in reports.
    pub fn title(&self) -> String {
        match self {
            Self::Sql(query) => format!("sql: {query}"),
            Self::Command(words) => format!("command: {}", words.join(" ")),
        }
    }
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    Passed,
    Failed,
    /// Never a pass.
    Skipped,
}

/// A check that was made, or should have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    pub name: String,
    pub outcome: CheckOutcome,
    pub detail: String,
    pub seconds: f64,
    /// Whether a failure means that the data is wrong, and not only that an expectation was.
    pub is_data: bool,
    /// Whether it proves data at all.
    pub proves_data: bool,
}

/// Makes one check.
pub fn check(spec: &CheckSpec, sandbox: &mut dyn Sandbox, cancel: &Cancel) -> CheckResult {
    let start = Instant::now();
    let answer = match spec {
        CheckSpec::Sql(query) => sql(query, sandbox),
        CheckSpec::Command(words) => command(words, sandbox, cancel),
    };
    let (outcome, detail) = match answer {
        Ok(detail) => (CheckOutcome::Passed, detail),
        Err(detail) => (CheckOutcome::Failed, detail),
    };
    let seconds = start.elapsed().as_secs_f64();
    CheckResult { name: spec.title(), outcome, detail, seconds, is_data: false, proves_data: true }
}

fn sql(query: &str, sandbox: &mut dyn Sandbox) -> Result<String, String> {
    let value = sandbox.sql(query).map_err(|error| error.to_string())?;
    let value = value.ok_or("the query returned no row")?;
    let is_true = match value.as_str() {
        "t" | "true" | "TRUE" => true,
        number => number.parse::<f64>().is_ok_and(|number| number != 0.0),
    };
    if is_true { Ok(format!("answered {value}")) } else { Err(format!("answered {value:?}")) }
}

fn command(words: &[String], sandbox: &dyn Sandbox, cancel: &Cancel) -> Result<String, String> {
    let Some((program, arguments)) = words.split_first() else { return Err("no command".into()) };
    let mut command = Command::new(program);
    command.args(arguments).envs(sandbox.environment());
    if let Some(path) = sandbox.path() {
        command.env("LIFEBOAT_DRILL_PATH", path);
    }
    if let Some(address) = sandbox.address() {
        command.env("LIFEBOAT_DRILL_ADDRESS", address);
    }
    let options = ProcessOptions {
        no_progress: Some(Duration::from_secs(600)),
        withheld: &["LIFEBOAT_PASSWORD"],
        ..ProcessOptions::default()
    };
    let mut process = Process::start(command, options, cancel).map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut process, &mut said).map_err(|error| error.to_string())?;
    process.finish().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&said);
    Ok(said.lines().last().unwrap_or("ended with 0").chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_asks_and_changes_nothing() {
        let sql = |query: &str| CheckSpec::Sql(query.into()).validate();
        assert!(sql("select 1").is_ok());
        assert!(sql("  (WITH a AS (SELECT 1) TABLE a)").is_ok());
        assert!(sql("shop: select 1").is_ok());
        assert!(sql("shop: delete from a").is_err());
        assert!(sql("delete from a").is_err());
        assert!(sql("").is_err());
        assert!(CheckSpec::Command(vec![]).validate().is_err());
    }
}
