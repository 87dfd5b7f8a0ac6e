//! `config`: a first file, a check that reaches nothing and runs nothing, the schema for editors.

mod init;

use super::text::plural;
use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check the configuration file without reaching anything
    Check,
    /// Write a first file for this machine, with comments
    Init(init::Args),
    /// Print the JSON schema of the file, for editors
    Schema,
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    match &args.action {
        Action::Check => check(context),
        Action::Init(args) => init::run(args, context),
        Action::Schema => {
            let text = serde_json::to_string_pretty(&crate::config::file::schema());
            context.print(text.map_err(|error| CliError::new(Exit::Failed, error.to_string()))?)?;
            Ok(Exit::Ok)
        }
    }
}

fn check(context: &Context) -> Result<Exit, CliError> {
    let found = context.file()?;
    let file = &found.file;
    for (name, repository) in &file.repository {
        context.settings_of(repository).map_err(|error| error.within(&format!("repository {name}")))?;
    }
    for (name, drill) in file.drill.iter().filter(|(_, drill)| drill.runbook.is_none()) {
        match drill.stack {
            Some(_) => super::drill::stack_spec_of(name, drill, file).map(drop)?,
            None => super::drill::spec_of(name, drill).map(drop)?,
        }
    }
    for (name, drill) in &file.drill {
        if let Some(runbook) = &drill.runbook {
            let path = found.path.with_file_name(runbook);
            super::runbook::refuse(&path).map_err(|error| error.within(&format!("drill {name}")))?;
        }
    }
    let impossible = file.impossible(jiff::Timestamp::now());
    if let Some(first) = impossible.first() {
        return Err(CliError::usage(first.clone()).within(&found.path.display().to_string()));
    }
    let doubts = file.doubts();
    if context.json {
        context.json(&serde_json::json!({
            "doubts": doubts, "path": found.path, "machine": found.machine, "repositories": file.repository.keys().collect::<Vec<_>>(),
            "jobs": file.job.keys().collect::<Vec<_>>(), "stacks": file.stack.keys().collect::<Vec<_>>(),
            "drills": file.drill.keys().collect::<Vec<_>>(),
        }))?;
    } else if !context.quiet {
        let kinds = [
            (file.machine.len(), "machine"),
            (file.repository.len(), "repository"),
            (file.job.len(), "job"),
            (file.stack.len(), "stack"),
            (file.drill.len(), "drill"),
        ];
        let there = kinds.iter().filter(|(number, _)| *number > 0);
        let all: Vec<String> = there.map(|(number, one)| plural(*number as u64, one)).collect();
        let all = if all.is_empty() { "nothing in it".to_owned() } else { all.join(", ") };
        context.print(format_args!("{}: {all}, all understood", found.path.display()))?;
    }
    if !context.json {
        doubts.iter().for_each(|doubt| context.warn(doubt));
    }
    Ok(Exit::Ok)
}
