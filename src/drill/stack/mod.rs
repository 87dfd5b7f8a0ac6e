//! A drill of a whole stack: each component restored into a sandbox of its own, after what it needs, and those that do
//! not need each other side by side, as `restore --stack` does it.
//!
//! The recovery time is measured, not added up: it is the moment the last component was ready, with all that went on
//! beside it. The chain that decided it is the critical path. Sandboxes stay until all is done, so that a check of one
//! component finds those it needs.

mod faults;
mod kept;
mod rows;
mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::check::{self, CheckSpec};
use kept::Kept;
pub use rows::objectives;
use rows::{absorb, judge, left, ran};
use set::{Set, choose};

use super::evidence::{Evidence, Machine, Measured, Phase, StackRow, Verdict};
use super::exposure::WINDOW_DAYS;
use super::fault::{FaultSpec, Rescue};
use super::redact::redact;
use super::run::{OpenTarget, seconds};
use super::sandbox::remote::Lent;
use super::sandbox::{self, Ground, SandboxKind};
use super::spec::From as Beginning;
use super::{DrillError, Spec, Stage};
use crate::base::cancel::Cancel;
use crate::base::order::{Ended, Needs, side_by_side, sorted};
use crate::base::progress::Progress;
use crate::engine::restore::service::waiting;
use crate::format::entry::Timestamp;
use crate::repo::{Repository, from_timestamp};
use crate::runbook::redact::Redactor;

/// Components rehearsed at once at most.
const WIDTH: usize = 4;

/// A drill's specification, for a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackSpec {
    pub name: String,
    pub stack: String,
    /// As it was at or before this time, as it was written; `None`: now.
    pub at: Option<String>,
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
    pub detect: Duration,
    pub decide: Duration,
    /// As [`Spec::secrets`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Injected into a restore of each component that has data, after the drill.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultSpec>,
    /// What the recovery of all of it begins with.
    #[serde(default, skip_serializing_if = "Beginning::is_here")]
    pub from: Beginning,
    pub components: BTreeMap<String, ComponentSpec>,
}

/// One component of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSpec {
    pub needs: BTreeSet<String>,
    /// The job whose data it is; `None`: it is made from what it needs, and only checked.
    pub job: Option<String>,
    /// As [`Spec::machine`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    pub sandbox: Option<SandboxKind>,
    /// Address of a server that is lent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<String>,
    /// From the loss to ready, of this component.
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
    pub checks: Vec<CheckSpec>,
}

impl StackSpec {
    /// As the specification of one restore, which shares its rules.
    fn of(&self, name: &str, component: &ComponentSpec, snapshot: String) -> Spec {
        Spec {
            name: format!("{}.{name}", self.name),
            snapshot,
            machine: component.machine.clone(),
            sandbox: component.sandbox,
            lent: component.lent.clone(),
            secrets: self.secrets.clone(),
            rto: component.rto,
            rpo: component.rpo,
            detect: self.detect,
            decide: self.decide,
            steps: Vec::new(),
            checks: component.checks.clone(),
            faults: self.faults.clone(),
            from: self.from.clone(),
        }
    }

    /// Looks for what makes no sense, before anything starts.
    ///
    /// # Errors
    /// What it is.
    pub fn validate(&self) -> Result<(), DrillError> {
        let all = ComponentSpec {
            needs: BTreeSet::new(),
            job: None,
            machine: None,
            sandbox: None,
            lent: None,
            rto: self.rto,
            rpo: self.rpo,
            checks: Vec::new(),
        };
        self.of("stack", &all, String::new()).validate()?;
        for (name, component) in &self.components {
            let within = |error: DrillError| DrillError::Spec(format!("component {name}: {error}"));
            self.of(name, component, String::new()).validate().map_err(within)?;
            let is_query = |check: &CheckSpec| !matches!(check, CheckSpec::Command(_));
            if component.job.is_none() && component.checks.iter().any(is_query) {
                let why = "it has no data of its own, so only commands can check it";
                return Err(DrillError::Spec(format!("component {name}: {why}")));
            }
        }
        if self.components.values().all(|component| component.job.is_none()) {
            return Err(DrillError::Spec(format!(
                "no component of stack {} has a job: nothing to restore",
                self.stack
            )));
        }
        Ok(())
    }

    /// As [`Spec::hash`].
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn hash(&self) -> Result<String, DrillError> {
        let text = serde_json::to_vec(self).map_err(|error| DrillError::Evidence(error.to_string()))?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }
}

/// Where a component's snapshots are.
#[derive(Clone)]
pub struct From<'s> {
    pub repo: &'s Repository,
    /// The repository's address, without secrets.
    pub repository: String,
    /// With what faults are recovered from; there if any are injected.
    pub rescue: Option<&'s Rescue<'s>>,
}

/// What a drill of a stack runs on.
pub struct StackStage<'s> {
    /// By component, for those that have a job.
    pub from: BTreeMap<String, From<'s>>,
    /// Servers that are lent, by component.
    pub lent: BTreeMap<String, Arc<dyn Lent>>,
    pub at: Timestamp,
    pub now: Timestamp,
    pub open_target: &'s OpenTarget<'s>,
    pub ground: Ground,
    pub machine: Machine,
    /// Of the repository that keeps the evidence.
    pub repository: String,
    /// When recovery began: before the repositories were opened.
    pub began: Instant,
    pub progress: Arc<dyn Progress>,
    pub cancel: &'s Cancel,
    /// As [`Stage::redactor`].
    pub redactor: &'s Redactor,
}

impl<'s> StackStage<'s> {
    /// That of one component.
    fn of(&'s self, from: &From<'s>, ground: Ground, began: Instant) -> Stage<'s> {
        Stage {
            repo: from.repo,
            repository: from.repository.clone(),
            open_target: self.open_target,
            ground,
            machine: self.machine.clone(),
            began,
            progress: self.progress.clone(),
            cancel: self.cancel,
            keep: None,
            witness: None,
            redactor: self.redactor,
        }
    }
}

/// Runs a drill of a stack. Whatever happens, the evidence says it.
///
/// # Errors
/// The specification makes no sense, or does not say whose snapshots it means; then nothing was started.
pub async fn run(spec: &StackSpec, stage: &StackStage<'_>) -> Result<Evidence, DrillError> {
    spec.validate()?;
    let set = choose(spec, stage).await?;
    // Components are timed from when the first could begin.
    let offset = stage.began.elapsed();
    let located = seconds(offset);
    // What nobody checks and has no data is not rehearsed.
    let rehearsed = |component: &ComponentSpec| component.job.is_some() || !component.checks.is_empty();
    let needs: Needs = spec
        .components
        .iter()
        .filter(|(_, component)| rehearsed(component))
        .map(|(name, component)| (name.clone(), component.needs.clone()))
        .collect();
    let kept = Kept::default();
    let runtime = tokio::runtime::Handle::current();
    let one = |name: &str| {
        let mut evidence = runtime.block_on(component(name, spec, stage, &set, &kept));
        if evidence.verdict == Verdict::CouldNotRun && stage.cancel.is_cancelled() {
            let met = evidence.reason.take().unwrap_or_default();
            evidence.interrupted(&met);
        }
        evidence
    };
    let good = |evidence: &Evidence| matches!(evidence.verdict, Verdict::Met | Verdict::ObjectiveMissed);
    let ended = waiting(|| side_by_side(&needs, WIDTH, stage.cancel, one, good));
    // Sandboxes still stand, for checks of one component ask those beside it.
    let faults = faults::inject_all(spec, stage, &kept, &ended).await;
    // Not timed: cleaning is not recovery. It happens however the rest went.
    let left_behind = waiting(|| kept.clean());

    let mut evidence = empty(spec, stage, located)?;
    let mut stack = StackRow {
        name: spec.stack.clone(),
        at: from_timestamp(stage.at).to_string(),
        skew_seconds: None,
        components: Vec::new(),
        critical_path: Vec::new(),
    };
    for (name, wanted) in in_order(spec) {
        let row = match ended.get(name) {
            None => {
                evidence.not_tested.push(format!("{name}: it has no job and no check"));
                continue;
            }
            Some(Ended::Left { because }) => left(name, wanted, because.as_deref(), spec),
            Some(Ended::Ran { value, began, ended }) => {
                absorb(name, value, &mut evidence);
                ran(name, wanted, value, offset + *began, offset + *ended, spec)
            }
        };
        stack.components.push(row);
    }
    evidence
        .not_tested
        .extend(left_behind.into_iter().map(|what| format!("a sandbox was not removed whole: {what}")));
    judge(&mut evidence, &mut stack, spec);
    evidence.stack = Some(stack);
    faults.conclude(&mut evidence);
    Ok(evidence)
}

/// Each after what it needs.
fn in_order(spec: &StackSpec) -> Vec<(&String, &ComponentSpec)> {
    let needs = spec.components.iter().map(|(name, component)| (name.clone(), component.needs.clone()));
    let sorted = sorted(&needs.collect());
    sorted.into_iter().filter_map(|(name, _)| spec.components.get_key_value(&name)).collect()
}

fn empty(spec: &StackSpec, stage: &StackStage<'_>, located: f64) -> Result<Evidence, DrillError> {
    Ok(Evidence {
        name: spec.name.clone(),
        spec_hash: spec.hash()?,
        started_at: from_timestamp(stage.now).to_string(),
        repository: stage.repository.clone(),
        sandbox: Some("one for each component, side by side where they do not need each other".into()),
        phases: vec![Phase { name: "locate".into(), seconds: located }],
        objectives: objectives(spec.rto, spec.rpo),
        measured: Measured {
            declared_seconds: seconds(spec.detect + spec.decide),
            window_days: WINDOW_DAYS,
            ..Measured::default()
        },
        ..blank(stage)
    })
}

/// One component, on a thread of its own.
async fn component(name: &str, spec: &StackSpec, stage: &StackStage<'_>, set: &Set, kept: &Kept) -> Evidence {
    let nothing =
        |reason: String| Evidence { verdict: Verdict::CouldNotRun, reason: Some(reason), ..blank(stage) };
    let Some(wanted) = spec.components.get(name) else {
        return nothing("an unknown component: this is a bug".into());
    };
    let lent = stage.lent.get(name).cloned();
    let ground = Ground { variables: kept.variables(name, &wanted.needs), lent, ..stage.ground.clone() };
    let (Some(from), Some(found)) = (stage.from.get(name), set.get(name)) else {
        return checked_only(name, wanted, ground, stage, kept).await;
    };
    let began = Instant::now();
    let snapshot = match found {
        Ok(snapshot) => snapshot.clone(),
        Err(why) => return nothing(why.clone()),
    };
    let keep = |sandbox| kept.keep(name, sandbox);
    let own = Stage { keep: Some(&keep), ..stage.of(from, ground, began) };
    // Its objectives count from the beginning of all, and are judged there; faults come after all.
    let here = Beginning::Here;
    let spec =
        Spec { rto: None, rpo: None, faults: Vec::new(), from: here, ..spec.of(name, wanted, snapshot) };
    match super::run(&spec, &own).await {
        Ok(evidence) => evidence,
        Err(error) => nothing(error.to_string()),
    }
}

/// A component without data: what it is made from is there, and its checks ask the rest.
async fn checked_only(
    name: &str,
    wanted: &ComponentSpec,
    ground: Ground,
    stage: &StackStage<'_>,
    kept: &Kept,
) -> Evidence {
    let mut evidence = blank(stage);
    let began = Instant::now();
    let made = sandbox::provision(SandboxKind::Directory, &ground, &serde_json::Value::Null);
    let sandbox = match made {
        Ok(sandbox) => sandbox,
        Err(error) => {
            evidence.reason = Some(error.to_string());
            return evidence;
        }
    };
    let redactor = stage.redactor.with(sandbox.secrets());
    evidence.sandbox = Some("nothing of its own: it is asked beside what it needs".into());
    for check in &wanted.checks {
        let checked = check::check_without_data(check, sandbox.as_ref(), &redactor, stage.cancel).await;
        evidence.checks.extend(checked);
    }
    kept.keep(name, sandbox);
    let took = seconds(began.elapsed());
    evidence.phases.push(Phase { name: "validate".into(), seconds: took });
    evidence.measured.recovery_seconds = Some(took);
    evidence.judge();
    if stage.cancel.is_cancelled() {
        evidence.interrupted("");
        evidence.measured.recovery_seconds = None;
    }
    redact(&mut evidence, &redactor);
    evidence
}

/// A component's evidence before anything happened; only what is looked at later is in it.
fn blank(stage: &StackStage<'_>) -> Evidence {
    Evidence::blank("", stage.machine.clone())
}
