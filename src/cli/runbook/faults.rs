//! Faults in a rehearsal of a runbook: after it passed, it is followed again in a sandbox of its own, where the
//! repository's address is that of a broken copy. The document decides what comes of it, and its own steps prove it.

use std::path::Path;
use std::time::Instant;

use super::super::kit::address_of;
use super::super::{CliError, Context};
use super::rehearse::{Drill, Ran, in_sandbox, snapshots};
use super::values::Values;
use crate::base::random::{SystemRandom, array};
use crate::base::secret::Secret;
use crate::config::{Environment, Found, PasswordSource, Settings, location};
use crate::drill::evidence::{Evidence, Verdict};
use crate::drill::fault::{FaultKind, FaultResult, FaultSpec, Outcome, conclude, copy_broken};
use crate::drill::sandbox::scratch_folder;
use crate::repo::Repository;
use crate::runbook::record::{self, Ended};
use crate::runbook::{Phase, Runbook};
use crate::store::Location;

/// What our own commands end with when stored data is damaged or missing.
const DAMAGE_STATUS: i32 = 20;
const FLAG: &str = "--fault";

/// A repository that stands in for the real one.
#[derive(Clone)]
pub struct Broken {
    /// Of the real one, as every way of writing it comes out.
    real: String,
    address: String,
}

impl Broken {
    /// Values that are the real address become the broken one.
    pub fn redirect(&self, values: &mut Values) {
        let environment = Environment::of_process();
        let is_real = |value: &str| {
            let found = location(value, &environment).ok().and_then(|found| address_of(&found).ok());
            found.as_ref() == Some(&self.real)
        };
        for value in values.values_mut().filter(|value| is_real(value)) {
            value.clone_from(&self.address);
        }
    }
}

/// A rehearsal that came to its end.
pub struct Rehearsal<'r> {
    pub drill: &'r Drill,
    pub runbook: &'r Runbook,
    pub set: &'r Values,
    pub repo: Option<&'r Repository>,
    pub context: &'r Context,
}

/// Injects each fault, and lets the outcomes decide with what the rehearsal itself found.
pub async fn inject(faults: &[FaultSpec], rehearsal: &Rehearsal<'_>, evidence: &mut Evidence) {
    if faults.is_empty() || evidence.verdict == Verdict::Interrupted {
        return;
    }
    let is_healthy = matches!(evidence.verdict, Verdict::Met | Verdict::ObjectiveMissed);
    for fault in faults {
        let expected = fault.expected(false);
        let not_run = |why: String| FaultResult::not_run(fault.kind, expected, &why);
        let begun = Instant::now();
        if is_healthy && rehearsal.repo.is_some() {
            rehearsal.context.note(format_args!("once more, with the fault {}:", fault.kind.name()));
        }
        let result = match (rehearsal.repo, is_healthy) {
            (_, false) => Ok(not_run("the drill itself did not pass".into())),
            (None, _) => Ok(not_run("the drill knows no repository that could be broken".into())),
            (Some(repo), true) => rehearsal.one(fault.kind, repo).await.map(|found| match found {
                Ok((injected, (outcome, detail))) => {
                    let (kind, component, seconds) = (fault.kind, None, begun.elapsed().as_secs_f64());
                    let seconds = (seconds * 1000.0).round() / 1000.0;
                    FaultResult { kind, component, injected, expected, outcome, detail, seconds }
                }
                Err(why) => not_run(why),
            }),
        };
        match result {
            Ok(result) if !rehearsal.context.cancel.is_cancelled() => evidence.faults.push(result),
            Ok(_) => return evidence.interrupted(&format!("while {} was injected", fault.kind.name())),
            Err(error) => evidence.faults.push(not_run(error.causes.join(": "))),
        }
    }
    conclude(evidence);
}

/// What was injected and what came of it; or why it could not be.
type Tried = Result<(String, (Outcome, String)), String>;

impl Rehearsal<'_> {
    async fn one(&self, kind: FaultKind, repo: &Repository) -> Result<Tried, CliError> {
        if let Some(why) = self.out_of_reach(kind) {
            return Ok(Err(why));
        }
        let folder = scratch_folder(&self.drill.scratch).map_err(|error| {
            CliError::new(super::super::Exit::Failed, format!("cannot make room for a copy: {error}"))
        })?;
        let real = address_of(self.context.location()?)?;
        let mut settings = self.context.settings.clone();
        let (injected, address) = match kind {
            FaultKind::WrongKey => {
                let wrong: [u8; 16] = array(&SystemRandom);
                let wrong = wrong.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                settings.password = Found::flag(PasswordSource::Value(Secret::from_text(wrong)), FLAG);
                ("another password than the repository's".to_owned(), real.clone())
            }
            kind => {
                let copy = folder.path().join("repository");
                let Some(injected) = self.copy(kind, repo, &copy).await? else {
                    let why = "the runbook has no variable SNAPSHOT that tells which pack to break";
                    return Ok(Err(why.into()));
                };
                settings.repository = Some(Found::flag(Location::local(copy.clone()), FLAG));
                (injected, copy.display().to_string())
            }
        };
        Ok(self.follow(Broken { real, address }, settings).await?.map(|outcome| (injected, outcome)))
    }

    /// Why a fault would not reach the steps.
    fn out_of_reach(&self, kind: FaultKind) -> Option<String> {
        if !self.runbook.steps.iter().any(|step| !step.is_manual() && step.text.contains("lifeboat")) {
            return Some("no step of the runbook opens the repository".into());
        }
        let opens = |name: &str| name.starts_with("LIFEBOAT_PASSWORD") || name == "LIFEBOAT_KEY_FILE";
        let own = self.runbook.front.variables.iter().find(|variable| opens(&variable.name));
        let own = own.filter(|_| kind == FaultKind::WrongKey)?;
        Some(format!("the runbook opens the repository with a variable of its own, {}", own.name))
    }

    async fn copy(&self, kind: FaultKind, repo: &Repository, to: &Path) -> Result<Option<String>, CliError> {
        let found = snapshots(self.runbook, self.set, Some(repo), self.context).await?;
        Ok(copy_broken(repo, &found, kind, to, &self.context.cancel).await?)
    }

    /// Follows the runbook with the broken repository in the place of the real one.
    async fn follow(
        &self,
        broken: Broken,
        settings: Settings,
    ) -> Result<Result<(Outcome, String), String>, CliError> {
        let drill = self.drill.through(broken);
        let context = self.context.with(settings);
        let (ran, _) = in_sandbox(&drill, self.runbook, self.set, self.repo, &context).await?;
        Ok(match ran {
            Ran { outcome: Some(outcome), .. } => judge(&outcome),
            Ran { unwritten, .. } => Err(unwritten
                .map_or_else(|| "its end is not known".into(), |error: CliError| error.causes.join(": "))),
        })
    }
}

/// What a run through a fault shows; or why it shows nothing.
fn judge(outcome: &record::Outcome) -> Result<(Outcome, String), String> {
    if let Some(step) = outcome.unproven() {
        return Err(format!("step {}, which proves the data, was not run", step.step));
    }
    match (outcome.ended, outcome.failure()) {
        (Ended::Completed, _) => {
            Ok((Outcome::Recovers, "every step passed, with those that prove the data".into()))
        }
        (Ended::Failed, Some(step)) => {
            let why = step.why.as_deref().unwrap_or_default();
            let said: String = step.last_line().chars().take(200).collect();
            let told = format!("step {}: {why}: {said}", step.step);
            // Our own commands end so when they see what is missing; whatever else a proof finds wrong, they had not.
            let is_silent = step.phase == Phase::Verify && step.status != Some(DAMAGE_STATUS);
            Ok(match is_silent {
                true => (Outcome::SilentlyWrong, format!("the restore found nothing wrong, but {told}")),
                false => (Outcome::FailsClosed, told),
            })
        }
        (ended, _) => Err(format!("it did not come to its end: {}", ended.words())),
    }
}
