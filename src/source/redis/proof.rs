//! What is compared once a server holds the restored data: keys per database, functions, the append-only file.
//!
//! Keys expire meanwhile. How many, and when, is known from the RDB itself, so a count must lie between two numbers
//! that are mostly the same. Where others' keys stay, each key of the RDB is asked for, and theirs are only counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::RedisError;
use super::info::Info;
use super::payload::Present;
use super::spool::{self, Received};
use super::wire::Wire;
use crate::base::byte_size::plural;
use crate::base::cancel::Cancel;

const PAUSE: Duration = Duration::from_millis(100);

/// From before the data was loaded to after it was counted, by the server's clock.
pub struct Window {
    pub begun_ms: i64,
    pub now_ms: i64,
}

/// Keys per database that are due, at least and at most; `None` where the RDB holds what could not be counted.
fn due(received: &[Received], window: &Window) -> Option<(BTreeMap<u64, u64>, BTreeMap<u64, u64>)> {
    // A second of grace on both sides: seconds are what the tally tells apart.
    let (begun, now) = (window.begun_ms.div_euclid(1000) - 1, window.now_ms.div_euclid(1000) + 1);
    let (mut least, mut most) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
    for Received { tally, .. } in received {
        if !tally.is_assertable() {
            return None;
        }
        for (number, database) in &tally.databases {
            let gone = database.expired_by(now) + database.fields_expire;
            *least.entry(*number).or_default() += database.keys.saturating_sub(gone);
            *most.entry(*number).or_default() +=
                database.keys.saturating_sub(database.expired_by(begun).min(database.expired));
        }
    }
    Some((least, most))
}

fn told_expired(received: &[Received], window: &Window) -> String {
    let now = window.now_ms.div_euclid(1000) + 1;
    let databases = received.iter().flat_map(|received| received.tally.databases.values());
    match databases.map(|database| database.expired_by(now)).sum::<u64>() {
        0 => String::new(),
        expired => format!("; {expired} of the snapshot have expired"),
    }
}

const NOT_COMPARABLE: &str = "keys: not comparable, the RDB holds a type that is not known here";

fn too_many(found: u64, least: u64, most: u64, of: &str) -> RedisError {
    let due = if least == most { least.to_string() } else { format!("{least} to {most}") };
    RedisError::Differs(format!("{of} {} where {due} are due", plural(found, "key")))
}

/// Compares keys per database of a server that holds nothing else.
///
/// # Errors
/// A count is not what it must be.
pub fn keys(
    wire: &mut Wire,
    received: &[Received],
    window: &Window,
    proven: &mut Vec<String>,
) -> Result<Map<String, Value>, RedisError> {
    let found = Info::of(wire)?.keys();
    let mut facts = Map::new();
    facts.insert("databases".into(), json!(found));
    let Some((least, most)) = due(received, window) else {
        proven.push(NOT_COMPARABLE.into());
        return Ok(facts);
    };
    for number in most.keys().chain(found.keys()) {
        let of = |counts: &BTreeMap<u64, u64>| counts.get(number).copied().unwrap_or(0);
        let (found, least, most) = (of(&found), of(&least), of(&most));
        if !(least..=most).contains(&found) {
            return Err(too_many(found, least, most, &format!("database {number} holds")));
        }
    }
    let keys = found.values().sum::<u64>();
    proven.push(format!(
        "{} in {}, as many as the RDB holds{}",
        plural(keys, "key"),
        plural(found.len() as u64, "database"),
        told_expired(received, window)
    ));
    facts.insert("keys".into(), keys.into());
    Ok(facts)
}

/// Looks for every key of the RDBs in a server that holds others too. `before`: how many it held.
///
/// # Errors
/// One is missing.
pub fn joined(
    wire: &mut Wire,
    received: &[Received],
    window: &Window,
    before: u64,
    cancel: &Cancel,
    proven: &mut Vec<String>,
) -> Result<Map<String, Value>, RedisError> {
    let mut there = 0;
    for Received { path, .. } in received {
        let mut present = Present::count(wire);
        let replayed = spool::replay(path, &mut present, cancel);
        there += present.finish(replayed)?;
    }
    let found = Info::of(wire)?.keys();
    let mut facts = Map::new();
    facts.insert("databases".into(), json!(found));
    match due(received, window) {
        None => proven.push(NOT_COMPARABLE.into()),
        Some((least, most)) => {
            let (least, most) = (least.values().sum(), most.values().sum());
            if !(least..=most).contains(&there) {
                return Err(too_many(there, least, most, "of the RDB there are"));
            }
            proven.push(format!(
                "all {} of the RDB are there; the server held each value against its checksum{}",
                plural(there, "key"),
                told_expired(received, window)
            ));
            facts.insert("keys".into(), there.into());
        }
    }
    let others = found.values().sum::<u64>().saturating_sub(there);
    let of = if others == before { String::new() } else { format!(" (there were {before} before)") };
    proven.push(format!(
        "{} that the target holds besides stay{}{of}: no part of the snapshot, and not compared",
        plural(others, "key"),
        if others == 1 { "s" } else { "" }
    ));
    facts.insert("other_keys".into(), others.into());
    Ok(facts)
}

/// Compares the libraries of functions. `others`: those that were there before and stay.
///
/// # Errors
/// There are fewer or more.
pub fn functions(
    wire: &mut Wire,
    received: &[Received],
    others: u64,
    proven: &mut Vec<String>,
) -> Result<(), RedisError> {
    let own: u64 = received.iter().map(|received| received.tally.functions).max().unwrap_or(0);
    let expected = own + others;
    let reply = match wire.ask(&["FUNCTION", "LIST"]) {
        // Before Redis 7 there are none.
        Err(RedisError::Said { .. }) if expected == 0 => return Ok(()),
        other => other?,
    };
    let found = reply.items().len() as u64;
    if found != expected {
        return Err(RedisError::Differs(format!("{found} libraries of functions where {expected} are due")));
    }
    if own > 0 {
        proven.push(format!("libraries of functions: {own}"));
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
