//! A server that is not ours to make, lent to drills. It is taken only on positive evidence: that it is named for them,
//! that it is empty, and that it is none of the servers that are backed up.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Sandbox, SandboxError};
use crate::source::postgres::Session;
use crate::source::redis::ephemeral::Held;
use crate::source::target::Target;

/// What a drill needs of it. Each method says why not, in words.
pub trait Lent: Send + Sync {
    /// The address a service is restored to.
    fn address(&self) -> String;
    fn describe(&self) -> String;
    /// The last look, with the facts of the snapshot that is to go there; makes room for it.
    ///
    /// # Errors
    /// It cannot be told apart from what was backed up, or is not empty any more.
    fn take(&self, facts: &serde_json::Value) -> Result<(), String>;
    /// What takes the snapshot, where that has to be watched; else what the address opens does.
    fn target(&self) -> Option<Box<dyn Target>> {
        None
    }
    /// The first value of a query.
    ///
    /// # Errors
    /// There is nothing to query, or the query fails.
    fn sql(&self, query: &str) -> Result<Option<String>, String>;
    /// A session in the database, for a PostgreSQL server.
    ///
    /// # Errors
    /// It is none, or does not answer.
    fn session(&self) -> Result<Box<dyn Session>, String> {
        Err("it is no PostgreSQL server".into())
    }
    /// Keys by database, of a Redis server.
    ///
    /// # Errors
    /// It is none, or does not answer.
    fn keys(&self) -> Result<BTreeMap<u64, Held>, String> {
        Err("it holds no keys".into())
    }
    /// Makes it empty again.
    ///
    /// # Errors
    /// What is left.
    fn give_back(&self) -> Result<(), String>;
}

pub struct Remote {
    lent: Arc<dyn Lent>,
}

impl Remote {
    pub fn new(lent: Arc<dyn Lent>, facts: &serde_json::Value) -> Result<Self, SandboxError> {
        lent.take(facts).map_err(SandboxError::Refused)?;
        Ok(Self { lent })
    }
}

impl Sandbox for Remote {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        Some(self.lent.address())
    }
    fn target(&mut self) -> Option<Box<dyn Target>> {
        self.lent.target()
    }
    fn describe(&self) -> String {
        self.lent.describe()
    }
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError> {
        self.lent.sql(query).map_err(SandboxError::Query)
    }
    fn session(&mut self, _: &str) -> Result<Box<dyn Session>, SandboxError> {
        // There is one database, whatever it was called.
        self.lent.session().map_err(SandboxError::Query)
    }
    fn keys(&mut self) -> Result<BTreeMap<u64, Held>, SandboxError> {
        self.lent.keys().map_err(SandboxError::Query)
    }
    fn not_tested(&self) -> Vec<String> {
        vec!["the applications that use the server".into()]
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        self.lent.give_back().map_err(SandboxError::Refused)
    }
}
