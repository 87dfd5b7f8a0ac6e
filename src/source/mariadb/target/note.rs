//! What an exchange keeps on the server about itself, and what the next restore makes of it if the first was killed.
//!
//! The marked table in the database beside holds, before anything that was there is touched: where old tables go,
//! the names of everything the old database has, and every statement that makes what is no table there. So nothing
//! of the old database is only in memory:
//!
//! 1. Killed before the rename: triggers (and whatever else is missing) are put up again in the old database.
//! 2. Killed after it: the tables are the new ones, and somebody may have written to them; so the exchange is not
//!    turned back. What the old database had is put up beside its old tables, in the database that keeps them.

use serde::{Deserialize, Serialize};

use super::super::dump::{Held, Kind, Objects};
use super::super::error::MariaError;
use super::super::facts::DatabaseFacts;
use super::super::session::{Reach, ident, literal};
use super::names::{self, Names, Steps, names};
use super::{MARK, MariaTarget};
use crate::base::cancel::Cancel;
use crate::format::id::{from_hex, to_hex};
use crate::source::capture::SourceError;

/// The row with the names.
const NAMES: &str = "names";
/// The row with what a restore brings into a database that was new or empty.
const BROUGHT: &str = "brought";
/// The row that says: all tables are proven, and what is none comes to them.
const DRESSING: &str = "dressing";
/// The row that says: the old views and routines are gone and its events moved, what is there now is new.
const CLEARED: &str = "cleared";

/// What the old database of an exchange was.
#[derive(Clone, Debug)]
pub struct Note {
    /// The database that keeps the old tables.
    pub kept: String,
    pub old: Names,
    /// The new tables.
    pub new: Vec<String>,
    /// What the old database has beside tables; no events, for they are moved, never made.
    pub held: Vec<Held>,
}

/// The names of a [`Note`], as they are written down.
#[derive(Serialize, Deserialize)]
struct Written {
    kept: String,
    old: Names,
    new: Vec<String>,
}

/// What a restore brings into a database that was new or empty: all that is ours there should it be killed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Brought {
    tables: Vec<String>,
    objects: Objects,
}

impl Brought {
    pub fn of(facts: &DatabaseFacts) -> Self {
        Self { tables: facts.tables.keys().cloned().collect(), objects: facts.objects }
    }

    /// The SQL that writes it down.
    ///
    /// # Errors
    /// It is no text.
    pub fn written(&self, database: &str) -> Result<String, SourceError> {
        let text = serde_json::to_vec(self)
            .map_err(|error| MariaError::Other(format!("note what the restore brings: {error}")))?;
        Ok(format!("INSERT INTO {}.`{MARK}` VALUES (0, '{BROUGHT}', x'{}');", ident(database), to_hex(&text)))
    }

    /// The SQL that notes that views and the like come now.
    pub fn dressing(database: &str) -> String {
        format!("INSERT INTO {}.`{MARK}` VALUES (1, '{DRESSING}', '');", ident(database))
    }

    /// What is in a marked database and was not brought. What is no table has no names in the note: it is ours if it
    /// can be, and there is no more of it than was to come.
    ///
    /// # Errors
    /// The server's.
    pub fn strangers(reach: &Reach, database: &str, cancel: &Cancel) -> Result<Vec<String>, SourceError> {
        let what = "look at what an earlier restore left";
        let sql = format!(
            "SELECT kind, LOWER(HEX(script)) FROM {}.`{MARK}`;
             SELECT 'sequence', TABLE_NAME FROM information_schema.TABLES
             WHERE TABLE_SCHEMA = {} AND TABLE_TYPE = 'SEQUENCE'",
            ident(database),
            literal(database)
        );
        // Without a note nothing is known to be ours.
        let (mut brought, mut is_dressed, mut sequences) = (Self::default(), false, Vec::new());
        for row in reach.run(what, None, sql.as_bytes(), cancel)? {
            let [kind, text] = row.as_slice() else { continue };
            match kind.as_str() {
                BROUGHT => {
                    let mut bytes = vec![0; text.len() / 2];
                    if from_hex(text, &mut bytes) {
                        brought = serde_json::from_slice(&bytes).unwrap_or_default();
                    }
                }
                DRESSING => is_dressed = true,
                "sequence" => sequences.push(text.clone()),
                _ => {}
            }
        }
        let Self { tables, objects } = brought;
        let there = names(reach, database, cancel)?;
        let is_strange = |table: &String| !tables.contains(table) && !sequences.contains(table);
        let mut strangers: Vec<String> = there.tables.into_iter().filter(is_strange).collect();
        let routines = there.routines.into_iter().map(|(_, name)| name).collect();
        let events = there.events.into_iter().map(|(name, _)| name).collect();
        let dressed = |expected: u64| if is_dressed { expected } else { 0 };
        for (names, expected) in [
            (sequences, objects.sequences),
            (there.views, dressed(objects.views)),
            (routines, dressed(objects.routines)),
            (events, dressed(objects.events)),
        ] {
            let names: Vec<String> = names;
            if names.len() as u64 > expected {
                strangers.extend(names);
            }
        }
        Ok(strangers)
    }
}

/// The columns of the marked table.
pub const COLUMNS: &str = "number int NOT NULL, kind varchar(20) NOT NULL, script longblob NOT NULL";

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Setting => "setting",
        Kind::View => "view",
        Kind::Trigger => "trigger",
        Kind::Routine => "routine",
        Kind::Event => "event",
    }
}

fn kind(text: &str) -> Option<Kind> {
    [Kind::Setting, Kind::View, Kind::Trigger, Kind::Routine, Kind::Event]
        .into_iter()
        .find(|kind| word(*kind) == text)
}

impl Note {
    /// Writes it down in the database `work`.
    ///
    /// # Errors
    /// The server's.
    pub fn write(&self, steps: &Steps, work: &str, cancel: &Cancel) -> Result<(), SourceError> {
        let (kept, old, new) = (self.kept.clone(), self.old.clone(), self.new.clone());
        let names = serde_json::to_vec(&Written { kept, old, new })
            .map_err(|error| MariaError::Other(format!("note what the old database has: {error}")))?;
        let held = self.held.iter().map(|held| (word(held.kind), held.text.as_slice()));
        let mut sql = Vec::new();
        // The names come last: without them there is no note.
        for (number, (kind, text)) in held.chain([(NAMES, names.as_slice())]).enumerate() {
            let row = format!(
                "INSERT INTO {}.`{MARK}` VALUES ({number}, '{kind}', x'{}');\n",
                ident(work),
                to_hex(text)
            );
            sql.extend_from_slice(row.as_bytes());
        }
        steps.run("note what the old database has", None, &sql, cancel).map(drop)
    }

    /// The old views and routines are gone, the events have moved.
    ///
    /// # Errors
    /// The server's.
    pub fn cleared(steps: &Steps, work: &str, cancel: &Cancel) -> Result<(), SourceError> {
        let sql = format!("INSERT INTO {}.`{MARK}` VALUES (-1, '{CLEARED}', '')", ident(work));
        steps.run("note how far the exchange came", None, sql.as_bytes(), cancel).map(drop)
    }

    /// The note in `work`, if there is one, and whether the old database was cleared.
    fn read(steps: &Steps, work: &str) -> Result<Option<(Self, bool)>, SourceError> {
        let what = "look at what an earlier restore left";
        let sql = format!("SELECT kind, LOWER(HEX(script)) FROM {}.`{MARK}` ORDER BY number", ident(work));
        let bad = || MariaError::Other(format!("{what}: {work:?} holds what no restore writes"));
        let (mut held, mut names, mut is_cleared) = (Vec::new(), None, false);
        for row in steps.reach.query(what, None, &sql)? {
            let [word, digits] = row.as_slice() else { return Err(bad().into()) };
            let mut text = vec![0; digits.len() / 2];
            if !from_hex(digits, &mut text) {
                return Err(bad().into());
            }
            match word.as_str() {
                CLEARED => is_cleared = true,
                BROUGHT | DRESSING => {}
                NAMES => names = Some(serde_json::from_slice::<Written>(&text).map_err(|_| bad())?),
                word => held.push(Held { kind: kind(word).ok_or_else(bad)?, text }),
            }
        }
        let note = names.map(|Written { kept, old, new }| Self { kept, old, new, held });
        Ok(note.map(|note| (note, is_cleared)))
    }

    /// Whether the rename was done, by where tables are now.
    pub fn has_moved(&self, steps: &Steps, work: &str, cancel: &Cancel) -> Result<bool, SourceError> {
        let beside = names(steps.reach, work, cancel)?.tables;
        let kept = names(steps.reach, &self.kept, cancel)?.tables;
        Ok(!kept.is_empty() || beside.is_empty() && (self.old.tables.is_empty() || !self.new.is_empty()))
    }

    /// The old tables are in `name`: so is everything else again, and events run as they did. The database that was
    /// to keep them goes if nothing is in it.
    ///
    /// # Errors
    /// The server's.
    pub fn put_back(&self, steps: &Steps, name: &str) -> Result<(), SourceError> {
        let free = Cancel::new();
        let kept = &self.kept;
        let events = self.old.among(&names(steps.reach, kept, &free)?).events;
        steps.surely("move the events back", &names::move_events(&events, kept, name, true))?;
        steps.defaults(name, kept)?;
        // Of views that were being put up when somebody killed it there may be stand-ins.
        let views = names::stand_ins(steps.reach, name, &free)?;
        let views = views.into_iter().filter(|view| self.old.views.contains(view)).collect();
        let takes = names::strip(name, &Names { views, ..Names::default() });
        steps.surely("take stand-ins of views", &takes)?;
        let there = self.old.among(&names(steps.reach, name, &free)?);
        // What is there is left alone: somebody may have made it since, by hand.
        let missing = self.old.less(&there);
        if missing != Names::default() {
            let script = names::script_of(&self.held, |held| missing.wants(held));
            steps.run("put up what there was", Some(name), &script, &free)?;
            // A statement may be none that is understood: the note stays until all that it names is there.
            let still = missing.less(&names(steps.reach, name, &free)?);
            if let Some(lost) = still.first() {
                return Err(MariaError::Other(format!(
                    "{lost} of database {name:?} was taken down by a restore and could not be put up again\nhint: the \
                     statement that made it is in `{MARK}` of the database beside; make it by hand, then run this again"
                ))
                .into());
            }
        }
        steps.surely("let the events run again", &names::set_events(&there.events, name, true))?;
        if names(steps.reach, kept, &free)? == Names::default() {
            let drop = format!("DROP DATABASE IF EXISTS {}", ident(kept));
            steps.surely("drop the database for old tables", &drop)?;
        }
        Ok(())
    }

    /// The old tables are in the database that keeps them: so is everything else that was there with them.
    ///
    /// # Errors
    /// The server's.
    pub fn dress(&self, steps: &Steps, cancel: &Cancel) -> Result<(), SourceError> {
        let there = self.old.among(&names(steps.reach, &self.kept, cancel)?);
        let mut sql = names::strip(&self.kept, &there).into_bytes();
        sql.extend(names::script(&self.held, names::but_events));
        steps.run("dress the old tables", Some(&self.kept), &sql, cancel).map(drop)
    }

    /// The old views, routines and events leave `name`, where the new tables are.
    ///
    /// # Errors
    /// The server's.
    pub fn clear(&self, steps: &Steps, name: &str, work: &str, cancel: &Cancel) -> Result<(), SourceError> {
        let there = self.old.among(&names(steps.reach, name, cancel)?);
        let sql = names::strip(name, &there) + &names::move_events(&there.events, name, &self.kept, false);
        steps.run("move what the old database had beside tables", None, sql.as_bytes(), cancel)?;
        steps.defaults(name, work)?;
        steps.defaults(&self.kept, name)?;
        Self::cleared(steps, work, cancel)
    }

    /// After a kill past the rename, whoever lives with `name` may have put things up there again. So only those old
    /// views go that read nothing any more (nothing could dump a database with them, and the note has them); the next
    /// exchange keeps the rest.
    fn settle(&self, steps: &Steps, name: &str, work: &str, cancel: &Cancel) -> Result<(), SourceError> {
        // Only with its rows asked for does a server open a view and say what is wrong with it.
        let sql = format!(
            "SELECT 'v', TABLE_NAME, TABLE_COMMENT, TABLE_ROWS FROM information_schema.TABLES
             WHERE TABLE_SCHEMA = {} AND TABLE_TYPE LIKE '%VIEW'",
            literal(name)
        );
        let rows = steps.reach.run("look for views of what is gone", None, sql.as_bytes(), cancel)?;
        let is_dead = |view: &&String| {
            let mut cells = rows.iter().filter(|row| row.get(1) == Some(*view)).filter_map(|row| row.get(2));
            cells.any(|comment| comment.contains("references invalid"))
        };
        let views = self.old.views.iter().filter(is_dead).cloned().collect();
        let sql = names::strip(name, &Names { views, ..Names::default() });
        steps.run("drop views of what is gone", None, sql.as_bytes(), cancel)?;
        steps.defaults(name, work)?;
        steps.defaults(&self.kept, name)
    }
}

impl MariaTarget {
    /// A database beside exists already, ours, of a restore that was killed. Puts right what it left wrong, drops
    /// what is beside, and says what there is to know.
    pub(super) fn undo_earlier(&self, name: &str, work: &str) -> Result<String, SourceError> {
        let steps = Steps::new(self.reach()?, name);
        let cancel = &self.world.cancel;
        steps.wait(cancel)?;
        let mut said = format!("an earlier restore into {name:?} broke off; what it left was dropped");
        if let Some((note, is_cleared)) = Note::read(&steps, work)? {
            let kept = &note.kept;
            if !note.has_moved(&steps, work, cancel)? {
                note.put_back(&steps, name)?;
                said.push_str(", and triggers and events of the old database were put back");
            } else if !exists(&steps, kept)? {
                said = format!(
                    "an earlier restore into {name:?} was killed once its tables were in their place; {kept:?}, which kept \
                     what was there before, is gone"
                );
            } else {
                if !is_cleared {
                    note.settle(&steps, name, work, cancel)?;
                }
                note.dress(&steps, cancel).map_err(|error| undressed(&error, kept))?;
                said = format!(
                    "an earlier restore into {name:?} was killed once its tables were in their place; all that was there \
                     before it is in {kept:?}"
                );
            }
        }
        let drop = format!("DROP DATABASE {}", ident(work));
        steps.reach.query("drop what an earlier restore left", None, &drop)?;
        Ok(said)
    }
}

fn exists(steps: &Steps, database: &str) -> Result<bool, SourceError> {
    let sql = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", literal(database));
    Ok(!steps.reach.query("look for the old tables", None, &sql)?.is_empty())
}

fn undressed(error: &SourceError, kept: &str) -> SourceError {
    if let SourceError::Cancelled(cancelled) = error {
        return (*cancelled).into();
    }
    let said = error.to_string();
    let said = said.lines().take_while(|line| !line.starts_with("hint: ")).collect::<Vec<_>>().join("\n");
    MariaError::Other(format!(
        "an earlier restore was killed, and what its old tables had beside rows cannot be put up in {kept:?}: {said}\n\
         hint: put right what the server complains of, or drop {kept:?} if you do not need it; then run this again"
    ))
    .into()
}
