//! The backup verb: from files or a stream to a committed snapshot.
//!
//! A pass walks and stores ([`pipeline`]), then the snapshot is committed as [`crate::repo::commit`] says. If a
//! pruner condemned what a pass relied on, another pass stores just that again: unchanged files come from the
//! cache, and only those whose chunks are gone are read. A stream cannot be read twice: then the backup fails.

mod assemble;
pub mod feed;
mod file_cache;
pub mod given;
mod links;
mod packer;
pub mod pieces;
pub mod pipeline;
mod plan;
pub mod stream;
mod worker;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use file_cache::{CacheReader, CacheWriter, JobCache, Validity};
pub use pieces::Problem;
use pipeline::{Input, Setup};
pub use stream::{CaptureRequest, capture};

use super::EngineError;
use super::read::left_out::LeftOut;
use crate::base::cancel::Cancel;
use crate::base::causes::causes;
use crate::base::progress::Progress;
use crate::chunk::Profile;
use crate::format::entry::Timestamp;
use crate::format::id::{KeyId, SnapshotId};
use crate::format::manifest::{Statistics, Summary};
use crate::repo::commit::{Draft, Pending};
use crate::repo::reach::Reach;
use crate::repo::run::{BEAT, Run};
use crate::repo::sync::Thoroughness;
use crate::repo::tree::key_of_path;
use crate::repo::{RepoError, Repository};
use crate::seal::block::Compression;
use crate::source::files::walk::{WalkOptions, walk};

/// Passes of one run at most. Each further one means that a pruner condemned more meanwhile.
const PASSES: usize = 4;
/// A file that changed this shortly before the run began may change again within the clock's grain, unnoticed.
const GRAIN_NANOSECONDS: i128 = 100_000_000;
/// Packs grow with the repository up to this many bytes; larger ones would not fit the memory promised.
const PACK_GROWTH_LIMIT_BYTES: u64 = 64 << 20;
/// A repository up to this many bytes has packs of the configured size.
const PACK_GROWTH_FROM_BYTES: u64 = 64 << 30;

/// What any backup is told.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    pub job: String,
    pub host: String,
    pub user: String,
    pub tags: Vec<String>,
    pub compression: Compression,
    /// `None`: what suits the source.
    pub profile: Option<Profile>,
    /// Stands for the present in the manifest: for imports and tests.
    pub time: Option<Timestamp>,
    /// Reads and counts, stores nothing.
    pub dry_run: bool,
    /// Reads every file, whatever the cache says.
    pub force: bool,
    /// Worker threads; 0 is one a core.
    pub threads: usize,
    /// Why it is right that something of the run before is gone or empty.
    pub accepted: Option<String>,
}

/// Folders and files to back up.
#[derive(Clone, Debug)]
pub struct FilesRequest {
    pub paths: Vec<PathBuf>,
    /// What relative paths are relative to.
    pub cwd: PathBuf,
    pub walk: WalkOptions,
}

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupOutcome {
    /// `None` after a dry run.
    pub snapshot: Option<SnapshotId>,
    pub statistics: Statistics,
    /// Paths missing from the snapshot or not as they should be; not empty: the snapshot is partial.
    pub problems: Vec<Problem>,
    /// What somebody should know although nothing is missing.
    pub warnings: Vec<String>,
    pub started: Timestamp,
    pub finished: Timestamp,
    /// Storage passes it took; above 1 a pruner got in the way.
    pub passes: usize,
}

/// Backs up folders and files.
pub async fn files(
    repo: &Repository,
    request: &FilesRequest,
    options: &BackupOptions,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<BackupOutcome, EngineError> {
    let mut session = Session::begin(repo, options, Profile::FILES, progress, cancel).await?;
    let result = files_in(&mut session, request, cancel).await;
    session.end().await;
    result
}

async fn files_in(
    session: &mut Session<'_>,
    request: &FilesRequest,
    cancel: &Cancel,
) -> Result<BackupOutcome, EngineError> {
    let (repo, options) = (session.repo, session.options);
    let job = if options.dry_run {
        None
    } else {
        repo.local.folder().and_then(|folder| JobCache::open(folder, &options.job))
    };
    let paths = stored_paths(&request.paths, &request.cwd);
    let left_out = LeftOut::facts(&request.walk)?;
    let roots: Vec<Vec<u8>> = paths.iter().map(|path| key_of_path(path)).collect();
    let mut pending: Option<(Draft, Pending)> = None;
    for pass in 1..=PASSES {
        let (caches, writer) = session.caches(job.as_ref(), options.force && pass == 1)?;
        let walk = walk(&request.paths, &request.cwd, request.walk.clone(), cancel)
            .map_err(|error| EngineError::Source(causes(&error)))?;
        let reach = Reach::new(repo.local.folder());
        let assembled =
            session.pipeline(Input::Files { roots: roots.clone(), walk, caches, writer }, reach).await?;
        let statistics = session.statistics(assembled.statistics);
        let mut outcome = session.outcome(statistics, assembled.problems, pass);
        if options.dry_run {
            return Ok(outcome);
        }
        let (mut facts, known) = (left_out.clone(), repo.snapshots().await?);
        outcome.warnings = given::judge(&assembled.given, &known, options, &mut facts)?;
        let facts = serde_json::Value::Object(facts).to_string();
        let draft = Draft {
            summary: session.summary("files", session.started, &outcome, facts),
            root: assembled.root,
            paths: paths.clone(),
        };
        // A pass that ends in the same tree proves the manifest already put; another tree needs its own.
        let put = match pending.take() {
            Some((before, put)) if before.root == draft.root => put,
            _ => session.run()?.put_manifest_after(&draft, &known).await?,
        };
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
        tracing::info!(
            chunks = missing.len(),
            pass,
            "a prune condemned chunks this backup reuses; storing them again"
        );
        if let Some(job) = &job {
            job.keep_partial();
        }
        session.renew()?;
        pending = Some((draft, put));
    }
    let message = "a prune kept condemning what this backup reuses; run it again when the prune is done";
    Err(RepoError::Conflict(message.into()).into())
}

/// One backup under way.
struct Session<'r> {
    repo: &'r Repository,
    options: &'r BackupOptions,
    run: Option<Run<'r>>,
    setup: Setup,
    started: Timestamp,
}

impl<'r> Session<'r> {
    async fn begin(
        repo: &'r Repository,
        options: &'r BackupOptions,
        profile: Profile,
        progress: Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<Self, EngineError> {
        // A key that cannot deduplicate cannot back up: say so before anything is written.
        repo.access.home().cut_key().map_err(|_| repo.not_permitted("back up"))?;
        let started = options.time.unwrap_or_else(|| repo.world.now());
        let (run, inventory) = if options.dry_run {
            let inventory = repo.sync(Thoroughness::Tolerant).await?;
            (Run::unannounced(repo)?, inventory)
        } else {
            Run::begin(repo).await?
        };
        let mut setup = Setup::new(repo, &run, options.profile.unwrap_or(profile), options.compression);
        let stored_bytes: u64 = inventory.packs.values().map(|pack| pack.size_bytes).sum();
        setup.pack_bytes = pack_bytes(repo.config.pack_bytes, stored_bytes);
        setup.dry_run = options.dry_run;
        if options.threads > 0 {
            setup.threads = options.threads;
        }
        setup.progress = progress;
        setup.progress.phase("storing");
        setup.cancel = cancel.clone();
        let real = repo.world.clock.now().as_nanosecond() - GRAIN_NANOSECONDS;
        setup.settled_before = Timestamp {
            seconds: real.div_euclid(1_000_000_000) as i64,
            nanoseconds: real.rem_euclid(1_000_000_000) as u32,
        };
        Ok(Self { repo, options, run: Some(run), setup, started })
    }

    fn run(&self) -> Result<&Run<'r>, EngineError> {
        self.run.as_ref().ok_or_else(|| EngineError::Refused("the run has ended".into()))
    }

    fn run_mut(&mut self) -> Result<&mut Run<'r>, EngineError> {
        self.run.as_mut().ok_or_else(|| EngineError::Refused("the run has ended".into()))
    }

    /// What the job's last run knew, unless everything is to be read, and where this one writes what it learns.
    fn caches(
        &self,
        job: Option<&JobCache>,
        read_all: bool,
    ) -> Result<(Vec<CacheReader>, Option<CacheWriter>), EngineError> {
        let Some(job) = job else { return Ok((Vec::new(), None)) };
        let validity = Validity {
            domain: self.repo.access.home,
            chunk_bytes: self.setup.profile.nominal_bytes,
            generation: self.run()?.generation,
        };
        let readers = if read_all { Vec::new() } else { job.readers(validity) };
        Ok((readers, job.writer(validity)))
    }

    /// Before another pass: what is gone now is known to be gone.
    fn renew(&mut self) -> Result<(), EngineError> {
        let generation = self.repo.index.generation().map_err(RepoError::from)?;
        self.run_mut()?.generation = generation;
        Ok(())
    }

    /// Runs the threads, and shows a sign of life every hour meanwhile.
    async fn pipeline(&mut self, input: Input, reach: Reach) -> Result<assemble::Assembled, EngineError> {
        let (setup, runtime) = (self.setup.clone(), tokio::runtime::Handle::current());
        let mut work = tokio::task::spawn_blocking(move || pipeline::run(setup, input, reach, runtime));
        let dry_run = self.options.dry_run;
        loop {
            tokio::select! {
                done = &mut work => {
                    return done.unwrap_or_else(|_| Err(EngineError::Source("the backup panicked".into())));
                }
                () = tokio::time::sleep(BEAT), if !dry_run => {
                    // A beat that fails is tried again in an hour; the check at the end does not rely on it.
                    if let Err(error) = self.run_mut()?.beat().await {
                        tracing::warn!(%error, "cannot show that this run is alive");
                    }
                }
            }
        }
    }

    fn statistics(&self, mut statistics: Statistics) -> Statistics {
        statistics.read_bytes = self.setup.counts.read_bytes.load(Ordering::Relaxed);
        statistics.added_bytes = self.setup.counts.pack_bytes.load(Ordering::Relaxed);
        statistics
    }

    fn outcome(&self, statistics: Statistics, problems: Vec<Problem>, passes: usize) -> BackupOutcome {
        let finished = self.options.time.unwrap_or_else(|| self.repo.world.now());
        let warnings = Vec::new();
        BackupOutcome {
            snapshot: None,
            statistics,
            problems,
            warnings,
            started: self.started,
            finished,
            passes,
        }
    }

    fn summary(
        &self,
        source: &str,
        consistent: Timestamp,
        outcome: &BackupOutcome,
        facts: String,
    ) -> Summary {
        let options = self.options;
        Summary {
            author: KeyId([0; 16]),
            source: source.to_owned(),
            job: options.job.clone(),
            host: options.host.clone(),
            user: options.user.clone(),
            tags: options.tags.clone(),
            started: outcome.started,
            consistent: options.time.unwrap_or(consistent),
            finished: outcome.finished,
            statistics: outcome.statistics,
            facts,
            parent: None,
            original: None,
            chunk_bytes: self.setup.profile.nominal_bytes,
            sequence: 0,
            previous: None,
            heads: Vec::new(),
            program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
            nonce: [0; 16],
            contents_hash: [0; 32],
        }
    }

    async fn end(&mut self) {
        if let Err(error) = self.repo.index.save_filter() {
            tracing::debug!(%error, "the index filter is not kept");
        }
        if let Some(run) = self.run.take() {
            run.end().await;
        }
    }
}

/// Packs grow with the square root of the repository.
fn pack_bytes(configured: u64, stored_bytes: u64) -> usize {
    let ratio = (stored_bytes as f64 / PACK_GROWTH_FROM_BYTES as f64).sqrt().max(1.0);
    let limit = PACK_GROWTH_LIMIT_BYTES.max(configured);
    ((configured as f64 * ratio) as u64).min(limit) as usize
}

fn stored_paths(paths: &[PathBuf], cwd: &Path) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let absolute =
        |path: &PathBuf| crate::source::files::path_of_key(&crate::source::files::key_of_path(path, cwd));
    let mut stored: Vec<Vec<u8>> =
        paths.iter().map(|path| absolute(path).as_os_str().as_bytes().to_vec()).collect();
    stored.sort();
    stored.dedup();
    stored
}
