//! Databases given back: each beside what is there, proven, then renamed into place.
//!
//! 1. [`look`]: everything that can be known before a byte is fetched, and the empty database beside.
//! 2. [`roles`]: roles and tablespaces, those that exist left alone.
//! 3. [`feed`]: `pg_restore` of tables and rows into the database beside, the archive followed as it passes.
//! 4. [`build`]: indexes, while rows are read back and compared with the snapshot's facts; then the rest.
//! 5. [`prove`]: all else against the facts.
//! 6. [`place`]: the rename, with the old database kept.
//!
//! Until 6 nothing that was there is touched, and a target that is dropped drops the databases beside. Roles that
//! were made stay.

mod build;
mod feed;
mod look;
mod place;
mod prove;
mod read_back;
mod roles;

pub(super) use read_back::escape_names;

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::Address;
use super::error::PostgresError;
use super::facts::{DatabaseFacts, Facts};
use super::reach::{Reach, World};
use super::session::Session;
use super::tools::Toolset;
use crate::source::capture::SourceError;
use crate::source::target::{Met, Returned, StoredPart, Target};

/// What a restore made that belongs to the whole server, as it makes it: whoever takes it away again takes that and
/// nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    pub roles: Vec<String>,
    pub tablespaces: Vec<String>,
}

/// What a restore may do.
#[derive(Clone, Debug, Default)]
pub struct RestoreFlags {
    /// A database of that name may be renamed away.
    pub force: bool,
    /// Roles that exist get the rights and passwords of the snapshot.
    pub replace_roles: bool,
    /// SQL run in the proven database before it takes its name.
    pub after_sql: Option<PathBuf>,
    /// Sessions that restore at once; more than one spools the archive to a file first.
    pub jobs: u32,
    /// Where it is written down what was made, also by a restore that fails.
    pub made: Arc<Mutex<Made>>,
}

/// See the module.
pub struct PostgresTarget {
    address: Address,
    reach: Box<dyn Reach>,
    world: World,
    flags: RestoreFlags,
    facts: Facts,
    plans: Vec<Plan>,
    globals: Option<String>,
    server: Option<ServerSide>,
    warnings: Vec<String>,
    not_done: Vec<String>,
    proven: Vec<String>,
    /// Nothing on the server may change but what is made to look.
    only_looks: bool,
    met: Met,
    /// What is run in a proven database, with the file's name.
    script: Option<String>,
}

/// What was learnt of the server.
struct ServerSide {
    major: u32,
    is_superuser: bool,
    tools: Toolset,
    /// Extensions that only a superuser may make, and that are not trusted.
    guarded_extensions: Vec<String>,
}

/// One database's way back.
struct Plan {
    /// Its name in the snapshot.
    from: String,
    facts: DatabaseFacts,
    /// The name it gets.
    name: String,
    /// The name it has until then.
    beside: String,
    size_bytes: u64,
    /// What has the name already.
    there: There,
    is_made: bool,
    /// A look leaves what an earlier restore left, so it cannot make its own.
    is_left: bool,
    read_back: Option<read_back::ReadBack>,
    /// Somebody in it until it takes its name: so another restore sees that this one is under way, whatever it does now.
    guard: Option<Mutex<Box<dyn Session>>>,
    left_out: Vec<u64>,
}

/// What has the name that a database is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// One with nothing of anybody's in it: it gives way.
    Vacant,
    /// One that is kept under another name.
    Database,
}

impl PostgresTarget {
    /// Finds the way to the server; connects to nothing yet.
    pub fn new(address: Address, reach: Box<dyn Reach>, world: World, flags: RestoreFlags) -> Self {
        Self {
            address,
            reach,
            world,
            flags,
            facts: Facts::default(),
            plans: Vec::new(),
            globals: None,
            server: None,
            warnings: Vec::new(),
            not_done: Vec::new(),
            proven: Vec::new(),
            only_looks: false,
            met: Met::default(),
            script: None,
        }
    }

    fn server(&self) -> Result<&ServerSide, SourceError> {
        let unready = || PostgresError::Other("the server was not looked at: this is a bug".into());
        Ok(self.server.as_ref().ok_or_else(unready)?)
    }

    /// A session for what belongs to the whole server.
    fn maintenance(&self) -> Result<Box<dyn Session>, SourceError> {
        let mut session = self.reach.session(&self.address.server.maintenance)?;
        self.set_up(session.as_mut())?;
        Ok(session)
    }

    /// What is done once the database is proven.
    fn after(&mut self, place: usize) -> Result<(), SourceError> {
        let (Some(path), Some(script)) = (&self.flags.after_sql, &self.script) else { return Ok(()) };
        let mut session = self.reach.session(&self.plans[place].beside)?;
        session.query(&format!("run {}", path.display()), script)?;
        self.proven.push(format!("{}: {} was run after the proof", self.plans[place].name, path.display()));
        Ok(())
    }

    fn set_up(&self, session: &mut dyn Session) -> Result<(), SourceError> {
        let (major, _) = super::capture::major(session)?;
        session.query("set up the session", &super::capture::settings(self.address.lock_timeout, major))?;
        if let Some(role) = &self.address.role {
            session.query("become the role", &format!("SET ROLE {}", super::ident(role)))?;
        }
        Ok(())
    }
}

/// An archive that its own structure contradicts came whole out of the repository: it is not what was captured.
fn not_whole(error: SourceError) -> SourceError {
    match error {
        SourceError::Service(error)
            if matches!(error.downcast_ref(), Some(PostgresError::Archive { .. })) =>
        {
            SourceError::Differs(error.to_string())
        }
        error => error,
    }
}

impl Target for PostgresTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let Some(facts) = Facts::of(facts) else {
            return Err(SourceError::Refused("the snapshot is not of a PostgreSQL server".into()));
        };
        self.facts = facts;
        self.look(parts)
    }

    fn only_looks(&mut self) {
        self.only_looks = true;
    }

    fn companions(&self, facts: &Map<String, Value>) -> Vec<String> {
        // The roles that objects of a database belong to.
        Facts::of(facts).and_then(|facts| facts.globals).map(|globals| globals.part).into_iter().collect()
    }

    fn met(&self) -> Option<Met> {
        let mut met = self.met.clone();
        met.warnings.extend(self.warnings.iter().cloned());
        Some(met)
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        if self.globals.as_ref() == Some(&part.path) {
            return self.put_globals(content);
        }
        let place = self.plans.iter().position(|plan| plan.facts.part == part.path);
        let place = place.ok_or_else(|| PostgresError::Other(format!("{} was not expected", part.path)))?;
        self.feed(place, content).map_err(not_whole)
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        for place in 0..self.plans.len() {
            self.dress(place)?;
            self.prove(place)?;
            self.after(place)?;
        }
        for place in 0..self.plans.len() {
            self.place(place)?;
        }
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

impl Drop for PostgresTarget {
    fn drop(&mut self) {
        // Whoever drops it may be on the runtime's own thread, which may not wait for its own work.
        std::thread::scope(|scope| scope.spawn(|| self.clear_away()).join().ok());
    }
}
