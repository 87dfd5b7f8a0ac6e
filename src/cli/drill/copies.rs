//! What other copies of the drilled repository hold: what would be left if the drilled one were lost, too.

use std::time::Duration;

use super::super::Context;
use crate::config::file::File;
use crate::drill::evidence::{CopyRow, Evidence};
use crate::drill::exposure;
use crate::repo::sync::Thoroughness;

/// A copy that does not answer must not keep the evidence of the others waiting.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// The names of the repositories that hold the same data as `name`, it apart.
fn others<'f>(file: &'f File, name: &'f str) -> Vec<&'f str> {
    let first = |name: &'f str| -> &'f str {
        file.repository.get(name).and_then(|found| found.replica_of.as_deref()).unwrap_or(name)
    };
    let all = file.repository.keys().map(String::as_str);
    all.filter(|other| *other != name && first(other) == first(name)).collect()
}

/// Looks into every other copy of the repository `drilled` of the file, and notes its newest point.
pub async fn look(file: &File, drilled: &str, evidence: &mut Evidence, context: &Context) {
    let Some(row) = evidence.snapshot.clone() else { return };
    for name in others(file, drilled) {
        let looking = tokio::time::timeout(ANSWERS_WITHIN, one(file, name, (&row.job, &row.host), context));
        let problem = match context.until_cancelled(async { Ok(looking.await) }).await {
            Ok(Ok(Ok(found))) => {
                evidence.measured.copies.push(found);
                continue;
            }
            Ok(Ok(Err(why))) => why,
            Ok(Err(_)) => format!("it did not answer within {} s", ANSWERS_WITHIN.as_secs()),
            // The drill itself had come to its end.
            Err(_) => "not looked at: interrupted".into(),
        };
        let name = name.to_owned();
        let unknown = CopyRow { name, consistent_at: None, exposure_seconds: None, problem: Some(problem) };
        evidence.measured.copies.push(unknown);
    }
}

async fn one(
    file: &File,
    name: &str,
    (job, host): (&str, &str),
    context: &Context,
) -> Result<CopyRow, String> {
    let Some(repository) = file.repository.get(name) else { return Err("it is not in the file".into()) };
    let told = |error: super::super::CliError| error.causes.join(": ");
    let there = context.with(context.settings_of_other(repository).map_err(told)?);
    let repo = there.open().await.map_err(told)?;
    repo.sync(Thoroughness::Tolerant).await.map_err(|error| error.to_string())?;
    let list = repo.snapshots().await.map_err(|error| error.to_string())?;
    Ok(exposure::of_copy(name, &list, job, host, crate::repo::from_timestamp(repo.world.now())))
}
