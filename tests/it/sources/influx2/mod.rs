//! InfluxDB 2.x: buckets over HTTP, from and into a stand-in that answers as the published protocol says. No server of 2.x
//! was ever asked: what passes here shows what is sent, and what is made of every answer.

mod failing;
mod giving_back;

use std::sync::Arc;

use lifeboat::base::clock::SystemClock;
use lifeboat::base::random::SystemRandom;
use lifeboat::repo::World;
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::repo::sync::Thoroughness;
use lifeboat::seal::slot::Unlock;
use lifeboat::store::{Location, StoreOptions};

use super::conformance::{self, Subject};
use crate::cli::{Machine, Said};
use crate::services::influx::Influx;
use crate::services::influx2::{Influx2, TOKEN, Trouble};

struct Store {
    influx: Influx2,
    id: String,
    made: u32,
}

impl Store {
    fn new() -> Self {
        let influx = Influx2::start();
        let id = influx.with(|state| state.bucket("shop"));
        Self { influx, id, made: 0 }
    }
}

impl Subject for Store {
    fn machine(&self) -> Machine {
        machine()
    }
    fn address(&self) -> String {
        self.influx.address("shop")
    }
    fn vacant(&mut self) -> String {
        self.made += 1;
        self.influx.address(&format!("back{}", self.made))
    }
    fn fill(&mut self) {
        self.influx.with(|state| {
            state.write(&self.id, 0..500);
            // What a server keeps for itself.
            state.bucket("_monitoring");
        });
    }
    fn change(&mut self) {
        self.influx.with(|state| state.write(&self.id, 500..600));
    }
    fn content(&self, address: &str) -> String {
        self.influx.content(address.rsplit('/').next().unwrap())
    }
    fn nowhere(&self) -> String {
        self.influx.address("missing")
    }
}

fn machine() -> Machine {
    let mut machine = Machine::with_repository();
    machine.set("INFLUX_TOKEN", TOKEN);
    std::fs::create_dir_all(machine.path("tmp")).unwrap();
    let folder = machine.path("tmp");
    machine.set("TMPDIR", folder.to_str().unwrap());
    machine
}

fn snapshots(machine: &Machine) -> usize {
    machine.run(&["--json", "snapshots"]).json().as_array().unwrap().len()
}

/// What the newest snapshot says of its buckets.
fn facts(machine: &Machine) -> serde_json::Value {
    let location: Location = machine.path("repository").to_str().unwrap().parse().unwrap();
    let store = lifeboat::store::open(&location, &StoreOptions::default()).unwrap();
    let world = World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) };
    let unlock = Unlock::Passphrase(zeroize::Zeroizing::new(b"right".to_vec()));
    let facts = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let repo = open(store, &unlock, &OpenOptions::default(), world).await.unwrap();
        repo.sync(Thoroughness::Tolerant).await.unwrap();
        let list = repo.snapshots().await.unwrap();
        list.snapshots.iter().max_by_key(|found| found.summary.consistent).unwrap().summary.facts.clone()
    });
    serde_json::from_str::<serde_json::Value>(&facts).unwrap()["influx2"].take()
}

/// It ended so, and said this.
#[track_caller]
fn says(said: &Said, code: i32, parts: &[&str]) {
    assert_eq!(said.code, code, "{}{}", said.stdout, said.stderr);
    for part in parts {
        assert!(said.stderr.contains(part), "{part:?} is missing:\n{}", said.stderr);
    }
    assert!(!(said.stdout.clone() + &said.stderr).contains(TOKEN), "the token is shown");
}

#[test]
fn an_influx_2_bucket_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Store::new());
}

#[test]
fn an_influx_2_bucket_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Store::new());
}

#[test]
fn damage_in_the_repository_leaves_an_influx_2_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Store::new());
}

/// What the server is asked for, to the byte; and that everybody is told how little was tried.
#[test]
fn the_server_is_asked_as_its_protocol_says() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    let said = machine.run(&["backup", &store.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let label = "never against a real server";
    assert_eq!((said.stdout + &said.stderr).matches(label).count(), 1);
    let asked = store.influx.asked();
    let exchanges: Vec<&str> = asked.iter().map(|request| request.exchange.as_str()).collect();
    assert_eq!(exchanges, ["ping", "metadata", "query", "metadata", "shard", "shard", "shard", "shard"]);
    assert!(!asked[0].headers.contains_key("authorization"), "the first question needs no token");
    let facts = facts(&machine);
    assert!(facts["label"].as_str().unwrap().contains(label), "{facts}");
    let bucket = &facts["buckets"][0];
    assert_eq!(
        (&facts["server_version"], &bucket["points"], &bucket["shards"]),
        (&"2.7.10".into(), &1000.into(), &4.into())
    );

    let said = machine.run(&["restore", "latest", "--to", &store.influx.address("a b")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains(label) || said.stdout.contains(label), "{}{}", said.stdout, said.stderr);
    for part in ["4 of 4 shards were taken", "1000 points are those that were counted"] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    let asked = store.influx.asked();
    let exchanges: Vec<&str> = asked.iter().map(|request| request.exchange.as_str()).collect();
    let fills = ["fill"; 4];
    let expected =
        [&["ping", "orgs", "buckets", "buckets", "make"][..], &fills, &["query", "change", "buckets"]]
            .concat();
    assert_eq!(exchanges, expected);
    let made: serde_json::Value = serde_json::from_slice(&asked[4].body).unwrap();
    assert_eq!(made["bucketName"], "a b_lifeboat_new");
    assert_eq!(made["retentionPolicies"][0]["duration"], 0);
    // Shards go as they came: not compressed, not one byte other.
    for fill in asked.iter().filter(|request| request.exchange == "fill") {
        assert!(!fill.headers.contains_key("content-encoding"));
        let id = fill.target.rsplit('/').next().unwrap();
        assert_eq!(fill.body.len() % 512, 0, "{id}");
    }
    assert!(asked[2].target.ends_with("&name=a%20b"), "{}", asked[2].target);
    let changed: serde_json::Value = serde_json::from_slice(&asked[10].body).unwrap();
    assert_eq!((&changed["name"], &changed["description"]), (&"a b".into(), &"what shop is for".into()));
}

#[test]
fn a_shard_is_stored_byte_by_byte_as_the_server_sends_it() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let asked = store.influx.asked();
    let shard = asked.iter().rfind(|request| request.exchange == "shard").unwrap();
    let id = shard.target.rsplit('/').next().unwrap();
    let path = format!("latest:/influxdb2/orgs/home/shop/shards/{id}.tar");
    let dumped = machine.command(&["dump", &path]).output().unwrap();
    let expected = store.influx.with(|state| state.archive(id.parse().unwrap()).unwrap());
    assert_eq!(dumped.stdout, expected, "{}", String::from_utf8_lossy(&dumped.stderr));
}

/// Every bucket at once, with the server's own stores; each goes back alone, or all into another server.
#[test]
fn every_bucket_is_captured_at_once_and_goes_back_alone_or_with_all() {
    let mut store = Store::new();
    store.fill();
    store.influx.with(|state| {
        let other = state.bucket("other/..");
        state.write(&other, 0..10);
        state.bucket("empty");
        let org = state.org("second org");
        let twin = state.bucket("shop");
        state.buckets.get_mut(&twin).unwrap().org = org;
        state.write(&twin, 0..3);
    });
    let machine = machine();
    let said = machine.run(&["backup", &store.influx.address("*")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = machine.run(&["ls", "latest"]).stdout;
    for part in
        ["metadata/kv.bolt", "metadata/sql.sqlite", "home/other%2F../bucket.json", "second org/shop/shards/"]
    {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert!(!listed.contains("_monitoring"), "{listed}");
    // The snapshot says what it holds by buckets, however many shards they have.
    let shown = machine.run(&["snapshots"]).stdout;
    assert!(shown.contains("influxdb2/orgs/home/empty") && !shown.contains("shards"), "{shown}");
    let kv = machine.command(&["dump", "latest:/influxdb2/metadata/kv.bolt"]).output().unwrap().stdout;
    assert_eq!(kv, vec![b'k'; 70_000]);
    let sql = machine.command(&["dump", "latest:/influxdb2/metadata/sql.sqlite"]).output().unwrap().stdout;
    assert_eq!(sql, b"SQLite format 3\r\n--not a boundary\r\n");

    let several = machine.run(&["restore", "latest", "--to", &store.influx.address("one")]);
    says(&several, 2, &["4 buckets were selected", "hint: select one: SNAPSHOT:/influxdb2/orgs/"]);
    let one = "latest:/influxdb2/orgs/second org/shop";
    let said = machine.run(&["restore", one, "--to", &store.influx.address("one?org=home")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("6 points are those"), "{}", said.stdout);

    let elsewhere = Influx2::start();
    let said = machine.run(&["restore", "latest", "--to", &elsewhere.address("")]);
    says(&said, 2, &["no organization \"second org\"", "there are [\"home\"]", "hint: ?org=NAME"]);
    let twins = machine.run(&["restore", "latest", "--to", &elsewhere.address("*?org=home")]);
    says(&twins, 2, &["several organizations have a bucket of one name"]);
    elsewhere.with(|state| state.org("second org"));
    let said = machine.run(&["restore", "latest", "--to", &elsewhere.address("")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for name in ["other/..", "empty"] {
        assert_eq!(elsewhere.content(name), store.influx.content(name), "{name}");
    }
    let names = |influx: &Influx2| {
        let mut names: Vec<String> =
            influx.with(|state| state.buckets.values().map(|b| b.name.clone()).collect());
        names.sort();
        names
    };
    assert_eq!(names(&elsewhere), ["empty", "other/..", "shop", "shop"]);

    // Which one is meant must be said.
    let said = machine.run(&["backup", &store.address()]);
    says(&said, 2, &["several organizations have a bucket \"shop\"", "hint: name one of them: ?org=NAME"]);
    let said = machine.run(&["backup", &store.influx.address("shop?org=second%20org")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = machine.run(&["backup", &store.influx.address("_monitoring")]);
    says(&said, 2, &["is the server's own"]);
}

/// Shards go when their retention is over: that is no loss. A bucket that is gone is one.
#[test]
fn shards_that_expire_are_no_loss_and_buckets_that_vanish_are() {
    let mut store = Store::new();
    store.fill();
    let second = store.influx.with(|state| state.bucket("second"));
    let machine = machine();
    let every = store.influx.address("*");
    assert_eq!(machine.run(&["backup", &every]).code, 0);
    store.influx.with(|state| state.drop_oldest_shard(&store.id));
    let said = machine.run(&["backup", &every]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // One that goes between the list and the question; the list agrees afterwards.
    store.influx.trouble("shard", Trouble::Says(404, "not found", "shard not found"));
    let listed = machine.run(&["backup", &every]);
    says(&listed, 1, &["the server lists shard", "says that there is none"]);
    assert_eq!(snapshots(&machine), 2);
    let (influx, id) = (&store.influx, store.id.clone());
    influx.with(|state| state.vanish_when_asked(&id));
    let said = machine.run(&["backup", &every]);
    says(&said, 0, &["1 shards of bucket \"shop\" were removed by its server"]);
    let bucket = facts(&machine)["buckets"][1].take();
    assert_eq!(bucket["shards_gone"].as_array().unwrap().len(), 1, "{bucket}");
    let said = machine.run(&["restore", "latest:/influxdb2/orgs/home/shop", "--to", &influx.address("back")]);
    assert_eq!(said.code, 0, "{}", said.stderr);

    // One that has nothing in it any more, although the server still describes it.
    influx.with(|state| state.buckets.get_mut(&id).unwrap().shards.clear());
    let said = machine.run(&["backup", &every]);
    says(&said, 1, &["influxdb2/orgs/home/shop/shards is empty; last time it held", "job accept"]);
    influx.with(|state| state.write(&id, 0..100));
    influx.with(|state| state.buckets.remove(&second));
    let said = machine.run(&["backup", &every]);
    says(&said, 1, &["influxdb2/orgs/home/second was there last time and is gone", "job accept"]);
}

/// What is counted is captured, whenever its shard came.
#[test]
fn a_shard_that_comes_while_points_are_counted_is_captured() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    store.influx.with(|state| state.grow_when_counted(&store.id));
    let said = machine.run(&["backup", &store.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let back = store.vacant();
    let said = machine.run(&["restore", "latest", "--to", &back]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("5 of 5 shards") && said.stdout.contains("1002 points"), "{}", said.stdout);
    assert_eq!(store.content(&back), store.content(&store.address()));
}

#[test]
fn servers_of_other_versions_are_told_apart() {
    let store = Store::new();
    let machine = machine();
    let address = store.address();
    for (version, parts) in [
        ("1.8.10", ["InfluxDB 1.8.10 answers", "hint: influxdb://HOST:8086/DATABASE is for 1.x"]),
        ("v2.0.9", ["2.1 and later are supported", "hint: "]),
        ("3.1.0", ["version 3 is not supported", "hint: back up that folder"]),
        ("7.0", ["influxdb2:// is for 2.x", "InfluxDB 7.0"]),
        ("", ["does not say that it is InfluxDB", "/health"]),
    ] {
        store.influx.with(|state| state.version = version.into());
        let said = machine.run(&["backup", &address]);
        says(&said, 2, &parts);
    }
    assert!(store.influx.asked().iter().all(|request| request.exchange == "ping"));
    let hidden = Trouble::Header("X-Influxdb-Version", String::new());
    store.influx.trouble("ping", hidden.clone());
    store.influx.trouble("ping", Trouble::Header("X-Influxdb-Build", "Cloud2".into()));
    store.influx.trouble("health", Trouble::Says(404, "not found", "path not found"));
    says(&machine.run(&["backup", &address]), 2, &["InfluxDB Cloud answers", "hint: "]);
    // Something between us that takes the header away.
    store.influx.trouble("ping", hidden);
    store.influx.with(|state| state.version = "v1.8.10".into());
    says(&machine.run(&["backup", &address]), 2, &["InfluxDB 1.8.10 answers"]);
    // And the other way round, whether or not the program of 1.x is here.
    for (version, parts) in [
        ("v2.7.10", ["InfluxDB 2.7.10 answers", "hint: influxdb2://HOST:8086/BUCKET is for 2.x"]),
        ("3.1.0", ["version 3 is not supported", "hint: back up that folder"]),
    ] {
        store.influx.heal();
        store.influx.with(|state| state.version = version.into());
        let said = machine.run(&["backup", &address.replace("influxdb2://", "influxdb://")]);
        says(&said, 2, &parts);
    }
    // Builds of somebody's own have names.
    store.influx.with(|state| state.version = "nightly".into());
    let said = machine.run(&["backup", &address]);
    says(&said, 0, &["the server calls its version \"nightly\""]);
}

/// A real one of 1.x at an address for 2.x, and a snapshot of either given to the other.
#[test]
fn a_server_of_1_x_is_named_with_its_own_address() {
    let (influx, store, machine) = (Influx::start(), Store::new(), machine());
    let said = machine.run(&["backup", &format!("influxdb2://127.0.0.1:{}/shop", influx.port())]);
    says(&said, 2, &["InfluxDB 1.", "hint: influxdb://HOST:8086/DATABASE is for 1.x"]);
    assert_eq!(machine.run(&["backup", &store.address()]).code, 0);
    let said = machine.run(&["restore", "latest", "--to", &influx.address("back")]);
    says(&said, 2, &["the snapshot is of InfluxDB 2.x", "hint: restore it into a server of 2.x"]);
    influx.query("CREATE DATABASE old");
    influx.write("old", "autogen", "m v=1 1700000000000000000\n");
    let said = machine.run(&["backup", &influx.address("old")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let job = format!("influxdb://127.0.0.1:{}/old@latest", influx.port());
    let said = machine.run(&["restore", &job, "--to", &store.influx.address("back")]);
    says(&said, 2, &["the snapshot is of InfluxDB 1.x", "hint: restore it into a server of 1.x"]);
}

#[test]
fn a_job_of_the_file_knows_influx_2() {
    let mut store = Store::new();
    store.fill();
    let machine = machine();
    let token = machine.file("token", format!("{TOKEN}\n"));
    let file = format!(
        "[repository.main]\nurl = {:?}\npassword = {{ env = \"LIFEBOAT_PASSWORD\" }}\n\n[job.metrics]\nsource = \
         {:?}\nrepository = \"main\"\n",
        machine.path("repository"),
        format!("{}?token-file={}", store.address(), token.display())
    );
    let path = machine.file("lifeboat.toml", file);
    let config = ["--config", path.to_str().unwrap()];
    let without = [("INFLUX_TOKEN", "")];
    let said = machine.run_with(&without, &[&config[..], &["config", "check"]].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let said = machine.run_with(&without, &[&config[..], &["run", "metrics"]].concat());
    says(&said, 0, &[]);
    assert_eq!(snapshots(&machine), 1);
}
