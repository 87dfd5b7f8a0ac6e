//! `prune`: shows what would be freed, asks, and frees it.

use std::time::Duration;

use serde::Serialize;

use super::text::{count, plural, table};
use super::{CliError, Context, Exit};
use crate::base::byte_size;
use crate::config::parse_duration;
use crate::engine::prune::{self, MaxUnused, PruneOptions, PruneOutcome, PrunePlan, Tally};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long condemned data stays before a later prune deletes it, so that running backups notice; 0s does all
    /// at once, and is safe
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "48h")]
    grace: Duration,
    /// How much unneeded data may stay in packs: 5%, 2GiB or unlimited
    #[arg(long, value_name = "LIMIT", value_parser = max_unused, default_value = "5%")]
    max_unused: MaxUnused,
    /// Rewrite at most this much in one run
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_repack_size: Option<u64>,
    /// Only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn size(text: &str) -> Result<u64, String> {
    byte_size::parse(text).map_err(|error| error.to_string())
}

fn max_unused(text: &str) -> Result<MaxUnused, String> {
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    match text.strip_suffix('%') {
        Some(number) => match number.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(MaxUnused::Percent(percent)),
            _ => Err("a share is between 0% and 100%".to_owned()),
        },
        None => size(text).map(MaxUnused::Bytes),
    }
}

/// `--json`.
#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    plan: &'a PrunePlan,
    outcome: Option<&'a PruneOutcome>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let options = PruneOptions {
        grace: args.grace,
        max_unused: args.max_unused,
        max_repack_bytes: args.max_repack_size,
    };
    let repo = context.open().await?;
    let (progress, display) = context.progress();
    let plan = prune::plan(&repo, &options, progress.as_ref(), &context.cancel).await?;
    drop(display);
    if !context.json && (args.dry_run || !context.quiet) {
        context.print(shown(&plan))?;
    }
    let mut outcome = None;
    if !args.dry_run {
        if !plan.is_empty() {
            context.confirm("rewrite and delete packs as shown")?;
        }
        let (progress, display) = context.progress();
        outcome = Some(prune::apply(&repo, &plan, progress.as_ref(), &context.cancel).await?);
        drop(display);
    }
    if context.json {
        context.json(&Report { dry_run: args.dry_run, plan: &plan, outcome: outcome.as_ref() })?;
    } else if let Some(outcome) = &outcome {
        context.note(told(outcome, args.grace));
    }
    Ok(Exit::Ok)
}

fn bytes(number: u64) -> String {
    byte_size::human(number).to_string()
}

fn shown(plan: &PrunePlan) -> String {
    let row = |what: &str, tally: Tally| vec![what.to_owned(), count(tally.packs), bytes(tally.bytes)];
    let rows = [
        vec![String::new(), "Packs".to_owned(), "Size".to_owned()],
        row("all", plan.total),
        row("unneeded", plan.unneeded),
        row("to rewrite", plan.repack),
        row("of runs at work, left alone", plan.busy),
        row("condemned, grace not over", plan.waiting),
        row("condemned, to delete now", plan.due),
    ];
    format!(
        "{}\nneeded by {}: {}; {} unneeded stay in packs that are not worth rewriting",
        table(&rows, &[1, 2]),
        plural(plan.snapshots, "snapshot"),
        bytes(plan.used_bytes),
        bytes(plan.unused_left_bytes),
    )
}

fn told(outcome: &PruneOutcome, grace: Duration) -> String {
    let mut parts = Vec::new();
    if outcome.written.packs > 0 {
        parts.push(format!("rewrote {}", bytes(outcome.written.bytes)));
    }
    if outcome.condemned.packs > 0 {
        let after = super::text::span(grace);
        parts.push(format!("condemned {}, deleted by a prune in {after}", bytes(outcome.condemned.bytes)));
    }
    if outcome.deleted.packs > 0 {
        parts.push(format!(
            "deleted {}, {}",
            plural(outcome.deleted.packs, "pack"),
            bytes(outcome.deleted.bytes)
        ));
    }
    if outcome.kept.packs > 0 {
        parts.push(format!(
            "kept {} whose content this key cannot tell",
            plural(outcome.kept.packs, "condemned pack")
        ));
    }
    if parts.is_empty() { "nothing to do".to_owned() } else { parts.join("; ") }
}
