//! What a snapshot says of a captured server, as JSON, and what is proven of a restored one against it.

use serde_json::{Map, Value, json};

use super::info::Info;
use super::rdb::Tally;
use super::rdb::kinds::NAMES;

/// The facts of one RDB.
pub fn of_part(path: &str, tally: &Tally) -> Map<String, Value> {
    let mut part = Map::new();
    part.insert("path".into(), path.into());
    part.insert("size_bytes".into(), tally.size_bytes.into());
    part.insert("rdb_version".into(), tally.version.into());
    part.insert("checksum".into(), if tally.checksummed { "verified" } else { "absent" }.into());
    part.insert("assertable".into(), tally.is_assertable().into());
    part.insert("databases".into(), databases(tally));
    part.insert("keys".into(), tally.keys().into());
    part.insert("functions".into(), tally.functions.into());
    part.insert("largest_value_bytes".into(), tally.largest_value_bytes.into());
    if !tally.modules.is_empty() {
        part.insert("modules".into(), json!(tally.modules));
    }
    if let Some((at, byte)) = tally.unknown {
        part.insert("unknown_type".into(), json!({ "type": byte, "at": at }));
    }
    part.insert("about".into(), json!(tally.about));
    part
}

fn databases(tally: &Tally) -> Value {
    let mut databases = Map::new();
    for (number, database) in &tally.databases {
        let mut types = Map::new();
        for (name, count) in NAMES.iter().zip(database.kinds).filter(|(_, count)| *count > 0) {
            types.insert((*name).to_owned(), count.into());
        }
        let facts = json!({
            "keys": database.keys,
            "expires": database.expires,
            "fields_expire": database.fields_expire,
            "types": types,
        });
        databases.insert(number.to_string(), facts);
    }
    databases.into()
}

/// What the server said of itself when it was captured.
pub fn of_server(info: &Info, skew_ms: i64) -> Map<String, Value> {
    let (server, version) = info.server();
    let mut facts = Map::new();
    facts.insert("server".into(), server.into());
    facts.insert("version".into(), version.into());
    facts.insert("mode".into(), info.text("redis_mode").into());
    facts.insert("role".into(), if info.is_replica() { "replica" } else { "master" }.into());
    facts.insert("used_memory_bytes".into(), info.number("used_memory").into());
    facts.insert("clock_ahead_ms".into(), skew_ms.into());
    if info.is_replica() {
        facts.insert("lag_seconds".into(), info.lag().as_secs().into());
    }
    facts
}
