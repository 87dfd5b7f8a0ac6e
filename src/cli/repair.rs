//! `repair`: puts right what can be put right from what is there, and names what is lost.

use super::text::count;
use super::verify::{costs, judge, scratch};
use super::{CliError, Context, Exit};
use crate::engine::repair::{IndexOutcome, IndexPlan, apply_index, plan_index};
use crate::engine::verify::outcome::VerifyOutcome;
use crate::engine::verify::{VerifyOptions, verify};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make the index anew from the packs, put a lost keyring back, and name the files that are lost
    Index {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let What::Index { dry_run } = args.what;
    let repo = context.open().await?;
    let (progress, display) = context.progress();
    let plan = plan_index(&repo).await?;
    if dry_run {
        drop(display);
        if context.json {
            context.json(&plan)?
        } else {
            context.print(plan_text(&plan))?
        }
        return Ok(Exit::Ok);
    }
    let text = plan_text(&plan);
    let planned = serde_json::to_value(&plan).unwrap_or_default();
    let done = apply_index(&repo, plan, progress.as_ref(), &context.cancel).await?;
    let options = VerifyOptions { scratch: Some(scratch(&repo)), ..VerifyOptions::default() };
    let outcome = verify(&repo, &options, progress, &context.cancel).await?;
    drop(display);
    if context.json {
        context.json(&serde_json::json!({ "plan": planned, "done": done, "verify": outcome }))?;
    } else {
        context.print(format_args!("{text}\n{}", done_text(&done, &outcome)))?;
    }
    Ok(judge(&outcome).0)
}

fn plan_text(plan: &IndexPlan) -> String {
    let mut lines = Vec::new();
    lines.extend(plan.keyring.iter().map(|name| format!("{name} is put back from a manifest")));
    lines.extend(plan.unreadable.iter().map(|(name, why)| format!("{name} cannot be read: {why}")));
    let (packs, replaced) = (count(plan.packs as u64), count(plan.replaced.len() as u64));
    lines.push(format!("the directories of {packs} packs make a new index; {replaced} objects are replaced"));
    lines.join("\n")
}

fn done_text(done: &IndexOutcome, outcome: &VerifyOutcome) -> String {
    let mut lines = Vec::new();
    for (name, why, is_kept) in &done.headless {
        let rest = if *is_kept { "the old index still knows its chunks" } else { "its chunks are lost" };
        lines.push(format!("{name} has no readable directory: {why}; {rest}"));
    }
    let (packs, chunks) = (count(done.packs), count(done.chunks));
    lines.push(format!(
        "indexed {packs} packs with {chunks} chunks: {} index objects written, {} removed",
        count(done.written),
        count(done.removed)
    ));
    if outcome.costs.is_empty() {
        lines.push("every file of every snapshot is accounted for".to_owned());
    } else {
        lines.extend(costs(&outcome.costs));
        lines.push("a new backup of the same content heals these snapshots".to_owned());
    }
    lines.join("\n")
}
