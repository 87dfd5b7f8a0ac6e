//! `plan`: can these objectives be met at all? By the schedule and what runs and drills took, not by hope.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::text::{shown, table};
use super::{CliError, Context, Exit};
use crate::config::file::{Component, Duty, File, Repository, time};
use crate::drill::recovery::{self, Recovery};
use crate::drill::report::span;
use crate::drill::{Evidence, history};
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
    /// Until it was ready, without what people take.
    recovery_seconds: Option<f64>,
    /// `measured`, or `projected`: its own part was measured alone, and that of what it waits for was added.
    recovery: &'static str,
    /// Declared, not measured: what people take.
    declared_seconds: Option<f64>,
    measured_by: Option<String>,
    rto: &'static str,
}

/// What a repository knows.
struct Known {
    list: SnapshotList,
    drills: Vec<Evidence>,
}

/// What is said below the table, each once.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn push(&mut self, note: String) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }
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
    let mut notes = Notes::default();
    let known = know_all(file, &stacks, &mut notes, context).await?;
    let drills: Vec<Evidence> = known.values().flat_map(|known| known.drills.iter().cloned()).collect();
    let mut rows = Vec::new();
    for (stack, components) in stacks {
        let measured = measured(stack, components, file, &drills);
        let ready = ready(components, &measured);
        for (name, component) in components {
            let mut row = row(stack, name, component, file, &known, context, &mut notes)?;
            if let Some(found) = measured.get(name) {
                let projected = ready.get(name).filter(|_| !found.is_of_stack && !component.needs.is_empty());
                row.recovery_seconds = Some(projected.copied().unwrap_or(found.ready_seconds));
                row.recovery = if projected.is_some() { "projected" } else { "measured" };
                row.declared_seconds = Some(found.declared_seconds).filter(|declared| *declared > 0.0);
                row.measured_by = Some(found.by.clone());
            }
            row.rto = judge_rto(&row, file, &mut notes);
            rows.push(row);
        }
        notes.0.extend(back(stack, components, &drills, &measured));
    }
    let missed =
        rows.iter().any(|row| ["impossible", "missed"].iter().any(|bad| row.rpo == *bad || row.rto == *bad));
    if context.json {
        context.json(&serde_json::json!({ "components": rows, "notes": notes.0 }))?;
    } else {
        show(&rows, &notes.0, context)?;
    }
    Ok(if missed { Exit::ObjectiveMissed } else { Exit::Ok })
}

/// Looks into every repository that the stacks' jobs are in, and those that the file's drills are kept in.
async fn know_all(
    file: &File,
    stacks: &[(&String, &BTreeMap<String, Component>)],
    notes: &mut Notes,
    context: &Context,
) -> Result<BTreeMap<String, Known>, CliError> {
    let mut known = BTreeMap::new();
    for job in stacks.iter().flat_map(|(_, all)| all.keys()).filter_map(|name| file.job.get(name)) {
        let (name, repository) = file.repository_of(job).map_err(CliError::usage)?;
        if !known.contains_key(name) {
            known.insert(name.to_owned(), know(repository, context).await?);
        }
    }
    for drill in file.drill.values() {
        let (name, repository) = file.repository_of_drill(drill).map_err(CliError::usage)?;
        if known.contains_key(name) {
            continue;
        }
        match know(repository, context).await {
            Ok(found) => drop(known.insert(name.to_owned(), found)),
            Err(error) if error.exit == Exit::Interrupted => return Err(error),
            // Only evidence is looked for there: what it would say is missing, and nothing else.
            Err(error) => {
                let why = error.causes.join(": ");
                notes.push(format!("the drills kept in repository {name} are not known: {why}"));
            }
        }
    }
    Ok(known)
}

async fn know(repository: &Repository, context: &Context) -> Result<Known, CliError> {
    let there = context.with(context.settings_of(repository)?);
    let repo = there.open().await?;
    there.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
    let list = there.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
    let kept = history::newest(&repo, None, DRILLS, &context.cancel).await?;
    let drills = kept.into_iter().map(|kept| kept.signed.evidence).collect();
    Ok(Known { list, drills })
}

/// What drills measured of a stack's components.
fn measured(
    stack: &str,
    components: &BTreeMap<String, Component>,
    file: &File,
    drills: &[Evidence],
) -> BTreeMap<String, Recovery> {
    let of = |(name, component): (&String, &Component)| {
        let job = file.job.contains_key(name).then_some(name.as_str());
        let found = recovery::of_component(drills, stack, name, job, !component.needs.is_empty())?;
        Some((name.clone(), found))
    };
    components.iter().filter_map(of).collect()
}

/// When each component whose chain was measured would be ready, in seconds, each part taking what it took.
fn ready(
    components: &BTreeMap<String, Component>,
    measured: &BTreeMap<String, Recovery>,
) -> BTreeMap<String, f64> {
    let Some((ready, _)) = chain(components, measured) else { return BTreeMap::new() };
    ready.into_iter().map(|(name, at)| (name, at.as_secs_f64())).collect()
}

/// Every component's way, and the longest of all; what was not measured counts as nothing.
fn chain(
    components: &BTreeMap<String, Component>,
    measured: &BTreeMap<String, Recovery>,
) -> Option<(BTreeMap<String, Duration>, Vec<String>)> {
    let part = |(name, component): (&String, &Component)| {
        let needs = component.needs.iter().filter(|need| components.contains_key(*need)).cloned().collect();
        let own = measured.get(name).and_then(|found| Duration::try_from_secs_f64(found.own_seconds).ok());
        (name.clone(), objective::Component { takes: own.unwrap_or_default(), needs })
    };
    objective::critical_path(&components.iter().map(part).collect()).ok()
}

fn row(
    stack: &str,
    name: &str,
    component: &Component,
    file: &File,
    known: &BTreeMap<String, Known>,
    context: &Context,
    notes: &mut Notes,
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
        recovery: "–",
        ..Row::default()
    };
    let Some(job) = file.job.get(name) else { return Ok(row) };
    let (repository, _) = file.repository_of(job).map_err(CliError::usage)?;
    let Some(found) = known.get(repository) else { return Ok(row) };
    let now = jiff::Timestamp::now();
    let mut takes = None;
    // Of several machines with such a job the worst: each one's data is its own.
    for host in hosts(file, context) {
        let points = points(&found.list, name, &host);
        let exposure = objective::exposure(&points, now, now).map(|exposure| seconds(exposure.current));
        row.exposure_seconds = match (row.exposure_seconds, exposure) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        let took = |point: &Point| Duration::try_from(point.available.duration_since(point.consistent)).ok();
        takes = takes.max(points.iter().rev().take(RUNS).filter_map(took).max());
    }
    if let Some(rpo) = rpo {
        row.rpo = judge_rpo(file, name, rpo, takes, now, &mut row, notes)?;
    }
    Ok(row)
}

/// The machines whose snapshots count: those of the file that back up, else this one.
fn hosts(file: &File, context: &Context) -> Vec<String> {
    let backs_up = |name: &&String| file.not_its_duty(name, Duty::Backup).is_none();
    let named: Vec<String> = file.machine.keys().filter(backs_up).cloned().collect();
    if named.is_empty() { vec![context.settings.hostname.clone()] } else { named }
}

fn judge_rto(row: &Row, file: &File, notes: &mut Notes) -> &'static str {
    let Some(rto) = row.rto_seconds else { return "–" };
    let name = &row.component;
    let Some(recovery) = row.recovery_seconds else {
        let of_stack = file.drill.iter().find(|(_, drill)| drill.stack.as_ref() == Some(&row.stack));
        notes.push(match (file.job.contains_key(name), of_stack) {
            (true, None) => format!(
                "{name}: recovery was never measured: lifeboat drill run --snapshot {name}@latest"
            ),
            (_, Some((drill, _))) => {
                format!("{name}: recovery was never measured: lifeboat drill run {drill}")
            }
            (false, None) => format!(
                "{name}: it has no job, so only a drill of the stack measures it: [drill.NAME] stack = \"{0}\", and \
                 component.{name}.checks",
                row.stack
            ),
        });
        return "not measured";
    };
    if recovery + row.declared_seconds.unwrap_or_default() > rto { "missed" } else { "met" }
}

fn points(list: &SnapshotList, job: &str, host: &str) -> Vec<Point> {
    let filter = Filter { jobs: vec![job.to_owned()], hosts: vec![host.to_owned()], ..Filter::default() };
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
    notes: &mut Notes,
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
        Feasible::AtRisk => {
            let spare =
                rpo.mul_f64(1.0 - objective::SPARE).checked_sub(takes).map(|most| most.as_secs() / 60 * 60);
            let instead = match spare.filter(|most| *most > 0) {
                Some(most) => format!("; a run every {} or less leaves room", span(most as f64)),
                None => String::new(),
            };
            notes.push(format!(
                "{name}: at risk: runs up to {} apart, of {} each, lose up to {} of an RPO of {}: one slow run misses \
                 it{instead}",
                span(interval.as_secs_f64()),
                span(takes.as_secs_f64()),
                span(objective::worst_loss(interval, takes).as_secs_f64()),
                span(rpo.as_secs_f64())
            ));
            "at risk"
        }
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

/// When the whole stack is back: as a drill of it measured, else projected from what was measured of its parts.
fn back(
    stack: &str,
    components: &BTreeMap<String, Component>,
    drills: &[Evidence],
    measured: &BTreeMap<String, Recovery>,
) -> Option<String> {
    let without = |names: Vec<&str>, why: &str| match names.as_slice() {
        [] => String::new(),
        names => format!(", without {} ({why})", names.join(", ")),
    };
    let missing = |known: &dyn Fn(&String) -> bool| -> Vec<&str> {
        components.keys().filter(|name| !known(name)).map(String::as_str).collect()
    };
    if let Some(whole) = recovery::of_whole(drills, stack) {
        let left = without(missing(&|name| whole.components.contains(name)), "not rehearsed");
        let declared = match whole.declared_seconds {
            0.0 => String::new(),
            declared => format!(" + {} declared for people", span(declared)),
        };
        let (time, path) = (span(whole.recovery_seconds), whole.critical_path.join(" → "));
        return Some(format!(
            "{stack}: back after {time}{declared} by {path}, measured by {}{left}",
            whole.by
        ));
    }
    let (ready, path) = chain(components, measured)?;
    let last = path.last().and_then(|name| ready.get(name)).filter(|at| !at.is_zero())?;
    let left = without(missing(&|name| measured.contains_key(name)), "not measured");
    let (time, path) = (span(last.as_secs_f64()), path.join(" → "));
    Some(format!("{stack}: back after {time} by {path}, projected from drills of its parts{left}"))
}

fn show(rows: &[Row], notes: &[String], context: &Context) -> Result<(), CliError> {
    let head =
        ["COMPONENT", "EXPOSURE", "WORST LOSS", "RPO", "", "RECOVERY", "DECLARED", "RTO", "", "MEASURED BY"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let time = |seconds: Option<f64>| seconds.map_or("–".into(), span);
    for row in rows {
        let projected = if row.recovery == "projected" { ", projected" } else { "" };
        lines.push(vec![
            format!("{}.{}", row.stack, row.component),
            time(row.exposure_seconds),
            time(row.worst_loss_seconds),
            time(row.rpo_seconds),
            row.rpo.into(),
            time(row.recovery_seconds),
            row.declared_seconds.map_or("–".into(), |declared| format!("+ {}", span(declared))),
            time(row.rto_seconds),
            row.rto.into(),
            row.measured_by.as_ref().map_or("–".into(), |by| shown(by.as_bytes()) + projected),
        ]);
    }
    let mut out = context.out();
    out.line(table(&lines, &[1, 2, 3, 5, 6, 7]))?;
    for note in notes {
        out.line(format_args!("! {note}"))?;
    }
    out.finish()
}
