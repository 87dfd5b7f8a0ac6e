//! `kit`: what is needed besides the backups when everything else is gone, as a page to print.

mod export;
mod open;
mod show;

use std::path::PathBuf;

use super::{CliError, Context, Exit};
use crate::config::file::{self, Repository};
use crate::config::{Environment, Settings, location};
use crate::engine;
use crate::repo::kit::Kit;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write the kit to a new file: print it, and keep it where the backups are not
    Export(export::Args),
    /// Say what a kit opens, when it was made and whether it is current; reaches nothing
    Show {
        /// The kit: its text, its page, or the scanned codes, one a line
        file: PathBuf,
        /// Print the configuration file that it holds, and nothing else
        #[arg(long)]
        print_config: bool,
    },
    /// Prove that the kit and its password open the repository at each of its addresses, and note when that was
    Open {
        /// The kit: its text, its page, or the scanned codes, one a line
        file: PathBuf,
    },
}

pub use export::address_of;

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.what {
        What::Export(args) => export::run(args, context).await,
        What::Show { file, print_config } => show::run(&engine::kit::load(&file)?, print_config, context),
        What::Open { file } => open::run(&file, context).await,
    }
}

/// The configuration file as a kit holds it, if there is one; a file that is of no use costs the kit nothing else.
fn configuration(context: &Context) -> Option<(PathBuf, String)> {
    if !context.has_file() {
        return None;
    }
    let found = context.file().map_err(|error| error.causes.join(": "));
    match found
        .and_then(|found| Ok((found.path.clone(), found.redacted().map_err(|error| error.to_string())?)))
    {
        Ok(found) => Some(found),
        Err(error) => {
            context.warn(error);
            None
        }
    }
}

/// Settings for an address of a kit: storage options come from the configuration file here if it has that address,
/// else from the one that the kit holds.
pub fn settings_for(kit: &Kit, address: &str, context: &Context) -> Result<Settings, CliError> {
    let wanted = location(address, &Environment::of_process())?;
    if let Ok(found) = context.file()
        && let Some((_, repository)) = super::address::at(&found, &wanted, &Environment::of_process())
        && let Ok(settings) =
            context.settings_of(&Repository { url: address.to_owned(), ..repository.clone() })
    {
        return Ok(settings);
    }
    let options = options_for(kit, address)?.into_iter().collect();
    let (replica_of, via) = (None, std::collections::BTreeMap::new());
    let repository = Repository { url: address.to_owned(), replica_of, via, password: None, options };
    context.settings_of(&repository)
}

/// The storage options that the configuration file in the kit has for an address.
pub fn options_for(kit: &Kit, address: &str) -> Result<Vec<(String, String)>, CliError> {
    let environment = Environment::of_process();
    let wanted = location(address, &environment)?;
    let held = kit.config.as_deref().and_then(|text| file::parse("lifeboat.toml".as_ref(), text).ok());
    let is_there =
        |repository: &&Repository| location(&repository.url, &environment).is_ok_and(|found| found == wanted);
    let options = held.as_ref().and_then(|held| held.file.repository.values().find(is_there));
    let mut options = options.map(|repository| repository.options.clone()).unwrap_or_default();
    options.retain(|_, value| !value.contains(file::LEFT_OUT));
    Ok(options.into_iter().collect())
}
