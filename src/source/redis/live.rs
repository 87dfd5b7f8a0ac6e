//! Back into a running server: it becomes the replica of a server of ours that holds the RDB, and is promoted
//! again; or it is sent each value.
//!
//! Nothing of the target is touched before every RDB was received whole. As a replica it changes from the old data
//! to the new at once; if that cannot be begun (it cannot reach us, no server program here) it stays as it is and the
//! values are sent, where an interruption leaves part of them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::address::Address;
use super::info::{self, Info, RunClock};
use super::payload::{Present, Restorer};
use super::proof::{self, Window};
use super::reach::Reach;
use super::replicate::{self, Replication};
use super::spool::{self, Received, file};
use super::wire::{Login, Reply, Wire};
use super::{RedisError, ephemeral, rights, users};
use crate::base::byte_size::plural;
use crate::base::cancel::Cancel;
use crate::format::entry::Timestamp;
use crate::source::capture::SourceError;
use crate::source::target::{Met, Returned, StoredPart, Target};

/// What a restore into a server may do.
#[derive(Clone, Debug, Default)]
pub struct LiveOptions {
    /// A server that is not empty, or has replicas, or is one, or is watched by a Sentinel.
    pub force: bool,
    /// Empty it first.
    pub flush_first: bool,
    /// Variables that programs started here do not get.
    pub withheld: &'static [&'static str],
    /// Where the users that are made are written down, also by a restore that fails: whoever takes them away again
    /// takes those and no others.
    pub made_users: Arc<Mutex<Vec<String>>>,
}

/// A running server that takes a snapshot.
pub struct LiveTarget {
    reach: Arc<dyn Reach>,
    address: Address,
    login: Login,
    options: LiveOptions,
    clock: RunClock,
    cancel: Cancel,
    folder: tempfile::TempDir,
    received: Vec<Received>,
    users: Vec<String>,
    skew_ms: i64,
    warnings: Vec<String>,
    not_done: Vec<String>,
    met: Met,
}

fn refused(why: String) -> SourceError {
    SourceError::Refused(why)
}

impl LiveTarget {
    /// `spool`: a folder with room for the RDB.
    ///
    /// # Errors
    /// Nothing can be made there.
    pub fn new(
        address: &Address,
        reach: Arc<dyn Reach>,
        options: LiveOptions,
        spool: &Path,
        now: Timestamp,
        cancel: &Cancel,
    ) -> Result<Self, SourceError> {
        let folder = tempfile::Builder::new().prefix("lifeboat-redis-").tempdir_in(spool);
        Ok(Self {
            reach,
            address: address.clone(),
            login: Login::of(address),
            options,
            clock: RunClock::new(now),
            cancel: cancel.clone(),
            folder: folder.map_err(file("make a folder in", spool))?,
            received: Vec::new(),
            users: Vec::new(),
            skew_ms: 0,
            warnings: Vec::new(),
            not_done: Vec::new(),
            met: Met::default(),
        })
    }

    fn open(&self) -> Result<Wire, RedisError> {
        Wire::open(&self.reach, &self.login, &self.cancel)
    }

    fn look(&mut self, expected: &Map<String, Value>) -> Result<(), RedisError> {
        let mut wire = self.open()?;
        let info = info::loaded(&mut wire, self.login.timeout)?;
        let name = self.reach.name();
        self.refuse_kinds(&info, &name)?;
        self.skew_ms = info::skew_ms(&mut wire, &self.clock)?;
        match self.options.force {
            false => refuse_occupied(&mut wire, &info, &name)?,
            true => self.meet(&mut wire, &info)?,
        }
        if let Some(version) = ephemeral::rdb_version(&mut wire, &info)?
            && let Some(newest) = newest_version(expected)
            && newest > version
        {
            return Err(RedisError::Unable(format!(
                "the snapshot is RDB version {newest} and {name} reads up to {version}\n\
                 hint: restore it into a server at least as new as the one it came from"
            )));
        }
        let maximum = info.number("maxmemory").unwrap_or(0);
        let used = expected.get("used_memory_bytes").and_then(Value::as_i64).unwrap_or(0);
        if maximum > 0 && maximum < used {
            self.warnings.push(format!("{name} may use {maximum} bytes and the old server used {used}"));
        }
        Ok(())
    }

    /// What becomes of what is there.
    fn meet(&mut self, wire: &mut Wire, info: &Info) -> Result<(), RedisError> {
        let held = held(wire, info)?;
        match (held, self.options.flush_first) {
            (None, _) => {}
            (Some(held), true) => self.met.replaced.push(format!("{held}, which --flush-first empties")),
            (Some(held), false) => self.met.kept.push(format!(
                "{held}: what comes is added; if a key is in both, nothing is changed (--flush-first empties it first)"
            )),
        }
        Ok(())
    }

    fn refuse_kinds(&self, info: &Info, name: &str) -> Result<(), RedisError> {
        let unable = |why: String| Err(RedisError::Unable(why));
        match info.text("redis_mode") {
            "sentinel" => unable(format!("{name} is a Sentinel, which holds no data")),
            "cluster" => unable(format!(
                "{name} is part of a cluster, into which nothing is restored yet\n\
                 hint: restore into a server that is none, or each node's RDB into its folder with redis-dir:"
            )),
            _ => Ok(()),
        }
    }

    /// Everything is here: into the server with it.
    fn give(&mut self) -> Result<Returned, RedisError> {
        let mut wire = self.open()?;
        let before = info::loaded(&mut wire, self.login.timeout)?;
        let is_occupied = !self.options.flush_first && !replicate::is_empty(&mut wire, &before)?;
        if is_occupied && !self.options.force {
            return Err(filled());
        }
        let begun_ms = self.clock.now_ms() + self.skew_ms;
        let merges = is_occupied;
        let libraries = if merges { replicate::libraries(&mut wire)? as u64 } else { 0 };
        let mut proven = Vec::new();
        let replicated = if merges { Err("the target keeps what it has") } else { self.may_replicate() };
        let replicated = match replicated {
            Err(why) => Err(why.to_owned()),
            Ok(()) => match self.replicate(&before) {
                Ok(()) => Ok(()),
                Err(RedisError::Unable(why)) => Err(why),
                Err(error) => return Err(error),
            },
        };
        match replicated {
            Ok(()) => proven.push("taken over as a replica, then promoted".to_owned()),
            Err(why) => {
                let (restored, expired) = self.send_values(&mut wire, merges)?;
                proven.push(format!("{restored} keys sent one by one ({why}); {expired} had expired"));
            }
        }
        let mut wire = self.open()?;
        let window = Window { begun_ms, now_ms: self.clock.now_ms() + self.skew_ms };
        let facts = match merges {
            false => proof::keys(&mut wire, &self.received, &window, &mut proven)?,
            true => {
                let held = before.keys().values().sum();
                proof::joined(&mut wire, &self.received, &window, held, &self.cancel, &mut proven)?
            }
        };
        proof::functions(&mut wire, &self.received, libraries, &mut proven)?;
        proof::append_only(&mut wire, &mut proven)?;
        let mut told =
            users::Told { proven: &mut proven, warnings: &mut self.warnings, not_done: &mut self.not_done };
        users::restore(&mut wire, &self.users, &self.options.made_users, &mut told)?;
        let mut all = Map::new();
        all.insert("redis".into(), facts.into());
        Ok(Returned {
            proven,
            warnings: std::mem::take(&mut self.warnings),
            not_done: std::mem::take(&mut self.not_done),
            facts: all,
        })
    }

    fn may_replicate(&self) -> Result<(), &'static str> {
        if self.received.len() != 1 {
            return Err("the snapshot is of several nodes");
        }
        if self.reach.is_encrypted() {
            return Err("the target wants TLS");
        }
        Ok(())
    }

    fn replicate(&self, before: &Info) -> Result<(), RedisError> {
        let Some(received) = self.received.first() else { return Ok(()) };
        let replication = Replication {
            reach: &self.reach,
            login: &self.login,
            folder: self.folder.path(),
            databases: received.tally.databases.keys().max().map_or(0, |last| last + 1),
            withheld: self.options.withheld,
            may_replace: self.options.flush_first,
        };
        replicate::run(&replication, before, &self.cancel)
    }

    fn send_values(&self, wire: &mut Wire, merges: bool) -> Result<(u64, u64), RedisError> {
        if Info::of(wire)?.is_replica() {
            wire.ask(&["REPLICAOF", "NO", "ONE"])?;
        }
        if merges {
            for received in &self.received {
                let mut present = Present::refuse(wire);
                let replayed = spool::replay(&received.path, &mut present, &self.cancel);
                present.finish(replayed)?;
            }
        } else if self.options.flush_first {
            let libraries = replicate::libraries(wire)?;
            wire.ask(&["FLUSHALL"])?;
            if libraries > 0 {
                wire.ask(&["FUNCTION", "FLUSH"])?;
            }
        } else {
            // It was empty when it was looked at; nothing but the own word empties it.
            let now = Info::of(wire)?;
            if !replicate::is_empty(wire, &now)? {
                return Err(filled());
            }
        }
        let (mut restored, mut expired) = (0, 0);
        for Received { path, tally } in &self.received {
            let now_ms = self.clock.now_ms() + self.skew_ms;
            let mut restorer = Restorer::new(wire, tally.version, now_ms, self.folder.path());
            let replayed = spool::replay(path, &mut restorer, &self.cancel);
            let (some, others) = restorer.finish(replayed)?;
            restored += some;
            expired += others;
        }
        Ok((restored, expired))
    }

    fn next_path(&self) -> PathBuf {
        let name = match self.received.len() {
            0 => "dump.rdb".to_owned(),
            number => format!("dump-{number}.rdb"),
        };
        self.folder.path().join(name)
    }
}

fn filled() -> RedisError {
    RedisError::Unable("somebody filled the target in the meantime".into())
}

fn newest_version(expected: &Map<String, Value>) -> Option<u32> {
    let parts = expected.get("parts")?.as_array()?;
    parts.iter().filter_map(|part| u32::try_from(part.get("rdb_version")?.as_u64()?).ok()).max()
}

/// What a server holds; `None`: nothing.
fn held(wire: &mut Wire, info: &Info) -> Result<Option<String>, RedisError> {
    let keys: u64 = info.keys().values().sum();
    Ok(match (keys, replicate::libraries(wire)?) {
        (0, 0) => None,
        (0, 1) => Some("1 library of functions".into()),
        (0, libraries) => Some(format!("{libraries} libraries of functions")),
        (keys, _) => Some(plural(keys, "key")),
    })
}

fn refuse_occupied(wire: &mut Wire, info: &Info, name: &str) -> Result<(), RedisError> {
    let why = if let Some(held) = held(wire, info)? {
        format!("{name} holds {held}\nhint: --force --flush-first replaces them, --force alone adds to them")
    } else if info.is_replica() {
        format!("{name} is itself a replica\nhint: restore into its master, or promote this one with --force")
    } else if info.number("connected_slaves").unwrap_or(0) > 0 {
        format!("{name} has replicas, which would be given the restored data too\nhint: --force does it")
    } else {
        let watched = match wire.ask(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]) {
            Ok(reply) => reply.items().get(1).and_then(Reply::integer).unwrap_or(0),
            // It may not be asked, so it cannot be told.
            Err(RedisError::Said { .. }) => 0,
            Err(error) => return Err(error),
        };
        if watched == 0 {
            return Ok(());
        }
        format!(
            "{name} is watched by a Sentinel, which may take its place away meanwhile\nhint: --force does it"
        )
    };
    Err(RedisError::Refused(why))
}

impl Target for LiveTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let Some(Value::Object(expected)) = facts.get("redis") else {
            return Err(refused("the snapshot is not of a Redis or Valkey server".into()));
        };
        let wanted = spool::wanted(parts)?;
        self.look(expected).map_err(|error| rights::explain(error, &self.address))?;
        let size_bytes =
            wanted.iter().filter_map(|place| parts.get(*place)).map(|part| part.size_bytes).sum();
        spool::room(self.folder.path(), size_bytes)?;
        Ok(wanted)
    }

    fn met(&self) -> Option<Met> {
        Some(Met { warnings: self.warnings.clone(), ..self.met.clone() })
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        if spool::is_users(part) {
            self.users = spool::users(content)?;
            return Ok(());
        }
        let now_ms = self.clock.now_ms() + self.skew_ms;
        let received = spool::receive(content, &self.next_path(), now_ms, &self.cancel)?;
        self.received.push(received);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        let returned = self.give();
        returned.map_err(|error| rights::explain(error, &self.address).into())
    }
}
