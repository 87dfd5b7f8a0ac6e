//! One self-contained page: the verdict, the phases as a timeline, the runs before as a trend. No scripts, nothing
//! loaded from anywhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::lanes::{components, lanes};
use super::{against, left, short_time, span};
use crate::drill::check::CheckOutcome;
use crate::drill::evidence::Evidence;
use crate::drill::trend;

const STYLE: &str = "
:root{--ink:#1c2430;--soft:#5b6675;--line:#d9dee5;--bg:#fff;--good:#176d3b;--bad:#b3261e;--warn:#8a5a00;--bar:#2f6db5}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf1;--soft:#a3adba;--line:#38414d;--bg:#14181e;--good:#5fcf8d;--bad:#ff8a80;--warn:#f2c14e;--bar:#6ea8e8}}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);margin:0 auto;max-width:60rem;padding:1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0}.soft{color:var(--soft)}
.verdict{display:inline-block;border:2px solid;border-radius:.4rem;padding:.1rem .6rem;font-weight:700;margin:.6rem 0}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.35rem .6rem .35rem 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{font-weight:600;color:var(--soft);min-width:6rem;overflow-wrap:break-word}td{min-width:4.5rem}td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
table.f{table-layout:fixed}.f td.s{width:6.5rem}.f.wide td.s{width:10.5rem}.f th{width:38%}.f.wide th{width:11rem}.f td.n{width:5rem}
@media(max-width:42rem){.f,.f tbody,.f tr,.f td,.f th{display:block}.f td,.f th,.f td.s,.f.wide td.s,.f.wide th{width:auto;border:0;padding:.1rem 0;text-align:left}.f tr{border-bottom:1px solid var(--line);padding:.4rem 0}}
svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
";

/// Writes it. `before`: earlier runs of the drill, oldest first.
pub fn html(evidence: &Evidence, before: &[Evidence]) -> String {
    let class = if evidence.verdict.is_passed() { "good" } else { "bad" };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Drill " (evidence.name) " #" (evidence.number) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Drill " (evidence.name) " #" (evidence.number) }
                p.soft { (short_time(&evidence.started_at)) " on " (evidence.machine.host) }
                p class={ "verdict " (class) } { (evidence.verdict.words()) }
                @if let Some(reason) = &evidence.reason { p { (reason) } }
                (facts(evidence))
                h2 { "Timeline" }
                @match &evidence.stack {
                    Some(stack) => { (lanes(evidence, stack)) h2 { "Components" } (components(evidence, stack)) }
                    None => (timeline(evidence)),
                }
                h2 { "Checks" }
                (checks(evidence))
                (super::faults::html(evidence))
                @if before.iter().any(|run| run.is_like(evidence) && run.measured.recovery_seconds.is_some()) {
                    h2 { "Recovery time, run by run" }
                    (runs(evidence, before))
                }
                @if !evidence.not_tested.is_empty() {
                    h2 { "Not tested" }
                    ul { @for what in &evidence.not_tested { li { (what) } } }
                }
                p.soft {
                    (evidence.machine.program) ", " (evidence.machine.cores) " cores, " (evidence.machine.system)
                    ". The signed record is the JSON; this page is a view of it."
                }
            }
        }
    };
    page.into_string()
}

fn facts(evidence: &Evidence) -> Markup {
    let measured = &evidence.measured;
    html! {
        table {
            tr { th { "RTO" } td { (against(measured.end_to_end_seconds, evidence.objectives.rto_seconds))
                @if measured.declared_seconds > 0.0 {
                    " (" (span(measured.declared_seconds)) " of it declared for people to notice and decide)"
                } } }
            tr { th { "RPO" } td { (against(measured.exposure_seconds, evidence.objectives.rpo_seconds))
                @if let Some(worst) = measured.worst_exposure_seconds {
                    "; worst in " (measured.window_days) " days " (span(worst))
                    @match (measured.proven_worst_seconds, &evidence.stack) {
                        (Some(proven), _) => { ", of it proven by drills " (span(proven)) }
                        (None, None) => ", of it proven by drills nothing yet",
                        (None, Some(_)) => {}
                    }
                } } }
            @if let Some(stack) = &evidence.stack {
                tr { th { "Stack" } td { (stack.name) " as of " (short_time(&stack.at))
                    @if let Some(skew) = stack.skew_seconds { ", its parts " (span(skew)) " apart" } } }
                @if stack.critical_path.len() > 1 && measured.recovery_seconds.is_some() {
                    tr { th { "Critical path" } td { (stack.critical_path.join(" → ")) } }
                }
            }
            @for copy in &measured.copies { tr { th { "Left in " (copy.name) } td { (left(copy)) } } }
            @if let Some(row) = &evidence.snapshot {
                tr { th { "Snapshot" } td { (row.id.get(..8).unwrap_or_default()) " of " (row.job) " on " (row.host)
                    ", data of " (short_time(&row.consistent_at)) } }
            }
            @if let Some(start) = &evidence.start { tr { th { "Began with" } td { (start.words()) } } }
            tr { th { "Repository" } td { (evidence.repository) } }
            @if let Some(sandbox) = &evidence.sandbox { tr { th { "Sandbox" } td { (sandbox) } } }
            tr { th { "Restored" } td { (crate::base::byte_size::human(evidence.restored_bytes)) } }
            @if let Some(words) = trend::words(measured) {
                tr { th { "Trend" } td { @if trend::is_slower(measured) { span.warn { (words) } } @else { (words) } } }
            }
        }
    }
}

fn checks(evidence: &Evidence) -> Markup {
    html! {
        @if evidence.checks.is_empty() { p { "None was reached." } }
        @else {
            table.f {
                @for check in &evidence.checks {
                    tr {
                        td.s { @match check.outcome {
                            CheckOutcome::Passed => span.good { "passed" },
                            CheckOutcome::Failed => span.bad { "failed" },
                            CheckOutcome::Skipped => span.warn { "skipped" },
                        } }
                        th { (check.name) }
                        td { (check.detail) }
                        td.n { (span(check.seconds)) }
                    }
                }
            }
        }
    }
}

/// Drawn on a canvas of this width.
const WIDTH: f64 = 800.0;
const LABEL: f64 = 110.0;
const ROW: f64 = 26.0;

fn timeline(evidence: &Evidence) -> Markup {
    let total: f64 = evidence.phases.iter().map(|phase| phase.seconds).sum();
    let objective = evidence.objectives.rto_seconds.map(|rto| rto - evidence.measured.declared_seconds);
    // The objective is drawn where it does not squeeze the phases into nothing.
    let shown = objective.filter(|objective| *objective > 0.0 && *objective < total * 4.0);
    let scale = (WIDTH - LABEL - 90.0) / shown.unwrap_or(0.0).max(total).max(0.001);
    let height = ROW * evidence.phases.len() as f64 + 24.0;
    let mut begins = 0.0;
    let bars: Vec<(f64, f64)> = evidence
        .phases
        .iter()
        .map(|phase| {
            let bar = (LABEL + begins * scale, phase.seconds * scale);
            begins += phase.seconds;
            bar
        })
        .collect();
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label="Phases of the drill" {
            @for (row, (phase, (x, width))) in evidence.phases.iter().zip(&bars).enumerate() {
                @let y = row as f64 * ROW + 4.0;
                text x="0" y=(y + 13.0) { (phase.name) }
                rect x=(x) y=(y) width=(width.max(1.5)) height="18" rx="2" style="fill:var(--bar)" {}
                text x=(x + width.max(1.5) + 6.0) y=(y + 13.0) { (span(phase.seconds)) }
            }
            @if let Some(at) = shown {
                @let x = LABEL + at * scale;
                line x1=(x) x2=(x) y1="0" y2=(height - 18.0) style="stroke:var(--bad);stroke-dasharray:4 3" {}
                text x=(x) y=(height - 5.0) text-anchor="middle" { "objective" }
            }
        }
    }
}

/// The runs before that are like it, and it.
fn runs(evidence: &Evidence, before: &[Evidence]) -> Markup {
    let runs: Vec<(u64, f64, bool)> = before
        .iter()
        .filter(|run| run.is_like(evidence))
        .chain([evidence])
        .filter_map(|run| Some((run.number, run.measured.recovery_seconds?, run.verdict.is_passed())))
        .collect();
    let most = runs.iter().map(|(_, seconds, _)| *seconds).fold(0.001, f64::max);
    let (height, room) = (150.0, 110.0);
    let step = (WIDTH - 20.0) / runs.len().max(1) as f64;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label="Recovery time of each run" {
            @for (place, (number, seconds, passed)) in runs.iter().enumerate() {
                @let (x, tall) = (10.0 + place as f64 * step, (seconds / most * room).max(1.5));
                @let colour = if *passed { "var(--bar)" } else { "var(--bad)" };
                rect x=(x + step * 0.15) y=(room - tall + 18.0) width=((step * 0.7).min(60.0)) height=(tall) rx="2"
                    style=(format!("fill:{colour}")) {}
                text x=(x + step * 0.15) y=(room - tall + 13.0) { (span(*seconds)) }
                text x=(x + step * 0.15) y=(height - 6.0) { "#" (number) }
            }
        }
    }
}
