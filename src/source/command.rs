//! Any command's standard output as a stream for a snapshot.
//!
//! The commit rule: a snapshot may be made only after [`CommandSource::finish`] said Ok, which means end of stream
//! *and* exit status 0 *and* not empty. A dump that was cut short by a crash looks whole to everybody but its
//! exit status. The command is started directly, never by a shell.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::Command;

use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessError, ProcessOptions};
use crate::format::entry::Timestamp;

/// How a command is captured.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandOptions {
    pub process: ProcessOptions,
    /// An empty stream is a success. By default it is a failure: a backup of nothing is rarely meant.
    pub allow_empty: bool,
}

/// A capture that must not become a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("no command was given")]
    NoCommand,
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{0} gave no bytes")]
    Empty(String),
    /// The caller stopped reading before the end.
    #[error("{0} was not read to its end")]
    Unfinished(String),
}

/// A stream that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub size_bytes: u64,
    /// The end of what the command wrote to stderr, for the run's record.
    pub stderr: String,
}

/// A running command whose output is being captured. Dropping it ends the command.
#[derive(Debug)]
pub struct CommandSource {
    process: Process,
    name: String,
    size_bytes: u64,
    consistent_at: Timestamp,
    allow_empty: bool,
}

impl CommandSource {
    /// Starts the command (`argv[0]` and its arguments); `now` is the instant before.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        argv: &[OsString],
        options: CommandOptions,
        now: Timestamp,
        cancel: &Cancel,
    ) -> Result<Self, StreamError> {
        let (program, arguments) = argv.split_first().ok_or(StreamError::NoCommand)?;
        let mut command = Command::new(program);
        command.args(arguments);
        Ok(Self {
            process: Process::start(command, options.process, cancel)?,
            name: format!("{program:?}"),
            size_bytes: 0,
            consistent_at: now,
            allow_empty: options.allow_empty,
        })
    }

    /// The instant the stream is true for: what a command says about later than its start is not known.
    pub fn consistent_at(&self) -> Timestamp {
        self.consistent_at
    }

    /// Whether the stream may become a snapshot.
    ///
    /// # Errors
    /// Every reason why not.
    pub fn finish(self) -> Result<Finished, StreamError> {
        if !self.process.at_end() {
            return Err(StreamError::Unfinished(self.name));
        }
        // A failure explains an empty stream better than its emptiness.
        let stderr = self.process.finish()?;
        if self.size_bytes == 0 && !self.allow_empty {
            return Err(StreamError::Empty(self.name));
        }
        Ok(Finished { size_bytes: self.size_bytes, stderr })
    }
}

impl Read for CommandSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.process.read(buffer)?;
        self.size_bytes += length as u64;
        Ok(length)
    }
}
