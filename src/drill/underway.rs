//! Drills that are under way: one of a name at a time, written down before anything starts.
//!
//! Each has a file that stays locked as long as its process lives; the kernel lets go of it however that ends. So a file
//! that is locked is a run under way, and one that is free and holds a record is a run whose evidence nobody kept: it was
//! killed, or the machine stopped, or storage could not be written. Whoever finds it files it: a drill that was begun is
//! never absent.
//!
//! A record is a line. What is said later is a further one, and the last that is whole counts: a disk that is full, or a
//! kill while it is written, leaves the one before.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::DrillError;
use super::evidence::{Evidence, Verdict};

/// A longer record is none.
const LIMIT_BYTES: u64 = 64 << 20;
/// Whoever looks for killed runs holds a file for a moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);
const RUN: &str = "run";
const LEFT: &str = "left";

/// What is written down of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where its evidence is kept: an address without secrets; empty where it is kept nowhere.
    pub repository: String,
    pub process: u32,
    /// Whether its evidence is to be kept at all.
    pub keeps: bool,
    /// What is to be told of it if nothing more is heard.
    pub evidence: Evidence,
}

impl Record {
    /// Of a run that begins now. `evidence`: as far as it is known.
    pub fn new(repository: String, keeps: bool, evidence: Evidence) -> Self {
        let process = std::process::id();
        let said =
            format!("it ended without a word: its process ({process}) was killed, or the machine stopped");
        let evidence = Evidence { verdict: Verdict::Interrupted, reason: Some(said), ..evidence };
        Self { repository, process, keeps, evidence }
    }
}

/// A run that is under way. Dropped, it counts as one that was killed: see [`UnderWay::end`].
#[derive(Debug)]
pub struct UnderWay {
    file: File,
    path: PathBuf,
    record: Record,
}

fn local(operation: &'static str) -> impl Fn(io::Error) -> DrillError {
    move |cause| DrillError::Local { operation, cause }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The last that is whole; `None`: there is none.
fn read(file: &mut File) -> io::Result<Option<Record>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    Ok(lines.filter(|line| !line.is_empty()).find_map(|line| serde_json::from_slice(line).ok()))
}

/// Adds a line behind what is there, whole or not.
fn append(file: &mut File, record: &Record) -> io::Result<()> {
    let line = [b"\n", serde_json::to_vec(record)?.as_slice(), b"\n"].concat();
    file.seek(io::SeekFrom::End(0))?;
    file.write_all(&line)?;
    file.sync_all()
}

fn empty(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.sync_all()
}

impl UnderWay {
    /// Takes the drill's place on this machine, in a folder of its own, and writes it down.
    ///
    /// # Errors
    /// [`DrillError::UnderWay`]: another run of the same drill has it. It cannot be written down.
    pub fn begin(folder: &Path, record: Record) -> Result<Self, DrillError> {
        let failed = local("write down that a drill begins");
        std::fs::create_dir_all(folder).map_err(&failed)?;
        let name = format!("{}\0{}", record.repository, record.evidence.name);
        let name = blake3::hash(name.as_bytes()).to_hex()[..32].to_owned();
        let path = folder.join(&name).with_extension(RUN);
        let mut file = open(&path).map_err(&failed)?;
        let mut tries = 1;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            if tries == TRIES {
                let other = read(&mut file).map_err(&failed)?;
                return Err(DrillError::UnderWay {
                    name: record.evidence.name,
                    process: other.as_ref().map_or(0, |other| other.process),
                    since: other.map_or_else(String::new, |other| other.evidence.started_at),
                });
            }
            std::thread::sleep(PAUSE);
            tries += 1;
        }
        // One that nobody filed yet makes room, and waits beside it.
        if let Some(left) = read(&mut file).map_err(&failed)? {
            let beside = format!("{name}-{}-{}", left.process, jiff::Timestamp::now().as_nanosecond());
            let mut beside = open(&folder.join(beside).with_extension(LEFT)).map_err(&failed)?;
            append(&mut beside, &left).map_err(&failed)?;
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(&failed)?;
        }
        empty(&file).map_err(&failed)?;
        append(&mut file, &record).map_err(&failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(&failed)?;
        Ok(Self { file, path, record })
    }

    /// It came to an end that others can read of, or never began: nothing is left to be told.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn end(self) -> Result<(), DrillError> {
        empty(&self.file).map_err(local("write down that a drill ended"))
    }

    /// Its evidence could not be kept, or there is none: whoever comes next files this.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn leave(mut self, evidence: Evidence) -> Result<(), DrillError> {
        self.record.evidence = evidence;
        append(&mut self.file, &self.record).map_err(local("write down how a drill ended"))
    }

    /// The same, of a run that was interrupted before there was any evidence.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn interrupted(self) -> Result<(), DrillError> {
        let reason = Some("interrupted before anything was restored".to_owned());
        let evidence = Evidence { reason, ..self.record.evidence.clone() };
        self.leave(evidence)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is told of it if nothing more is heard.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// A run whose evidence nobody kept. Nobody else files it as long as this is held.
pub struct Left {
    pub record: Record,
    path: PathBuf,
    file: File,
}

/// Those of one repository, oldest first. What is under way is not among them.
///
/// # Errors
/// The folder cannot be read.
pub fn left(folder: &Path, repository: &str) -> Result<Vec<Left>, DrillError> {
    let failed = local("look for drills that ended without a word");
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(&failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(&failed)?.path();
        if !path.extension().is_some_and(|ending| ending == RUN || ending == LEFT) {
            continue;
        }
        let Ok(mut file) = open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if let Some(record) = read(&mut file).map_err(&failed)?
            && record.repository == repository
        {
            found.push(Left { record, path, file });
        }
    }
    found.sort_by(|a, b| a.record.evidence.started_at.cmp(&b.record.evidence.started_at));
    Ok(found)
}

impl Left {
    /// It is filed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn filed(self) -> Result<(), DrillError> {
        let failed = local("write down that a drill is filed");
        empty(&self.file).map_err(&failed)?;
        if self.path.extension().is_some_and(|ending| ending == LEFT) {
            std::fs::remove_file(&self.path).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::tests::sample;
    use super::*;

    fn record(repository: &str, started_at: &str) -> Record {
        Record::new(repository.into(), true, Evidence { started_at: started_at.into(), ..sample() })
    }

    #[test]
    fn one_of_a_name_is_under_way_and_only_what_nobody_ended_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |repository: &str, at: &str| UnderWay::begin(folder.path(), record(repository, at));
        let count = |repository: &str| left(folder.path(), repository).unwrap().len();
        let first = begin("r", "2026-01-01").unwrap();
        let refused = begin("r", "2026-01-02").unwrap_err().to_string();
        let process = format!("process {}", std::process::id());
        assert!(refused.contains("db-weekly") && refused.contains(&process), "{refused}");
        // Of another repository it is another drill.
        begin("other", "2026-01-01").unwrap().end().unwrap();
        assert_eq!((count("r"), count("other")), (0, 0), "what is under way is not left");
        // As the kernel does it when a process is killed.
        drop(first);
        assert_eq!((count("r"), count("other")), (1, 0));
        let second = begin("r", "2026-01-02").unwrap();
        assert_eq!(count("r"), 1, "a new run does not write over it");
        drop(second);
        let found = left(folder.path(), "r").unwrap();
        let days: Vec<&str> = found.iter().map(|left| left.record.evidence.started_at.as_str()).collect();
        assert_eq!(days, ["2026-01-01", "2026-01-02"]);
        assert!(found.iter().all(|left| left.record.evidence.verdict == Verdict::Interrupted));
        assert_eq!(count("r"), 0, "nobody else files what is being filed");
        found.into_iter().for_each(|left| left.filed().unwrap());
        assert_eq!(count("r"), 0);
    }

    #[test]
    fn a_record_half_written_over_a_good_one_leaves_the_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let run = UnderWay::begin(folder.path(), record("r", "2026-01-01")).unwrap();
        let path = run.path().to_owned();
        let first = std::fs::read(&path).unwrap().len();
        run.leave(Evidence { verdict: Verdict::DataWrong, ..sample() }).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let verdict = |length: usize| {
            std::fs::write(&path, &bytes[..length]).unwrap();
            left(folder.path(), "r").unwrap().first().map(|left| left.record.evidence.verdict)
        };
        assert_eq!(verdict(bytes.len()), Some(Verdict::DataWrong));
        assert_eq!(verdict((first + bytes.len()) / 2), Some(Verdict::Interrupted));
        // What is added behind one that was cut short is whole.
        let mut file = open(&path).unwrap();
        append(&mut file, &record("r", "2026-01-03")).unwrap();
        assert_eq!(read(&mut file).unwrap().unwrap().evidence.started_at, "2026-01-03");
        drop(file);
        // One that was never whole is none, and in nobody's way.
        assert_eq!(verdict(first / 2), None);
        UnderWay::begin(folder.path(), record("r", "2026-01-02")).unwrap().end().unwrap();
    }
}
