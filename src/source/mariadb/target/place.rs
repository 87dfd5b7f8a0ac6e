//! Into its place: what was kept back is put up, and where there was a database, its tables change places with the
//! new ones.
//!
//! A server has no way to rename a database, and none to rename views, triggers and routines into another. So for a
//! database that is replaced:
//!
//! 1. what was kept back is put up beside, as a rehearsal: what the server does not take is known before anything
//!    that was there is touched; then it is taken down again.
//! 2. what the old database has beside tables is noted in the marked table beside: names, and every statement that
//!    makes it ([`super::note`]).
//! 3. its triggers go (a table with triggers cannot be renamed away), its events stop.
//! 4. one statement renames all old tables into the database that keeps them and all new ones into their place: the
//!    server does all of it or nothing.
//! 5. old views and routines go, the new ones come.
//! 6. the noted ones come to the old tables, where they are now; then what is beside goes, and the note with it.
//!
//! An error after 2 undoes everything in reverse. Killed anywhere, the next restore into the same name reads the note
//! first: before 4 it puts back what is missing, after 4 it does 6 and leaves the rest in its place alone.

use super::super::dump::{Kind, Objects};
use super::super::session::ident;
use super::look::with_suffix;
use super::names::{self, Steps, all, but_events, names, script};
use super::note::{Brought, Note};
use super::{MARK, MariaError, MariaTarget};
use crate::base::cancel::Cancel;
use crate::source::capture::SourceError;

/// What an exchange has to know to be undone.
struct Exchange {
    name: String,
    work: String,
    note: Note,
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
                self.reach()?.query("note how far it came", None, &Brought::dressing(&name))?;
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
        let steps = Steps::new(self.reach()?, &plan.name);
        steps.run(&what, Some(database), &script(&plan.held, wanted), &self.world.cancel).map(drop)
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
        let kept = self.vacant(&name, &stamp)?;
        let held = self.follow(&name, &name, &["--no-data", "--routines", "--triggers"])?.held;
        let cancel = self.world.cancel.clone();
        let reach = self.reach()?;
        let old = names(reach, &name, &cancel)?;
        let made = names(reach, &work, &cancel)?;
        reach.query("take the rehearsal down", None, &names::strip(&work, &made))?;
        let note = Note { kept, old, new: made.tables, held };
        let mut exchange = Exchange { name, work, note, step: 2 };
        if let Err(error) = self.exchange(place, &mut exchange) {
            let (error, is_back) = self.undo(exchange, error);
            // What lies beside holds the only note of how to put the old database right: the next restore reads it.
            self.plans[place].is_made &= is_back;
            return Err(error);
        }
        // What is beside now is only the note, which stays until the old tables have what they had.
        self.plans[place].is_made = false;
        let Exchange { name, work, note, .. } = exchange;
        let kept = &note.kept;
        let steps = Steps::new(self.reach()?, &name);
        let done = note.dress(&steps, &cancel).and_then(|()| {
            let drop = format!("DROP DATABASE {}", ident(&work));
            steps.run("drop the database beside", None, drop.as_bytes(), &cancel)
        });
        if let Err(error) = done {
            cancel.check()?;
            self.not_done.push(format!(
                "views, routines and triggers of the old {name:?} are not all in {kept:?} ({}); what makes them is noted in \
                 {work:?}, and the next restore into {name:?} tries again",
                super::users::server_said(&error)
            ));
        }
        self.proven.push(format!(
            "the tables that were in {name:?} are kept in {kept:?}; drop it when you need it no more"
        ));
        Ok(())
    }

    /// A name that no database has, for the one that keeps the old tables.
    fn vacant(&self, name: &str, stamp: &str) -> Result<String, SourceError> {
        let there = self.reach()?.query("list the databases", None, "SHOW DATABASES")?;
        let taken = |name: &String| there.iter().any(|row| row.first() == Some(name));
        let mut kept = with_suffix(name, &format!("_before_{stamp}"));
        let mut number = 1;
        while taken(&kept) {
            number += 1;
            kept = with_suffix(name, &format!("_before_{stamp}_{number}"));
        }
        Ok(kept)
    }

    /// Steps 2 to 5.
    fn exchange(&mut self, place: usize, exchange: &mut Exchange) -> Result<(), SourceError> {
        let Exchange { name, work, note, step } = exchange;
        let cancel = self.world.cancel.clone();
        let reach = self.reach()?;
        let steps = Steps::new(reach, name);
        note.write(&steps, work, &cancel)?;
        *step = 3;
        let (charset, collation) = super::look::collation(reach, name)?;
        let sql = super::look::create(&note.kept, &charset, &collation);
        steps.run("make the database that keeps the old tables", None, sql.as_bytes(), &cancel)?;
        let sql = names::set_events(&note.old.events, name, false) + &names::drop_triggers(name, &note.old);
        let what = "stop the events of the old database and take its triggers";
        steps.run(what, None, sql.as_bytes(), &cancel)?;
        cancel.check()?;
        *step = 4;
        // What the server began it ends, whether we are there or not.
        let moves: [(&[String], &str, &str); 2] =
            [(&note.old.tables, name, &note.kept), (&note.new, work, name)];
        let sql = names::rename(&moves).unwrap_or_default();
        steps.surely("exchange the tables", &sql)?;
        *step = 5;
        note.clear(&steps, name, work, &cancel)?;
        let facts = &self.plans[place].facts;
        let sql = super::away::collate(name, &facts.charset, &facts.collation);
        steps.run("set the collation", None, sql.as_bytes(), &cancel)?;
        let name = name.clone();
        self.dress(place, &name, all)?;
        self.count(place)
    }

    /// Puts everything back as it was; the error that made it necessary, or that and why it could not be done.
    fn undo(&self, exchange: Exchange, error: SourceError) -> (SourceError, bool) {
        let Exchange { name, work, note, step } = exchange;
        let Ok(reach) = self.reach() else { return (error, false) };
        let put_back = || -> Result<(), SourceError> {
            let free = Cancel::new();
            let steps = Steps::new(reach, &name);
            // The server may have done it even where no answer came, or still be at it.
            steps.wait(&free)?;
            if step >= 4 && note.has_moved(&steps, &work, &free)? {
                let now = names(reach, &name, &free)?;
                let all_moved = names(reach, &note.kept, &free)?.events.len() == note.old.events.len();
                let events = if all_moved { names::drop_events(&name, &now) } else { String::new() };
                steps.surely("take down what was put up", &(events + &names::strip(&name, &now)))?;
                let moves: [(&[String], &str, &str); 2] =
                    [(&note.new, &name, &work), (&note.old.tables, &note.kept, &name)];
                if let Some(sql) = names::rename(&moves) {
                    steps.surely("exchange the tables back", &sql)?;
                }
            }
            if step >= 3 { note.put_back(&steps, &name) } else { Ok(()) }
        };
        let Err(other) = put_back() else { return (error, true) };
        let first = |error: &SourceError| error.to_string().lines().next().unwrap_or_default().to_owned();
        let error = MariaError::Other(format!(
            "database {name:?} is not as it was: its exchange broke off ({}), and could not be undone ({})\nhint: its old \
             tables are in {:?} or in their place; put the server right, then run the restore again",
            first(&error),
            first(&other),
            note.kept
        ));
        (error.into(), false)
    }
}
