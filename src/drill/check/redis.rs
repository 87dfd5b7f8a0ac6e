//! A Redis server against what the RDB held when it was captured, before and after a restart.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Answer, Broken, CheckSpec, Restored, counted, grouped};
use crate::source::difference::Difference;
use crate::source::redis::ephemeral::Held;

pub fn check(spec: &CheckSpec, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let Some(expected) = captured(restored.facts) else {
        return Ok(Answer::Skipped("the snapshot holds no counts of its keys".into()));
    };
    match spec {
        CheckSpec::AppendOnly => append_only(&expected, restored),
        _ => {
            let found = restored.sandbox.keys().map_err(|error| error.to_string())?;
            Ok(answer(&compare(&expected, &found), &expected, &found))
        }
    }
}

/// Keys by database as the snapshot's RDBs held them; `None` where something in them was not understood.
pub fn captured(facts: &Map<String, Value>) -> Option<BTreeMap<u64, Held>> {
    let mut all: BTreeMap<u64, Held> = BTreeMap::new();
    for part in facts.get("redis")?.get("parts")?.as_array()? {
        if part["assertable"] == false {
            return None;
        }
        for (number, database) in part.get("databases")?.as_object()? {
            let count = |key: &str| database[key].as_u64().unwrap_or(0);
            let held = all.entry(number.parse().ok()?).or_default();
            held.keys += count("keys");
            held.expiring += count("expires") + count("fields_expire");
        }
    }
    Some(all)
}

/// Keys without an end must all be there; of the others any number may have come to theirs.
fn compare(expected: &BTreeMap<u64, Held>, found: &BTreeMap<u64, Held>) -> Vec<Difference> {
    let mut differences = Vec::new();
    let none = Held::default();
    for number in expected.keys().chain(found.keys().filter(|number| !expected.contains_key(*number))) {
        let (was, is) = (expected.get(number).unwrap_or(&none), found.get(number).unwrap_or(&none));
        let least = was.keys.saturating_sub(was.expiring);
        let lasting = is.keys.saturating_sub(is.expiring);
        if is.keys > was.keys || is.keys < least || lasting > was.keys {
            let due = match least == was.keys {
                true => counted(was.keys, "key", "keys"),
                false => format!("{} to {} keys", grouped(least), grouped(was.keys)),
            };
            let found = counted(is.keys, "key", "keys");
            differences.push(Difference::new(format!("database {number}"), due, found));
        } else if lasting < least {
            let due = format!("{} that never expire", counted(least, "key", "keys"));
            differences.push(Difference::new(format!("database {number}"), due, grouped(lasting)));
        }
    }
    differences
}

fn total(all: &BTreeMap<u64, Held>) -> u64 {
    all.values().map(|held| held.keys).sum()
}

fn answer(differences: &[Difference], expected: &BTreeMap<u64, Held>, found: &BTreeMap<u64, Held>) -> Answer {
    let expired = total(expected).saturating_sub(total(found));
    let allowed = match expired {
        0 => String::new(),
        expired => format!(" ({} expired since, allowed)", grouped(expired)),
    };
    Answer::of(differences.to_vec(), format!("{} equal{allowed}", counted(total(found), "key", "keys")))
}

/// Starts the server anew, as its operator will one day: with an append-only file it reads that, and ignores an RDB
/// beside it, however whole.
fn append_only(expected: &BTreeMap<u64, Held>, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let config = restored.facts.get("redis").and_then(|facts| facts.get("config"));
    match config.and_then(|config| config.get("appendonly")).and_then(Value::as_str) {
        Some("yes") => {}
        Some(_) => return Ok(Answer::Proven("the source kept none, and none was made".into())),
        None => return Ok(Answer::Skipped("the snapshot does not say whether the source kept one".into())),
    }
    let before = restored.sandbox.keys().map_err(|error| error.to_string())?;
    restored.sandbox.restart().map_err(|error| error.to_string())?;
    let after = restored.sandbox.keys().map_err(|error| error.to_string())?;
    let why = "a restart reads the append-only file and ignores the RDB beside it";
    let differences: Vec<Difference> = compare(expected, &after)
        .into_iter()
        .map(|mut difference| {
            difference.subject = format!("append-only file, {}", difference.subject);
            difference.because(why)
        })
        .collect();
    let told =
        format!("after a restart {} of {}", grouped(total(&after)), counted(total(&before), "key", "keys"));
    Ok(Answer::of(differences, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(keys: u64, expiring: u64) -> BTreeMap<u64, Held> {
        BTreeMap::from([(0, Held { keys, expiring })])
    }

    #[test]
    fn expired_keys_may_be_gone_and_others_may_not() {
        let differs = |expected: &_, found: &_| !compare(expected, found).is_empty();
        assert!(!differs(&one(10, 0), &one(10, 0)));
        assert!(differs(&one(10, 0), &one(9, 0)));
        assert!(differs(&one(10, 0), &one(11, 0)));
        assert!(!differs(&one(10, 4), &one(6, 0)));
        assert!(!differs(&one(10, 4), &one(8, 2)));
        assert!(differs(&one(10, 4), &one(5, 0)));
        // As many as due, but of those that last one is missing.
        assert!(differs(&one(10, 4), &one(9, 4)));
        assert!(differs(&one(10, 0), &BTreeMap::new()));
        assert!(differs(&BTreeMap::new(), &one(1, 1)));
    }

    #[test]
    fn captured_keys_are_added_up_over_the_nodes() {
        let facts = r#"{"redis": {"parts": [
            {"assertable": true, "databases": {"0": {"keys": 5, "expires": 1, "fields_expire": 1}}},
            {"assertable": true, "databases": {"0": {"keys": 2}, "3": {"keys": 1}}}]}}"#;
        let facts: Map<String, Value> = serde_json::from_str(facts).unwrap();
        let found = captured(&facts).unwrap();
        assert_eq!(found[&0], Held { keys: 7, expiring: 2 });
        assert_eq!(found[&3], Held { keys: 1, expiring: 0 });
        let unknown = r#"{"redis": {"parts": [{"assertable": false, "databases": {}}]}}"#;
        assert_eq!(captured(&serde_json::from_str(unknown).unwrap()), None);
    }
}
