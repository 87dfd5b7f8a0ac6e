//! `cache`: what this machine keeps of repositories. All of it may go at any time; backups are then slower once.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::text::{local_time, table};
use super::{CliError, Context, Exit};
use crate::base::byte_size;
use crate::format::id::RepoId;
use crate::repo::to_timestamp;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the cached repositories and their sizes (the default)
    List,
    /// Remove the cache of some repositories, or of all
    Clear {
        /// Repository ids, or the beginning of one
        #[arg(value_name = "ID", required_unless_present = "all")]
        ids: Vec<String>,
        /// Of every repository
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

#[derive(Debug, Serialize)]
struct Cached {
    repository_id: String,
    path: PathBuf,
    size_bytes: u64,
    last_used_at: Option<String>,
    #[serde(skip)]
    last_used: Option<SystemTime>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let Some(folder) = context.settings.cache.value.as_deref() else {
        let origin = context.settings.cache.origin;
        return Err(CliError::usage(format!("no cache is kept, says {origin}")));
    };
    let cached = list(folder)?;
    match args.command.unwrap_or(Command::List) {
        Command::List => show(context, folder, &cached)?,
        Command::Clear { ids, .. } => clear(context, &cached, &ids)?,
    }
    Ok(Exit::Ok)
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("{what} {}: {error}", path.display()))
}

/// Folders named by a repository id; nothing else in there is ours to touch.
fn list(folder: &Path) -> Result<Vec<Cached>, CliError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", folder, &error)),
    };
    let mut cached = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed("list", folder, &error))?;
        let Some(id) = entry.file_name().to_str().and_then(RepoId::from_hex) else { continue };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let (size_bytes, last_used) = measure(&entry.path());
        let time = last_used.and_then(|time| jiff::Timestamp::try_from(time).ok());
        cached.push(Cached {
            repository_id: id.hex(),
            path: entry.path(),
            size_bytes,
            last_used_at: time.map(|time| time.to_string()),
            last_used,
        });
    }
    cached.sort_by(|a, b| a.repository_id.cmp(&b.repository_id));
    Ok(cached)
}

/// Bytes in all files, and the newest mtime. What vanishes meanwhile does not count.
fn measure(folder: &Path) -> (u64, Option<SystemTime>) {
    let (mut size_bytes, mut newest) = (0, None);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let (size, time) = measure(&entry.path());
            size_bytes += size;
            newest = newest.max(time);
        } else {
            size_bytes += metadata.len();
            newest = newest.max(metadata.modified().ok());
        }
    }
    (size_bytes, newest)
}

fn show(context: &Context, folder: &Path, cached: &[Cached]) -> Result<(), CliError> {
    if context.json {
        return context.json(&cached);
    }
    let total: u64 = cached.iter().map(|cached| cached.size_bytes).sum();
    let mut rows = vec![["Repository", "Size", "Last used"].map(str::to_owned).to_vec()];
    for cached in cached {
        let time = cached.last_used.and_then(|time| jiff::Timestamp::try_from(time).ok());
        rows.push(vec![
            cached.repository_id.clone(),
            byte_size::human(cached.size_bytes).to_string(),
            time.map(|time| local_time(to_timestamp(time))).unwrap_or_default(),
        ]);
    }
    let origin = context.settings.cache.origin;
    let head = format!("{} (from {origin}): {}", folder.display(), byte_size::human(total));
    match cached.is_empty() {
        true => context.print(format_args!("{head}, no repository")),
        false => context.print(format_args!("{head}\n\n{}", table(&rows, &[1]))),
    }
}

fn clear(context: &Context, cached: &[Cached], ids: &[String]) -> Result<(), CliError> {
    let chosen: Vec<&Cached> = match ids {
        [] => cached.iter().collect(),
        ids => cached.iter().filter(|cached| ids.iter().any(|id| meant(cached, id))).collect(),
    };
    if let Some(id) = ids.iter().find(|id| !cached.iter().any(|cached| meant(cached, id))) {
        return Err(CliError::new(Exit::Failed, format!("nothing is cached of a repository {id:?}")));
    }
    for cached in &chosen {
        std::fs::remove_dir_all(&cached.path).map_err(|error| failed("remove", &cached.path, &error))?;
    }
    let freed: u64 = chosen.iter().map(|cached| cached.size_bytes).sum();
    if context.json {
        let removed: Vec<&str> = chosen.iter().map(|cached| cached.repository_id.as_str()).collect();
        return context.json(&serde_json::json!({ "removed": removed, "freed_bytes": freed }));
    }
    context.note(format_args!("removed {} caches, {} free", chosen.len(), byte_size::human(freed)));
    Ok(())
}

fn meant(cached: &Cached, id: &str) -> bool {
    !id.is_empty() && cached.repository_id.starts_with(&id.to_ascii_lowercase())
}
