//! `init`: makes a repository and says what must be kept safe.

use std::sync::Arc;

use super::new_secret::make_key_file;
use super::{CliError, Context, Exit};
use crate::app;
use crate::base::byte_size;
use crate::config::{Origin, Password, PasswordSource};
use crate::format::id::RepoId;
use crate::format::keyring::{ARGON_MEMORY_LIMIT_KIB, ARGON_PASSES_LIMIT};
use crate::repo::create::CreateOptions;
use crate::seal::slot::{Cost, Unlock};
use crate::store::{Location, Store};

/// Packs smaller than this cost a request for next to nothing; larger ones do not fit the memory budget.
const PACK_RANGE_BYTES: std::ops::RangeInclusive<u64> = 4 << 20..=128 << 20;
/// Below this, guessing passwords becomes cheap.
const ARGON_MEMORY_LEAST_KIB: u32 = 8 << 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the first key is called in `key list`
    #[arg(long, default_value = "owner")]
    label: String,
    /// Size packs aim at, 4MiB to 128MiB; grows by itself with the repository
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = pack_size)]
    pack_size: u64,
    /// Memory that guessing one password costs (Argon2id), 8MiB to 1GiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = argon_memory)]
    argon_memory: u32,
    /// Passes over that memory
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(ARGON_PASSES_LIMIT)))]
    argon_passes: u32,
    /// Make a replica of this repository: same keys, own retention; `copy --to` fills it
    #[arg(long, value_name = "PATH|URL", conflicts_with_all = ["label", "pack_size", "argon_memory", "argon_passes"])]
    replica_of: Option<String>,
}

fn pack_size(text: &str) -> Result<u64, String> {
    let size = byte_size::parse(text).map_err(|error| error.to_string())?;
    match PACK_RANGE_BYTES.contains(&size) {
        true => Ok(size),
        false => Err("packs are from 4MiB to 128MiB".into()),
    }
}

fn argon_memory(text: &str) -> Result<u32, String> {
    let size = byte_size::parse(text).map_err(|error| error.to_string())?;
    let kib = u32::try_from(size >> 10).unwrap_or(u32::MAX);
    match (ARGON_MEMORY_LEAST_KIB..=ARGON_MEMORY_LIMIT_KIB).contains(&kib) {
        true => Ok(kib),
        false => Err("Argon2id is given from 8MiB to 1GiB".into()),
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let location = context.location()?;
    // Before the password: nobody should think of one for nothing.
    let store = app::vacant_store(&context.settings, location).await?;
    if let Some(source) = &args.replica_of {
        return replica(source, store, context).await;
    }
    let password = password(context)?;
    let options = CreateOptions {
        label: args.label,
        cost: Cost { memory_kib: args.argon_memory, passes: args.argon_passes, ..Cost::default() },
        pack_bytes: args.pack_size,
        ..CreateOptions::default()
    };
    let id = app::create_repository(store, &password, &options).await?;
    if context.json {
        let answer = serde_json::json!({ "repository_id": id.hex(), "location": location.to_string() });
        context.json(&answer)?;
    } else if !context.quiet {
        context.print(told(context, location, &id))?;
    }
    Ok(Exit::Ok)
}

async fn replica(source: &str, store: Arc<dyn Store>, context: &Context) -> Result<Exit, CliError> {
    let source = context.other(source)?.open().await?;
    app::create_replica(&source, store).await?;
    let location = context.location()?;
    if context.json {
        let id = source.access.repo.hex();
        let answer =
            serde_json::json!({ "repository_id": id, "location": location.to_string(), "replica": true });
        context.json(&answer)?;
    } else if !context.quiet {
        let from = source.store.location();
        context.print(format_args!(
            "created a replica of {from}\n    at {location}\n\n\
             It opens with the same passwords and keys.\n\nNext:\n  lifeboat -r {from} copy --to {location}"
        ))?;
    }
    Ok(Exit::Ok)
}

/// As the settings say; a key file that does not exist yet is made.
fn password(context: &Context) -> Result<Password, CliError> {
    match &context.settings.password.value {
        PasswordSource::KeyFile(path) if !path.exists() => Ok(Unlock::KeyFile(make_key_file(path)?)),
        _ => context.new_password(),
    }
}

fn told(context: &Context, location: &Location, id: &RepoId) -> String {
    let secret = match &context.settings.password.value {
        PasswordSource::KeyFile(path) => format!("the key file {}", path.display()),
        PasswordSource::File(path) => format!("the password (now in {})", path.display()),
        _ => "the password".to_owned(),
    };
    let address = match context.settings.repository.as_ref().map(|found| found.origin) {
        Some(Origin::Flag(_)) => format!(" -r {location}"),
        _ => String::new(),
    };
    format!(
        "created repository {id}\n    at {location}\n\n\
         Keep these away from this machine, or nothing can be restored when it is lost:\n  \
         - the address above\n  - {secret}: nobody can reset it\n\n\
         Next:\n  lifeboat{address} backup FOLDER…\n  lifeboat{address} snapshots"
    )
}
