//! What ran, a line of JSON for each event, on disk before the next thing happens.
//!
//! A step is written down before it starts and after it ends, each time with fsync, so whoever comes after a power cut
//! or a SIGKILL knows what was done, what may have been done, and where to go on. A line that was cut short is the
//! last one and is left out. Only hashes of texts and values without secrets are kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunbookError;
use super::record::{Ended, Ending, StepRecord};
use crate::base::own_file::{self, Trust};

/// Names the format of the lines.
pub const FORMAT: u32 = 1;
const LIMIT_BYTES: u64 = 64 << 20;
const ENDING: &str = "jsonl";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    Begin {
        format: u32,
        at: String,
        runbook: String,
        /// Hash of the whole document.
        document: String,
        is_drill: bool,
        host: String,
        user: String,
        program: String,
        /// Without secrets.
        variables: BTreeMap<String, String>,
        /// The run that this one goes on with.
        resumes: Option<String>,
    },
    /// Written before the step's text is handed to a shell.
    Start {
        at: String,
        step: String,
        hash: String,
    },
    /// The process group that runs it, for who comes after a kill.
    Running {
        step: String,
        group: i32,
        began: Option<u64>,
    },
    End(StepRecord),
    Finish {
        at: String,
        ended: Ended,
    },
}

/// A run that is being written down.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
}

fn local(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunbookError {
    let path = path.to_owned();
    move |cause| RunbookError::Local { operation, path, cause }
}

impl Audit {
    /// Begins the record of a run in `folder`, which is made. `stamp` names it, and sorts by time.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(folder: &Path, stamp: &str, first: &Event) -> Result<Self, RunbookError> {
        std::fs::create_dir_all(folder).map_err(local("make", folder))?;
        for number in 0..1000 {
            let path = folder.join(format!("{stamp}-{number:03}.{ENDING}"));
            let made = File::options().append(true).create_new(true).mode(0o600).open(&path);
            let file = match made {
                // Two at once are two runs.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(local("make", &path))?,
            };
            let mut audit = Self { path, file };
            audit.write(first)?;
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(local("write", folder))?;
            return Ok(audit);
        }
        Err(local("make", folder)(io::Error::other("there are a thousand runs of this second")))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line; returns when it is on disk.
    ///
    /// # Errors
    /// It cannot be written: then nothing more may run.
    pub fn write(&mut self, event: &Event) -> Result<(), RunbookError> {
        let mut line = serde_json::to_vec(event).map_err(|error| local("write", &self.path)(error.into()))?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_all());
        written.map_err(local("write", &self.path))
    }
}

/// A run that was written down.
#[derive(Clone, Debug)]
pub struct Past {
    pub path: PathBuf,
    pub variables: BTreeMap<String, String>,
    pub started_at: String,
    /// Steps that were done, with the hash of what ran.
    pub done: Vec<StepRecord>,
    /// A step that was begun and whose end nobody wrote down.
    pub open: Option<Open>,
    pub ended: Option<Ended>,
}

/// See [`Past::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub step: String,
    /// Its process group, and when that one's first process began, in the kernel's ticks.
    group: Option<(i32, Option<u64>)>,
}

impl Open {
    /// The process group, if it still works: running its step again would make two of them.
    pub fn still_runs(&self) -> Option<i32> {
        let (group, before) = self.group?;
        let now = began(group);
        (now.is_some() && now == before).then_some(group)
    }
}

/// When a process began, in ticks since the system did: tells it from a later one of the same number.
pub(super) fn began(process: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything, come the state and then numbers; the 22nd field is the time.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl Past {
    /// Whether this very text was run to its good end.
    pub fn has_done(&self, step: &str, hash: &str) -> bool {
        self.done.iter().any(|record| record.step == step && record.hash == hash)
    }

    /// Whether another text of this name was.
    pub fn has_done_otherwise(&self, step: &str, hash: &str) -> bool {
        self.done.iter().any(|record| record.step == step && record.hash != hash)
    }
}

/// The newest run in a folder that was no drill, if there is one.
///
/// # Errors
/// It cannot be read, or is none of ours.
pub fn newest(folder: &Path) -> Result<Option<Past>, RunbookError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(local("read", folder))?,
    };
    let is_run = |path: &PathBuf| path.extension().is_some_and(|ending| ending == ENDING);
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_run).collect();
    paths.sort();
    for path in paths.iter().rev() {
        if let Some(past) = read(path)? {
            return Ok(Some(past));
        }
    }
    Ok(None)
}

/// `None`: it was a drill, or never began.
fn read(path: &Path) -> Result<Option<Past>, RunbookError> {
    let text = own_file::read(path, LIMIT_BYTES, Trust::Own)?;
    let mut past = None;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (at, line) in whole.lines().enumerate() {
        let event: Event = serde_json::from_str(line).map_err(|error| RunbookError::Syntax {
            path: path.to_owned(),
            line: at + 1,
            message: format!("not what a run writes down: {error}"),
            hint: None,
        })?;
        match (event, &mut past) {
            (Event::Begin { is_drill: true, .. }, _) => return Ok(None),
            (Event::Begin { at, variables, .. }, past @ None) => {
                let path = path.to_owned();
                *past =
                    Some(Past { path, variables, started_at: at, done: Vec::new(), open: None, ended: None });
            }
            (Event::Start { step, .. }, Some(past)) => past.open = Some(Open { step, group: None }),
            (Event::Running { step, group, began }, Some(past)) => {
                past.open = Some(Open { step, group: Some((group, began)) });
            }
            (Event::End(record), Some(past)) => {
                past.open = None;
                // A step that was done again, and failed, is not done.
                past.done.retain(|other| other.step != record.step);
                if record.ending == Ending::Done {
                    past.done.push(record);
                }
            }
            (Event::Finish { ended, .. }, Some(past)) => past.ended = Some(ended),
            _ => {}
        }
    }
    Ok(past)
}
