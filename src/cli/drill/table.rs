//! A rehearsed stack as people read it: a column for each component, a line for each phase.

use super::super::text::{shown, table};
use crate::drill::evidence::{Evidence, StackRow};
use crate::drill::report::lanes::phases;
use crate::drill::report::{data_of, short_time, span};

/// The lines between the head and the checks.
pub fn lines(evidence: &Evidence, stack: &StackRow) -> Vec<String> {
    let named = |name: &str| shown(name.as_bytes());
    let mut lines = Vec::new();
    let set: Vec<String> = stack
        .components
        .iter()
        .filter_map(|row| {
            row.snapshot.as_ref()?;
            let data = data_of(row, &evidence.machine.host).replacen(" UTC", "", 1);
            Some(format!("{} {}", named(&row.name), named(&data)))
        })
        .collect();
    let skew = stack.skew_seconds.map(|skew| format!("; {} apart", span(skew))).unwrap_or_default();
    lines.push(format!(
        "Set restored: {} as of {}: {}{skew}",
        named(&stack.name),
        short_time(&stack.at),
        set.join(", ")
    ));
    for row in &stack.components {
        if let Some(sandbox) = &row.sandbox {
            lines.push(format!("Sandbox  {}: {}", named(&row.name), shown(sandbox.as_bytes())));
        }
    }
    lines.push(String::new());
    let head = ["PHASE".to_owned()].into_iter().chain(stack.components.iter().map(|row| named(&row.name)));
    let mut rows = vec![head.collect::<Vec<_>>()];
    let time = |seconds: Option<f64>| seconds.map_or("–".into(), span);
    let mut line = |name: &str, of: &dyn Fn(&crate::drill::evidence::ComponentRow) -> Option<f64>| {
        let cells = stack.components.iter().map(|row| time(of(row)));
        rows.push([name.to_owned()].into_iter().chain(cells).collect());
    };
    line("began at", &|row| row.began_seconds);
    for phase in phases(stack) {
        line(phase, &|row| row.phases.iter().find(|found| found.name == phase).map(|found| found.seconds));
    }
    line("ready at", &|row| row.ready_seconds);
    line("RTO", &|row| row.objectives.rto_seconds);
    line("loss", &|row| row.exposure_seconds);
    line("RPO", &|row| row.objectives.rpo_seconds);
    let numbers: Vec<usize> = (1..=stack.components.len()).collect();
    lines.extend(table(&rows, &numbers).lines().map(str::to_owned));
    if stack.critical_path.len() > 1 && evidence.measured.recovery_seconds.is_some() {
        let path: Vec<String> = stack.critical_path.iter().map(|name| named(name)).collect();
        lines.push(format!("Critical path: {}", path.join(" → ")));
    }
    lines
}
