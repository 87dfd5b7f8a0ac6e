//! `runbook run --drill`: the document itself is rehearsed, in a sandbox, by nobody.

use std::path::{Path, PathBuf};

use super::super::drill::filing::{self, Ended, Filed};
use super::super::drill::finish::{Keeping, tell};
use super::super::drill::{begun, sweep_left};
use super::super::{CliError, Context, Exit};
use super::ask::Nobody;
use super::faults::{Broken, Rehearsal, inject};
use super::follow::{self, begin, by, stamp, write};
use super::list::LAST;
use super::values::{self, Values};
use super::{problems, told};
use crate::app::drills;
use crate::app::runbooks::{self, Surroundings};
use crate::base::clock::SystemClock;
use crate::base::own_file::Trust;
use crate::base::url::{Url, decode};
use crate::config::PasswordSource;
use crate::drill::evidence::{Evidence, SignedEvidence, SnapshotRow};
use crate::drill::fault::FaultSpec;
use crate::drill::runbook::{About, evidence};
use crate::drill::sandbox::{self, DockerGround, Ground, Sandbox, SandboxKind, end_all_in};
use crate::engine::read::select::SnapshotPath;
use crate::repo::snapshots::{EVERY_JOB, Filter, Snapshot};
use crate::repo::sync::Thoroughness;
use crate::repo::{Repository, from_timestamp};
use crate::runbook::audit::Audit;
use crate::runbook::check::Severity;
use crate::runbook::record::Outcome;
use crate::runbook::run::{Options, run as run_steps};
use crate::runbook::{self, Measured, Runbook, SHORT, transcript};

pub async fn run(args: &follow::Args, context: &Context) -> Result<Exit, CliError> {
    let file = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    let drill = Drill {
        file,
        name: None,
        set: args.set.clone(),
        record: args.record.clone(),
        keep: !args.no_keep,
        scratch: args.scratch.clone().unwrap_or_else(std::env::temp_dir),
        transcript: args.transcript.clone(),
        broken: None,
    };
    rehearse(&drill, &[], &|_| Ok(()), context).await
}

/// Writes evidence where it was asked for.
type Write<'w> = dyn Fn(&SignedEvidence) -> Result<(), CliError> + Sync + 'w;

/// What a drill of the configuration file says of the runbook that it rehearses.
pub struct OfFile<'f> {
    pub name: &'f str,
    pub file: PathBuf,
    pub set: Vec<(String, String)>,
    pub keep: bool,
    pub scratch: PathBuf,
    pub faults: Vec<FaultSpec>,
}

/// A drill of the configuration file that rehearses a runbook.
pub async fn rehearse_drill(of: OfFile<'_>, write: &Write<'_>, context: &Context) -> Result<Exit, CliError> {
    let OfFile { name, file, set, keep, scratch, faults } = of;
    let (name, record, transcript) = (Some(name.to_owned()), None, None);
    let drill = Drill { file, name, set, record, keep, scratch, transcript, broken: None };
    rehearse(&drill, &faults, write, context).await
}

#[derive(Clone)]
pub(super) struct Drill {
    file: PathBuf,
    /// Under which the evidence is filed; else the runbook's own.
    name: Option<String>,
    set: Vec<(String, String)>,
    /// Whether the runbook itself tells of it, and what besides.
    record: Option<String>,
    keep: bool,
    pub scratch: PathBuf,
    transcript: Option<PathBuf>,
    /// What stands in for the repository.
    broken: Option<Broken>,
}

impl Drill {
    /// The same with a broken repository.
    pub fn through(&self, broken: Broken) -> Self {
        Self { broken: Some(broken), record: None, transcript: None, ..self.clone() }
    }
}

async fn rehearse(
    drill: &Drill,
    faults: &[FaultSpec],
    written: &Write<'_>,
    context: &Context,
) -> Result<Exit, CliError> {
    let runbook = runbook::load(&drill.file, Trust::Own)?;
    refuse_problems(&runbook)?;
    let set = values::known(&runbook, &drill.set)?;
    sweep_left(&drill.scratch, context);
    let key = drills::signing_key(&context.settings)?;
    let name = drill.name.as_ref().unwrap_or(&runbook.front.name);
    let asked = (Some(runbook.front.rto), None, std::time::Duration::ZERO);
    let under_way = filing::begin(begun(name, runbook.steps_hash(), asked, context), drill.keep, context)?;
    let rehearsing = async {
        let repo = open(drill, context).await?;
        let (ran, about) = in_sandbox(drill, &runbook, &set, repo.as_ref(), context).await?;
        let Ran { outcome, unwritten } = ran;
        let mut evidence = match outcome {
            Some(outcome) => evidence(&runbook, &outcome, about),
            None => cut_short(about, unwritten.as_ref(), runbook.steps_hash()),
        };
        let (runbook, set, repository) = (&runbook, &set, repo.as_ref());
        let rehearsal = Rehearsal { drill, runbook, set, repo: repository, context };
        inject(faults, &rehearsal, &mut evidence).await;
        Ok((evidence, repo, unwritten))
    };
    let (evidence, repo, unwritten) = match rehearsing.await {
        Ok(found) => found,
        Err(error) => {
            // Once a step is begun there is evidence.
            filing::close(under_way, Ended::Refused(&error), context);
            return Err(error);
        }
    };
    let Filed { signed, kept, later, .. } =
        filing::file(evidence, repo.as_ref(), &under_way, &key, context).await?;
    // Without a repository it stays on this machine: below, and nowhere else.
    let later = later.filter(|_| repo.is_some());
    let keeping = Keeping { kept, is_later: later.is_some() };
    filing::close(under_way, Ended::Told(later), context);
    let folder = runbooks::folder(&context.settings, &runbook.front.name)?;
    let json = serde_json::to_string_pretty(&signed)
        .map_err(|error| CliError::new(Exit::Failed, error.to_string()))?;
    write(&folder.join(LAST), &(json + "\n"))?;
    let exit = tell(&signed, keeping, written(&signed), context);
    if let Some(words) = &drill.record {
        record(&runbook, &signed.evidence, words, context)?;
    }
    match unwritten {
        // What the drill found is the worse.
        Some(error) if exit != Exit::Ok => context.warn(error.causes.join(": ")),
        Some(error) => return Err(error),
        None => {}
    }
    Ok(exit)
}

/// What steps came to.
pub(super) struct Ran {
    /// `None`: what they do could not be written down any more, so they were not gone on with.
    pub outcome: Option<Outcome>,
    /// Why that, or the transcript, could not be written.
    pub unwritten: Option<CliError>,
}

/// The evidence of a drill whose end nobody knows.
fn cut_short(about: About, why: Option<&CliError>, spec_hash: String) -> Evidence {
    Evidence {
        spec_hash,
        repository: about.repository,
        snapshot: about.snapshot,
        sandbox: Some(about.sandbox),
        reason: why.map(|error| error.causes.join(": ")),
        ..Evidence::blank(&about.name, about.machine)
    }
}

/// Errors unless a file is a runbook that can be rehearsed.
pub fn refuse(path: &Path) -> Result<(), CliError> {
    refuse_problems(&runbook::load(path, Trust::Own)?)
}

/// A runbook that breaks a rule is not rehearsed: the rules are what keeps a drill away from what is real.
fn refuse_problems(runbook: &Runbook) -> Result<(), CliError> {
    let list = problems(runbook);
    let errors: Vec<String> = list
        .iter()
        // A dead link endangers nothing.
        .filter(|problem| problem.severity == Severity::Error && problem.rule != "link")
        .map(|problem| told(&runbook.path, problem))
        .collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(CliError::usage(format!("it is not rehearsed like this:\n{}", errors.join("\n")))
            .hint("`lifeboat runbook check` shows these, too")),
    }
}

/// The repository that evidence is kept in, and snapshots are named in; none where nothing says how to open one.
async fn open(drill: &Drill, context: &Context) -> Result<Option<Repository>, CliError> {
    let is_known = context.settings.repository.is_some();
    let can_ask = super::ask::has_terminal();
    if !is_known || (matches!(context.settings.password.value, PasswordSource::Ask) && !can_ask) {
        if drill.keep && is_known {
            context.warn("nothing says how to open the repository: the evidence stays on this machine");
        }
        return Ok(None);
    }
    match context.open().await {
        Ok(repo) => {
            context.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
            Ok(Some(repo))
        }
        // What is rehearsed may be the very loss of it.
        Err(error) if error.exit == Exit::NoRepository => {
            context.warn("there is no repository: the evidence stays on this machine");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What is restored, if the runbook says it by a variable of this name.
const SNAPSHOT: &str = "SNAPSHOT";

/// The snapshot, or of every job one.
pub(super) async fn snapshots(
    runbook: &Runbook,
    set: &Values,
    repo: Option<&Repository>,
    context: &Context,
) -> Result<Vec<Snapshot>, CliError> {
    let Some((variable, repo)) = runbook.variable(SNAPSHOT).zip(repo) else { return Ok(Vec::new()) };
    let said = set.get(SNAPSHOT).or(variable.default.as_ref());
    let Some(said) = said else { return Ok(Vec::new()) };
    let list = repo.snapshots().await?;
    let filter = Filter::of_machine(None, &context.settings.hostname);
    if said.starts_with(EVERY_JOB) {
        return Ok(list.every(said, &filter)?.into_iter().cloned().collect());
    }
    let selected = SnapshotPath::parse(said.as_ref())?.select_from(repo, &list, &filter).await?;
    Ok(vec![selected.snapshot])
}

/// Servers that a runbook's variables ask for.
fn kinds(runbook: &Runbook) -> Vec<SandboxKind> {
    let asks = |name: &str| {
        let by_variable = runbook.front.variables.iter().filter_map(|variable| variable.drill.as_ref());
        by_variable.chain(runbook.steps.iter().map(|step| &step.text)).any(|text| text.contains(name))
    };
    let kinds = [("$POSTGRES", SandboxKind::Postgres), ("$REDIS", SandboxKind::Redis)];
    kinds.into_iter().filter(|(name, _)| asks(name)).map(|(_, kind)| kind).collect()
}

async fn provision(
    kind: SandboxKind,
    ground: Ground,
    facts: serde_json::Value,
) -> Result<Box<dyn Sandbox>, CliError> {
    let made = tokio::task::spawn_blocking(move || sandbox::provision(kind, &ground, &facts)).await;
    let made = made.map_err(|_| CliError::new(Exit::Failed, "the sandbox panicked: this is a bug"))?;
    made.map_err(|error| CliError::from_chain(Exit::Failed, &error))
}

pub(super) async fn in_sandbox(
    drill: &Drill,
    runbook: &Runbook,
    set: &Values,
    repo: Option<&Repository>,
    context: &Context,
) -> Result<(Ran, About), CliError> {
    let ground = Ground {
        scratch: drill.scratch.clone(),
        path: context.settings.services.path.clone(),
        withheld: crate::config::SECRET_VARIABLES,
        cancel: context.cancel.clone(),
        variables: Vec::new(),
        docker: DockerGround::default(),
        lent: None,
    };
    let snapshots = snapshots(runbook, set, repo, context).await?;
    // Several have no facts, and no job, in common.
    let snapshot = snapshots.first().filter(|_| snapshots.len() == 1);
    let facts = match snapshot {
        Some(snapshot) => serde_json::from_str(&snapshot.summary.facts).unwrap_or_default(),
        None => serde_json::Value::Null,
    };
    let folder = provision(SandboxKind::Directory, ground.clone(), serde_json::Value::Null).await?;
    let mut made = Values::new();
    let mut around = Surroundings::of_process();
    let mut described = vec!["a folder of its own, an empty home, no configuration, a cold cache".to_owned()];
    let mut servers = Vec::new();
    for kind in kinds(runbook) {
        let server = provision(kind, ground.clone(), facts.clone()).await?;
        described.push(server.describe());
        let (name, address) = reached(kind, server.as_ref(), &mut around);
        made.insert(name.to_owned(), address);
        servers.push(server);
    }
    let place = folder.path().map(Path::to_owned).unwrap_or_default();
    made.insert("SANDBOX".into(), place.display().to_string());
    let ran = steps(drill, runbook, set, &made, &place, around, context).await;
    // Cleaning is not recovery; it happens however the rest went.
    end_all_in(&place);
    for sandbox in std::iter::once(folder).chain(servers) {
        let cleaned = tokio::task::spawn_blocking(move || sandbox.clean()).await;
        if let Ok(Err(error)) = cleaned {
            context.warn(format_args!("the sandbox was not removed whole: {error}"));
        }
    }
    let now = jiff::Timestamp::now();
    let age =
        |snapshot: &Snapshot| now.duration_since(from_timestamp(snapshot.summary.consistent)).as_secs_f64();
    let about = About {
        name: drill.name.clone().unwrap_or_else(|| runbook.front.name.clone()),
        machine: drills::machine(&context.settings),
        repository: context
            .settings
            .repository
            .as_ref()
            .map(|found| found.value.to_string())
            .unwrap_or_default(),
        // Of several, the oldest tells what would be lost.
        exposure_seconds: snapshots
            .iter()
            .map(age)
            .reduce(f64::max)
            .map(|age| (age * 1000.0).round() / 1000.0),
        snapshot: snapshot.map(SnapshotRow::of),
        sandbox: described.join("; "),
    };
    Ok((ran?, about))
}

/// How steps reach a server of the sandbox: address without secret, secret by the tools' own variable.
fn reached(kind: SandboxKind, server: &dyn Sandbox, around: &mut Surroundings) -> (&'static str, String) {
    let address = server.address().unwrap_or_default();
    match kind {
        SandboxKind::Redis => {
            let url = Url::parse(address.trim_start_matches("redis://")).unwrap_or_default();
            if let Some(password) = &url.password {
                around.set("REDISCLI_AUTH", String::from_utf8_lossy(password.expose()).as_ref());
            }
            ("REDIS", format!("redis://{}:{}", url.host, url.port.unwrap_or_default()))
        }
        _ => {
            // The tools' folder is ours to name, not libpq's: it goes in front of the programs.
            let (base, query) = address.split_once('?').unwrap_or((&address, ""));
            let mut kept = Vec::new();
            for pair in query.split('&') {
                match pair.strip_prefix("tools=").and_then(|tools| decode(tools).ok()) {
                    Some(tools) => around.before_path(Path::new(&tools)),
                    None => kept.push(pair.to_owned()),
                }
            }
            ("POSTGRES", format!("{base}?{}", kept.join("&")))
        }
    }
}

async fn steps(
    drill: &Drill,
    runbook: &Runbook,
    set: &Values,
    made: &Values,
    place: &Path,
    mut around: Surroundings,
    context: &Context,
) -> Result<Ran, CliError> {
    let mut found = values::of_drill(runbook, set, made, &around, context)?;
    if let Some(broken) = &drill.broken {
        broken.redirect(&mut found);
    }
    values::password(runbook, &mut around, context)?;
    around.bare(place)?;
    // A copy beside the sandbox needs none of the real one's options.
    configured(place, &mut around, drill.broken.is_none(), context)?;
    for (name, value) in made {
        around.set(name, value);
    }
    let work = place.join("work");
    std::fs::create_dir_all(&work)
        .map_err(|error| CliError::new(Exit::Failed, format!("cannot make {}: {error}", work.display())))?;
    let shown = values::shown(runbook, &found);
    values::leave_to_settings(runbook, &mut found, context);
    let folder = runbooks::folder(&context.settings, &runbook.front.name)?;
    let mut audit = Audit::begin(&folder, &stamp(), &begin(runbook, true, &shown, None, context))?;
    let clock = SystemClock::new();
    let options = Options {
        is_drill: true,
        redactor: around.redactor(&context.settings, values::secrets(runbook, &found)),
        variables: found,
        environment: around.into_pairs(),
        agreed: Vec::new(),
        folder: work,
        from: None,
        past: None,
        clock: &clock,
        cancel: &context.cancel,
    };
    let mut nobody = Nobody { context };
    let ran = tokio::task::block_in_place(|| run_steps(runbook, &options, &mut nobody, &mut audit));
    // From here on something was done: no error may hide it.
    let outcome = match ran {
        Ok(outcome) => outcome,
        Err(error) => return Ok(Ran { outcome: None, unwritten: Some(error.into()) }),
    };
    let not_tested = crate::runbook::drill_rules::not_rehearsed(runbook);
    let about =
        transcript::About { is_drill: true, by: &by(context), variables: &shown, not_tested: &not_tested };
    let path = drill.transcript.clone().unwrap_or_else(|| audit.path().with_extension("md"));
    let unwritten = write(&path, &transcript::markdown(runbook, &outcome, &about)).err();
    Ok(Ran { outcome: Some(outcome), unwritten })
}

/// The only thing a bare machine knows besides what the runbook tells it: how the repository is reached.
fn configured(
    place: &Path,
    around: &mut Surroundings,
    takes_options: bool,
    context: &Context,
) -> Result<(), CliError> {
    let mut options: Vec<(String, String)> = match takes_options && context.has_file() {
        true => context.file().ok().and_then(|found| {
            let (_, repository) = found.file.default_repository().ok()?;
            Some(repository.options.clone().into_iter().collect())
        }),
        false => None,
    }
    .unwrap_or_default();
    options.extend(context.option_flags().iter().filter(|_| takes_options).cloned());
    let mut file = toml::Table::new();
    if let Some(repository) = &context.settings.repository {
        let address = match &repository.value {
            crate::store::Location::Local { path } => {
                std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
            }
            other => other.to_string(),
        };
        if options.is_empty() {
            around.set("LIFEBOAT_REPOSITORY", address);
        } else {
            let options: toml::Table = options.into_iter().map(|(key, value)| (key, value.into())).collect();
            let one = toml::Table::from_iter([
                ("url".to_owned(), address.into()),
                ("options".to_owned(), options.into()),
            ]);
            let all = toml::Table::from_iter([("real".to_owned(), one.into())]);
            file.insert("repository".into(), all.into());
        }
    }
    let path = place.join("lifeboat.toml");
    write(&path, &file.to_string())?;
    around.set("LIFEBOAT_CONFIG", &path);
    Ok(())
}

fn record(runbook: &Runbook, evidence: &Evidence, words: &str, context: &Context) -> Result<(), CliError> {
    let recovery = evidence.measured.recovery_seconds.filter(|_| evidence.verdict.is_passed());
    let Some(recovery) = recovery else {
        context.warn("only a drill that passed is recorded in the runbook");
        return Ok(());
    };
    let steps = runbook.steps_hash();
    let measured = Measured {
        line: 0,
        rto: std::time::Duration::try_from_secs_f64(recovery).unwrap_or_default(),
        date: evidence.started_at.get(..10).unwrap_or_default().to_owned(),
        machine: match words {
            "" => format!("{} cores, {}", evidence.machine.cores, evidence.machine.system),
            words => format!("{} cores, {}, {words}", evidence.machine.cores, evidence.machine.system),
        },
        steps: steps[..SHORT].to_owned(),
    };
    runbook::record(runbook, &measured)?;
    context.note(format_args!("recorded in {}", runbook.path.display()));
    Ok(())
}
