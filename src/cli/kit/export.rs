//! `kit export`: collects what a kit is to hold, writes it to new files, and notes that it was made.

use std::path::{Path, PathBuf};

use super::super::{CliError, Context, Exit};
use super::show::tell;
use crate::app::{drills, kits};
use crate::config::{Environment, location};
use crate::engine;
use crate::format::id::to_hex;
use crate::repo::kit::Extras;
use crate::store::Location;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// New file: a page to print when it ends in .html, else text; either is a kit
    file: PathBuf,
    /// Write the page to print too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Further address to put into it, of a replica (may be repeated); those of the configuration file are in it
    #[arg(long = "replica", value_name = "PATH|URL")]
    replicas: Vec<String>,
    /// Leave the configuration file out
    #[arg(long)]
    no_config: bool,
}

/// An address that means the same on another machine: no folder is relative to where somebody once stood.
pub fn address_of(location: &Location) -> Result<String, CliError> {
    let Location::Local { path } = location else { return Ok(location.to_string()) };
    let path = std::path::absolute(path).map_err(|error| CliError::usage(format!("{location}: {error}")))?;
    if path.to_str().is_none() {
        return Err(CliError::usage(format!("{location} is not UTF-8, and a kit is text")));
    }
    Ok(Location::local(path).to_string())
}

fn addresses(args: &Args, context: &Context) -> Result<Vec<String>, CliError> {
    let environment = Environment::of_process();
    let own = context.location()?;
    let mut all = vec![own.clone()];
    for replica in &args.replicas {
        all.push(location(replica, &environment)?);
    }
    if context.has_file()
        && let Ok(found) = context.file()
    {
        for (name, repository) in &found.file.repository {
            if location(&repository.url, &environment).is_ok_and(|url| url == *own) {
                for kin in found.file.kin_of(name) {
                    all.push(location(&kin.url, &environment)?);
                }
            }
        }
    }
    let mut addresses: Vec<String> = Vec::new();
    for location in &all {
        let address = address_of(location)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// What evidence of this machine's drills is checked with.
fn drill_keys(context: &Context) -> Vec<String> {
    let key = drills::known_key(&context.settings);
    let line = |key: ed25519_dalek::SigningKey| {
        format!("{} {}", to_hex(key.verifying_key().as_bytes()), context.settings.hostname)
    };
    key.map(line).into_iter().collect()
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    for path in std::iter::once(&args.file).chain(&args.html) {
        // Before a password is asked for.
        if path.symlink_metadata().is_ok() {
            let why = format!("{} exists: a kit is never overwritten", path.display());
            return Err(CliError::new(Exit::Failed, why).hint("name a new file, and destroy the old kit"));
        }
    }
    let repo = context.open().await?;
    let config = if args.no_config { None } else { super::configuration(context) };
    let hash = config.as_ref().map(|(_, text)| kits::config_hash(text));
    let extras = Extras {
        addresses: addresses(&args, context)?,
        drill_keys: drill_keys(context),
        config: config.map(|(_, text)| text),
    };
    let kit = engine::kit::export(&repo, &args.file, extras).await?;
    if let Some(path) = &args.html {
        engine::kit::write_private(path, engine::kit::page(&kit)?.as_bytes())?;
    }
    let event = kits::event(&context.settings, &kit, repo.world.clock.now());
    let noted = kits::note(&context.settings, &kit.repo, |record| {
        record.exported = Some(event);
        record.config = hash;
    });
    if context.json || !context.quiet {
        tell(&kit, context)?;
    }
    if !context.json {
        let page = [Some(&args.file), args.html.as_ref()].into_iter().flatten();
        let page = page
            .map(PathBuf::as_path)
            .find(|path: &&Path| engine::kit::is_page(path) || Some(*path) == args.html.as_deref());
        match page {
            Some(page) => {
                let codes = engine::kit::codes(&kit).0.len();
                let codes = if codes == 1 { "a QR code".to_owned() } else { format!("{codes} QR codes") };
                context.note(format_args!("print {}: one sheet of A4 with {codes}", page.display()));
            }
            None => context.note("`kit export kit.html` makes a page to print, with QR codes"),
        }
        context.note(format_args!(
            "the owner's password is not in it; prove that both work: lifeboat kit open {}\n\
             make a new kit after every {}",
            args.file.display(),
            engine::kit::OUTDATED_BY
        ));
        if let Err(error) = noted {
            context.warn(format_args!("that a kit was made is not noted: {error}"));
        }
    }
    Ok(Exit::Ok)
}
