//! `repair`: puts right what can be put right from what is there, and names what is lost.

use std::sync::Arc;

use super::text::{count, plural};
use super::verify::{advice, costs, findings, judge, scratch};
use super::{CliError, Context, Exit};
use crate::base::byte_size;
use crate::base::progress::Progress;
use crate::config::Environment;
use crate::engine::repair::{
    Healable, IndexOutcome, IndexPlan, PacksOptions, PacksOutcome, PacksPlan, apply_index, apply_keys,
    apply_packs, heal_packs, plan_index, plan_keys, plan_packs,
};
use crate::engine::verify::outcome::VerifyOutcome;
use crate::engine::verify::{VerifyOptions, verify};
use crate::format::id::ObjectHash;

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
    /// Put config, roster, keyring and the owner's slots back from the recovery kit given with --kit
    Keys {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Make damaged packs whole from parity; of others save what is sound and condemn them: the next backup stores
    /// again what is lost
    Packs {
        /// Packs to read, as verify names them [default: all]
        #[arg(value_name = "PACK", value_parser = pack)]
        packs: Vec<ObjectHash>,
        /// Fetch what is lost from a replica of this repository, opened with the same password
        #[arg(long, value_name = "PATH|URL")]
        from: Option<String>,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

fn pack(text: &str) -> Result<ObjectHash, String> {
    let hash = ObjectHash::from_hex(text.rsplit('/').next().unwrap_or(text));
    hash.ok_or_else(|| "write it as verify does: data/ or meta/ and 64 digits".to_owned())
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.what {
        What::Index { dry_run } => index(dry_run, context).await,
        What::Keys { dry_run } => keys(dry_run, context).await,
        What::Packs { packs, from, dry_run } => repair_packs(packs, from, dry_run, context).await,
    }
}

async fn index(dry_run: bool, context: &Context) -> Result<Exit, CliError> {
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
        context.tell(format_args!("{text}\n{}", done_text(&done, &outcome)))?;
    }
    Ok(judge(&outcome).0)
}

fn plan_text(plan: &IndexPlan) -> String {
    let mut lines = Vec::new();
    lines.extend(plan.keyring.iter().map(|name| format!("{name} is put back from a manifest")));
    lines.extend(plan.unreadable.iter().map(|(name, why)| format!("{name} cannot be read: {why}")));
    let (packs, replaced) = (plural(plan.packs as u64, "pack"), plural(plan.replaced.len() as u64, "object"));
    lines.push(format!("a new index is made from the directories of {packs}; it replaces {replaced}"));
    lines.join("\n")
}

fn done_text(done: &IndexOutcome, outcome: &VerifyOutcome) -> String {
    let mut lines = Vec::new();
    for (name, why, is_kept) in &done.headless {
        let rest = if *is_kept { "the old index still knows its chunks" } else { "its chunks are lost" };
        lines.push(format!("{name} has no readable directory: {why}; {rest}"));
    }
    let (packs, chunks) = (plural(done.packs, "pack"), plural(done.chunks, "chunk"));
    lines.push(format!(
        "indexed {packs} with {chunks}: {} written, {} removed",
        plural(done.written, "index object"),
        count(done.removed)
    ));
    lines.extend(rest(outcome));
    lines.join("\n")
}

/// What is still wrong, and what to do about it.
fn rest(outcome: &VerifyOutcome) -> Vec<String> {
    let mut lines = findings(outcome);
    if outcome.costs.is_empty() {
        lines.push("every file of every snapshot is accounted for".to_owned());
    }
    lines.extend(costs(&outcome.costs));
    lines.extend(advice(outcome));
    lines
}

async fn repair_packs(
    packs: Vec<ObjectHash>,
    from: Option<String>,
    dry_run: bool,
    context: &Context,
) -> Result<Exit, CliError> {
    let repo = context.open().await?;
    let replica = match from {
        Some(url) => {
            Some(context.open_at(&crate::config::location(&url, &Environment::of_process())?).await?)
        }
        None => None,
    };
    let replica = replica.as_ref();
    let (counters, display) = context.progress();
    let progress: Arc<dyn Progress> = counters;
    let verifying = VerifyOptions { scratch: Some(scratch(&repo)), ..VerifyOptions::default() };
    let mut options = PacksOptions { packs, without_parity: false, verify: verifying.clone() };
    let mut plan = plan_packs(&repo, replica, &options, &progress, &context.cancel).await?;
    let mut healed = Vec::new();
    if !dry_run && !plan.healable.is_empty() {
        heal_packs(&repo, &plan, progress.as_ref(), &context.cancel).await?;
        healed = std::mem::take(&mut plan.healable);
        options.without_parity = true;
        plan = plan_packs(&repo, replica, &options, &progress, &context.cancel).await?;
    }
    if dry_run {
        drop(display);
        if context.json {
            context.json(&plan)?;
        } else {
            context.print(packs_text(&plan, replica.is_some()))?;
        }
        return Ok(Exit::Ok);
    }
    let done = apply_packs(&repo, replica, &plan, progress.as_ref(), &context.cancel).await?;
    let outcome = verify(&repo, &verifying, progress, &context.cancel).await?;
    drop(display);
    if context.json {
        let all = serde_json::json!({ "healed": healed, "plan": plan, "done": done, "verify": outcome });
        context.json(&all)?;
    } else {
        context.print(healed_text(&healed, "made whole from parity"))?;
        context.print(packs_text(&plan, replica.is_some()))?;
        context.print(packs_done_text(&done, &outcome))?;
    }
    Ok(judge(&outcome).0)
}

async fn keys(dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let repo = context.open().await?;
    let plan = plan_keys(&repo).await?;
    let done = if dry_run { None } else { Some(apply_keys(&repo, &plan).await?) };
    if context.json {
        context.json(&serde_json::json!({ "plan": plan, "done": done }))?;
    } else {
        let mut lines = Vec::new();
        let verb = if dry_run { "would be put back" } else { "was put back" };
        lines.extend(plan.put_back.iter().map(|(name, why)| format!("{name} {verb}: {why}")));
        lines.extend(plan.left_out.iter().map(|(name, why)| format!("{name} {why}")));
        lines.extend(plan.hopeless.iter().map(|(name, why)| {
            format!("damaged: {name}: {why}; nothing at hand replaces it (is there a --kit, or a newer one?)")
        }));
        if lines.is_empty() {
            lines.push("config, roster, keyring and slots are as they should be".to_owned());
        }
        context.print(lines.join("\n"))?;
    }
    Ok(if plan.hopeless.is_empty() || dry_run { Exit::Ok } else { Exit::Damage })
}

fn healed_text(healed: &[Healable], done: &str) -> String {
    let line = |one: &Healable| {
        let (rebuilt, parts) = (count(one.rebuilt), plural(one.parts, "part"));
        format!("{done}: {} ({}; {rebuilt} of {parts} rebuilt)", one.object, one.why)
    };
    healed.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn packs_text(plan: &PacksPlan, with_replica: bool) -> String {
    if !plan.healable.is_empty() {
        let healable = healed_text(&plan.healable, "can be made whole from parity");
        return format!("{healable}\nwhat else is damaged is seen once that is done");
    }
    let mut lines = Vec::new();
    lines.extend(
        plan.hopeless.iter().map(|(object, why)| format!("parity of {object} does not suffice: {why}")),
    );
    for bad in &plan.packs {
        lines.push(format!("damaged: {} {}", bad.object, bad.why));
        lines.push(format!(
            "  {} of {} blocks known to be in it are sound; {} chunks of it are nowhere else",
            count(bad.sound_blocks),
            count(bad.blocks),
            count(bad.lost_chunks)
        ));
    }
    if plan.packs.is_empty() {
        lines.push("no pack that counts is damaged".to_owned());
    } else {
        let moved = byte_size::human(plan.moved_bytes);
        let packs = plural(plan.packs.len() as u64, "pack");
        lines.push(format!("{moved} move to new packs; {packs} condemned, which a prune deletes"));
    }
    if with_replica {
        let (there, lost) = (count(plan.replica_chunks), plural(plan.lost_chunks, "lost chunk"));
        lines.push(format!("the replica has {there} of {lost} that snapshots need"));
    }
    lines.join("\n")
}

fn packs_done_text(done: &PacksOutcome, outcome: &VerifyOutcome) -> String {
    let mut lines = vec![format!(
        "condemned {}; wrote {}, {}",
        plural(done.condemned, "pack"),
        plural(done.written_packs, "pack"),
        byte_size::human(done.written_bytes)
    )];
    if done.failed_blocks > 0 {
        lines.push(format!("{} could not be read a second time", plural(done.failed_blocks, "block")));
    }
    lines.extend(rest(outcome));
    lines.join("\n")
}
