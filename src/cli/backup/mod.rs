//! `backup`: folders, a piped stream, or a command's output, into a new snapshot.
//!
//! A job is what belongs together over time: its snapshots share a chain, a cache and a retention. Unless named,
//! it is `files:` and the paths, or the stream's name.

mod report;
pub mod service;
mod stdin;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::text::shown;
use super::{CliError, Context, Exit};
use crate::app::{acceptances, services};
use crate::base::byte_size;
use crate::base::process::ProcessOptions;
use crate::chunk::Profile;
use crate::config::file::Job;
use crate::engine::backup::{self as engine, BackupOptions, BackupOutcome, CaptureRequest, FilesRequest};
use crate::format::entry::Timestamp;
use crate::repo::snapshots::parse_time;
use crate::repo::{Repository, to_timestamp};
use crate::seal::block::Compression;
use crate::source::capture::{Capture, Single};
use crate::source::command::{CommandOptions, CommandSource};
use crate::source::files::exclude::ExcludeOptions;
use crate::source::files::walk::WalkOptions;
use crate::source::files::{key_of_path, path_of_key};
use crate::source::stdin::StreamSource;
use crate::store::Location;

/// zstd levels of `--compression fast` and `max`; `default` is the repository's.
const FAST_LEVEL: i32 = -3;
const MAX_LEVEL: i32 = 19;
/// Longer job names made from paths are cut and made unique by a hash.
const JOB_NAME_CHARS: usize = 200;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders and files, or one service such as sqlite:FILE; with --command, the command and its arguments after `--`
    #[arg(value_name = "PATH|SERVICE", required_unless_present = "stdin")]
    what: Vec<OsString>,
    /// Back up standard input
    #[arg(long, requires = "stdin_filename", conflicts_with_all = ["what", "command"])]
    stdin: bool,
    /// Name of the stream in the snapshot, such as app.sql
    #[arg(long, value_name = "NAME")]
    stdin_filename: Option<String>,
    /// Run a command and back up what it prints; a snapshot is made only when it ends well
    #[arg(long, requires = "stdin_filename")]
    command: bool,
    /// Accept a stream without a single byte
    #[arg(long)]
    allow_empty: bool,
    /// What the snapshot belongs to [default: files:PATHS or the stream's name]
    #[arg(long, value_name = "NAME", value_parser = super::text::job)]
    job: Option<String>,
    /// Machine to file it under [default: this machine's name]
    #[arg(long, value_name = "NAME", value_parser = super::text::name)]
    host: Option<String>,
    /// Tag of the snapshot (may be repeated)
    #[arg(long = "tag", value_name = "TAG", value_parser = super::text::name)]
    tags: Vec<String>,
    #[command(flatten)]
    exclude: Exclude,
    /// How hard to compress
    #[arg(long, value_enum, default_value = "default")]
    compression: Strength,
    /// How finely to cut: files, database, or a size from 1KiB to 1MiB [default: what suits the source]
    #[arg(long, value_name = "PROFILE", value_parser = profile)]
    chunks: Option<Profile>,
    /// Pretend that it is this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Timestamp>,
    /// Read and count, store nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read every file, also those that look unchanged
    #[arg(short, long)]
    force: bool,
    /// Threads that compress and encrypt [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to leave out")]
struct Exclude {
    /// Leave out what matches, in gitignore syntax (may be repeated)
    #[arg(short, long = "exclude", value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The same, upper and lower case alike
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// File with a pattern a line
    #[arg(long = "exclude-file", value_name = "FILE")]
    exclude_files: Vec<PathBuf>,
    /// The same, upper and lower case alike
    #[arg(long = "iexclude-file", value_name = "FILE")]
    iexclude_files: Vec<PathBuf>,
    /// Leave out what is in folders marked as caches (CACHEDIR.TAG)
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out what is in folders that hold such a file; NAME:TEXT: that starts with TEXT
    #[arg(long, value_name = "NAME")]
    exclude_if_present: Vec<String>,
    /// Leave out larger files
    #[arg(long, value_name = "SIZE", value_parser = size)]
    exclude_larger_than: Option<u64>,
    /// Do not enter other file systems
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

impl Args {
    /// What a job of the configuration file means.
    pub fn of_job(name: &str, job: &Job, dry_run: bool) -> Self {
        let exclude = Exclude {
            exclude: job.exclude.clone(),
            iexclude: Vec::new(),
            exclude_files: Vec::new(),
            iexclude_files: Vec::new(),
            exclude_caches: job.exclude_caches,
            exclude_if_present: Vec::new(),
            exclude_larger_than: None,
            one_file_system: job.one_file_system,
        };
        Self {
            what: job.source.all().into_iter().map(OsString::from).collect(),
            stdin: false,
            stdin_filename: None,
            command: false,
            allow_empty: false,
            job: Some(name.to_owned()),
            host: None,
            tags: job.tags.clone(),
            exclude,
            compression: Strength::Default,
            chunks: None,
            time: None,
            dry_run,
            force: false,
            threads: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Strength {
    None,
    Fast,
    Default,
    Max,
}

fn size(text: &str) -> Result<u64, String> {
    byte_size::parse(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = parse_time(text).ok_or("write a time such as 2026-11-20T02:00 or 2026-11-20T02:00:00Z")?;
    Ok(to_timestamp(time))
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "files" => Ok(Profile::FILES),
        "database" => Ok(Profile::DATABASE),
        other => {
            let nominal = size(other).ok().and_then(|size| u32::try_from(size).ok());
            let profile = nominal.and_then(Profile::new);
            profile.ok_or_else(|| "write files, database, or a power of two from 1KiB to 1MiB".into())
        }
    }
}

impl Exclude {
    fn options(&self) -> Result<WalkOptions, CliError> {
        Ok(WalkOptions {
            exclude: ExcludeOptions {
                patterns: self.exclude.clone(),
                patterns_any_case: self.iexclude.clone(),
                files: read_all(&self.exclude_files)?,
                files_any_case: read_all(&self.iexclude_files)?,
                caches: self.exclude_caches,
                if_present: self.exclude_if_present.clone(),
                larger_than_bytes: self.exclude_larger_than,
            },
            one_file_system: self.one_file_system,
            ..WalkOptions::default()
        })
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<String>, CliError> {
    let read = |path: &PathBuf| {
        let read = std::fs::read_to_string(path);
        read.map_err(|error| CliError::usage(format!("read patterns from {}: {error}", path.display())))
    };
    files.iter().map(read).collect()
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let cwd = std::env::current_dir()
        .map_err(|error| CliError::new(Exit::Failed, format!("find the current folder: {error}")))?;
    let walk = args.exclude.options()?;
    let repo = context.open().await?;
    let started = Instant::now();
    let (outcome, options) = match args.stdin_filename.clone() {
        Some(name) if args.stdin || args.command => stream(&args, name, context, &repo).await?,
        Some(_) => return Err(CliError::usage("--stdin-filename needs --stdin or --command")),
        None => {
            if args.what.iter().any(|path| path.is_empty()) {
                let hint = "an empty variable, perhaps? the current folder is .";
                return Err(CliError::usage("one of the paths to back up is empty").hint(hint));
            }
            if let Some(address) = service_address(&args.what)? {
                let opened = service::open(address, context, &repo).await?;
                let options = options(&args, opened.job, context, &repo)?;
                let request = CaptureRequest { source: opened.capture, kind: opened.kind };
                let outcome = captured(request, &options, context, &repo).await?;
                (outcome, options)
            } else {
                let paths: Vec<PathBuf> = args.what.iter().map(PathBuf::from).collect();
                let options = options(&args, default_job(&paths, &cwd), context, &repo)?;
                let walk = spare_repository(walk, context, &paths, &cwd)?;
                let request = FilesRequest { paths, cwd, walk };
                let (counters, display) = context.progress();
                let outcome = engine::files(&repo, &request, &options, counters, &context.cancel).await;
                drop(display);
                (outcome?, options)
            }
        }
    };
    use_up_acceptance(&options, &outcome, context, &repo);
    report::tell(context, &options, &outcome, started.elapsed())
}

async fn stream(
    args: &Args,
    name: String,
    context: &Context,
    repo: &Repository,
) -> Result<(BackupOutcome, BackupOptions), CliError> {
    let mut options = options(args, name.clone(), context, repo)?;
    if args.allow_empty {
        options.accepted.get_or_insert("--allow-empty was given".into());
    }
    let now = repo.world.now();
    let (source, kind): (Box<dyn Capture>, _) = if args.command {
        let process =
            ProcessOptions { withheld: crate::config::SECRET_VARIABLES, ..ProcessOptions::default() };
        let how = CommandOptions { process, allow_empty: args.allow_empty };
        let source = CommandSource::start(&args.what, how, now, &context.cancel);
        let source = source.map_err(|error| CliError::from_chain(Exit::Failed, &error))?;
        (Box::new(Single::new(name, source)), "command")
    } else {
        let stdin = stdin::Stdin::new(context.cancel.clone());
        (Box::new(Single::new(name, StreamSource::new(stdin, args.allow_empty, now))), "stdin")
    };
    let outcome = captured(CaptureRequest { source, kind }, &options, context, repo).await?;
    Ok((outcome, options))
}

async fn captured(
    request: CaptureRequest,
    options: &BackupOptions,
    context: &Context,
    repo: &Repository,
) -> Result<BackupOutcome, CliError> {
    let (counters, display) = context.progress();
    let outcome = engine::capture(repo, request, options, counters, &context.cancel).await;
    drop(display);
    Ok(outcome?)
}

/// A repository that lies in what is backed up would back itself up, and grow with every run: it is left out.
fn spare_repository(
    mut walk: WalkOptions,
    context: &Context,
    paths: &[PathBuf],
    cwd: &Path,
) -> Result<WalkOptions, CliError> {
    let Location::Local { path: repository } = context.location()? else { return Ok(walk) };
    let Ok(repository) = repository.canonicalize() else { return Ok(walk) };
    for path in paths {
        let Ok(real) = cwd.join(path).canonicalize() else { continue };
        let Ok(below) = repository.strip_prefix(&real) else { continue };
        if below.as_os_str().is_empty() {
            let message = format!("{} is the repository itself", shown(path.as_os_str().as_encoded_bytes()));
            return Err(CliError::usage(message).hint("a second copy of it is made with `init --replica-of`"));
        }
        let inside = path_of_key(&key_of_path(path, cwd)).join(below);
        context.note(format_args!(
            "left out: {}, the repository itself",
            shown(inside.as_os_str().as_encoded_bytes())
        ));
        match inside.to_str() {
            Some(inside) => walk.exclude.patterns.push(ExcludeOptions::exactly(inside)),
            None => {
                return Err(CliError::usage(
                    "the repository lies in what is backed up; exclude it with --exclude",
                ));
            }
        }
    }
    Ok(walk)
}

/// The address, if a service is what is to be backed up.
fn service_address(what: &[OsString]) -> Result<Option<String>, CliError> {
    let mut addresses =
        what.iter().filter_map(|text| text.to_str()).filter(|text| services::is_service(text));
    match (addresses.next(), what.len()) {
        (None, _) => Ok(None),
        (Some(address), 1) => Ok(Some(address.to_owned())),
        (Some(address), _) => {
            Err(CliError::usage(format!("{address} stands beside other things to back up"))
                .hint("a service has a snapshot of its own: run one backup for it and one for the rest"))
        }
    }
}

/// An acceptance is for one snapshot.
fn use_up_acceptance(options: &BackupOptions, outcome: &BackupOutcome, context: &Context, repo: &Repository) {
    if outcome.snapshot.is_none() || options.accepted.is_none() {
        return;
    }
    let (settings, id) = (&context.settings, &repo.access.repo);
    let used = acceptances::find(settings, id, &options.job, &options.host)
        .and_then(|found| found.map_or(Ok(()), |found| acceptances::use_up(settings, id, &found)));
    if let Err(error) = used {
        context.warn(format_args!("what was accepted stays accepted: {error}"));
    }
}

fn options(
    args: &Args,
    job: String,
    context: &Context,
    repo: &Repository,
) -> Result<BackupOptions, CliError> {
    let settings = &context.settings;
    let job = args.job.clone().unwrap_or(job);
    let host = args.host.clone().unwrap_or_else(|| settings.hostname.clone());
    let accepted = acceptances::find(settings, &repo.access.repo, &job, &host)?;
    Ok(BackupOptions {
        job,
        host,
        user: settings.user.clone(),
        tags: args.tags.clone(),
        compression: match args.compression {
            Strength::None => Compression::None,
            Strength::Fast => Compression::Zstd(FAST_LEVEL),
            Strength::Default => Compression::Zstd(repo.config.compression_level),
            Strength::Max => Compression::Zstd(MAX_LEVEL),
        },
        profile: args.chunks,
        time: args.time,
        dry_run: args.dry_run,
        force: args.force,
        threads: args.threads,
        accepted: accepted.map(|accepted| accepted.reason),
    })
}

/// `files:/etc,/srv`: the same paths make the same job, in whatever order and spelling.
pub fn default_job(paths: &[PathBuf], cwd: &Path) -> String {
    let mut names: Vec<String> = paths
        .iter()
        .map(|path| path_of_key(&key_of_path(path, cwd)).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    let job = format!("files:{}", names.join(","));
    if job.chars().count() <= JOB_NAME_CHARS {
        return job;
    }
    let hash = blake3::hash(job.as_bytes()).to_hex();
    let start: String = job.chars().take(JOB_NAME_CHARS - 18).collect();
    format!("{start}…#{}", &hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_its_paths_however_they_are_written() {
        let cwd = Path::new("/srv/app");
        let job = |paths: &[&str]| default_job(&paths.iter().map(PathBuf::from).collect::<Vec<_>>(), cwd);
        assert_eq!(job(&["/etc", "."]), "files:/etc,/srv/app");
        assert_eq!(job(&["../app/", "/etc/", "/etc"]), "files:/etc,/srv/app");
        let long = format!("/{}", "é".repeat(300));
        assert_eq!(job(&[&long]).chars().count(), JOB_NAME_CHARS);
        assert_ne!(job(&[&long]), job(&[&(long.clone() + "2")]));
    }
}
