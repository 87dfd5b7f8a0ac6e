//! `drill run` for a stack of the configuration file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::super::backup::service::surroundings;
use super::super::{CliError, Context, Exit};
use super::bare::Bare;
use super::faults::{self, Means, run_bare};
use super::filing::{Ended, begin, close, redactor};
use super::rehearse::{Args, Rehearsed, begun, finish, ground};
use super::sandbox::{lend, sandbox_of};
use crate::app::drills;
use crate::config::file::{self, ConfigFile};
use crate::drill::evidence::Evidence;
use crate::drill::stack::{ComponentSpec, From, StackSpec, StackStage, run};
use crate::repo::snapshots::{Filter, parse_time};
use crate::repo::sync::Thoroughness;
use crate::repo::{Repository, to_timestamp};
use crate::seal::slot::Unlock;

/// The specification of a drill that names a stack.
pub fn spec_of(name: &str, drill: &file::Drill, found: &file::File) -> Result<StackSpec, CliError> {
    let what = format!("drill {name}");
    let time =
        |key: &str, text: &Option<String>| file::time(&what, key, text.as_ref()).map_err(CliError::usage);
    let stack = drill.stack.clone().unwrap_or_default();
    let mut components = BTreeMap::new();
    for (component, wanted) in found.stack_of(&stack).map_err(CliError::usage)? {
        let asked = drill.component.get(&component).cloned().unwrap_or_default();
        let what = format!("{what}: component {component}");
        let (sandbox, lent) = sandbox_of(&what, asked.sandbox.as_deref())?;
        let spec = ComponentSpec {
            needs: wanted.needs,
            job: found.job.contains_key(&component).then(|| component.clone()),
            sandbox,
            lent,
            rto: time("rto", &wanted.rto)?,
            rpo: time("rpo", &wanted.rpo)?,
            checks: asked.checks.iter().map(|check| check.0.clone()).collect(),
        };
        components.insert(component, spec);
    }
    let spec = StackSpec {
        name: name.to_owned(),
        stack,
        at: drill.at.clone(),
        rto: time("rto", &drill.rto)?,
        rpo: time("rpo", &drill.rpo)?,
        detect: time("detect", &drill.detect)?.unwrap_or_default(),
        decide: time("decide", &drill.decide)?.unwrap_or_default(),
        secrets: drill.secrets.clone(),
        faults: faults::of_file(&what, drill)?,
        components,
    };
    spec.validate().map_err(|error| CliError::from(error).within(&what))?;
    Ok(spec)
}

/// Rehearses the stack. With `repository =` in the drill everything comes from there, else each component from its
/// job's own.
pub async fn rehearse(
    args: &Args,
    name: &str,
    drill: &file::Drill,
    found: &ConfigFile,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut spec = spec_of(name, drill, &found.file)?;
    spec.faults.extend(args.faults.faults.iter().copied());
    spec.validate()?;
    let key = drills::signing_key(&context.settings)?;
    let under_way = begin(begun(name, spec.hash()?, context), !args.no_keep, context)?;
    let mut opened = BTreeMap::new();
    match in_sandboxes(args, &spec, drill, found, &mut opened, context).await {
        Ok((evidence, keeper)) => {
            let repo = opened.get(&keeper).map(|opened| &opened.repo);
            finish(Rehearsed { evidence, repo, key }, under_way, args, context).await
        }
        Err(error) => {
            // Once a component is begun there is evidence.
            close(under_way, Ended::Refused(&error), context);
            Err(error)
        }
    }
}

/// A repository that is open, and its address.
struct Opened {
    repo: Repository,
    address: String,
    unlock: Unlock,
    own: Context,
}

impl Opened {
    async fn at(own: Context) -> Result<Self, CliError> {
        let (repo, unlock) = own.open_with_key().await?;
        own.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
        let address = own.location()?.to_string();
        Ok(Self { repo, address, unlock, own })
    }
}

/// What faults of an opened repository are recovered with.
fn means(opened: &Opened, args: &Args, spec: &StackSpec, scratch: &Path) -> Result<(Means, Bare), CliError> {
    let replicas = faults::replicas_for(&args.faults, &spec.faults, &opened.own)?;
    let means = Means::new(opened.unlock.clone(), replicas, scratch.to_owned(), &opened.own)?;
    let bare = means.bare(&opened.own)?;
    Ok((means, bare))
}

/// What the drill found, and the name of the repository that it is filed in.
async fn in_sandboxes(
    args: &Args,
    spec: &StackSpec,
    drill: &file::Drill,
    found: &ConfigFile,
    opened: &mut BTreeMap<String, Opened>,
    context: &Context,
) -> Result<(Evidence, String), CliError> {
    let ground = ground(args, context);
    let (began, now) = (Instant::now(), to_timestamp(jiff::Timestamp::now()));
    let mut of_component = BTreeMap::new();
    for (component, wanted) in &spec.components {
        let Some(job) = wanted.job.as_ref().and_then(|job| found.file.job.get(job)) else { continue };
        let named = match drill.repository {
            Some(_) => found.file.repository_of_drill(drill),
            None => found.file.repository_of(job),
        };
        let (repository, settings) = named.map_err(CliError::usage)?;
        if !opened.contains_key(repository) {
            let own = context.with(context.settings_of(settings)?);
            opened.insert(repository.to_owned(), Opened::at(own).await?);
        }
        of_component.insert(component.clone(), repository.to_owned());
    }
    // What the drill is filed in: its own repository, which the components' mostly is.
    let (keeps_name, keeps_settings) = found.file.repository_of_drill(drill).map_err(CliError::usage)?;
    if !opened.contains_key(keeps_name) {
        let own = context.with(context.settings_of(keeps_settings)?);
        opened.insert(keeps_name.to_owned(), Opened::at(own).await?);
    }
    let Some(keeper) = opened.get(keeps_name) else {
        return Err(CliError::usage("no repository is defined"));
    };
    let mut lent = BTreeMap::new();
    for (component, wanted) in &spec.components {
        let taken = lend(wanted.lent.as_deref(), context).await;
        let taken = taken.map_err(|error| error.within(&format!("component {component}")))?;
        lent.extend(taken.map(|taken| (component.clone(), taken)));
    }
    let is_faulty = |name: &&String| !spec.faults.is_empty() && of_component.values().any(|of| of == *name);
    let means: BTreeMap<&String, (Means, Bare)> = opened
        .iter()
        .filter(|(name, _)| is_faulty(name))
        .map(|(name, opened)| Ok((name, means(opened, args, spec, &ground.scratch)?)))
        .collect::<Result<_, CliError>>()?;
    let bare: BTreeMap<&String, _> = means.iter().map(|(name, (_, bare))| (*name, run_bare(bare))).collect();
    let mut rescue = BTreeMap::new();
    for (name, (means, _)) in &means {
        if let (Some(opened), Some(bare)) = (opened.get(*name), bare.get(name)) {
            rescue.insert(*name, means.rescue(bare, &opened.own)?);
        }
    }
    let from = of_component
        .iter()
        .filter_map(|(component, name)| {
            let opened = opened.get(name)?;
            let (repository, rescue) = (opened.address.clone(), rescue.get(name));
            Some((component.clone(), From { repo: &opened.repo, repository, rescue }))
        })
        .collect();
    let around = surroundings(context, &keeper.repo);
    let redactor = redactor(context, None);
    let (counters, display) = context.progress();
    let at = spec.at.as_ref().and_then(|at| parse_time(at)).map_or(now, to_timestamp);
    let stage = StackStage {
        from,
        lent,
        filter: Filter::default(),
        at,
        now,
        open_target: &|address| drills::open_target(address, &around),
        ground,
        machine: drills::machine(&context.settings),
        repository: keeper.address.clone(),
        began,
        progress: counters,
        cancel: &context.cancel,
        redactor: &redactor,
    };
    let ran = run(spec, &stage).await;
    drop(display);
    Ok((ran?, keeps_name.to_owned()))
}
