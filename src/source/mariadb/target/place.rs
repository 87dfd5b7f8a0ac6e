//! Into its place: what was kept back is put up, and where there was a database, its tables change places with the
//! new ones.
//!
//! A server has no way to rename a database, and none to rename views, triggers and routines into another. So for a
//! database that is replaced:
//!
//! 1. what was kept back is put up beside, as a rehearsal: what the server does not take is known before anything
//!    that was there is touched; then it is taken down again.
//! 2. what the old database has beside tables is noted, also in the marked table beside.
//! 3. its triggers go (a table with triggers cannot be renamed away), its events stop.
//! 4. one statement renames all old tables into the database that keeps them and all new ones into their place: the
//!    server does all of it or nothing.
//! 5. old views and routines go, the new ones come.
//! 6. the noted ones come to the old tables, where they are now.
//!
//! An error after 3 undoes everything in reverse. Killed between 3 and 4, the next restore into the same name puts the
//! old triggers back first; killed after 4, it says where the old tables are, and what the database lacks.

use super::super::dump::{Held, Kind, Objects};
use super::super::session::{Reach, ident, literal};
use super::look::with_suffix;
use super::{MARK, MariaError, MariaTarget};
use crate::base::cancel::Cancel;
use crate::source::capture::SourceError;

/// What is in a database, by name.
#[derive(Clone, Debug, Default)]
struct Names {
    tables: Vec<String>,
    views: Vec<String>,
    triggers: Vec<String>,
    /// `PROCEDURE`, `FUNCTION`, …, and the name.
    routines: Vec<(String, String)>,
    /// The name, and whether it runs.
    events: Vec<(String, bool)>,
}

fn names(reach: &Reach, database: &str, cancel: &Cancel) -> Result<Names, SourceError> {
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

/// The SQL that drops what is no table.
fn strip(database: &str, names: &Names) -> String {
    let of = |name: &String| format!("{}.{}", ident(database), ident(name));
    let mut sql = drop_triggers(database, names);
    sql.extend(names.views.iter().map(|name| format!("DROP VIEW IF EXISTS {};\n", of(name))));
    for (kind, name) in &names.routines {
        sql.push_str(&format!("DROP {kind} IF EXISTS {};\n", of(name)));
    }
    sql
}

fn drop_triggers(database: &str, names: &Names) -> String {
    let of = |name: &String| format!("{}.{}", ident(database), ident(name));
    names.triggers.iter().map(|name| format!("DROP TRIGGER IF EXISTS {};\n", of(name))).collect()
}

fn move_events(events: &[(String, bool)], from: &str, to: &str, back: bool) -> String {
    let mut sql = String::new();
    for (name, ran) in events {
        let how = if back && *ran { "ENABLE" } else { "DISABLE" };
        let (from, to, name) = (ident(from), ident(to), ident(name));
        sql.push_str(&format!("ALTER EVENT {from}.{name} RENAME TO {to}.{name} {how};\n"));
    }
    sql
}

fn set_events(events: &[(String, bool)], database: &str, on: bool) -> String {
    let how = if on { "ENABLE" } else { "DISABLE" };
    let ran = events.iter().filter(|(_, ran)| *ran);
    ran.map(|(name, _)| format!("ALTER EVENT {}.{} {how};\n", ident(database), ident(name))).collect()
}

fn rename(pairs: &[(&Names, &str, &str)]) -> Option<String> {
    let mut moves = Vec::new();
    for (names, from, to) in pairs {
        for table in &names.tables {
            moves.push(format!("{}.{2} TO {}.{2}", ident(from), ident(to), ident(table)));
        }
    }
    (!moves.is_empty()).then(|| format!("RENAME TABLE {};\n", moves.join(", ")))
}

/// What was kept back as a script; statements of other kinds than `wanted` are left out.
fn script(held: &[Held], wanted: fn(Kind) -> bool) -> Vec<u8> {
    // As in a dump's head: views and routines may name what comes later.
    let mut text = b"SET NAMES utf8mb4;\nSET FOREIGN_KEY_CHECKS = 0, SQL_NOTES = 0;\n".to_vec();
    for statement in held.iter().filter(|held| wanted(held.kind)) {
        text.extend_from_slice(&statement.text);
    }
    text
}

fn all(_: Kind) -> bool {
    true
}

fn but_events(kind: Kind) -> bool {
    kind != Kind::Event
}

fn only_triggers(kind: Kind) -> bool {
    matches!(kind, Kind::Trigger | Kind::Setting)
}

/// What an exchange has to know to be undone.
struct Exchange {
    name: String,
    work: String,
    kept: String,
    old: Names,
    new: Names,
    old_held: Vec<Held>,
    /// How far it came: the step of the module's list.
    step: u32,
}

impl MariaTarget {
    /// Puts a proven database into its place.
    pub(super) fn place(&mut self, place: usize) -> Result<(), SourceError> {
        match self.plans[place].replaces() {
            true => self.replace(place)?,
            false => {
                let name = self.plans[place].name.clone();
                self.dress(place, &name, all)?;
                self.count(place)?;
                // Until here it is marked as not whole.
                self.reach()?.query(
                    "show the database",
                    Some(&name),
                    &format!("DROP TABLE {}", ident(MARK)),
                )?;
            }
        }
        self.plans[place].is_made = false;
        Ok(())
    }

    fn dress(&self, place: usize, database: &str, wanted: fn(Kind) -> bool) -> Result<(), SourceError> {
        let plan = &self.plans[place];
        let what = format!("put up views, routines, triggers and events of database {:?}", plan.name);
        self.reach()?.run(&what, Some(database), &script(&plan.held, wanted), &self.world.cancel).map(drop)
    }

    /// What is no table, counted.
    fn count(&mut self, place: usize) -> Result<(), SourceError> {
        let plan = &self.plans[place];
        let found = names(self.reach()?, &plan.name, &self.world.cancel)?;
        let expected = plan.facts.objects;
        let size = |names: usize| names as u64;
        let got = Objects {
            views: size(found.views.len()),
            triggers: size(found.triggers.len()),
            routines: size(found.routines.len()),
            events: size(found.events.len()),
            sequences: expected.sequences,
        };
        let name = &plan.name;
        let said = |objects: Objects| {
            let Objects { views, triggers, routines, events, sequences } = objects;
            format!(
                "{views} views, {triggers} triggers, {routines} routines, {events} events, {sequences} sequences"
            )
        };
        if (Objects { events: expected.events, ..got }) != expected {
            let text = format!("database {name:?} has {}; there were {}", said(got), said(expected));
            return Err(SourceError::Differs(text));
        }
        let (proven, mut warning) = (format!("{name}: {} came back", said(got)), None);
        if got.events != expected.events {
            let (was, is) = (expected.events, got.events);
            warning = Some(format!(
                "{name}: of {was} events there are {is}: servers drop those whose time has passed"
            ));
        }
        self.proven.push(proven);
        self.warnings.extend(warning);
        Ok(())
    }

    /// Exchanges the tables of a database for the proven ones.
    fn replace(&mut self, place: usize) -> Result<(), SourceError> {
        let (name, work) = (self.plans[place].name.clone(), self.plans[place].work.clone());
        self.dress(place, &work, but_events)?;
        let stamp = jiff::Timestamp::from_second(self.world.now.seconds)
            .map(|at| at.strftime("%Y%m%dT%H%M%S").to_string())
            .unwrap_or_default();
        let kept = with_suffix(&name, &format!("_before_{stamp}"));
        let old_held = self.follow(&name, &name, &["--no-data", "--routines", "--triggers"])?.held;
        let cancel = self.world.cancel.clone();
        let reach = self.reach()?;
        let old = names(reach, &name, &cancel)?;
        let made = names(reach, &work, &cancel)?;
        reach.query("take the rehearsal down", None, &strip(&work, &made))?;
        let new = Names { tables: made.tables, ..Names::default() };
        let kind = format!(
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA
             WHERE SCHEMA_NAME = {}",
            literal(&name)
        );
        let row = reach.query("look at the old database", None, &kind)?.pop().unwrap_or_default();
        let cell = |column: usize| row.get(column).cloned().unwrap_or_default();
        let sql = super::look::create(&kept, &cell(0), &cell(1));
        reach.query("make the database that keeps the old tables", None, &sql)?;
        let mut exchange = Exchange { name, work, kept, old, new, old_held, step: 2 };
        if let Err(error) = self.exchange(place, &mut exchange) {
            let (error, is_back) = self.undo(exchange, error);
            // What lies beside holds the only note of how to put the old database right: the next restore reads it.
            self.plans[place].is_made &= is_back;
            return Err(error);
        }
        let Exchange { name, work, kept, old_held, .. } = exchange;
        let reach = self.reach()?;
        let back = script(&old_held, but_events);
        let mut not_done = Vec::new();
        if let Err(error) = reach.run("dress the old tables", Some(&kept), &back, &cancel) {
            not_done.push(format!(
                "views, routines and triggers of the old {name:?} are not all in {kept:?}: {error}"
            ));
        }
        reach.query("drop the database beside", None, &format!("DROP DATABASE {}", ident(&work)))?;
        self.not_done.extend(not_done);
        self.proven.push(format!(
            "the tables that were in {name:?} are kept in {kept:?}; drop it when you need it no more"
        ));
        Ok(())
    }

    /// Steps 2 to 5.
    fn exchange(&mut self, place: usize, exchange: &mut Exchange) -> Result<(), SourceError> {
        let Exchange { name, work, kept, old, new, old_held, step } = exchange;
        let cancel = self.world.cancel.clone();
        let reach = self.reach()?;
        let mut note = set_events(&old.events, name, true).into_bytes();
        note.extend(script(old_held, only_triggers));
        let digits: String = note.iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = format!(
            "INSERT INTO {}.`{MARK}` VALUES ('exchange', {}, x'{digits}')",
            ident(work),
            literal(kept)
        );
        reach.query("note what the old database has", None, &sql)?;
        *step = 3;
        let sql = set_events(&old.events, name, false) + &drop_triggers(name, old);
        reach.query("stop the events of the old database and take its triggers", None, &sql)?;
        cancel.check()?;
        *step = 4;
        // Nobody must hold a table for ever; and what the server began it ends, whether we are there or not.
        let sql = rename(&[(old, name, kept), (new, work, name)]).unwrap_or_default();
        let sql = format!("SET lock_wait_timeout = 60;\n{sql}");
        reach.farewell("exchange the tables", None, &sql)?;
        *step = 5;
        let only = Names { triggers: Vec::new(), ..old.clone() };
        let sql = strip(name, &only) + &move_events(&old.events, name, kept, false);
        reach.query("move what the old database had beside tables", None, &sql)?;
        defaults(reach, name, work)?;
        defaults(reach, kept, name)?;
        let facts = &self.plans[place].facts;
        let sql = format!(
            "ALTER DATABASE {} CHARACTER SET {} COLLATE {}",
            ident(name),
            literal(&facts.charset),
            literal(&facts.collation)
        );
        reach.query("set the collation", None, &sql)?;
        let name = name.clone();
        self.dress(place, &name, all)?;
        self.count(place)
    }

    /// Puts everything back as it was; the error that made it necessary, or that and why it could not be done.
    fn undo(&self, exchange: Exchange, error: SourceError) -> (SourceError, bool) {
        let Exchange { name, work, kept, old, new, old_held, step } = exchange;
        let Ok(reach) = self.reach() else { return (error, false) };
        let put_back = || -> Result<(), SourceError> {
            let free = Cancel::new();
            // The server may have done it even where no answer came.
            let has_moved = step >= 4 && {
                let there = names(reach, &kept, &free)?.tables;
                !there.is_empty() || old.tables.is_empty() && names(reach, &work, &free)?.tables.is_empty()
            };
            if has_moved {
                let now = names(reach, &name, &free)?;
                let moved = names(reach, &kept, &free)?;
                let made: String = now
                    .events
                    .iter()
                    .filter(|_| moved.events.len() == old.events.len())
                    .map(|(event, _)| format!("DROP EVENT {}.{};\n", ident(&name), ident(event)))
                    .collect();
                reach.farewell("take down what was put up", None, &(made + &strip(&name, &now)))?;
                if let Some(sql) = rename(&[(&new, &name, &work), (&old, &kept, &name)]) {
                    reach.farewell("exchange the tables back", None, &sql)?;
                }
                let events: Vec<_> = old
                    .events
                    .iter()
                    .filter(|(event, _)| moved.events.iter().any(|(name, _)| name == event))
                    .cloned()
                    .collect();
                reach.farewell("move the events back", None, &move_events(&events, &kept, &name, true))?;
                let again = |from: &str, to: &str| defaults(reach, from, to);
                again(&name, &kept)?;
                reach.run("put up what there was", Some(&name), &script(&old_held, but_events), &free)?;
            } else if step >= 3 {
                let left = names(reach, &name, &free)?;
                reach.farewell("take the triggers", None, &drop_triggers(&name, &left))?;
                reach.run("put the triggers back", Some(&name), &script(&old_held, only_triggers), &free)?;
            }
            reach.farewell("let the events run again", None, &set_events(&old.events, &name, true))?;
            let rest = names(reach, &kept, &free)?;
            if rest.tables.is_empty() && rest.events.is_empty() {
                reach.farewell(
                    "drop the database for old tables",
                    None,
                    &format!("DROP DATABASE {}", ident(&kept)),
                )?;
            }
            Ok(())
        };
        let Err(other) = put_back() else { return (error, true) };
        let first = |error: &SourceError| error.to_string().lines().next().unwrap_or_default().to_owned();
        let error = MariaError::Other(format!(
            "database {name:?} is not as it was: its exchange broke off ({}), and could not be undone ({})\nhint: its old \
             tables are in {kept:?} or in their place; put the server right, then run the restore again",
            first(&error),
            first(&other)
        ));
        (error.into(), false)
    }

    /// A database beside exists already, ours, of a restore that was killed. Puts the old database right as far as
    /// it was left wrong, drops what is beside, and says what there is to know.
    pub(super) fn undo_earlier(&self, name: &str, work: &str) -> Result<String, SourceError> {
        let reach = self.reach()?;
        let cancel = &self.world.cancel;
        let sql = format!("SELECT state, kept, CONVERT(script USING utf8mb4) FROM {}.`{MARK}`", ident(work));
        let row = reach.query("look at what an earlier restore left", None, &sql)?.pop();
        let drop = format!("DROP DATABASE {}", ident(work));
        let mut said = format!("an earlier restore into {name:?} broke off; what it left was dropped");
        if let Some([_, kept, note]) = row.as_deref() {
            let there = names(reach, work, cancel)?;
            if there.tables.is_empty() {
                said = format!(
                    "an earlier restore into {name:?} was killed once its tables were in their place; the tables from before \
                     it are in {kept:?}"
                );
            } else {
                let left = names(reach, name, cancel)?;
                reach.query("take the triggers", None, &drop_triggers(name, &left))?;
                reach.run("put the triggers back", Some(name), note.as_bytes(), cancel)?;
                if names(reach, kept, cancel)?.tables.is_empty() {
                    reach.query(
                        "drop what kept nothing",
                        None,
                        &format!("DROP DATABASE IF EXISTS {}", ident(kept)),
                    )?;
                }
                said.push_str(", and triggers and events of the old database were put back");
            }
        }
        reach.query("drop what an earlier restore left", None, &drop)?;
        Ok(said)
    }
}

/// Columns of `database` that take their default from a sequence of `from` take it from `database`'s own.
fn defaults(reach: &Reach, database: &str, from: &str) -> Result<(), SourceError> {
    let sql = format!(
        "SELECT 'd', TABLE_NAME, COLUMN_NAME, COLUMN_DEFAULT FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = {} AND COLUMN_DEFAULT LIKE 'nextval(%'",
        literal(database)
    );
    let call = |name: &str| format!("nextval({}.", ident(name));
    let mut changes = String::new();
    for row in reach.farewell("look for defaults from sequences", None, &sql)? {
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
    if !changes.is_empty() {
        reach.farewell("set defaults from sequences", None, &changes)?;
    }
    Ok(())
}
