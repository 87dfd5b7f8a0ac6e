//! The bytes of one server's RDB, wherever they come from, and the replication stream as the first such place.

use std::sync::Arc;

use super::RedisError;
use super::reach::Reach;
use super::wire::{Login, Reply, Wire, append};
use crate::base::cancel::Cancel;

/// The mark a diskless transfer ends with is this long.
const MARK_BYTES: usize = 40;
const HELD_BYTES: usize = 256 << 10;

/// An RDB being produced.
pub trait Flow: Send {
    /// Reads some of it; 0 at the end that its producer announced.
    ///
    /// # Errors
    /// Whatever keeps it from being whole.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RedisError>;

    /// The producer's own warnings, after the end.
    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// How a server says where an RDB ends.
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// It ends with these bytes, and nothing comes after them.
    Mark([u8; MARK_BYTES]),
}

/// An RDB as a replica gets it.
pub struct Stream {
    wire: Wire,
    framing: Framing,
    /// Of a marked transfer: what came and may be part of the mark.
    held: Vec<u8>,
    from: usize,
    ended: bool,
    /// Where in the replication stream the RDB stands, if the server says so.
    pub position: Option<(String, i64)>,
}

impl Stream {
    /// Asks for a full synchronisation and waits for its first byte, which may take as long as a `BGSAVE`.
    ///
    /// # Errors
    /// The server refuses: no right, no link to its own master; or it is lost.
    pub fn start(reach: &Arc<dyn Reach>, login: &Login, cancel: &Cancel) -> Result<Self, RedisError> {
        let mut wire = Wire::open(reach, login, cancel)?;
        // Old servers know neither; they send commands after the RDB, which nobody reads.
        for words in [["capa", "eof"].as_slice(), &["capa", "psync2"], &["rdb-only", "1"]] {
            let words: Vec<&str> = std::iter::once("REPLCONF").chain(words.iter().copied()).collect();
            match wire.ask(&words) {
                Err(error) if error.is_said("ERR") => {}
                other => drop(other?),
            }
        }
        wire.now_doing("preparing its RDB");
        let mut position = None;
        match synchronise(&mut wire, &["PSYNC", "?", "-1"]) {
            Ok(line) => {
                let mut words = line.split(' ').skip(1);
                let id = words.next().map(str::to_owned);
                position = id.zip(words.next().and_then(|offset| offset.parse().ok()));
            }
            Err(error) if error.is_said("ERR unknown command") => {
                let mut command = Vec::new();
                append(&mut command, &[b"SYNC"]);
                wire.send(&command)?;
            }
            Err(error) => return Err(error),
        }
        let framing = framing(&mut wire)?;
        wire.now_doing("sending its RDB");
        Ok(Self { wire, framing, held: Vec::new(), from: 0, ended: false, position })
    }

    fn read_marked(&mut self, buffer: &mut [u8], mark: [u8; MARK_BYTES]) -> Result<usize, RedisError> {
        loop {
            let end = if self.ended { self.held.len() } else { self.held.len().saturating_sub(MARK_BYTES) };
            if self.from < end || self.ended {
                let length = buffer.len().min(end - self.from);
                buffer[..length].copy_from_slice(&self.held[self.from..self.from + length]);
                self.from += length;
                return Ok(length);
            }
            self.held.drain(..self.from);
            self.from = 0;
            let filled = self.held.len();
            self.held.resize(HELD_BYTES, 0);
            let read = self.wire.raw(&mut self.held[filled..]);
            self.held.truncate(filled + read.as_ref().map_or(0, |read| *read));
            read?;
            if self.held.ends_with(&mark) {
                self.held.truncate(self.held.len() - MARK_BYTES);
                self.ended = true;
            }
        }
    }
}

/// The answer to `PSYNC`; the empty lines before it only say that the server lives.
fn synchronise(wire: &mut Wire, words: &[&str]) -> Result<String, RedisError> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut command = Vec::new();
    append(&mut command, &words);
    wire.send(&command)?;
    let line = loop {
        let line = wire.line()?;
        if !line.is_empty() {
            break line;
        }
    };
    match line.split_at_checked(1) {
        Some(("+", _)) if line.starts_with("+FULLRESYNC") => Ok(line),
        Some(("-", said)) => Err(wire.said(&words, said.to_owned())),
        _ => Err(wire.said(&words, Reply::Simple(line).text())),
    }
}

fn framing(wire: &mut Wire) -> Result<Framing, RedisError> {
    let unknown = |wire: &Wire, line: &str| RedisError::Protocol {
        server: wire.server().to_owned(),
        what: format!("{line:?} where its RDB was to begin"),
    };
    loop {
        let line = wire.line()?;
        if line.is_empty() {
            continue;
        }
        if let Some(said) = line.strip_prefix('-') {
            return Err(wire.said(&[b"SYNC"], said.to_owned()));
        }
        if let Some(mark) = line.strip_prefix("$EOF:") {
            let mark = mark.as_bytes().try_into().map_err(|_| unknown(wire, &line))?;
            return Ok(Framing::Mark(mark));
        }
        let length = line.strip_prefix('$').and_then(|length| length.parse().ok());
        return length.map(Framing::Length).ok_or_else(|| unknown(wire, &line));
    }
}

impl Flow for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RedisError> {
        match self.framing {
            Framing::Mark(mark) => self.read_marked(buffer, mark),
            Framing::Length(0) => Ok(0),
            Framing::Length(left) => {
                let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                let length = self.wire.raw(&mut buffer[..most])?;
                self.framing = Framing::Length(left - length as u64);
                Ok(length)
            }
        }
    }
}
