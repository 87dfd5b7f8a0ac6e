//! `runbook run`: a person follows a document, and everything that happens is written down before and after.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::super::{CliError, Context, Exit};
use super::ask::{Person, has_terminal};
use super::{problems, rehearse, told, values};
use crate::app::runbooks::{self, Surroundings};
use crate::base::clock::SystemClock;
use crate::base::own_file::Trust;
use crate::base::whole_file;
use crate::drill::report::short_time;
use crate::runbook::audit::{Audit, Event, FORMAT, Past, newest};
use crate::runbook::check::Severity;
use crate::runbook::record::{Ended, Outcome};
use crate::runbook::run::{Options, run as run_steps};
use crate::runbook::transcript::{About, markdown, span};
use crate::runbook::{self, Phase, Runbook};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The runbook
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Value of one of its variables (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair)]
    pub set: Vec<(String, String)>,
    /// Begin at this step; those before it are skipped
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// Go on with the last run: what it did is not done again
    #[arg(long, conflicts_with = "from")]
    resume: bool,
    /// Off a terminal: a destructive step that removes or replaces this may run (may be repeated)
    #[arg(long, value_name = "VALUE")]
    confirm: Vec<String>,
    /// Where to write what happened, in Markdown [default: beside the record in the state folder]
    #[arg(long, value_name = "FILE")]
    pub transcript: Option<PathBuf>,
    /// Rehearse it: in a sandbox, without questions, measured, the evidence kept
    #[arg(long, conflicts_with_all = ["from", "resume", "confirm"])]
    drill: bool,
    /// Write date and time of a drill that passed into the runbook, and in words where or with what data
    #[arg(long, value_name = "WORDS", requires = "drill", num_args = 0..=1, require_equals = true,
          default_missing_value = "")]
    pub record: Option<String>,
    /// Keep the drill's evidence on this machine only, not in the repository
    #[arg(long, requires = "drill")]
    pub no_keep: bool,
    /// Folder for the drill's sandbox [default: the system's for temporary files]
    #[arg(long, value_name = "DIR", requires = "drill")]
    pub scratch: Option<PathBuf>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if args.drill {
        return rehearse::run(&args, context).await;
    }
    let runbook = runbook::load(&args.file, Trust::Own)?;
    for problem in problems(&runbook).iter().filter(|problem| problem.severity == Severity::Error) {
        // In an emergency a dead link must not keep anybody from going on.
        context.warn(told(&args.file, problem));
    }
    needs_somebody(&runbook, &args, context)?;
    let folder = runbooks::folder(&context.settings, &runbook.front.name)?;
    let _lock = lock(&folder)?;
    let past = past(&folder, &args, context)?;
    let mut around = Surroundings::of_process();
    let set = values::known(&runbook, &args.set)?;
    let before = past.as_ref().map(|past| past.variables.clone()).unwrap_or_default();
    let mut found = values::of_run(&runbook, &set, &before, &around, context)?;
    values::password(&runbook, &mut around, context)?;
    passed_on(&mut around, context);
    let shown = values::shown(&runbook, &found);
    introduce(&runbook, &shown, context);
    values::leave_to_settings(&runbook, &mut found, context);
    let clock = SystemClock::new();
    let begin =
        begin(&runbook, false, &shown, past.as_ref().map(|past| past.path.display().to_string()), context);
    let mut audit = Audit::begin(&folder, &stamp(), &begin)?;
    let options = Options {
        is_drill: false,
        redactor: around.redactor(&context.settings, values::secrets(&runbook, &found)),
        variables: found,
        environment: around.into_pairs(),
        agreed: agreed(context),
        folder: std::env::current_dir().map_err(|error| CliError::new(Exit::Failed, error.to_string()))?,
        from: args.from.clone(),
        past: past.as_ref(),
        clock: &clock,
        cancel: &context.cancel,
    };
    let total = runbook.steps.iter().filter(|step| step.is_on_the_way()).count();
    let mut person = Person { context, total, at: 0, confirmed: args.confirm.clone() };
    let outcome = tokio::task::block_in_place(|| run_steps(&runbook, &options, &mut person, &mut audit))?;
    let transcript = args.transcript.clone().unwrap_or_else(|| audit.path().with_extension("md"));
    let about = About { is_drill: false, by: &by(context), variables: &shown, not_tested: &[] };
    write(&transcript, &markdown(&runbook, &outcome, &about))?;
    tell(&runbook, &outcome, &transcript, audit.path(), &args, context)?;
    Ok(exit(&outcome))
}

/// Off a terminal consent must be on the command line, and nobody is there for what people do.
fn needs_somebody(runbook: &Runbook, args: &Args, context: &Context) -> Result<(), CliError> {
    if has_terminal() {
        return Ok(());
    }
    if !context.yes {
        let hint = "--yes runs the ordinary steps without asking, --confirm VALUE those that destroy VALUE";
        return Err(CliError::usage("a runbook is followed at a terminal").hint(hint));
    }
    let way = runbook.steps.iter().filter(|step| step.is_on_the_way());
    let mut way = way.skip_while(|step| args.from.as_ref().is_some_and(|from| *from != step.name));
    match way.find(|step| step.is_manual()).filter(|_| !args.resume) {
        Some(step) => Err(CliError::usage(format!(
            "step {} is done by a person, and there is no terminal to tell one",
            step.name
        ))
        .hint("begin behind it with --from STEP")),
        None => Ok(()),
    }
}

/// Two at once would step on each other's feet.
fn lock(folder: &Path) -> Result<File, CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(Exit::Failed, format!("cannot use {}: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(folder.join("lock")).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => {
            Err(CliError::new(Exit::Conflict, "somebody follows this runbook on this machine right now"))
        }
    }
}

fn past(folder: &Path, args: &Args, context: &Context) -> Result<Option<Past>, CliError> {
    let past = match newest(folder) {
        // In an emergency an old record that cannot be read keeps nobody from beginning.
        Err(error) if !args.resume => {
            context.warn(error);
            None
        }
        past => past?,
    };
    if let Some(open) = past.as_ref().and_then(|past| past.open.as_ref())
        && let Some(group) = open.still_runs()
    {
        let why = format!("step {} of a run that was killed still works (process group {group})", open.step);
        return Err(
            CliError::new(Exit::Conflict, why).hint(format!("let it end, or end it: kill -- -{group}"))
        );
    }
    let is_open = |past: &Past| past.ended != Some(Ended::Completed);
    match (args.resume, past) {
        (true, Some(past)) if is_open(&past) => {
            if let Some(open) = &past.open {
                context
                    .note(format_args!("step {} was begun and nobody saw its end: it runs again", open.step));
            }
            Ok(Some(past))
        }
        (true, Some(past)) => Err(CliError::usage(format!(
            "the last run, of {}, was completed: there is nothing to resume",
            short_time(&past.started_at)
        ))),
        (true, None) => Err(CliError::usage("no run of this runbook was begun on this machine")),
        (false, Some(past)) if is_open(&past) && args.from.is_none() => {
            context.note(format_args!(
                "a run of {} was not completed; --resume goes on with it",
                short_time(&past.started_at)
            ));
            Ok(None)
        }
        (false, _) => Ok(None),
    }
}

/// A step that destroys something was agreed to by typing what: steps have no terminal to be asked the environment's
/// word on as well.
fn agreed(context: &Context) -> Vec<(OsString, OsString)> {
    let file = context.has_file().then(|| context.file().ok()).flatten();
    let word = file.and_then(|found| found.file.environment);
    word.into_iter().map(|word| ("LIFEBOAT_CONFIRM".into(), word.into())).collect()
}

/// Steps call us again: flags of this call hold for them too.
fn passed_on(around: &mut Surroundings, context: &Context) {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(config) = context.config_flag() {
        around.set("LIFEBOAT_CONFIG", absolute(config));
    }
    if let Some(repository) = context.repository_flag() {
        around.set("LIFEBOAT_REPOSITORY", repository);
    }
}

pub fn begin(
    runbook: &Runbook,
    is_drill: bool,
    shown: &[(String, String)],
    resumes: Option<String>,
    context: &Context,
) -> Event {
    Event::Begin {
        format: FORMAT,
        at: jiff::Timestamp::now().to_string(),
        runbook: runbook.front.name.clone(),
        document: blake3::hash(runbook.text.as_bytes()).to_hex().to_string(),
        is_drill,
        host: context.settings.hostname.clone(),
        user: context.settings.user.clone(),
        program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
        variables: shown.iter().cloned().collect(),
        resumes,
    }
}

/// Names a run: sorts by time.
pub fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

pub fn by(context: &Context) -> String {
    format!(
        "{} on {}, lifeboat {}",
        context.settings.user,
        context.settings.hostname,
        env!("CARGO_PKG_VERSION")
    )
}

pub fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let written = whole_file::write(path, whole_file::ORDINARY, text.as_bytes());
    written.map_err(|error| CliError::new(Exit::Failed, format!("write {}: {error}", path.display())))
}

fn introduce(runbook: &Runbook, shown: &[(String, String)], context: &Context) {
    context.note(&runbook.title);
    match &runbook.front.measured {
        Some(measured) => context.note(format_args!(
            "Rehearsed on {} in {} ({}).",
            measured.date,
            span(measured.rto.as_secs_f64()),
            measured.machine
        )),
        None => context.note("This runbook was never rehearsed, as far as it says."),
    }
    for (name, value) in shown {
        context.note(format_args!("  {name} = {}", super::super::text::shown(value.as_bytes())));
    }
}

fn exit(outcome: &Outcome) -> Exit {
    match outcome.ended {
        Ended::Completed if outcome.unproven().is_some() => Exit::DrillCheckFailed,
        Ended::Completed => Exit::Ok,
        Ended::Interrupted => Exit::Interrupted,
        Ended::Failed if outcome.failure().is_some_and(|record| record.phase == Phase::Verify) => {
            Exit::Damage
        }
        Ended::Failed | Ended::Stopped => Exit::Failed,
    }
}

fn tell(
    runbook: &Runbook,
    outcome: &Outcome,
    transcript: &Path,
    audit: &Path,
    args: &Args,
    context: &Context,
) -> Result<(), CliError> {
    if context.json {
        return context.json(&serde_json::json!({
            "runbook": runbook.front.name, "outcome": outcome, "transcript": transcript, "audit": audit,
        }));
    }
    let mut lines = vec![format!("{} after {}", outcome.ended.words(), span(outcome.recovery_seconds))];
    if let Some(record) = outcome.failure() {
        lines.push(format!("  step {}: {}", record.step, record.why.as_deref().unwrap_or_default()));
    }
    if let Some(record) = outcome.unproven().filter(|_| outcome.ended == Ended::Completed) {
        lines.push(format!("  step {} was skipped: nothing proves the data yet", record.step));
    }
    lines.push(format!("transcript  {}", transcript.display()));
    lines.push(format!("record      {}", audit.display()));
    if outcome.ended != Ended::Completed {
        lines.push(format!("go on with  lifeboat runbook run {} --resume", args.file.display()));
    }
    context.tell(lines.join("\n"))
}
