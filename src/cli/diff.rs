//! `diff`: what changed between two snapshots.

use std::ffi::OsString;

use serde::Serialize;

use super::entries::JsonEntry;
use super::filter::FilterArgs;
use super::paths::{JsonPath, open_to_read, select, shown_key};
use super::text::count;
use super::{CliError, Context, Exit};
use crate::base::byte_size;
use crate::engine::diff::{Difference, Differences, Tally, compare};
use crate::format::entry::Entry;
use crate::repo::RepoError;
use crate::repo::snapshots::Filter;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The older snapshot, or one path of it
    #[arg(value_name = "SNAP[:PATH]")]
    before: OsString,
    /// The newer snapshot; with the same path
    #[arg(value_name = "SNAP[:PATH]")]
    after: OsString,
    /// Also paths whose metadata alone changed
    #[arg(short, long)]
    metadata: bool,
    #[command(flatten)]
    snapshots: FilterArgs,
}

#[derive(Serialize)]
struct Row {
    change: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<JsonEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<JsonEntry>,
}

/// The sign of a change, and its name in JSON.
fn names(difference: Difference) -> (char, &'static str) {
    match difference {
        Difference::Added => ('+', "added"),
        Difference::Removed => ('-', "removed"),
        Difference::Type => ('T', "type"),
        Difference::Content => ('M', "content"),
        Difference::Metadata => ('U', "metadata"),
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let repo = open_to_read(context).await?;
    let filter = Filter::from(args.snapshots);
    let before = select(context, &repo, &args.before, &filter).await?;
    let after = select(context, &repo, &args.after, &filter).await?;
    let (mut out, mut failed) = (context.out(), None);
    let mut show = |difference, key: &[u8], old: Option<&Entry>, new: Option<&Entry>| {
        if difference == Difference::Metadata && !args.metadata {
            return Ok(());
        }
        let (sign, name) = names(difference);
        let shown = if context.json {
            let json = |entry: Option<&Entry>| entry.map(|entry| JsonEntry::new(key, entry));
            let path = JsonPath::of_key(key);
            out.json(&Row { change: name, path, before: json(old), after: json(new) })
        } else {
            let slash = if new.or(old).is_some_and(Entry::is_directory) { "/" } else { "" };
            out.line(format_args!("{sign} {}{slash}", shown_key(key)))
        };
        shown.map_err(|error| {
            failed.get_or_insert(error);
            RepoError::Conflict("stdout is gone".into())
        })
    };
    let compared = compare(&repo, &before, &after, &context.cancel, &mut show).await;
    if let Some(error) = failed {
        return Err(error);
    }
    let differences = compared?;
    if context.json {
        out.json(&serde_json::json!({ "summary": differences }))?;
    } else {
        for text in summary(&differences) {
            out.line(text)?;
        }
    }
    out.finish()?;
    Ok(Exit::Ok)
}

fn summary(differences: &Differences) -> Vec<String> {
    let row = |name: &str, tally: &Tally| {
        format!(
            "{name:<9} {:>8} files, {:>6} folders, {:>5} others, {}",
            count(tally.files),
            count(tally.directories),
            count(tally.others),
            byte_size::human(tally.bytes)
        )
    };
    vec![
        String::new(),
        row("added", &differences.added),
        row("removed", &differences.removed),
        row("content", &differences.content_changed),
        row("type", &differences.type_changed),
        row("metadata", &differences.metadata_changed),
    ]
}
