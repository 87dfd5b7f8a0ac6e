//! What a run is about to do to a server, written down before it does it, so that the next run can undo it.
//!
//! One file a run, locked by the process that wrote it: a file that can be locked belongs to a run that is gone,
//! whether it was killed or the machine was switched off. Failure scenarios:
//! 1. killed after the intent was written and before anything was stopped: starting what runs does nothing;
//! 2. killed while containers stand still: they are started, by service name where their ids are gone;
//! 3. the daemon cannot be reached when the next run looks: the file stays for the one after.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::DockerError;
use super::daemon::Daemon;
use super::guard::Act;
use super::helper::remove_left;
use crate::base::cancel::Cancel;

/// A journal longer than this is none of ours.
const LIMIT_BYTES: u64 = 16 << 20;
const FOLDER: &str = "docker";
const VERSION: u32 = 1;
/// A run that was killed this shortly ago may have asked for stops that are still under way.
const RECENT: Duration = Duration::from_secs(120);
/// What the engine needs besides the time it lets a container end.
const ENDING: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    version: u32,
    host: String,
    /// Label of what was made on the server.
    run: String,
    acts: Vec<Act>,
    /// Volumes with that label that hold the only whole copy of something: they stay.
    #[serde(default)]
    kept: Vec<Kept>,
}

/// A volume of ours that is not removed, for it holds what another is to hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub volume: String,
    /// The volume that was being replaced.
    pub instead_of: String,
}

/// A run's file. Removed when everything was undone.
pub struct Journal {
    path: PathBuf,
    folder: PathBuf,
    /// Holds the lock.
    file: File,
    intent: Intent,
    /// Something could not be undone: the next run tries.
    keep: bool,
}

impl Journal {
    /// Writes down that `run` makes things on the server at `host`.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn begin(state: &Path, host: &str, run: &str) -> Result<Self, DockerError> {
        let folder = state.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(local("make", &folder))?;
        let path = folder.join(format!("{run}.json"));
        let file = File::options().create_new(true).read(true).write(true).open(&path);
        let file = file.map_err(local("make", &path))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| local("lock", &path)(errno.into()))?;
        let (acts, kept) = (Vec::new(), Vec::new());
        let intent = Intent { version: VERSION, host: host.to_owned(), run: run.to_owned(), acts, kept };
        let mut journal = Self { path, folder, file, intent, keep: false };
        journal.write(&[])?;
        Ok(journal)
    }

    /// Writes down what is about to be done; on disk when this returns.
    ///
    /// # Errors
    /// It cannot be written: then nothing may be done.
    pub fn write(&mut self, acts: &[Act]) -> Result<(), DockerError> {
        self.intent.acts = acts.to_vec();
        self.save()
    }

    /// Writes down that a volume of ours must not be removed; on disk when this returns.
    ///
    /// # Errors
    /// It cannot be written: then what it stands in for must not be removed.
    pub fn keep_volume(&mut self, kept: Kept) -> Result<(), DockerError> {
        self.intent.kept.push(kept);
        self.save()
    }

    fn save(&mut self) -> Result<(), DockerError> {
        use std::io::Seek as _;
        let text = serde_json::to_vec(&self.intent)
            .map_err(|error| local("write", &self.path)(std::io::Error::other(error)))?;
        // The file keeps its lock, so it is written in place: a torn one is only possible before its first act.
        let done = self
            .file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| self.file.write_all(&text))
            .and_then(|()| self.file.sync_all())
            .and_then(|()| File::open(&self.folder)?.sync_all());
        done.map_err(local("write", &self.path))
    }

    /// Leaves the file for the next run.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn local<'p>(operation: &'static str, path: &'p Path) -> impl Fn(std::io::Error) -> DockerError + 'p {
    move |cause| DockerError::Local { operation, subject: path.display().to_string(), cause }
}

/// Undoes what runs that are gone left behind. Returns what was done and what could not be, for people.
pub fn repair(state: &Path, runtime: &Handle, cancel: &Cancel) -> Vec<String> {
    let mut said = Vec::new();
    let Ok(files) = std::fs::read_dir(state.join(FOLDER)) else { return said };
    for path in files.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        if let Err(error) = repair_one(&path, runtime, cancel, &mut said) {
            said.push(format!(
                "an earlier run was ended in the midst of its work, and that cannot be undone yet: {error}"
            ));
        }
    }
    said
}

/// The engine goes on stopping a container when the run that asked for it is gone, and does not say so: what runs
/// now may end in a moment, and nobody would start it again. Says whether something still runs after `grace`.
fn wait_for_ends(
    daemon: &Daemon,
    acts: &[Act],
    grace: Duration,
    cancel: &Cancel,
) -> Result<bool, DockerError> {
    let begin = Instant::now();
    while acts.iter().any(|act| act.may_be_ending(daemon)) {
        if begin.elapsed() >= grace + ENDING {
            return Ok(true);
        }
        cancel.check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(false)
}

/// What a file says; `None`: it is torn, and so its run had not begun.
fn parse(path: &Path, text: &[u8]) -> Result<Option<Intent>, DockerError> {
    // Its version first: a newer one may look otherwise.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) else { return Ok(None) };
    let failed = |why: String| DockerError::Failed(format!("{}: {why}", path.display()));
    let Versioned { version } =
        Versioned::deserialize(&value).map_err(|error| failed(format!("no journal of ours: {error}")))?;
    if version != VERSION {
        return Err(failed(format!("written by a newer version ({version})")));
    }
    serde_json::from_value(value).map(Some).map_err(|error| failed(error.to_string()))
}

fn repair_one(
    path: &Path,
    runtime: &Handle,
    cancel: &Cancel,
    said: &mut Vec<String>,
) -> Result<(), DockerError> {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return Ok(()) };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        // Its run is alive.
        return Ok(());
    }
    let mut text = Vec::new();
    (&file).take(LIMIT_BYTES).read_to_end(&mut text).map_err(local("read", path))?;
    let Some(intent) = parse(path, &text)? else {
        return std::fs::remove_file(path).map_err(local("remove", path));
    };
    let daemon = Daemon::connect(Some(&intent.host), runtime, cancel)?;
    let age = file.metadata().ok().and_then(|stat| stat.modified().ok()?.elapsed().ok());
    let graces = intent.acts.iter().map(Act::grace);
    // One stop was under way, at any time since the first.
    let recent = age.is_some_and(|age| age < RECENT + graces.clone().sum::<Duration>());
    let grace = graces.max().unwrap_or_default();
    let mut kept = recent && wait_for_ends(&daemon, &intent.acts, grace, cancel)?;
    for act in intent.acts.iter().rev() {
        match act.undo(&daemon) {
            Ok(Some(done)) => said.push(format!("an earlier run was killed: {done}")),
            Ok(None) => {}
            Err(error) => {
                kept = true;
                said.push(format!("an earlier run was killed, and {error}"));
            }
        }
    }
    remove_left(&daemon, &intent.run, &intent.kept);
    said.extend(intent.kept.iter().map(|Kept { volume, instead_of }| {
        format!(
            "an earlier run was killed while it replaced volume {instead_of}: what was restored is whole in \
             volume {volume}, which is kept; remove it when {instead_of} is as it should be"
        )
    }));
    // What still runs may yet end: the next run looks again.
    if kept {
        return Ok(());
    }
    std::fs::remove_file(path).map_err(local("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_json_counts_as_torn() {
        let path = Path::new("run.json");
        for torn in ["", "{\"version\":1,\"host\":"] {
            assert!(parse(path, torn.as_bytes()).unwrap().is_none(), "{torn}");
        }
        let ours = r#"{"version":1,"host":"h","run":"r","acts":[]}"#;
        assert!(parse(path, ours.as_bytes()).unwrap().is_some());
        let newer = parse(path, br#"{"version":2,"steps":[]}"#).unwrap_err().to_string();
        assert!(newer.contains("newer version (2)"), "{newer}");
        for strange in [r#"{"version":1,"acts":7}"#, "[]", "{}"] {
            assert!(parse(path, strange.as_bytes()).is_err(), "{strange}");
        }
    }

    #[test]
    fn a_container_is_given_its_own_time_to_end() {
        let act = |timeout: &str| -> Act {
            let whose = format!(r#"{{"id":"i","name":"n","project":null,"service":null{timeout}}}"#);
            serde_json::from_str(&format!(r#"{{"stopped":{whose}}}"#)).unwrap()
        };
        assert_eq!(act("").grace(), Duration::from_secs(10));
        assert_eq!(act(r#","stop_timeout_s":90"#).grace(), Duration::from_secs(90));
        assert!(act(r#","stop_timeout_s":-1"#).grace() >= Duration::from_secs(3600));
    }
}
