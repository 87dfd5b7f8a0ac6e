//! A folder held against a snapshot: what is there now, whoever put it there and whatever happened to it since.
//!
//! Changes nothing but the folder's access times. Paths are named as in a restore's outcome.

use std::path::Path;
use std::sync::Arc;

use super::entries::target_key;
use super::outcome::Problems;
use super::{RestoreOptions, Shared, outcome, target_error, verify};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::engine::read::filter::PathFilter;
use crate::engine::read::select::Selected;
use crate::engine::read::walk::TreeWalk;
use crate::format::entry::{Entry, Kind};
use crate::repo::Repository;
use crate::source::files::stat::Stat;
use crate::source::files::target::{Target, TargetOptions};

/// What is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aspects {
    /// Read every file and compare its hash; without it only names, modes and owners are.
    pub contents: bool,
    /// Owners are the numbers of the snapshot, whatever names they had.
    pub numeric_owners: bool,
}

/// What was found. Messages read `FOUND, expected EXPECTED`.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Files read and found equal.
    pub files: u64,
    /// Paths looked at, of all kinds.
    pub paths: u64,
    /// Missing, of another type, or of other content.
    pub contents: Problems,
    pub modes: Problems,
    pub owners: Problems,
}

/// Compares the folder `target` with the selected part of a snapshot.
///
/// # Errors
/// The folder or the repository cannot be read, or the run was cancelled.
pub async fn held(
    repo: &Repository,
    selected: &Selected,
    target: &Path,
    aspects: Aspects,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Held, EngineError> {
    let local = |cause| EngineError::Local { operation: "open", path: target.display().to_string(), cause };
    std::fs::metadata(target).map_err(local)?;
    let mut files = TargetOptions::default();
    files.owners.numeric = aspects.numeric_owners;
    let shared = Arc::new(Shared {
        target: Target::open(target, files).map_err(target_error)?,
        repo_reader: repo.reader.clone(),
        domain: selected.snapshot.domain,
        runtime: tokio::runtime::Handle::current(),
        progress,
        cancel: cancel.clone(),
        outcome: outcome::Report::default(),
    });
    let mut found = Held::default();
    if aspects.contents {
        let options = RestoreOptions { target: target.to_owned(), ..RestoreOptions::default() };
        let everything = PathFilter::new(&options.filter)?;
        verify::verify(repo, selected, &options, &everything, &shared).await?;
    }
    let mut walk = TreeWalk::new(&repo.reader, shared.domain, selected.root, &selected.key);
    while let Some((key, entry)) = walk.next().await? {
        shared.check()?;
        let below = target_key(&key, selected);
        found.paths += 1;
        match shared.target.existing(below).map_err(target_error)? {
            Some(stat) => look(&shared.target, below, &entry, &stat, &mut found),
            // Named by the comparison of the contents, if there was one.
            None if aspects.contents => {}
            None => found.contents.add(below, "missing, expected there".into()),
        }
    }
    let outcome = shared.outcome.take();
    found.files = outcome.verified;
    for problem in outcome.failed.named.iter().chain(&outcome.damaged.named) {
        let message = problem.message.strip_prefix("verify: ").unwrap_or(&problem.message);
        found.contents.add(&problem.key, format!("{message}, expected as captured"));
    }
    // Those without a name count all the same.
    let named = (outcome.failed.named.len() + outcome.damaged.named.len()) as u64;
    found.contents.count += (outcome.failed.count + outcome.damaged.count).saturating_sub(named);
    Ok(found)
}

fn look(target: &Target, key: &[u8], entry: &Entry, stat: &Stat, found: &mut Held) {
    // A link has no mode of its own.
    if !matches!(entry.kind, Kind::Symlink(_)) && stat.permissions() != entry.mode & 0o7777 {
        let (is, was) = (stat.permissions(), entry.mode & 0o7777);
        found.modes.add(key, format!("mode {is:04o}, expected {was:04o}"));
    }
    let (uid, gid) = target.owner_of(entry);
    if (stat.uid, stat.gid) != (uid, gid) {
        found.owners.add(key, format!("owner {}:{}, expected {uid}:{gid}", stat.uid, stat.gid));
    }
}
