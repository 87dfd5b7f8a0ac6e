//! `*@latest`: of every job its snapshot, for whoever has lost all of a machine. Files go together into one place; what
//! goes back to a server is named, with the command for it.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::text::shown;
use super::{CliError, Context, Exit};
use crate::engine::read::select::{Selected, SnapshotPath};
use crate::repo::Repository;
use crate::repo::snapshots::{EVERY_JOB, Filter};

/// How a snapshot of plain files calls its source.
const FILES: &str = "files";

/// Whether a selector means every job.
pub fn is_every(what: &OsStr) -> bool {
    what.as_encoded_bytes().starts_with(EVERY_JOB.as_bytes())
}

/// What every job's selector means.
pub struct Every {
    /// The snapshots of files, oldest first: where two hold the same path, the newer one is restored over the older.
    pub files: Vec<Selected>,
    /// [`Exit::Damage`] when there may have been more: some snapshots cannot be read.
    pub exit: Exit,
}

/// The snapshots of files among those of every job. Says on stderr which of the others are left, and how they go back;
/// which cannot be read; and of which machine they are, when there are several.
pub async fn select(
    context: &Context,
    repo: &Repository,
    what: &OsStr,
    filter: &Filter,
) -> Result<Every, CliError> {
    let text = what.to_str().unwrap_or_default();
    if text.contains(":/") {
        let why = format!("{text:?}: a path is one snapshot's");
        return Err(CliError::usage(why)
            .hint("latest:PATH is the newest snapshot that has it, JOB@latest:PATH one job's"));
    }
    let list = context.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
    let own = Filter { machine: context.settings.hostname.clone(), ..filter.clone() };
    let found = list.every(text, &own)?;
    let (files, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| found.summary.source == FILES);
    for (name, error) in &list.damaged {
        context.warn(format_args!("{name} cannot be read, so it is not known whose it is: {error}"));
    }
    for snapshot in &list.untrusted {
        let (id, job) = (super::snapshots::short(&snapshot.id), shown(snapshot.summary.job.as_bytes()));
        context.warn(format_args!("left out: {id} of {job}, signed by a key that was revoked"));
    }
    let hosts: BTreeSet<&str> = list.matching(filter).map(|found| found.summary.host.as_str()).collect();
    if let Some(own) = files.first().or(others.first()).map(|found| found.summary.host.as_str())
        && hosts.len() > 1
    {
        let rest: Vec<String> =
            hosts.into_iter().filter(|host| *host != own).map(|host| shown(host.as_bytes())).collect();
        let own = shown(own.as_bytes());
        context.warn(format_args!(
            "these are of {own}, as this machine is called; there are also: {} (--host chooses)",
            rest.join(", ")
        ));
    }
    for other in &others {
        let (job, source) = (shown(other.summary.job.as_bytes()), shown(other.summary.source.as_bytes()));
        let id = super::snapshots::short(&other.id);
        context
            .warn(format_args!("left out: {job} holds no files but {source}: lifeboat restore {id} --to …"));
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
    let exit = if list.damaged.is_empty() { Exit::Ok } else { Exit::Damage };
    Ok(Every { files: selected, exit })
}
