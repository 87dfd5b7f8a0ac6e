//! `demo`: the whole way on made-up data in a temporary folder: back up, change, back up, destroy, recover, prove.
//!
//! It runs the code that the other verbs run, with the built-in defaults and none of the user's settings.

mod proof;
mod servers;
mod service;
mod stack;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::backup::default_job;
use super::text::{count, span};
use super::{CliError, Context, Exit};
use crate::app;
use crate::base::byte_size::human;
use crate::base::progress::NoProgress;
use crate::config::{Environment, Overrides, Settings};
use crate::engine::backup::{self, BackupOptions, BackupOutcome, FilesRequest};
use crate::engine::read::select::SnapshotPath;
use crate::engine::restore::{self, RestoreOptions};
use crate::repo::Repository;
use crate::repo::create::CreateOptions;
use crate::repo::snapshots::Filter;
use crate::seal::block::Compression;
use crate::seal::slot::Unlock;
use crate::source::files::walk::WalkOptions;

use crate::drill::sandbox::Ground;
use proof::Fingerprint;
use servers::{Kind, Server};
use service::blocking;
use stage::Stage;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the temporary folder where it is, to look around in it
    #[arg(long)]
    keep: bool,
}

/// What the demo's own parts, not Lifeboat's, may stumble over.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the sample stack: {0}")]
    Disk(#[from] std::io::Error),
    #[error("the sample database: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("{0}")]
    Wrong(String),
}

impl From<Failure> for CliError {
    fn from(error: Failure) -> Self {
        let exit = if matches!(error, Failure::Wrong(_)) { Exit::Damage } else { Exit::Failed };
        Self::from_chain(exit, &error)
    }
}

/// The password of a repository that nobody needs afterwards.
const PASSWORD: &str = "correct horse battery staple";

/// The answer with `--json`.
#[derive(Debug, Default, serde::Serialize)]
struct Answer {
    files: u64,
    bytes: u64,
    first_added_bytes: u64,
    second_added_bytes: u64,
    recovered_in_seconds: f64,
    orders: u64,
    /// Which servers took part.
    servers: Vec<String>,
    /// What the drill came to.
    drill: String,
    /// Always true: anything else is an error.
    identical: bool,
    folder: Option<PathBuf>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let mut builder = tempfile::Builder::new();
    let folder = builder.prefix("lifeboat-demo-").tempdir().map_err(Failure::from)?;
    let mut stage = Stage::new(context);
    // Servers lie beside it: they may run as another user, and a socket's path must be short.
    let scratch = std::env::temp_dir();
    let ground = servers::ground(&scratch, context);
    let played = play(folder.path(), &ground, context, &mut stage).await;
    // Also when it failed: then there is even more to look at.
    let kept = args.keep.then(|| folder.keep());
    let mut answer = played?;
    if let Some(folder) = &kept {
        stage.say(&format!("Kept: {} (the password is {PASSWORD:?})", folder.display()))?;
    }
    answer.folder = kept;
    if context.json {
        context.json(&answer)?;
    }
    Ok(Exit::Ok)
}

async fn play(
    folder: &Path,
    ground: &Ground,
    context: &Context,
    stage: &mut Stage,
) -> Result<Answer, CliError> {
    let stack = folder.join("shop");
    stage
        .title("Lifeboat: from disaster to proof", &format!("everything happens in {}", folder.display()))?;

    let began = stage.begin("A small stack")?;
    stack::create(&stack)?;
    let (files, bytes) = Fingerprint::take(&stack)?.files();
    stage.done(began)?;
    stage.detail(&format!("{} files, {} in {}", count(files), human(bytes), stack.display()))?;
    stage.detail(&format!(
        "compose file, settings, certificate and key, uploads, a database with {} orders",
        count(stack::ORDERS.into())
    ))?;

    let mut running = start_servers(ground, stage).await?;

    let began = stage.begin("A new repository")?;
    let repo = repository(folder).await?;
    stage.done(began)?;
    stage.detail("encrypted: without the password nobody reads a byte of it")?;

    let mut answer = Answer::default();
    let (first, _) = back_up(&repo, &stack, context, stage, "First backup").await?;
    answer.first_added_bytes = first.statistics.added_bytes;
    stage.detail(&format!(
        "{} read, {} stored after deduplication and compression",
        human(first.statistics.read_bytes),
        human(first.statistics.added_bytes)
    ))?;

    let began = stage.begin("A day of business")?;
    stack::change(&stack)?;
    stage.done(began)?;
    stage.detail(&format!(
        "{} orders added, {} refunded, a setting edited, the log grew",
        stack::NEW_ORDERS,
        stack::CHANGED_ORDERS
    ))?;

    let (second, before) = back_up(&repo, &stack, context, stage, "Second backup").await?;
    answer.second_added_bytes = second.statistics.added_bytes;
    let total = second.statistics.total_bytes.max(1);
    let known = 100.0 - 100.0 * second.statistics.added_bytes as f64 / total as f64;
    stage.detail(&format!(
        "{} of {} files read, {} stored: {known:.1} % of {} was there already",
        second.statistics.files - second.statistics.files_unmodified,
        count(second.statistics.files),
        human(second.statistics.added_bytes),
        human(total)
    ))?;
    let orders = stack::ask_database(&stack)?;
    let held = back_up_servers(&repo, &running, ground, context, stage).await?;
    // The question itself may have touched the folder's times; what counts is what was backed up.
    running = disaster(&stack, running, ground, stage).await?;
    let (seconds, proven) = recover(&repo, &stack, &running, ground, context, stage).await?;
    answer.recovered_in_seconds = seconds;
    prove(&stack, &before, orders, stage)?;
    prove_servers(&running, &held, &proven, stage)?;
    answer.servers = running.iter().map(|server| server.version.clone()).collect();
    let has_postgres = running.iter().any(|server| server.kind == Kind::Postgres);
    blocking(move || Ok(running.into_iter().try_for_each(Server::destroy)?)).await?;
    let job = default_job(std::slice::from_ref(&stack), Path::new("/"));
    answer.drill = service::drill(&repo, has_postgres, &job, ground, context, stage).await?;

    (answer.files, answer.bytes) = before.files();
    (answer.orders, answer.identical) = (orders.0, true);
    stage.end(&format!(
        "Recovered {} files, {}, in {}. Nothing was lost.",
        count(answer.files),
        human(answer.bytes),
        span(std::time::Duration::from_secs_f64(answer.recovered_in_seconds))
    ))?;
    Ok(answer)
}

/// As `init` and every later verb would do it, but for the settings, which are all defaults.
async fn repository(folder: &Path) -> Result<Repository, CliError> {
    let address = folder.join("repository");
    let overrides = Overrides {
        repository: Some(format!("file:{}", address.display())),
        cache_dir: Some(folder.join("cache")),
        ..Overrides::default()
    };
    let settings = Settings::resolve(&overrides, &Environment::of(&[], false))?;
    let location = app::location(&settings)?;
    let unlock = Unlock::Passphrase(zeroize::Zeroizing::new(PASSWORD.as_bytes().to_vec()));
    let store = app::vacant_store(&settings, location).await?;
    app::create_repository(store, &unlock, &CreateOptions::default()).await?;
    Ok(app::open_repository(&settings, location, &unlock).await?)
}

/// Backs the stack up, and returns with the outcome what the stack then was.
async fn back_up(
    repo: &Repository,
    stack: &Path,
    context: &Context,
    stage: &mut Stage,
    title: &str,
) -> Result<(BackupOutcome, Fingerprint), CliError> {
    let began = stage.begin(title)?;
    let request =
        FilesRequest { paths: vec![stack.to_owned()], cwd: PathBuf::from("/"), walk: WalkOptions::default() };
    let options = options(repo, default_job(&request.paths, &request.cwd), context);
    let outcome = backup::files(repo, &request, &options, Arc::new(NoProgress), &context.cancel).await?;
    stage.done(began)?;
    match outcome.problems.first() {
        Some(problem) => Err(Failure::Wrong(format!("{}: {}", problem.path, problem.message)).into()),
        None => Ok((outcome, Fingerprint::take(stack)?)),
    }
}

/// How everything of the demo is backed up.
fn options(repo: &Repository, job: String, context: &Context) -> BackupOptions {
    BackupOptions {
        job,
        host: context.settings.hostname.clone(),
        user: context.settings.user.clone(),
        tags: vec!["demo".into()],
        compression: Compression::Zstd(repo.config.compression_level),
        profile: None,
        time: None,
        dry_run: false,
        force: false,
        threads: 0,
        accepted: None,
    }
}

/// Starts and fills the servers whose programs are here.
async fn start_servers(ground: &Ground, stage: &mut Stage) -> Result<Vec<Server>, CliError> {
    let began = stage.begin("Its servers")?;
    let ground = ground.clone();
    let (running, filled, missing) = blocking(move || {
        let (running, missing) = servers::start(&ground);
        let filled: Vec<String> = running.iter().map(Server::fill).collect::<Result<_, _>>()?;
        Ok((running, filled, missing))
    })
    .await?;
    stage.done(began)?;
    for line in filled {
        stage.detail(&line)?;
    }
    if !missing.is_empty() {
        stage.detail(&format!("not installed here, and left out: {}", missing.join(", ")))?;
    }
    Ok(running)
}

/// Backs the servers up. Returns what each then held.
async fn back_up_servers(
    repo: &Repository,
    running: &[Server],
    ground: &Ground,
    context: &Context,
    stage: &mut Stage,
) -> Result<Vec<String>, CliError> {
    let mut held = Vec::new();
    if running.is_empty() {
        return Ok(held);
    }
    let began = stage.begin("The servers, while they run")?;
    let mut lines = Vec::new();
    for server in running {
        lines.push(service::back_up(repo, server, ground, context).await?);
        held.push(server.ask()?);
    }
    stage.done(began)?;
    lines.iter().try_for_each(|line| stage.detail(line))?;
    Ok(held)
}

/// Everything is gone. Returns the servers anew, empty, as somebody would install them.
async fn disaster(
    stack: &Path,
    running: Vec<Server>,
    ground: &Ground,
    stage: &mut Stage,
) -> Result<Vec<Server>, CliError> {
    let began = stage.begin("Disaster")?;
    std::fs::remove_dir_all(stack).map_err(Failure::from)?;
    let names: Vec<&str> = running.iter().map(|server| server.kind.name()).collect();
    let gone = match names.is_empty() {
        true => String::new(),
        false => format!("{} and all their data are gone", names.join(" and ")),
    };
    let ground = ground.clone();
    let fresh = blocking(move || {
        let fresh: Vec<Server> =
            running.iter().map(|server| server.again(&ground)).collect::<Result<_, _>>()?;
        running.into_iter().try_for_each(Server::destroy)?;
        Ok(fresh)
    })
    .await?;
    stage.done(began)?;
    stage.detail(&format!("rm -rf {}: the stack is gone", stack.display()))?;
    if !gone.is_empty() {
        stage.detail(&format!("{gone}; new, empty ones were started"))?;
    }
    Ok(fresh)
}

/// Restores the stack to where it was, and the servers' data. Returns how long it took, in seconds, and what the
/// restores proved.
async fn recover(
    repo: &Repository,
    stack: &Path,
    running: &[Server],
    ground: &Ground,
    context: &Context,
    stage: &mut Stage,
) -> Result<(f64, Vec<String>), CliError> {
    let began = stage.begin("Recovery")?;
    let clock = Instant::now();
    let mut meant = std::ffi::OsString::from("latest:");
    meant.push(stack);
    let selected = SnapshotPath::parse(&meant)?.select(repo, &Filter::default()).await?;
    let options = RestoreOptions { target: stack.to_owned(), ..RestoreOptions::default() };
    let outcome =
        restore::restore(repo, &selected, &options, None, Arc::new(NoProgress), &context.cancel).await?;
    let mut proven = Vec::new();
    for server in running {
        proven.extend(service::restore(repo, server, ground, context).await?);
    }
    let seconds = clock.elapsed().as_secs_f64();
    stage.done(began)?;
    let problems = [&outcome.damaged, &outcome.failed, &outcome.attributes];
    if let Some(problem) = problems.iter().find_map(|problems| problems.named.first()) {
        return Err(Failure::Wrong(problem.message.clone()).into());
    }
    stage.detail(&format!("lifeboat restore latest:{0} --target {0}", stack.display()))?;
    for server in running {
        let address = crate::app::services::shown(&server.address());
        let short = address.split('?').next().unwrap_or_default();
        stage.detail(&format!("lifeboat restore {}@latest --to {short}", service::job(server.kind)))?;
    }
    Ok((seconds, proven))
}

/// Asks the servers by their own means; then says what the restores themselves proved.
fn prove_servers(
    running: &[Server],
    held: &[String],
    proven: &[String],
    stage: &mut Stage,
) -> Result<(), CliError> {
    for (server, before) in running.iter().zip(held) {
        let found = server.ask()?;
        let name = server.kind.name();
        if found != *before {
            return Err(Failure::Wrong(format!("{name} held {before:?} and holds {found:?}")).into());
        }
        let number = found.split(' ').next().unwrap_or_default();
        let things = if server.kind == Kind::Postgres { "rows" } else { "keys" };
        stage
            .check(&format!("{name} asked by its own client: the same {number} {things}, value by value"))?;
    }
    proven.iter().try_for_each(|line| stage.check(line))
}

fn prove(stack: &Path, before: &Fingerprint, orders: (u64, u64), stage: &mut Stage) -> Result<(), CliError> {
    let began = stage.begin("Proof")?;
    // Before the database is asked: opening it must not excuse a difference.
    let differences = before.differences(&Fingerprint::take(stack)?);
    if !differences.is_empty() {
        let shown = differences.join("\n  ");
        return Err(Failure::Wrong(format!("what came back is not what was there:\n  {shown}")).into());
    }
    let found = stack::ask_database(stack)?;
    if found != orders {
        return Err(Failure::Wrong(format!("the database had {orders:?} and has {found:?}")).into());
    }
    stage.done(began)?;
    let (files, _) = before.files();
    stage.check(&format!("{} of {} files are the same, byte for byte", count(files), count(files)))?;
    stage.check(&format!(
        "permissions, owners and times of all {} files, folders and links are the same",
        count(before.paths())
    ))?;
    stage.check(&format!(
        "SQLite finds its database sound: {} orders worth {}.{:02} €",
        count(found.0),
        count(found.1 / 100),
        found.1 % 100
    ))
}
