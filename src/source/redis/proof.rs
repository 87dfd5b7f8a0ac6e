//! What is compared once a server holds the restored data: keys per database, functions, the append-only file.
//!
//! Keys expire meanwhile. How many, and when, is known from the RDB itself, so a count must lie between two numbers
//! that are mostly the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::RedisError;
use super::info::Info;
use super::spool::Received;
use super::wire::Wire;

const PAUSE: Duration = Duration::from_millis(100);

/// From before the data was loaded to after it was counted, by the server's clock.
pub struct Window {
    pub begun_ms: i64,
    pub now_ms: i64,
}

/// Compares keys per database; `before`: what the server held already and still should.
///
/// # Errors
/// A count is not what it must be.
pub fn keys(
    wire: &mut Wire,
    received: &[Received],
    window: &Window,
    before: &BTreeMap<u64, u64>,
    proven: &mut Vec<String>,
) -> Result<Map<String, Value>, RedisError> {
    let found = Info::of(wire)?.keys();
    // A second of grace on both sides: seconds are what the tally tells apart.
    let (begun, now) = (window.begun_ms.div_euclid(1000) - 1, window.now_ms.div_euclid(1000) + 1);
    let (mut least, mut most) = (before.clone(), before.clone());
    let mut assertable = true;
    for Received { tally, .. } in received {
        assertable &= tally.is_assertable();
        for (number, database) in &tally.databases {
            let gone = database.expired_by(now) + database.fields_expire;
            *least.entry(*number).or_default() += database.keys.saturating_sub(gone);
            *most.entry(*number).or_default() +=
                database.keys.saturating_sub(database.expired_by(begun).min(database.expired));
        }
    }
    let mut facts = Map::new();
    facts.insert("databases".into(), json!(found));
    if !assertable {
        proven.push("keys: not comparable, the RDB holds a type that is not known here".into());
        return Ok(facts);
    }
    for number in most.keys().chain(found.keys()) {
        let of = |counts: &BTreeMap<u64, u64>| counts.get(number).copied().unwrap_or(0);
        let (found, least, most) = (of(&found), of(&least), of(&most));
        if !(least..=most).contains(&found) {
            let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(RedisError::Differs(format!(
                "database {number} holds {found} keys where {expected} are due"
            )));
        }
    }
    let (keys, databases) = (found.values().sum::<u64>(), found.len());
    let expired: u64 =
        received.iter().flat_map(|r| r.tally.databases.values()).map(|d| d.expired_by(now)).sum();
    let told = if expired > 0 { format!("; {expired} of the snapshot have expired") } else { String::new() };
    proven.push(format!("{keys} keys in {databases} databases, as the RDB holds them{told}"));
    facts.insert("keys".into(), keys.into());
    Ok(facts)
}

/// Compares the libraries of functions.
///
/// # Errors
/// There are fewer or more.
pub fn functions(wire: &mut Wire, received: &[Received], proven: &mut Vec<String>) -> Result<(), RedisError> {
    let expected: u64 = received.iter().map(|received| received.tally.functions).max().unwrap_or(0);
    let reply = match wire.ask(&["FUNCTION", "LIST"]) {
        // Before Redis 7 there are none.
        Err(RedisError::Said { .. }) if expected == 0 => return Ok(()),
        other => other?,
    };
    let found = reply.items().len() as u64;
    if found != expected {
        return Err(RedisError::Differs(format!("{found} libraries of functions where {expected} are due")));
    }
    if expected > 0 {
        proven.push(format!("{found} libraries of functions"));
    }
    Ok(())
}

/// Waits for the append-only file, if the server keeps one, to hold the restored data.
///
/// # Errors
/// It cannot be written.
pub fn append_only(wire: &mut Wire, proven: &mut Vec<String>) -> Result<(), RedisError> {
    loop {
        let info = Info::of(wire)?;
        if !info.is_on("aof_enabled") {
            return Ok(());
        }
        if !info.is_on("aof_rewrite_in_progress") && !info.is_on("aof_rewrite_scheduled") {
            if info.text("aof_last_bgrewrite_status") != "ok" || info.text("aof_last_write_status") != "ok" {
                return Err(RedisError::Differs("the append-only file could not be written".into()));
            }
            proven.push("the append-only file was written anew".into());
            return Ok(());
        }
        wire.pause(PAUSE)?;
    }
}
