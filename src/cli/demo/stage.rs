//! How the demo speaks: numbered steps with their times, readable without colour and silent with `--json`.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use super::super::text::span;
use super::super::{CliError, Context};

/// Column in which a step's time ends.
const TIME_COLUMN: usize = 60;

pub struct Stage {
    silent: bool,
    colour: bool,
    step: usize,
    title_chars: usize,
}

impl Stage {
    pub fn new(context: &Context) -> Self {
        let colour =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { silent: context.json || context.quiet, colour, step: 0, title_chars: 0 }
    }

    /// A person is watching: everything is shown at once.
    fn write(&self, text: &str) -> Result<(), CliError> {
        if self.silent {
            return Ok(());
        }
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::stdout)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn title(&self, title: &str, under: &str) -> Result<(), CliError> {
        self.write(&format!("\n{}\n{}\n\n", self.paint("1", title), self.paint("2", under)))
    }

    /// Names a step before it is done.
    pub fn begin(&mut self, title: &str) -> Result<Instant, CliError> {
        self.step += 1;
        self.title_chars = title.chars().count();
        self.write(&format!("{}  {}", self.paint("1;36", &self.step.to_string()), self.paint("1", title)))?;
        Ok(Instant::now())
    }

    pub fn done(&self, began: Instant) -> Result<(), CliError> {
        let time = span(began.elapsed());
        let used = 3 + self.title_chars + time.chars().count();
        let space = " ".repeat(TIME_COLUMN.saturating_sub(used).max(1));
        self.write(&format!("{space}{}\n", self.paint("2", &time)))
    }

    pub fn detail(&self, text: &str) -> Result<(), CliError> {
        self.write(&format!("   {text}\n"))
    }

    pub fn check(&self, text: &str) -> Result<(), CliError> {
        self.write(&format!("   {} {text}\n", self.paint("1;32", "✓")))
    }

    pub fn end(&self, text: &str) -> Result<(), CliError> {
        self.write(&format!("\n{}\n", self.paint("1;32", text)))
    }

    pub fn say(&self, text: &str) -> Result<(), CliError> {
        self.write(&format!("{text}\n"))
    }
}
