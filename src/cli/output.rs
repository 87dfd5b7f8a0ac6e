//! stdout as data: buffered, and quiet about a reader that went away.

use std::fmt;
use std::io::{BufWriter, Stdout, Write};

use super::CliError;
use crate::base::names;

/// Buffered stdout. Call [`Out::finish`] at the end: only then is it certain that everything was written.
pub struct Out(BufWriter<Stdout>);

impl Out {
    pub(super) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, std::io::stdout()))
    }

    /// One line of text, or several. Names of jobs, machines and paths come from storage: what could steer a terminal is
    /// escaped here, whoever forgot it before.
    pub fn line(&mut self, text: impl fmt::Display) -> Result<(), CliError> {
        writeln!(self.0, "{}", names::plain(&text.to_string())).map_err(CliError::stdout)
    }

    /// One JSON value on a line of its own.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.0, value).map_err(|error| CliError::stdout(error.into()))?;
        self.0.write_all(b"\n").map_err(CliError::stdout)
    }

    /// Bytes as they are: for `dump`.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.0.write_all(bytes).map_err(CliError::stdout)
    }

    pub fn finish(mut self) -> Result<(), CliError> {
        self.0.flush().map_err(CliError::stdout)
    }
}
