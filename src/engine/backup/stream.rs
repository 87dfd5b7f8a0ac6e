//! Backing up what is not a folder: the parts of a [`Capture`], one after the other, as one snapshot.
//!
//! The snapshot is committed only after the capture itself said that it ended well.

use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Sender, bounded};

use super::file_cache::JobCache;
use super::pieces::{Problem, Stop, Work};
use super::pipeline::Input;
use super::plan::Planner;
use super::{BackupOptions, BackupOutcome, Session, given};
use crate::base::cancel::Cancel;
use crate::base::causes::causes;
use crate::base::progress::Progress;
use crate::chunk::Profile;
use crate::engine::EngineError;
use crate::engine::backup::given::Given;
use crate::format::entry::{Content, Entry, Kind};
use crate::repo::commit::Draft;
use crate::repo::reach::Reach;
use crate::repo::tree::{is_within, key_of_path};
use crate::repo::{RepoError, Repository};
use crate::source::capture::{Capture, Folder, Part, SourceError, Step};
use crate::source::files::path_of_key;
use crate::source::files::place::Places;
use crate::source::files::walk::{WalkOptions, walk_folder};

/// A service, command or piped stream to back up.
pub struct CaptureRequest {
    pub source: Box<dyn Capture>,
    /// `stdin`, `command`, `postgres` and so on.
    pub kind: &'static str,
}

/// Backs up one capture.
///
/// # Errors
/// The capture ended badly, storage fails, a prune got in the way: nothing is committed.
pub async fn capture(
    repo: &Repository,
    request: CaptureRequest,
    options: &BackupOptions,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<BackupOutcome, EngineError> {
    let folders = request.source.folders();
    let profile = if folders.is_empty() { Profile::DATABASE } else { Profile::FILES };
    let mut session = Session::begin(repo, options, profile, progress, cancel).await?;
    let result = capture_in(&mut session, request, &folders).await;
    session.end().await;
    result
}

async fn capture_in(
    session: &mut Session<'_>,
    request: CaptureRequest,
    folders: &[Folder],
) -> Result<BackupOutcome, EngineError> {
    let CaptureRequest { source, kind } = request;
    let (repo, options) = (session.repo, session.options);
    let roots: Vec<(Vec<u8>, Vec<u8>)> =
        source.roots().into_iter().map(|path| (key_of_path(path.as_bytes()), path.into_bytes())).collect();
    let given = match roots.is_empty() {
        true => Given::steps(),
        false => Given::below(roots.iter().map(|(key, _)| key.clone()).collect()),
    };
    let mut tops = Vec::<(Vec<u8>, Vec<u8>)>::new();
    for root in roots {
        if !tops.iter().any(|(top, _)| is_within(&root.0, top)) {
            tops.push(root);
        }
    }
    let source = Shared::new(source, tops);
    let reach = Reach::new(repo.local.folder());
    let places =
        Places::of_folders(folders.iter().map(|folder| (folder.key.as_slice(), folder.path.as_path())))
            .map_err(|errno| EngineError::Local {
                operation: "open",
                path: "/".into(),
                cause: errno.into(),
            })?;
    // Streams are read anew each time; files of folders are told changed from unchanged as ever.
    let job = match repo.local.folder() {
        Some(folder) if !options.dry_run && !folders.is_empty() => JobCache::open(folder, &options.job),
        _ => None,
    };
    let (caches, writer) = session.caches(job.as_ref(), options.force)?;
    let input = Input::Capture { source: source.clone(), places: Arc::new(places), caches, writer, given };
    let assembled = session.pipeline(input, reach).await;
    let paths = source.paths();
    let captured = match (assembled, source.take()) {
        // The producer's own words explain a broken stream better than the read that noticed it.
        (Err(EngineError::Local { cause, .. }), Some(source)) => match finish(source).await {
            Err(error) => return Err(error),
            Ok(_) => return Err(EngineError::Source(causes(&cause))),
        },
        (Err(error), source) => {
            // It may have to wait for its service while it ends.
            let _ = tokio::task::spawn_blocking(move || drop(source)).await;
            return Err(error);
        }
        (Ok(_), None) => return Err(EngineError::Source("the capture was lost".into())),
        (Ok(assembled), Some(source)) => (assembled, finish(source).await?),
    };
    let (assembled, mut captured) = captured;
    if paths.is_empty() && !options.dry_run {
        return Err(EngineError::Source("the source gave nothing at all".into()));
    }
    let mut statistics = session.statistics(assembled.statistics);
    statistics.problems += captured.problems.len() as u64;
    let mut problems = assembled.problems;
    // Of the service as a whole.
    let of_service = |message| Problem { path: String::new(), message };
    problems.extend(std::mem::take(&mut captured.problems).into_iter().map(of_service));
    let mut outcome = session.outcome(statistics, problems, 1);
    outcome.warnings = std::mem::take(&mut captured.warnings);
    if options.dry_run {
        return Ok(outcome);
    }
    let known = repo.snapshots().await?;
    let doubts = given::judge(&assembled.given, &known, options, &mut captured.facts)?;
    outcome.warnings.extend(doubts);
    if !outcome.warnings.is_empty() {
        captured.facts.insert("warnings".into(), outcome.warnings.clone().into());
    }
    let facts = serde_json::Value::Object(captured.facts).to_string();
    let summary = session.summary(kind, captured.consistent, &outcome, facts);
    let draft = Draft { summary, root: assembled.root, paths };
    let put = session.run()?.put_manifest_after(&draft, &known).await?;
    let mut reach = assembled.reach;
    let missing = session.run_mut()?.check(&mut reach).await?;
    if missing.is_empty() {
        session.run()?.confirm(&put).await?;
        // What was found under an index that ends with this run says nothing about the next one's.
        if let Some(job) = job.as_ref().filter(|_| repo.index.is_kept()) {
            job.accept();
        }
        outcome.snapshot = Some(put.id);
        outcome.statistics.added_bytes += put.size_bytes;
        return Ok(outcome);
    }
    let message = "a prune condemned chunks this stream reused, and a stream cannot be read again; run the backup \
                   once more (the snapshot stays unconfirmed)";
    Err(RepoError::Conflict(message.into()).into())
}

/// Asks a capture how it went, on a thread where it may wait.
async fn finish(source: Box<dyn Capture>) -> Result<crate::source::capture::Captured, EngineError> {
    let finished = tokio::task::spawn_blocking(move || source.finish()).await;
    finished.map_err(|_| EngineError::Source("the capture panicked: this is a bug".into()))?.map_err(failed)
}

/// What a verb says of a source's or target's error.
pub fn failed(error: SourceError) -> EngineError {
    match error {
        SourceError::Cancelled(cancelled) => cancelled.into(),
        error @ SourceError::Differs(_) => EngineError::Differs(error.to_string()),
        SourceError::Refused(why) => EngineError::Refused(why),
        error => EngineError::Source(causes(&error)),
    }
}

/// A capture that a worker reads, the planner asks for parts and the verb asks at the end.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<State>>);

struct State {
    source: Option<Box<dyn Capture>>,
    /// The capture's roots, else streams and the tops of trees: key, and path as it is recorded.
    tops: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Shared {
    fn new(source: Box<dyn Capture>, tops: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self(Arc::new(Mutex::new(State { source: Some(source), tops })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Box<dyn Capture>> {
        self.lock().source.take()
    }

    fn paths(&self) -> Vec<Vec<u8>> {
        self.lock().tops.iter().map(|(_, path)| path.clone()).collect()
    }

    /// Deals out the steps, each after the one before was read.
    pub fn plan(&self, planner: &mut Planner<'_>, places: &Arc<Places>) -> Result<(), Stop> {
        let mut last: Option<Vec<u8>> = None;
        loop {
            planner.cancel.check()?;
            let step = {
                let mut state = self.lock();
                let Some(source) = &mut state.source else { return Err(Stop::Hung) };
                source.next_step().map_err(|error| Stop::Failed(failed(error)))?
            };
            let Some(step) = step else { return Ok(()) };
            let key = match &step {
                Step::Stream(part) => key_of_path(part.path.as_bytes()),
                Step::Entry { key, .. } | Step::Folder { key } => key.clone(),
            };
            check_key(&key, last.as_deref())?;
            // What the snapshot says it holds: an entry below one that came before belongs to that.
            if !self.lock().tops.iter().rev().any(|(top, _)| is_within(&key, top)) {
                let path = match &step {
                    Step::Stream(part) => part.path.clone().into_bytes(),
                    _ => path_of_key(&key).into_os_string().into_vec(),
                };
                self.lock().tops.push((key.clone(), path));
            }
            match step {
                Step::Stream(part) => self.stream(planner, key.clone(), entry(&part))?,
                Step::Entry { entry, .. } if entry.content().is_some() => {
                    self.stream(planner, key.clone(), *entry)?;
                }
                Step::Entry { entry, .. } => {
                    let reader = Box::new(std::io::empty());
                    planner.outlet.send(Work::Stream { key: key.clone(), entry, reader })?;
                }
                Step::Folder { .. } => {
                    let walk = walk_folder(places, &key, WalkOptions::default(), &planner.cancel)
                        .map_err(|error| Stop::Failed(EngineError::Source(causes(&error))))?;
                    planner.walk_and_wait(walk)?;
                }
            }
            last = Some(key);
        }
    }

    fn stream(&self, planner: &Planner<'_>, key: Vec<u8>, entry: Entry) -> Result<(), Stop> {
        let (ended, end) = bounded(1);
        let reader = Box::new(PartReader { source: self.clone(), ended });
        planner.outlet.send(Work::Stream { key, entry: Box::new(entry), reader })?;
        // A reader that is dropped before the end: the worker has stopped and says why.
        end.recv().map_err(|_| Stop::Hung)
    }
}

fn check_key(key: &[u8], last: Option<&[u8]>) -> Result<(), Stop> {
    let refused = |why: String| Stop::Failed(EngineError::Refused(why));
    let path = || path_of_key(key).display().to_string();
    if key.is_empty() || key.split(|byte| *byte == 0).any(|name| matches!(name, b".." | b"." | b"")) {
        return Err(refused(format!(
            "{:?} is no name for a stream\nhint: write a name or path without . and .., such as app.sql or db/app.sql",
            path().trim_start_matches('/')
        )));
    }
    if last.is_some_and(|last| last >= key) {
        return Err(refused(format!("the source gave {:?} out of order: this is a bug", path())));
    }
    Ok(())
}

fn entry(part: &Part) -> Entry {
    Entry {
        kind: Kind::Stream(Content::empty()),
        mode: part.mode,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime: part.mtime,
        xattrs: Vec::new(),
        hardlink_to: None,
    }
}

/// Reads the current part for a worker; tells the planner when it ended.
struct PartReader {
    source: Shared,
    ended: Sender<()>,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut state = self.source.lock();
        let Some(source) = &mut state.source else { return Ok(0) };
        let length = source.read(buffer)?;
        drop(state);
        if length == 0 && !buffer.is_empty() {
            // The planner may be gone.
            let _ = self.ended.try_send(());
        }
        Ok(length)
    }
}
