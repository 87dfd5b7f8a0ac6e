//! What is asked of the restored state, one family of checks a file.
//!
//! A check gives an [`Answer`]: what it proved, or one difference after the other, each with its subject, what was
//! expected and what was found. One that could not be made was skipped, and a skipped check is not a pass.

mod certificates;
pub(super) mod command;
mod files;
mod freshness;
mod http;
mod postgres;
mod redis;
mod spec;
mod sql;
mod sqlite;

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use http::HttpCheck;
pub use spec::{CheckSpec, names};
pub use sql::database_and_query;

use super::sandbox::{Sandbox, SandboxKind};
use crate::base::byte_size::count as grouped;
use crate::base::cancel::Cancel;
use crate::engine::read::select::Selected;
use crate::engine::restore::service::waiting;
use crate::repo::Repository;
use crate::runbook::redact::Redactor;
use crate::source::difference::Difference;

/// Differences of one check that are named each; the rest is counted.
const NAMED: usize = 5;

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
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    pub name: String,
    pub outcome: CheckOutcome,
    /// In words: what was proven, or what is wrong and why.
    pub detail: String,
    /// What exactly is wrong: a table, a role, a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    pub seconds: f64,
    /// Whether a failure means that the data is wrong, and not only that an expectation was.
    pub is_data: bool,
    /// Whether it proves data at all.
    pub proves_data: bool,
}

impl CheckResult {
    /// A check of this name that went like this.
    pub fn new(name: impl Into<String>, outcome: CheckOutcome, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        let (subject, expected, found) = (None, None, None);
        let (is_data, proves_data) = (true, true);
        Self { name, outcome, detail, subject, expected, found, seconds: 0.0, is_data, proves_data }
    }
}

/// What came of looking.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// As it should be; in words.
    Proven(String),
    Differs(Vec<Difference>),
    /// It could not be asked here.
    Skipped(String),
}

impl Answer {
    /// Proven unless something differs.
    fn of(differences: Vec<Difference>, proven: impl Into<String>) -> Self {
        if differences.is_empty() { Self::Proven(proven.into()) } else { Self::Differs(differences) }
    }

    /// One difference.
    fn wrong(subject: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Differs(vec![Difference::new(subject, expected, found)])
    }
}

/// Why a check itself broke: it has failed, and this is what it says.
type Broken = String;

/// What was restored, and where.
pub struct Restored<'r> {
    pub repo: &'r Repository,
    pub selected: &'r Selected,
    pub kind: SandboxKind,
    /// The snapshot's.
    pub facts: &'r Map<String, Value>,
    pub now: jiff::Timestamp,
    pub sandbox: &'r mut Box<dyn Sandbox>,
    /// For what programs say.
    pub redactor: &'r Redactor,
    pub cancel: &'r Cancel,
}

/// Makes one check. One line if it passed, else one for each difference, up to a few.
pub async fn check(spec: &CheckSpec, restored: &mut Restored<'_>) -> Vec<CheckResult> {
    let start = Instant::now();
    let (answer, proves) = match spec {
        CheckSpec::Files | CheckSpec::Modes | CheckSpec::Owners => (files::check(spec, restored).await, true),
        CheckSpec::Http(wanted) => http::check(wanted, restored.sandbox.as_ref(), restored.cancel).await,
        // These ask and wait for the answer: the runtime has other threads for its work meanwhile.
        _ => (waiting(|| ask(spec, restored)), true),
    };
    timed(spec, answer, proves, start)
}

/// The same where nothing was restored: what a component without data asks of those beside it.
pub async fn check_without_data(
    spec: &CheckSpec,
    sandbox: &dyn Sandbox,
    redactor: &Redactor,
    cancel: &Cancel,
) -> Vec<CheckResult> {
    let start = Instant::now();
    let answer = match spec {
        CheckSpec::Command(words) => waiting(|| command::check(words, sandbox, redactor, cancel)),
        _ => Err("nothing was restored that this could be asked of".into()),
    };
    timed(spec, answer, true, start)
}

fn timed(spec: &CheckSpec, answer: Result<Answer, Broken>, proves: bool, start: Instant) -> Vec<CheckResult> {
    let seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    let mut results = results(spec, answer);
    for result in &mut results {
        (result.is_data, result.proves_data) = (spec.is_of_data(), proves);
    }
    if let Some(first) = results.first_mut() {
        first.seconds = seconds;
    }
    results
}

fn ask(spec: &CheckSpec, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    match spec {
        CheckSpec::Sql(query) => sql::check(query, restored),
        CheckSpec::Command(words) => {
            command::check(words, restored.sandbox.as_ref(), restored.redactor, restored.cancel)
        }
        CheckSpec::Certificates { days_left } => certificates::check(*days_left, restored),
        CheckSpec::Freshness { of, within } => freshness::check(of, *within, restored),
        CheckSpec::NotEmpty => not_empty(restored),
        CheckSpec::Keys | CheckSpec::AppendOnly => redis::check(spec, restored),
        CheckSpec::Rows if restored.kind == SandboxKind::Sqlite => sqlite::check(restored),
        CheckSpec::Rows
        | CheckSpec::Roles
        | CheckSpec::Sequences
        | CheckSpec::Extensions
        | CheckSpec::Locale
        | CheckSpec::Constraints => postgres::check(spec, restored),
        CheckSpec::Files | CheckSpec::Modes | CheckSpec::Owners | CheckSpec::Http(_) => {
            Err("it is not asked this way: this is a bug".into())
        }
    }
}

fn results(spec: &CheckSpec, answer: Result<Answer, Broken>) -> Vec<CheckResult> {
    let name = spec.title();
    let differences = match answer {
        Ok(Answer::Proven(detail)) => return vec![CheckResult::new(name, CheckOutcome::Passed, detail)],
        Ok(Answer::Skipped(why)) => return vec![CheckResult::new(name, CheckOutcome::Skipped, why)],
        Err(why) => return vec![CheckResult::new(name, CheckOutcome::Failed, why)],
        Ok(Answer::Differs(differences)) => differences,
    };
    let failed = |detail: String| CheckResult::new(name.clone(), CheckOutcome::Failed, detail);
    let mut results: Vec<CheckResult> = differences
        .iter()
        .take(NAMED)
        .map(|difference| CheckResult {
            subject: Some(difference.subject.clone()),
            expected: Some(difference.expected.clone()),
            found: Some(difference.found.clone()),
            // A query need not be told twice.
            ..failed(match name.ends_with(&difference.subject) {
                true => difference.without_subject(),
                false => difference.to_string(),
            })
        })
        .collect();
    if differences.len() > NAMED {
        results.push(failed(format!("{} differences more", differences.len() - NAMED)));
    }
    results
}

/// A service that came back empty was empty when it was captured: its facts agree, and still nothing is left of it.
fn not_empty(restored: &Restored<'_>) -> Result<Answer, Broken> {
    let Some((what, count)) = held(restored.kind, restored.facts) else {
        return Ok(Answer::Skipped("the snapshot does not say how much it holds".into()));
    };
    if count > 0 {
        return Ok(Answer::Proven(format!("{} captured", counted(count, &what[..what.len() - 1], what))));
    }
    let subject = restored.selected.snapshot.summary.job.clone();
    let why = "what was captured holds nothing: the source was emptied, or another one was meant";
    let difference = Difference::new(subject, format!("at least one of its {what}"), "none").because(why);
    Ok(Answer::Differs(vec![difference]))
}

/// How much a snapshot's facts say it holds.
fn held(kind: SandboxKind, facts: &Map<String, Value>) -> Option<(&'static str, u64)> {
    let sum = |tables: Option<&Value>, of: &dyn Fn(&Value) -> u64| -> Option<u64> {
        Some(tables?.as_object()?.values().map(of).sum())
    };
    match kind {
        SandboxKind::Postgres => {
            let rows = |table: &Value| table["rows"].as_u64().unwrap_or(0);
            let objects = |database: &Value| database["large_objects"]["rows"].as_u64().unwrap_or(0);
            let of_database =
                |database: &Value| sum(database.get("tables"), &rows).unwrap_or(0) + objects(database);
            let databases = facts.get("postgres")?.get("databases");
            let count = sum(databases, &of_database)?;
            // Tables whose rows were not counted may hold all there is.
            let uncounted = |database: &Value| {
                u64::from(database["not_assertable"].as_object().is_some_and(|named| !named.is_empty()))
            };
            (count > 0 || sum(databases, &uncounted) == Some(0)).then_some(("rows", count))
        }
        SandboxKind::Sqlite => {
            let rows = |count: &Value| count.as_u64().unwrap_or(0);
            Some(("rows", sum(facts.get("sqlite")?.get("rows"), &rows)?))
        }
        SandboxKind::Redis => Some(("keys", redis::captured(facts)?.values().map(|held| held.keys).sum())),
        SandboxKind::Directory | SandboxKind::Mariadb | SandboxKind::Docker => None,
    }
}

/// `1 role`, `4 roles`.
fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_has_a_line_up_to_a_few() {
        let many = (0..7).map(|n| Difference::new(format!("t{n}"), "1 row", "0 rows")).collect();
        let results = results(&CheckSpec::Rows, Ok(Answer::Differs(many)));
        assert_eq!(results.len(), NAMED + 1);
        assert_eq!(results[0].detail, "t0: 0 rows, expected 1 row");
        assert_eq!(results[0].subject.as_deref(), Some("t0"));
        assert_eq!(results[NAMED].detail, "2 differences more");
        assert!(results.iter().all(|result| result.outcome == CheckOutcome::Failed));
    }

    #[test]
    fn an_empty_service_is_told_from_one_that_says_nothing() {
        let facts = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let empty = facts(r#"{"postgres": {"databases": {"shop": {"tables": {"t": {"rows": 0}}}}}}"#);
        assert_eq!(held(SandboxKind::Postgres, &empty), Some(("rows", 0)));
        let one = facts(r#"{"postgres": {"databases": {"shop": {"tables": {"t": {"rows": 3}}}, "b": {}}}}"#);
        assert_eq!(held(SandboxKind::Postgres, &one), Some(("rows", 3)));
        assert_eq!(held(SandboxKind::Postgres, &Map::new()), None);
        assert_eq!(held(SandboxKind::Sqlite, &facts(r#"{"sqlite": {"rows": {"t": 2}}}"#)), Some(("rows", 2)));
    }
}
