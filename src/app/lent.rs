//! Servers that are lent to drills: by their address, proven to be none of those that are backed up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::AppError;
use super::services::{self, Surroundings};
use crate::config::SECRET_VARIABLES;
use crate::drill::sandbox::remote::Lent;
use crate::source::capture::SourceError;
use crate::source::postgres::{PostgresTarget, RestoreFlags, Session, lent as postgres};
use crate::source::redis::ephemeral::Held;
use crate::source::redis::lent as redis;
use crate::source::redis::live::{LiveOptions, LiveTarget};
use crate::source::redis::reach::{Reach as RedisReach, Tcp};
use crate::source::target::Target;

/// Which engine an address is of; `None`: none that lends.
fn engine(address: &str) -> Option<&'static str> {
    let scheme = address.split("://").next()?;
    match scheme {
        "postgres" | "postgresql" => Some("postgres"),
        "redis" | "rediss" => Some("redis"),
        _ => None,
    }
}

/// What was learnt of the servers that are backed up.
#[derive(Default)]
struct Others {
    answered: usize,
    /// Those that did not answer, and why.
    silent: Vec<String>,
}

/// Takes the server at `address`, after it was held against `sources`, the addresses that are backed up. Waits: call it
/// on a thread that may.
///
/// # Errors
/// It is not named for drills, is one of the sources, is not empty, or cannot be told apart.
pub fn lend(address: &str, sources: &[String], around: &Surroundings) -> Result<Arc<dyn Lent>, AppError> {
    if let Some(same) = sources.iter().find(|source| services::shown(source) == services::shown(address)) {
        return Err(refused(format!(
            "{} is what is backed up: a drill never restores there",
            services::shown(same)
        )));
    }
    let kind = engine(address);
    let sources: Vec<&String> = sources.iter().filter(|source| engine(source) == kind).collect();
    match kind {
        Some("postgres") => lend_postgres(address, &sources, around),
        Some("redis") => lend_redis(address, &sources, around),
        _ => Err(refused(format!(
            "{} lends nothing to a drill: postgres:// and redis:// do",
            services::shown(address)
        ))),
    }
}

fn refused(why: String) -> AppError {
    AppError::Source(SourceError::Refused(why))
}

fn same(address: &str, source: &str, what: &str) -> AppError {
    let (address, source) = (services::shown(address), services::shown(source));
    refused(format!(
        "{address} is the very server that {source} is backed up from ({what}): a drill never restores there"
    ))
}

/// Nothing is known that it could be held against.
fn indistinct(name: &str, others: &Others) -> String {
    let why = match others.silent.as_slice() {
        [] => "the configuration names no server of its kind that is backed up".to_owned(),
        silent => format!("these do not answer: {}", silent.join("; ")),
    };
    format!("{name} cannot be told apart from what is backed up: {why}")
}

struct Postgres {
    address: String,
    /// What takes the restore: one, for a server that is lent takes one.
    target: Mutex<Option<Box<dyn Target>>>,
    lent: postgres::Lent,
    identity: String,
    others: Others,
}

fn lend_postgres(
    address: &str,
    sources: &[&String],
    around: &Surroundings,
) -> Result<Arc<dyn Lent>, AppError> {
    let (parsed, reach, _) = services::postgres(address, around)?;
    let lent = postgres::Lent::new(parsed, Box::new(reach))?;
    let (parsed, reach, world) = services::postgres(address, around)?;
    let flags = RestoreFlags { made: lent.made(), ..RestoreFlags::default() };
    let target: Box<dyn Target> = Box::new(PostgresTarget::new(parsed, Box::new(reach), world, flags));
    let target = Mutex::new(Some(target));
    let identity = lent.identity()?;
    let mut others = Others::default();
    for source in sources {
        let found = services::postgres(source, around)
            .and_then(|(parsed, reach, _)| Ok(postgres::identity(&reach, &parsed.server.maintenance)?));
        match found {
            Ok(found) if found == identity => {
                return Err(same(address, source, &format!("system identifier {identity}")));
            }
            Ok(_) => others.answered += 1,
            Err(error) => others.silent.push(format!("{}: {error}", services::shown(source))),
        }
    }
    lent.prove_empty()?;
    Ok(Arc::new(Postgres { address: address.to_owned(), target, lent, identity, others }))
}

impl Lent for Postgres {
    fn address(&self) -> String {
        self.address.clone()
    }
    fn describe(&self) -> String {
        format!("{}, lent: empty before and after, system identifier {}", self.lent.shown(), self.identity)
    }
    fn take(&self, facts: &serde_json::Value) -> Result<(), String> {
        // The server it came from may be gone, but the snapshot remembers who that was.
        let recorded = facts["postgres"]["system_identifier"].as_str();
        if recorded == Some(&self.identity) {
            let name = self.lent.shown();
            return Err(format!(
                "{name} is on the very server that the snapshot was taken from (system identifier {}): a drill never \
                 restores there",
                self.identity
            ));
        }
        if recorded.is_none() && (self.others.answered == 0 || !self.others.silent.is_empty()) {
            return Err(indistinct(&self.lent.shown(), &self.others));
        }
        self.lent.make_room().map_err(|error| error.to_string())
    }
    fn target(&self) -> Option<Box<dyn Target>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
    fn sql(&self, query: &str) -> Result<Option<String>, String> {
        self.lent.ask(query).map_err(|error| error.to_string())
    }
    fn session(&self) -> Result<Box<dyn Session>, String> {
        self.lent.session().map_err(|error| error.to_string())
    }
    fn give_back(&self) -> Result<(), String> {
        self.lent.give_back().map_err(|error| error.to_string())
    }
}

struct Redis {
    address: String,
    target: Mutex<Option<Box<dyn Target>>>,
    lent: redis::Lent,
    others: Others,
}

fn lend_redis(address: &str, sources: &[&String], around: &Surroundings) -> Result<Arc<dyn Lent>, AppError> {
    let (parsed, _) = services::redis(address, around)?;
    let reach: Arc<dyn RedisReach> = Arc::new(Tcp::of(&parsed));
    let lent = redis::Lent::new(parsed.clone(), reach.clone(), &around.cancel).map_err(SourceError::from)?;
    let options =
        LiveOptions { withheld: SECRET_VARIABLES, made_users: lent.made(), ..LiveOptions::default() };
    let target: Box<dyn Target> =
        Box::new(LiveTarget::new(&parsed, reach, options, &around.spool, around.now, &around.cancel)?);
    let ids = lent.identity().map_err(SourceError::from)?;
    let mut others = Others::default();
    for source in sources {
        let found = services::redis(source, around).and_then(|(parsed, _)| {
            let reach: Arc<dyn RedisReach> = Arc::new(Tcp::of(&parsed));
            Ok(redis::identity(&parsed, &reach, &around.cancel).map_err(SourceError::from)?)
        });
        match found {
            Ok(found) if found.iter().any(|id| ids.contains(id)) => {
                return Err(same(address, source, "it has its run or replication id"));
            }
            Ok(_) => others.answered += 1,
            Err(error) => others.silent.push(format!("{}: {error}", services::shown(source))),
        }
    }
    // A run id lasts as long as its process, so a recorded one proves nothing.
    if others.answered == 0 || !others.silent.is_empty() {
        return Err(refused(indistinct(&lent.shown(), &others)));
    }
    lent.prove_empty().map_err(SourceError::from)?;
    let target = Mutex::new(Some(target));
    Ok(Arc::new(Redis { address: address.to_owned(), target, lent, others }))
}

impl Lent for Redis {
    fn address(&self) -> String {
        self.address.clone()
    }
    fn describe(&self) -> String {
        let others = self.others.answered;
        format!("{}, lent: empty before and after, none of the {others} servers backed up", self.lent.shown())
    }
    fn take(&self, _: &serde_json::Value) -> Result<(), String> {
        self.lent.prove_empty().map_err(|error| error.to_string())
    }
    fn sql(&self, _: &str) -> Result<Option<String>, String> {
        Err("a Redis server answers no SQL".into())
    }
    fn target(&self) -> Option<Box<dyn Target>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
    fn keys(&self) -> Result<BTreeMap<u64, Held>, String> {
        self.lent.keys().map_err(|error| error.to_string())
    }
    fn give_back(&self) -> Result<(), String> {
        self.lent.give_back().map_err(|error| error.to_string())
    }
}
