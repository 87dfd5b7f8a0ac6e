//! `find`: in which snapshots a path is, and how it looked there.

use serde::Serialize;

use super::entries::{JsonEntry, line};
use super::filter::FilterArgs;
use super::ls::keep;
use super::paths::open_to_read;
use super::snapshots::short;
use super::text::{iso_time, local_time, plural, shown};
use super::{CliError, Context, Exit};
use crate::base::byte_size;
use crate::engine::find::{FindKind, FindOptions, find};
use crate::format::entry::{Entry, Timestamp};
use crate::format::id::SnapshotId;
use crate::repo::snapshots::{Filter, Snapshot, parse_time};
use crate::repo::to_timestamp;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or paths in gitignore syntax: *.conf, /etc/**/hosts
    #[arg(value_name = "PATTERN", required_unless_present_any = ["kind", "newer", "older", "min_size", "max_size"])]
    patterns: Vec<String>,
    /// Search this snapshot (may be repeated) [default: all]
    #[arg(short, long = "snapshot", value_name = "SNAP")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Upper and lower case alike
    #[arg(short, long)]
    ignore_case: bool,
    /// With permissions, owner, size and mtime
    #[arg(short, long)]
    long: bool,
    /// Only entries of this type
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<KindArg>,
    /// Changed at or after TIME
    #[arg(long, value_name = "TIME", value_parser = time)]
    newer: Option<Timestamp>,
    /// Changed before TIME
    #[arg(long, value_name = "TIME", value_parser = time)]
    older: Option<Timestamp>,
    /// Files of at least this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_size: Option<u64>,
    /// Files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KindArg {
    File,
    Dir,
    Symlink,
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = parse_time(text).ok_or("write a time such as 2026-11-20T02:00 or 2026-11-20T02:00:00Z")?;
    Ok(to_timestamp(time))
}

fn size(text: &str) -> Result<u64, String> {
    byte_size::parse(text).map_err(|error| error.to_string())
}

#[derive(Serialize)]
struct Match {
    snapshot: String,
    consistent_at: String,
    #[serde(flatten)]
    entry: JsonEntry,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let repo = open_to_read(context).await?;
    let filter = Filter::from(args.filter);
    let list = context.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
    let snapshots: Vec<&Snapshot> = if args.snapshots.is_empty() {
        list.matching(&filter).collect()
    } else {
        args.snapshots.iter().map(|text| list.select(text, &filter)).collect::<Result<_, _>>()?
    };
    let options = FindOptions {
        patterns: args.patterns,
        any_case: args.ignore_case,
        kind: args.kind.map(|kind| match kind {
            KindArg::File => FindKind::File,
            KindArg::Dir => FindKind::Directory,
            KindArg::Symlink => FindKind::Symlink,
        }),
        newer_than: args.newer,
        older_than: args.older,
        min_size_bytes: args.min_size,
        max_size_bytes: args.max_size,
    };
    let (mut out, mut failed) = (context.out(), None);
    let mut last: Option<SnapshotId> = None;
    let mut show = |snapshot: &Snapshot, key: &[u8], entry: &Entry| {
        let mut show = || {
            if context.json {
                return out.json(&Match {
                    snapshot: snapshot.id.hex(),
                    consistent_at: iso_time(snapshot.summary.consistent),
                    entry: JsonEntry::new(key, entry),
                });
            }
            if last.replace(snapshot.id) != Some(snapshot.id) {
                let summary = &snapshot.summary;
                out.line(format_args!(
                    "snapshot {} of {}, {}:",
                    short(&snapshot.id),
                    shown(summary.job.as_bytes()),
                    local_time(summary.consistent)
                ))?;
            }
            out.line(format_args!("  {}", line(key, entry, args.long)))
        };
        keep(show(), &mut failed)
    };
    let (counters, display) = context.progress();
    let result = find(&repo, &snapshots, &options, counters.as_ref(), &context.cancel, &mut show).await;
    drop(display);
    if let Some(error) = failed {
        return Err(error);
    }
    let found = result?;
    out.finish()?;
    if !context.json {
        context.note(format_args!(
            "{} in {}",
            plural(found.matches, "match"),
            plural(found.snapshots, "snapshot")
        ));
    }
    if found.unreadable_pages == 0 {
        return Ok(Exit::Ok);
    }
    let pages = plural(found.unreadable_pages, "page");
    context.warn(format_args!("{pages} of trees, damaged, could not be searched"));
    Ok(Exit::Damage)
}
