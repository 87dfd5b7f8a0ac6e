//! Before a byte is fetched: is the server the right one, are the names free, can the databases be made.

use std::io::{Read as _, Write as _};

use super::super::address::Databases;
use super::super::error::{self, MariaError};
use super::super::session::{Reach, ident, literal};
use super::super::tools::Flavour;
use super::note::Brought;
use super::{MARK, MariaTarget, Plan, away};
use crate::base::cancel::Cancel;
use crate::base::process::{Feed, Process, ProcessOptions};
use crate::source::capture::SourceError;
use crate::source::target::StoredPart;

/// Longest name of a database, in characters.
const NAME_CHARACTERS: usize = 64;

fn refused<T>(why: impl Into<String>) -> Result<T, SourceError> {
    Err(SourceError::Refused(why.into()))
}

/// `name` and `suffix` within what a server keeps of a name; a cut name is told apart by a hash.
pub fn with_suffix(name: &str, suffix: &str) -> String {
    let room = NAME_CHARACTERS - suffix.chars().count();
    if name.chars().count() <= room {
        return format!("{name}{suffix}");
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let cut: String = name.chars().take(room - 9).collect();
    format!("{cut}_{}{suffix}", &hash[..8])
}

/// The SQL that makes a database.
pub fn create(name: &str, charset: &str, collation: &str) -> String {
    let mut sql = format!("CREATE DATABASE {}", ident(name));
    for (key, value) in [("CHARACTER SET", charset), ("COLLATE", collation)] {
        if !value.is_empty() {
            sql.push_str(&format!(" {key} {}", literal(value)));
        }
    }
    sql + ";"
}

/// What a database is, as far as a restore asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Missing,
    Empty,
    Full,
    /// A restore was at work in it.
    Ours,
}

fn is(reach: &Reach, name: &str) -> Result<Is, SourceError> {
    let sql = format!(
        "SELECT (SELECT count(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {0}),
         (SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {0})
         + (SELECT count(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {0})
         + (SELECT count(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {0}),
         (SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {0} AND TABLE_NAME = '{MARK}')",
        literal(name)
    );
    let row = reach.query("look what is there", None, &sql)?.pop().unwrap_or_default();
    let cell = |column: usize| row.get(column).map_or("0", String::as_str);
    Ok(match (cell(0), cell(1), cell(2)) {
        ("0", ..) => Is::Missing,
        (_, _, "1") => Is::Ours,
        (_, "0", _) => Is::Empty,
        _ => Is::Full,
    })
}

impl MariaTarget {
    /// Chooses parts and makes the databases to work in.
    pub(super) fn look(&mut self, parts: &[StoredPart]) -> Result<Vec<usize>, SourceError> {
        let mut wanted = self.choose(parts)?;
        let mut reach = Reach::connect(&self.address.server, self.address.tools.as_deref(), &self.world)?;
        self.warnings.append(&mut reach.warnings);
        let Self { facts, .. } = self;
        if facts.flavour != reach.flavour.name() {
            self.warnings.push(format!(
                "the snapshot is of {} and the server is {}: what only the one has may not work in the other",
                facts.flavour,
                reach.flavour.name()
            ));
        }
        look_at_server(&reach, &self.plans)?;
        self.reach = Some(reach);
        for place in 0..self.plans.len() {
            self.choose_work(place)?;
        }
        for place in 0..self.plans.len() {
            if !self.only_looks {
                self.make_work(place)?;
            }
        }
        let users = facts_part(self);
        if let Some(path) = users
            && let Some(at) = parts.iter().position(|part| part.path == path)
        {
            self.users = Some((path, Vec::new()));
            wanted.push(at);
        }
        Ok(wanted)
    }

    /// Which databases of the snapshot get which names.
    fn choose(&mut self, parts: &[StoredPart]) -> Result<Vec<usize>, SourceError> {
        let mut there = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if let Some((name, facts)) =
                self.facts.databases.iter().find(|(_, facts)| facts.part == part.path)
            {
                there.push((at, name.clone(), facts.clone()));
            }
        }
        let list = || there.iter().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let pairs: Vec<(usize, String)> = match &self.address.databases {
            Databases::All => (0..there.len()).map(|place| (place, there[place].1.clone())).collect(),
            Databases::Named(names) if names.len() == 1 && there.len() == 1 => vec![(0, names[0].clone())],
            Databases::Named(names) => {
                let mut pairs = Vec::new();
                for name in names {
                    let Some(place) = there.iter().position(|(_, own, _)| own == name) else {
                        return refused(format!(
                            "the snapshot holds {} databases and none is {name:?}; there are: {}\nhint: end the address in \
                             /* for all under their own names, or choose one with SNAP:/databases/NAME.sql",
                            there.len(),
                            list()
                        ));
                    };
                    pairs.push((place, name.clone()));
                }
                pairs
            }
        };
        if pairs.is_empty() {
            return refused("no database was selected from the snapshot");
        }
        let mut wanted = Vec::new();
        for (place, name) in pairs {
            let (at, from, facts) = there[place].clone();
            wanted.push(at);
            let (work, held) = (name.clone(), Vec::new());
            self.plans.push(Plan {
                from,
                facts,
                name,
                work,
                is_made: false,
                was_empty: None,
                is_loaded: false,
                held,
            });
        }
        Ok(wanted)
    }

    /// Where a database is restored: in its own place, or beside it.
    fn choose_work(&mut self, place: usize) -> Result<(), SourceError> {
        let name = self.plans[place].name.clone();
        if self.only_looks {
            is_free(self.reach()?, &name)?;
        } else {
            let lock = lock(self.reach()?, &name, &self.world.cancel)?;
            self.locks.push(lock);
        }
        let reach = self.reach()?;
        match is(reach, &name)? {
            Is::Missing => {}
            Is::Empty => self.plans[place].was_empty = Some(collation(reach, &name)?),
            Is::Ours => {
                // Nobody is at work there any more, or the lock would not be ours; and it was empty or new before.
                let strangers = Brought::strangers(reach, &name, &self.world.cancel)?;
                if !strangers.is_empty() {
                    return refused(format!(
                        "database {name:?} holds what an earlier restore left, and what is not of it: {}\nhint: move that \
                         into another database (RENAME TABLE), or drop {name:?} yourself; then run this again",
                        strangers.join(", ")
                    ));
                }
                let drop = format!("DROP DATABASE {}", ident(&name));
                let text = if self.only_looks {
                    format!("an earlier restore into {name:?} broke off; the next one drops what it left")
                } else {
                    reach.query("drop what an earlier restore left", None, &drop)?;
                    format!("an earlier restore into {name:?} broke off; what it left was dropped")
                };
                self.warnings.push(text);
            }
            Is::Full if !self.flags.force => {
                return refused(format!(
                    "database {name:?} at {} is not empty\nhint: --force restores beside it, proves, and then \
                     exchanges the tables; the old ones are kept in another database",
                    reach.server.shown()
                ));
            }
            Is::Full => {
                let work = with_suffix(&name, "_lifeboat_new");
                look_at_neighbours(reach, &name)?;
                let left = match is(reach, &work)? {
                    Is::Missing => None,
                    Is::Ours if self.only_looks => None,
                    Is::Ours => Some(self.undo_earlier(&name, &work)?),
                    Is::Empty | Is::Full => {
                        return refused(format!(
                            "database {work:?} exists and is not ours\nhint: the restore needs that name: drop it"
                        ));
                    }
                };
                self.warnings.extend(left);
                self.met.replaced.push(format!("database {name:?}, whose tables are kept in another"));
                self.plans[place].work = work;
            }
        }
        Ok(())
    }

    fn make_work(&mut self, place: usize) -> Result<(), SourceError> {
        let Plan { work, facts, was_empty, name, .. } = &self.plans[place];
        let mut sql = String::new();
        if was_empty.is_some() {
            sql.push_str(&away::collate(work, &facts.charset, &facts.collation));
        } else {
            sql.push_str(&create(work, &facts.charset, &facts.collation));
        }
        let comment =
            "a restore by lifeboat is under way here, or broke off: run it again, or drop this database";
        sql.push_str(&format!(
            "CREATE TABLE {}.`{MARK}` ({}) ENGINE=InnoDB COMMENT={};",
            ident(work),
            super::note::COLUMNS,
            literal(comment)
        ));
        if !self.plans[place].replaces() {
            sql.push_str(&Brought::of(facts).written(work)?);
        }
        let what = format!("make database {name:?}");
        let work = work.clone();
        // One that was made and not marked is ours all the same.
        let made = self.reach()?.query(&what, None, &sql);
        if let Err(error) = made {
            let text = error.to_string();
            if let Some(was) = &self.plans[place].was_empty {
                let _ = away::empty(self.reach()?, &self.plans[place], was);
            } else if !text.contains("database exists") {
                let drop = format!("DROP DATABASE IF EXISTS {}", ident(&work));
                if is(self.reach()?, &work).is_ok_and(|is| is == Is::Empty) {
                    let _ = self.reach()?.farewell("drop it again", None, &drop);
                }
            }
            return Err(error);
        }
        self.plans[place].is_made = true;
        Ok(())
    }
}

fn facts_part(target: &MariaTarget) -> Option<String> {
    target.facts.users.as_ref().map(|users| users.part.clone())
}

/// Engines and collations of the databases, and whether the server takes writes at all.
fn look_at_server(reach: &Reach, plans: &[Plan]) -> Result<(), SourceError> {
    let sql = "SELECT 'only', @@read_only; SELECT 'engine', ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN \
               ('YES', 'DEFAULT'); SELECT 'collation', COLLATION_NAME FROM information_schema.COLLATIONS";
    let rows = reach.query("ask what it has", None, sql)?;
    let has = |kind: &str, name: &str| {
        rows.iter()
            .any(|row| row[0] == kind && row.get(1).is_some_and(|value| value.eq_ignore_ascii_case(name)))
    };
    if has("only", "1") {
        return refused(format!(
            "{} is read-only, a replica perhaps\nhint: restore into the primary, or SET GLOBAL read_only = 0",
            reach.server.shown()
        ));
    }
    for plan in plans {
        let collation = &plan.facts.collation;
        if !collation.is_empty() && !has("collation", collation) {
            return refused(format!(
                "database {:?} has collation {collation}, which {} does not have\nhint: restore into a server of {} {} \
                 or newer",
                plan.from,
                reach.server.shown(),
                if reach.flavour == Flavour::MariaDb { "MariaDB" } else { "MySQL" },
                reach.version
            ));
        }
        for (name, table) in &plan.facts.tables {
            if !table.engine.is_empty() && !has("engine", &table.engine) {
                return refused(format!(
                    "table {name} of database {:?} is kept by engine {}, which {} does not have\nhint: install and \
                     load it there first",
                    plan.from,
                    table.engine,
                    reach.server.shown()
                ));
            }
        }
    }
    Ok(())
}

/// Foreign keys of other databases would follow the old tables.
fn look_at_neighbours(reach: &Reach, name: &str) -> Result<(), SourceError> {
    let sql = format!(
        "SELECT 'k', CONSTRAINT_SCHEMA, TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
         WHERE UNIQUE_CONSTRAINT_SCHEMA = {0} AND CONSTRAINT_SCHEMA <> {0}",
        literal(name)
    );
    let rows = reach.query("look for foreign keys into the database", None, &sql)?;
    let Some(row) = rows.first() else { return Ok(()) };
    refused(format!(
        "table {}.{} refers to tables of {name:?}, and would refer to the old ones afterwards\nhint: drop that \
         foreign key first, or restore under another name",
        row.get(1).map_or("?", String::as_str),
        row.get(2).map_or("?", String::as_str)
    ))
}

/// A session that holds the lock on restoring into `name`, as long as it lives.
fn lock(reach: &Reach, name: &str, cancel: &Cancel) -> Result<(Process, Feed), SourceError> {
    let subject = "take the lock for restores";
    let options = ProcessOptions { no_progress: None, ..ProcessOptions::default() };
    let mut command = reach.client(None);
    command.arg("--unbuffered");
    let (mut process, mut feed) =
        Process::start_fed(command, options, cancel).map_err(|error| error::tool(subject, error))?;
    let sql = format!("SET wait_timeout = 2000000;\nSELECT GET_LOCK({}, 0);\n", lock_name(name));
    let told = feed.write_all(sql.as_bytes());
    let mut answer = [0; 1];
    if told.is_err()
        || process.read(&mut answer).map_err(|cause| MariaError::Local { operation: subject, cause })? == 0
    {
        drop(feed);
        return match process.finish() {
            Err(error) => Err(error::tool(subject, error)),
            Ok(_) => Err(MariaError::Other(format!("{subject}: no answer")).into()),
        };
    }
    match answer[0] {
        b'1' => Ok((process, feed)),
        _ => under_way(reach, name),
    }
}

fn under_way<T>(reach: &Reach, name: &str) -> Result<T, SourceError> {
    refused(format!(
        "another restore into {name:?} is under way at {}\nhint: wait for it, or end it",
        reach.server.shown()
    ))
}

/// The lock on restoring into `name`, in SQL. Names of locks are 64 characters at most.
fn lock_name(name: &str) -> String {
    format!("'lifeboat-{}'", &blake3::hash(name.as_bytes()).to_hex()[..32])
}

/// Whether nobody restores into `name`, without taking the lock.
fn is_free(reach: &Reach, name: &str) -> Result<(), SourceError> {
    let sql = format!("SELECT IS_FREE_LOCK({})", lock_name(name));
    let rows = reach.query("look at the lock for restores", None, &sql)?;
    match rows.first().and_then(|row| row.first()).is_some_and(|free| free == "1") {
        true => Ok(()),
        false => under_way(reach, name),
    }
}

/// Character set and collation of a database that is there.
pub fn collation(reach: &Reach, name: &str) -> Result<(String, String), SourceError> {
    let sql = format!(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA
         WHERE SCHEMA_NAME = {}",
        literal(name)
    );
    let row = reach.query("look at the old database", None, &sql)?.pop().unwrap_or_default();
    let cell = |column: usize| row.get(column).cloned().unwrap_or_default();
    Ok((cell(0), cell(1)))
}
