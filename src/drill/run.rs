//! One drill from locating the snapshot to judging what came back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::{CheckOutcome, CheckResult, Restored};
use super::evidence::{Evidence, Machine, Measured, Objectives, Phase, SnapshotRow, Verdict};
use super::exposure::{Points, WINDOW_DAYS};
use super::fault::Witness;
use super::redact::redact;
use super::sandbox::{self, Ground, Sandbox, SandboxKind};
use super::{DrillError, Spec, validate};
use crate::base::byte_size::plural;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::engine::read::select::{Selected, SnapshotPath};
use crate::engine::restore::service::{to_service, waiting};
use crate::engine::restore::{RestoreOptions, restore};
use crate::format::manifest::Summary;
use crate::repo::snapshots::{Filter, SnapshotList};
use crate::repo::{RepoError, Repository, from_timestamp};
use crate::runbook::redact::Redactor;
use crate::source::capture::SourceError;
use crate::source::target::Target;

/// Opens the service at an address for a restore.
pub type OpenTarget<'s> = dyn Fn(&str) -> Result<Box<dyn Target>, SourceError> + Send + Sync + 's;

/// What a drill runs on.
pub struct Stage<'s> {
    pub repo: &'s Repository,
    /// The repository's address, without secrets.
    pub repository: String,
    pub open_target: &'s OpenTarget<'s>,
    pub ground: Ground,
    pub machine: Machine,
    /// When recovery began: before the repository was opened.
    pub began: Instant,
    pub progress: Arc<dyn Progress>,
    pub cancel: &'s Cancel,
    /// Takes the sandbox when the drill is done with it, which otherwise removes it.
    pub keep: Option<&'s (dyn Fn(Box<dyn Sandbox>) + Sync)>,
    /// Looks at what was restored, for restores that follow to be held against.
    pub witness: Option<&'s Witness>,
    /// Knows the secrets of this machine's surroundings; those of the sandbox are added.
    pub redactor: &'s Redactor,
}

/// Why a drill ended early.
struct Stop {
    verdict: Verdict,
    reason: String,
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        let verdict = match &error {
            EngineError::Cancelled(_) => Verdict::Interrupted,
            EngineError::Differs(_) => Verdict::DataWrong,
            EngineError::Repo(error) if error.is_damage() => Verdict::DataWrong,
            _ => Verdict::CouldNotRun,
        };
        Self { verdict, reason: error.to_string() }
    }
}

impl From<crate::base::cancel::Cancelled> for Stop {
    fn from(error: crate::base::cancel::Cancelled) -> Self {
        EngineError::from(error).into()
    }
}

fn could_not(reason: impl Into<String>) -> Stop {
    Stop { verdict: Verdict::CouldNotRun, reason: reason.into() }
}

/// Times phases, one after the other.
struct Watch {
    began: Instant,
    phase: Instant,
}

impl Watch {
    /// Time that is no part of a recovery.
    fn leave_out(&mut self, time: Duration) {
        self.began += time;
        self.phase += time;
    }

    fn end(&mut self, name: &str, phases: &mut Vec<Phase>) {
        let now = Instant::now();
        phases.push(Phase { name: name.into(), seconds: seconds(now - self.phase) });
        self.phase = now;
    }
}

/// In milliseconds' grain: more digits would pretend.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Runs a drill. Whatever happens, the evidence says it.
///
/// # Errors
/// The specification makes no sense, or does not fit the snapshot, or there is none; then nothing was started.
pub async fn run(spec: &Spec, stage: &Stage<'_>) -> Result<Evidence, DrillError> {
    spec.validate()?;
    let objective = |limit: Option<Duration>| limit.map(seconds);
    let mut evidence = Evidence {
        spec_hash: spec.hash()?,
        started_at: from_timestamp(stage.repo.world.now()).to_string(),
        repository: stage.repository.clone(),
        objectives: Objectives { rto_seconds: objective(spec.rto), rpo_seconds: objective(spec.rpo) },
        measured: Measured {
            declared_seconds: seconds(spec.detect + spec.decide),
            window_days: WINDOW_DAYS,
            ..Measured::default()
        },
        ..Evidence::blank(&spec.name, stage.machine.clone())
    };
    let (mut points, mut redactor) = (None, stage.redactor.clone());
    let ended = match locate(spec, stage).await {
        Ok(located) => attempt(spec, stage, located, &mut evidence, &mut points, &mut redactor).await,
        Err(error) if error.is_refusal() => return Err(error),
        Err(DrillError::Engine(error)) => Err(error.into()),
        Err(error) => Err(could_not(error.to_string())),
    };
    match ended {
        Ok(()) => evidence.judge(),
        // Whatever broke while it was being broken off, that was the reason.
        Err(Stop { verdict: Verdict::CouldNotRun, reason }) if stage.cancel.is_cancelled() => {
            evidence.interrupted(&reason);
        }
        Err(Stop { verdict, reason }) => (evidence.verdict, evidence.reason) = (verdict, Some(reason)),
    }
    if let Some(points) = points {
        points.prove(evidence.verdict, &mut evidence.measured);
    }
    redact(&mut evidence, &redactor);
    Ok(evidence)
}

/// What is to be restored, and where to.
struct Located {
    list: SnapshotList,
    selected: Selected,
    kind: SandboxKind,
}

/// Finds the snapshot, and holds the specification against it: what cannot be asked of it is refused here.
async fn locate(spec: &Spec, stage: &Stage<'_>) -> Result<Located, DrillError> {
    let mut list = stage.repo.snapshots().await.map_err(EngineError::from)?;
    let path = SnapshotPath::parse(spec.snapshot.as_ref())?;
    let filter = Filter::of_machine(spec.machine.as_deref(), &stage.machine.host);
    let selected = path.select_from(stage.repo, &list, &filter).await;
    let selected = match selected {
        // It may be one of those: then the data is lost, and nobody mistyped.
        Err(EngineError::Repo(RepoError::NoSnapshot(_))) if !list.damaged.is_empty() => {
            let (_, error) = list.damaged.swap_remove(0);
            return Err(EngineError::Repo(error).into());
        }
        // Another machine may have what was asked for.
        Err(EngineError::Repo(RepoError::NoSnapshot(what))) if spec.machine.is_some() => {
            let machine = spec.machine.as_deref().unwrap_or_default();
            return Err(EngineError::Repo(RepoError::NoSnapshot(format!("{what} --host {machine}"))).into());
        }
        selected => selected?,
    };
    let summary = &selected.snapshot.summary;
    let kind = spec.sandbox.unwrap_or_else(|| SandboxKind::for_source(&summary.source));
    kind.takes(&summary.source).map_err(DrillError::Spec)?;
    proves_something(spec, summary, kind)?;
    spec.checks.iter().try_for_each(|check| check.fits(kind)).map_err(DrillError::Spec)?;
    Ok(Located { list, selected, kind })
}

async fn attempt(
    spec: &Spec,
    stage: &Stage<'_>,
    located: Located,
    evidence: &mut Evidence,
    points: &mut Option<Points>,
    redactor: &mut Redactor,
) -> Result<(), Stop> {
    let mut watch = Watch { began: stage.began, phase: stage.began };
    let repo = stage.repo;
    let Located { list, selected, kind } = located;
    let summary = &selected.snapshot.summary;
    evidence.snapshot = Some(SnapshotRow::of(&selected.snapshot));
    points
        .insert(Points::new(&list, summary, from_timestamp(repo.world.now())))
        .measure(&mut evidence.measured);
    if summary.statistics.problems > 0 {
        let missing =
            format!("{} that the backup itself could not read", plural(summary.statistics.problems, "path"));
        evidence.not_tested.push(missing);
    }
    watch.end("locate", &mut evidence.phases);

    let mut ground = stage.ground.clone();
    ground.docker.secrets.clone_from(&spec.secrets);
    let facts = serde_json::from_str(&summary.facts).unwrap_or_default();
    let made = blocking(move || sandbox::provision(kind, &ground, &facts)).await?;
    let mut sandbox = made.map_err(|error| could_not(error.to_string()))?;
    evidence.sandbox = Some(sandbox.describe());
    watch.end("provision", &mut evidence.phases);

    *redactor = redactor.with(sandbox.secrets());
    let result = rehearse(spec, stage, (&selected, kind), &mut sandbox, redactor, evidence, &mut watch).await;
    // What was restored may have brought more of them.
    *redactor = redactor.with(sandbox.secrets());
    evidence.not_tested.extend(sandbox.not_tested());
    if let Some(keep) = stage.keep {
        keep(sandbox);
        return result;
    }
    // Cleaning is not recovery: it is not timed, and it happens however the rest went.
    let cleaned = blocking(move || sandbox.clean()).await?;
    if let Err(error) = cleaned {
        evidence.not_tested.push(format!("the sandbox was not removed whole: {error}"));
    }
    result
}

async fn rehearse(
    spec: &Spec,
    stage: &Stage<'_>,
    (selected, kind): (&Selected, SandboxKind),
    sandbox: &mut Box<dyn Sandbox>,
    redactor: &Redactor,
    evidence: &mut Evidence,
    watch: &mut Watch,
) -> Result<(), Stop> {
    match (sandbox.target(), sandbox.address()) {
        (Some(target), _) => into_target(target, stage, selected, evidence).await?,
        (None, Some(address)) => {
            let opened = waiting(|| (stage.open_target)(&address));
            let target = opened.map_err(|error| could_not(error.to_string()))?;
            into_target(target, stage, selected, evidence).await?;
        }
        (None, None) => into_folder(stage, selected, sandbox.as_ref(), evidence).await?,
    }
    watch.end("restore", &mut evidence.phases);
    if let Some(witness) = stage.witness {
        let began = Instant::now();
        let looked = waiting(|| witness.look(sandbox.as_ref(), evidence.checks.len()));
        looked.map_err(|error| could_not(format!("what was restored cannot be looked at: {error}")))?;
        watch.leave_out(began.elapsed());
    }
    let started = waiting(|| sandbox.start()).map_err(|error| could_not(error.to_string()))?;
    if !started.is_empty() {
        evidence.checks.extend(started);
        watch.end("start", &mut evidence.phases);
    }
    let (repo, cancel) = (stage.repo, stage.cancel);
    let facts = serde_json::from_str(&selected.snapshot.summary.facts).unwrap_or_default();
    let now = from_timestamp(repo.world.now());
    let redactor = &redactor.with(sandbox.secrets());
    let mut restored = Restored { repo, selected, kind, facts: &facts, now, sandbox, redactor, cancel };
    validate::usual(spec, &mut restored, evidence).await?;
    let mut is_ready = true;
    if !spec.steps.is_empty() {
        watch.end("validate", &mut evidence.phases);
        is_ready = validate::steps(spec, &mut restored, evidence)?;
        watch.end("steps", &mut evidence.phases);
    }
    if is_ready {
        validate::asked(spec, &mut restored, evidence).await?;
    }
    let name = if spec.steps.is_empty() { "validate" } else { "validate again" };
    watch.end(name, &mut evidence.phases);
    let recovery = seconds(watch.began.elapsed());
    evidence.measured.recovery_seconds = Some(recovery);
    evidence.measured.end_to_end_seconds = Some(recovery + evidence.measured.declared_seconds);
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stop> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| could_not("a part of the drill panicked: this is a bug"))
}

/// Bytes that come back as they were stored prove little about a stream nobody here can read.
fn proves_something(spec: &Spec, summary: &Summary, kind: SandboxKind) -> Result<(), DrillError> {
    let is_folder = spec.sandbox.is_none_or(|kind| kind == SandboxKind::Directory);
    let what = match summary.source.as_str() {
        source @ ("stdin" | "command") => format!("the output of a {source}"),
        "influxdb" | "influxdb2" | "victoria" => {
            format!("of {}, and drills start no server of its kind", summary.source)
        }
        "mariadb" if spec.sandbox.is_some() && is_folder => "a dump of MariaDB".into(),
        _ => return Ok(()),
    };
    if spec.checks.iter().any(|check| check.proves(kind)) {
        return Ok(());
    }
    Err(DrillError::Spec(format!(
        "the snapshot is {what}: that its bytes come back proves no recovery\nhint: add a check that uses it, such as \
         --check-command"
    )))
}

async fn into_folder(
    stage: &Stage<'_>,
    selected: &Selected,
    sandbox: &dyn Sandbox,
    evidence: &mut Evidence,
) -> Result<(), Stop> {
    let Some(target) = sandbox.path() else { return Err(could_not("the sandbox has no folder")) };
    let start = Instant::now();
    let mut options = RestoreOptions { target: target.to_owned(), verify: true, ..RestoreOptions::default() };
    // Numbers mean the same in every container, names do not.
    options.files.owners.numeric = selected.snapshot.summary.source.starts_with("docker");
    let outcome = restore(stage.repo, selected, &options, None, stage.progress.clone(), stage.cancel).await?;
    evidence.restored_bytes = outcome.bytes;
    let result = |name: &str, wrong: u64, detail: String| {
        let outcome = if wrong == 0 { CheckOutcome::Passed } else { CheckOutcome::Failed };
        CheckResult { seconds: seconds(start.elapsed()), ..CheckResult::new(name, outcome, detail) }
    };
    let lost = outcome.damaged.count + outcome.failed.count;
    let worst = outcome.damaged.named.first().or(outcome.failed.named.first());
    let detail = match worst {
        Some(problem) => {
            let path = crate::repo::tree::path_of_key(&problem.key);
            let path = String::from_utf8_lossy(&path).into_owned();
            format!("{} did not come back, the first {path}: {}", plural(lost, "path"), problem.message)
        }
        None => {
            let (files, folders) = (plural(outcome.files, "file"), plural(outcome.directories, "folder"));
            format!("{files} read back, contents equal; {folders}")
        }
    };
    evidence.checks.push(result("files", lost, detail));
    let nothing = u64::from(outcome.files + outcome.others == 0);
    if nothing > 0 {
        evidence.checks.push(result("not empty", nothing, "the snapshot holds no file at all".into()));
    }
    let attributes = outcome.attributes.count;
    let detail = match outcome.attributes.named.first() {
        Some(problem) => format!("{attributes} were not set, the first: {}", problem.message),
        None => "modes, times and extended attributes set".into(),
    };
    evidence.checks.push(result("attributes", attributes, detail));
    if outcome.owners_not_set > 0 {
        let paths = outcome.owners_not_set;
        evidence.not_tested.push(format!("owners of {paths} paths: only root can give files away"));
    }
    Ok(())
}

async fn into_target(
    target: Box<dyn Target>,
    stage: &Stage<'_>,
    selected: &Selected,
    evidence: &mut Evidence,
) -> Result<(), Stop> {
    let start = Instant::now();
    let given = to_service(stage.repo, selected, target, stage.progress.clone(), stage.cancel).await?;
    evidence.restored_bytes = given.bytes;
    let proven = |detail: String| CheckResult {
        seconds: seconds(start.elapsed()),
        ..CheckResult::new("data", CheckOutcome::Passed, detail)
    };
    evidence.checks.extend(given.returned.proven.into_iter().map(proven));
    evidence.not_tested.extend(given.returned.warnings);
    evidence.checks.extend(given.returned.not_done.into_iter().map(|what| CheckResult {
        seconds: seconds(start.elapsed()),
        is_data: false,
        ..CheckResult::new("whole", CheckOutcome::Failed, format!("not made: {what}"))
    }));
    Ok(())
}
