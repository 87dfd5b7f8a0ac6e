//! Replication the other way round: the target follows a server of ours until it has everything.
//!
//! What is changed at the target (whom it follows, with which password) is undone when this is dropped before the
//! end. Should this process be killed instead, the target is left a replica of nobody: `REPLICAOF NO ONE` frees it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RedisError;
use super::ephemeral::{self, Ephemeral, EphemeralOptions};
use super::info::Info;
use super::reach::Reach;
use super::wire::{Login, Wire};
use crate::base::cancel::Cancel;

const PAUSE: Duration = Duration::from_millis(100);
/// How long the target may take to find us.
const CALL_BACK: Duration = Duration::from_secs(15);
/// How long a target may go on loading when everything else is over.
const MOST_LOADING: Duration = Duration::from_secs(600);
/// How often it may begin again.
const MOST_SYNCS: i64 = 3;

/// Who follows, and with what.
pub struct Replication<'a> {
    pub reach: &'a Arc<dyn Reach>,
    pub login: &'a Login,
    /// Holds `dump.rdb`.
    pub folder: &'a Path,
    pub databases: u64,
    pub withheld: &'static [&'static str],
    /// What the target holds by then may go.
    pub may_replace: bool,
}

/// How many libraries of functions a server holds.
///
/// # Errors
/// It is lost, or we may not ask: who cannot see them must not replace them.
pub fn libraries(wire: &mut Wire) -> Result<usize, RedisError> {
    match wire.ask(&["FUNCTION", "LIST"]) {
        Ok(reply) => Ok(reply.items().len()),
        // Before Redis 7 there are none.
        Err(error @ RedisError::Said { .. }) if !error.is_said("NOPERM") => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether a server holds neither keys nor functions.
///
/// # Errors
/// As [`libraries`].
pub fn is_empty(wire: &mut Wire, info: &Info) -> Result<bool, RedisError> {
    Ok(info.keys().values().all(|keys| *keys == 0) && libraries(wire)? == 0)
}

/// What the target was before, to be put back.
struct Undo<'a> {
    replication: &'a Replication<'a>,
    settings: Vec<(&'static str, String)>,
    /// `host port`, or `NO ONE`.
    master: (String, String),
    followed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let mut undoing: Vec<Vec<&str>> = Vec::new();
        if self.followed {
            undoing.push(vec!["REPLICAOF", &self.master.0, &self.master.1]);
        }
        undoing.extend(self.settings.iter().map(|(name, value)| vec!["CONFIG", "SET", name, value]));
        if undoing.is_empty() {
            return;
        }
        // Also in a cancelled run.
        let wire = Wire::open(self.replication.reach, self.replication.login, &Cancel::new());
        let (mut wire, unreached) = match wire {
            Ok(wire) => (Some(wire), None),
            Err(error) => (None, Some(error.to_string())),
        };
        for words in &undoing {
            let why = match &mut wire {
                Some(wire) => insist(wire, words).err().map(|error| error.to_string()),
                None => unreached.clone(),
            };
            if let Some(why) = why {
                let server = self.replication.reach.name();
                tracing::error!(
                    "{server} was changed for the restore and stays so; to undo: {} ({why})",
                    shown(words)
                );
            }
        }
    }
}

/// A command to be typed; the password that was set before is not shown.
fn shown(words: &[&str]) -> String {
    match words {
        ["CONFIG", "SET", "masterauth", value] if !value.is_empty() => {
            "CONFIG SET masterauth, with the password it had".to_owned()
        }
        words => {
            words.iter().map(|word| if word.is_empty() { "\"\"" } else { word }).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Asks until a target that is loading what it was sent listens again.
fn insist(wire: &mut Wire, words: &[&str]) -> Result<(), RedisError> {
    let begun = Instant::now();
    loop {
        match wire.ask(words) {
            Ok(_) => return Ok(()),
            Err(error) if !error.is_said("LOADING") || begun.elapsed() > MOST_LOADING => return Err(error),
            Err(_) => wire.pause(PAUSE)?,
        }
    }
}

/// Makes the target hold what the RDB holds, and a master again.
///
/// # Errors
/// [`RedisError::Unable`]: it cannot be done this way, and the target is as it was.
pub fn run(replication: &Replication<'_>, before: &Info, cancel: &Cancel) -> Result<(), RedisError> {
    let mut target = Wire::open(replication.reach, replication.login, cancel)?;
    let unable = |why: &str| RedisError::Unable(why.to_owned());
    let listen: IpAddr = target.own_address().ok_or_else(|| unable("the target cannot call back here"))?;
    let options = EphemeralOptions {
        folder: replication.folder,
        listen,
        like: before.server().0,
        databases: replication.databases,
        append_only: false,
        user: None,
        withheld: replication.withheld,
    };
    let mut server = Ephemeral::start(&options, cancel)?;
    let own = server.info()?;
    let written = ephemeral::rdb_version(&mut server.wire, &own)?;
    let read = ephemeral::rdb_version(&mut target, before)?;
    if written.zip(read).is_none_or(|(written, read)| written > read) {
        return Err(unable("the server program here is newer than the target"));
    }
    let mut undo = Undo {
        replication,
        settings: Vec::new(),
        master: match before.is_replica() {
            true => (before.text("master_host").to_owned(), before.text("master_port").to_owned()),
            false => ("NO".into(), "ONE".into()),
        },
        followed: false,
    };
    for (name, value) in [("masterauth", server.password.as_str()), ("masteruser", "")] {
        if name == "masteruser" && before.major() < 6 {
            continue;
        }
        let set = target.ask(&["CONFIG", "GET", name]).and_then(|reply| {
            let was = reply.items().get(1).map(|was| was.text()).unwrap_or_default();
            undo.settings.push((name, was));
            target.ask(&["CONFIG", "SET", name, value])
        });
        match set {
            Err(RedisError::Said { said, .. }) => return Err(unable(&format!("the target refuses: {said}"))),
            other => drop(other?),
        }
    }
    // Our server took its time to load, and following it replaces everything.
    let now = Info::of(&mut target)?;
    if !replication.may_replace && !is_empty(&mut target, &now)? {
        return Err(unable("somebody filled the target in the meantime"));
    }
    let (host, port) = (server.at.ip().to_string(), server.at.port().to_string());
    undo.followed = true;
    match target.ask(&["REPLICAOF", &host, &port]) {
        Err(RedisError::Said { said, .. }) => return Err(unable(&format!("the target refuses: {said}"))),
        other => drop(other?),
    }
    follow(&mut target, &mut server)?;
    // From here on the data is there: whatever happens, it stays a master.
    undo.master = ("NO".into(), "ONE".into());
    target.ask(&["REPLICAOF", "NO", "ONE"])?;
    undo.followed = false;
    drop(undo);
    server.end();
    Ok(())
}

/// Waits until the target has everything.
fn follow(target: &mut Wire, server: &mut Ephemeral) -> Result<(), RedisError> {
    let begun = Instant::now();
    loop {
        target.pause(PAUSE)?;
        let (info, own) = (Info::of(target)?, server.info()?);
        let syncs = own.number("sync_full").unwrap_or(0);
        if syncs == 0 && begun.elapsed() > CALL_BACK {
            return Err(RedisError::Unable("the target cannot reach this machine".into()));
        }
        if syncs > MOST_SYNCS {
            return Err(RedisError::Lost {
                server: target.server().to_owned(),
                doing: "taking over the data",
                cause: std::io::Error::other("it began more than three times; its log says why"),
            });
        }
        let is_up = info.text("master_link_status") == "up" && !info.is_on("master_sync_in_progress");
        let here = own.number("master_repl_offset");
        if is_up && !info.is_on("loading") && here.is_some() && info.number("slave_repl_offset") >= here {
            return Ok(());
        }
    }
}
