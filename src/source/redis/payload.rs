//! An RDB's items as the commands that put them into a live server: `RESTORE` and `FUNCTION RESTORE`.
//!
//! A payload is the type byte and the bytes of the RDB as they stand, then the RDB's version and a checksum; so a
//! value goes back without being understood. Large ones wait in a file until their length is known.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::rdb::{Item, Key, RdbError, Sink};
use super::wire::{Reply, Wire, append};
use super::{RedisError, crc64, spool};

/// What is sent before answers are read.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_COMMANDS: usize = 1000;
/// What of one value is held in memory.
const HELD_BYTES: usize = 16 << 20;
const FUNCTION: u8 = 0xf5;

/// Commands on their way, answers to come.
struct Pipe<'a> {
    wire: &'a mut Wire,
    commands: Vec<u8>,
    waiting: usize,
    database: Option<u64>,
    failed: Option<RedisError>,
    /// Sum of what the answers count.
    counted: u64,
    answer: fn(&Wire, Reply) -> Result<u64, RedisError>,
}

impl<'a> Pipe<'a> {
    fn new(wire: &'a mut Wire, answer: fn(&Wire, Reply) -> Result<u64, RedisError>) -> Self {
        Self { wire, commands: Vec::new(), waiting: 0, database: None, failed: None, counted: 0, answer }
    }

    fn select(&mut self, database: u64) {
        if self.database != Some(database) {
            self.database = Some(database);
            append(&mut self.commands, &[b"SELECT", database.to_string().as_bytes()]);
            self.waiting += 1;
        }
    }

    fn settle(&mut self) -> Result<(), RedisError> {
        let commands = std::mem::take(&mut self.commands);
        self.wire.send(&commands)?;
        for _ in 0..std::mem::take(&mut self.waiting) {
            let reply = self.wire.answer()?;
            self.counted += (self.answer)(self.wire, reply)?;
        }
        Ok(())
    }

    fn settle_if_full(&mut self) -> Result<(), RedisError> {
        if self.waiting >= BATCH_COMMANDS || self.commands.len() >= BATCH_BYTES {
            self.settle()
        } else {
            Ok(())
        }
    }

    /// Keeps the real reason; the reader only learns that there is one.
    fn told(&mut self, result: Result<(), RedisError>, what: &'static str) -> Result<(), RdbError> {
        result.map_err(|error| {
            let cause = error.to_string();
            self.failed = Some(error);
            RdbError::Sink { what, cause }
        })
    }
}

/// Puts items into a server that holds none of them.
pub struct Restorer<'a> {
    pipe: Pipe<'a>,
    version: u32,
    /// Keys that expired before this are not sent, milliseconds by the server's clock.
    now_ms: i64,
    folder: PathBuf,
    key: Option<Key>,
    skip: bool,
    memory: Vec<u8>,
    file: Option<File>,
    size_bytes: u64,
    crc: u64,
    pub restored: u64,
    pub expired: u64,
}

impl<'a> Restorer<'a> {
    /// `version`: the RDB's. `folder`: for values that are too large for memory.
    pub fn new(wire: &'a mut Wire, version: u32, now_ms: i64, folder: &Path) -> Self {
        let answer = |wire: &Wire, reply| match reply {
            Reply::Error(said) => Err(wire.said(&[b"RESTORE"], said)),
            _ => Ok(0),
        };
        Self {
            pipe: Pipe::new(wire, answer),
            version,
            now_ms,
            folder: folder.to_owned(),
            key: None,
            skip: false,
            memory: Vec::new(),
            file: None,
            size_bytes: 0,
            crc: 0,
            restored: 0,
            expired: 0,
        }
    }

    /// Sends what is left and reads the last answers.
    ///
    /// # Errors
    /// The server refuses, or is lost.
    pub fn finish(mut self, replayed: Result<(), RedisError>) -> Result<(u64, u64), RedisError> {
        if let Some(error) = self.pipe.failed.take() {
            return Err(error);
        }
        replayed?;
        self.pipe.settle()?;
        Ok((self.restored, self.expired))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), RedisError> {
        self.crc = crc64::update(self.crc, bytes);
        self.size_bytes += bytes.len() as u64;
        if self.file.is_none() && self.memory.len() + bytes.len() > HELD_BYTES {
            let made =
                tempfile::tempfile_in(&self.folder).map_err(spool::file("create a file in", &self.folder));
            self.file = Some(made?);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(spool::file("write in", &self.folder)),
            None => {
                self.memory.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn send(&mut self) -> Result<(), RedisError> {
        let version = u16::try_from(self.version).unwrap_or(u16::MAX).to_le_bytes();
        self.take(&version)?;
        let crc = self.crc.to_le_bytes();
        let length = self.size_bytes + crc.len() as u64;
        let commands = &mut self.pipe.commands;
        // The payload is the fourth word; what comes before and after it depends.
        let (before, after): (Vec<Vec<u8>>, Vec<&[u8]>) = match &self.key {
            Some(key) => {
                let (ttl, words): (i64, Vec<&[u8]>) = match key.expires_ms {
                    Some(expires_ms) => (expires_ms, vec![b"ABSTTL"]),
                    None => (0, Vec::new()),
                };
                (vec![b"RESTORE".to_vec(), key.name.clone(), ttl.to_string().into_bytes()], words)
            }
            None => (vec![b"FUNCTION".to_vec(), b"RESTORE".to_vec()], vec![b"APPEND"]),
        };
        commands.extend_from_slice(format!("*{}\r\n", before.len() + 1 + after.len()).as_bytes());
        for word in &before {
            push(commands, word);
        }
        commands.extend_from_slice(format!("${length}\r\n").as_bytes());
        commands.extend_from_slice(&std::mem::take(&mut self.memory));
        if let Some(mut file) = self.file.take() {
            self.pipe.wire.send(&std::mem::take(commands))?;
            file.rewind().map_err(spool::file("read in", &self.folder))?;
            let mut buffer = vec![0; BATCH_BYTES];
            loop {
                let length = file.read(&mut buffer).map_err(spool::file("read in", &self.folder))?;
                if length == 0 {
                    break;
                }
                self.pipe.wire.send(&buffer[..length])?;
            }
        }
        commands.extend_from_slice(&crc);
        commands.extend_from_slice(b"\r\n");
        for word in after {
            push(commands, word);
        }
        self.pipe.waiting += 1;
        self.pipe.settle_if_full()
    }
}

fn push(commands: &mut Vec<u8>, word: &[u8]) {
    commands.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    commands.extend_from_slice(word);
    commands.extend_from_slice(b"\r\n");
}

impl Sink for Restorer<'_> {
    const VALUES: bool = true;

    fn begin(&mut self, item: Item<'_>) -> Result<(), RdbError> {
        (self.crc, self.size_bytes, self.file) = (0, 0, None);
        self.memory.clear();
        let first = match item {
            Item::Key(key) => {
                self.skip = key.expires_ms.is_some_and(|expires_ms| expires_ms <= self.now_ms);
                self.key = Some(key.clone());
                self.pipe.select(key.database);
                key.kind
            }
            Item::Function => {
                (self.skip, self.key) = (false, None);
                FUNCTION
            }
        };
        let taken = if self.skip { Ok(()) } else { self.take(&[first]) };
        self.pipe.told(taken, "a value")
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), RdbError> {
        let taken = if self.skip { Ok(()) } else { self.take(bytes) };
        self.pipe.told(taken, "a value")
    }

    fn end(&mut self) -> Result<(), RdbError> {
        if self.skip {
            self.expired += 1;
            return Ok(());
        }
        self.restored += u64::from(self.key.is_some());
        let sent = self.send();
        self.pipe.told(sent, "a value")
    }
}

/// Asks the server which of the keys it has.
pub struct Present<'a> {
    pipe: Pipe<'a>,
}

impl<'a> Present<'a> {
    /// Counts those that are there.
    pub fn count(wire: &'a mut Wire) -> Self {
        let answer = |wire: &Wire, reply| match reply {
            Reply::Integer(there) => Ok(u64::try_from(there).unwrap_or(0)),
            Reply::Error(said) => Err(wire.said(&[b"EXISTS"], said)),
            _ => Ok(0),
        };
        Self { pipe: Pipe::new(wire, answer) }
    }

    /// Fails at the first that is there.
    pub fn refuse(wire: &'a mut Wire) -> Self {
        let answer = |wire: &Wire, reply| match reply {
            Reply::Integer(1..) => Err(RedisError::Unable(
                "a key of the snapshot is in the target already, and nothing was changed\n\
                 hint: --force --flush-first empties the target first"
                    .into(),
            )),
            Reply::Error(said) => Err(wire.said(&[b"EXISTS"], said)),
            _ => Ok(0),
        };
        Self { pipe: Pipe::new(wire, answer) }
    }

    /// How many are there.
    ///
    /// # Errors
    /// One is that must not be, or the server is lost.
    pub fn finish(mut self, replayed: Result<(), RedisError>) -> Result<u64, RedisError> {
        if let Some(error) = self.pipe.failed.take() {
            return Err(error);
        }
        replayed?;
        self.pipe.settle()?;
        Ok(self.pipe.counted)
    }
}

impl Sink for Present<'_> {
    const VALUES: bool = true;

    fn begin(&mut self, item: Item<'_>) -> Result<(), RdbError> {
        let Item::Key(key) = item else { return Ok(()) };
        self.pipe.select(key.database);
        append(&mut self.pipe.commands, &[b"EXISTS", &key.name]);
        self.pipe.waiting += 1;
        let settled = self.pipe.settle_if_full();
        self.pipe.told(settled, "a key")
    }

    fn bytes(&mut self, _: &[u8]) -> Result<(), RdbError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), RdbError> {
        Ok(())
    }
}
