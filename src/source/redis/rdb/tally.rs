//! What an RDB held, counted as it went by.

use std::collections::{BTreeMap, BTreeSet};

use super::RdbError;
use super::kinds::{Kind, NAMES};

/// A server has 16 databases by default; more than this is nonsense, and would be memory.
const MOST_DATABASES: usize = 1 << 16;
const MOST_MODULES: usize = 256;
/// How far ahead of the reading single expiry seconds are told apart: one day.
const WINDOW_SECONDS: i64 = 86_400;
const MODULE_LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// One database's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    pub keys: u64,
    /// Of those, the ones that expire some day.
    pub expires: u64,
    /// Of those, hashes whose single fields expire: they may go at any time.
    pub fields_expire: u64,
    /// Keys by type, in the order of [`NAMES`].
    pub kinds: [u64; NAMES.len()],
    /// Keys that were expired at the instant it was told.
    pub expired: u64,
    /// Keys by the second in which they expire, for a day.
    soon: BTreeMap<i64, u64>,
}

impl Database {
    /// How many keys are expired at `seconds` since 1970; exact up to a day after the reading.
    pub fn expired_by(&self, seconds: i64) -> u64 {
        self.expired + self.soon.range(..=seconds).map(|(_, keys)| keys).sum::<u64>()
    }
}

/// What an RDB says of itself, and what it held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub version: u32,
    /// A file of Valkey 9 or later.
    pub is_valkey: bool,
    /// Bytes that came, trailer included.
    pub size_bytes: u64,
    pub databases: BTreeMap<u64, Database>,
    pub functions: u64,
    /// Modules that left something here.
    pub modules: BTreeSet<String>,
    /// The few fields about itself that are of use: when, by whom, from where in the replication stream.
    pub about: BTreeMap<String, String>,
    /// The largest value as it stands in the file, its database's number and type.
    pub largest_value_bytes: u64,
    /// Where the first type stands that we do not know: what follows could not be counted.
    pub unknown: Option<(u64, u8)>,
    /// Whether the file has a checksum (`rdbchecksum no` leaves it out).
    pub checksummed: bool,
    now_seconds: i64,
}

/// Fields of which a copy is kept.
const ABOUT: [&str; 8] =
    ["redis-ver", "valkey-ver", "ctime", "used-mem", "repl-id", "repl-offset", "aof-base", "redis-bits"];

impl Tally {
    /// `now_ms`: when it is read, by the clock that judges what is expired.
    pub fn new(now_ms: i64) -> Self {
        Self { now_seconds: now_ms.div_euclid(1000), ..Self::default() }
    }

    pub fn keys(&self) -> u64 {
        self.databases.values().map(|database| database.keys).sum()
    }

    /// Seconds since 1970 at which the server began to write it, by the server's clock.
    pub fn created_seconds(&self) -> Option<i64> {
        self.about.get("ctime")?.parse().ok()
    }

    /// `7.0.15`, and whose.
    pub fn written_by(&self) -> Option<(&'static str, &str)> {
        let of = |field, name| self.about.get(field).map(|version: &String| (name, version.as_str()));
        of("valkey-ver", "valkey").or_else(|| of("redis-ver", "redis"))
    }

    /// Whether the counts are of everything.
    pub fn is_assertable(&self) -> bool {
        self.unknown.is_none()
    }

    pub(super) fn add_key(
        &mut self,
        database: u64,
        kind: &Kind,
        expires_ms: Option<i64>,
    ) -> Result<(), RdbError> {
        if self.databases.len() >= MOST_DATABASES && !self.databases.contains_key(&database) {
            return Err(RdbError::Corrupt { at: self.size_bytes, what: "too many databases" });
        }
        let entry = self.databases.entry(database).or_default();
        entry.keys += 1;
        entry.fields_expire += u64::from(kind.fields_expire);
        entry.kinds[kind.name] += 1;
        if let Some(expires_ms) = expires_ms {
            entry.expires += 1;
            let seconds = expires_ms.div_euclid(1000);
            if seconds <= self.now_seconds {
                entry.expired += 1;
            } else if seconds <= self.now_seconds.saturating_add(WINDOW_SECONDS) {
                *entry.soon.entry(seconds).or_default() += 1;
            }
        }
        Ok(())
    }

    pub(super) fn add_about(&mut self, name: &[u8], value: &[u8]) {
        if let Some(known) = ABOUT.iter().find(|known| known.as_bytes() == name) {
            self.about.insert((*known).to_owned(), String::from_utf8_lossy(value).into_owned());
        }
    }

    /// Nine letters of six bits, then ten bits of version.
    pub(super) fn add_module(&mut self, id: u64) {
        let letter = |place: u32| MODULE_LETTERS[(id >> (10 + 6 * place) & 63) as usize];
        let name: Vec<u8> = (0..9).rev().map(letter).collect();
        if self.modules.len() < MOST_MODULES {
            self.modules.insert(String::from_utf8_lossy(&name).into_owned());
        }
    }
}
