//! `snapshots`: what can be restored, by job; what cannot be relied upon is listed apart.

use std::collections::BTreeMap;

use serde::Serialize;

use super::filter::FilterArgs;
use super::text::{iso_time, local_time, plural, shown, table};
use super::{CliError, Context, Exit};
use crate::base::byte_size;
use crate::format::manifest::Statistics;
use crate::repo::snapshots::{Filter, Snapshot, SnapshotList};
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;

/// Hex digits shown of an id.
pub const SHORT_ID_CHARS: usize = 8;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only the newest N of each job
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
}

/// One snapshot, as `--json` shows it.
#[derive(Debug, Serialize)]
pub struct Row {
    pub id: String,
    pub short_id: String,
    pub job: String,
    pub host: String,
    pub user: String,
    pub tags: Vec<String>,
    pub source: String,
    /// Absent for a key that may not open contents.
    pub paths: Option<Vec<String>>,
    pub started_at: String,
    pub consistent_at: String,
    pub finished_at: String,
    /// False: an upload that was never confirmed.
    pub confirmed: bool,
    /// Something could not be read when it was made.
    pub partial: bool,
    pub parent: Option<String>,
    pub original: Option<String>,
    pub program: String,
    pub statistics: Statistics,
}

impl Row {
    /// Fails only when the contents are damaged, not when this key may not see them.
    pub async fn of(repo: &Repository, snapshot: &Snapshot) -> Result<Self, RepoError> {
        let paths = match repo.contents(snapshot).await {
            Ok(contents) => Some(contents.paths),
            Err(RepoError::Seal(SealError::NotPermitted(_))) => None,
            Err(error) => return Err(error),
        };
        let summary = snapshot.summary.clone();
        let lossy = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
        Ok(Self {
            id: snapshot.id.hex(),
            short_id: short(&snapshot.id),
            paths: paths.map(|paths| paths.iter().map(lossy).collect()),
            started_at: iso_time(summary.started),
            consistent_at: iso_time(summary.consistent),
            finished_at: iso_time(summary.finished),
            confirmed: snapshot.confirmed,
            partial: summary.statistics.problems > 0,
            parent: summary.parent.map(|id| id.hex()),
            original: summary.original.map(|id| id.hex()),
            job: summary.job,
            host: summary.host,
            user: summary.user,
            tags: summary.tags,
            source: summary.source,
            program: summary.program,
            statistics: summary.statistics,
        })
    }
}

/// The beginning of an id, long enough to name a snapshot.
pub fn short(id: &crate::format::id::SnapshotId) -> String {
    id.hex().chars().take(SHORT_ID_CHARS).collect()
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let repo = context.open().await?;
    let filter = Filter::from(args.filter);
    let list = context.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
    let shown = newest(&list, &filter, args.latest);
    let mut rows = Vec::with_capacity(shown.len());
    let mut damaged: Vec<(String, String)> = Vec::new();
    for snapshot in shown {
        match Row::of(&repo, snapshot).await {
            Ok(row) => rows.push((snapshot, row)),
            Err(error) if error.is_damage() => damaged.push((snapshot.object.clone(), error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
    damaged.extend(list.damaged.iter().map(|(object, error)| (object.clone(), error.to_string())));
    if context.json {
        let rows: Vec<&Row> = rows.iter().map(|(_, row)| row).collect();
        context.json(&rows)?;
    } else {
        context.print(tables(&rows))?;
        if !list.foreign.is_empty() {
            let foreign = plural(list.foreign.len() as u64, "snapshot");
            context.note(format_args!("not shown: {foreign} of other keys"));
        }
    }
    for (object, why) in &damaged {
        // The error's own text begins with the object's name.
        let why = why.strip_prefix(object.as_str()).unwrap_or(why);
        context.warn(format_args!("damaged: {object}{why}"));
    }
    Ok(if damaged.is_empty() { Exit::Ok } else { Exit::Damage })
}

/// What passes the filter, oldest first; at most `latest` of each job on each machine. Unconfirmed ones are kept
/// apart from that count.
fn newest<'l>(list: &'l SnapshotList, filter: &Filter, latest: Option<usize>) -> Vec<&'l Snapshot> {
    let mut counts: BTreeMap<(&str, &str, bool), usize> = BTreeMap::new();
    let mut kept: Vec<&Snapshot> = Vec::new();
    for snapshot in list.snapshots.iter().rev().filter(|snapshot| filter.matches(&snapshot.summary)) {
        let summary = &snapshot.summary;
        let count = counts.entry((&summary.host, &summary.job, snapshot.confirmed)).or_default();
        *count += 1;
        if latest.is_none_or(|latest| *count <= latest) {
            kept.push(snapshot);
        }
    }
    kept.reverse();
    kept
}

fn tables(rows: &[(&Snapshot, Row)]) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&(&Snapshot, Row)>> = BTreeMap::new();
    for row in rows.iter().filter(|(_, row)| row.confirmed) {
        groups.entry((&row.1.job, &row.1.host)).or_default().push(row);
    }
    let mut parts: Vec<String> = groups
        .into_iter()
        .map(|((job, host), rows)| {
            let (job, host) = (shown(job.as_bytes()), shown(host.as_bytes()));
            format!("{job} on {host}\n{}", group(&rows))
        })
        .collect();
    let unconfirmed: Vec<_> = rows.iter().filter(|(_, row)| !row.confirmed).collect();
    if !unconfirmed.is_empty() {
        parts.push(format!(
            "never confirmed: uploads that are under way or were interrupted; not used by `latest`\n{}",
            group(&unconfirmed)
        ));
    }
    if parts.is_empty() {
        return "no snapshots".to_owned();
    }
    parts.push(plural(rows.len() as u64, "snapshot"));
    parts.join("\n\n")
}

fn group(rows: &[&(&Snapshot, Row)]) -> String {
    let mut lines =
        vec![["  ID", "Time", "Files", "Size", "Added", "Tags", "Paths"].map(str::to_owned).to_vec()];
    for (snapshot, row) in rows {
        let statistics = &row.statistics;
        let partial = if row.partial { " (partial)" } else { "" };
        let paths = row.paths.as_deref().unwrap_or_default();
        let paths: Vec<String> = paths.iter().map(|path| shown(path.as_bytes())).collect();
        lines.push(vec![
            format!("  {}", row.short_id),
            local_time(snapshot.summary.consistent),
            super::text::count(statistics.files),
            byte_size::human(statistics.total_bytes).to_string(),
            byte_size::human(statistics.added_bytes).to_string(),
            shown(row.tags.join(",").as_bytes()),
            paths.join(" ") + partial,
        ]);
    }
    table(&lines, &[2, 3, 4])
}
