//! `drill run`: which drills are meant, and one of them from opening the repository to its evidence.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::backup::service::surroundings;
use super::super::runbook::{OfFile, rehearse_drill};
use super::super::{CliError, Context, Exit};
use super::args::Args;
use super::bare::{Bare, Told};
use super::copies;
use super::faults::{self, Means, run_bare};
use super::filing::{Started, begin, close, redactor};
use super::finish::{Rehearsed, finish, write_all};
use super::sandbox::{lend, sandbox_of};
use crate::app::{self, drills};
use crate::config::file;
use crate::drill::evidence::{Evidence, Measured, Objectives};
use crate::drill::fault::{Witness, inject};
use crate::drill::sandbox::{DockerGround, Ground, end_orphans, sweep};
use crate::drill::spec::From;
use crate::drill::{Spec, Stage};
use crate::repo::Repository;
use crate::repo::sync::Thoroughness;

/// A drill of the configuration file.
pub fn spec_of(name: &str, drill: &file::Drill) -> Result<Spec, CliError> {
    let what = format!("drill {name}");
    let time =
        |key: &str, text: &Option<String>| file::time(&what, key, text.as_ref()).map_err(CliError::usage);
    let (sandbox, lent) = sandbox_of(&what, drill.sandbox.as_deref())?;
    let spec = Spec {
        name: name.to_owned(),
        snapshot: drill.restore.clone().unwrap_or_default(),
        machine: drill.machine.clone(),
        sandbox,
        lent,
        secrets: drill.secrets.clone(),
        rto: time("rto", &drill.rto)?,
        rpo: time("rpo", &drill.rpo)?,
        detect: time("detect", &drill.detect)?.unwrap_or_default(),
        decide: time("decide", &drill.decide)?.unwrap_or_default(),
        steps: drill.steps.iter().map(|step| step.0.clone()).collect(),
        checks: drill.checks.iter().map(|check| check.0.clone()).collect(),
        faults: faults::of_file(&what, drill)?,
        from: faults::from_of_file(&what, drill)?,
    };
    spec.validate().map_err(|error| CliError::from(error).within(&what))?;
    Ok(spec)
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if let Some(file) = args.faults.bare.clone() {
        return super::bare::child(&args, &file, context).await;
    }
    let args = args.settled()?;
    if !args.all && !context.has_file() {
        return one(&args, args.spec()?, None, context).await;
    }
    let found = context.file()?;
    if let Some(why) = found.file.not_its_duty(&found.machine, file::Duty::Drill).filter(|_| args.all) {
        context.note(format_args!("no drill was run: {why}"));
        return Ok(Exit::Ok);
    }
    if args.snapshot.is_some() && !found.file.drill.contains_key(args.name()) {
        return one(&args, args.spec()?, None, context).await;
    }
    let drills: Vec<_> =
        found.file.drill.iter().filter(|(name, _)| args.all || *name == args.name()).collect();
    if found.file.drill.is_empty() && !args.all {
        return one(&args, args.spec()?, None, context).await;
    }
    let known: Vec<&str> = found.file.drill.keys().map(String::as_str).collect();
    match drills.len() {
        // A misspelt name must not become a drill without checks.
        0 if !args.all => {
            let hint =
                format!("there are {}; --snapshot runs one that the file does not know", known.join(", "));
            return Err(CliError::usage(format!("there is no drill {:?}", args.name())).hint(hint));
        }
        0 => return Err(CliError::usage(format!("{} defines no drill", found.path.display()))),
        1 => {}
        _ if args.writes() => {
            let why = "several drills cannot share one file of evidence";
            return Err(
                CliError::usage(why).hint("name one drill, or use `drill show NAME --html FILE` afterwards")
            );
        }
        _ => {}
    }
    if let Some((name, _)) = drills.first() {
        args.refuse_changes(name, &found)?;
    }
    let mut exits = Vec::new();
    for (name, drill) in drills {
        let ended = async {
            let (drilled, repository) = found.file.repository_of_drill(drill).map_err(CliError::usage)?;
            let of_drill = context.with(context.settings_of(repository)?);
            if drill.stack.is_some() {
                return super::stack::rehearse(&args, name, drill, &found, &of_drill).await;
            }
            if let Some(runbook) = &drill.runbook {
                faults::refuse_for_runbook(name, drill, &args)?;
                return of_runbook(&args, name, drill, &found.path.with_file_name(runbook), &of_drill).await;
            }
            let (faults, mut spec) = args.faults.for_drill(drill, spec_of(name, drill)?);
            // Another snapshot is rehearsed as this one is: by the same checks.
            spec.snapshot = args.snapshot.clone().unwrap_or(spec.snapshot);
            spec.machine = args.host.clone().or(spec.machine);
            one(&args.with(faults), spec, Some((&found.file, drilled)), &of_drill).await
        };
        exits.push(match ended.await {
            Ok(exit) => exit,
            Err(error) => error.report(&format!("drill {name}"), context.json),
        });
    }
    Ok(Exit::worst_of(exits))
}

/// A drill whose steps stand in a document.
async fn of_runbook(
    args: &Args,
    name: &str,
    drill: &file::Drill,
    runbook: &Path,
    context: &Context,
) -> Result<Exit, CliError> {
    let set = drill.set.clone().into_iter().collect();
    let faults = faults::of_runbook(name, drill, &args.faults)?;
    let write = |signed: &_| write_all(args, signed, &[]);
    let of_file =
        OfFile { name, file: runbook.to_owned(), set, keep: !args.no_keep, scratch: args.scratch(), faults };
    rehearse_drill(of_file, &write, context).await
}

/// `known`: the file that tells of the drill, and the name of the repository it drills.
async fn one(
    args: &Args,
    spec: Spec,
    known: Option<(&file::File, &str)>,
    context: &Context,
) -> Result<Exit, CliError> {
    // Before anything starts, and before a password is asked for.
    spec.validate()?;
    let key = drills::signing_key(&context.settings)?;
    let begun = begun(&spec.name, spec.hash()?, (spec.rto, spec.rpo, spec.detect + spec.decide), context);
    let under_way = begin(begun, !args.no_keep, context)?;
    let started = Started::default();
    let ran = match rehearse(args, &spec, known, &started, context).await {
        Ok(ran) => ran,
        Err(error) => {
            close(under_way, started.ended(&error), context);
            return Err(error);
        }
    };
    let Ran { evidence, repo } = ran;
    finish(Rehearsed { evidence, repo: repo.as_ref(), key }, under_way, args, context).await
}

/// What is known of a drill before anything happened. `asked`: RTO, RPO, and what people are said to take.
pub fn begun(
    name: &str,
    spec_hash: String,
    (rto, rpo, declared): (Option<Duration>, Option<Duration>, Duration),
    context: &Context,
) -> Evidence {
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    Evidence {
        spec_hash,
        objectives: Objectives { rto_seconds: rto.map(seconds), rpo_seconds: rpo.map(seconds) },
        measured: Measured { declared_seconds: seconds(declared), ..Measured::default() },
        ..Evidence::blank(name, drills::machine(&context.settings))
    }
}

async fn rehearse(
    args: &Args,
    spec: &Spec,
    known: Option<(&file::File, &str)>,
    started: &Started,
    context: &Context,
) -> Result<Ran, CliError> {
    let mut ran = match spec.from {
        From::Here => here(args, spec, &Witness::default(), started, context).await?,
        From::Replica | From::Kit => {
            let scratch = ground(args, context).scratch;
            let beginnings = faults::beginnings(&args.faults, &spec.from, started, context, &scratch)?;
            let evidence = from_nothing(beginnings, &Told::One(spec.clone())).await?;
            Ran { evidence, repo: home(args, context).await }
        }
    };
    if let Some((file, drilled)) = known {
        copies::look(file, drilled, &mut ran.evidence, context).await;
    }
    Ok(ran)
}

/// A drill that ran, and the repository that keeps its evidence.
pub struct Ran {
    pub evidence: Evidence,
    repo: Option<Repository>,
}

/// Where evidence of a recovery from elsewhere is kept, if that can be reached.
pub async fn home(args: &Args, context: &Context) -> Option<Repository> {
    if args.no_keep {
        return None;
    }
    let opening = async {
        let (location, password) = (context.location()?, context.password()?);
        // Not given up when interrupted: that is what the evidence has to say.
        Ok::<_, CliError>(app::open_repository(&context.settings, location, &password).await?)
    };
    let opened = opening.await;
    opened
        .map_err(|error| context.warn(format_args!("the evidence is not kept: {}", error.causes.join(": "))))
        .ok()
}

/// Runs a drill on this machine as it stands, and injects its faults.
pub async fn here(
    args: &Args,
    spec: &Spec,
    witness: &Witness,
    started: &Started,
    context: &Context,
) -> Result<Ran, CliError> {
    let mut ground = ground(args, context);
    ground.lent = lend(spec.lent.as_deref(), context).await?;
    let scratch = ground.scratch.clone();
    // A fault that cannot be what it is declared to be is told before anything starts.
    let replicas = faults::replicas_for(&args.faults, &spec.faults, context)?;
    let began = Instant::now();
    let (repo, unlock) = context.open_with_key().await?;
    context.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
    let around = surroundings(context, &repo);
    let redactor = redactor(context, Some(&unlock));
    // Also what faults are recovered with: once the drill has run, no error may hide what it found.
    let means = match spec.faults.is_empty() {
        true => None,
        false => {
            let means = Means::new(unlock, replicas, scratch, context)?;
            let bare = means.bare(context)?;
            Some((means, bare))
        }
    };
    let bare = means.as_ref().map(|(_, bare)| run_bare(bare));
    let rescue = match means.as_ref().zip(bare.as_ref()) {
        Some(((means, _), bare)) => Some(means.rescue(bare, context)?),
        None => None,
    };
    let (counters, display) = context.progress();
    let stage = Stage {
        repo: &repo,
        repository: context.location()?.to_string(),
        open_target: &|address| drills::open_target(address, &around),
        ground,
        machine: drills::machine(&context.settings),
        began,
        progress: counters,
        cancel: &context.cancel,
        keep: None,
        witness: (!spec.faults.is_empty() || args.faults.witness.is_some()).then_some(witness),
        redactor: &redactor,
    };
    started.set(true);
    // Its only errors are refusals of what was asked: then nothing was restored.
    let ran = crate::drill::run(spec, &stage).await.inspect_err(|_| started.set(false));
    let mut evidence = ran?;
    if let Some(rescue) = &rescue {
        inject(spec, &stage, witness, rescue, &mut evidence).await;
    }
    drop(stage);
    drop(display);
    Ok(Ran { evidence, repo: Some(repo) })
}

/// What sandboxes are made on, once what earlier drills left there is swept.
pub fn ground(args: &Args, context: &Context) -> Ground {
    let scratch = args.scratch();
    sweep_left(&scratch, context);
    Ground {
        scratch,
        path: context.settings.services.path.clone(),
        withheld: crate::config::SECRET_VARIABLES,
        cancel: context.cancel.clone(),
        variables: Vec::new(),
        docker: DockerGround {
            host: context.settings.services.docker_host.clone(),
            state: context.settings.state.value.clone(),
            secrets: Vec::new(),
        },
        lent: None,
    }
}

/// Removes what killed drills left below `scratch`, and ends commands of theirs that still run.
pub fn sweep_left(scratch: &Path, context: &Context) {
    match end_orphans() {
        0 => {}
        1 => context.note("ended a command that an earlier drill left running"),
        many => context.note(format_args!("ended {many} processes that an earlier drill left running")),
    }
    for left in sweep(scratch) {
        context.note(format_args!("removed what an earlier drill left behind: {}", left.display()));
    }
}

/// Runs a drill that begins with nothing of this machine's, at the first address that opens.
pub async fn from_nothing(beginnings: Vec<Bare>, told: &Told) -> Result<Evidence, CliError> {
    let mut unreachable: Vec<String> = Vec::new();
    let mut first = None;
    for bare in beginnings {
        let address = bare.address.clone();
        match bare.run(told.clone()).await {
            Ok((mut evidence, _)) => {
                evidence.spec_hash = told.hash()?;
                evidence.not_tested.extend(unreachable);
                return Ok(evidence);
            }
            Err(error) if matches!(error.exit, Exit::WrongKey | Exit::Interrupted) => return Err(error),
            Err(error) => {
                unreachable.push(format!("{address}: {}", error.causes.join(": ")));
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| CliError::usage("the kit names no address")))
}
