//! What a server says of itself: `INFO`, its clock, its configuration as far as it matters, its users.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::RedisError;
use super::ephemeral::Held;
use super::wire::{Reply, Wire};
use crate::format::entry::Timestamp;

/// Configuration that decides whether a restored server behaves as the old one did. Nothing secret is in it.
const CONFIG: [&str; 14] = [
    "appendfsync",
    "appendonly",
    "cluster-enabled",
    "databases",
    "dbfilename",
    "dir",
    "hash-max-listpack-entries",
    "maxmemory",
    "maxmemory-policy",
    "notify-keyspace-events",
    "proto-max-bulk-len",
    "rdbchecksum",
    "save",
    "timeout",
];
const LOADING_PAUSE: Duration = Duration::from_millis(200);

/// The fields of `INFO`.
#[derive(Clone, Debug, Default)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    /// # Errors
    /// The server refuses, or is lost.
    pub fn of(wire: &mut Wire) -> Result<Self, RedisError> {
        let text = wire.ask(&["INFO"])?.text();
        let lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(Self(lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    pub fn number(&self, field: &str) -> Option<i64> {
        self.text(field).parse().ok()
    }

    pub fn is_on(&self, field: &str) -> bool {
        self.text(field) == "1"
    }

    /// `valkey` or `redis`, and the version.
    pub fn server(&self) -> (&'static str, &str) {
        match self.text("valkey_version") {
            "" => ("redis", self.text("redis_version")),
            version => ("valkey", version),
        }
    }

    pub fn major(&self) -> u32 {
        self.text("redis_version").split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    pub fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }

    /// Keys per database, as the server counts them: expired ones it has not met yet included.
    pub fn keys(&self) -> BTreeMap<u64, u64> {
        let database = |(key, value): (&String, &String)| {
            let number = key.strip_prefix("db")?.parse().ok()?;
            let keys = value.strip_prefix("keys=")?.split(',').next()?.parse().ok()?;
            Some((number, keys))
        };
        self.0.iter().filter_map(database).collect()
    }

    /// Keys per database, and how many of them will expire.
    pub fn held(&self) -> BTreeMap<u64, Held> {
        let number = |value: &str, key: &str| {
            let found = value.split(',').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            found.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let held = |number_of: u64| {
            let value = self.text(&format!("db{number_of}"));
            (number_of, Held { keys: number(value, "keys"), expiring: number(value, "expires") })
        };
        self.keys().into_keys().map(held).collect()
    }

    /// How far a replica may be behind its master.
    pub fn lag(&self) -> Duration {
        if !self.is_replica() {
            return Duration::ZERO;
        }
        let field = match self.text("master_link_status") {
            "up" => "master_last_io_seconds_ago",
            _ => "master_link_down_since_seconds",
        };
        Duration::from_secs(self.number(field).and_then(|seconds| seconds.try_into().ok()).unwrap_or(0))
    }

    /// A fork may need as much memory again as the data takes: the warning, if there is less.
    pub fn memory_warning(&self, server: &str, is_here: bool) -> Option<String> {
        let used = self.number("used_memory")?;
        let total = self.number("total_system_memory")?;
        let free = match is_here.then(available_bytes).flatten() {
            Some(available) => available,
            None => total - self.number("used_memory_rss").unwrap_or(used),
        };
        (free < used).then(|| {
            format!(
                "{server} uses {} MiB and {} MiB are free: a fork under heavy writing may need as much again",
                used >> 20,
                free.max(0) >> 20
            )
        })
    }
}

fn available_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kib| kib << 10)
}

/// Whether `host` is this machine, and the server one of its processes that we can see.
pub fn is_here(host: &str, info: &Info) -> bool {
    let is_loopback = |address: IpAddr| address.is_loopback();
    let loopback = (host, 0).to_socket_addrs().is_ok_and(|mut all| all.all(|one| is_loopback(one.ip())));
    let Some(pid) = info.number("process_id").filter(|_| loopback) else { return false };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.contains("redis") || name.contains("valkey")
}

/// Waits for a server that still loads its data, as long as it gets on with it.
///
/// # Errors
/// It does not, is lost, or the run was cancelled.
pub fn loaded(wire: &mut Wire, timeout: Duration) -> Result<Info, RedisError> {
    let (mut seen, mut since) = (String::new(), Instant::now());
    loop {
        let info = Info::of(wire)?;
        if !info.is_on("loading") {
            return Ok(info);
        }
        let now = info.text("loading_loaded_bytes").to_owned();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() >= timeout {
            let (server, seconds) = (wire.server().to_owned(), timeout.as_secs());
            return Err(RedisError::Stalled { server, doing: "loading its data", seconds });
        }
        wire.pause(LOADING_PAUSE)?;
    }
}

/// Time of day that began with the run and goes on with the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    start_ms: i64,
    begun: Instant,
}

impl RunClock {
    pub fn new(now: Timestamp) -> Self {
        let start_ms =
            now.seconds.saturating_mul(1000).saturating_add(i64::from(now.nanoseconds / 1_000_000));
        Self { start_ms, begun: Instant::now() }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.start_ms.saturating_add(i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// Milliseconds as the format writes an instant.
pub fn timestamp(ms: i64) -> Timestamp {
    let nanoseconds = u32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Timestamp { seconds: ms.div_euclid(1000), nanoseconds }
}

/// How many milliseconds the server's clock is before ours.
///
/// # Errors
/// The server refuses, or is lost.
pub fn skew_ms(wire: &mut Wire, clock: &RunClock) -> Result<i64, RedisError> {
    let before = clock.now_ms();
    let reply = wire.ask(&["TIME"])?;
    let after = clock.now_ms();
    let part = |place: usize| reply.items().get(place).and_then(Reply::integer);
    let (Some(seconds), Some(micros)) = (part(0), part(1)) else {
        return Err(RedisError::Protocol {
            server: wire.server().to_owned(),
            what: "TIME is no time".into(),
        });
    };
    Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000) - before.midpoint(after))
}

/// The configuration that matters; what may not be read is left out, with a warning.
///
/// # Errors
/// The server is lost.
pub fn config(
    wire: &mut Wire,
    warnings: &mut Vec<String>,
) -> Result<serde_json::Map<String, serde_json::Value>, RedisError> {
    let mut found = serde_json::Map::new();
    for name in CONFIG {
        match wire.ask(&["CONFIG", "GET", name]) {
            Ok(reply) => {
                if let Some(value) = reply.items().get(1) {
                    found.insert(name.to_owned(), value.text().into());
                }
            }
            Err(RedisError::Said { server, said, .. }) => {
                warnings.push(format!("the configuration of {server} is not in the snapshot: {said}"));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The server's users as lines of an ACL file, passwords as their hashes; `None` before Redis 6.
///
/// # Errors
/// The server is lost.
pub fn users(
    wire: &mut Wire,
    info: &Info,
    warnings: &mut Vec<String>,
) -> Result<Option<Vec<String>>, RedisError> {
    if info.major() < 6 {
        return Ok(None);
    }
    match wire.ask(&["ACL", "LIST"]) {
        Ok(reply) => Ok(Some(reply.items().iter().map(Reply::text).collect())),
        Err(RedisError::Said { server, said, .. }) => {
            warnings.push(format!("the users of {server} are not in the snapshot: {said}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Info {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Info(lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn a_replicas_lag_and_keys_are_read_from_info() {
        let said = "role:slave\nmaster_link_status:up\nmaster_last_io_seconds_ago:3\ndb0:keys=5,expires=1\ndb11:keys=1,x";
        let said = info(said);
        assert_eq!(said.lag(), Duration::from_secs(3));
        assert_eq!(said.keys(), BTreeMap::from([(0, 5), (11, 1)]));
        let down = info("role:slave\nmaster_link_status:down\nmaster_link_down_since_seconds:40");
        assert_eq!(down.lag(), Duration::from_secs(40));
        assert_eq!(info("role:master\nmaster_last_io_seconds_ago:3").lag(), Duration::ZERO);
    }

    #[test]
    fn memory_too_short_for_a_fork_is_warned_of() {
        let tight =
            info("used_memory:6000000000\nused_memory_rss:6100000000\ntotal_system_memory:8000000000");
        assert!(tight.memory_warning("it", false).unwrap().contains("fork"));
        let ample = info("used_memory:1000000\nused_memory_rss:2000000\ntotal_system_memory:8000000000");
        assert_eq!(ample.memory_warning("it", false), None);
    }

    #[test]
    fn an_instant_keeps_its_milliseconds() {
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanoseconds: 999_000_000 });
        assert_eq!(timestamp(1_500), Timestamp { seconds: 1, nanoseconds: 500_000_000 });
    }
}
