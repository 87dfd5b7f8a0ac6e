//! `stats`: what snapshots hold and share, and what the repository takes.

use super::filter::FilterArgs;
use super::paths::open_to_read;
use super::text::{count, plural, table};
use super::{CliError, Context, Exit};
use crate::base::byte_size::human;
use crate::engine::stats::{RepositoryStats, SnapshotStats, of_repository, of_snapshots};
use crate::repo::snapshots::{Filter, Snapshot};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these snapshots [default: all]
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
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
    let (counters, display) = context.progress();
    let counted = of_snapshots(&repo, &snapshots, counters.as_ref(), &context.cancel).await;
    drop(display);
    let counted = counted?;
    let whole = of_repository(&repo, &context.cancel).await?;
    if context.json {
        context.json(&serde_json::json!({
            "snapshots": counted,
            "repository": whole,
            "dedup_ratio": ratio(counted.restore_bytes, counted.unique_bytes),
            "compression_ratio": ratio(counted.unique_bytes, counted.stored_bytes),
        }))?;
    } else {
        context.print(text(&counted, &whole))?;
    }
    if counted.missing == 0 {
        return Ok(Exit::Ok);
    }
    context.warn(format_args!("{} chunks or pages are missing or damaged", count(counted.missing)));
    Ok(Exit::Damage)
}

/// `None` when there is nothing to compare.
fn ratio(before: u64, after: u64) -> Option<f64> {
    (after > 0).then(|| (before as f64 / after as f64 * 100.0).round() / 100.0)
}

fn text(counted: &SnapshotStats, whole: &RepositoryStats) -> String {
    let times = |before, after| ratio(before, after).map_or(String::new(), |ratio| format!("{ratio:.2} ×"));
    let row = |cells: [String; 3]| cells.to_vec();
    let rows = [
        row(["".into(), "Size".into(), "Smaller by".into()]),
        row(["restored".into(), human(counted.restore_bytes).to_string(), "".into()]),
        row([
            "deduplicated".into(),
            human(counted.unique_bytes).to_string(),
            times(counted.restore_bytes, counted.unique_bytes),
        ]),
        row([
            "stored".into(),
            human(counted.stored_bytes).to_string(),
            times(counted.unique_bytes, counted.stored_bytes),
        ]),
    ];
    let mut objects = vec![row(["Objects".into(), "Count".into(), "Size".into()])];
    for (folder, found) in whole.objects.iter().filter(|(_, found)| found.count > 0) {
        objects.push(row([folder.clone(), count(found.count), human(found.bytes).to_string()]));
    }
    objects.push(row(["all".into(), String::new(), human(whole.total_bytes).to_string()]));
    format!(
        "{}, {}, {}; {}\n\n{}\n\n{}",
        plural(counted.snapshots, "snapshot"),
        plural(counted.files, "file"),
        plural(counted.directories, "folder"),
        plural(counted.chunks, "distinct chunk"),
        table(&rows, &[1, 2]),
        table(&objects, &[1, 2])
    )
}
