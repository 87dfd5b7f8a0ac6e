//! Files against the snapshot's tree: contents by their hashes, modes, owners.

use std::sync::Arc;

use super::{Answer, Broken, CheckSpec, Restored, counted};
use crate::base::progress::NoProgress;
use crate::engine::restore::held::{Aspects, held};
use crate::engine::restore::outcome::Problems;
use crate::repo::tree::path_of_key;
use crate::source::difference::Difference;

pub async fn check(spec: &CheckSpec, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let folder = restored.sandbox.path().ok_or("the sandbox holds no files")?.to_owned();
    if *spec == CheckSpec::Owners && !rustix::process::geteuid().is_root() {
        return Ok(Answer::Skipped(
            "only root can give files away, so their owners were not restored".into(),
        ));
    }
    let contents = *spec == CheckSpec::Files;
    let aspects = Aspects { contents, numeric_owners: owners_are_numbers(restored) };
    let found =
        held(restored.repo, restored.selected, &folder, aspects, Arc::new(NoProgress), restored.cancel);
    let found = found.await.map_err(|error| error.to_string())?;
    let files = counted(found.files, "file", "files");
    Ok(match spec {
        CheckSpec::Modes => {
            answer(&found.modes, format!("modes of {} equal", counted(found.paths, "path", "paths")))
        }
        CheckSpec::Owners => {
            answer(&found.owners, format!("owners of {} equal", counted(found.paths, "path", "paths")))
        }
        _ => answer(&found.contents, format!("{files} read back, contents equal")),
    })
}

/// A volume's owners are numbers of the containers that use it, whatever those numbers are called here.
fn owners_are_numbers(restored: &Restored<'_>) -> bool {
    restored.selected.snapshot.summary.source.starts_with("docker")
}

fn answer(problems: &Problems, proven: String) -> Answer {
    let difference = |problem: &crate::engine::restore::Problem| {
        let path = String::from_utf8_lossy(&path_of_key(&problem.key)).into_owned();
        let subject = if problem.key.is_empty() { "the restored folder".into() } else { path };
        match problem.message.split_once(", expected ") {
            Some((found, expected)) => Difference::new(subject, expected, found),
            None => Difference::new(subject, "as captured", problem.message.clone()),
        }
    };
    let mut differences: Vec<Difference> = problems.named.iter().map(difference).collect();
    // What is not named is counted by its number alone.
    let unnamed = problems.count.saturating_sub(differences.len() as u64);
    if unnamed > 0 {
        differences.push(Difference::new("others", "as captured", format!("{unnamed} paths differ")));
    }
    Answer::of(differences, proven)
}
