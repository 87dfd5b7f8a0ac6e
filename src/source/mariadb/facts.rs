//! What is known of a captured server, as it stands in the manifest under `mariadb`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::dump::{Objects, Table};

/// The key in a manifest's facts.
pub const KEY: &str = "mariadb";
/// Engines that a transaction reads as of one moment.
const TRANSACTIONAL: [&str; 4] = ["InnoDB", "RocksDB", "ROCKSDB", "TokuDB"];
/// Tables named in one warning.
const NAMED: usize = 10;

/// Everything recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// `MariaDB` or `MySQL`.
    pub flavour: String,
    pub server_version: String,
    pub tool: String,
    pub tool_flavour: String,
    /// Server's clock less ours.
    pub clock_skew_seconds: f64,
    /// How far behind its master a replica said it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_lag_seconds: Option<f64>,
    pub databases: BTreeMap<String, DatabaseFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UserFacts>,
}

/// One database.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Absolute path in the snapshot.
    pub part: String,
    pub charset: String,
    pub collation: String,
    pub size_bytes: u64,
    pub tables: BTreeMap<String, Table>,
    pub objects: Objects,
}

/// Users and roles.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UserFacts {
    pub part: String,
    pub names: Vec<String>,
}

impl Facts {
    /// Those of a manifest, if it is of such a server.
    pub fn of(facts: &Map<String, Value>) -> Option<Self> {
        serde_json::from_value(facts.get(KEY)?.clone()).ok()
    }

    pub fn into_map(self) -> Map<String, Value> {
        // Maps with text as keys, numbers and text: what cannot be JSON is not in it.
        let value = serde_json::to_value(self).unwrap_or_default();
        Map::from_iter([(KEY.to_owned(), value)])
    }
}

impl DatabaseFacts {
    /// Tables that no transaction holds still, and their engines.
    pub fn moving(&self) -> Vec<(&str, &str)> {
        let moves = |table: &Table| !TRANSACTIONAL.contains(&table.engine.as_str());
        let tables = self.tables.iter().filter(|(_, table)| moves(table));
        tables.map(|(name, table)| (name.as_str(), table.engine.as_str())).collect()
    }

    /// The same for people.
    pub fn warning(&self, database: &str) -> Option<String> {
        let moving = self.moving();
        if moving.is_empty() {
            return None;
        }
        let mut names: Vec<_> =
            moving.iter().take(NAMED).map(|(name, engine)| format!("{name} ({engine})")).collect();
        if moving.len() > NAMED {
            names.push(format!("{} more", moving.len() - NAMED));
        }
        Some(format!(
            "database {database:?}: tables that are not InnoDB were read while others could write, so they need not be \
             of one moment: {}",
            names.join(", ")
        ))
    }
}
