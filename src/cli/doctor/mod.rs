//! `doctor`: what was found, what works, and what to mend. Changes nothing but one small object, which it removes.
//!
//! Every check runs as far as the ones before it allow, and one that fails does not stop the others.

mod checks;

use serde::Serialize;

use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Works, but worth knowing.
    Warning,
    Failed,
    /// What it stands on is missing.
    Skipped,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// One finding.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    pub detail: String,
    pub hint: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Check {
    fn new(name: &'static str, status: Status, detail: impl Into<String>) -> Self {
        let exit = if status == Status::Failed { Exit::Failed } else { Exit::Ok };
        Self { name, status, detail: detail.into(), hint: None, exit }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, detail)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn failed(name: &'static str, error: CliError) -> Self {
        let mut check = Self::new(name, Status::Failed, error.causes.join(": "));
        (check.hint, check.exit) = (error.hint, error.exit);
        check
    }
}

pub async fn run(_args: Args, context: &Context) -> Result<Exit, CliError> {
    let mut found = Vec::new();
    checks::settings(context, &mut found);
    if let Ok(location) = context.location() {
        checks::free_space(location, &mut found);
        checks::storage(context, location, &mut found).await?;
        checks::repository(context, &mut found).await;
    }
    context.cancel.check()?;
    let exit = Exit::worst_of(found.iter().map(|check| check.exit));
    if context.json {
        context.json(&serde_json::json!({ "ok": exit == Exit::Ok, "checks": found }))?;
        return Ok(exit);
    }
    let mut out = context.out();
    for check in &found {
        out.line(format_args!("{:8} {:11} {}", check.status.word(), check.name, check.detail))?;
        if let Some(hint) = &check.hint {
            out.line(format_args!("{:20} hint: {hint}", ""))?;
        }
    }
    out.finish()?;
    Ok(exit)
}
