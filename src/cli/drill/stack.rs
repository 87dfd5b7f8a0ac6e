//! `drill run` for a stack of the configuration file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::super::backup::service::surroundings;
use super::super::{CliError, Context, Exit};
use super::args::Args;
use super::bare::{Bare, Told};
use super::faults::{self, Means, run_bare};
use super::filing::{Started, begin, close, redactor};
use super::finish::{Rehearsed, finish};
use super::rehearse::{begun, from_nothing, ground, home};
use super::sandbox::{lend, sandbox_of};
use crate::app::drills;
use crate::config::file::{self, ConfigFile};
use crate::drill::evidence::Evidence;
use crate::drill::sandbox::Ground;
use crate::drill::spec::From as Beginning;
use crate::drill::stack::{ComponentSpec, From, StackSpec, StackStage, run};
use crate::repo::snapshots::parse_time;
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
            machine: wanted.machine.or_else(|| drill.machine.clone()),
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
        from: faults::from_of_file(&what, drill)?,
        components,
    };
    spec.validate().map_err(|error| CliError::from(error).within(&what))?;
    Ok(spec)
}

/// Rehearses the stack. With `repository =` in the drill everything comes from there, else each component from its
/// job's own; from a kit or replica everything comes from that.
pub async fn rehearse(
    args: &Args,
    name: &str,
    drill: &file::Drill,
    found: &ConfigFile,
    context: &Context,
) -> Result<Exit, CliError> {
    let spec = asked(args, name, drill, found)?;
    let key = drills::signing_key(&context.settings)?;
    let declared = spec.detect + spec.decide;
    let begun = begun(name, spec.hash()?, (spec.rto, spec.rpo, declared), context);
    let under_way = begin(begun, !args.no_keep, context)?;
    let (mut homes, started) = (Homes::default(), Started::default());
    let rehearsing = async {
        if spec.from.is_here() {
            let (ground, began) = (ground(args, context), Instant::now());
            homes.open(&spec, drill, found, context).await?;
            let evidence = in_sandboxes(args, &spec, &homes, ground, began, context).await?;
            return Ok::<_, CliError>((evidence, None));
        }
        let evidence = elsewhere(args, &spec, drill, found, &started, context).await?;
        Ok((evidence, home(args, context).await))
    };
    match rehearsing.await {
        Ok((evidence, repo)) => {
            let repo = repo.as_ref().or(homes.keeper().map(|keeper| &keeper.repo));
            finish(Rehearsed { evidence, repo, key }, under_way, args, context).await
        }
        Err(error) => {
            // Once a component is begun there is evidence.
            close(under_way, started.ended(&error), context);
            Err(error)
        }
    }
}

/// What the file and the flags make together of a drill.
fn asked(args: &Args, name: &str, drill: &file::Drill, found: &ConfigFile) -> Result<StackSpec, CliError> {
    if args.snapshot.is_some() {
        let why = format!("drill {name} is of a stack, which is more than one snapshot");
        return Err(CliError::usage(why).hint("at = \"TIME\" in the file takes the stack of another time"));
    }
    let mut spec = spec_of(name, drill, &found.file)?;
    spec.faults.extend(args.faults.faults.iter().copied());
    if args.faults.from_kit.is_some() {
        spec.from = Beginning::Kit;
    }
    for component in spec.components.values_mut().filter(|component| component.job.is_some()) {
        component.machine = args.host.clone().or(component.machine.take());
    }
    spec.validate()?;
    Ok(spec)
}

/// All of it from a kit or a replica alone: a process that begins with nothing of this machine's.
async fn elsewhere(
    args: &Args,
    spec: &StackSpec,
    drill: &file::Drill,
    found: &ConfigFile,
    started: &Started,
    context: &Context,
) -> Result<Evidence, CliError> {
    let jobs = spec.components.values().filter_map(|component| found.file.job.get(component.job.as_ref()?));
    let mut all = BTreeMap::new();
    for job in jobs {
        let named = match drill.repository {
            Some(_) => found.file.repository_of_drill(drill),
            None => found.file.repository_of(job),
        };
        let (name, repository) = named.map_err(CliError::usage)?;
        all.insert(name, repository);
    }
    let names: Vec<&str> = all.keys().copied().collect();
    let [(_, repository)] = all.iter().collect::<Vec<_>>()[..] else {
        let why = format!(
            "a kit or replica is of one repository, and the stack's jobs are in {}",
            names.join(", ")
        );
        return Err(
            CliError::usage(why).hint("repository = \"NAME\" in the drill takes all of them from one")
        );
    };
    let own = context.with(context.settings_of(repository)?);
    let flags = faults::FaultArgs {
        from_kit: args.faults.from_kit.clone().or_else(|| drill.kit.clone()),
        ..args.faults.clone()
    };
    let scratch = ground(args, context).scratch;
    let beginnings = faults::beginnings(&flags, &spec.from, started, &own, &scratch)?;
    from_nothing(beginnings, &Told::Stack(spec.clone())).await
}

/// The child's side of that: everything from the one repository it was given.
pub async fn bare(args: &Args, spec: &StackSpec, context: &Context) -> Result<Evidence, CliError> {
    let (ground, began) = (ground(args, context), Instant::now());
    let mut homes = Homes { keeps: ONLY.to_owned(), ..Homes::default() };
    homes.opened.insert(ONLY.to_owned(), Opened::at(context.with(context.settings.clone())).await?);
    let with_data = spec.components.iter().filter(|(_, component)| component.job.is_some());
    homes.of_component = with_data.map(|(name, _)| (name.clone(), ONLY.to_owned())).collect();
    in_sandboxes(args, spec, &homes, ground, began, context).await
}

/// What the one repository of a process that begins with nothing is called.
const ONLY: &str = "only";

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

/// The repositories of a stack, each opened once, by their names.
#[derive(Default)]
struct Homes {
    opened: BTreeMap<String, Opened>,
    /// By component, of those with data.
    of_component: BTreeMap<String, String>,
    /// What the drill is filed in: its own repository, which the components' mostly is.
    keeps: String,
}

impl Homes {
    fn keeper(&self) -> Option<&Opened> {
        self.opened.get(&self.keeps)
    }

    async fn open(
        &mut self,
        spec: &StackSpec,
        drill: &file::Drill,
        found: &ConfigFile,
        context: &Context,
    ) -> Result<(), CliError> {
        for (component, wanted) in &spec.components {
            let Some(job) = wanted.job.as_ref().and_then(|job| found.file.job.get(job)) else { continue };
            let named = match drill.repository {
                Some(_) => found.file.repository_of_drill(drill),
                None => found.file.repository_of(job),
            };
            let (repository, settings) = named.map_err(CliError::usage)?;
            self.open_one(repository, settings, context).await?;
            self.of_component.insert(component.clone(), repository.to_owned());
        }
        let (name, settings) = found.file.repository_of_drill(drill).map_err(CliError::usage)?;
        self.keeps = name.to_owned();
        self.open_one(name, settings, context).await
    }

    async fn open_one(
        &mut self,
        name: &str,
        settings: &file::Repository,
        context: &Context,
    ) -> Result<(), CliError> {
        if !self.opened.contains_key(name) {
            let own = context.with(context.settings_of(settings)?);
            self.opened.insert(name.to_owned(), Opened::at(own).await?);
        }
        Ok(())
    }
}

/// What faults of an opened repository are recovered with.
fn means(opened: &Opened, args: &Args, spec: &StackSpec, scratch: &Path) -> Result<(Means, Bare), CliError> {
    let replicas = faults::replicas_for(&args.faults, &spec.faults, &opened.own)?;
    let means = Means::new(opened.unlock.clone(), replicas, scratch.to_owned(), &opened.own)?;
    let bare = means.bare(&opened.own)?;
    Ok((means, bare))
}

/// What the drill found.
async fn in_sandboxes(
    args: &Args,
    spec: &StackSpec,
    homes: &Homes,
    ground: Ground,
    began: Instant,
    context: &Context,
) -> Result<Evidence, CliError> {
    let now = to_timestamp(jiff::Timestamp::now());
    let Homes { opened, of_component, .. } = homes;
    let Some(keeper) = homes.keeper() else { return Err(CliError::usage("no repository is defined")) };
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
    Ok(ran?)
}
