//! `runbook check`: every rule, every file, nothing reached.

use std::path::PathBuf;

use super::super::text::plural;
use super::super::{CliError, Context, Exit};
use super::{files, problems, told};
use crate::base::own_file::Trust;
use crate::runbook::check::Severity;
use crate::runbook::{self, RunbookError};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runbooks, or folders of them [default: dr-runbooks]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let files = files(&args.files)?;
    let mut out = context.out();
    let (mut all, mut errors, mut notes) = (Vec::new(), 0, 0);
    for path in &files {
        let (list, steps) = match runbook::load(path, Trust::Any) {
            Ok(runbook) => (problems(&runbook), runbook.steps.len()),
            Err(error @ RunbookError::Syntax { .. }) => {
                errors += 1;
                if !context.json {
                    out.line(&error)?;
                }
                all.push(serde_json::json!({ "path": path, "error": error.to_string() }));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for problem in &list {
            let is_error = problem.severity == Severity::Error;
            *(if is_error { &mut errors } else { &mut notes }) += 1;
            if !context.json && (is_error || !context.quiet) {
                let note = if is_error { "" } else { "note: " };
                out.line(format_args!("{note}{}", told(path, problem)))?;
            }
        }
        all.push(serde_json::json!({ "path": path, "steps": steps, "problems": list }));
    }
    if context.json {
        out.json(&serde_json::json!({ "files": all, "errors": errors, "notes": notes }))?;
    } else if !context.quiet || errors > 0 {
        out.line(format_args!(
            "{}: {}, {}",
            plural(files.len() as u64, "runbook"),
            plural(errors as u64, "problem"),
            plural(notes as u64, "note")
        ))?;
    }
    out.finish()?;
    Ok(if errors == 0 { Exit::Ok } else { Exit::Usage })
}
