//! Runs a runbook: one step after the other, each asked for, timed, recorded before and after.
//!
//! Invariants: a text runs only after its start is on disk; a destructive one only after whoever runs it typed what
//! it destroys, or in a drill, which aims it at the sandbox; when a run ends, however it does, what it started is
//! ended too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::audit::{Audit, Event, Past, began};
use super::record::{Ended, Ending, Outcome, StepRecord, declared, seconds};
use super::redact::Redactor;
use super::{Kind, Language, Phase, Role, Rollback, Runbook, RunbookError, Step, drill_rules};
use crate::base::cancel::Cancel;
use crate::base::clock::Clock;
use crate::base::process::{Process, ProcessError, ProcessOptions};

/// What of a step's output is kept: its end.
const OUTPUT_BYTES: usize = 32 << 10;
/// A longer line is shown and kept in pieces.
const LINE_BYTES: usize = 1 << 20;
const WATCH: Duration = Duration::from_millis(50);

/// What is done with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Run,
    Skip,
    Stop,
}

/// What is done after a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    Again,
    GoOn,
    /// Run the way back, then stop.
    Rollback,
    Stop,
}

/// Whoever follows the runbook: a person at a terminal, or a drill.
pub trait Operator {
    /// Before a step; for a destructive one, with the value that has to be typed.
    fn ask(&mut self, step: &Step, confirm: Option<&str>) -> Choice;
    /// A step that people do: returns when it is done.
    fn manual(&mut self, step: &Step) -> Choice;
    /// A line of its output, without secrets.
    fn line(&mut self, line: &str);
    fn ended(&mut self, record: &StepRecord);
    /// `back`: the way back, where there is one.
    fn failed(&mut self, step: &Step, record: &StepRecord, back: Option<&Rollback>) -> AfterFailure;
}

/// How a runbook is run.
pub struct Options<'o> {
    pub is_drill: bool,
    /// Values of its variables, all of them.
    pub variables: BTreeMap<String, String>,
    /// The environment of every step; the variables are added.
    pub environment: Vec<(OsString, OsString)>,
    /// Besides, for steps that destroy something, which somebody agreed to.
    pub agreed: Vec<(OsString, OsString)>,
    /// Where steps are run.
    pub folder: PathBuf,
    /// Steps before this one are skipped.
    pub from: Option<String>,
    /// A run to go on with.
    pub past: Option<&'o Past>,
    pub redactor: Redactor,
    pub clock: &'o dyn Clock,
    pub cancel: &'o Cancel,
}

/// Runs it. Waits: call it on a thread that may.
///
/// # Errors
/// What was asked makes no sense, or the record cannot be written.
pub fn run(
    runbook: &Runbook,
    options: &Options,
    operator: &mut dyn Operator,
    audit: &mut Audit,
) -> Result<Outcome, RunbookError> {
    let (before, way) = match options.is_drill {
        true => drill_rules::way(runbook),
        false => (Vec::new(), runbook.steps.iter().filter(|step| step.is_on_the_way()).collect()),
    };
    if let Some(from) = &options.from
        && !way.iter().any(|step| step.name == *from)
    {
        let names: Vec<&str> = way.iter().map(|step| step.name.as_str()).collect();
        return Err(RunbookError::Refused(format!(
            "there is no step {from:?}\nhint: there are {}",
            names.join(", ")
        )));
    }
    let people: Vec<&Step> = way.iter().filter(|_| options.is_drill).copied().collect();
    let mut runner = Runner { runbook, options, operator, audit, records: Vec::new() };
    let started_at = options.clock.now().to_string();
    let mut ended = runner.all(&before)?;
    let clock = Instant::now();
    if ended.is_none() {
        ended = runner.all(&way)?;
    }
    let recovery_seconds = seconds(clock.elapsed());
    let ended = ended.unwrap_or(Ended::Completed);
    let steps = runner.records;
    audit.write(&Event::Finish { at: options.clock.now().to_string(), ended })?;
    Ok(Outcome { started_at, steps, ended, recovery_seconds, declared_seconds: seconds(declared(&people)) })
}

struct Runner<'r> {
    runbook: &'r Runbook,
    options: &'r Options<'r>,
    operator: &'r mut dyn Operator,
    audit: &'r mut Audit,
    records: Vec<StepRecord>,
}

impl Runner<'_> {
    /// `Some`: it ended before the last of them.
    fn all(&mut self, steps: &[&Step]) -> Result<Option<Ended>, RunbookError> {
        let mut waits_for = self.options.from.as_deref();
        for step in steps {
            if self.options.cancel.is_cancelled() {
                return Ok(Some(Ended::Interrupted));
            }
            if waits_for.is_some_and(|from| from != step.name) && step.role != Role::Before {
                self.skip(step, "before the step that was asked for")?;
                continue;
            }
            waits_for = None;
            if self.options.past.is_some_and(|past| past.has_done(&step.name, &step.hash())) {
                self.skip(step, "done in the run before")?;
                continue;
            }
            if let Some(ended) = self.one(step)? {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    fn skip(&mut self, step: &Step, why: &str) -> Result<(), RunbookError> {
        let record = StepRecord::skipped(step, why, self.now());
        // What the run before did stays done, for the run after this one too.
        let mut kept = record.clone();
        if why == "done in the run before" {
            kept.ending = Ending::Done;
        }
        self.audit.write(&Event::End(kept.clone()))?;
        self.operator.ended(&record);
        self.records.push(kept);
        Ok(())
    }

    fn now(&self) -> String {
        self.options.clock.now().to_string()
    }

    fn one(&mut self, step: &Step) -> Result<Option<Ended>, RunbookError> {
        if let (true, Role::Skip(because)) = (self.options.is_drill, &step.role) {
            self.skip(step, because)?;
            return Ok(None);
        }
        if self.options.is_drill && step.is_manual() {
            self.skip(step, "a person does it")?;
            return Ok(None);
        }
        loop {
            let record = match self.attempt(step)? {
                Ok(record) => record,
                Err(Choice::Skip) => {
                    self.skip(step, "skipped by whoever ran it")?;
                    return Ok(None);
                }
                Err(_) => {
                    let interrupted = self.options.cancel.is_cancelled();
                    return Ok(Some(if interrupted { Ended::Interrupted } else { Ended::Stopped }));
                }
            };
            match record.ending {
                Ending::Done | Ending::Skipped => return Ok(None),
                Ending::Interrupted => return Ok(Some(Ended::Interrupted)),
                Ending::Failed | Ending::TimedOut => {}
            }
            match self.operator.failed(step, &record, step.rollback.as_ref()) {
                AfterFailure::Again => {}
                AfterFailure::GoOn => return Ok(None),
                AfterFailure::Rollback => {
                    if let Some(Rollback::Step(name)) = &step.rollback
                        && let Some(back) = self.runbook.step(name)
                    {
                        let _ = self.attempt(back)?;
                    }
                    return Ok(Some(Ended::Failed));
                }
                AfterFailure::Stop => return Ok(Some(Ended::Failed)),
            }
        }
    }

    /// Asks for a step and runs it; `Err`: it was not to be run.
    fn attempt(&mut self, step: &Step) -> Result<Result<StepRecord, Choice>, RunbookError> {
        let confirm = step.confirm.as_ref().filter(|_| step.is_destructive);
        let confirm = confirm.and_then(|name| self.options.variables.get(name)).map(String::as_str);
        let at = self.now();
        let clock = Instant::now();
        let choice = match step.is_manual() {
            false => self.operator.ask(step, confirm),
            true => {
                self.audit.write(&Event::Start {
                    at: at.clone(),
                    step: step.name.clone(),
                    hash: step.hash(),
                })?;
                self.operator.manual(step)
            }
        };
        if choice != Choice::Run {
            return Ok(Err(choice));
        }
        let record = match step.kind {
            Kind::Manual { .. } => StepRecord {
                ending: Ending::Done,
                why: None,
                seconds: seconds(clock.elapsed()),
                ..StepRecord::skipped(step, "", at)
            },
            Kind::Shell(language) => {
                self.audit.write(&Event::Start {
                    at: at.clone(),
                    step: step.name.clone(),
                    hash: step.hash(),
                })?;
                self.shell(step, language, at)?
            }
        };
        self.audit.write(&Event::End(record.clone()))?;
        self.operator.ended(&record);
        self.records.push(record.clone());
        Ok(Ok(record))
    }

    fn shell(&mut self, step: &Step, language: Language, at: String) -> Result<StepRecord, RunbookError> {
        let clock = Instant::now();
        let mut output = Output { expected: step.expected.clone(), ..Output::default() };
        let watch = Watch::start(self.options.cancel.clone(), step.timeout);
        let ran = self.spawn(step, language, &watch.cancel, &mut output);
        let is_late = watch.end();
        output.finish(&self.options.redactor, self.operator);
        let is_interrupted = self.options.cancel.is_cancelled();
        let (ending, status, why) = match ran {
            Err(Stopped::Audit(error)) => return Err(error),
            _ if is_interrupted => (Ending::Interrupted, None, Some("interrupted".to_owned())),
            _ if is_late => {
                let limit = step.timeout.as_secs();
                (Ending::TimedOut, None, Some(format!("it took longer than {limit} s and was ended")))
            }
            Ok(()) => match &step.expected {
                Some(expected) if !output.has_seen => {
                    (Ending::Failed, Some(0), Some(format!("its output does not contain {expected:?}")))
                }
                _ => (Ending::Done, Some(0), None),
            },
            Err(Stopped::Process(error)) => {
                let (status, how) = told(&error);
                (Ending::Failed, status, Some(self.options.redactor.clean(&how)))
            }
        };
        Ok(StepRecord {
            step: step.name.clone(),
            phase: step.phase,
            ending,
            hash: step.hash(),
            seconds: seconds(clock.elapsed()),
            status,
            why,
            output: output.kept,
            at,
        })
    }

    fn spawn(
        &mut self,
        step: &Step,
        language: Language,
        cancel: &Cancel,
        output: &mut Output,
    ) -> Result<(), Stopped> {
        // The outer shell only joins what the step complains to what it says, in order, and gives way to the inner.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]);
        match language {
            Language::Sh => command.args(["sh", "-eu", "-c"]),
            Language::Bash => command.args(["bash", "-eu", "-o", "pipefail", "-c"]),
        };
        command.arg(&step.text).current_dir(&self.options.folder).env_clear();
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        let agreed = self.options.agreed.iter().filter(|_| step.is_destructive);
        command.envs(agreed.map(|(name, value)| (name, value)));
        command.envs(&self.options.variables);
        let options = ProcessOptions { no_progress: None, ..ProcessOptions::default() };
        let mut process = Process::start(command, options, cancel)?;
        if let Some(group) = process.group() {
            let began = began(group);
            let running = Event::Running { step: step.name.clone(), group, began };
            self.audit.write(&running).map_err(Stopped::Audit)?;
        }
        let mut buffer = [0; 4096];
        loop {
            match process.read_some(&mut buffer)? {
                0 => break,
                length => output.take(&buffer[..length], &self.options.redactor, self.operator),
            }
        }
        process.finish()?;
        Ok(())
    }
}

enum Stopped {
    Process(ProcessError),
    Audit(RunbookError),
}

impl From<ProcessError> for Stopped {
    fn from(error: ProcessError) -> Self {
        Self::Process(error)
    }
}

/// The shell's exit status, and what happened in words.
fn told(error: &ProcessError) -> (Option<i32>, String) {
    match error {
        ProcessError::Failed { how, .. } => (
            how.strip_prefix("ended with exit status ").and_then(|code| code.parse().ok()),
            format!("it {how}"),
        ),
        ProcessError::Start { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
            (None, "there is no /bin/sh here, or no folder to run it in".to_owned())
        }
        error => (None, error.to_string()),
    }
}

/// Cancels a step that takes too long, and one whose run was cancelled.
struct Watch {
    cancel: Cancel,
    is_late: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    fn start(of_run: Cancel, timeout: Duration) -> Self {
        let (cancel, is_late, is_over) = (Cancel::new(), Arc::default(), Arc::default());
        let (own, late, over): (_, Arc<AtomicBool>, Arc<AtomicBool>) =
            (cancel.clone(), Arc::clone(&is_late), Arc::clone(&is_over));
        let began = Instant::now();
        let watch = move || {
            while !over.load(Ordering::Relaxed) {
                let is_late = began.elapsed() >= timeout;
                if is_late || of_run.is_cancelled() {
                    late.store(is_late, Ordering::Relaxed);
                    own.cancel();
                    return;
                }
                thread::sleep(WATCH.min(timeout));
            }
        };
        let thread = thread::Builder::new().name("timeout".into()).spawn(watch).ok();
        Self { cancel, is_late, is_over, thread }
    }

    /// Whether it took too long.
    fn end(mut self) -> bool {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.is_late.load(Ordering::Relaxed)
    }
}

/// A step's output as it comes: shown line by line, its end kept.
#[derive(Default)]
struct Output {
    line: Vec<u8>,
    kept: String,
    expected: Option<String>,
    has_seen: bool,
}

impl Output {
    fn take(&mut self, bytes: &[u8], redactor: &Redactor, operator: &mut dyn Operator) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(redactor, operator),
                byte => {
                    self.line.push(*byte);
                    if self.line.len() >= LINE_BYTES {
                        self.end_line(redactor, operator);
                    }
                }
            }
        }
    }

    fn end_line(&mut self, redactor: &Redactor, operator: &mut dyn Operator) {
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        // A progress line that was written over: only its last state counts.
        let text = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        self.has_seen |= self.expected.as_ref().is_some_and(|expected| text.contains(expected.as_str()));
        let clean: String = redactor
            .clean(text)
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        operator.line(&clean);
        self.kept.push_str(&clean);
        self.kept.push('\n');
        if self.kept.len() > 2 * OUTPUT_BYTES {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let mut cut = self.kept.len().saturating_sub(OUTPUT_BYTES);
        while !self.kept.is_char_boundary(cut) {
            cut += 1;
        }
        self.kept.drain(..cut);
    }

    fn finish(&mut self, redactor: &Redactor, operator: &mut dyn Operator) {
        if !self.line.is_empty() {
            self.end_line(redactor, operator);
        }
        self.shorten();
    }
}

/// Phases with the time their steps took, in the order of their first steps.
pub fn phases(outcome: &Outcome) -> Vec<(Phase, f64)> {
    let mut found: Vec<(Phase, f64)> = Vec::new();
    for record in &outcome.steps {
        match found.iter_mut().find(|(phase, _)| *phase == record.phase) {
            Some((_, sum)) => *sum += record.seconds,
            None => found.push((record.phase, record.seconds)),
        }
    }
    found
}
