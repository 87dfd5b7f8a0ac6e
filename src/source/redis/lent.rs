//! A server that is not ours, lent to a drill: its user is named for it, and it is empty, before and after.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::RedisError;
use super::address::Address;
use super::ephemeral::Held;
use super::info::Info;
use super::reach::Reach;
use super::replicate::is_empty;
use super::wire::{Login, Wire};
use crate::base::cancel::Cancel;

/// What a user that drills come in as is called: no production server has one.
pub const PREFIX: &str = "lifeboat_drill_";

/// Who a server is, and who it replicates: nobody else's.
///
/// # Errors
/// It does not answer.
pub fn identity(
    address: &Address,
    reach: &Arc<dyn Reach>,
    cancel: &Cancel,
) -> Result<Vec<String>, RedisError> {
    let info = Info::of(&mut Wire::open(reach, &Login::of(address), cancel)?)?;
    Ok(ids(&info))
}

fn ids(info: &Info) -> Vec<String> {
    // A replica shares the second with its master.
    let found = ["run_id", "master_replid"].map(|field| info.text(field).to_owned());
    found.into_iter().filter(|id| !id.is_empty()).collect()
}

/// See the module.
pub struct Lent {
    address: Address,
    reach: Arc<dyn Reach>,
    cancel: Cancel,
    /// Its run id when it was looked at first.
    run_id: Mutex<Option<String>>,
    /// Users that the restore made.
    made: Arc<Mutex<Vec<String>>>,
}

impl Lent {
    /// Looks at the user's name; connects to nothing.
    ///
    /// # Errors
    /// It is not named for drills.
    pub fn new(address: Address, reach: Arc<dyn Reach>, cancel: &Cancel) -> Result<Self, RedisError> {
        let user = address.user.clone().unwrap_or_default();
        if !user.starts_with(PREFIX) || user.len() == PREFIX.len() {
            let name = reach.name();
            return Err(RedisError::Refused(format!(
                "{name} is not said to be for drills, and one that is not is never restored into\nhint: make a user \
                 there that only a server for drills has, and come in as that: ACL SETUSER {PREFIX}shop on >PASSWORD ~* \
                 &* +@all; then redis://{PREFIX}shop@HOST"
            )));
        }
        Ok(Self { address, reach, cancel: cancel.clone(), run_id: Mutex::default(), made: Arc::default() })
    }

    pub fn shown(&self) -> String {
        self.reach.name()
    }

    /// # Errors
    /// As [`identity`].
    pub fn identity(&self) -> Result<Vec<String>, RedisError> {
        let info = Info::of(&mut self.open(&self.cancel)?)?;
        self.is_still(&info)?;
        Ok(ids(&info))
    }

    /// Where the restore into it has to write down the users it makes.
    pub fn made(&self) -> Arc<Mutex<Vec<String>>> {
        self.made.clone()
    }

    fn open(&self, cancel: &Cancel) -> Result<Wire, RedisError> {
        Wire::open(&self.reach, &Login::of(&self.address), cancel)
    }

    /// Looks whether it is empty and stands alone.
    ///
    /// # Errors
    /// It does not.
    pub fn prove_empty(&self) -> Result<(), RedisError> {
        let mut wire = self.open(&self.cancel)?;
        let info = Info::of(&mut wire)?;
        let name = self.shown();
        if info.is_replica() || info.number("connected_slaves").unwrap_or(0) > 0 {
            return Err(RedisError::Refused(format!(
                "{name} is one of several that replicate: it is in use"
            )));
        }
        if !is_empty(&mut wire, &info)? {
            let keys: u64 = info.keys().values().sum();
            return Err(RedisError::Refused(format!(
                "{name} is not empty: it holds {keys} keys\nhint: if a drill left them behind: FLUSHALL"
            )));
        }
        self.is_still(&info)
    }

    /// Behind an address there may be another server than a moment ago: a proxy, a failover, a restart.
    fn is_still(&self, info: &Info) -> Result<(), RedisError> {
        let mut first = self.run_id.lock().unwrap_or_else(PoisonError::into_inner);
        if *first.get_or_insert_with(|| info.text("run_id").to_owned()) == info.text("run_id") {
            return Ok(());
        }
        let name = self.shown();
        Err(RedisError::Refused(format!(
            "the server that answers at {name} is not the one that was lent (its run id is another): nothing was removed from it\n\
             hint: see what it is; if it is the same and was restarted, FLUSHALL empties it"
        )))
    }

    /// What it holds now.
    ///
    /// # Errors
    /// It does not answer.
    pub fn keys(&self) -> Result<BTreeMap<u64, Held>, RedisError> {
        Ok(Info::of(&mut self.open(&self.cancel)?)?.held())
    }

    /// Empties it again. Users that the restore made are removed.
    ///
    /// # Errors
    /// What is left; it is not the server that was lent.
    pub fn give_back(&self) -> Result<(), RedisError> {
        // Also after an interruption.
        let mut wire = self.open(&Cancel::new())?;
        let info = Info::of(&mut wire)?;
        // All that follows goes through this one connection.
        self.is_still(&info)?;
        if info.is_replica() {
            wire.ask(&["REPLICAOF", "NO", "ONE"])?;
        }
        wire.ask(&["FLUSHALL"])?;
        // Older servers have none.
        let _ = wire.ask(&["FUNCTION", "FLUSH"]);
        for user in std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner)) {
            wire.ask(&["ACL", "DELUSER", &user])?;
        }
        Ok(())
    }
}
