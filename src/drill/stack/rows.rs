//! What the components' own drills come to: a row for each, the chain that decided, and one verdict.

use std::time::Duration;

use super::{ComponentSpec, StackSpec};
use crate::drill::evidence::{ComponentRow, Evidence, Objectives, StackRow, Verdict};
use crate::drill::run::seconds;

pub fn objectives(rto: Option<Duration>, rpo: Option<Duration>) -> Objectives {
    Objectives { rto_seconds: rto.map(seconds), rpo_seconds: rpo.map(seconds) }
}

/// Takes over what the whole shares.
pub fn absorb(name: &str, own: &Evidence, evidence: &mut Evidence) {
    evidence.restored_bytes += own.restored_bytes;
    evidence.checks.extend(own.checks.iter().map(|check| {
        let mut check = check.clone();
        check.name = format!("{name}: {}", check.name);
        check
    }));
    evidence.not_tested.extend(own.not_tested.iter().map(|what| format!("{name}: {what}")));
}

pub fn left(name: &str, wanted: &ComponentSpec, because: Option<&str>, spec: &StackSpec) -> ComponentRow {
    let (verdict, reason) = match because {
        Some(needed) => (Verdict::CouldNotRun, format!("not begun: it needs {needed}")),
        None => (Verdict::Interrupted, "not begun: interrupted".to_owned()),
    };
    ComponentRow {
        name: name.to_owned(),
        needs: needs_in(wanted, spec),
        repository: String::new(),
        snapshot: None,
        sandbox: None,
        began_seconds: None,
        ready_seconds: None,
        phases: Vec::new(),
        restored_bytes: 0,
        objectives: objectives(wanted.rto, wanted.rpo),
        exposure_seconds: None,
        worst_exposure_seconds: None,
        verdict,
        reason: Some(reason),
    }
}

fn needs_in(wanted: &ComponentSpec, spec: &StackSpec) -> Vec<String> {
    wanted.needs.iter().filter(|needed| spec.components.contains_key(*needed)).cloned().collect()
}

pub fn ran(
    name: &str,
    wanted: &ComponentSpec,
    own: &Evidence,
    began: Duration,
    ended: Duration,
    spec: &StackSpec,
) -> ComponentRow {
    // Cleaning is not in it: sandboxes stay until the end of all.
    let ready = own.measured.recovery_seconds.map(|_| seconds(ended));
    let mut row = ComponentRow {
        repository: own.repository.clone(),
        snapshot: own.snapshot.clone(),
        sandbox: own.sandbox.clone(),
        began_seconds: Some(seconds(began)),
        ready_seconds: ready,
        phases: own.phases.clone(),
        restored_bytes: own.restored_bytes,
        exposure_seconds: own.measured.exposure_seconds,
        worst_exposure_seconds: own.measured.worst_exposure_seconds,
        verdict: own.verdict,
        reason: own.reason.clone(),
        ..left(name, wanted, None, spec)
    };
    if row.verdict == Verdict::Met
        && let Some(missed) = row.missed(seconds(spec.detect + spec.decide))
    {
        (row.verdict, row.reason) = (Verdict::ObjectiveMissed, Some(missed));
    }
    row
}

pub fn judge(evidence: &mut Evidence, stack: &mut StackRow, spec: &StackSpec) {
    let points = stack.components.iter().filter_map(|row| row.snapshot.as_ref());
    let points: Vec<jiff::Timestamp> = points.filter_map(|row| row.consistent_at.parse().ok()).collect();
    if let (Some(first), Some(last), true) = (points.iter().min(), points.iter().max(), points.len() > 1) {
        stack.skew_seconds = Duration::try_from(last.duration_since(*first)).ok().map(seconds);
    }
    let worst = |of: fn(&ComponentRow) -> Option<f64>| {
        stack
            .components
            .iter()
            .filter_map(of)
            .fold(None, |worst: Option<f64>, value| Some(worst.map_or(value, |worst| worst.max(value))))
    };
    let measured = &mut evidence.measured;
    measured.exposure_seconds = worst(|row| row.exposure_seconds);
    measured.worst_exposure_seconds = worst(|row| row.worst_exposure_seconds);
    let is_whole = stack.components.iter().all(|row| row.ready_seconds.is_some());
    if is_whole {
        measured.recovery_seconds = worst(|row| row.ready_seconds);
        measured.end_to_end_seconds =
            measured.recovery_seconds.map(|ready| seconds(spec.detect + spec.decide) + ready);
    }
    stack.critical_path = critical_path(&stack.components);
    evidence.judge();
    let own = (evidence.verdict, evidence.reason.clone());
    let of_components = stack
        .components
        .iter()
        .map(|row| (row.verdict, row.reason.as_ref().map(|reason| format!("{}: {reason}", row.name))));
    let all = of_components.chain([own]);
    if let Some((verdict, reason)) = all.min_by_key(|(verdict, _)| verdict.rank()) {
        (evidence.verdict, evidence.reason) = (verdict, reason);
    }
}

/// From the component that was ready last, back over whichever it waited for longest.
fn critical_path(rows: &[ComponentRow]) -> Vec<String> {
    let last = |rows: Vec<&ComponentRow>| {
        let ready = |row: &&ComponentRow| row.ready_seconds.unwrap_or_default();
        rows.into_iter().max_by(|a, b| ready(a).total_cmp(&ready(b))).map(|row| row.name.clone())
    };
    let mut path = Vec::new();
    let mut next = last(rows.iter().collect());
    while let Some(name) = next {
        let row = rows.iter().find(|row| row.name == name);
        let needs = row.map(|row| row.needs.as_slice()).unwrap_or_default();
        next =
            last(rows.iter().filter(|row| needs.contains(&row.name) && !path.contains(&row.name)).collect());
        path.push(name);
    }
    path.reverse();
    path
}
