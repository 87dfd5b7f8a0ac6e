//! A database that was empty before the restore, made so again.
//!
//! Invariant: it is never dropped, and what others made in it meanwhile stays.

use super::super::session::{Reach, ident, literal};
use super::names::{self, Names, names};
use super::{MARK, Plan};
use crate::base::cancel::Cancel;
use crate::source::capture::SourceError;

/// The SQL that gives a database a character set and collation.
pub fn collate(database: &str, charset: &str, collation: &str) -> String {
    let mut sql = format!("ALTER DATABASE {}", ident(database));
    for (key, value) in [("CHARACTER SET", charset), ("COLLATE", collation)] {
        if !value.is_empty() {
            sql.push_str(&format!(" {key} {}", literal(value)));
        }
    }
    sql + ";\n"
}

/// Drops what the restore of `plan` put there, the mark last.
///
/// # Errors
/// The server's.
pub fn empty(reach: &Reach, plan: &Plan, was: &(String, String)) -> Result<(), SourceError> {
    let mut sql = "SET FOREIGN_KEY_CHECKS = 0, SQL_NOTES = 0;\n".to_owned();
    if plan.is_loaded {
        sql.push_str(&ours(reach, plan)?);
    }
    sql.push_str(&collate(&plan.work, &was.0, &was.1));
    sql.push_str(&format!("DROP TABLE IF EXISTS {}.`{MARK}`;", ident(&plan.work)));
    reach.farewell("drop what was restored", None, &sql).map(drop)
}

/// The SQL that drops what the snapshot has, too. What has no names in its facts goes only if there is no more of it
/// than it brought.
fn ours(reach: &Reach, plan: &Plan) -> Result<String, SourceError> {
    let (work, expected) = (&plan.work, plan.facts.objects);
    let mut there = names(reach, work, &Cancel::new())?;
    let (mut tables, others): (Vec<_>, Vec<_>) =
        there.tables.drain(..).partition(|name| plan.facts.tables.contains_key(name));
    let no_more = |names: usize, expected: u64| names as u64 <= expected;
    if no_more(others.len(), expected.sequences) {
        tables.extend(others);
    }
    if !no_more(there.views.len(), expected.views) {
        there.views.clear();
    }
    if !no_more(there.routines.len(), expected.routines) {
        there.routines.clear();
    }
    if !no_more(there.events.len(), expected.events) {
        there.events.clear();
    }
    let mut sql = names::drop_events(work, &there);
    // Triggers go with their tables.
    sql.push_str(&names::strip(work, &Names { triggers: Vec::new(), ..there }));
    for table in tables {
        sql.push_str(&format!("DROP TABLE IF EXISTS {}.{};\n", ident(work), ident(&table)));
    }
    Ok(sql)
}
