//! The verify verb: is everything there, whole, and made by who may make it?
//!
//! It trusts neither the local cache nor the index objects: a fresh index is built from the packs' own directories,
//! and every reference is judged against that. *Structure* reads everything but file contents. *Read-data* also
//! reads every block, which proves what structure only infers. What this key cannot open is listed as not tested,
//! never as sound. [`keyless`] needs no key at all.
//!
//! Invariant: nothing is written to the storage, and nothing is reported sound that was not looked at.

mod chain;
pub(super) mod chunks;
mod impact;
pub mod keyless;
mod objects;
pub mod outcome;
mod packs;
mod parity;
mod read;
pub(super) mod snapshots;
pub mod subset;
mod trees;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use chunks::View;
use outcome::{Cost, Report, VerifyOutcome};
use snapshots::Opened;
use subset::Subset;

use super::EngineError;
use crate::base::cache_lost::cache_lost;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::pack::read::Reader;
use crate::repo::Repository;
use crate::repo::sync::ListedPack;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Which packs to read in full; `None` is structure only.
    pub read_data: Option<Subset>,
    /// Without `read_data`: only these packs are read in full.
    pub packs: Vec<ObjectHash>,
    /// Threads that read and open packs; 0 is one a core, at least two.
    pub threads: usize,
    /// Where a temporary index may lie; `None` keeps it in memory, about 60 bytes a chunk.
    pub scratch: Option<PathBuf>,
}

/// Bytes of opened blocks of pages kept while folders are walked.
const BLOCK_CACHE_BYTES: usize = 32 << 20;

/// What was found, before it is known what it costs.
pub(super) struct Examined {
    pub report: Report,
    pub view: View,
    pub opened: Vec<Opened>,
    /// Whether anything that some snapshot needs may be lost.
    is_broken: bool,
}

/// Verifies the repository. Damage is in the outcome; an error means that verifying could not be done.
pub async fn verify(
    repo: &Repository,
    options: &VerifyOptions,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<VerifyOutcome, EngineError> {
    let scratch = scratch(options);
    let mut examined = examine(repo, options, scratch.as_ref(), &progress, cancel).await?;
    examined.report.costs = examined.costs(repo, progress.as_ref(), cancel).await?;
    let outcome = examined.report.finish();
    if !outcome.is_damaged() {
        chain::remember(repo, &examined.opened);
    }
    Ok(outcome)
}

/// A folder for the temporary index that goes when it is dropped; `None` where there cannot be one.
pub(super) fn scratch(options: &VerifyOptions) -> Option<tempfile::TempDir> {
    let folder = options.scratch.as_ref()?;
    match tempfile::tempdir_in(folder) {
        Ok(made) => Some(made),
        Err(cause) => {
            cache_lost("make a temporary folder in", folder, &cause);
            None
        }
    }
}

/// Looks at everything that the options ask for.
pub(super) async fn examine(
    repo: &Repository,
    options: &VerifyOptions,
    scratch: Option<&tempfile::TempDir>,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Examined, EngineError> {
    let mut report = Report::default();
    progress.phase("checking keys and marks");
    let marks = objects::check(repo, &mut report, cancel).await?;
    progress.phase("reading directories");
    let place = scratch.map(|folder| folder.path());
    let stock = packs::check(repo, &marks, place, &mut report, progress.as_ref(), cancel).await?;
    let reader = Reader::new(repo.store.clone(), repo.access.clone(), stock.index.clone(), BLOCK_CACHE_BYTES);
    let (opened, listed) = snapshots::check(repo, &marks, &mut report).await?;
    chain::check(repo, &opened, &listed, &marks, &mut report);
    progress.phase("walking folders");
    let mut view = View::new(stock);
    let mut is_broken =
        trees::check(&reader, &opened, &mut view, &mut report, progress.as_ref(), cancel).await?;
    if options.read_data.is_none() && options.packs.is_empty() {
        report.not_tested("file contents: nothing but the packs' directories was read (use --read-data)");
        parity::check(repo, &view.stock, &HashSet::new(), &mut report, cancel).await?;
    } else {
        progress.phase("reading packs");
        let chosen = choose(repo, options, &view);
        if chosen.len() < view.stock.packs.len() {
            let left = view.stock.packs.len() - chosen.len();
            report.not_tested(format!("the blocks of {left} packs outside the chosen part"));
        }
        let chosen_packs = chosen.iter().map(|(hash, _)| *hash).collect();
        parity::check(repo, &view.stock, &chosen_packs, &mut report, cancel).await?;
        let threads = threads(options.threads);
        is_broken |= read::check(repo, chosen, threads, &mut view, &mut report, progress, cancel).await?;
    }
    report.checked.snapshots = opened.len() as u64;
    Ok(Examined { report, view, opened, is_broken })
}

fn choose(repo: &Repository, options: &VerifyOptions, view: &View) -> Vec<(ObjectHash, ListedPack)> {
    let packs = &view.stock.packs;
    match options.read_data {
        Some(subset) => subset.choose(packs, repo.world.random.as_ref()),
        None => options.packs.iter().filter_map(|hash| Some((*hash, *packs.get(hash)?))).collect(),
    }
}

impl Examined {
    /// Whether anything that some snapshot needs may be lost.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Which files of which snapshots are lost.
    pub async fn costs(
        &self,
        repo: &Repository,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Vec<Cost>, EngineError> {
        if !self.is_broken {
            return Ok(Vec::new());
        }
        progress.phase("finding what is lost");
        impact::costs(&self.reader(repo), &self.opened, &self.view, cancel).await
    }

    /// A reader that has nothing in memory: what was read before the damage was known must not be taken from there.
    pub fn reader(&self, repo: &Repository) -> Reader {
        Reader::new(repo.store.clone(), repo.access.clone(), self.view.stock.index.clone(), 1 << 20)
    }
}

fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)) }
}

/// Whether objects of this kind are packs.
fn is_pack(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Data | ObjectKind::Meta)
}
