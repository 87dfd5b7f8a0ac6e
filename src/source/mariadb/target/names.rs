//! What is in a database beside rows, by name, and the SQL that moves it, takes it down, or lets it run.
//!
//! Invariant: everything here builds SQL or reads; what is run in a step of an exchange goes through [`Steps`], so
//! that whoever comes after a killed restore can wait for the statements it left running.

use serde::{Deserialize, Serialize};

use super::super::dump::{Held, Kind, subject};
use super::super::error::MariaError;
use super::super::session::{Reach, ident, literal};
use super::MARK;
use crate::base::cancel::Cancel;
use crate::source::capture::SourceError;

/// What is in a database, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub tables: Vec<String>,
    pub views: Vec<String>,
    pub triggers: Vec<String>,
    /// `PROCEDURE`, `FUNCTION`, …, and the name.
    pub routines: Vec<(String, String)>,
    /// The name, and whether it runs.
    pub events: Vec<(String, bool)>,
}

impl Names {
    /// Those of `self` that are not in `there`; tables and events are left out.
    pub fn less(&self, there: &Self) -> Self {
        fn less<T: Clone + PartialEq>(some: &[T], others: &[T]) -> Vec<T> {
            some.iter().filter(|name| !others.contains(name)).cloned().collect()
        }
        Self {
            views: less(&self.views, &there.views),
            triggers: less(&self.triggers, &there.triggers),
            routines: less(&self.routines, &there.routines),
            ..Self::default()
        }
    }

    /// One of them, for a message.
    pub fn first(&self) -> Option<String> {
        let named = |kind: &str, name: &String| format!("{kind} {name:?}");
        let routine = |(kind, name): &(String, String)| named(&kind.to_ascii_lowercase(), name);
        let (view, trigger) = (self.views.first(), self.triggers.first());
        let view = view.map(|name| named("view", name));
        let trigger = || trigger.map(|name| named("trigger", name));
        view.or_else(trigger).or_else(|| self.routines.first().map(routine))
    }

    /// Whether a statement makes one of these; settings go with any.
    pub fn wants(&self, held: &Held) -> bool {
        let Some((kind, name)) = subject(&held.text).filter(|_| held.kind != Kind::Setting) else {
            return held.kind == Kind::Setting;
        };
        match held.kind {
            Kind::View => self.views.contains(&name),
            Kind::Trigger => self.triggers.contains(&name),
            Kind::Routine => self.routines.contains(&(kind, name)),
            Kind::Setting | Kind::Event => false,
        }
    }

    /// Those of `self` that are in `there`, too; tables are left out.
    pub fn among(&self, there: &Self) -> Self {
        fn both<T: Clone + PartialEq>(some: &[T], others: &[T]) -> Vec<T> {
            some.iter().filter(|name| others.contains(name)).cloned().collect()
        }
        let has = |event: &str| there.events.iter().any(|(name, _)| name == event);
        Self {
            tables: Vec::new(),
            views: both(&self.views, &there.views),
            triggers: both(&self.triggers, &there.triggers),
            routines: both(&self.routines, &there.routines),
            events: self.events.iter().filter(|(name, _)| has(name)).cloned().collect(),
        }
    }
}

/// What is in `database`; nothing where there is none.
pub fn names(reach: &Reach, database: &str, cancel: &Cancel) -> Result<Names, SourceError> {
    let sql = format!(
        "SELECT IF(TABLE_TYPE LIKE '%VIEW', 'v', 't'), TABLE_NAME, '' FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = {0} AND TABLE_NAME <> '{MARK}';
         SELECT 'g', TRIGGER_NAME, '' FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {0};
         SELECT 'r', ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {0};
         SELECT 'e', EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {0};",
        literal(database)
    );
    let mut names = Names::default();
    for row in reach.run("list what is in the database", None, sql.as_bytes(), cancel)? {
        let [kind, name, more] = row.as_slice() else { continue };
        match kind.as_str() {
            "t" => names.tables.push(name.clone()),
            "v" => names.views.push(name.clone()),
            "g" => names.triggers.push(name.clone()),
            "r" => names.routines.push((more.clone(), name.clone())),
            _ => names.events.push((name.clone(), more == "ENABLED")),
        }
    }
    Ok(names)
}

/// Views that read nothing and give nothing: dumps make such of every view first, MariaDB's of NULL, MySQL's of 1.
pub fn stand_ins(reach: &Reach, database: &str, cancel: &Cancel) -> Result<Vec<String>, SourceError> {
    let sql = format!(
        "SELECT 'v', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {}
         AND (VIEW_DEFINITION LIKE 'select NULL AS %' OR VIEW_DEFINITION LIKE 'select 1 AS %')
         AND VIEW_DEFINITION NOT LIKE '% from %'",
        literal(database)
    );
    let rows = reach.run("look for stand-ins of views", None, sql.as_bytes(), cancel)?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().nth(1)).collect())
}

/// The SQL that drops what is no table.
pub fn strip(database: &str, names: &Names) -> String {
    let of = |name: &String| format!("{}.{}", ident(database), ident(name));
    let mut sql = drop_triggers(database, names);
    sql.extend(names.views.iter().map(|name| format!("DROP VIEW IF EXISTS {};\n", of(name))));
    for (kind, name) in &names.routines {
        sql.push_str(&format!("DROP {kind} IF EXISTS {};\n", of(name)));
    }
    sql
}

pub fn drop_triggers(database: &str, names: &Names) -> String {
    let of = |name: &String| format!("{}.{}", ident(database), ident(name));
    names.triggers.iter().map(|name| format!("DROP TRIGGER IF EXISTS {};\n", of(name))).collect()
}

pub fn drop_events(database: &str, names: &Names) -> String {
    let drop = |(name, _): &(String, bool)| format!("DROP EVENT {}.{};\n", ident(database), ident(name));
    names.events.iter().map(drop).collect()
}

/// `back`: those that ran run again; else they stand still where they come.
pub fn move_events(events: &[(String, bool)], from: &str, to: &str, back: bool) -> String {
    let mut sql = String::new();
    for (name, ran) in events {
        let how = if back && *ran { "ENABLE" } else { "DISABLE" };
        let (from, to, name) = (ident(from), ident(to), ident(name));
        sql.push_str(&format!("ALTER EVENT {from}.{name} RENAME TO {to}.{name} {how};\n"));
    }
    sql
}

pub fn set_events(events: &[(String, bool)], database: &str, on: bool) -> String {
    let how = if on { "ENABLE" } else { "DISABLE" };
    let ran = events.iter().filter(|(_, ran)| *ran);
    ran.map(|(name, _)| format!("ALTER EVENT {}.{} {how};\n", ident(database), ident(name))).collect()
}

/// One statement that moves all tables, each database's from its first name to its second.
pub fn rename(pairs: &[(&[String], &str, &str)]) -> Option<String> {
    let mut moves = Vec::new();
    for (tables, from, to) in pairs {
        for table in *tables {
            moves.push(format!("{}.{2} TO {}.{2}", ident(from), ident(to), ident(table)));
        }
    }
    (!moves.is_empty()).then(|| format!("RENAME TABLE {};\n", moves.join(", ")))
}

/// What was kept back as a script; statements of other kinds than `wanted` are left out.
pub fn script(held: &[Held], wanted: fn(Kind) -> bool) -> Vec<u8> {
    script_of(held, |held| wanted(held.kind))
}

/// The same of some statements.
pub fn script_of(held: &[Held], wanted: impl Fn(&Held) -> bool) -> Vec<u8> {
    // As in a dump's head: views and routines may name what comes later.
    let mut text = b"SET NAMES utf8mb4;\nSET FOREIGN_KEY_CHECKS = 0, SQL_NOTES = 0;\n".to_vec();
    for statement in held.iter().filter(|held| wanted(held)) {
        text.extend_from_slice(&statement.text);
    }
    text
}

pub fn all(_: Kind) -> bool {
    true
}

pub fn but_events(kind: Kind) -> bool {
    kind != Kind::Event
}

/// The statements of an exchange. Each script holds a lock of its own while it runs: one that outlives a killed
/// restore, or a cancelled one, is waited for by whatever comes next.
pub struct Steps<'a> {
    pub reach: &'a Reach,
    name: String,
    lock: String,
}

/// How long an earlier script is waited for: rename and DDL may wait for others' locks.
const PATIENCE_SECONDS: u32 = 120;
/// How long one statement waits for a lock that somebody holds on a table; by itself it would wait a day.
const LOCK_SECONDS: u32 = 60;
/// What the server says of the first line of a script that did not get its lock.
const NO_LOCK: &str = "at line 1: Subquery returns more than 1 row";

impl<'a> Steps<'a> {
    /// Of exchanges of database `name`.
    pub fn new(reach: &'a Reach, name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let name = name.to_owned();
        Self { reach, name, lock: format!("GET_LOCK('lifeboat-step-{}', {PATIENCE_SECONDS})", &hash[..32]) }
    }

    /// Runs a script once no other one runs.
    ///
    /// # Errors
    /// The server's, an earlier one still runs, or the run was cancelled.
    pub fn run(
        &self,
        what: &str,
        database: Option<&str>,
        sql: &[u8],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<String>>, SourceError> {
        // `SIGNAL` is for routines only, and `DO` forgives everything; a scalar of two rows is an error anywhere.
        let lock = format!("SET @lifeboat_lock = IF({} = 1, 1, (SELECT 1 UNION SELECT 2));", self.lock);
        let mut text = format!("{lock}\nSET lock_wait_timeout = {LOCK_SECONDS};\n").into_bytes();
        text.extend_from_slice(sql);
        match self.reach.run(what, database, &text, cancel) {
            Err(error) if error.to_string().contains(NO_LOCK) => Err(self.still_running()),
            result => result,
        }
    }

    fn still_running(&self) -> SourceError {
        MariaError::Other(format!(
            "statements of an earlier restore into {:?} still run at {}\nhint: SHOW PROCESSLIST names them, and \
             whom they wait for",
            self.name,
            self.reach.server.shown()
        ))
        .into()
    }

    /// The same although the run is cancelled.
    ///
    /// # Errors
    /// The server's.
    pub fn surely(&self, what: &str, sql: &str) -> Result<(), SourceError> {
        self.run(what, None, sql.as_bytes(), &Cancel::new()).map(drop)
    }

    /// Waits for what an earlier restore left running.
    ///
    /// # Errors
    /// It still runs, or the run was cancelled.
    pub fn wait(&self, cancel: &Cancel) -> Result<(), SourceError> {
        let what = "wait for what an earlier restore still runs";
        let rows = self.reach.run(what, None, format!("SELECT {}", self.lock).as_bytes(), cancel)?;
        if rows.first().and_then(|row| row.first()).is_some_and(|got| got == "1") {
            return Ok(());
        }
        Err(self.still_running())
    }

    /// Columns of `database` that take their default from a sequence of `from` take it from `database`'s own.
    ///
    /// # Errors
    /// The server's.
    pub fn defaults(&self, database: &str, from: &str) -> Result<(), SourceError> {
        let sql = format!(
            "SELECT 'd', TABLE_NAME, COLUMN_NAME, COLUMN_DEFAULT FROM information_schema.COLUMNS
             WHERE TABLE_SCHEMA = {} AND COLUMN_DEFAULT LIKE 'nextval(%'",
            literal(database)
        );
        let call = |name: &str| format!("nextval({}.", ident(name));
        let mut changes = String::new();
        for row in self.reach.farewell("look for defaults from sequences", None, &sql)? {
            let [_, table, column, default] = row.as_slice() else { continue };
            if let Some(rest) = default.strip_prefix(&call(from)) {
                changes.push_str(&format!(
                    "ALTER TABLE {}.{} ALTER COLUMN {} SET DEFAULT ({}{rest});\n",
                    ident(database),
                    ident(table),
                    ident(column),
                    call(database)
                ));
            }
        }
        if changes.is_empty() { Ok(()) } else { self.surely("set defaults from sequences", &changes) }
    }
}
