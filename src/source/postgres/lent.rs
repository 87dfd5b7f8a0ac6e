//! A database of a server that is not ours, lent to a drill: named for it, empty, and empty again afterwards.
//!
//! Invariant: nothing is dropped but a database whose name says that it is for drills, and the roles and tablespaces
//! that the drill's own restore made. What others made meanwhile stays.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::address::{Address, Databases};
use super::reach::Reach;
use super::session::{Session, ident};
use super::vacant::Contents;
use super::{Made, PostgresError, literal};
use crate::base::byte_size::plural;
use crate::source::capture::SourceError;

/// What a database that drills may use is called.
pub const PREFIX: &str = "lifeboat_drill_";
/// Sessions that were ended a moment ago may still be in a database that is to go.
const TRIES: usize = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// Who a server is: the same for all its databases and standbys, and nobody else's.
///
/// # Errors
/// It does not answer, or does not say.
pub fn identity(reach: &dyn Reach, database: &str) -> Result<String, SourceError> {
    let mut session = reach.session(database)?;
    let sql = "SELECT system_identifier FROM pg_control_system()";
    let found = session.value("ask who the server is", sql)?;
    found.ok_or_else(|| PostgresError::Other("the server does not say who it is".into()).into())
}

/// See the module.
pub struct Lent {
    address: Address,
    reach: Box<dyn Reach>,
    name: String,
    /// What the restore made beside the database.
    made: Arc<Mutex<Made>>,
}

impl Lent {
    /// Looks at the name; connects to nothing.
    ///
    /// # Errors
    /// It is not one database that is named for drills.
    pub fn new(address: Address, reach: Box<dyn Reach>) -> Result<Self, SourceError> {
        let name = match &address.databases {
            Databases::Named(names) if names.len() == 1 => names[0].clone(),
            _ => {
                return Err(SourceError::Refused(
                    "a drill restores into one database, which is named".into(),
                ));
            }
        };
        if !name.starts_with(PREFIX) || name.len() == PREFIX.len() {
            return Err(SourceError::Refused(format!(
                "database {name:?} is not named for drills, and one that is not is never restored into\nhint: create an \
                 empty one for them: CREATE DATABASE {PREFIX}shop"
            )));
        }
        Ok(Self { address, reach, name, made: Arc::default() })
    }

    /// The server's name, without secrets.
    pub fn shown(&self) -> String {
        format!("database {} at {}", self.name, self.reach.shown())
    }

    /// # Errors
    /// As [`identity`].
    pub fn identity(&self) -> Result<String, SourceError> {
        identity(self.reach.as_ref(), &self.address.server.maintenance)
    }

    fn maintenance(&self) -> Result<Box<dyn Session>, SourceError> {
        self.reach.session(&self.address.server.maintenance)
    }

    /// A drill that was killed leaves none: the restored one takes the name last.
    fn is_there(&self) -> Result<bool, SourceError> {
        let sql = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(&self.name));
        Ok(self.maintenance()?.value("look for the database", &sql)?.is_some())
    }

    /// Looks whether it is empty, with nobody in it, or not there yet.
    ///
    /// # Errors
    /// It is not.
    pub fn prove_empty(&self) -> Result<(), SourceError> {
        if !self.is_there()? {
            return Ok(());
        }
        let mut session = self.reach.session(&self.name)?;
        let Contents { objects, sessions, .. } = Contents::read(session.as_mut())?;
        let refused = |why: String| Err(SourceError::Refused(why));
        if objects > 0 {
            return refused(format!(
                "{} is not empty: it holds {}\nhint: if a drill left them behind: DROP DATABASE {}; CREATE \
                 DATABASE {}",
                self.shown(),
                plural(objects, "object"),
                ident(&self.name),
                ident(&self.name)
            ));
        }
        if sessions > 0 {
            return refused(format!("somebody else is in {}: it is in use", self.shown()));
        }
        Ok(())
    }

    /// Takes the empty database away, so that the restored one can have its name.
    ///
    /// # Errors
    /// It is not empty any more, or may not be dropped.
    pub fn make_room(&self) -> Result<(), SourceError> {
        self.prove_empty()?;
        let mut session = self.maintenance()?;
        drop_database(session.as_mut(), &self.name)
    }

    /// Where the restore into it has to write down what it makes.
    pub fn made(&self) -> Arc<Mutex<Made>> {
        self.made.clone()
    }

    /// Makes it what it was: there, and empty; roles and tablespaces that the restore made are dropped.
    ///
    /// # Errors
    /// What is left.
    pub fn give_back(&self) -> Result<(), SourceError> {
        let mut session = self.reach.farewell(&self.address.server.maintenance)?;
        drop_database(session.as_mut(), &self.name)?;
        session.query("make the empty database", &format!("CREATE DATABASE {}", ident(&self.name)))?;
        let Made { roles, tablespaces } =
            std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let spaces = tablespaces.iter().map(|name| ("TABLESPACE", name));
        let roles = roles.iter().map(|name| ("ROLE", name));
        let mut left = Vec::new();
        for (kind, name) in spaces.chain(roles) {
            let name = ident(name);
            // One that cannot go keeps none of the others.
            if let Err(error) = session.query("drop", &format!("DROP {kind} IF EXISTS {name}")) {
                left.push(format!("{} {name}: {error}", kind.to_lowercase()));
            }
        }
        match left.is_empty() {
            true => Ok(()),
            false => {
                let left = format!("of the drill there is left: {}", left.join("; "));
                Err(PostgresError::Other(left).into())
            }
        }
    }

    /// A session in the restored database that changes nothing.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn session(&self) -> Result<Box<dyn Session>, SourceError> {
        let mut session = self.reach.session(&self.name)?;
        session.query("set up the session", "SET default_transaction_read_only = on")?;
        Ok(session)
    }

    /// The first value of a query.
    ///
    /// # Errors
    /// The server's.
    pub fn ask(&self, query: &str) -> Result<Option<String>, SourceError> {
        self.session()?.value("run the check", query)
    }
}

fn drop_database(session: &mut dyn Session, name: &str) -> Result<(), SourceError> {
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {} AND pid <> pg_backend_pid()
         AND usename = current_user",
        literal(name)
    );
    let mut tried = 0;
    loop {
        tried += 1;
        // Checks may have left sessions of this user; others' are not ours to end.
        session.query("end the drill's sessions", &end)?;
        match session.query("drop the database", &format!("DROP DATABASE IF EXISTS {}", ident(name))) {
            Ok(_) => return Ok(()),
            Err(error) if tried == TRIES => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
