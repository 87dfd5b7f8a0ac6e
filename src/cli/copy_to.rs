//! The copy that follows a backup: one job's snapshots, to a repository that the configuration file names.

use super::copy::{Answer, tell};
use super::{CliError, Context, Exit};
use crate::app;
use crate::engine::copy::{CopyOptions, copy};
use crate::repo::replica::{peek, sync_keys};
use crate::repo::snapshots::Filter;
use crate::seal::block::Compression;

/// Copies what `job` has in `from` and `to` has not. `name`: the destination's, for messages.
pub async fn run(job: &str, name: &str, from: &Context, to: &Context) -> Result<Exit, CliError> {
    let password = from.password()?;
    let source = app::open_repository(&from.settings, from.location()?, &password).await?;
    let location = to.location()?;
    let looking = async {
        let store = app::open_store(&to.settings, location)?;
        let found = peek(store.as_ref()).await?;
        Ok((store, found))
    };
    let looked = from.until_cancelled(looking).await;
    let (store, (repo, is_replica)) = looked.map_err(|error| from.without_replica(error, location))?;
    if repo == source.access.repo && is_replica {
        for slot in sync_keys(&source, store.as_ref()).await?.only_here {
            from.warn(format_args!("{slot} opens {name} but not its source"));
        }
    }
    // A replica shares its source's keys.
    let own = to.settings.password.read()?;
    let target = app::open_repository(&to.settings, location, own.as_ref().unwrap_or(&password)).await?;
    let options = CopyOptions {
        snapshots: Vec::new(),
        filter: Filter { jobs: vec![job.to_owned()], ..Filter::default() },
        compression: Compression::Zstd(target.config.compression_level),
        dry_run: false,
    };
    let outcome = {
        let (counters, _display) = from.progress();
        copy(&source, &target, &options, counters.as_ref(), &from.cancel).await?
    };
    if from.json {
        from.json(&Answer::from(&outcome))?;
    } else {
        if !outcome.copied.is_empty() {
            from.note(format_args!("copy of {job} to {name}:"));
        }
        tell(&outcome, false, from)?;
    }
    Ok(if outcome.failed.is_empty() { Exit::Ok } else { Exit::Damage })
}
