//! A rehearsed runbook as evidence: the same record, signed and kept as that of any drill, so that a document is
//! listed, compared and attested like a restore.

use super::check::{CheckOutcome, CheckResult};
use super::evidence::{Evidence, Machine, Measured, Objectives, Phase, SnapshotRow, Verdict};
use crate::runbook::record::{Ended, Ending, Outcome, StepRecord};
use crate::runbook::{Phase as StepPhase, Role, Runbook, drill_rules};

/// What our own commands end with when the data is wrong.
const DATA_WRONG_STATUS: i32 = 20;
/// What a step's check shows of its output, in characters.
const DETAIL_LIMIT: usize = 200;

/// What the evidence says besides the run itself.
pub struct About {
    /// The drill's name: evidence is filed under it.
    pub name: String,
    pub machine: Machine,
    /// Address without secrets; empty where none was used.
    pub repository: String,
    /// What was restored, where the runbook says it by a variable SNAPSHOT.
    pub snapshot: Option<SnapshotRow>,
    /// Age of that data.
    pub exposure_seconds: Option<f64>,
    pub sandbox: String,
}

/// The evidence of a run.
pub fn evidence(runbook: &Runbook, outcome: &Outcome, about: About) -> Evidence {
    let of_the_way = |record: &&StepRecord| {
        let step = runbook.step(&record.step);
        step.is_none_or(|step| step.role != Role::Before)
    };
    let mut phases: Vec<Phase> = Vec::new();
    for record in outcome.steps.iter().filter(of_the_way).filter(|record| record.ending != Ending::Skipped) {
        let name = record.phase.name();
        match phases.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => phase.seconds = ((phase.seconds + record.seconds) * 1000.0).round() / 1000.0,
            None => phases.push(Phase { name: name.into(), seconds: record.seconds }),
        }
    }
    let ran = outcome.steps.iter().filter(|record| record.ending != Ending::Skipped);
    let is_whole = outcome.ended == Ended::Completed;
    let recovery = is_whole.then_some(outcome.recovery_seconds);
    // A loss that cannot be told from the runbook is not judged.
    let rpo = runbook.front.rpo.filter(|_| about.exposure_seconds.is_some());
    let mut evidence = Evidence {
        spec_hash: runbook.steps_hash(),
        started_at: outcome.started_at.clone(),
        repository: about.repository,
        snapshot: about.snapshot,
        sandbox: Some(about.sandbox),
        phases,
        checks: ran.map(check).collect(),
        not_tested: drill_rules::not_rehearsed(runbook),
        objectives: Objectives {
            rto_seconds: Some(runbook.front.rto.as_secs_f64()),
            rpo_seconds: rpo.map(|rpo| rpo.as_secs_f64()),
        },
        measured: Measured {
            recovery_seconds: recovery,
            declared_seconds: outcome.declared_seconds,
            end_to_end_seconds: recovery.map(|seconds| seconds + outcome.declared_seconds),
            exposure_seconds: about.exposure_seconds,
            ..Measured::default()
        },
        ..Evidence::blank(&about.name, about.machine)
    };
    match outcome.ended {
        Ended::Completed => evidence.judge(),
        Ended::Interrupted | Ended::Stopped => {
            (evidence.verdict, evidence.reason) =
                (Verdict::Interrupted, Some("it did not come to its end".into()));
        }
        Ended::Failed => {
            let failed = outcome.failure();
            let is_data = failed.is_some_and(is_about_data);
            evidence.verdict = if is_data { Verdict::DataWrong } else { Verdict::CouldNotRun };
            evidence.reason = failed.map(|record| {
                let why = record.why.as_deref().unwrap_or_default();
                format!("step {}: {why}: {}", record.step, detail(record))
            });
        }
    }
    evidence
}

fn is_about_data(record: &StepRecord) -> bool {
    record.phase == StepPhase::Verify || record.status == Some(DATA_WRONG_STATUS)
}

fn detail(record: &StepRecord) -> String {
    record.last_line().chars().take(DETAIL_LIMIT).collect()
}

fn check(record: &StepRecord) -> CheckResult {
    let is_done = record.ending == Ending::Done;
    let said = detail(record);
    let outcome = if is_done { CheckOutcome::Passed } else { CheckOutcome::Failed };
    let detail = match &record.why {
        Some(why) if !said.is_empty() => format!("{why}: {said}"),
        Some(why) => why.clone(),
        None if said.is_empty() => "done".into(),
        None => said,
    };
    CheckResult {
        seconds: record.seconds,
        is_data: is_about_data(record),
        proves_data: is_done && record.phase == StepPhase::Verify,
        ..CheckResult::new(record.step.clone(), outcome, detail)
    }
}
