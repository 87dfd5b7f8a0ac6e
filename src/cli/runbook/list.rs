//! `runbook list`: what there is, and when it was last shown to work.

use std::path::{Path, PathBuf};

use super::super::text::{shown, table};
use super::super::{CliError, Context, Exit};
use super::files;
use crate::app::runbooks;
use crate::base::own_file::Trust;
use crate::drill::evidence::SignedEvidence;
use crate::drill::report::span;
use crate::runbook::{self, Runbook};

/// The last rehearsal on this machine, beside the records of its runs.
pub const LAST: &str = "evidence.json";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runbooks, or folders of them [default: dr-runbooks]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(serde::Serialize)]
struct Row {
    path: PathBuf,
    name: String,
    title: String,
    components: Vec<String>,
    rto_seconds: f64,
    /// `2026-11-22`
    tested: Option<String>,
    result: Option<String>,
    measured_seconds: Option<f64>,
    machine: Option<String>,
    /// Whether the steps are those that were timed.
    is_current: bool,
    error: Option<String>,
}

pub fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let files = files(&args.files)?;
    let rows: Vec<Row> = files.iter().map(|path| row(path, context)).collect();
    let is_broken = rows.iter().any(|row| row.error.is_some());
    if context.json {
        context.json(&rows)?;
    } else {
        let head = ["RUNBOOK", "BRINGS BACK", "OBJECTIVE", "LAST TEST", "RESULT", "MEASURED", "ON"];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        lines.extend(rows.iter().map(cells));
        context.print(table(&lines, &[2, 5]))?;
        for row in &rows {
            if let Some(error) = &row.error {
                context.warn(error);
            }
        }
    }
    Ok(if is_broken { Exit::Usage } else { Exit::Ok })
}

fn cells(row: &Row) -> Vec<String> {
    let or = |text: &Option<String>, or: &str| {
        text.as_deref().map_or(or.to_owned(), |text| shown(text.as_bytes()))
    };
    let result = match (&row.error, row.is_current) {
        (Some(_), _) => "cannot be read".into(),
        (None, false) if row.tested.is_some() => format!("{}, changed since", or(&row.result, "")),
        _ => or(&row.result, "–"),
    };
    vec![
        shown(row.name.as_bytes()),
        shown(row.components.join(", ").as_bytes()),
        span(row.rto_seconds),
        or(&row.tested, "never"),
        result,
        row.measured_seconds.map_or("–".into(), span),
        or(&row.machine, "–"),
    ]
}

fn row(path: &Path, context: &Context) -> Row {
    let mut row = Row {
        path: path.to_owned(),
        name: path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        title: String::new(),
        components: Vec::new(),
        rto_seconds: 0.0,
        tested: None,
        result: None,
        measured_seconds: None,
        machine: None,
        is_current: false,
        error: None,
    };
    match runbook::load(path, Trust::Any) {
        Ok(runbook) => fill(&mut row, &runbook, context),
        Err(error) => row.error = Some(error.to_string()),
    }
    row
}

fn fill(row: &mut Row, runbook: &Runbook, context: &Context) {
    row.name.clone_from(&runbook.front.name);
    row.title.clone_from(&runbook.title);
    row.components.clone_from(&runbook.front.components);
    row.rto_seconds = runbook.front.rto.as_secs_f64();
    if let Some(measured) = &runbook.front.measured {
        row.tested = Some(measured.date.clone());
        row.result = Some("passed".into());
        row.measured_seconds = Some(measured.rto.as_secs_f64());
        row.machine = Some(measured.machine.clone());
        row.is_current = runbook.is_as_measured(measured);
    }
    // What this machine saw counts for this machine, unless the document tells of a later day.
    let Some(signed) = last(&runbook.front.name, context) else { return };
    let evidence = signed.evidence;
    let date = evidence.started_at.get(..10).unwrap_or_default().to_owned();
    if row.tested.as_ref().is_none_or(|tested| *tested <= date) {
        row.is_current = evidence.spec_hash == runbook.steps_hash();
        row.tested = Some(date);
        row.result = Some(evidence.verdict.words().to_lowercase());
        row.measured_seconds = evidence.measured.recovery_seconds;
        row.machine = Some(format!("{}, {} cores", evidence.machine.host, evidence.machine.cores));
    }
}

fn last(name: &str, context: &Context) -> Option<SignedEvidence> {
    let path = runbooks::folder(&context.settings, name).ok()?.join(LAST);
    SignedEvidence::parse(&std::fs::read(path).ok()?).ok()
}
