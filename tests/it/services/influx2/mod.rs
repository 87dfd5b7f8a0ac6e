//! A stand-in for InfluxDB 2.x: it answers with exchanges written from the published protocol (`fixtures/influxdb2`), none
//! of them recorded from a running server, and holds every request against them. What it keeps of a shard is a tar
//! archive of made-up files, whose points it can count. It is no database, and what passes here may fail on one.
//!
//! Something can go wrong in the midst of any answer. A request that no exchange describes fails the test.

mod wire;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use wire::{Values, serve};

pub const TOKEN: &str = "the-operators-token";
const BOUNDARY: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7";
const WEEK: i64 = 7 * 24 * 3600;
/// What goes wrong in an answer.
#[derive(Clone)]
pub enum Trouble {
    /// The connection ends behind so many bytes of the body; negative counts from its end. Nobody answers afterwards.
    Dies(i64),
    /// The body stops behind so many bytes, and nothing more comes.
    Stalls(usize),
    /// The answer is an error instead.
    Says(u16, &'static str, &'static str),
    /// The body stops behind so many bytes, and ends properly with the error a server writes there.
    EndsIn(usize, &'static str),
    /// A header is another, or is not there.
    Header(&'static str, String),
    /// The body is another.
    Body(Vec<u8>),
    /// The body stops behind so many bytes, and the answer ends properly.
    CutTo(usize),
    /// What was asked for is done, and the connection ends without an answer.
    Silent,
    /// What was asked for is done, and no answer comes.
    Waits,
}

pub struct Bucket {
    pub name: String,
    pub org: String,
    pub description: String,
    pub retention_seconds: i64,
    group_seconds: i64,
    /// Points by shard: measurement, field, seconds.
    pub shards: BTreeMap<u64, Vec<(String, String, i64)>>,
}

pub struct State {
    pub version: String,
    pub orgs: BTreeMap<String, String>,
    pub buckets: BTreeMap<String, Bucket>,
    next: u64,
    /// Exchange, and after how many that go well.
    trouble: Vec<(&'static str, usize, Trouble)>,
    pub requests: Vec<Request>,
    wrong: Vec<String>,
    is_dead: bool,
    /// Restored shards are empty when somebody counts.
    pub forgets: bool,
    /// The bucket whose next shard is gone when somebody asks for it.
    vanishing: Option<String>,
    /// The bucket that gets another shard when its points are asked for.
    growing: Option<String>,
    stalled: Sender<()>,
}

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub exchange: String,
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Influx2 {
    pub port: u16,
    state: Arc<Mutex<State>>,
    stalls: Receiver<()>,
}

impl Influx2 {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stalled, stalls) = channel();
        let state = Arc::new(Mutex::new(State {
            version: "v2.7.10".into(),
            orgs: BTreeMap::from([("00000000000000a1".into(), "home".into())]),
            buckets: BTreeMap::new(),
            next: 0x100,
            trouble: Vec::new(),
            requests: Vec::new(),
            wrong: Vec::new(),
            is_dead: false,
            forgets: false,
            vanishing: None,
            growing: None,
            stalled,
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { port, state, stalls }
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn address(&self, bucket: &str) -> String {
        format!("influxdb2://127.0.0.1:{}/{bucket}", self.port)
    }

    /// Something goes wrong in the next answer of this kind.
    pub fn trouble(&self, exchange: &'static str, trouble: Trouble) {
        self.trouble_after(exchange, 0, trouble);
    }

    pub fn trouble_after(&self, exchange: &'static str, well: usize, trouble: Trouble) {
        self.with(|state| state.trouble.push((exchange, well, trouble)));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.with(|state| {
            state.trouble.clear();
            state.is_dead = false;
        });
    }

    /// Waits until an answer stands still.
    pub fn stands_still(&self) {
        self.stalls.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    }

    /// What was asked for since the last time, as `METHOD target`.
    pub fn asked(&self) -> Vec<Request> {
        self.with(|state| std::mem::take(&mut state.requests))
    }

    /// Everything of a bucket but its name and ids.
    pub fn content(&self, name: &str) -> String {
        self.with(|state| {
            let found: Vec<&Bucket> = state.buckets.values().filter(|bucket| bucket.name == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            let mut points: Vec<_> = found[0].shards.values().flatten().collect();
            points.sort();
            let Bucket { description, retention_seconds, group_seconds, .. } = found[0];
            format!("{description} {retention_seconds} {group_seconds} {points:?}")
        })
    }
}

impl Drop for Influx2 {
    fn drop(&mut self) {
        let wrong = self.with(|state| std::mem::take(&mut state.wrong));
        assert!(std::thread::panicking() || wrong.is_empty(), "no exchange describes: {wrong:#?}");
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn org(&mut self, name: &str) -> String {
        let id = format!("{:016x}", self.id());
        self.orgs.insert(id.clone(), name.into());
        id
    }

    /// An empty bucket in the first organization; its id.
    pub fn bucket(&mut self, name: &str) -> String {
        let org = self.orgs.keys().next().unwrap().clone();
        let id = format!("{:016x}", self.id());
        let description = format!("what {name} is for");
        self.buckets.insert(
            id.clone(),
            Bucket {
                name: name.into(),
                org,
                description,
                retention_seconds: 0,
                group_seconds: WEEK,
                shards: BTreeMap::new(),
            },
        );
        id
    }

    /// Points of two fields, an hour apart.
    pub fn write(&mut self, id: &str, hours: std::ops::Range<i64>) {
        for hour in hours {
            let seconds = 1_700_000_000 + hour * 3600;
            let shards = &self.buckets[id].shards;
            let week = |points: &Vec<(String, String, i64)>| points[0].2 / WEEK;
            let found = shards.iter().find(|(_, points)| week(points) == seconds / WEEK).map(|(id, _)| *id);
            let shard = found.unwrap_or_else(|| self.id());
            let points = self.buckets.get_mut(id).unwrap().shards.entry(shard).or_default();
            points.push(("cpu, \"odd\"".into(), "load".into(), seconds));
            points.push(("mem".into(), format!("of\n{}", hour % 2), seconds));
        }
    }

    pub fn vanish_when_asked(&mut self, id: &str) {
        self.vanishing = Some(id.into());
    }

    pub fn grow_when_counted(&mut self, id: &str) {
        self.growing = Some(id.into());
    }

    pub fn drop_oldest_shard(&mut self, id: &str) {
        self.buckets.get_mut(id).unwrap().shards.pop_first().unwrap();
    }

    fn described(&self) -> Value {
        let time = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap().to_string();
        let group = |(id, points): (&u64, &Vec<(String, String, i64)>)| {
            let week = points.first().map_or(0, |point| point.2 / WEEK);
            json!({ "id": id + 1000, "startTime": time(week * WEEK), "endTime": time((week + 1) * WEEK),
                "shards": [{ "id": id, "shardOwners": [] }] })
        };
        let one = |(id, bucket): (&String, &Bucket)| {
            let mut groups: Vec<Value> = bucket.shards.iter().map(group).collect();
            // As a server lists what it is about to remove, and what it has removed.
            groups
                .push(json!({ "id": 1, "startTime": time(0), "endTime": time(WEEK), "deletedAt": time(WEEK),
                "shards": [{ "id": 999_999, "shardOwners": [] }] }));
            groups.push(json!({ "id": 2, "startTime": time(WEEK), "endTime": time(2 * WEEK), "shards": [] }));
            json!({ "organizationID": bucket.org, "organizationName": self.orgs[&bucket.org], "bucketID": id,
                "bucketName": bucket.name, "description": bucket.description, "defaultRetentionPolicy": "autogen",
                "retentionPolicies": [{ "name": "autogen", "replicaN": 1, "subscriptions": [], "shardGroups": groups,
                    "duration": bucket.retention_seconds * 1_000_000_000,
                    "shardGroupDuration": bucket.group_seconds * 1_000_000_000 }] })
        };
        self.buckets.iter().map(one).collect()
    }

    /// The points of a query's bucket that are older than it says.
    fn count(&self, asked: &Value) -> String {
        assert_eq!((&asked["type"], &asked["dialect"]["header"]), (&json!("flux"), &json!(true)), "{asked}");
        let query = asked["query"].as_str().unwrap();
        let between = |from: &str, to: &str| query.split(from).nth(1).unwrap().split(to).next().unwrap();
        let expected = format!(
            "from(bucketID: \"{}\") |> range(start: 1970-01-01T00:00:00Z, stop: {}) |> count() |> group(columns: \
             [\"_measurement\", \"_field\"]) |> sum()",
            between("bucketID: \"", "\""),
            between("stop: ", ")")
        );
        assert_eq!(query, expected);
        let until = between("stop: ", ")").parse::<jiff::Timestamp>().unwrap().as_second();
        let mut counts = BTreeMap::<(&str, &str), u64>::new();
        let bucket = &self.buckets[between("bucketID: \"", "\"")];
        for (measurement, field, _) in bucket.shards.values().flatten().filter(|point| point.2 < until) {
            *counts.entry((measurement, field)).or_default() += 1;
        }
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut csv = String::new();
        for (table, ((measurement, field), points)) in counts.into_iter().enumerate() {
            if table == 0 {
                csv += ",result,table,_measurement,_field,_value\r\n";
            }
            csv += &format!(",_result,{table},{},{},{points}\r\n", quote(measurement), quote(field));
        }
        csv
    }

    fn make(&mut self, asked: &Value) -> Result<Values, (u16, &'static str, &'static str)> {
        let text = |key: &str| asked[key].as_str().unwrap().to_owned();
        let (name, org) = (text("bucketName"), text("organizationID"));
        if !self.orgs.contains_key(&org) {
            return Err((404, "not found", "organization not found"));
        }
        if self.buckets.values().any(|bucket| bucket.name == name && bucket.org == org) {
            return Err((422, "conflict", "bucket with that name already exists"));
        }
        let id = self.bucket(&name);
        let policy = &asked["retentionPolicies"][0];
        let mut mappings = Vec::new();
        for group in policy["shardGroups"].as_array().unwrap() {
            assert!(group["deletedAt"].is_null(), "one that was removed would come back: {group}");
            let shards = group["shards"].as_array().unwrap();
            assert!(!shards.is_empty(), "servers before 2.7.12 crash later: {group}");
            for shard in shards {
                let new = self.id();
                mappings.push(json!({ "oldId": shard["id"], "newId": new }));
                self.buckets.get_mut(&id).unwrap().shards.insert(new, Vec::new());
            }
        }
        let bucket = self.buckets.get_mut(&id).unwrap();
        (bucket.org, bucket.description) = (org, text("description"));
        bucket.retention_seconds = policy["duration"].as_i64().unwrap() / 1_000_000_000;
        bucket.group_seconds = policy["shardGroupDuration"].as_i64().unwrap() / 1_000_000_000;
        let mappings = Value::from(mappings).to_string();
        Ok(vec![("id", id.into()), ("name", json!(name).to_string().into()), ("mappings", mappings.into())])
    }

    fn change(&mut self, id: &str, asked: &Value) -> Result<Values, (u16, &'static str, &'static str)> {
        let name = asked["name"].as_str().unwrap();
        let Some(org) = self.buckets.get(id).map(|bucket| bucket.org.clone()) else {
            return Err((404, "not found", "bucket not found"));
        };
        let mut others = self.buckets.iter().filter(|(other, _)| *other != id);
        if others.any(|(_, bucket)| bucket.name == name && bucket.org == org) {
            return Err((422, "conflict", "bucket name is not unique"));
        }
        let bucket = self.buckets.get_mut(id).unwrap();
        bucket.name = name.into();
        if let Some(description) = asked["description"].as_str() {
            bucket.description = description.into();
        }
        if let Some(rule) = asked["retentionRules"].get(0) {
            assert_eq!(rule["type"], "expire");
            bucket.retention_seconds = rule["everySeconds"].as_i64().unwrap();
            bucket.group_seconds = rule["shardGroupDurationSeconds"].as_i64().unwrap();
        }
        Ok(vec![("changed", json!({ "id": id, "name": name }).to_string().into())])
    }

    fn fill(&mut self, shard: u64, body: &[u8]) -> Result<Values, (u16, &'static str, &'static str)> {
        let mut points = Vec::new();
        let mut archive = tar::Archive::new(body);
        for entry in archive.entries().unwrap() {
            let Ok(mut entry) = entry else { return Err((500, "internal error", "unexpected EOF")) };
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            assert!(path.split('/').count() >= 4, "{path} is no path of a shard's file");
            let mut text = String::new();
            if entry.read_to_string(&mut text).is_err() {
                return Err((500, "internal error", "unexpected EOF"));
            }
            let records = text.split('\u{1e}').filter(|_| path.ends_with(".tsm"));
            for record in records.filter(|record| !record.is_empty()) {
                let parts: Vec<&str> = record.split('\u{1f}').collect();
                points.push((parts[0].into(), parts[1].into(), parts[2].parse().unwrap()));
            }
        }
        let bucket = self.buckets.values_mut().find(|bucket| bucket.shards.contains_key(&shard));
        let Some(bucket) = bucket else { return Err((404, "not found", "shard not found")) };
        let points = if self.forgets { Vec::new() } else { points };
        bucket.shards.insert(shard, points);
        Ok(Vec::new())
    }

    /// A shard's archive: what a server would write, with points instead of TSM blocks.
    pub fn archive(&self, shard: u64) -> Option<Vec<u8>> {
        let (id, bucket) = self.buckets.iter().find(|(_, bucket)| bucket.shards.contains_key(&shard))?;
        let record = |(measurement, field, time): &(String, String, i64)| {
            format!("{measurement}\u{1f}{field}\u{1f}{time}\u{1e}")
        };
        let points: String = bucket.shards[&shard].iter().map(record).collect();
        let mut builder = tar::Builder::new(Vec::new());
        // Nothing that compresses to nothing.
        let index: String = (0..60 * shard)
            .map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        for (name, content) in [("000000001-000000001.tsm", &points), ("index/0/L0-00000001.tsl", &index)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            let path = format!("{id}/autogen/{shard}/{name}");
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        Some(builder.into_inner().unwrap())
    }

    fn answer(
        &mut self,
        exchange: &str,
        request: &Request,
    ) -> Result<Values, (u16, &'static str, &'static str)> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let last = path.rsplit('/').next().unwrap();
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let parameter = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
            pair.map(|text| lifeboat::base::url::decode(text).unwrap())
        };
        let text = |value: Value| Vec::from(value.to_string());
        Ok(match exchange {
            "metadata" => vec![
                ("boundary", BOUNDARY.into()),
                ("kv", vec![b'k'; 70_000]),
                ("sql", b"SQLite format 3\r\n--not a boundary\r\n".to_vec()),
                ("buckets", text(self.described())),
            ],
            "shard" => {
                let shard: u64 = last.parse().unwrap();
                let is_of = |id: &String| self.buckets[id].shards.contains_key(&shard);
                if let Some(id) = self.vanishing.take_if(|id| is_of(id)) {
                    self.buckets.get_mut(&id).unwrap().shards.remove(&shard);
                }
                let found = self.archive(shard);
                vec![("tar", found.ok_or((404, "not found", "shard not found"))?)]
            }
            "orgs" => {
                let wanted = parameter("org");
                let all = self.orgs.iter().filter(|(_, name)| wanted.as_ref().is_none_or(|org| org == *name));
                let found: Vec<Value> = all.map(|(id, name)| json!({ "id": id, "name": name })).collect();
                if found.is_empty() {
                    return Err((404, "not found", "organization name not found"));
                }
                vec![("orgs", text(found.into()))]
            }
            "buckets" => {
                let (org, name) = (parameter("orgID").unwrap(), parameter("name").unwrap());
                let all = self.buckets.iter().filter(|(_, bucket)| bucket.org == org && bucket.name == name);
                let one = |(id, bucket): (&String, &Bucket)| {
                    json!({ "id": id, "orgID": org, "type": "user", "name": bucket.name,
                        "description": bucket.description })
                };
                vec![("buckets", text(all.map(one).collect()))]
            }
            "query" => {
                if let Some(id) = self.growing.take() {
                    self.write(&id, 5000..5001);
                }
                assert!(self.orgs.contains_key(&parameter("orgID").unwrap()));
                vec![("csv", self.count(&asked).into())]
            }
            "make" => self.make(&asked)?,
            "fill" => self.fill(last.parse().unwrap(), &request.body)?,
            "change" => self.change(last, &asked)?,
            "remove" => match self.buckets.remove(last) {
                Some(_) => Vec::new(),
                None => return Err((404, "not found", "bucket not found")),
            },
            _ => Vec::new(),
        })
    }
}
