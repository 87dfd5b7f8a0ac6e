//! Flags of `drill run` for what goes wrong: faults to inject, replicas to turn to, the kit to begin with.

use std::path::PathBuf;

use super::super::{CliError, Context};
use super::args::Args;
use super::bare::{Bare, Told};
use super::filing::Started;
use crate::app;
use crate::config::{Environment, Found, Settings, file, location};
use crate::drill::Spec;
use crate::drill::evidence::Evidence;
use crate::drill::fault::{BareRun, Copy, Expect, FaultSpec, Rescue, Witness};
use crate::drill::spec::From;
use crate::engine;
use crate::repo::kit::Kit;
use crate::seal::slot::Unlock;

#[derive(Clone, Debug, clap::Args)]
pub struct FaultArgs {
    /// Inject a fault into a restore of its own after the drill, such as missing-pack or half-gone=fails_closed (may be
    /// repeated), besides those that the configuration file has for NAME; the repository is only read
    #[arg(long = "fault", value_name = "KIND[=EXPECT]")]
    pub faults: Vec<FaultSpec>,
    /// A replica to turn to when the repository is lost (may be repeated); those of the configuration file are known
    #[arg(long, value_name = "PATH|URL")]
    pub replica: Vec<String>,
    /// Begin with this recovery kit, the password and the storage's credentials only, as if the server were gone
    #[arg(long, value_name = "FILE")]
    pub from_kit: Option<PathBuf>,
    /// Run this specification and print unsigned evidence: what a drill that begins with nothing starts
    #[arg(long, value_name = "FILE", hide = true)]
    pub bare: Option<PathBuf>,
    /// Tell in this file what was restored, for whoever started the bare drill
    #[arg(long, value_name = "FILE", hide = true, requires = "bare")]
    pub witness: Option<PathBuf>,
}

impl FaultArgs {
    /// What the flags and the configuration file make together of a drill of the file: its faults and those of the
    /// flags are injected.
    pub fn for_drill(&self, drill: &file::Drill, spec: Spec) -> (Self, Spec) {
        let from = if self.from_kit.is_some() { From::Kit } else { spec.from.clone() };
        let from_kit = self.from_kit.clone().or_else(|| drill.kit.clone());
        let faults = [spec.faults.as_slice(), &self.faults].concat();
        (Self { from_kit, ..self.clone() }, Spec { from, faults, ..spec })
    }
}

/// A runbook says itself what it begins with and what goes wrong.
pub fn refuse_for_runbook(name: &str, drill: &file::Drill, args: &Args) -> Result<(), CliError> {
    if args.host.is_some() || args.snapshot.is_some() {
        let why = format!("drill {name}: the runbook says itself what is restored, and whose");
        return Err(CliError::usage(why)
            .hint("its variables are set in the file: set = { SNAPSHOT = \"JOB@latest\" }"));
    }
    if drill.from.is_some() || drill.kit.is_some() || args.faults.from_kit.is_some() {
        let why = format!("drill {name}: a drill of a runbook begins as the runbook says");
        return Err(CliError::usage(why).hint("make a drill of one snapshot: restore = \"JOB@latest\""));
    }
    Ok(())
}

/// The faults of a drill of a runbook: those of the file, then those of the flags.
pub fn of_runbook(name: &str, drill: &file::Drill, args: &FaultArgs) -> Result<Vec<FaultSpec>, CliError> {
    let what = format!("drill {name}");
    let mut all = of_file(&what, drill)?;
    all.extend(args.faults.iter().copied());
    for (at, fault) in all.iter().enumerate() {
        fault.fits_runbook().map_err(|error| CliError::from(error).within(&what))?;
        if all[..at].iter().any(|before| before.kind == fault.kind) {
            return Err(CliError::usage(format!("{what}: {} is injected once a drill", fault.kind.name())));
        }
    }
    Ok(all)
}

/// The faults of a drill of the configuration file.
pub fn of_file(what: &str, drill: &file::Drill) -> Result<Vec<FaultSpec>, CliError> {
    let read = |fault: &file::Fault| {
        let found = FaultSpec::of(&fault.kind, fault.declared.as_deref());
        found.map_err(|error| CliError::usage(format!("{what}: faults: {error}")))
    };
    drill.faults.iter().map(read).collect()
}

/// What a drill of the configuration file begins with.
pub fn from_of_file(what: &str, drill: &file::Drill) -> Result<From, CliError> {
    let Some(name) = &drill.from else {
        return Ok(if drill.kit.is_some() { From::Kit } else { From::Here });
    };
    let found = From::ALL.into_iter().find(|(known, _)| known == name);
    let names = From::ALL.map(|(known, _)| known).join(", ");
    let wrong = || CliError::usage(format!("{what}: from = {name:?} is none of {names}"));
    Ok(found.ok_or_else(wrong)?.1)
}

/// The replicas that faults may need; a fault that is declared to recover from one needs one.
pub fn replicas_for(
    args: &FaultArgs,
    faults: &[FaultSpec],
    context: &Context,
) -> Result<Vec<Settings>, CliError> {
    if faults.is_empty() {
        return Ok(Vec::new());
    }
    let replicas = replicas(args, context)?;
    let wants = |fault: &&FaultSpec| fault.declared == Some(Expect::RecoversFromReplica);
    match faults.iter().find(wants) {
        Some(fault) if replicas.is_empty() => {
            let why =
                format!("{} is declared to recover from a replica, and there is none", fault.kind.name());
            Err(CliError::usage(why).hint("name one with replica_of in the configuration file, or --replica"))
        }
        _ => Ok(replicas),
    }
}

/// Settings for every replica that is known: of flags, then of the configuration file.
fn replicas(args: &FaultArgs, context: &Context) -> Result<Vec<Settings>, CliError> {
    let environment = Environment::of_process();
    let mut found = Vec::new();
    for replica in &args.replica {
        let repository = Some(Found::flag(location(replica, &environment)?, "--replica"));
        found.push(Settings { repository, kit: None, ..context.settings.clone() });
    }
    let Ok(own) = context.location() else { return Ok(found) };
    if !context.has_file() {
        return Ok(found);
    }
    let file = context.file()?.file;
    for (name, repository) in &file.repository {
        if location(&repository.url, &environment).is_ok_and(|url| url == *own) {
            for kin in file.kin_of(name) {
                let settings = context.settings_of_other(kin)?;
                let repository =
                    Some(Found::flag(location(&kin.url, &environment)?, "the configuration file"));
                found.push(Settings { repository, kit: None, ..settings });
            }
        }
    }
    Ok(found)
}

/// The replicas as stores. One that cannot be reached at all is left out with a warning: its absence will show.
fn copies(replicas: &[Settings], unlock: &Unlock, context: &Context) -> Result<Vec<Copy>, CliError> {
    let mut copies = Vec::new();
    for settings in replicas {
        let location = app::location(settings)?;
        let unlock = settings.password.read()?.unwrap_or_else(|| unlock.clone());
        match app::open_store(settings, location) {
            Ok(store) => copies.push(Copy { address: location.to_string(), store, unlock }),
            Err(error) => context.warn(format_args!("replica {location}: {error}")),
        }
    }
    Ok(copies)
}

/// What there is to recover with, for faults of a repository that `context` names.
pub struct Means {
    pub unlock: Unlock,
    kit: Option<Kit>,
    replicas: Vec<Settings>,
    scratch: PathBuf,
}

impl Means {
    pub fn new(
        unlock: Unlock,
        replicas: Vec<Settings>,
        scratch: PathBuf,
        context: &Context,
    ) -> Result<Self, CliError> {
        let kit = context.settings.kit.as_deref().map(engine::kit::load).transpose()?;
        Ok(Self { unlock, kit, replicas, scratch })
    }

    /// A process that begins with nothing.
    pub fn bare(&self, context: &Context) -> Result<Bare, CliError> {
        Bare::at(context, &self.unlock, self.scratch.clone())
    }

    pub fn rescue<'m>(&'m self, bare: &'m BareRun<'m>, context: &Context) -> Result<Rescue<'m>, CliError> {
        Ok(Rescue {
            unlock: &self.unlock,
            kit: self.kit.as_ref(),
            replicas: copies(&self.replicas, &self.unlock, context)?,
            max_retries: context.settings.store.max_retries,
            bare,
        })
    }
}

/// Runs a specification in a process that begins with nothing.
pub fn run_bare(bare: &Bare) -> impl Fn(Spec, Vec<(String, String)>) -> Outcome + Send + Sync + '_ {
    |spec, variables| {
        let bare = Bare { variables, ..bare.clone() };
        Box::pin(async move { bare.run(Told::One(spec)).await.map_err(|error| error.causes.join(": ")) })
    }
}

type Outcome = futures::future::BoxFuture<'static, Result<(Evidence, Witness), String>>;

/// Where a drill that does not begin with this machine as it stands begins: addresses in the order they are tried.
pub fn beginnings(
    args: &FaultArgs,
    from: &From,
    started: &Started,
    context: &Context,
    scratch: &std::path::Path,
) -> Result<Vec<Bare>, CliError> {
    let settings = &context.settings;
    let bare = |from, kit, address, options, unlock| Bare {
        from,
        kit,
        address,
        options,
        unlock,
        variables: Vec::new(),
        scratch: scratch.to_owned(),
        cancel: context.cancel.clone(),
        started: started.clone(),
    };
    if *from == From::Replica {
        let replicas = replicas(args, context)?;
        if replicas.is_empty() {
            let hint = "name one with replica_of in the configuration file, or --replica";
            return Err(CliError::usage("there is no replica to begin with").hint(hint));
        }
        let unlock = context.password()?;
        let begin = |found: &Settings| {
            let unlock = found.password.read()?.unwrap_or_else(|| unlock.clone());
            let address = super::super::kit::address_of(app::location(found)?)?;
            Ok(bare("replica", None, address, context.storage_options(), unlock))
        };
        return replicas.iter().map(begin).collect();
    }
    let Some(file) = args.from_kit.as_ref().or(settings.kit.as_ref()) else {
        return Err(CliError::usage("a drill that begins with a kit needs one").hint("--from-kit FILE"));
    };
    let kit = engine::kit::load(file)?;
    if kit.altered || kit.addresses.is_empty() {
        return Err(CliError::usage(format!("{}: its addresses cannot be relied on", file.display())));
    }
    let file = std::path::absolute(file).map_err(|error| CliError::usage(error.to_string()))?;
    let words = format!("{} ({})", kit.made, kit.fingerprint());
    let unlock = match settings.password.read()? {
        Some(unlock) => unlock,
        None => {
            super::super::prompt::password(&format!("password for the kit of repository {}: ", kit.repo))?
        }
    };
    let begin = |address: &String| {
        let mut options = super::super::kit::options_for(&kit, address)?;
        options.extend(context.storage_options());
        Ok(bare("kit", Some((file.clone(), words.clone())), address.clone(), options, unlock.clone()))
    };
    kit.addresses.iter().map(begin).collect()
}
