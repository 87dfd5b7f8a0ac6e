//! `parity`: what damaged packs are made whole from, made before they are damaged.

use super::text::plural;
use super::{CliError, Context, Exit};
use crate::app;
use crate::base::byte_size::human;
use crate::engine::parity::{ParityOptions, ParityOutcome, ParityPlan, apply, plan, remove};
use crate::format::parity::Share;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How much of a pack may be lost: that much more space is taken, plus 0.4%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    share: Share,
    /// Also read the parity that is there, and make anew what is damaged
    #[arg(long)]
    check: bool,
    /// Remove all parity
    #[arg(long, conflicts_with_all = ["check", "share"])]
    remove: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

fn share(text: &str) -> Result<Share, String> {
    Share::parse(text).ok_or_else(|| "write a share from 0.1% to 100%".to_owned())
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let location = context.location()?;
    let store = app::open_store(&context.settings, location)?;
    app::probe(location, store.as_ref()).await?;
    let (progress, display) = context.progress();
    let options = ParityOptions { share: args.share, check: args.check };
    let planned = plan(&store, options, progress.as_ref(), &context.cancel).await?;
    if args.remove && !args.dry_run {
        drop(display);
        if planned.parity_bytes > 0 {
            context.confirm(&format!("remove {} of parity", human(planned.parity_bytes)))?;
            remove(&store, &planned, progress.as_ref()).await?;
        }
        if context.json {
            context.json(&serde_json::json!({ "removed_bytes": planned.parity_bytes }))?;
        } else {
            context.tell(format_args!("removed {} of parity", human(planned.parity_bytes)))?;
        }
        return Ok(Exit::Ok);
    }
    let done = match args.dry_run {
        true => None,
        false => Some(apply(&store, &planned, args.share, progress.as_ref(), &context.cancel).await?),
    };
    drop(display);
    if context.json {
        context.json(&serde_json::json!({ "plan": planned, "done": done }))?;
    } else if args.remove {
        context.print(format!("would remove {} of parity", human(planned.parity_bytes)))?;
    } else {
        context.tell(text(&planned, done.as_ref(), args.share))?;
    }
    let bad = done.map_or(Vec::new(), |done| done.bad_packs);
    for pack in &bad {
        context.warn(format_args!(
            "damaged: {pack}: no parity is made of it; `lifeboat repair packs` comes first"
        ));
    }
    Ok(if bad.is_empty() { Exit::Ok } else { Exit::Damage })
}

fn text(planned: &ParityPlan, done: Option<&ParityOutcome>, share: Share) -> String {
    let mut lines: Vec<String> =
        planned.damaged.iter().map(|(object, why)| format!("damaged: {object}: {why}")).collect();
    let covered = format!("{} of {} had parity", planned.covered, plural(planned.packs, "pack"));
    lines.push(match done {
        None => format!("{covered}; {} would get {share}", plural(planned.wanting, "pack")),
        Some(done) => {
            format!("{covered}; {} got {share}, {}", plural(done.made, "pack"), human(done.made_bytes))
        }
    });
    if planned.orphans > 0 {
        let orphans = plural(planned.orphans, "parity object");
        lines.push(format!("{orphans} of packs that are not there: a prune removes what nothing needs"));
    }
    lines.join("\n")
}
