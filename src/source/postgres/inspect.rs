//! A restored database against the facts of the captured one, looked at by whoever asks and whatever happened to
//! it since it was restored. Reads only.
//!
//! Each look gives what differs. Rows cost one sequential scan of every table, everything else next to nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::capture::{major, settings};
use super::facts::{DatabaseFacts, Facts, TableFacts};
use super::inventory::Inventory;
use super::rows::Rows;
use super::session::{Session, literal};
use super::target::escape_names;
use super::views;
use crate::base::byte_size::plural;
use crate::source::capture::SourceError;
use crate::source::difference::Difference;

const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
/// Sequences asked for at once.
const AT_ONCE: usize = 200;

/// What a look found: how much was compared, and what is not as it was.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Things compared.
    pub count: u64,
    pub rows: u64,
    pub differences: Vec<Difference>,
    /// What could not be compared, or was wrong at the source already.
    pub notes: Vec<String>,
}

impl Seen {
    fn differs(&mut self, subject: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.differences.push(Difference::new(subject, expected, found));
    }
}

/// Makes a session one that reads as the capture read, and writes nothing.
///
/// # Errors
/// The server's.
pub fn set_up(session: &mut dyn Session) -> Result<(), SourceError> {
    let (major, _) = major(session)?;
    session.query("set up the session", &settings(LOCK_TIMEOUT, major))?;
    session.query("only read", "SET default_transaction_read_only = on")?;
    Ok(())
}

type Row = [Option<String>];

fn cell(row: &Row, column: usize) -> Option<&str> {
    row.get(column)?.as_deref()
}

/// Every table's rows: how many, and the sum of their hashes.
///
/// # Errors
/// The server's, or the run was cancelled.
pub fn rows(session: &mut dyn Session, expected: &DatabaseFacts) -> Result<Seen, SourceError> {
    let encoding = expected.properties.encoding.as_str();
    let mut seen = Seen::default();
    let monetary = format!("SET lc_monetary = {}", literal(&expected.properties.monetary));
    // A locale that is not here leaves money as this server writes it; it differs only if there is any.
    let _ = session.query("set the locale of money", &monetary);
    for (name, was) in &expected.tables {
        let Some(columns) = columns(session, name)? else {
            seen.differs(name, told_rows(was.rows), "no such table");
            continue;
        };
        let sql = format!("COPY {name} {columns} TO STDOUT");
        let sql = if encoding == "SQL_ASCII" { sql } else { escape_names(&sql) };
        session.query("set the encoding", &format!("SET client_encoding = {}", literal(encoding)))?;
        let mut rows = Rows::default();
        let copied = session.copy_out(&format!("read {name}"), &sql, &mut |bytes| rows.push(bytes));
        session.query("set the encoding", "SET client_encoding = 'UTF8'")?;
        copied?;
        let Some(is) = rows.finish().map(|sum| TableFacts::new(was.id, sum)) else {
            seen.differs(name, told_rows(was.rows), "a row without an end");
            continue;
        };
        seen.count += 1;
        seen.rows += is.rows;
        if is.rows != was.rows {
            seen.differs(name, told_rows(was.rows), told_rows(is.rows));
        } else if is != *was {
            let found = format!("{}, but other values (their hash differs)", told_rows(is.rows));
            seen.differs(name, format!("the {} that were captured", told_rows(was.rows)), found);
        }
    }
    held_by_views(session, expected, &mut seen)?;
    seen.notes.extend(expected.not_assertable.iter().map(|(name, why)| format!("rows of {name}: {why}")));
    Ok(seen)
}

/// Materialized views that are there and filled as they were, against what they held; others than then is no damage.
fn held_by_views(
    session: &mut dyn Session,
    expected: &DatabaseFacts,
    seen: &mut Seen,
) -> Result<(), SourceError> {
    let mut there = DatabaseFacts { properties: expected.properties.clone(), ..DatabaseFacts::default() };
    for (name, rows) in &expected.view_rows {
        let sql = format!("SELECT relispopulated FROM pg_class WHERE oid = to_regclass({})", literal(name));
        match session.value("look at the materialized views", &sql)?.as_deref() {
            Some("t") => {
                there.views.insert(name.clone(), true);
                there.view_rows.insert(name.clone(), rows.clone());
            }
            Some(_) => seen.differs(name, told_rows(rows.rows), "a materialized view that is not filled"),
            None => seen.differs(name, told_rows(rows.rows), "no such materialized view"),
        }
    }
    let compared = views::compare(session, &there)?;
    if compared.equal > 0 {
        let (views, rows) = (compared.equal, told_rows(compared.rows));
        seen.notes.push(format!("{}, {rows}, too", plural(views, "materialized view")));
    }
    seen.notes.extend(compared.others);
    Ok(())
}

fn told_rows(rows: u64) -> String {
    format!("{rows} {}", if rows == 1 { "row" } else { "rows" })
}

/// The columns that COPY gives, as pg_dump lists them; `None`: there is no such table.
fn columns(session: &mut dyn Session, table: &str) -> Result<Option<String>, SourceError> {
    let (table, what) = (literal(table), "list the columns");
    let found = session.value(what, &format!("SELECT to_regclass({table}) IS NOT NULL"))?;
    if found.as_deref() != Some("t") {
        return Ok(None);
    }
    // Generated columns came with 12; before, the row as JSON does not have the key.
    let sql = format!(
        "SELECT coalesce('(' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) || ')', '') FROM pg_attribute a
         WHERE attrelid = to_regclass({table}) AND attnum > 0 AND NOT attisdropped
         AND coalesce(to_jsonb(a)->>'attgenerated', '') = ''"
    );
    Ok(Some(session.value(what, &sql)?.unwrap_or_default()))
}

/// Sequences: none behind what it was, and none so far behind its column that the next row fails.
///
/// # Errors
/// The server's, or the run was cancelled.
pub fn sequences(session: &mut dyn Session, expected: &DatabaseFacts) -> Result<Seen, SourceError> {
    let sql = "SELECT quote_ident(n.nspname) || '.' || quote_ident(s.relname), q.seqincrement,
        quote_ident(tn.nspname) || '.' || quote_ident(t.relname), quote_ident(a.attname)
        FROM pg_sequence q JOIN pg_class s ON s.oid = q.seqrelid JOIN pg_namespace n ON n.oid = s.relnamespace
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('a', 'i')
            AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
        LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
        LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE n.nspname NOT LIKE 'pg\\_%' ESCAPE '\\' AND n.nspname <> 'information_schema' ORDER BY 1";
    let there = session.query("list the sequences", sql)?;
    let mut seen = Seen::default();
    let mut found = BTreeSet::new();
    for some in there.chunks(AT_ONCE) {
        let one = |row: &Vec<Option<String>>| {
            let (name, step) = (cell(row, 0).unwrap_or_default(), cell(row, 1).unwrap_or("1"));
            let furthest = match (cell(row, 2), cell(row, 3)) {
                (Some(table), Some(column)) if step.starts_with('-') => {
                    format!("(SELECT min({column})::text FROM {table})")
                }
                (Some(table), Some(column)) => format!("(SELECT max({column})::text FROM {table})"),
                _ => "NULL".into(),
            };
            format!("SELECT last_value, is_called, {furthest} FROM {name}")
        };
        let sql = some.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
        for (about, row) in some.iter().zip(session.query("read the sequences", &sql)?) {
            let name = cell(about, 0).unwrap_or_default();
            found.insert(name.to_owned());
            seen.count += 1;
            judge_sequence(about, &row, expected.sequences.get(name), &mut seen);
        }
    }
    for (name, (value, _)) in expected.sequences.iter().filter(|(name, _)| !found.contains(*name)) {
        seen.differs(format!("sequence {name}"), format!("at {value}"), "no such sequence");
    }
    Ok(seen)
}

fn judge_sequence(about: &Row, row: &Row, captured: Option<&(i64, bool)>, seen: &mut Seen) {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let name = cell(about, 0).unwrap_or_default();
    let down = cell(about, 1).is_some_and(|step| step.starts_with('-'));
    let is_behind = |a: i64, b: i64| if down { a > b } else { a < b };
    let Some(value) = number(cell(row, 0)) else { return };
    let is_called = cell(row, 1) == Some("t");
    if let Some((was, _)) = captured.filter(|(was, _)| is_behind(value, *was)) {
        seen.differs(format!("sequence {name}"), format!("at {was} or further"), format!("at {value}"));
        return;
    }
    let Some(furthest) = number(cell(row, 2)) else { return };
    // A sequence that was not called gives its value itself next.
    if !is_behind(value, furthest) && (is_called || value != furthest) {
        return;
    }
    let (table, column) = (cell(about, 2).unwrap_or_default(), cell(about, 3).unwrap_or_default());
    if captured == Some(&(value, is_called)) {
        let note = format!(
            "sequence {name} at {value} was behind {table}.{column} at the source already: {furthest}"
        );
        seen.notes.push(note);
        return;
    }
    let edge = if down { "min" } else { "max" };
    let expected = format!("past {edge}({column}) of {table}, {furthest}");
    let why = "the next row would be refused or take a number that is in use";
    seen.differences
        .push(Difference::new(format!("sequence {name}"), expected, format!("at {value}")).because(why));
}

/// Roles there must be, who owns the database, and who may do how much in it.
///
/// # Errors
/// The server's.
pub fn roles(session: &mut dyn Session, all: &Facts, expected: &DatabaseFacts) -> Result<Seen, SourceError> {
    let mut seen = Seen::default();
    let listed = session.query("list the roles", "SELECT rolname FROM pg_roles")?;
    let there: BTreeSet<&str> = listed.iter().filter_map(|row| cell(row, 0)).collect();
    match &all.globals {
        Some(globals) => {
            for role in &globals.roles {
                seen.count += 1;
                if !there.contains(role.as_str()) {
                    seen.differs(format!("role {role}"), "a role", "no such role");
                }
            }
        }
        None => seen.notes.push("roles: the snapshot holds none".into()),
    }
    let sql = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()";
    let owner = session.value("ask who owns the database", sql)?.unwrap_or_default();
    let was = &expected.properties.owner;
    if !was.is_empty() && owner != *was {
        seen.differs("the database's owner", was, owner);
    }
    let Some(inventory) = &expected.inventory else {
        seen.notes.push("grants: the snapshot does not say what they were".into());
        return Ok(seen);
    };
    let found = Inventory::read(session)?.grants;
    let none = BTreeMap::new();
    for role in
        inventory.grants.keys().chain(found.keys().filter(|role| !inventory.grants.contains_key(*role)))
    {
        let (was, is) = (inventory.grants.get(role).unwrap_or(&none), found.get(role).unwrap_or(&none));
        for right in was.keys().chain(is.keys().filter(|right| !was.contains_key(*right))) {
            let number = |rights: &BTreeMap<String, u64>| rights.get(right).copied().unwrap_or(0);
            if number(was) != number(is) {
                let told = |number: u64| format!("on {number} objects");
                seen.differs(format!("role {role}, right to {right}"), told(number(was)), told(number(is)));
            }
        }
        seen.rows += was.values().sum::<u64>();
    }
    Ok(seen)
}

/// Extensions: there, and of the version they had.
///
/// # Errors
/// The server's.
pub fn extensions(session: &mut dyn Session, expected: &DatabaseFacts) -> Result<Seen, SourceError> {
    let listed = session.query("list the extensions", "SELECT extname, extversion FROM pg_extension")?;
    let there: BTreeMap<&str, &str> =
        listed.iter().filter_map(|row| Some((cell(row, 0)?, cell(row, 1)?))).collect();
    let mut seen = Seen::default();
    for (name, version) in &expected.extensions {
        seen.count += 1;
        match there.get(name.as_str()) {
            None => seen.differs(format!("extension {name}"), format!("version {version}"), "not there"),
            // The program's package decides: the same data, another release of what works on it.
            Some(found) if found != version => {
                seen.notes.push(format!("extension {name} is {found} here, was {version}"));
            }
            Some(_) => {}
        }
    }
    Ok(seen)
}

/// Encoding and collation, on which order and uniqueness of text depend.
///
/// # Errors
/// The server's.
pub fn locale(session: &mut dyn Session, expected: &DatabaseFacts) -> Result<Seen, SourceError> {
    let found = super::facts::read_properties(session)?.properties;
    let was = &expected.properties;
    let mut seen = Seen::default();
    let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
    for (subject, was, is) in [
        ("encoding", was.encoding.clone(), found.encoding),
        ("collation (LC_COLLATE)", was.collate.clone(), found.collate),
        ("character types (LC_CTYPE)", was.ctype.clone(), found.ctype),
        ("collation provider", was.provider.clone(), found.provider),
        ("locale of the collation provider", told(&was.locale), told(&found.locale)),
    ] {
        seen.count += 1;
        if was != is {
            seen.differences
                .push(Difference::new(subject, was, is).because("text sorts, compares and is unique by it"));
        }
    }
    Ok(seen)
}

/// Constraints, indexes and the like: as many of each kind as there were, and valid.
///
/// # Errors
/// The server's.
pub fn constraints(session: &mut dyn Session, expected: &DatabaseFacts) -> Result<Seen, SourceError> {
    let mut seen = Seen::default();
    let Some(was) = &expected.inventory else {
        seen.notes.push("constraints and indexes: the snapshot does not say what there was".into());
        return Ok(seen);
    };
    let is = Inventory::read(session)?;
    for kind in was.objects.keys().chain(is.objects.keys().filter(|kind| !was.objects.contains_key(*kind))) {
        let of = |objects: &BTreeMap<String, u64>| objects.get(kind).copied().unwrap_or(0);
        if of(&was.objects) != of(&is.objects) {
            seen.differs(kind.clone(), of(&was.objects).to_string(), of(&is.objects).to_string());
        }
    }
    for name in is.not_valid.iter().filter(|name| !was.not_valid.contains(name)) {
        seen.differs(name.clone(), "valid", "not valid");
    }
    seen.count = was.objects.get("constraints").copied().unwrap_or(0);
    seen.rows = was.objects.get("indexes").copied().unwrap_or(0);
    Ok(seen)
}
