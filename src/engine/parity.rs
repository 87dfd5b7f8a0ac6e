//! `parity`: makes, checks and removes the parity of packs. Needs no key: it reads and writes ciphertext.
//!
//! Order: parity is listed before packs, so that parity just put by a backup is never taken for litter. What belongs to
//! a pack that is not there is left alone here: it may be all that is left of it; a prune removes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use serde::Serialize;

use super::EngineError;
use crate::base::cancel::Cancel;
use crate::base::progress::{NoProgress, Progress};
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::format::parity::{Share, parse_object_name};
use crate::pack::pack_name;
use crate::pack::parity::make;
use crate::repo::Repository;
use crate::store::{Listed, Store, StoreError, StoreErrorKind};

/// Packs read and coded at once: each takes about three times its size in memory.
const PARALLEL_PACKS: usize = 2;

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct ParityOptions {
    pub share: Share,
    /// Read the parity that is there, and make anew what is damaged.
    pub check: bool,
}

/// A pack that is to get parity.
#[derive(Clone, Debug)]
struct Wanting {
    kind: ObjectKind,
    hash: ObjectHash,
    size_bytes: u64,
    /// Parity that is too little or damaged, which goes once the new one is there.
    old: Vec<String>,
}

/// What would be made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ParityPlan {
    pub packs: u64,
    pub packs_bytes: u64,
    /// Packs that have as much parity as was asked for.
    pub covered: u64,
    /// Bytes of all parity there is.
    pub parity_bytes: u64,
    /// Packs that get some, and their size.
    pub wanting: u64,
    pub wanting_bytes: u64,
    /// Parity objects that are damaged, with why; none were looked for without `check`.
    pub damaged: Vec<(String, String)>,
    /// Parity objects of packs that are not there.
    pub orphans: u64,
    #[serde(skip)]
    work: Vec<Wanting>,
    /// Damaged parity of packs that have enough besides.
    #[serde(skip)]
    spoilt: Vec<String>,
    /// All parity there is.
    #[serde(skip)]
    names: Vec<String>,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ParityOutcome {
    pub made: u64,
    pub made_bytes: u64,
    /// Parity objects that gave way to others.
    pub replaced: u64,
    /// Packs that are not what their name says, so that nothing could be made of them.
    pub bad_packs: Vec<String>,
}

/// Parity by pack, of a listing.
pub(super) fn by_pack(listed: Vec<Listed>) -> HashMap<ObjectHash, Vec<Listed>> {
    let mut found: HashMap<ObjectHash, Vec<Listed>> = HashMap::new();
    for one in listed {
        if let Some((pack, _)) = parse_object_name(&one.name) {
            found.entry(pack).or_default().push(one);
        }
    }
    found
}

/// Whether the bytes are what the name says; `Some(why)` if not.
pub(super) async fn judge(store: &dyn Store, name: &str) -> Result<Option<String>, StoreError> {
    let bytes = match store.get(name).await {
        Ok(bytes) => bytes,
        // Removed since it was listed.
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) if error.kind == StoreErrorKind::Truncated => {
            return Ok(Some("it is cut short".to_owned()));
        }
        Err(error) => return Err(error),
    };
    let hash = parse_object_name(name).map(|(_, hash)| hash);
    let is_right = hash.is_some_and(|hash| blake3::hash(&bytes).as_bytes() == hash.as_bytes());
    Ok((!is_right).then(|| "its bytes are not the ones it was stored with".to_owned()))
}

/// Compares packs and parity. Writes nothing.
///
/// # Errors
/// Storage that does not answer.
pub async fn plan(
    store: &Arc<dyn Store>,
    options: ParityOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ParityPlan, EngineError> {
    progress.phase("comparing");
    let parity = store.list(ObjectKind::Parity.folder()).await?;
    let names = parity.iter().map(|one| one.name.clone()).collect();
    let mut plan = ParityPlan {
        names,
        parity_bytes: parity.iter().map(|one| one.size_bytes).sum(),
        ..Default::default()
    };
    let mut bad = HashMap::new();
    if options.check {
        progress.phase("reading parity");
        progress.add_total(plan.parity_bytes, parity.len() as u64);
        for one in &parity {
            cancel.check()?;
            if let Some(why) = judge(store.as_ref(), &one.name).await? {
                bad.insert(one.name.clone(), why);
            }
            progress.add_done(one.size_bytes, 1);
        }
    }
    let mut parity = by_pack(parity);
    let mut work = BTreeMap::new();
    for kind in [ObjectKind::Data, ObjectKind::Meta] {
        for listed in store.list(kind.folder()).await? {
            let Some(hash) = listed.name.rsplit('/').next().and_then(ObjectHash::from_hex) else { continue };
            plan.packs += 1;
            plan.packs_bytes += listed.size_bytes;
            let there = parity.remove(&hash).unwrap_or_default();
            let enough = options.share.parity_bytes(listed.size_bytes);
            if there.iter().any(|one| one.size_bytes >= enough && !bad.contains_key(&one.name)) {
                plan.covered += 1;
                plan.spoilt
                    .extend(there.into_iter().map(|one| one.name).filter(|name| bad.contains_key(name)));
                continue;
            }
            let old = there.into_iter().map(|one| one.name).collect();
            work.insert(hash, Wanting { kind, hash, size_bytes: listed.size_bytes, old });
        }
    }
    plan.orphans = parity.values().map(|names| names.len() as u64).sum();
    plan.work = work.into_values().collect();
    plan.wanting = plan.work.len() as u64;
    plan.wanting_bytes = plan.work.iter().map(|one| one.size_bytes).sum();
    plan.damaged = bad.into_iter().collect();
    plan.damaged.sort();
    Ok(plan)
}

/// Makes what the plan says. Interrupted, the same command goes on.
///
/// # Errors
/// Storage that does not answer or takes no more.
pub async fn apply(
    store: &Arc<dyn Store>,
    plan: &ParityPlan,
    share: Share,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ParityOutcome, EngineError> {
    progress.phase("making parity");
    progress.add_total(plan.wanting_bytes, plan.wanting);
    let mut outcome = ParityOutcome::default();
    let mut work = futures::stream::iter(&plan.work)
        .map(|one| async move { (one, cover(store, one, share).await) })
        .buffer_unordered(PARALLEL_PACKS);
    while let Some((one, covered)) = work.next().await {
        match covered? {
            Covered::Made(bytes) => {
                outcome.made += 1;
                outcome.made_bytes += bytes;
                outcome.replaced += one.old.len() as u64;
            }
            Covered::Gone => {}
            Covered::Bad => outcome.bad_packs.push(pack_name(one.kind, &one.hash)),
        }
        progress.add_done(one.size_bytes, 1);
        cancel.check()?;
    }
    outcome.bad_packs.sort();
    super::delete_all(store, plan.spoilt.clone(), &NoProgress).await?;
    outcome.replaced += plan.spoilt.len() as u64;
    Ok(outcome)
}

enum Covered {
    /// How many bytes of parity.
    Made(u64),
    /// A prune was faster.
    Gone,
    Bad,
}

async fn cover(store: &Arc<dyn Store>, one: &Wanting, share: Share) -> Result<Covered, EngineError> {
    let bytes = match store.get(&pack_name(one.kind, &one.hash)).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Covered::Gone),
        Err(error) if error.kind == StoreErrorKind::Truncated => return Ok(Covered::Bad),
        Err(error) => return Err(error.into()),
    };
    let (kind, hash) = (one.kind, one.hash);
    let made = tokio::task::spawn_blocking(move || {
        let is_right = blake3::hash(&bytes).as_bytes() == hash.as_bytes();
        is_right.then(|| make(kind, hash, &bytes, share).ok()).flatten()
    });
    let made = made.await.map_err(|cause| EngineError::Source(format!("making parity failed: {cause}")))?;
    let Some(made) = made else { return Ok(Covered::Bad) };
    let size_bytes = made.bytes.len() as u64;
    // A damaged object may stand under the very name.
    store.replace(&made.name, made.bytes).await?;
    for old in one.old.iter().filter(|old| **old != made.name) {
        store.delete(old).await?;
    }
    Ok(Covered::Made(size_bytes))
}

/// Removes all parity that the plan found.
///
/// # Errors
/// Storage that does not answer.
pub async fn remove(
    store: &Arc<dyn Store>,
    plan: &ParityPlan,
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    progress.phase("removing parity");
    progress.add_total(0, plan.names.len() as u64);
    super::delete_all(store, plan.names.clone(), progress).await
}

/// Removes parity of packs that are not there any more: after a prune, which knows that nothing needs them.
pub(super) async fn clear(repo: &Repository) -> Result<(), EngineError> {
    let store = &repo.store;
    let mut parity = by_pack(store.list(ObjectKind::Parity.folder()).await?);
    if parity.is_empty() {
        return Ok(());
    }
    // Until then the pack of parity that was just put may be in no listing.
    repo.settle().await;
    for kind in [ObjectKind::Data, ObjectKind::Meta] {
        for listed in store.list(kind.folder()).await? {
            if let Some(hash) = listed.name.rsplit('/').next().and_then(ObjectHash::from_hex) {
                parity.remove(&hash);
            }
        }
    }
    let names = parity.into_values().flatten().map(|one| one.name).collect();
    super::delete_all(store, names, &NoProgress).await
}
