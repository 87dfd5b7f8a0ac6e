//! A person at a terminal who follows a runbook: is shown each step, decides, types what is destroyed.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::text::shown;
use super::super::{CliError, Context};
use crate::base::cancel::{Cancel, Cancelled};
use crate::runbook::record::{Ending, StepRecord};
use crate::runbook::run::{AfterFailure, Choice, Operator};
use crate::runbook::{Kind, Rollback, Step};

const SLICE: Duration = Duration::from_millis(100);

pub fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on stderr and reads a line, trimmed.
pub fn line(question: &str, cancel: &Cancel) -> Result<String, CliError> {
    let _ = write!(io::stderr(), "{question}");
    let mut bytes = Vec::new();
    loop {
        cancel.check()?;
        let slice = Timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
        // A read that waits could not be interrupted: wait in slices, then read what is there.
        match poll(&mut [PollFd::new(&io::stdin(), PollFlags::IN)], Some(&slice)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return Err(Cancelled.into()),
        }
        let mut byte = [0; 1];
        match rustix::io::read(io::stdin(), &mut byte) {
            // Nobody is there any more.
            Ok(0) => return Err(Cancelled.into()),
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => bytes.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Cancelled.into()),
        }
        if bytes.len() > 4096 {
            return Err(CliError::usage("that is too long an answer"));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// See the module. Off a terminal, consent stands in for the person.
pub struct Person<'p> {
    pub context: &'p Context,
    /// Steps on the way.
    pub total: usize,
    pub at: usize,
    /// What destructive steps may destroy, said beforehand.
    pub confirmed: Vec<String>,
}

impl Person<'_> {
    fn say(&self, text: impl std::fmt::Display) {
        if !self.context.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    fn show(&mut self, step: &Step) {
        self.at += 1;
        let limit = match step.kind {
            Kind::Shell(_) => format!("up to {}", time(step.timeout)),
            Kind::Manual { takes } => format!("usually {}", time(takes)),
        };
        let destroys = if step.is_destructive { " · destructive" } else { "" };
        self.say(format_args!(
            "\nStep {} of {}: {} · {} · {limit}{destroys}",
            self.at.min(self.total),
            self.total,
            step.name,
            step.phase.name()
        ));
        if !step.heading.is_empty() {
            self.say(format_args!("  {}", shown(step.heading.as_bytes())));
        }
        for line in step.prose.lines() {
            self.say(format_args!("  {}", shown(line.as_bytes())));
        }
        for line in step.text.lines() {
            self.say(format_args!("    {}", shown(line.as_bytes())));
        }
    }

    /// An answer; an interruption is a stop.
    fn answer(&self, question: &str) -> Option<String> {
        line(question, &self.context.cancel).ok()
    }

    fn consent(&self, step: &Step, value: &str) -> Choice {
        if self.confirmed.iter().any(|word| word == value) {
            return Choice::Run;
        }
        let back = match &step.rollback {
            Some(Rollback::Step(name)) => format!("The way back: step {name}."),
            Some(Rollback::Words(words)) => format!("The way back: {words}"),
            None => String::new(),
        };
        self.say(format_args!("  This removes or replaces what is there. {back}"));
        if !has_terminal() {
            self.say(format_args!("  it was not confirmed: --confirm {} does", shown(value.as_bytes())));
            return Choice::Stop;
        }
        loop {
            let name = step.confirm.as_deref().unwrap_or_default();
            let question =
                format!("  Type {} ({name}) to run it, s to skip it, q to stop: ", shown(value.as_bytes()));
            match self.answer(&question).as_deref() {
                Some(typed) if typed == value => return Choice::Run,
                Some("s") => return Choice::Skip,
                None | Some("q") => return Choice::Stop,
                Some(_) => self.say("  that is not it"),
            }
        }
    }
}

impl Operator for Person<'_> {
    fn ask(&mut self, step: &Step, confirm: Option<&str>) -> Choice {
        self.show(step);
        if let Some(value) = confirm {
            return self.consent(step, value);
        }
        if self.context.yes {
            return Choice::Run;
        }
        if !has_terminal() {
            return Choice::Stop;
        }
        loop {
            match self.answer("  Enter runs it, s skips it, q stops: ").as_deref() {
                Some("" | "r") => return Choice::Run,
                Some("s") => return Choice::Skip,
                None | Some("q") => return Choice::Stop,
                Some(_) => {}
            }
        }
    }

    fn manual(&mut self, step: &Step) -> Choice {
        self.show(step);
        if !has_terminal() {
            self.say("  a person does this step: run it at a terminal, or go on behind it with --from");
            return Choice::Stop;
        }
        loop {
            match self.answer("  Enter when it is done, s skips it, q stops: ").as_deref() {
                Some("") => return Choice::Run,
                Some("s") => return Choice::Skip,
                None | Some("q") => return Choice::Stop,
                Some(_) => {}
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.say(format_args!("  | {line}"));
    }

    fn ended(&mut self, record: &StepRecord) {
        if record.ending == Ending::Skipped {
            self.at += usize::from(record.why.as_deref() != Some("skipped by whoever ran it"));
        }
        self.say(told(record));
    }

    fn failed(&mut self, step: &Step, _: &StepRecord, back: Option<&Rollback>) -> AfterFailure {
        if !has_terminal() || self.context.yes {
            return AfterFailure::Stop;
        }
        let way_back = match back {
            Some(Rollback::Step(name)) => format!("b runs the way back ({name}), "),
            Some(Rollback::Words(words)) => {
                self.say(format_args!("  The way back: {words}"));
                String::new()
            }
            None => String::new(),
        };
        self.at = self.at.saturating_sub(1);
        loop {
            let question =
                format!("  a tries {} again, {way_back}c goes on without it, q stops: ", step.name);
            match self.answer(&question).as_deref() {
                Some("a") => return AfterFailure::Again,
                Some("b") if matches!(back, Some(Rollback::Step(_))) => return AfterFailure::Rollback,
                Some("c") => return AfterFailure::GoOn,
                None | Some("q") => return AfterFailure::Stop,
                Some(_) => {}
            }
        }
    }
}

/// A drill: nobody is asked, what happens is shown in one line a step.
pub struct Nobody<'n> {
    pub context: &'n Context,
}

impl Operator for Nobody<'_> {
    fn ask(&mut self, step: &Step, _: Option<&str>) -> Choice {
        if self.context.verbose > 0 {
            self.context.note(format_args!("… {}", step.name));
        }
        Choice::Run
    }

    fn manual(&mut self, _: &Step) -> Choice {
        Choice::Skip
    }

    fn line(&mut self, line: &str) {
        if self.context.verbose > 0 {
            self.context.note(format_args!("  | {line}"));
        }
    }

    fn ended(&mut self, record: &StepRecord) {
        if !self.context.json {
            self.context.note(told(record));
        }
    }

    fn failed(&mut self, _: &Step, record: &StepRecord, _: Option<&Rollback>) -> AfterFailure {
        if !self.context.json {
            let lines: Vec<&str> = record.output.lines().collect();
            for line in &lines[lines.len().saturating_sub(12)..] {
                self.context.note(format_args!("  | {line}"));
            }
        }
        AfterFailure::Stop
    }
}

fn told(record: &StepRecord) -> String {
    let sign = match record.ending {
        Ending::Done => "✓",
        Ending::Skipped => "–",
        _ => "✗",
    };
    let why = record.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let took = match record.ending {
        Ending::Skipped => String::new(),
        _ => format!(" in {}", crate::runbook::transcript::span(record.seconds)),
    };
    format!("{sign} {} {}{took}{why}", record.step, record.ending.words())
}

/// `45m`, `1h30m`, `20s`
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, 0, _) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}
