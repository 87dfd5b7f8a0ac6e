//! A stack's timeline: a lane for each component, its phases side by side with those of the others.

use maud::{Markup, html};

use super::{against, data_of, span};
use crate::drill::evidence::{ComponentRow, Evidence, StackRow};

/// Drawn on a canvas of this width.
const WIDTH: f64 = 800.0;
const LABEL: f64 = 120.0;
const ROW: f64 = 34.0;
/// Kept free for the text behind the last bar.
const MARGIN: f64 = 90.0;
/// Phases by name, each with how strongly it is drawn; others are drawn like the last.
const SHADES: [(&str, f64); 5] =
    [("locate", 0.35), ("provision", 0.5), ("restore", 1.0), ("start", 0.6), ("validate", 0.75)];

fn shade(phase: &str) -> f64 {
    SHADES.iter().find(|(name, _)| *name == phase).map_or(0.75, |(_, shade)| *shade)
}

/// Names of the phases that any component had, in the order they came in.
pub fn phases(stack: &StackRow) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for phase in stack.components.iter().flat_map(|row| &row.phases) {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    names
}

/// The picture.
pub fn lanes(evidence: &Evidence, stack: &StackRow) -> Markup {
    let last = stack.components.iter().filter_map(end).fold(0.0, f64::max);
    let objective = evidence.objectives.rto_seconds.map(|rto| rto - evidence.measured.declared_seconds);
    // The objective is drawn where it does not squeeze the lanes into nothing.
    let shown = objective.filter(|objective| *objective > 0.0 && *objective < last * 4.0);
    let scale = (WIDTH - LABEL - MARGIN) / shown.unwrap_or(0.0).max(last).max(0.001);
    let height = ROW * stack.components.len() as f64 + 46.0;
    let lane = |name: &str| stack.components.iter().position(|row| row.name == name);
    let middle = |lane: usize| lane as f64 * ROW + 13.0;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label="Components and their phases" {
            @for (at, row) in stack.components.iter().enumerate() {
                @let y = at as f64 * ROW + 4.0;
                @let critical = stack.critical_path.contains(&row.name);
                text x="0" y=(y + 13.0) style=(if critical { "font-weight:700" } else { "" }) { (row.name) }
                @match row.began_seconds {
                    None => text x=(LABEL) y=(y + 13.0) { "not begun" },
                    Some(began) => {
                        @for (begins, phase) in placed(row, began) {
                            rect x=(LABEL + begins * scale) y=(y) width=((phase.seconds * scale).max(1.0)) height="18"
                                style=(format!("fill:var(--{});opacity:{}",
                                    if row.ready_seconds.is_some() { "bar" } else { "bad" }, shade(&phase.name))) {
                                title { (row.name) ": " (phase.name) " " (span(phase.seconds)) }
                            }
                        }
                        @for needed in row.needs.iter().filter_map(|name| lane(name)) {
                            @let x = LABEL + began * scale;
                            line x1=(x) x2=(x) y1=(middle(needed)) y2=(y) style="stroke:var(--soft)" {}
                        }
                        text x=(LABEL + end(row).unwrap_or(began) * scale + 6.0) y=(y + 13.0) {
                            @match row.ready_seconds { Some(ready) => (span(ready)), None => "failed" }
                        }
                    }
                }
            }
            @if let Some(at) = shown {
                @let x = LABEL + at * scale;
                line x1=(x) x2=(x) y1="0" y2=(height - 40.0) style="stroke:var(--bad);stroke-dasharray:4 3" {}
                text x=(x) y=(height - 27.0) text-anchor="middle" { "objective" }
            }
            @for (at, name) in phases(stack).into_iter().enumerate() {
                @let x = LABEL + at as f64 * 110.0;
                rect x=(x) y=(height - 16.0) width="12" height="12" style=(format!("fill:var(--bar);opacity:{}", shade(name))) {}
                text x=(x + 18.0) y=(height - 6.0) { (name) }
            }
        }
    }
}

/// Each phase with when it began.
fn placed(row: &ComponentRow, began: f64) -> Vec<(f64, &crate::drill::evidence::Phase)> {
    let mut at = began;
    let mut found = Vec::new();
    for phase in &row.phases {
        found.push((at, phase));
        at += phase.seconds;
    }
    found
}

fn end(row: &ComponentRow) -> Option<f64> {
    let phases: f64 = row.phases.iter().map(|phase| phase.seconds).sum();
    row.ready_seconds.or(row.began_seconds.map(|began| began + phases))
}

/// The components as a table.
pub fn components(evidence: &Evidence, stack: &StackRow) -> Markup {
    let declared = evidence.measured.declared_seconds;
    html! {
        table {
            tr { th { "Component" } th { "Result" } th { "Data of" } th { "Sandbox" } th { "RTO" } th { "RPO" } }
            @for row in &stack.components {
                tr {
                    th { (row.name) }
                    td { @if row.verdict.is_passed() { span.good { "passed" } } @else {
                        span.bad { (row.verdict.words().to_lowercase()) }
                        @if let Some(reason) = &row.reason { br; (reason) }
                    } }
                    td { (data_of(row, &evidence.machine.host)) }
                    td { (row.sandbox.as_deref().unwrap_or("–")) }
                    td { (against(row.ready_seconds.map(|ready| ready + declared), row.objectives.rto_seconds)) }
                    td { @if row.snapshot.is_some() || row.objectives.rpo_seconds.is_some() {
                        (against(row.exposure_seconds, row.objectives.rpo_seconds)) } @else { "–" } }
                }
            }
        }
    }
}
