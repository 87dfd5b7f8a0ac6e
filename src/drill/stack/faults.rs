//! Faults of a drill of a stack: injected into one component after the other, once all of them came back whole.
//!
//! Each component is restored healthy once more, to hold what comes through a fault against it: looking at its files
//! would have cost time while the drill was measured. The sandboxes of the drill stand beside it meanwhile.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{ComponentSpec, From, Kept, StackSpec, StackStage, in_order};
use crate::base::order::Ended;
use crate::drill::evidence::{Evidence, Verdict};
use crate::drill::fault::{FaultResult, Rescue, Witness, conclude, inject};
use crate::drill::sandbox::Ground;
use crate::drill::spec::Spec;

/// What came of them.
#[derive(Default)]
pub struct Injected {
    faults: Vec<FaultResult>,
    /// Why it was broken off.
    interrupted: Option<String>,
}

impl Injected {
    /// Lets them have their say, once the drill itself was judged.
    pub fn conclude(self, evidence: &mut Evidence) {
        evidence.faults = self.faults;
        match self.interrupted {
            Some(why) => (evidence.verdict, evidence.reason) = (Verdict::Interrupted, Some(why)),
            None => conclude(evidence),
        }
    }
}

/// See the module.
pub async fn inject_all(
    spec: &StackSpec,
    stage: &StackStage<'_>,
    kept: &Kept,
    ended: &BTreeMap<String, Ended<Evidence>>,
) -> Injected {
    let mut injected = Injected::default();
    if spec.faults.is_empty() {
        return injected;
    }
    let is_good = |ended: &Ended<Evidence>| match ended {
        Ended::Ran { value, .. } => matches!(value.verdict, Verdict::Met | Verdict::ObjectiveMissed),
        Ended::Left { .. } => false,
    };
    let is_whole = ended.values().all(is_good);
    for (name, wanted) in in_order(spec) {
        let (Some(from), Some(Ended::Ran { value, .. })) = (stage.from.get(name), ended.get(name)) else {
            continue;
        };
        let (Some(rescue), Some(row)) = (from.rescue, &value.snapshot) else { continue };
        let of_it = |fault: FaultResult| FaultResult { component: Some(name.clone()), ..fault };
        if !is_whole {
            let not_run = not_run(spec, rescue, "the drill itself did not pass");
            injected.faults.extend(not_run.into_iter().map(of_it));
            continue;
        }
        let (faults, verdict) = one(name, wanted, row.id.clone(), spec, stage, kept, (from, rescue)).await;
        injected.faults.extend(faults.into_iter().map(of_it));
        if verdict == Verdict::Interrupted {
            injected.interrupted = Some(format!("interrupted while faults were injected into {name}"));
            break;
        }
    }
    injected
}

fn not_run(spec: &StackSpec, rescue: &Rescue<'_>, why: &str) -> Vec<FaultResult> {
    let has_replica = !rescue.replicas.is_empty();
    let faults = spec.faults.iter();
    faults.map(|fault| FaultResult::not_run(fault.kind, fault.expected(has_replica), why)).collect()
}

/// Those of one component, and how its restores ended.
async fn one(
    name: &str,
    wanted: &ComponentSpec,
    snapshot: String,
    spec: &StackSpec,
    stage: &StackStage<'_>,
    kept: &Kept,
    (from, rescue): (&From<'_>, &Rescue<'_>),
) -> (Vec<FaultResult>, Verdict) {
    let witness = Witness::default();
    let ground = Ground { variables: kept.variables(name, &wanted.needs), ..stage.ground.clone() };
    let own = crate::drill::Stage { witness: Some(&witness), ..stage.of(from, ground, Instant::now()) };
    // Objectives were judged already.
    let own_spec = Spec { rto: None, rpo: None, ..spec.of(name, wanted, snapshot) };
    match crate::drill::run(&own_spec, &own).await {
        Ok(mut evidence) => {
            inject(&own_spec, &own, &witness, rescue, &mut evidence).await;
            (evidence.faults, evidence.verdict)
        }
        Err(error) => (not_run(spec, rescue, &error.to_string()), Verdict::CouldNotRun),
    }
}
