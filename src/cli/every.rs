//! `*@latest`: of every job its snapshot, for whoever has lost all of a machine. Files go together into one place; what
//! goes back to a server is named, with the command for it.

use std::ffi::OsStr;

use super::text::shown;
use super::{CliError, Context};
use crate::engine::read::select::{Selected, SnapshotPath};
use crate::repo::Repository;
use crate::repo::snapshots::{EVERY_JOB, Filter};

/// How a snapshot of plain files calls its source.
const FILES: &str = "files";

/// Whether a selector means every job.
pub fn is_every(what: &OsStr) -> bool {
    what.as_encoded_bytes().starts_with(EVERY_JOB.as_bytes())
}

/// The snapshots of files among those of every job, oldest first: where two hold the same path, the newer one is
/// restored over the older. Says on stderr which of the others are left, and how they go back.
pub async fn select(
    context: &Context,
    repo: &Repository,
    what: &OsStr,
    filter: &Filter,
) -> Result<Vec<Selected>, CliError> {
    let text = what.to_str().unwrap_or_default();
    if text.contains(":/") {
        let why = format!("{text:?}: a path is one snapshot's");
        return Err(CliError::usage(why)
            .hint("latest:PATH is the newest snapshot that has it, JOB@latest:PATH one job's"));
    }
    let list = context.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
    let found = list.every(text, filter, &context.settings.hostname)?;
    let (files, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| found.summary.source == FILES);
    for other in &others {
        let (job, source) = (shown(other.summary.job.as_bytes()), shown(other.summary.source.as_bytes()));
        let id = super::snapshots::short(&other.id);
        context.note(format_args!(
            "left out: {job}, which is no files but {source}: lifeboat restore {id} --to …"
        ));
    }
    if files.is_empty() {
        let why = format!("{text:?} means no snapshot of files");
        return Err(CliError::usage(why).hint("`lifeboat snapshots` lists what there is"));
    }
    let mut selected = Vec::new();
    for snapshot in files {
        let path = SnapshotPath::parse(snapshot.id.hex().as_ref())?;
        let all = Filter::default();
        selected
            .push(context.until_cancelled(async { Ok(path.select_from(repo, &list, &all).await?) }).await?);
    }
    Ok(selected)
}
