//! Makes damaged packs whole from their parity: the first thing `repair packs` tries, because it loses nothing. A pack
//! gets its very bytes back under its name, so no reader, index or snapshot has to know.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use serde::Serialize;

use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::engine::parity::by_pack;
use crate::engine::verify::Examined;
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::pack::pack_name;
use crate::pack::parity::{Healed, heal};
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;
use crate::store::{Listed, Store, StoreErrorKind};

/// A pack that its parity makes whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healable {
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    /// Parts of it that are rebuilt, and of how many.
    pub rebuilt: u64,
    pub parts: u64,
    #[serde(skip)]
    pub(super) pack: ObjectHash,
    #[serde(skip)]
    parity: String,
    #[serde(skip)]
    is_gone: bool,
}

/// What parity could do.
#[derive(Default)]
pub(super) struct Found {
    pub healable: Vec<Healable>,
    /// Packs with parity that does not suffice, and why.
    pub hopeless: Vec<(String, String)>,
}

/// Tries every bad pack that has parity, and those that are gone. Writes nothing.
pub(super) async fn find(
    repo: &Repository,
    examined: &Examined,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Found, EngineError> {
    let mut found = Found::default();
    let parity = by_pack(repo.store.list(ObjectKind::Parity.folder()).await?);
    if parity.is_empty() {
        return Ok(found);
    }
    progress.phase("asking parity");
    let view = &examined.view;
    let mut bad: Vec<(ObjectHash, String, bool)> =
        view.bad.iter().map(|(hash, why)| (*hash, why.clone(), false)).collect();
    if examined.is_broken() {
        let gone = missing(repo, &parity).await?;
        bad.extend(gone.into_iter().map(|hash| (hash, "is gone".to_owned(), true)));
    }
    bad.retain(|(hash, ..)| parity.contains_key(hash) && !view.stock.condemned.contains(hash));
    bad.sort();
    for (hash, why, is_gone) in bad {
        cancel.check()?;
        let there = match view.stock.packs.get(&hash) {
            Some(listed) => read(repo.store.as_ref(), &pack_name(listed.kind, &hash)).await?,
            None => Bytes::new(),
        };
        let mut reasons = Vec::new();
        let mut is_healed = false;
        for one in parity.get(&hash).into_iter().flatten() {
            match attempt(repo.store.as_ref(), hash, there.clone(), &one.name).await? {
                Ok(healed) => {
                    found.healable.push(Healable {
                        object: pack_name(healed.kind, &hash),
                        why: why.clone(),
                        rebuilt: healed.rebuilt,
                        parts: healed.shards,
                        pack: hash,
                        parity: one.name.clone(),
                        is_gone,
                    });
                    is_healed = true;
                    break;
                }
                Err(reason) => reasons.push(reason),
            }
        }
        // Of a pack that is gone without being missed nobody wants to hear.
        if let (false, Some(listed)) = (is_healed, view.stock.packs.get(&hash)) {
            found.hopeless.push((pack_name(listed.kind, &hash), reasons.join("; ")));
        }
    }
    Ok(found)
}

/// Packs that have parity and are in no listing.
async fn missing(
    repo: &Repository,
    parity: &HashMap<ObjectHash, Vec<Listed>>,
) -> Result<BTreeSet<ObjectHash>, EngineError> {
    let packs = repo.list_packs().await?;
    Ok(parity.keys().filter(|hash| !packs.contains_key(hash)).copied().collect())
}

/// As much of an object as there is.
async fn read(store: &dyn Store, name: &str) -> Result<Bytes, EngineError> {
    match store.get(name).await {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.is_not_found() || error.kind == StoreErrorKind::Truncated => Ok(Bytes::new()),
        Err(error) => Err(error.into()),
    }
}

async fn attempt(
    store: &dyn Store,
    pack: ObjectHash,
    there: Bytes,
    parity: &str,
) -> Result<Result<Healed, String>, EngineError> {
    let object = read(store, parity).await?;
    let healed = tokio::task::spawn_blocking(move || heal(&pack, &there, &object)).await;
    let healed = healed.map_err(|cause| EngineError::Source(format!("rebuilding failed: {cause}")))?;
    Ok(healed.map_err(|cause| format!("{parity}: {cause}")))
}

/// Puts the packs' bytes back. Each is one write: cut off, some packs are whole and the others as they were.
pub(super) async fn apply(
    repo: &Repository,
    healable: &[&Healable],
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    progress.phase("rebuilding from parity");
    progress.add_total(0, healable.len() as u64);
    for one in healable {
        cancel.check()?;
        let there = if one.is_gone { Bytes::new() } else { read(repo.store.as_ref(), &one.object).await? };
        let healed = attempt(repo.store.as_ref(), one.pack, there, &one.parity).await?;
        let healed =
            healed.map_err(|why| EngineError::Source(format!("{} cannot be rebuilt: {why}", one.object)))?;
        repo.store.replace(&one.object, healed.bytes.clone()).await?;
        repo.settle().await;
        if repo.store.get(&one.object).await? != healed.bytes {
            return Err(RepoError::object(&one.object)(SealError::Damaged).into());
        }
        progress.add_done(0, 1);
    }
    Ok(())
}
