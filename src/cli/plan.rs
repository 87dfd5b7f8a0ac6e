//! `plan`: can these objectives be met at all? By the schedule and what runs and drills took, not by hope.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::text::table;
use super::{CliError, Context, Exit};
use crate::config::file::{Component, File, time};
use crate::drill::history;
use crate::drill::report::span;
use crate::drill::{Evidence, Verdict};
use crate::policy::objective::{self, Feasible, Point};
use crate::policy::schedule::Schedule;
use crate::repo::from_timestamp;
use crate::repo::snapshots::{Filter, SnapshotList};
use crate::repo::sync::Thoroughness;

/// Runs that tell how long one takes.
const RUNS: usize = 20;
/// Drills that are looked at for recovery times.
const DRILLS: usize = 100;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this stack
    #[arg(value_name = "STACK")]
    stack: Option<String>,
}

/// One component, held against its objectives. Times in seconds.
#[derive(Debug, Default, Serialize)]
struct Row {
    stack: String,
    component: String,
    rpo_seconds: Option<f64>,
    worst_loss_seconds: Option<f64>,
    exposure_seconds: Option<f64>,
    rpo: &'static str,
    /// The longest interval that would do.
    interval_that_would_do_seconds: Option<f64>,
    rto_seconds: Option<f64>,
    recovery_seconds: Option<f64>,
    rto: &'static str,
}

/// What the repository of a component's job knows.
struct Known {
    list: SnapshotList,
    drills: Vec<Evidence>,
}

pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let found = context.file()?;
    let file = &found.file;
    let wanted = |name: &String| args.stack.as_ref().is_none_or(|stack| stack == name);
    let stacks: Vec<_> = file.stack.iter().filter(|(name, _)| wanted(name)).collect();
    if stacks.is_empty() {
        let hint = "objectives stand under [stack.NAME]: db = { rto = \"1h\", rpo = \"6h\" }";
        return Err(CliError::usage(format!("{} defines no such stack", found.path.display())).hint(hint));
    }
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for (stack, components) in stacks {
        let mut times: BTreeMap<String, Duration> = BTreeMap::new();
        for (name, component) in components {
            let row = row(stack, name, component, file, &mut known, context, &mut notes).await?;
            if let Some(recovery) = row.recovery_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
                times.insert(name.clone(), recovery);
            }
            rows.push(row);
        }
        notes.extend(critical(stack, components, &times));
    }
    let missed =
        rows.iter().any(|row| ["impossible", "missed"].iter().any(|bad| row.rpo == *bad || row.rto == *bad));
    if context.json {
        context.json(&serde_json::json!({ "components": rows, "notes": notes }))?;
    } else {
        show(&rows, &notes, context)?;
    }
    Ok(if missed { Exit::ObjectiveMissed } else { Exit::Ok })
}

async fn know(file: &File, job: &str, context: &Context) -> Result<Option<(String, Known)>, CliError> {
    let Some(job) = file.job.get(job) else { return Ok(None) };
    let (name, repository) = file.repository_of(job).map_err(CliError::usage)?;
    let of_job = context.with(context.settings_of(repository)?);
    let repo = of_job.open().await?;
    of_job.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
    let list = of_job.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
    let kept = history::newest(&repo, None, DRILLS, &context.cancel).await?;
    let drills = kept.into_iter().map(|kept| kept.signed.evidence).collect();
    Ok(Some((name.to_owned(), Known { list, drills })))
}

async fn row(
    stack: &str,
    name: &str,
    component: &Component,
    file: &File,
    known: &mut BTreeMap<String, Known>,
    context: &Context,
    notes: &mut Vec<String>,
) -> Result<Row, CliError> {
    let wanted = |key, text: &Option<String>| time(name, key, text.as_ref()).map_err(CliError::usage);
    let (rpo, rto) = (wanted("rpo", &component.rpo)?, wanted("rto", &component.rto)?);
    let seconds = |time: Duration| time.as_secs_f64();
    let mut row = Row {
        stack: stack.into(),
        component: name.into(),
        rpo_seconds: rpo.map(seconds),
        rto_seconds: rto.map(seconds),
        rpo: "–",
        rto: "–",
        ..Row::default()
    };
    let Some(job) = file.job.get(name) else {
        if rpo.is_some() || rto.is_some() {
            notes.push(format!("{name}: no job of this name, so nothing of it is measured"));
            row.rpo = if rpo.is_some() { "not measured" } else { "–" };
            row.rto = if rto.is_some() { "not measured" } else { "–" };
        }
        return Ok(row);
    };
    let (repository, _) = file.repository_of(job).map_err(CliError::usage)?;
    if !known.contains_key(repository)
        && let Some((repository, found)) = know(file, name, context).await?
    {
        known.insert(repository, found);
    }
    let Some(found) = known.get(repository) else { return Ok(row) };
    let now = jiff::Timestamp::now();
    let points = points(&found.list, name, &context.settings.hostname);
    let exposure = objective::exposure(&points, now, now);
    row.exposure_seconds = exposure.map(|exposure| seconds(exposure.current));
    let took = |point: &Point| Duration::try_from(point.available.duration_since(point.consistent)).ok();
    let takes = points.iter().rev().take(RUNS).filter_map(took).max();
    if let Some(rpo) = rpo {
        row.rpo = judge_rpo(file, name, rpo, takes, now, &mut row, notes)?;
    }
    // A drill that failed proves no recovery time.
    let proves = |drill: &&Evidence| matches!(drill.verdict, Verdict::Met | Verdict::ObjectiveMissed);
    let of_job = |drill: &&Evidence| drill.snapshot.as_ref().is_some_and(|row| row.job == name);
    let last = found
        .drills
        .iter()
        .rev()
        .filter(of_job)
        .find(|drill| proves(drill) && drill.measured.recovery_seconds.is_some());
    row.recovery_seconds = last.and_then(|drill| drill.measured.end_to_end_seconds);
    if let Some(rto) = rto {
        row.rto = match row.recovery_seconds {
            None => {
                notes.push(format!(
                    "{name}: recovery was never measured: lifeboat drill run --snapshot {name}@latest"
                ));
                "not measured"
            }
            Some(recovery) if recovery > seconds(rto) => "missed",
            Some(_) => "met",
        };
    }
    Ok(row)
}

fn points(list: &SnapshotList, job: &str, host: &str) -> Vec<Point> {
    let filter = Filter { jobs: vec![job.to_owned()], hosts: vec![host.to_owned()], tags: Vec::new() };
    let point = |snapshot: &crate::repo::snapshots::Snapshot| Point {
        consistent: from_timestamp(snapshot.summary.consistent),
        available: from_timestamp(snapshot.summary.finished),
    };
    list.matching(&filter).map(point).collect()
}

fn judge_rpo(
    file: &File,
    name: &str,
    rpo: Duration,
    takes: Option<Duration>,
    now: jiff::Timestamp,
    row: &mut Row,
    notes: &mut Vec<String>,
) -> Result<&'static str, CliError> {
    let Some(schedule) = file.job.get(name).and_then(|job| job.schedule.as_ref()) else {
        notes.push(format!("{name}: it has an RPO and no schedule"));
        return Ok("no schedule");
    };
    let zone = file.zone().map_err(CliError::usage)?;
    let schedule =
        Schedule::parse(schedule, zone).map_err(|error| CliError::usage(format!("job {name}: {error}")))?;
    let Some(interval) = schedule.longest_interval(now) else {
        notes.push(format!("{name}: the schedule is never due again"));
        return Ok("impossible");
    };
    if takes.is_none() {
        notes.push(format!("{name}: it never ran: how long a run takes is not known and counts as nothing"));
    }
    let takes = takes.unwrap_or_default();
    let (verdict, would_do) = objective::feasible(interval, takes, rpo);
    row.worst_loss_seconds = Some(objective::worst_loss(interval, takes).as_secs_f64());
    row.interval_that_would_do_seconds = would_do.map(|interval| interval.as_secs_f64());
    Ok(match verdict {
        Feasible::Met => "met",
        Feasible::AtRisk => "at risk",
        Feasible::Impossible => {
            let (interval, rpo) = (span(interval.as_secs_f64()), span(rpo.as_secs_f64()));
            let instead = match would_do {
                Some(would_do) => format!("a run every {} or less would do", span(would_do.as_secs_f64())),
                None => "no schedule would do: a run alone takes longer".into(),
            };
            notes.push(format!("{name}: runs up to {interval} apart cannot keep an RPO of {rpo}; {instead}"));
            "impossible"
        }
    })
}

/// The chain that decides when a stack is back, where every part of it was measured.
fn critical(
    stack: &str,
    components: &BTreeMap<String, Component>,
    times: &BTreeMap<String, Duration>,
) -> Option<String> {
    let part = |(name, component): (&String, &Component)| {
        let needs = component.needs.iter().filter(|need| components.contains_key(*need)).cloned().collect();
        let takes = times.get(name).copied().unwrap_or_default();
        (name.clone(), objective::Component { takes, needs })
    };
    let (ready, path) = objective::critical_path(&components.iter().map(part).collect()).ok()?;
    let last = path.last().and_then(|name| ready.get(name)).filter(|at| !at.is_zero())?;
    let unmeasured: Vec<&str> =
        components.keys().filter(|name| !times.contains_key(*name)).map(String::as_str).collect();
    let without = match unmeasured.as_slice() {
        [] => String::new(),
        names => format!(", without {} (not measured)", names.join(", ")),
    };
    Some(format!("{stack}: back after {} by {}{without}", span(last.as_secs_f64()), path.join(" → ")))
}

fn show(rows: &[Row], notes: &[String], context: &Context) -> Result<(), CliError> {
    let head = ["COMPONENT", "EXPOSURE", "WORST LOSS", "RPO", "", "RECOVERY", "RTO", ""];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let time = |seconds: Option<f64>| seconds.map_or("–".into(), span);
    for row in rows {
        lines.push(vec![
            format!("{}.{}", row.stack, row.component),
            time(row.exposure_seconds),
            time(row.worst_loss_seconds),
            time(row.rpo_seconds),
            row.rpo.into(),
            time(row.recovery_seconds),
            time(row.rto_seconds),
            row.rto.into(),
        ]);
    }
    let mut out = context.out();
    out.line(table(&lines, &[1, 2, 3, 5, 6]))?;
    for note in notes {
        out.line(format_args!("! {note}"))?;
    }
    out.finish()
}
