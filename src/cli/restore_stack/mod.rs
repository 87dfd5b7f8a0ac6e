//! `restore --stack`: all of a stack as it was at one time, each component back where it came from or elsewhere, in
//! the order in which they need each other.
//!
//! Everything that can be looked at is looked at before the first byte moves; what cannot be done is said then. A
//! component that fails keeps back only what needs it, and the message says how to go on.

mod go;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::paths::open_to_read;
use super::production::{agree, live, server_of};
use super::restore::Args;
use super::snapshots::short;
use super::text::{iso_time, local_time, table};
use super::{CliError, Context, Exit};
use crate::app::services;
use crate::base::byte_size;
use crate::base::order::{self, Needs};
use crate::config::file::{Component, ConfigFile};
use crate::drill::report::span;
use crate::engine::coherent;
use crate::engine::read::select::{Selected, SnapshotPath};
use crate::format::entry::Timestamp;
use crate::repo::snapshots::{Filter, SnapshotList, parse_time};
use crate::repo::{Repository, to_timestamp};

use look::There;

/// What only the restore of a stack knows.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A whole stack")]
pub struct StackArgs {
    /// Restore a stack of the configuration file: of each component the newest snapshot, in the order they need each
    /// other
    #[arg(long, value_name = "NAME", conflicts_with_all = ["what", "target"])]
    pub stack: Option<String>,
    /// With --stack: as it was at or before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "stack")]
    at: Option<Timestamp>,
    /// With --stack: everything as files into DIR/COMPONENT, nothing where it came from
    #[arg(long, value_name = "DIR", requires = "stack")]
    to_dir: Option<PathBuf>,
    /// With --stack: this component into another folder or service (may be repeated)
    #[arg(long, value_name = "COMPONENT=DIR|SERVICE", requires = "stack")]
    map: Vec<String>,
    /// With --stack: only this component and what needs it; everything else is taken as restored (may be repeated)
    #[arg(long, value_name = "COMPONENT", requires = "stack", value_delimiter = ',')]
    from: Vec<String>,
}

impl StackArgs {
    /// The same again, for a run that goes on.
    fn again(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(folder) = &self.to_dir {
            words.extend(["--to-dir".to_owned(), folder.display().to_string()]);
        }
        for mapped in &self.map {
            words.extend(["--map".to_owned(), mapped.clone()]);
        }
        words
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = parse_time(text).ok_or("write a time such as 2026-11-20T02:00 or 2026-11-20T02:00:00Z")?;
    Ok(to_timestamp(time))
}

/// Where a component goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    Folder(PathBuf),
    Service(String),
}

impl To {
    fn parse(text: &str) -> Self {
        match services::is_service(text) {
            true => Self::Service(text.to_owned()),
            false => Self::Folder(text.into()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Folder(path) if path.parent().is_none() => "its original paths".into(),
            Self::Folder(path) => super::text::shown(path.as_os_str().as_encoded_bytes()),
            Self::Service(address) => services::shown(address),
        }
    }
}

/// One component with data of its own.
pub(super) struct Part<'s> {
    pub name: String,
    pub depth: usize,
    pub repo: &'s Repository,
    pub selected: Selected,
    pub to: To,
    /// It goes to where it came from, or another job's data is.
    pub is_live: bool,
}

/// An opened repository and what it lists.
struct Opened {
    repo: Repository,
    list: SnapshotList,
}

/// All of it.
pub(super) struct Stack<'s> {
    pub name: String,
    pub at: Timestamp,
    pub parts: Vec<Part<'s>>,
    /// Components without data, and why.
    pub without: Vec<(String, String)>,
    pub needs: Needs,
}

impl Stack<'_> {
    fn skew(&self) -> Option<std::time::Duration> {
        coherent::skew(self.parts.iter().map(|part| part.selected.snapshot.summary.consistent))
    }
}

pub async fn run(args: Args, name: &str, context: &Context) -> Result<Exit, CliError> {
    let found = context.file()?;
    let components = found.file.stack_of(name).map_err(CliError::usage)?;
    let places = places(&args, &components, &found)?;
    let opened = open_all(&components, &found, context).await?;
    let stack = gather(&args, name, &components, places, &found, &opened, context).await?;
    let theres = look::all(&stack, &args, context).await?;
    if !context.json {
        show(&stack, &theres, args.dry_run, context)?;
    }
    let refused: Vec<&CliError> = theres.iter().filter_map(There::refusal).collect();
    if args.dry_run {
        if context.json {
            context.json(&plan_json(&stack, &theres))?;
        }
        return Ok(Exit::worst_of(refused.iter().map(|error| error.exit)));
    }
    if let Some((part, error)) =
        stack.parts.iter().zip(&theres).find_map(|(part, there)| Some((part, there.refusal()?)))
    {
        let causes = [vec![part.name.clone()], error.causes.clone()].concat();
        return Err(CliError { exit: error.exit, causes, hint: error.hint.clone() });
    }
    consent(&stack, &theres, &args, &found, context)?;
    go::run(&stack, &args, context)
}

/// Where each component that has a job goes.
fn places(
    args: &Args,
    components: &BTreeMap<String, Component>,
    found: &ConfigFile,
) -> Result<BTreeMap<String, To>, CliError> {
    let own = &args.stack;
    let known = || components.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut places = BTreeMap::new();
    for mapped in &own.map {
        let Some((name, to)) = mapped.split_once('=').filter(|(_, to)| !to.is_empty()) else {
            return Err(CliError::usage(format!("--map {mapped}: write COMPONENT=DIR or COMPONENT=SERVICE")));
        };
        if !components.contains_key(name) || !found.file.job.contains_key(name) {
            let why = format!("--map {mapped}: the stack has no component {name:?} with data");
            return Err(CliError::usage(why).hint(format!("there are {}", known())));
        }
        super::backup::service::refuse_password(to)?;
        if places.insert(name.to_owned(), To::parse(to)).is_some() {
            return Err(CliError::usage(format!("--map names {name} twice")));
        }
    }
    if let Some(name) = own.from.iter().find(|name| !components.contains_key(*name)) {
        let why = format!("--from {name}: the stack has no such component");
        return Err(CliError::usage(why).hint(format!("there are {}", known())));
    }
    for name in components.keys() {
        let Some(job) = found.file.job.get(name).filter(|_| !places.contains_key(name)) else { continue };
        let to = match (&own.to_dir, job.source.all().as_slice()) {
            (Some(folder), _) => To::Folder(folder.join(name)),
            (None, [one]) if services::is_service(one) => To::Service((*one).to_owned()),
            // Paths in a snapshot are absolute: they go back to where they were.
            (None, _) => To::Folder("/".into()),
        };
        places.insert(name.clone(), to);
    }
    Ok(places)
}

/// Opens each repository that a component's job is in, once.
async fn open_all(
    components: &BTreeMap<String, Component>,
    found: &ConfigFile,
    context: &Context,
) -> Result<BTreeMap<String, Opened>, CliError> {
    let mut opened = BTreeMap::new();
    for job in components.keys().filter_map(|name| found.file.job.get(name)) {
        let (name, repository) = found.file.repository_of(job).map_err(CliError::usage)?;
        if opened.contains_key(name) {
            continue;
        }
        let own = context.with(context.settings_of(repository)?);
        let repo = open_to_read(&own).await?;
        let list = own.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
        opened.insert(name.to_owned(), Opened { repo, list });
    }
    Ok(opened)
}

async fn gather<'s>(
    args: &Args,
    name: &str,
    components: &BTreeMap<String, Component>,
    mut places: BTreeMap<String, To>,
    found: &ConfigFile,
    opened: &'s BTreeMap<String, Opened>,
    context: &Context,
) -> Result<Stack<'s>, CliError> {
    let own = &context.settings.hostname;
    let filter = Filter { machine: own.clone(), ..Filter::from(args.snapshots.clone()) };
    let now = opened.values().next().map(|opened| opened.repo.world.now());
    let now = now.ok_or_else(|| {
        CliError::usage(format!("no component of stack {name} has a job: nothing to restore"))
    })?;
    let at = args.stack.at.unwrap_or(now);
    let needs: Needs =
        components.iter().map(|(name, component)| (name.clone(), component.needs.clone())).collect();
    let from: BTreeSet<String> = args.stack.from.iter().cloned().collect();
    let wanted =
        if from.is_empty() { needs.keys().cloned().collect() } else { order::dependents(&needs, &from) };
    let live = live(&found.file);
    let (mut parts, mut without) = (Vec::new(), Vec::new());
    for (component, depth) in order::sorted(&needs) {
        if !wanted.contains(&component) {
            without.push((component, "taken as restored".to_owned()));
            continue;
        }
        let (Some(job), Some(to)) = (found.file.job.get(&component), places.remove(&component)) else {
            without.push((component, "no job: to be made by hand or by its runbook".to_owned()));
            continue;
        };
        let (repository, _) = found.file.repository_of(job).map_err(CliError::usage)?;
        let Some(Opened { repo, list }) = opened.get(repository) else { continue };
        let mut filter = filter.clone();
        // What was said here goes before what the file says.
        if let (true, Some(machine)) =
            (filter.hosts.is_empty(), components.get(&component).and_then(|of| of.machine.as_ref()))
        {
            filter.hosts = vec![machine.clone()];
        }
        let snapshot = coherent::newest(list, &component, at, &filter)
            .map_err(|error| CliError::from(error).within(&component))?;
        let path = SnapshotPath::parse(snapshot.id.hex().as_ref())?;
        let all = Filter::default();
        let selected =
            context.until_cancelled(async { Ok(path.select_from(repo, list, &all).await?) }).await?;
        let is_live = match &to {
            To::Service(address) => live.contains(&server_of(address)),
            To::Folder(folder) => folder.parent().is_none(),
        };
        parts.push(Part { name: component, depth, repo, selected, to, is_live });
    }
    let needs = needs.into_iter().filter(|(name, _)| parts.iter().any(|part| part.name == *name)).collect();
    Ok(Stack { name: name.to_owned(), at, parts, without, needs })
}

fn show(stack: &Stack<'_>, theres: &[There], dry_run: bool, context: &Context) -> Result<(), CliError> {
    if context.quiet && !dry_run {
        return Ok(());
    }
    let mut out = context.out();
    let skew = match stack.skew() {
        Some(skew) => format!("; its parts are at most {} apart", span(skew.as_secs_f64())),
        None => String::new(),
    };
    let verb = match (dry_run, theres.iter().any(|there| there.refusal().is_some())) {
        (_, true) => "cannot restore",
        (true, false) => "would restore",
        (false, false) => "restoring",
    };
    out.line(format_args!("{verb} stack {} as of {}{skew}", stack.name, local_time(stack.at)))?;
    out.line("")?;
    let head = ["STEP", "COMPONENT", "SNAPSHOT", "DATA OF", "SIZE", "TO", "THERE NOW"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for (part, there) in stack.parts.iter().zip(theres) {
        let snapshot = &part.selected.snapshot;
        rows.push(vec![
            (part.depth + 1).to_string(),
            part.name.clone(),
            short(&snapshot.id),
            local_time(snapshot.summary.consistent),
            byte_size::human(there.bytes(part)).to_string(),
            part.to.shown(),
            there.words(),
        ]);
    }
    out.line(table(&rows, &[4]))?;
    for (name, why) in &stack.without {
        out.line(format_args!("–     {name}: {why}"))?;
    }
    for (part, there) in stack.parts.iter().zip(theres) {
        let problems = part.selected.snapshot.summary.statistics.problems;
        if problems > 0 {
            out.line(format_args!("! {}: its backup could not read {problems} paths", part.name))?;
        }
        for line in there.details() {
            out.line(format_args!("! {}: {line}", part.name))?;
        }
        if let Some(error) = there.refusal() {
            out.line(format_args!("✗ {}: {}", part.name, error.causes.join(": ")))?;
            if let Some(hint) = &error.hint {
                out.line(format_args!("  hint: {hint}"))?;
            }
        }
    }
    out.finish()
}

fn plan_json(stack: &Stack<'_>, theres: &[There]) -> serde_json::Value {
    let part = |(part, there): (&Part<'_>, &There)| {
        let summary = &part.selected.snapshot.summary;
        serde_json::json!({
            "component": part.name, "step": part.depth + 1, "snapshot": part.selected.snapshot.id.hex(),
            "consistent_at": iso_time(summary.consistent), "problems": summary.statistics.problems,
            "bytes": there.bytes(part), "to": part.to.shown(), "there": there.words(), "meets": there.details(),
            "overwrites": there.overwrites(), "refused": there.refusal().map(|error| error.causes.join(": ")),
        })
    };
    serde_json::json!({
        "dry_run": true, "stack": stack.name, "at": iso_time(stack.at),
        "skew_seconds": stack.skew().map(|skew| skew.as_secs_f64()),
        "components": stack.parts.iter().zip(theres).map(part).collect::<Vec<_>>(),
        "without": stack.without.iter().map(|(name, why)| serde_json::json!({ "component": name, "why": why }))
            .collect::<Vec<_>>(),
    })
}

/// Nothing that is there is replaced unless somebody agreed; where the file names an environment, by its word.
fn consent(
    stack: &Stack<'_>,
    theres: &[There],
    args: &Args,
    found: &ConfigFile,
    context: &Context,
) -> Result<(), CliError> {
    let live: Vec<&str> =
        stack.parts.iter().filter(|part| part.is_live).map(|part| part.name.as_str()).collect();
    if let Some(word) = found.file.environment.as_ref().filter(|_| !live.is_empty()) {
        let what = format!("this restores {} into {word}", live.join(", "));
        return agree(word, args.confirm.as_ref(), &what, "--to-dir and --map restore elsewhere", context);
    }
    let replaced = stack.parts.iter().zip(theres).filter(|(part, there)| part.is_live || there.overwrites());
    let names: Vec<&str> = replaced.map(|(part, _)| part.name.as_str()).collect();
    match names.as_slice() {
        [] => Ok(()),
        names => context.confirm(&format!("restore {} over what is there", names.join(", "))),
    }
}
