//! The verify verb: is everything there, whole, and made by who may make it?
//!
//! It trusts neither the local cache nor the index objects: a fresh index is built from the packs' own directories,
//! and every reference is judged against that. *Structure* reads everything but file contents. *Read-data* also
//! reads every block, which proves what structure only infers. What this key cannot open is listed as not tested,
//! never as sound. [`keyless`] needs no key at all.
//!
//! Invariant: nothing is written to the storage, and nothing is reported sound that was not looked at.

mod chain;
mod chunks;
mod impact;
pub mod keyless;
mod objects;
pub mod outcome;
mod packs;
mod read;
mod snapshots;
pub mod subset;
mod trees;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use outcome::{Report, VerifyOutcome};
use subset::Subset;

use super::EngineError;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::header::ObjectKind;
use crate::pack::read::Reader;
use crate::repo::Repository;
use crate::repo::local;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Which packs to read in full; `None` is structure only.
    pub read_data: Option<Subset>,
    /// Threads that read and open packs; 0 is one a core, at least two.
    pub threads: usize,
    /// Where a temporary index may lie; `None` keeps it in memory, about 60 bytes a chunk.
    pub scratch: Option<PathBuf>,
}

/// Bytes of opened blocks of pages kept while folders are walked.
const BLOCK_CACHE_BYTES: usize = 32 << 20;

/// Verifies the repository. Damage is in the outcome; an error means that verifying could not be done.
pub async fn verify(
    repo: &Repository,
    options: &VerifyOptions,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<VerifyOutcome, EngineError> {
    let mut report = Report::default();
    progress.phase("checking keys and marks");
    let marks = objects::check(repo, &mut report, cancel).await?;
    progress.phase("reading directories");
    let scratch = options.scratch.as_ref().map(|folder| {
        tempfile::tempdir_in(folder).map_err(local::error("create a temporary folder in", folder))
    });
    let scratch = scratch.transpose()?;
    let place = scratch.as_ref().map(|folder| folder.path());
    let stock = packs::check(repo, &marks, place, &mut report, progress.as_ref(), cancel).await?;
    let reader = Reader::new(repo.store.clone(), repo.access.clone(), stock.index.clone(), BLOCK_CACHE_BYTES);
    let (opened, listed) = snapshots::check(repo, &marks, &mut report).await?;
    chain::check(repo, &opened, &listed, &marks, &mut report);
    progress.phase("walking folders");
    let mut view = chunks::View::new(stock);
    let mut is_broken =
        trees::check(&reader, &opened, &mut view, &mut report, progress.as_ref(), cancel).await?;
    match &options.read_data {
        None => {
            report.not_tested("file contents: nothing but the packs' directories was read (use --read-data)")
        }
        Some(subset) => {
            progress.phase("reading packs");
            let chosen = subset.choose(&view.stock.packs, repo.world.random.as_ref());
            if chosen.len() < view.stock.packs.len() {
                let left = view.stock.packs.len() - chosen.len();
                report.not_tested(format!("the blocks of {left} packs outside the chosen part"));
            }
            let threads = threads(options.threads);
            is_broken |=
                read::check(repo, chosen, threads, &mut view, &mut report, &progress, cancel).await?;
        }
    }
    if is_broken {
        progress.phase("finding what is lost");
        // What was read before the damage was known must not be taken from memory now.
        let reader = Reader::new(repo.store.clone(), repo.access.clone(), view.stock.index.clone(), 1 << 20);
        report.costs = impact::costs(&reader, &opened, &view, cancel).await?;
    }
    report.checked.snapshots = opened.len() as u64;
    let outcome = report.finish();
    if !outcome.is_damaged() {
        chain::remember(repo, &opened)?;
    }
    Ok(outcome)
}

fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)) }
}

/// Whether objects of this kind are packs.
fn is_pack(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Data | ObjectKind::Meta)
}
