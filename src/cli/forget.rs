//! `forget`: shows what the rules keep and why, asks, and removes the rest. The space comes back with `prune`.

use jiff::tz::TimeZone;
use serde::Serialize;

use super::filter::FilterArgs;
use super::snapshots::SHORT_ID_CHARS;
use super::text::{local_time, plural, table};
use super::{CliError, Context, Exit};
use crate::engine::forget::{self, ForgetOptions, ForgetOutcome, ForgetPlan, Target};
use crate::policy::period::Period;
use crate::policy::retention::{Guards, Keep, Rules};
use crate::repo::to_timestamp;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Forget exactly these, whatever the rules
    #[arg(value_name = "SNAPSHOT", conflicts_with = "Rules")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    keep: KeepArgs,
    /// Count days, weeks and months in this time zone, such as Europe/Berlin; default: the system's
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Remove even more than the guards allow: half of a job's snapshots, or its last one
    #[arg(long)]
    force: bool,
    /// Keep uploads that were never confirmed, too
    #[arg(long)]
    keep_incomplete: bool,
    /// Only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What to keep; a snapshot stays if any of these keeps it. N may be `unlimited`.
#[derive(Debug, Default, clap::Args)]
#[group(id = "Rules", multiple = true)]
struct KeepArgs {
    /// The newest N
    #[arg(short = 'l', long, value_name = "N")]
    keep_last: Option<Keep>,
    /// The newest of each of the last N hours that have one
    #[arg(short = 'H', long, value_name = "N")]
    keep_hourly: Option<Keep>,
    #[arg(short = 'd', long, value_name = "N")]
    keep_daily: Option<Keep>,
    #[arg(short = 'w', long, value_name = "N")]
    keep_weekly: Option<Keep>,
    #[arg(short = 'm', long, value_name = "N")]
    keep_monthly: Option<Keep>,
    #[arg(long, value_name = "N")]
    keep_yearly: Option<Keep>,
    /// Everything within this long before the newest, such as 14d or 1y6m
    #[arg(long, value_name = "PERIOD")]
    keep_within: Option<Period>,
    #[arg(long, value_name = "PERIOD")]
    keep_within_hourly: Option<Period>,
    #[arg(long, value_name = "PERIOD")]
    keep_within_daily: Option<Period>,
    #[arg(long, value_name = "PERIOD")]
    keep_within_weekly: Option<Period>,
    #[arg(long, value_name = "PERIOD")]
    keep_within_monthly: Option<Period>,
    #[arg(long, value_name = "PERIOD")]
    keep_within_yearly: Option<Period>,
    /// Snapshots that have all of these tags (may be repeated: any of the lists)
    #[arg(long, value_name = "TAG[,TAG…]")]
    keep_tag: Vec<String>,
}

impl KeepArgs {
    fn rules(self) -> Rules {
        let tags = |list: &String| list.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        Rules {
            last: self.keep_last.unwrap_or_default(),
            hourly: self.keep_hourly.unwrap_or_default(),
            daily: self.keep_daily.unwrap_or_default(),
            weekly: self.keep_weekly.unwrap_or_default(),
            monthly: self.keep_monthly.unwrap_or_default(),
            yearly: self.keep_yearly.unwrap_or_default(),
            within: self.keep_within,
            within_hourly: self.keep_within_hourly,
            within_daily: self.keep_within_daily,
            within_weekly: self.keep_within_weekly,
            within_monthly: self.keep_within_monthly,
            within_yearly: self.keep_within_yearly,
            tags: self.keep_tag.iter().map(tags).collect(),
        }
    }
}

/// `--json`.
#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    plan: &'a ForgetPlan,
    outcome: Option<&'a ForgetOutcome>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let zone = match &args.time_zone {
        Some(name) => {
            TimeZone::get(name).map_err(|error| CliError::usage(format!("--time-zone: {error}")))?
        }
        None => TimeZone::system(),
    };
    let options = ForgetOptions {
        filter: args.filter.into(),
        rules: args.keep.rules(),
        zone,
        guards: (!args.force).then(Guards::default),
        snapshots: args.snapshots,
        incomplete: !args.keep_incomplete,
    };
    let repo = context.open().await?;
    let plan = context.until_cancelled(async { Ok(forget::plan(&repo, &options).await?) }).await?;
    let count = plan.targets().count();
    if !context.json && (args.dry_run || !context.quiet) {
        context.print(shown(&plan))?;
    }
    for object in &plan.damaged {
        context.warn(format_args!("{object} cannot be read and stays: forget it by its id, or repair it"));
    }
    let mut outcome = None;
    if !args.dry_run && count > 0 {
        context.confirm(&format!("forget {}", plural(count as u64, "snapshot")))?;
        let (progress, display) = context.progress();
        outcome = Some(forget::apply(&repo, &plan, progress.as_ref(), &context.cancel).await?);
        drop(display);
    }
    if context.json {
        context.json(&Report { dry_run: args.dry_run, plan: &plan, outcome: outcome.as_ref() })?;
    } else if let Some(outcome) = &outcome {
        context.note(format_args!("forgot {}; `lifeboat prune` frees their space", outcome.forgotten.len()));
        for id in &outcome.confirmed_meanwhile {
            context.note(format_args!("{} was confirmed meanwhile and stays", short(id)));
        }
    } else if args.dry_run {
        context.note(format_args!("dry run: {count} would be forgotten"));
    }
    Ok(if plan.damaged.is_empty() { Exit::Ok } else { Exit::Damage })
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID_CHARS).unwrap_or(id)
}

fn shown(plan: &ForgetPlan) -> String {
    let mut parts = Vec::new();
    let line = |target: &Target, verdict: &str, why: String| {
        let time = target.time.as_ref().and_then(|time| time.parse().ok());
        let time = time.map_or("unreadable".to_owned(), |time| local_time(to_timestamp(time)));
        vec![format!("  {}", short(&target.id)), time, verdict.to_owned(), why]
    };
    let head = || vec![["  ID", "Time", "", "Reasons"].map(str::to_owned).to_vec()];
    for group in &plan.groups {
        let mut lines = head();
        for kept in &group.keep {
            let reasons: Vec<String> = kept.reasons.iter().map(ToString::to_string).collect();
            lines.push(line(&kept.id, "keep", reasons.join(", ")));
        }
        lines.extend(group.forget.iter().map(|target| line(target, "forget", String::new())));
        parts.push(format!("{}\n{}", super::text::shown(group.group.as_bytes()), table(&lines, &[])));
    }
    if !plan.incomplete.is_empty() {
        let mut lines = head();
        lines.extend(plan.incomplete.iter().map(|target| line(target, "forget", "never confirmed".into())));
        parts.push(format!("never confirmed\n{}", table(&lines, &[])));
    }
    if parts.is_empty() { "no snapshots".to_owned() } else { parts.join("\n\n") }
}
