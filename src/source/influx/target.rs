//! A database given back by the server's own program, and counted.
//!
//! A server cannot rename a database. One that is there is dropped only after a rehearsal under another name was
//! proven; until then nothing is touched.

use std::io::Read;
use std::path::Component;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::server::{Counts, Server};
use super::{Address, InfluxError, KEY, World};
use crate::source::capture::SourceError;
use crate::source::target::{Returned, StoredPart, Target};

/// How often points are counted again that are fewer than they were, and the time between.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// See the module.
pub struct InfluxTarget {
    address: Address,
    world: World,
    force: bool,
    server: Option<Server>,
    from: String,
    expected: Counts,
    until_ns: i128,
    files: u64,
    is_there: bool,
    spool: Option<tempfile::TempDir>,
    /// Made by us and not shown.
    made: Option<String>,
}

fn refused<T>(why: impl Into<String>) -> Result<T, SourceError> {
    Err(SourceError::Refused(why.into()))
}

impl InfluxTarget {
    /// Connects to nothing yet.
    pub fn new(address: Address, world: World, force: bool) -> Self {
        Self {
            address,
            world,
            force,
            server: None,
            from: String::new(),
            expected: Counts::new(),
            until_ns: 0,
            files: 0,
            is_there: false,
            spool: None,
            made: None,
        }
    }

    fn server(&self) -> Result<&Server, SourceError> {
        let unready = || InfluxError::Said("the server was not looked at: this is a bug".into());
        Ok(self.server.as_ref().ok_or_else(unready)?)
    }

    fn beside(&self) -> String {
        format!("{}_lifeboat_new", self.address.database)
    }

    /// Restores under `name`, and counts. Returns the points, and how many of them came after the count.
    fn restore(&mut self, name: &str) -> Result<(u64, u64), SourceError> {
        let Some(spool) = &self.spool else { return Err(SourceError::Differs("nothing came".into())) };
        let folder = spool.path().to_owned();
        self.made = Some(name.to_owned());
        let subject = format!("restore database {name:?}");
        self.server()?.run(&subject, &["restore", "-db", &self.from, "-newdb", name], &folder)?;
        let mut tried = 0;
        loop {
            let got = self.server()?.count_when_open(name, self.until_ns)?;
            match self.compare(&got) {
                // Shards are opened one after the other, and until then their points are simply not there.
                Err(_) if tried < TRIES => {}
                compared => return compared,
            }
            tried += 1;
            self.world.cancel.check()?;
            std::thread::sleep(PAUSE);
        }
    }

    /// The points there are, and how many of them came after the count.
    fn compare(&self, got: &Counts) -> Result<(u64, u64), SourceError> {
        let (mut points, mut late) = (0, 0);
        for (policy, measurements) in &self.expected {
            for (measurement, fields) in measurements {
                for (field, expected) in fields {
                    let found = got.get(policy).and_then(|found| found.get(measurement)?.get(field)).copied();
                    let found = found.unwrap_or_default();
                    if found < *expected {
                        return Err(SourceError::Differs(format!(
                            "field {field} of {measurement} in {policy} has {found} points, and had {expected}"
                        )));
                    }
                    points += found;
                    late += found - expected;
                }
            }
        }
        Ok((points, late))
    }
}

impl Target for InfluxTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let Some(facts) = facts.get(KEY) else {
            return refused(match facts.contains_key("influx2") {
                true => {
                    "the snapshot is of InfluxDB 2.x, whose shards 1.x does not take so\nhint: restore it into a server of 2.x: \
                     influxdb2://HOST:8086/BUCKET"
                }
                false => "the snapshot is not of an InfluxDB database",
            });
        };
        let bad = || SourceError::Refused("the facts of the snapshot cannot be read".into());
        self.from = facts["database"].as_str().ok_or_else(bad)?.to_owned();
        self.expected = serde_json::from_value(facts["points"].clone()).map_err(|_| bad())?;
        let until = facts["counted_until_ns"].as_str().and_then(|text| text.parse().ok());
        self.until_ns = until.ok_or_else(bad)?;
        if parts.len() != 1 {
            return refused(format!("{} parts were selected, and a backup is one", parts.len()));
        }
        self.files = facts["files"].as_u64().unwrap_or_default();
        let server = Server::connect(&self.address, &self.world)?;
        let there = server.databases()?;
        self.is_there = there.contains(&self.address.database);
        let (name, beside) = (&self.address.database, self.beside());
        if self.is_there && !self.force {
            return refused(format!(
                "database {name:?} exists at {}\nhint: --force restores under another name first, proves that, then drops \
                 {name:?} and restores it",
                self.address.url()
            ));
        }
        if self.is_there && there.contains(&beside) {
            return refused(format!(
                "database {beside:?} exists, of an earlier restore perhaps\nhint: look at it, then: DROP DATABASE {beside}"
            ));
        }
        self.server = Some(server);
        let spool = tempfile::Builder::new().prefix("lifeboat-influx-").tempdir_in(&self.world.spool);
        let local = |cause| InfluxError::Local { operation: "make a folder for the backup", cause };
        self.spool = Some(spool.map_err(local)?);
        Ok(vec![0])
    }

    fn put(&mut self, _: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let Some(spool) = &self.spool else {
            return Err(SourceError::Differs("it was not prepared".into()));
        };
        let local = |cause| InfluxError::Local { operation: "unpack the backup", cause };
        let mut archive = tar::Archive::new(&mut *content);
        let mut files = 0;
        for entry in archive.entries().map_err(local)? {
            let mut entry = entry.map_err(local)?;
            let path = entry.path().map_err(local)?.into_owned();
            let mut names = path.components();
            let (Some(Component::Normal(name)), None) = (names.next(), names.next()) else {
                return Err(SourceError::Differs(format!(
                    "{} is no name of a backup's file",
                    path.display()
                )));
            };
            let mut file = std::fs::File::create_new(spool.path().join(name)).map_err(local)?;
            std::io::copy(&mut entry, &mut file).map_err(local)?;
            files += 1;
        }
        // To its end, where a stream that is not whole says so.
        std::io::copy(content, &mut std::io::sink()).map_err(local)?;
        if files != self.files {
            return Err(SourceError::Differs(format!("{files} files came, and there were {}", self.files)));
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        let (name, beside) = (self.address.database.clone(), self.beside());
        let mut proven = Vec::new();
        if self.is_there {
            self.restore(&beside)?;
            self.server()?.drop_database(&name)?;
            proven.push(format!("what was in {name:?} was dropped, after a rehearsal as {beside:?}"));
            // From here on the rehearsal is the only copy on the server: it stays should the rest fail.
            self.made = None;
        }
        let restored = self.restore(&name);
        if self.is_there {
            self.made = None;
        }
        let (points, late) = match restored {
            Ok(counted) => counted,
            Err(error) if self.is_there => {
                let text = format!("{error}\nhint: the restored data is in database {beside:?}, proven");
                return Err(InfluxError::Said(text).into());
            }
            Err(error) => return Err(error),
        };
        if self.is_there {
            self.server()?.drop_database(&beside)?;
        }
        self.made = None;
        proven.push(match late {
            0 => format!(
                "{points} points are those that were counted, by retention policy, measurement and field"
            ),
            late => format!("{points} points came back, {late} of them written while the capture began"),
        });
        let facts = Map::from_iter([(KEY.to_owned(), json!({ "database": name, "points": points }))]);
        Ok(Returned { proven, facts, ..Returned::default() })
    }
}

impl Drop for InfluxTarget {
    fn drop(&mut self) {
        if let (Some(server), Some(made)) = (&self.server, &self.made) {
            // Whoever drops it may be on the runtime's own thread, which may not wait for its own work.
            std::thread::scope(|scope| scope.spawn(|| server.farewell(made)).join().ok());
        }
    }
}
