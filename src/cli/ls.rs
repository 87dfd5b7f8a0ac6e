//! `ls`: what is in a snapshot. As JSON, one object a line, so that a listing of any length can be piped.

use std::ffi::OsString;

use super::entries::{JsonEntry, line};
use super::filter::FilterArgs;
use super::paths::{open_to_read, select};
use super::text::count;
use super::{CliError, Context, Exit};
use crate::engine::EngineError;
use crate::engine::ls::list;
use crate::repo::snapshots::Filter;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Everything in a snapshot, or with :PATH what is in that folder
    #[arg(value_name = "SNAP[:PATH]")]
    what: OsString,
    /// Everything below PATH, not only what is directly in it
    #[arg(short = 'R', long)]
    recursive: bool,
    /// With permissions, owner, size and mtime
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    snapshots: FilterArgs,
}

/// The engine's errors carry no terminal's: what a closed pipe says is kept beside.
pub fn keep<T>(result: Result<T, CliError>, kept: &mut Option<CliError>) -> Result<T, EngineError> {
    result.map_err(|error| {
        kept.get_or_insert(error);
        EngineError::Source("stdout is gone".into())
    })
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let repo = open_to_read(context).await?;
    let selected = select(context, &repo, &args.what, &Filter::from(args.snapshots)).await?;
    let recursive = args.recursive || selected.key.is_empty();
    let (mut out, mut failed) = (context.out(), None);
    let mut show = |key: &[u8], entry: &crate::format::entry::Entry| {
        let shown = if context.json {
            out.json(&JsonEntry::new(key, entry))
        } else {
            out.line(line(key, entry, args.long))
        };
        keep(shown, &mut failed)
    };
    let listed = list(&repo, &selected, recursive, &context.cancel, &mut show).await;
    if let Some(error) = failed {
        return Err(error);
    }
    let listing = listed?;
    out.finish()?;
    if listing.unreadable_pages == 0 {
        return Ok(Exit::Ok);
    }
    let pages = count(listing.unreadable_pages);
    context.warn(format_args!("{pages} pages of the tree are damaged: what they held is missing here"));
    Ok(Exit::Damage)
}
