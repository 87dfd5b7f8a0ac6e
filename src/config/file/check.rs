//! Checks and steps of a drill as the file tells them: by name, or as a table of what they need.
//!
//! `checks = ["rows", "certificates=14d", { sql = "…" }, { http = "…", status = 204 }]`

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

use super::super::parse_duration;
use crate::drill::check::{CheckSpec, HttpCheck};
use crate::drill::spec::Step;

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check(pub CheckSpec);

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrillStep(pub Step);

/// A program's line, run by the shell.
pub fn shell(line: &str) -> Vec<String> {
    vec!["sh".into(), "-c".into(), line.into()]
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CheckTable {
    sql: Option<String>,
    command: Option<String>,
    http: Option<String>,
    status: Option<u16>,
    contains: Option<String>,
    freshness: Option<String>,
    within: Option<String>,
    certificates: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepTable {
    sql: Option<String>,
    command: Option<String>,
}

impl CheckTable {
    fn check(self) -> Result<CheckSpec, String> {
        let Self { sql, command, http, status, contains, freshness, within, certificates } = self;
        let told =
            [&sql, &command, &http, &freshness, &certificates].iter().filter(|one| one.is_some()).count();
        if told != 1 {
            return Err("a check is one of sql, command, http, freshness or certificates".into());
        }
        if http.is_none() && (status.is_some() || contains.is_some()) {
            return Err("status and contains belong to http".into());
        }
        if freshness.is_none() && within.is_some() {
            return Err("within belongs to freshness".into());
        }
        if let Some(url) = http {
            return Ok(CheckSpec::Http(HttpCheck { url, status: status.unwrap_or(200), contains }));
        }
        if let Some(of) = freshness {
            let within = within.ok_or("freshness needs within, such as \"1h\"")?;
            return Ok(CheckSpec::Freshness { of, within: parse_duration(&within)? });
        }
        if let Some(days) = certificates {
            return named(&format!("certificates={days}"));
        }
        Ok(match (sql, command) {
            (Some(query), _) => CheckSpec::Sql(query),
            (None, line) => CheckSpec::Command(shell(&line.unwrap_or_default())),
        })
    }
}

impl StepTable {
    fn step(self) -> Result<Step, String> {
        match (self.sql, self.command) {
            (Some(sql), None) => Ok(Step::Sql(sql)),
            (None, Some(line)) => Ok(Step::Command(shell(&line))),
            _ => Err("a step is one of sql or command".into()),
        }
    }
}

/// A check by its name.
///
/// # Errors
/// There is none, or its value makes no sense.
pub fn named(text: &str) -> Result<CheckSpec, String> {
    CheckSpec::parse(text, parse_duration).map_err(|error| error.to_string())
}

struct ForCheck;

impl<'de> Visitor<'de> for ForCheck {
    type Value = CheckSpec;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a check's name, or a table such as { sql = \"…\" }")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        named(text).map_err(E::custom)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        CheckTable::deserialize(MapAccessDeserializer::new(map))?.check().map_err(A::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ForCheck).map(Self)
    }
}

impl JsonSchema for Check {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Check".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (named, table) = ("A check by its name, such as rows.", generator.subschema_for::<CheckTable>());
        json_schema!({ "anyOf": [{ "type": "string", "description": named }, table] })
    }
}

impl JsonSchema for DrillStep {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Step".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<StepTable>();
        json_schema!({ "anyOf": [{ "type": "string", "description": "A shell command." }, table] })
    }
}

struct ForStep;

impl<'de> Visitor<'de> for ForStep {
    type Value = Step;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a command, or a table such as { sql = \"…\" }")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Step::Command(shell(text)))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        StepTable::deserialize(MapAccessDeserializer::new(map))?.step().map_err(A::Error::custom)
    }
}

impl<'de> Deserialize<'de> for DrillStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ForStep).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Told {
        #[serde(default)]
        checks: Vec<Check>,
        #[serde(default)]
        steps: Vec<DrillStep>,
    }

    fn read(text: &str) -> Result<Told, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn checks_are_names_or_tables() {
        let told = read(
            "checks = [\"rows\", { certificates = \"14d\" }, { sql = \"select 1\" }, { command = \"true\" },
             { http = \"http://h/health\", status = 204 }, { freshness = \"orders.at\", within = \"1h\" }]
             steps = [\"migrate\", { sql = \"delete from sessions\" }]",
        );
        let told = told.unwrap();
        let checks: Vec<CheckSpec> = told.checks.into_iter().map(|check| check.0).collect();
        let http = HttpCheck { url: "http://h/health".into(), status: 204, contains: None };
        let within = Duration::from_secs(3600);
        assert_eq!(
            checks,
            [
                CheckSpec::Rows,
                CheckSpec::Certificates { days_left: 14 },
                CheckSpec::Sql("select 1".into()),
                CheckSpec::Command(shell("true")),
                CheckSpec::Http(http),
                CheckSpec::Freshness { of: "orders.at".into(), within },
            ]
        );
        assert_eq!(told.steps[0].0, Step::Command(shell("migrate")));
        assert_eq!(told.steps[1].0, Step::Sql("delete from sessions".into()));
    }

    #[test]
    fn what_is_no_check_is_refused() {
        for (text, why) in [
            ("checks = [\"row\"]", "did you mean rows?"),
            ("checks = [{ sqll = \"select 1\" }]", "unknown field `sqll`"),
            ("checks = [{ sql = \"select 1\", http = \"http://h\" }]", "one of"),
            ("checks = [{ sql = \"select 1\", status = 200 }]", "belong to http"),
            ("checks = [{ freshness = \"a.b\" }]", "needs within"),
            ("checks = [{}]", "one of"),
            ("checks = [3]", "a check's name"),
            ("steps = [{ sql = \"a\", command = \"b\" }]", "one of sql or command"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
