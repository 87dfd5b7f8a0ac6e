//! A PostgreSQL server against what was captured, database by database.

use super::{Answer, Broken, CheckSpec, Restored, counted};
use crate::source::capture::SourceError;
use crate::source::difference::Difference;
use crate::source::postgres::inspect::{self, Seen};
use crate::source::postgres::{DatabaseFacts, Facts, Session};

pub fn check(spec: &CheckSpec, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let Some(facts) = Facts::of(restored.facts) else {
        return Ok(Answer::Skipped("the snapshot holds no facts of a PostgreSQL server".into()));
    };
    let several = facts.databases.len() > 1;
    let mut all = Seen::default();
    for (name, expected) in &facts.databases {
        let seen = look(spec, name, &facts, expected, restored)?;
        let told = |text: String| if several { format!("{name}: {text}") } else { text };
        let named =
            |difference: Difference| Difference { subject: told(difference.subject.clone()), ..difference };
        all.count += seen.count;
        all.rows += seen.rows;
        all.differences.extend(seen.differences.into_iter().map(named));
        all.notes.extend(seen.notes.into_iter().map(told));
    }
    // Roles belong to the server: each database would count them again.
    if *spec == CheckSpec::Roles {
        all.count = facts.globals.as_ref().map_or(0, |globals| globals.roles.len() as u64);
        let mut seen = std::collections::BTreeSet::new();
        all.differences.retain(|difference| {
            let subject = difference.subject.rsplit(": ").next().unwrap_or_default().to_owned();
            !subject.starts_with("role ") || subject.contains(", ") || seen.insert(subject)
        });
    }
    let notes = all.notes.join("; ");
    let notes = if notes.is_empty() { notes } else { format!(" ({notes})") };
    Ok(Answer::of(all.differences, format!("{}{notes}", proven(spec, all.count, all.rows))))
}

fn look(
    spec: &CheckSpec,
    name: &str,
    facts: &Facts,
    expected: &DatabaseFacts,
    restored: &mut Restored<'_>,
) -> Result<Seen, Broken> {
    let mut session = restored.sandbox.session(name).map_err(|error| error.to_string())?;
    let session: &mut dyn Session = session.as_mut();
    let seen = inspect::set_up(session).and_then(|()| match spec {
        CheckSpec::Rows => inspect::rows(session, expected),
        CheckSpec::Roles => inspect::roles(session, facts, expected),
        CheckSpec::Sequences => inspect::sequences(session, expected),
        CheckSpec::Extensions => inspect::extensions(session, expected),
        CheckSpec::Locale => inspect::locale(session, expected),
        CheckSpec::Constraints => inspect::constraints(session, expected),
        _ => Err(SourceError::Refused("this is no check of a database: this is a bug".into())),
    });
    seen.map_err(|error| error.to_string())
}

fn proven(spec: &CheckSpec, count: u64, rows: u64) -> String {
    match spec {
        CheckSpec::Rows => {
            format!(
                "{}, {} equal; hashes equal",
                counted(count, "table", "tables"),
                counted(rows, "row", "rows")
            )
        }
        CheckSpec::Roles => {
            format!("{}, {}", counted(count, "role", "roles"), counted(rows, "grant", "grants"))
        }
        CheckSpec::Sequences if count == 0 => "there are none".into(),
        CheckSpec::Sequences => format!("{} ≥ max(id)", counted(count, "sequence", "sequences")),
        CheckSpec::Extensions => counted(count, "extension", "extensions"),
        CheckSpec::Locale => "encoding and collation as captured".into(),
        _ => format!(
            "{} valid, {}; all objects there",
            counted(count, "constraint", "constraints"),
            counted(rows, "index", "indexes")
        ),
    }
}
