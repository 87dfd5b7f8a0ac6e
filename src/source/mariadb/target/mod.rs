//! Databases given back: into one that is new or empty, or beside one that is full, proven, then in its place.
//!
//! 1. [`look`]: everything that can be known before a byte is fetched, and the database to work in.
//! 2. [`load`]: tables and their rows; views, triggers, routines and events are kept back.
//! 3. [`prove`]: what came back, dumped once more, against the snapshot's facts.
//! 4. [`place`]: what was kept back is put up; where there was a database, its tables are renamed away first, in
//!    one statement with the new ones, and all of it is undone if the rest fails.
//!
//! Until 4 nothing that was there is touched, and a target that is dropped drops what it made. Users that were made
//! stay.

mod away;
mod load;
mod look;
mod names;
mod note;
mod place;
mod prove;

use std::io::Read;

use serde_json::{Map, Value};

use super::dump::Held;
use super::error::MariaError;
use super::facts::{DatabaseFacts, Facts};
use super::session::{Reach, ident};
use super::users::{self, Section};
use super::{Address, World};
use crate::base::process::{Feed, Process};
use crate::source::capture::SourceError;
use crate::source::target::{Met, Returned, StoredPart, Target};

/// What a restore may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreFlags {
    /// Tables that are there may be renamed away.
    pub force: bool,
    /// Users that exist are made anew from the snapshot.
    pub replace_users: bool,
}

/// The table that marks a database a restore is at work in. It holds what puts an old database right again.
const MARK: &str = "_lifeboat_restore";

/// See the module.
pub struct MariaTarget {
    address: Address,
    world: World,
    flags: RestoreFlags,
    /// Nothing on the server may change.
    only_looks: bool,
    reach: Option<Reach>,
    facts: Facts,
    plans: Vec<Plan>,
    /// The part with the users, and what is in it.
    users: Option<(String, Vec<Section>)>,
    warnings: Vec<String>,
    not_done: Vec<String>,
    proven: Vec<String>,
    met: Met,
    /// Sessions that hold the locks by which restores into one database keep out of each other's way.
    locks: Vec<(Process, Feed)>,
}

/// One database's way back.
struct Plan {
    /// Its name in the snapshot.
    from: String,
    facts: DatabaseFacts,
    /// The name it gets.
    name: String,
    /// Where it is until then: the same where nothing is there.
    work: String,
    /// Made by us, and to be dropped unless it is shown.
    is_made: bool,
    /// There before us, and empty: its character set and collation then.
    was_empty: Option<(String, String)>,
    /// Tables may have been put there.
    is_loaded: bool,
    held: Vec<Held>,
}

impl Plan {
    fn replaces(&self) -> bool {
        self.work != self.name
    }
}

impl MariaTarget {
    /// Connects to nothing yet.
    pub fn new(address: Address, world: World, flags: RestoreFlags) -> Self {
        Self {
            address,
            world,
            flags,
            only_looks: false,
            reach: None,
            facts: Facts::default(),
            plans: Vec::new(),
            users: None,
            warnings: Vec::new(),
            not_done: Vec::new(),
            proven: Vec::new(),
            met: Met::default(),
            locks: Vec::new(),
        }
    }

    fn reach(&self) -> Result<&Reach, SourceError> {
        let unready = || MariaError::Other("the server was not looked at: this is a bug".into());
        Ok(self.reach.as_ref().ok_or_else(unready)?)
    }

    /// Users and their rights, once there is what they have rights on.
    fn put_users(&mut self) -> Result<(), SourceError> {
        let Some((_, sections)) = self.users.take() else { return Ok(()) };
        let names: Vec<_> = self.plans.iter().map(|plan| (plan.from.clone(), plan.name.clone())).collect();
        let done = match users::restore(self.reach()?, &sections, &names, self.flags.replace_users) {
            Ok(done) => done,
            Err(cancelled @ SourceError::Cancelled(_)) => return Err(cancelled),
            Err(error) => {
                self.world.cancel.check()?;
                let why = users::server_said(&error);
                self.not_done.push(format!("users and their rights were not restored: {why}"));
                return Ok(());
            }
        };
        let users::Restored { made, left, failed, lost } = done;
        if let Some(lost) = lost {
            return Err(MariaError::Other(lost).into());
        }
        self.not_done.extend(failed);
        if !left.is_empty() {
            self.warnings.push(format!(
                "users that exist were left as they are (--replace-roles makes them anew): {}",
                left.join(", ")
            ));
        }
        if !made.is_empty() {
            self.proven.push(format!("users and roles made, with their rights: {}", made.join(", ")));
        }
        Ok(())
    }

    /// Drops what was made and never shown. Says nothing: it runs when something else failed.
    fn clear_away(&mut self) {
        let Some(reach) = &self.reach else { return };
        for plan in self.plans.iter().filter(|plan| plan.is_made) {
            let done = match &plan.was_empty {
                Some(was) => away::empty(reach, plan, was),
                None => {
                    let sql = format!("DROP DATABASE IF EXISTS {};", ident(&plan.work));
                    reach.farewell("drop what was restored", None, &sql).map(drop)
                }
            };
            if let Err(error) = done {
                tracing::warn!("{error}");
            }
        }
    }
}

impl Target for MariaTarget {
    fn only_looks(&mut self) {
        self.only_looks = true;
    }

    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let Some(facts) = Facts::of(facts) else {
            return Err(SourceError::Refused("the snapshot is not of a MariaDB or MySQL server".into()));
        };
        self.facts = facts;
        self.look(parts)
    }

    fn met(&self) -> Option<Met> {
        Some(Met { warnings: self.warnings.clone(), ..self.met.clone() })
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        if self.users.as_ref().is_some_and(|(path, _)| *path == part.path) {
            let mut text = String::new();
            content
                .read_to_string(&mut text)
                .map_err(|cause| MariaError::Local { operation: "read the users", cause })?;
            self.users = Some((part.path.clone(), users::parse(&text)?));
            return Ok(());
        }
        let place = self.plans.iter().position(|plan| plan.facts.part == part.path);
        let place = place.ok_or_else(|| MariaError::Other(format!("{} was not expected", part.path)))?;
        self.load(place, content)
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        for place in 0..self.plans.len() {
            self.prove(place)?;
        }
        for place in 0..self.plans.len() {
            self.place(place)?;
        }
        self.put_users()?;
        let returned = Returned {
            proven: std::mem::take(&mut self.proven),
            warnings: std::mem::take(&mut self.warnings),
            not_done: std::mem::take(&mut self.not_done),
            ..Returned::default()
        };
        let databases = self.plans.iter().map(|plan| {
            let rows = plan.facts.tables.iter().map(|(table, facts)| (table.as_str(), facts.rows));
            (plan.name.as_str(), plan.from.as_str(), rows.collect())
        });
        Ok(returned.with_databases(super::facts::KEY, databases))
    }
}

impl Drop for MariaTarget {
    fn drop(&mut self) {
        self.clear_away();
    }
}
