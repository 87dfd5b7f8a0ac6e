//! `restore`: a snapshot, or one path of it, into a folder or a service; or a stack.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::filter::FilterArgs;
use super::paths::{JsonPath, open_to_read, select, shown_key};
use super::restore_stack::{self, StackArgs};
use super::snapshots::short;
use super::text::{count, plural, shown, span};
use super::{CliError, Context, Exit, every, production, restore_service};
use crate::app::services;
use crate::base::byte_size;
use crate::engine::read::fetch::FetchOptions;
use crate::engine::read::filter::FilterOptions;
use crate::engine::read::select::Selected;
use crate::engine::restore::outcome::Problems;
use crate::engine::restore::{Outcome, Overwrite, Plan, RestoreOptions, plan, restore};
use crate::repo::Repository;
use crate::repo::snapshots::Filter;
use crate::source::files::target::{OwnerMap, TargetOptions};

/// Problems and paths shown to people before "and N more"; JSON has them all.
const SHOWN: usize = 20;
/// Descriptors wanted: more files may be under way at once.
const OPEN_FILES: u64 = 32_768;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// latest, an id, JOB@latest…, and :PATH for the contents of one folder, or one file; '*@latest' for the files of
    /// every job
    #[arg(value_name = "SNAP[:PATH]", required_unless_present = "stack")]
    what: Option<OsString>,
    /// Folder to restore into, made if missing; or the service a captured one goes back to
    #[arg(short, long, visible_alias = "to", value_name = "DIR|SERVICE", required_unless_present = "stack")]
    target: Option<PathBuf>,
    #[command(flatten)]
    pub(super) stack: StackArgs,
    #[command(flatten)]
    pub(super) service: restore_service::ServiceArgs,
    #[command(flatten)]
    pub(super) snapshots: FilterArgs,
    /// Restore only what matches, in gitignore syntax over the original paths (may be repeated)
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out what matches (may be repeated)
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Patterns take upper and lower case alike
    #[arg(long)]
    ignore_case: bool,
    /// What to do with files that exist: always compares their content and fetches what differs, if-changed trusts
    /// size and mtime, never leaves them alone
    #[arg(long, value_enum, default_value = "always")]
    overwrite: OverwriteArg,
    /// Remove what is in restored folders but not in the snapshot, and was not left out of it; asks first
    #[arg(long)]
    delete: bool,
    /// With --delete: remove also what the backup was told to leave out (its excludes)
    #[arg(long, requires = "delete")]
    delete_excluded: bool,
    /// Read everything back and compare it with the snapshot
    #[arg(long)]
    verify: bool,
    /// Show what would be done
    #[arg(short = 'n', long, visible_alias = "plan")]
    pub(super) dry_run: bool,
    /// The word that `environment` in the configuration file asks for before what its jobs back up is restored into
    /// [env: LIFEBOAT_CONFIRM]
    #[arg(long, value_name = "WORD")]
    pub(super) confirm: Option<String>,
    /// Write differing pieces into existing files: less disk space and writing, but an interruption leaves a mix
    #[arg(long)]
    in_place: bool,
    /// Leave runs of zeros as holes, also where the original had none
    #[arg(long)]
    sparse: bool,
    /// Use owners' numbers as stored, whatever names they had
    #[arg(long)]
    numeric_ids: bool,
    /// Give OLD's files to NEW: USER, USER:GROUP or :GROUP, by name or number (may be repeated)
    #[arg(long, value_name = "OLD=NEW")]
    map_owner: Vec<String>,
    /// Threads that decrypt and write [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OverwriteArg {
    Always,
    IfChanged,
    Never,
}

impl Args {
    /// How to restore into `target`.
    pub(super) fn options_for(&self, target: &Path) -> Result<RestoreOptions, CliError> {
        let mut owners = OwnerMap::default();
        owners.numeric = self.numeric_ids;
        for rule in &self.map_owner {
            owners.add(rule).map_err(|error| CliError::usage(error.to_string()))?;
        }
        Ok(RestoreOptions {
            target: target.to_owned(),
            filter: FilterOptions {
                include: self.include.clone(),
                exclude: self.exclude.clone(),
                any_case: self.ignore_case,
            },
            overwrite: match self.overwrite {
                OverwriteArg::Always => Overwrite::Always,
                OverwriteArg::IfChanged => Overwrite::IfChanged,
                OverwriteArg::Never => Overwrite::Never,
            },
            delete: self.delete,
            delete_excluded: self.delete_excluded,
            verify: self.verify,
            in_place: self.in_place,
            files: TargetOptions { owners, sparse: self.sparse, replace_directories: self.delete },
            fetch: FetchOptions { threads: self.threads, ..FetchOptions::default() },
        })
    }
}

/// What `--json` answers.
#[derive(Debug, Serialize)]
struct Report {
    snapshot: String,
    target: JsonPath,
    seconds: f64,
    files: u64,
    directories: u64,
    others: u64,
    hardlinks: u64,
    unchanged: u64,
    skipped: u64,
    deleted: u64,
    bytes: u64,
    fetched_bytes: u64,
    verified: u64,
    owners_not_set: u64,
    damaged_count: u64,
    failed_count: u64,
    attributes_count: u64,
    damaged: Vec<Row>,
    failed: Vec<Row>,
    attributes: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    path: JsonPath,
    message: String,
}

fn rows(problems: &Problems) -> Vec<Row> {
    let row = |problem: &crate::engine::restore::Problem| Row {
        path: JsonPath::of_key(&problem.key),
        message: problem.message.clone(),
    };
    problems.named.iter().map(row).collect()
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    raise_open_files();
    if let Some(name) = args.stack.stack.clone() {
        return restore_stack::run(args, &name, context).await;
    }
    let (Some(what), Some(target)) = (&args.what, &args.target) else {
        return Err(CliError::usage("what to restore, and where to?"));
    };
    let options = args.options_for(target)?;
    let service = target.to_str().filter(|text| services::is_service(text));
    if let Some(address) = service.filter(|_| !args.dry_run) {
        production::agree_for_service(address, args.confirm.as_ref(), context)?;
    }
    if every::is_every(what) && (service.is_some() || args.delete) {
        let why = "every job's files go into one folder, beside what else is there";
        return Err(CliError::usage(why).hint("name one job for a service, or with --delete: JOB@latest"));
    }
    let repo = open_to_read(context).await?;
    let filter = Filter::from(args.snapshots.clone());
    if every::is_every(what) {
        let mut every = every::select(context, &repo, what, &filter).await?;
        if matches!(args.overwrite, OverwriteArg::Never) {
            // What is there first stays.
            every.files.reverse();
        }
        let mut exits = vec![every.exit];
        for selected in every.files {
            exits.push(match one(&args, &repo, &selected, &options, context).await {
                Err(error) if error.exit == Exit::Interrupted => return Err(error),
                Err(error) => {
                    error.report(&format!("restore {}", selected.snapshot.summary.job), context.json)
                }
                Ok(exit) => exit,
            });
        }
        return Ok(Exit::worst_of(exits));
    }
    let selected = select(context, &repo, what, &filter).await?;
    if let Some(address) = service {
        let flags = args.service.flags();
        return match args.dry_run {
            true => restore_service::plan(address, flags, &repo, &selected, context).await,
            false => restore_service::run(address, flags, &repo, &selected, context).await,
        };
    }
    one(&args, &repo, &selected, &options, context).await
}

/// One snapshot into a folder.
async fn one(
    args: &Args,
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
    context: &Context,
) -> Result<Exit, CliError> {
    let (counters, display) = context.progress();
    let mut planned = None;
    if args.dry_run || args.delete {
        let made = plan(repo, selected, options, counters.as_ref(), &context.cancel).await?;
        if args.dry_run {
            drop(display);
            return show_plan(&made, selected, options, context);
        }
        planned = Some(made);
    }
    drop(display);
    if let Some(made) = &planned {
        consent(made, &options.target, context)?;
    }
    let (counters, display) = context.progress();
    let start = Instant::now();
    let result = restore(repo, selected, options, planned.as_ref(), counters, &context.cancel).await;
    drop(display);
    let outcome = result?;
    report(&outcome, selected, options, start.elapsed().as_secs_f64(), context)
}

/// Shows what will be lost, and asks.
fn consent(plan: &Plan, target: &std::path::Path, context: &Context) -> Result<(), CliError> {
    if !plan.left_out.is_empty() {
        let paths = paths(plan.left_out.len());
        context.note(format_args!(
            "{paths} that the backup left out will stay; --delete-excluded removes them too"
        ));
    }
    if plan.delete.is_empty() {
        return Ok(());
    }
    for (keys, verb) in [(&plan.delete, "to remove"), (&plan.replaced, "to replace")] {
        for key in keys.iter().take(SHOWN) {
            context.note(format_args!("{verb}: {}", shown_key(key)));
        }
        if keys.len() > SHOWN {
            context.note(format_args!("{verb}: {} more", count((keys.len() - SHOWN) as u64)));
        }
    }
    let target = shown(target.as_os_str().as_encoded_bytes());
    context.confirm(&format!("remove {} below {target}", paths(plan.delete.len())))
}

fn paths(number: usize) -> String {
    plural(number as u64, "path")
}

/// As many descriptors as this process may have anyway.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let most = limits.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limits.current.is_some_and(|current| current < most) {
        // Failing to only means smaller windows.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limits.maximum });
    }
}

/// Warns when patterns were given. Nobody restores nothing on purpose.
fn nothing_matches(options: &RestoreOptions, context: &Context) -> bool {
    let FilterOptions { include, exclude, .. } = &options.filter;
    let filtered = !include.is_empty() || !exclude.is_empty();
    if filtered {
        context.warn(
            "nothing in the snapshot is left by these patterns; they see the original absolute paths, as \
             `lifeboat ls` shows them",
        );
    }
    filtered
}

fn show_plan(
    plan: &Plan,
    selected: &Selected,
    options: &RestoreOptions,
    context: &Context,
) -> Result<Exit, CliError> {
    let nothing = plan.files + plan.directories + plan.others == 0;
    let exit = match plan.unreadable_pages + plan.unsafe_paths {
        0 if nothing && nothing_matches(options, context) => Exit::Failed,
        0 => Exit::Ok,
        _ => Exit::Damage,
    };
    if context.json {
        let json = |keys: &[Vec<u8>]| keys.iter().map(|key| JsonPath::of_key(key)).collect::<Vec<_>>();
        context.json(&serde_json::json!({
            "dry_run": true,
            "snapshot": selected.snapshot.id.hex(),
            "target": JsonPath::new(options.target.as_os_str().as_encoded_bytes()),
            "files": plan.files, "directories": plan.directories, "others": plan.others, "bytes": plan.bytes,
            "new_files": plan.new_files, "new_bytes": plan.new_bytes,
            "existing_files": plan.existing_files, "existing_bytes": plan.existing_bytes,
            "differing_files": plan.differing_files, "skipped": plan.skipped,
            "delete": json(&plan.delete), "left_out": json(&plan.left_out),
            "replaced": json(&plan.replaced), "in_the_way": json(&plan.in_the_way),
            "unreadable_pages": plan.unreadable_pages, "unsafe_paths": plan.unsafe_paths,
        }))?;
        return Ok(exit);
    }
    let mut out = context.out();
    out.line(format_args!(
        "would restore {} ({}) and {} of snapshot {} into {}",
        plural(plan.files, "file"),
        byte_size::human(plan.bytes),
        plural(plan.directories, "folder"),
        short(&selected.snapshot.id),
        options.target.display()
    ))?;
    out.line(format_args!(
        "  new       {}, {}",
        plural(plan.new_files, "file"),
        byte_size::human(plan.new_bytes)
    ))?;
    out.line(format_args!(
        "  compared  {}, {}; {} differ by size or mtime",
        plural(plan.existing_files, "file"),
        byte_size::human(plan.existing_bytes),
        count(plan.differing_files)
    ))?;
    if plan.skipped > 0 {
        out.line(format_args!("  left alone {}", count(plan.skipped)))?;
    }
    for (keys, verb) in [
        (&plan.delete, "remove    "),
        (&plan.replaced, "replace   "),
        (&plan.left_out, "keep      "),
        (&plan.in_the_way, "in the way"),
    ] {
        for key in keys {
            out.line(format_args!("  {verb} {}", shown_key(key)))?;
        }
    }
    out.finish()?;
    if plan.unreadable_pages > 0 {
        context.warn("parts of the snapshot's tree cannot be read: nothing would be removed");
    }
    Ok(exit)
}

fn report(
    outcome: &Outcome,
    selected: &Selected,
    options: &RestoreOptions,
    seconds: f64,
    context: &Context,
) -> Result<Exit, CliError> {
    if context.json {
        context.json(&Report {
            snapshot: selected.snapshot.id.hex(),
            target: JsonPath::new(options.target.as_os_str().as_encoded_bytes()),
            seconds,
            files: outcome.files,
            directories: outcome.directories,
            others: outcome.others,
            hardlinks: outcome.hardlinks,
            unchanged: outcome.unchanged,
            skipped: outcome.skipped,
            deleted: outcome.deleted,
            bytes: outcome.bytes,
            fetched_bytes: outcome.fetched_bytes,
            verified: outcome.verified,
            owners_not_set: outcome.owners_not_set,
            damaged_count: outcome.damaged.count,
            failed_count: outcome.failed.count,
            attributes_count: outcome.attributes.count,
            damaged: rows(&outcome.damaged),
            failed: rows(&outcome.failed),
            attributes: rows(&outcome.attributes),
        })?;
    } else {
        context.tell(summary(outcome, selected, options, seconds))?;
        warn_all(context, "not restored, stored data is damaged", &outcome.damaged);
        warn_all(context, "not restored", &outcome.failed);
        warn_all(context, "restored without all attributes", &outcome.attributes);
        if outcome.owners_not_set > 0 {
            let paths = plural(outcome.owners_not_set, "path");
            context.note(format_args!("{paths} now of yours: only root can give files away"));
        }
    }
    let nothing = outcome.files + outcome.directories + outcome.others + outcome.skipped == 0;
    match exit_of(outcome) {
        Exit::Ok if nothing && nothing_matches(options, context) => Ok(Exit::Failed),
        exit => Ok(exit),
    }
}

/// How a restore of files ended.
pub(super) fn exit_of(outcome: &Outcome) -> Exit {
    match (outcome.is_damaged(), outcome.failed.count, outcome.attributes.count) {
        (true, _, _) => Exit::Damage,
        (_, 0, 0) => Exit::Ok,
        (_, 0, _) => Exit::Partial,
        _ => Exit::Failed,
    }
}

fn summary(outcome: &Outcome, selected: &Selected, options: &RestoreOptions, seconds: f64) -> String {
    let mut text = format!(
        "restored {} ({}) of snapshot {} into {} in {}",
        plural(outcome.files, "file"),
        byte_size::human(outcome.bytes),
        short(&selected.snapshot.id),
        shown(options.target.as_os_str().as_encoded_bytes()),
        span(std::time::Duration::from_secs_f64(seconds)),
    );
    for (number, what) in [
        (outcome.unchanged, "were right already"),
        (outcome.skipped, "were left alone"),
        (outcome.deleted, "removed"),
        (outcome.verified, "were read back and found right"),
    ] {
        if number > 0 {
            text.push_str(&format!("; {} {what}", count(number)));
        }
    }
    text
}

pub(super) fn warn_all(context: &Context, what: &str, problems: &Problems) {
    for problem in problems.named.iter().take(SHOWN) {
        context.warn(format_args!("{what}: {}: {}", shown_key(&problem.key), problem.message));
    }
    let more = problems.count.saturating_sub(SHOWN.min(problems.named.len()) as u64);
    if more > 0 {
        context.warn(format_args!("{what}: {} more", count(more)));
    }
}
