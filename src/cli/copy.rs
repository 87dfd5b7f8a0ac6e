//! `copy`: snapshots to another place. What is there decides how: a replica, or a repository with keys of its own.

use std::path::PathBuf;

use serde::Serialize;

use super::filter::FilterArgs;
use super::new_secret::read_password_file;
use super::snapshots::short;
use super::text::{count, plural, shown};
use super::{CliError, Context, Exit, prompt};
use crate::app::{self, AppError};
use crate::base::byte_size;
use crate::config::{Password, file, read_key_file};
use crate::engine::copy::{CopyOptions, CopyOutcome, Way, copy};
use crate::repo::replica::{peek, sync_keys};
use crate::repo::{RepoError, Repository};
use crate::seal::block::Compression;
use crate::seal::slot::Unlock;
use crate::store::Location;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to: a repository with its own keys, or a replica made with `init --replica-of`
    #[arg(long, value_name = "PATH|URL")]
    to: String,
    /// Snapshots to copy [default: all]
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// File with the destination's password [default: the same password, else ask]
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Key file of the destination
    #[arg(long, value_name = "FILE", conflicts_with = "to_password_file")]
    to_key_file: Option<PathBuf>,
    /// Say what would be copied and copy nothing
    #[arg(long)]
    dry_run: bool,
}

/// Lost paths of a snapshot shown to people; JSON has more.
const SHOWN: usize = 20;

#[derive(Serialize)]
pub(super) struct Answer {
    way: Way,
    dry_run: bool,
    copied: Vec<Pair>,
    present: Vec<String>,
    forgotten: Vec<String>,
    failed: Vec<FailedRow>,
    added_bytes: u64,
    blocks_moved: u64,
    chunks_sealed: u64,
}

#[derive(Serialize)]
struct Pair {
    from: String,
    to: Option<String>,
}

#[derive(Serialize)]
struct FailedRow {
    snapshot: Option<String>,
    lost_count: u64,
    lost: Vec<(String, String)>,
}

impl From<&CopyOutcome> for Answer {
    fn from(outcome: &CopyOutcome) -> Self {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let copied = outcome.copied.iter();
        let failed = outcome.failed.iter();
        Self {
            way: outcome.way,
            dry_run: false,
            copied: copied.map(|c| Pair { from: c.from.hex(), to: c.to.map(|id| id.hex()) }).collect(),
            present: outcome.present.iter().map(|id| id.hex()).collect(),
            forgotten: outcome.forgotten.iter().map(|id| id.hex()).collect(),
            failed: failed
                .map(|failed| FailedRow {
                    snapshot: failed.snapshot.map(|id| id.hex()),
                    lost_count: failed.lost_count,
                    lost: failed.lost.iter().map(|(path, why)| (text(path), why.clone())).collect(),
                })
                .collect(),
            added_bytes: outcome.added_bytes,
            blocks_moved: outcome.blocks_moved,
            chunks_sealed: outcome.chunks_sealed,
        }
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let password = context.password()?;
    let source = app::open_repository(&context.settings, context.location()?, &password).await?;
    let other = context.other(&args.to)?;
    let target = open_target(&args, &other, &source, other.location()?, &password).await?;
    let options = CopyOptions {
        snapshots: args.snapshots,
        filter: args.filter.into(),
        compression: Compression::Zstd(target.config.compression_level),
        dry_run: args.dry_run,
    };
    let outcome = {
        let (counters, _display) = context.progress();
        copy(&source, &target, &options, counters.as_ref(), &context.cancel).await?
    };
    if context.json {
        context.json(&Answer { dry_run: args.dry_run, ..Answer::from(&outcome) })?;
    } else {
        tell(&outcome, args.dry_run, context)?;
    }
    Ok(if outcome.failed.is_empty() { Exit::Ok } else { Exit::Damage })
}

/// A replica gets its source's newest keys first, and opens with the same password.
async fn open_target(
    args: &Args,
    context: &Context,
    source: &Repository,
    location: &Location,
    password: &Password,
) -> Result<Repository, CliError> {
    let looking = async {
        let store = app::open_store(&context.settings, location)?;
        let found = peek(store.as_ref()).await?;
        Ok((store, found))
    };
    let (store, (repo, is_replica)) = context.until_cancelled(looking).await.map_err(|error| {
        let hint = format!(
            "check the address, or make a replica there: lifeboat -r {location} init --replica-of {}; or, without \
             --replica-of, a repository with keys of its own",
            source.store.location()
        );
        let is_absent = error.exit == Exit::NoRepository;
        let error = if is_absent { CliError { hint: Some(hint), ..error } } else { error };
        context.without_replica(error, location)
    })?;
    if repo == source.access.repo && is_replica && !args.dry_run {
        for slot in sync_keys(source, store.as_ref()).await?.only_here {
            context.warn(format_args!("{slot} opens the replica but not its source"));
        }
    }
    let given = match (&args.to_password_file, &args.to_key_file) {
        (Some(path), _) => Some(read_password_file(path, "--to-password-file")?),
        (None, Some(path)) => Some(Unlock::KeyFile(read_key_file(path)?)),
        // As the file says, where it knows the place.
        (None, None) if context.settings.password.origin == file::ORIGIN => {
            context.settings.password.read()?
        }
        (None, None) => None,
    };
    let opened = app::open_repository(&context.settings, location, given.as_ref().unwrap_or(password)).await;
    match opened {
        Err(AppError::Repo(RepoError::WrongKey { .. })) if given.is_none() => {
            let asked = prompt::password(&format!("password for {location}: ")).map_err(|error| {
                let hint = "the source's password does not open it: give its own with --to-password-file";
                CliError { hint: Some(hint.to_owned()), ..error }
            })?;
            Ok(app::open_repository(&context.settings, location, &asked).await?)
        }
        opened => Ok(opened?),
    }
}

pub(super) fn tell(outcome: &CopyOutcome, dry_run: bool, context: &Context) -> Result<(), CliError> {
    let mut out = context.out();
    let verb = if dry_run { "would copy" } else { "copied" };
    for copied in &outcome.copied {
        match copied.to.filter(|to| *to != copied.from) {
            _ if context.quiet && !dry_run => {}
            Some(to) => out.line(format_args!("{verb} {} as {}", short(&copied.from), short(&to)))?,
            None => out.line(format_args!("{verb} {}", short(&copied.from)))?,
        }
    }
    for failed in &outcome.failed {
        let id = failed.snapshot.map_or(String::new(), |id| short(&id));
        let lost = plural(failed.lost_count, "path");
        context.warn(format_args!("not copied: snapshot {id}: {lost} cannot be read"));
        for (path, why) in failed.lost.iter().take(SHOWN) {
            context.warn(format_args!("  {}: {why}", shown(path)));
        }
        if failed.lost_count > SHOWN as u64 {
            context.warn(format_args!("  and {} more", count(failed.lost_count - SHOWN as u64)));
        }
    }
    if !context.quiet {
        out.line(format_args!(
            "{} {verb}, {} there already, {} forgotten there, {} damaged; {} added",
            outcome.copied.len(),
            outcome.present.len(),
            outcome.forgotten.len(),
            outcome.failed.len(),
            byte_size::human(outcome.added_bytes),
        ))?;
    }
    out.finish()
}
