//! What a drill restores into, as it is written: a kind of sandbox, or the address of a server that is lent.

use std::sync::Arc;

use super::super::backup::service::{refuse_password, surroundings_at};
use super::super::{CliError, Context, Exit};
use crate::app;
use crate::app::services::is_service;
use crate::drill::sandbox::SandboxKind;
use crate::drill::sandbox::remote::Lent;
use crate::repo::to_timestamp;

/// A kind of sandbox, or the address of a server that is lent.
pub fn sandbox_of(what: &str, text: Option<&str>) -> Result<(Option<SandboxKind>, Option<String>), CliError> {
    let Some(text) = text else { return Ok((None, None)) };
    if !is_service(text) {
        return Ok((Some(sandbox_kind(what, text)?), None));
    }
    refuse_password(text)?;
    // The snapshot decides of what kind it must be.
    Ok((None, Some(text.to_owned())))
}

/// A kind of sandbox by its name.
pub fn sandbox_kind(what: &str, kind: &str) -> Result<SandboxKind, CliError> {
    let known = SandboxKind::ALL.into_iter().find(|known| known.name() == kind);
    known.ok_or_else(|| {
        let all: Vec<&str> = SandboxKind::ALL.into_iter().map(SandboxKind::name).collect();
        CliError::usage(format!("{what}: there is no sandbox {kind:?}"))
            .hint(format!("there are {}, or the address of a server that is lent", all.join(", ")))
    })
}

/// The server that is lent to the drill, held against everything that the configuration file backs up.
pub async fn lend(lent: Option<&str>, context: &Context) -> Result<Option<Arc<dyn Lent>>, CliError> {
    let Some(address) = lent.map(str::to_owned) else { return Ok(None) };
    let jobs = if context.has_file() { context.file()?.file.job } else { Default::default() };
    let sources: Vec<String> = jobs.values().flat_map(|job| job.source.all()).map(str::to_owned).collect();
    let around = surroundings_at(context, to_timestamp(jiff::Timestamp::now()));
    let lent = tokio::task::spawn_blocking(move || app::lent::lend(&address, &sources, &around)).await;
    let lent =
        lent.map_err(|_| CliError::new(Exit::Failed, "looking at the sandbox panicked: this is a bug"))?;
    Ok(Some(lent.map_err(|error| CliError::from(error).within("sandbox"))?))
}
