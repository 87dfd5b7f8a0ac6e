//! A server's capture: its RDB, then its users; of a cluster the RDB of every master.
//!
//! Bytes reach the caller only after the RDB reader took them, and the capture ends well only when every RDB came
//! to its own end with the right checksum.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::RedisError;
use super::address::{Address, Mode};
use super::bgsave::Saved;
use super::cluster::{self, Master};
use super::flow::{Flow, Stream};
use super::info::{self, Info, RunClock, timestamp};
use super::rdb::{Nothing, Reader};
use super::reach::Reach;
use super::scan::Scan;
use super::wire::{Login, Wire};
use super::{facts, rights};
use crate::base::cancel::Cancel;
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, PART_MODE, Part, SourceError};

/// The RDB's name in the snapshot.
pub const RDB_PART: &str = "dump.rdb";
/// The users' name in the snapshot: an ACL file.
pub const USERS_PART: &str = "users.acl";
/// Read before a part is announced, to learn the instant it is true for.
const FIRST_BYTES: usize = 64 << 10;
/// A server's clock this far from ours is worth a word.
const SKEW_WORTH_A_WORD_MS: i64 = 5_000;

/// A server still to be captured.
struct Node {
    reach: Arc<dyn Reach>,
    path: String,
}

/// An RDB under way, what is to be said of it, and how it is got.
type Way = (Box<dyn Flow>, Map<String, Value>, Mode);

/// A part being read.
enum Current {
    Rdb(Box<CurrentRdb>),
    Users { text: Vec<u8>, at: usize },
}

struct CurrentRdb {
    flow: Box<dyn Flow>,
    reader: Reader,
    node: Node,
    /// What was read ahead.
    first: Vec<u8>,
    at: usize,
    ended: bool,
    facts: Map<String, Value>,
    consistent_ms: i64,
}

/// A capture of a server or cluster under way.
pub struct RedisCapture {
    mode: Mode,
    login: Login,
    clock: RunClock,
    cancel: Cancel,
    nodes: VecDeque<Node>,
    users: Option<Vec<String>>,
    current: Option<Current>,
    parts: Vec<Value>,
    consistent_ms: Option<i64>,
    facts: Map<String, Value>,
    warnings: Vec<String>,
    broken: Option<RedisError>,
}

impl RedisCapture {
    /// Connects and looks. `now`: the instant before.
    ///
    /// # Errors
    /// The server cannot be reached, does not know us, or is of a kind that cannot be captured.
    pub fn start(
        address: &Address,
        reach: Arc<dyn Reach>,
        now: Timestamp,
        cancel: &Cancel,
    ) -> Result<Self, SourceError> {
        let login = Login::of(address);
        let clock = RunClock::new(now);
        let mut wire = Wire::open(&reach, &login, cancel)?;
        let info = info::loaded(&mut wire, login.timeout).map_err(|error| rights::explain(error, address))?;
        if info.text("redis_mode") == "sentinel" {
            let why = format!(
                "{} is a Sentinel, which holds no data\nhint: back up the server it watches",
                reach.name()
            );
            return Err(SourceError::Refused(why));
        }
        let mut warnings = Vec::new();
        let skew_ms = info::skew_ms(&mut wire, &clock).map_err(|error| rights::explain(error, address))?;
        if skew_ms.abs() > SKEW_WORTH_A_WORD_MS {
            let seconds = skew_ms / 1000;
            warnings.push(format!(
                "the clock of {} is {seconds} s ahead of ours; instants are told by ours",
                reach.name()
            ));
        }
        let is_here = info::is_here(&address.host, &info);
        warnings.extend(info.memory_warning(&reach.name(), is_here));
        let mut facts = facts::of_server(&info, skew_ms);
        facts.insert("config".into(), info::config(&mut wire, &mut warnings)?.into());
        let users = info::users(&mut wire, &info, &mut warnings)?;
        if let Some(users) = &users {
            let names: Vec<&str> = users.iter().filter_map(|line| line.split(' ').nth(1)).collect();
            facts.insert("users".into(), names.into());
        }
        let nodes = if info.is_on("cluster_enabled") {
            let masters =
                cluster::masters(&mut wire, &reach).map_err(|error| rights::explain(error, address))?;
            let number = masters.len();
            warnings.push(format!(
                "{number} masters are captured one after the other, each of an instant of its own"
            ));
            let node =
                |master: Master| Node { path: format!("nodes/{}.rdb", master.id), reach: master.reach };
            masters.into_iter().map(node).collect()
        } else {
            VecDeque::from([Node { reach, path: RDB_PART.into() }])
        };
        Ok(Self {
            mode: address.mode,
            login,
            clock,
            cancel: cancel.clone(),
            nodes,
            users,
            current: None,
            parts: Vec::new(),
            consistent_ms: None,
            facts,
            warnings,
            broken: None,
        })
    }

    fn begin(&mut self, node: Node) -> Result<CurrentRdb, RedisError> {
        let mut wire = Wire::open(&node.reach, &self.login, &self.cancel)?;
        let info = info::loaded(&mut wire, self.login.timeout)?;
        let skew_ms = info::skew_ms(&mut wire, &self.clock)?;
        let asked_ms = self.clock.now_ms();
        let is_idle = Info::of(&mut wire)?.number("rdb_bgsave_in_progress") == Some(0);
        let (flow, mut facts, way) = self.flow(&node, skew_ms)?;
        facts.insert("way".into(), way.name().into());
        facts.insert("point_in_time".into(), (way != Mode::Scan).into());
        let mut current = CurrentRdb {
            flow,
            reader: Reader::new(asked_ms + skew_ms),
            node,
            first: vec![0; FIRST_BYTES],
            at: 0,
            ended: false,
            facts,
            consistent_ms: asked_ms,
        };
        current.read_ahead()?;
        let created = current.reader.tally().created_seconds();
        if way == Mode::Bgsave
            && created.is_none_or(|created| created < (asked_ms + skew_ms).div_euclid(1000) - 1)
        {
            return Err(RedisError::Unable(format!(
                "the RDB file found here is not the one that {} just wrote\n\
                 hint: the server may run in a container or elsewhere; leave out mode=bgsave",
                current.node.reach.name()
            )));
        }
        // The fork came before the second the file names was over, and after we asked unless one was under way.
        if let Some(created) = created.filter(|_| way == Mode::Stream) {
            let earliest = (created - 1).saturating_mul(1000).saturating_sub(skew_ms);
            current.consistent_ms = if is_idle { earliest.max(asked_ms) } else { earliest };
        }
        let lag_ms = i64::try_from(info.lag().as_millis()).unwrap_or(i64::MAX);
        current.consistent_ms = current.consistent_ms.saturating_sub(lag_ms);
        Ok(current)
    }

    /// The node's RDB, in the way that was asked for or is possible.
    fn flow(&mut self, node: &Node, skew_ms: i64) -> Result<Way, RedisError> {
        let mut facts = Map::new();
        let (reach, login, cancel) = (&node.reach, &self.login, &self.cancel);
        if self.mode == Mode::Bgsave {
            if let Some(saved) = Saved::start(reach, login, cancel)? {
                return Ok((Box::new(saved), facts, Mode::Bgsave));
            }
            self.warnings
                .push(format!("the file {} saved is not here: it was streamed instead", reach.name()));
        }
        if self.mode != Mode::Scan {
            match Stream::start(reach, login, cancel) {
                Ok(stream) => {
                    if let Some((id, offset)) = &stream.position {
                        facts.insert("replication".into(), serde_json::json!({ "id": id, "offset": offset }));
                    }
                    return Ok((Box::new(stream), facts, Mode::Stream));
                }
                Err(error) if self.mode == Mode::Auto && is_not_for_us(&error) => {
                    let line = rights::line(login.user.as_deref(), Mode::Stream);
                    self.warnings.push(format!("{error}; a capture of one instant needs: {line}"));
                }
                Err(error) => return Err(error),
            }
        }
        let scan = Scan::start(reach, login, self.clock, skew_ms, cancel)?;
        Ok((Box::new(scan), facts, Mode::Scan))
    }

    fn end(&mut self, current: CurrentRdb) -> Result<(), RedisError> {
        let CurrentRdb { mut flow, reader, node, ended, mut facts, consistent_ms, .. } = current;
        let server = node.reach.name();
        if !ended {
            return Err(RedisError::Unable(format!("the RDB of {server} was not read to its end")));
        }
        self.warnings.extend(flow.warnings());
        let tally = reader.finish().map_err(|cause| RedisError::Rdb { server: server.clone(), cause })?;
        if !tally.checksummed {
            self.warnings
                .push(format!("{server} writes no checksum (rdbchecksum no): only its structure is proven"));
        }
        if let Some((at, byte)) = tally.unknown {
            let what = format!("an unknown type ({byte}) at byte {at}");
            self.warnings
                .push(format!("the RDB of {server} holds {what}: its keys cannot be counted to the end"));
        }
        let mut part = facts::of_part(&format!("/{}", node.path), &tally);
        part.append(&mut facts);
        self.parts.push(part.into());
        self.consistent_ms =
            Some(self.consistent_ms.map_or(consistent_ms, |before| before.min(consistent_ms)));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Part>, RedisError> {
        if let Some(Current::Rdb(current)) = self.current.take() {
            self.end(*current)?;
        }
        if let Some(node) = self.nodes.pop_front() {
            let current = self.begin(node)?;
            let part = part(&current.node.path, current.consistent_ms);
            self.current = Some(Current::Rdb(Box::new(current)));
            return Ok(Some(part));
        }
        let Some(users) = self.users.take() else { return Ok(None) };
        let text = users.iter().flat_map(|line| [line.as_bytes(), b"\n"]).collect::<Vec<_>>().concat();
        self.current = Some(Current::Users { text, at: 0 });
        Ok(Some(part(USERS_PART, self.clock.now_ms())))
    }
}

/// Whether the server keeps replication to itself.
fn is_not_for_us(error: &RedisError) -> bool {
    ["NOPERM", "ERR unknown command", "ERR Unknown command"].iter().any(|word| error.is_said(word))
}

fn part(path: &str, at_ms: i64) -> Part {
    Part { path: path.to_owned(), mode: PART_MODE, mtime: timestamp(at_ms) }
}

impl CurrentRdb {
    fn read_ahead(&mut self) -> Result<(), RedisError> {
        let mut first = std::mem::take(&mut self.first);
        let length = self.pull(&mut first)?;
        first.truncate(length);
        self.first = first;
        Ok(())
    }

    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize, RedisError> {
        let length = self.flow.read(buffer)?;
        self.ended |= length == 0 && !buffer.is_empty();
        let fed = self.reader.feed(&buffer[..length], &mut Nothing);
        fed.map_err(|cause| RedisError::Rdb { server: self.node.reach.name(), cause })?;
        Ok(length)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RedisError> {
        let ahead = self.first.get(self.at..).unwrap_or_default();
        if ahead.is_empty() {
            return if self.ended { Ok(0) } else { self.pull(buffer) };
        }
        let length = ahead.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ahead[..length]);
        self.at += length;
        Ok(length)
    }
}

impl Capture for RedisCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        self.next().map_err(|error| rights::explain_mode(error, self.mode, &self.login).into())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.current {
            None => Ok(0),
            Some(Current::Users { text, at }) => {
                let rest = text.get(*at..).unwrap_or_default();
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                *at += length;
                Ok(length)
            }
            Some(Current::Rdb(current)) => current.read(buffer).map_err(|error| {
                let told = io::Error::other(error.to_string());
                self.broken.get_or_insert(error);
                told
            }),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Captured, SourceError> {
        if let Some(error) = self.broken.take() {
            return Err(error.into());
        }
        self.cancel.check()?;
        let (true, None | Some(Current::Users { .. }), Some(consistent_ms)) =
            (self.nodes.is_empty(), &self.current, self.consistent_ms)
        else {
            return Err(RedisError::Unable("the capture was not read to its end".into()).into());
        };
        let sum = |field: &str| self.parts.iter().filter_map(|part| part[field].as_u64()).sum::<u64>();
        self.facts.insert("keys".into(), sum("keys").into());
        self.facts.insert("parts".into(), self.parts.into());
        let mut facts = Map::new();
        facts.insert("redis".into(), self.facts.into());
        Ok(Captured {
            consistent: timestamp(consistent_ms),
            facts,
            warnings: self.warnings,
            ..Captured::default()
        })
    }
}
