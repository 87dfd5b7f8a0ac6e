//! Redis' protocol, version 2, as far as a client that waits for its answers needs it.
//!
//! Our own and not a client library's, because a replication stream begins on the very connection that was
//! authenticated. Answers are bounded, and waiting ends when the run is cancelled or the server falls silent.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::RedisError;
use super::address::Address;
use super::reach::{Link, Reach};
use crate::base::cancel::Cancel;
use crate::base::secret::Secret;

const READ_BYTES: usize = 64 << 10;
/// The longest answer taken: a value's payload, which a server holds in memory as well.
const ANSWER_BYTES: u64 = 2 << 30;
const MOST_ELEMENTS: u64 = 16 << 20;
const DEEPEST: usize = 8;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Reply {
    /// Its bytes as text; empty when it has none.
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Bulk(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Bulk(None) | Self::Array(_) => String::new(),
        }
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            other => other.text().parse().ok(),
        }
    }
}

/// Who we are to the server.
#[derive(Clone)]
pub struct Login {
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// How long it may say nothing.
    pub timeout: Duration,
}

impl Login {
    pub fn of(address: &Address) -> Self {
        Self { user: address.user.clone(), password: address.password.clone(), timeout: address.timeout }
    }
}

/// One authenticated connection.
pub struct Wire {
    link: Box<dyn Link>,
    server: String,
    buffer: Vec<u8>,
    from: usize,
    timeout: Duration,
    doing: &'static str,
    cancel: Cancel,
}

impl Wire {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// It cannot be reached, or does not know us.
    pub fn open(reach: &Arc<dyn Reach>, login: &Login, cancel: &Cancel) -> Result<Self, RedisError> {
        cancel.check()?;
        let mut wire = Self {
            link: reach.dial()?,
            server: reach.name(),
            buffer: Vec::new(),
            from: 0,
            timeout: login.timeout,
            doing: "asked",
            cancel: cancel.clone(),
        };
        if let Some(password) = &login.password {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(login.user.as_deref().map(str::as_bytes));
            words.push(password.expose());
            wire.ask_bytes(&words).map_err(|error| wrong_password(error, login))?;
        }
        Ok(wire)
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub fn own_address(&self) -> Option<IpAddr> {
        self.link.own_address()
    }

    /// What messages say that the server was doing when it got lost.
    pub fn now_doing(&mut self, doing: &'static str) {
        self.doing = doing;
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// The server refuses, is lost or silent, or the run was cancelled.
    pub fn ask(&mut self, words: &[&str]) -> Result<Reply, RedisError> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.ask_bytes(&words)
    }

    /// As [`Self::ask`], of bytes.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_bytes(&mut self, words: &[&[u8]]) -> Result<Reply, RedisError> {
        // It may hold a password.
        let mut command = Zeroizing::new(Vec::new());
        append(&mut command, words);
        self.send(&command)?;
        match self.answer()? {
            Reply::Error(said) => Err(self.said(words, said)),
            reply => Ok(reply),
        }
    }

    /// The error of an answer to `words`.
    pub fn said(&self, words: &[&[u8]], said: String) -> RedisError {
        let name = words.first().map(|word| String::from_utf8_lossy(word).into_owned());
        RedisError::Said { server: self.server.clone(), command: name.unwrap_or_default(), said }
    }

    /// Sends what [`append`] made.
    ///
    /// # Errors
    /// The server is lost.
    pub fn send(&mut self, commands: &[u8]) -> Result<(), RedisError> {
        let sent = self.link.write_all(commands).and_then(|()| self.link.flush());
        sent.map_err(|cause| self.lost(cause))
    }

    /// The next answer; a server's error is an answer too.
    ///
    /// # Errors
    /// The server is lost or silent, or the run was cancelled.
    pub fn answer(&mut self) -> Result<Reply, RedisError> {
        self.nested(0)
    }

    fn nested(&mut self, depth: usize) -> Result<Reply, RedisError> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or(("", ""));
        let number = || rest.parse::<i64>().map_err(|_| self.protocol(format!("it said {line:?}")));
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()?),
            "$" => match u64::try_from(number()?) {
                Err(_) => Reply::Bulk(None),
                Ok(length) if length > ANSWER_BYTES => {
                    return Err(self.protocol(format!("an answer of {length} bytes")));
                }
                Ok(length) => Reply::Bulk(Some(self.bulk(length)?)),
            },
            "*" => match u64::try_from(number()?) {
                Err(_) => Reply::Bulk(None),
                Ok(length) if length > MOST_ELEMENTS || depth == DEEPEST => {
                    return Err(self.protocol(format!("a list of {length} in {depth} others")));
                }
                Ok(length) => {
                    let items = (0..length).map(|_| self.nested(depth + 1));
                    Reply::Array(items.collect::<Result<_, _>>()?)
                }
            },
            _ => return Err(self.protocol(format!("it said {line:?}"))),
        })
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn line(&mut self) -> Result<String, RedisError> {
        let mut looked = 0;
        loop {
            let held = &self.buffer[self.from..];
            if let Some(end) = held[looked..].iter().position(|byte| *byte == b'\n') {
                let line = &held[..looked + end];
                let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
                self.from += looked + end + 1;
                return Ok(text);
            }
            looked = held.len();
            if looked > READ_BYTES {
                return Err(self.protocol("a line without an end".into()));
            }
            self.fill()?;
        }
    }

    fn bulk(&mut self, length: u64) -> Result<Vec<u8>, RedisError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length.min(READ_BYTES));
        let held = length.min(self.buffer.len() - self.from);
        bytes.extend_from_slice(&self.buffer[self.from..self.from + held]);
        self.from += held;
        while bytes.len() < length {
            let filled = bytes.len();
            bytes.resize(length.min(filled + (1 << 20)), 0);
            let read = self.some(&mut bytes[filled..])?;
            bytes.truncate(filled + read);
        }
        let end = self.line()?;
        if end.is_empty() { Ok(bytes) } else { Err(self.protocol("a string longer than it said".into())) }
    }

    fn fill(&mut self) -> Result<(), RedisError> {
        self.buffer.drain(..self.from);
        self.from = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.some(&mut buffer[filled..]);
        self.buffer = buffer;
        self.buffer.truncate(filled + read.as_ref().map_or(0, |read| *read));
        read.map(|_| ())
    }

    /// Reads raw bytes, at least one: first those that came with the last answer.
    ///
    /// # Errors
    /// As [`Self::answer`]; the end of the stream is a loss.
    pub fn raw(&mut self, into: &mut [u8]) -> Result<usize, RedisError> {
        let held = &self.buffer[self.from..];
        if held.is_empty() {
            return self.some(into);
        }
        let length = held.len().min(into.len());
        into[..length].copy_from_slice(&held[..length]);
        self.from += length;
        Ok(length)
    }

    fn some(&mut self, into: &mut [u8]) -> Result<usize, RedisError> {
        let begin = Instant::now();
        loop {
            self.cancel.check()?;
            match self.link.read(into) {
                Ok(0) => return Err(self.lost(io::Error::other("it closed the connection"))),
                Ok(length) => return Ok(length),
                Err(cause) if is_pause(&cause) => {}
                Err(cause) => return Err(self.lost(cause)),
            }
            if begin.elapsed() >= self.timeout {
                let seconds = self.timeout.as_secs();
                return Err(RedisError::Stalled { server: self.server.clone(), doing: self.doing, seconds });
            }
        }
    }

    /// Waits, unless the run is cancelled.
    ///
    /// # Errors
    /// It is.
    pub fn pause(&self, time: Duration) -> Result<(), RedisError> {
        self.cancel.check()?;
        std::thread::sleep(time);
        Ok(self.cancel.check()?)
    }

    fn lost(&self, cause: io::Error) -> RedisError {
        RedisError::Lost { server: self.server.clone(), doing: self.doing, cause }
    }

    fn protocol(&self, what: String) -> RedisError {
        RedisError::Protocol { server: self.server.clone(), what }
    }
}

fn is_pause(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Appends a command to those to be sent at once.
pub fn append(commands: &mut Vec<u8>, words: &[&[u8]]) {
    commands.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        commands.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        commands.extend_from_slice(word);
        commands.extend_from_slice(b"\r\n");
    }
}

/// What to do about a password that is not the right one.
fn wrong_password(error: RedisError, login: &Login) -> RedisError {
    let RedisError::Said { server, command, mut said } = error else { return error };
    if said.starts_with("WRONGPASS") || said.starts_with("ERR invalid password") {
        let whose = login.user.as_deref().map_or_else(String::new, |user| format!(" of {user}"));
        said.push_str(&format!(
            "\nhint: the password{whose} comes from the address, password-file= or REDISCLI_AUTH"
        ));
    }
    RedisError::Said { server, command, said }
}
