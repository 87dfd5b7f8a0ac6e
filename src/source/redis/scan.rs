//! A server that lets nobody be its replica: every key asked for by itself, written down as an RDB of ours.
//!
//! What comes is not of one instant: a key that changes meanwhile is as it was when its turn came. So the instant it
//! is true for is the beginning, and the facts say so. No key comes twice, because no server loads an RDB that has
//! one twice; a `SCAN` may name it twice, so a hash of every name is held (about 30 bytes a key).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::RedisError;
use super::crc64;
use super::ephemeral::rdb_version;
use super::flow::Flow;
use super::info::{Info, RunClock};
use super::reach::Reach;
use super::wire::{Login, Reply, Wire, append};
use crate::base::cancel::Cancel;

/// Keys a `SCAN` is asked to name at once, and keys asked for before the first answer is read.
const NAMES: &str = "512";
const AHEAD: usize = 32;
/// The version and the checksum a payload ends with.
const FOOTER_BYTES: usize = 10;
/// From this version on an RDB is Valkey's own.
const VALKEY_VERSION: u32 = 80;

/// Where a scan stands.
enum Stage {
    Head,
    Functions,
    Database { number: u64, cursor: Option<String> },
    Ended,
}

/// A server read key by key.
pub struct Scan {
    wire: Wire,
    clock: RunClock,
    skew_ms: i64,
    version: u32,
    about: Vec<(&'static str, String)>,
    has_expiretime: bool,
    has_functions: bool,
    stage: Stage,
    databases: VecDeque<u64>,
    names: VecDeque<Vec<u8>>,
    asked: VecDeque<Vec<u8>>,
    seen: HashSet<u128>,
    out: Vec<u8>,
    at: usize,
    crc: u64,
    gone: u64,
    warnings: Vec<String>,
}

impl Scan {
    /// Connects and looks which databases there are.
    ///
    /// # Errors
    /// The server refuses, or is lost.
    pub fn start(
        reach: &Arc<dyn Reach>,
        login: &Login,
        clock: RunClock,
        skew_ms: i64,
        cancel: &Cancel,
    ) -> Result<Self, RedisError> {
        let mut wire = Wire::open(reach, login, cancel)?;
        wire.now_doing("read key by key");
        let info = Info::of(&mut wire)?;
        let version = match rdb_version(&mut wire, &info)? {
            Some(version) => version,
            None => version_of_a_key(&mut wire)?.unwrap_or(9),
        };
        let (server, release) = info.server();
        let about = if server == "valkey" { "valkey-ver" } else { "redis-ver" };
        let created = (clock.now_ms() + skew_ms).div_euclid(1000);
        Ok(Self {
            wire,
            clock,
            skew_ms,
            version,
            about: vec![(about, release.to_owned()), ("ctime", created.to_string())],
            has_expiretime: info.major() >= 7,
            has_functions: info.major() >= 7,
            stage: Stage::Head,
            databases: info.keys().into_keys().collect(),
            names: VecDeque::new(),
            asked: VecDeque::new(),
            seen: HashSet::new(),
            out: Vec::new(),
            at: 0,
            crc: 0,
            gone: 0,
            warnings: Vec::new(),
        })
    }

    /// Makes some more of the file; `false` when there is none.
    fn more(&mut self) -> Result<bool, RedisError> {
        self.out.clear();
        self.at = 0;
        if !self.asked.is_empty() {
            self.take_key()?;
        } else if !self.names.is_empty() {
            self.ask_keys()?;
        } else {
            match std::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Head => self.head(),
                Stage::Functions => self.functions()?,
                Stage::Database { number, cursor } => self.scan(number, cursor)?,
                Stage::Ended => return Ok(false),
            }
        }
        self.crc = crc64::update(self.crc, &self.out);
        if matches!(self.stage, Stage::Ended) && self.names.is_empty() && self.asked.is_empty() {
            self.out.push(0xff);
            self.crc = crc64::update(self.crc, &[0xff]);
            self.out.extend(self.crc.to_le_bytes());
        }
        Ok(true)
    }

    fn head(&mut self) {
        let magic = if self.version >= VALKEY_VERSION { "VALKEY" } else { "REDIS" };
        let width = 9 - magic.len();
        self.out.extend_from_slice(format!("{magic}{:0width$}", self.version).as_bytes());
        for (name, value) in &self.about {
            self.out.push(0xfa);
            text(&mut self.out, name.as_bytes());
            text(&mut self.out, value.as_bytes());
        }
        self.stage = Stage::Functions;
    }

    fn functions(&mut self) -> Result<(), RedisError> {
        if self.has_functions {
            match self.wire.ask(&["FUNCTION", "DUMP"]) {
                Ok(Reply::Bulk(Some(payload))) => self.out.extend_from_slice(self.value(&payload)?),
                Err(RedisError::Said { said, .. }) => {
                    self.warnings.push(format!("functions are not in the snapshot: {said}"));
                }
                other => drop(other?),
            }
        }
        self.next_database();
        Ok(())
    }

    fn next_database(&mut self) {
        self.seen.clear();
        self.stage = match self.databases.pop_front() {
            Some(number) => Stage::Database { number, cursor: None },
            None => Stage::Ended,
        };
    }

    fn scan(&mut self, number: u64, cursor: Option<String>) -> Result<(), RedisError> {
        if cursor.is_none() {
            self.wire.ask(&["SELECT", &number.to_string()])?;
            self.out.push(0xfe);
            length(&mut self.out, number);
        }
        let reply = self.wire.ask(&["SCAN", cursor.as_deref().unwrap_or("0"), "COUNT", NAMES])?;
        let (Some(next), Some(Reply::Array(names))) = (reply.items().first(), reply.items().get(1)) else {
            return Err(self.nonsense("SCAN"));
        };
        for name in names {
            let Reply::Bulk(Some(name)) = name else { return Err(self.nonsense("SCAN")) };
            let hash = blake3::hash(name);
            let hash = hash.as_bytes().first_chunk().map_or(0, |half| u128::from_le_bytes(*half));
            if self.seen.insert(hash) {
                self.names.push_back(name.clone());
            }
        }
        match next.text() {
            end if end == "0" => self.next_database(),
            cursor => self.stage = Stage::Database { number, cursor: Some(cursor) },
        }
        Ok(())
    }

    fn ask_keys(&mut self) -> Result<(), RedisError> {
        let mut commands = Vec::new();
        let expiry: &[u8] = if self.has_expiretime { b"PEXPIRETIME" } else { b"PTTL" };
        for name in self.names.drain(..self.names.len().min(AHEAD)) {
            append(&mut commands, &[b"DUMP", &name]);
            append(&mut commands, &[expiry, &name]);
            self.asked.push_back(name);
        }
        self.wire.send(&commands)
    }

    fn take_key(&mut self) -> Result<(), RedisError> {
        let Some(name) = self.asked.pop_front() else { return Ok(()) };
        let (payload, expiry) = (self.wire.answer()?, self.wire.answer()?);
        for reply in [&payload, &expiry] {
            if let Reply::Error(said) = reply {
                return Err(self.wire.said(&[b"DUMP"], said.clone()));
            }
        }
        // It expired or was deleted since it was named.
        let Reply::Bulk(Some(payload)) = payload else {
            self.gone += 1;
            return Ok(());
        };
        let Some(expiry) = expiry.integer() else { return Err(self.nonsense("PTTL")) };
        if expiry >= 0 {
            let since = if self.has_expiretime { 0 } else { self.clock.now_ms() + self.skew_ms };
            self.out.push(0xfc);
            self.out.extend((since + expiry).to_le_bytes());
        }
        let value = self.value(&payload)?;
        let (kind, rest) = value.split_first().ok_or_else(|| self.nonsense("DUMP"))?;
        self.out.push(*kind);
        text(&mut self.out, &name);
        self.out.extend_from_slice(rest);
        Ok(())
    }

    /// A payload without its footer, which must be right.
    fn value<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], RedisError> {
        let footer = payload.len().checked_sub(FOOTER_BYTES).ok_or_else(|| self.nonsense("DUMP"))?;
        let (value, footer) = payload.split_at(footer);
        let (version, written) = footer.split_at(2);
        let computed = crc64::update(crc64::update(0, value), version);
        let version = version.try_into().map_or(0, u16::from_le_bytes);
        if written != computed.to_le_bytes() || u32::from(version) != self.version {
            return Err(self.nonsense("DUMP"));
        }
        Ok(value)
    }

    fn nonsense(&self, command: &str) -> RedisError {
        let what = format!("its answer to {command} is none");
        RedisError::Protocol { server: self.wire.server().to_owned(), what }
    }
}

/// The version of the payload of some key, where functions cannot tell.
fn version_of_a_key(wire: &mut Wire) -> Result<Option<u32>, RedisError> {
    let Reply::Bulk(Some(name)) = wire.ask(&["RANDOMKEY"])? else { return Ok(None) };
    let Reply::Bulk(Some(payload)) = wire.ask_bytes(&[b"DUMP", &name])? else { return Ok(None) };
    let version = payload.len().checked_sub(FOOTER_BYTES).and_then(|at| payload.get(at..at + 2));
    Ok(version.and_then(|version| version.try_into().ok()).map(|version| u16::from_le_bytes(version).into()))
}

fn length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..64 => out.push(length.to_le_bytes()[0]),
        64..16_384 => out.extend_from_slice(&(0x4000 | length).to_be_bytes()[6..]),
        _ => {
            out.push(0x81);
            out.extend(length.to_be_bytes());
        }
    }
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    length(out, text.len() as u64);
    out.extend_from_slice(text);
}

impl Flow for Scan {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RedisError> {
        while self.at == self.out.len() {
            if !self.more()? {
                return Ok(0);
            }
        }
        let rest = &self.out[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }

    fn warnings(&mut self) -> Vec<String> {
        let server = self.wire.server();
        let mut warnings = std::mem::take(&mut self.warnings);
        let gone = self.gone;
        warnings.push(format!(
            "{server} was read key by key: what changed meanwhile is not of one instant ({gone} keys went meanwhile)"
        ));
        warnings
    }
}
