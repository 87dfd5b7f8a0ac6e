//! Buckets as a server describes them, where their parts lie in a snapshot, and what goes back of a description.
//!
//! ```text
//! influxdb2/metadata/kv.bolt, sql.sqlite         the server's own settings; with every bucket
//! influxdb2/orgs/ORG/BUCKET/bucket.json          description and counts
//! influxdb2/orgs/ORG/BUCKET/shards/ID.tar        one shard each
//! ```
//!
//! Pure. A description is kept as the server wrote it, with what this version does not know of, too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::counts::Counts;
use crate::base::url::encode;

/// What all parts lie below.
pub const TOP: &str = "influxdb2";
/// The part that describes a bucket.
pub const DESCRIPTION: &str = "bucket.json";
/// Longest name of an organization or a bucket.
const NAME_LIMIT: usize = 4096;
/// Longest component of a path: file systems take 255 bytes.
const COMPONENT_LIMIT: usize = 200;
const NANOSECONDS: i64 = 1_000_000_000;

/// A description that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server describes its buckets in a way that makes no sense: {0}")]
pub struct Malformed(String);

/// A bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    pub id: String,
    pub name: String,
    pub org: String,
    /// Ids of the shards that are not about to be deleted, and when their time ends, in seconds since 1970.
    pub shards: BTreeMap<u64, i64>,
    /// Seconds for which points are kept; 0 for ever.
    pub retention_seconds: i64,
    document: Value,
}

/// What [`DESCRIPTION`] holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    pub bucket: Bucket,
    /// `None` when nobody counted.
    pub points: Option<Counts>,
}

/// An id, as it may stand in a query and in a path of the server.
pub fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name as a component of a path.
fn component(name: &str, id: &str) -> String {
    let encoded = encode(name, " ");
    match encoded.as_str() {
        "." | ".." => encoded.replace('.', "%2E"),
        _ if encoded.len() > COMPONENT_LIMIT => id.to_owned(),
        _ => encoded,
    }
}

fn groups(document: &Value) -> impl Iterator<Item = &Value> {
    let policies = document["retentionPolicies"].as_array().into_iter().flatten();
    policies.flat_map(|policy| policy["shardGroups"].as_array().into_iter().flatten())
}

/// Whether a group of shards is one that the server is about to remove.
fn is_deleted(group: &Value) -> bool {
    group["deletedAt"].is_string()
}

impl Bucket {
    /// Reads a server's description of one.
    ///
    /// # Errors
    /// It has no id or name, or lists what cannot be.
    pub fn read(document: Value) -> Result<Self, Malformed> {
        let wrong = |what: &str| Malformed(what.to_owned());
        let text = |key: &str| {
            let text = document[key].as_str().filter(|text| !text.is_empty() && text.len() <= NAME_LIMIT);
            text.map(str::to_owned).ok_or_else(|| Malformed(format!("a bucket has no {key}")))
        };
        let (id, name, org) = (text("bucketID")?, text("bucketName")?, text("organizationName")?);
        if !is_id(&id) || !is_id(&text("organizationID")?) {
            return Err(Malformed(format!("bucket {name:?} has an id that is none")));
        }
        if !document["retentionPolicies"].is_array() {
            return Err(Malformed(format!("bucket {name:?} has no retention policies")));
        }
        let mut shards = BTreeMap::new();
        for group in groups(&document).filter(|group| !is_deleted(group)) {
            let end = group["endTime"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let end = end.map_or(i64::MAX, jiff::Timestamp::as_second);
            for shard in group["shards"].as_array().into_iter().flatten() {
                let id = shard["id"].as_u64().ok_or_else(|| wrong("a shard has no id"))?;
                if shards.insert(id, end).is_some() {
                    return Err(Malformed(format!("shard {id} of bucket {name:?} is listed twice")));
                }
            }
        }
        let retention = document["retentionPolicies"][0]["duration"].as_i64().unwrap_or_default();
        let retention_seconds = retention / NANOSECONDS;
        Ok(Self { id, name, org, shards, retention_seconds, document })
    }

    /// All that a server describes, sorted by where they lie in a snapshot.
    ///
    /// # Errors
    /// As [`Self::read`]; two are one.
    pub fn read_all(answer: &[u8]) -> Result<Vec<Self>, Malformed> {
        let all: Vec<Value> =
            serde_json::from_slice(answer).map_err(|error| Malformed(format!("it is no list: {error}")))?;
        let mut all = all.into_iter().map(Self::read).collect::<Result<Vec<_>, _>>()?;
        all.sort_by_cached_key(|bucket| bucket.folder().split('/').map(str::to_owned).collect::<Vec<_>>());
        let mut ids = BTreeSet::new();
        let shards = |bucket: &Self| bucket.shards.keys().copied().collect::<Vec<_>>();
        if let Some(id) = all.iter().flat_map(shards).find(|id| !ids.insert(*id)) {
            return Err(Malformed(format!("shard {id} is in two buckets")));
        }
        match all.windows(2).find(|pair| pair[0].folder() == pair[1].folder()) {
            Some(pair) => Err(Malformed(format!("bucket {:?} is listed twice", pair[0].name))),
            None => Ok(all),
        }
    }

    /// The id of the organization it is in.
    pub fn org_id(&self) -> &str {
        self.document["organizationID"].as_str().unwrap_or_default()
    }

    /// The server's own, which nobody can make.
    pub fn is_system(&self) -> bool {
        self.name.starts_with('_')
    }

    /// Where its parts lie.
    pub fn folder(&self) -> String {
        let org = component(&self.org, self.org_id());
        format!("{TOP}/orgs/{org}/{}", component(&self.name, &self.id))
    }

    /// The description with its counts, as it is stored.
    pub fn described(&self, points: Option<&Counts>) -> Value {
        json!({ "bucket": self.document, "points": points })
    }

    /// What a server is told to make: a bucket of another name, with these shards only.
    ///
    /// It keeps points for ever until it is proven: else a server removes old shards while they are restored. Groups
    /// without shards are left out: servers before 2.7.12 crash when somebody writes into one.
    pub fn anew(&self, name: &str, org_id: &str, mark: &str, present: &BTreeSet<u64>) -> Value {
        let mut document = self.document.clone();
        document["bucketName"] = name.into();
        document["organizationID"] = org_id.into();
        document["description"] = mark.into();
        for policy in document["retentionPolicies"].as_array_mut().into_iter().flatten() {
            policy["duration"] = 0.into();
            for group in policy["shardGroups"].as_array_mut().into_iter().flatten() {
                if let Some(shards) = group["shards"].as_array_mut() {
                    shards.retain(|shard| shard["id"].as_u64().is_some_and(|id| present.contains(&id)));
                }
            }
            if let Some(groups) = policy["shardGroups"].as_array_mut() {
                let is_empty = |group: &Value| group["shards"].as_array().is_none_or(Vec::is_empty);
                groups.retain(|group| !is_deleted(group) && !is_empty(group));
            }
        }
        document
    }

    /// What turns a proven bucket into the one it stands for.
    pub fn finished(&self, name: &str, keeps_retention: bool) -> Value {
        let description = self.document["description"].as_str().unwrap_or_default();
        let policy = &self.document["retentionPolicies"][0];
        let group = policy["shardGroupDuration"].as_i64().unwrap_or_default() / NANOSECONDS;
        let every = if keeps_retention { self.retention_seconds } else { 0 };
        let mut rule = json!({ "type": "expire", "everySeconds": every });
        if group > 0 {
            rule["shardGroupDurationSeconds"] = group.into();
        }
        json!({ "name": name, "description": description, "retentionRules": [rule] })
    }
}

impl Described {
    /// Reads [`DESCRIPTION`].
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut document: Value =
            serde_json::from_slice(bytes).map_err(|error| Malformed(error.to_string()))?;
        let points = serde_json::from_value(document["points"].take());
        let points = points.map_err(|_| Malformed("its counts are none".into()))?;
        Ok(Self { bucket: Bucket::read(document["bucket"].take())?, points })
    }
}

/// Where the shards of a bucket lie whose parts are below `folder`.
pub fn shards_folder(folder: &str) -> String {
    format!("{folder}/shards")
}

/// The path of a shard's part.
pub fn shard_part(folder: &str, id: u64) -> String {
    format!("{}/{id}.tar", shards_folder(folder))
}

/// A bucket's folder, and which of its shards a part is; `None` for its description.
pub fn part_of(path: &str) -> Option<(&str, Option<u64>)> {
    let path = path.trim_start_matches('/');
    if !path.starts_with(&format!("{TOP}/orgs/")) {
        return None;
    }
    let (folder, name) = path.rsplit_once('/')?;
    match name.strip_suffix(".tar").and_then(|id| id.parse().ok()) {
        Some(id) => Some((folder.strip_suffix("/shards")?, Some(id))),
        None => (name == DESCRIPTION).then_some((folder, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({
            "organizationID": "00000000000000a1", "organizationName": "my org", "bucketID": "00000000000000b1",
            "bucketName": "a/b", "description": "what it was", "later": { "kept": true },
            "defaultRetentionPolicy": "autogen",
            "retentionPolicies": [{
                "name": "autogen", "replicaN": 1, "duration": 86_400_000_000_000_i64,
                "shardGroupDuration": 3_600_000_000_000_i64, "subscriptions": [],
                "shardGroups": [
                    { "id": 1, "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T01:00:00Z",
                      "shards": [{ "id": 11, "shardOwners": [] }] },
                    { "id": 2, "startTime": "2026-01-01T01:00:00Z", "endTime": "2026-01-01T02:00:00Z",
                      "deletedAt": "2026-02-01T00:00:00Z", "shards": [{ "id": 12, "shardOwners": [] }] },
                    { "id": 3, "startTime": "2026-01-01T02:00:00Z", "endTime": "2026-01-01T03:00:00Z",
                      "shards": [{ "id": 13, "shardOwners": [] }] },
                    { "id": 4, "startTime": "2026-01-01T03:00:00Z", "endTime": "2026-01-01T04:00:00Z", "shards": [] },
                ],
            }],
        })
    }

    #[test]
    fn what_goes_back_has_the_shards_that_came_and_what_nobody_knows_of() {
        let bucket = Bucket::read(document()).unwrap();
        assert_eq!(bucket.shards.keys().copied().collect::<Vec<_>>(), [11, 13]);
        assert_eq!(bucket.shards[&11], 1_767_229_200);
        assert_eq!(bucket.folder(), "influxdb2/orgs/my org/a%2Fb");
        let stored = bucket.described(Some(&Counts::new())).to_string();
        let read = Described::read(stored.as_bytes()).unwrap();
        assert_eq!((&read.bucket, read.points), (&bucket, Some(Counts::new())));
        let anew = bucket.anew("new", "00000000000000c1", "ours", &BTreeSet::from([13]));
        assert_eq!(anew["later"]["kept"], true);
        assert_eq!((&anew["bucketName"], &anew["description"]), (&json!("new"), &json!("ours")));
        let groups = anew["retentionPolicies"][0]["shardGroups"].as_array().unwrap();
        assert_eq!(groups.iter().map(|group| &group["id"]).collect::<Vec<_>>(), [3]);
        assert_eq!(anew["retentionPolicies"][0]["duration"], 0);
        let rule = json!({ "type": "expire", "everySeconds": 86_400, "shardGroupDurationSeconds": 3600 });
        let finished = json!({ "name": "n", "description": "what it was", "retentionRules": [rule] });
        assert_eq!(bucket.finished("n", true), finished);
        assert_eq!(bucket.finished("n", false)["retentionRules"][0]["everySeconds"], 0);
    }

    #[test]
    fn hostile_names_and_ids_stay_out_of_paths_and_queries() {
        let with = |key: &str, value: Value| {
            let mut document = document();
            document[key] = value;
            Bucket::read(document)
        };
        for (key, value) in [
            ("bucketID", json!("x\") |> drop()")),
            ("bucketID", json!("../../restore/kv")),
            ("bucketName", json!("")),
            ("bucketName", json!("x".repeat(5000))),
            ("organizationName", json!(7)),
            ("retentionPolicies", Value::Null),
            ("retentionPolicies", json!([{ "shardGroups": [{ "shards": [{ "id": -1 }] }] }])),
            ("retentionPolicies", json!([{ "shardGroups": [{ "shards": [{ "id": 1 }, { "id": 1 }] }] }])),
        ] {
            assert!(with(key, value.clone()).is_err(), "{key} {value}");
        }
        assert_eq!(with("bucketName", json!("..")).unwrap().folder(), "influxdb2/orgs/my org/%2E%2E");
        let long = with("bucketName", json!("ü".repeat(100))).unwrap();
        assert_eq!(long.folder(), "influxdb2/orgs/my org/00000000000000b1");
        let twice = json!([document(), document()]).to_string();
        assert!(Bucket::read_all(twice.as_bytes()).is_err());
        assert!(Bucket::read_all(b"{}").is_err());
    }

    #[test]
    fn names_of_parts_are_read_back() {
        let folder = "influxdb2/orgs/o/shards";
        let path = shard_part(folder, 7);
        assert_eq!(path, "influxdb2/orgs/o/shards/shards/7.tar");
        assert_eq!(part_of(&format!("/{path}")), Some((folder, Some(7))));
        assert_eq!(part_of("influxdb2/orgs/o/shards/bucket.json"), Some((folder, None)));
        for other in
            ["influxdb2/metadata/kv.bolt", "bucket.json", "influxdb2/orgs/o/b/7.tar", "influxdb2/orgs/o/b/x"]
        {
            assert_eq!(part_of(other), None, "{other}");
        }
    }
}
