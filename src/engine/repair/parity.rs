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
use crate::format::pack::PACK_LIMIT_BYTES;
use crate::format::parity::{SHARD_BYTES, Share};
use crate::pack::pack_name;
use crate::pack::parity::{Healed, heal, make};
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
    parity: Listed,
    /// 0: it is gone.
    #[serde(skip)]
    size_bytes: u64,
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
    let mut bad: Vec<(ObjectHash, String)> =
        view.bad.iter().map(|(hash, why)| (*hash, why.clone())).collect();
    if examined.is_broken() {
        let gone = missing(repo, &parity).await?;
        bad.extend(gone.into_iter().map(|hash| (hash, "is gone".to_owned())));
    }
    bad.retain(|(hash, _)| parity.contains_key(hash) && !view.stock.condemned.contains(hash));
    bad.sort();
    for (hash, why) in bad {
        cancel.check()?;
        let there = match view.stock.packs.get(&hash) {
            Some(listed) => {
                read(repo.store.as_ref(), &pack_name(listed.kind, &hash), listed.size_bytes).await?
            }
            None => Bytes::new(),
        };
        let mut reasons = Vec::new();
        let mut is_healed = false;
        for one in parity.get(&hash).into_iter().flatten() {
            let listed = view.stock.packs.get(&hash);
            match attempt(repo.store.as_ref(), hash, there.clone(), one).await? {
                // Parity is not signed: where the pack lies, the listing knows better.
                Ok(healed) if listed.is_some_and(|listed| listed.kind != healed.kind) => {
                    reasons.push(format!("{}: it is about a pack of another kind", one.name));
                }
                Ok(healed) => {
                    found.healable.push(Healable {
                        object: pack_name(healed.kind, &hash),
                        why: why.clone(),
                        rebuilt: healed.rebuilt,
                        parts: healed.shards,
                        pack: hash,
                        parity: one.clone(),
                        size_bytes: listed.map_or(0, |listed| listed.size_bytes),
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

/// An object, or nothing if it is gone. A part of it that cannot be read is zeros: the hashes of its shards tell.
async fn read(store: &dyn Store, name: &str, size_bytes: u64) -> Result<Bytes, EngineError> {
    match store.get(name).await {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.is_not_found() => Ok(Bytes::new()),
        Err(error) if error.kind == StoreErrorKind::Truncated => in_pieces(store, name, size_bytes).await,
        Err(error) => Err(error.into()),
    }
}

async fn in_pieces(store: &dyn Store, name: &str, size_bytes: u64) -> Result<Bytes, EngineError> {
    let size_bytes = size_bytes.min(PACK_LIMIT_BYTES);
    let mut whole = vec![0; size_bytes as usize];
    let mut pieces = vec![(0, size_bytes)];
    while let Some((from, length)) = pieces.pop() {
        match store.get_range(name, from, length).await {
            Ok(bytes) => whole[from as usize..(from + length) as usize].copy_from_slice(&bytes),
            Err(error) if error.is_not_found() => return Ok(Bytes::new()),
            Err(error) if error.kind == StoreErrorKind::Truncated => {
                // Halves on the borders of shards, down to one of them.
                let half = (length / 2).next_multiple_of(SHARD_BYTES);
                if half < length {
                    pieces.extend([(from, half), (from + half, length - half)]);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(whole.into())
}

async fn attempt(
    store: &dyn Store,
    pack: ObjectHash,
    there: Bytes,
    parity: &Listed,
) -> Result<Result<Healed, String>, EngineError> {
    let object = read(store, &parity.name, parity.size_bytes).await?;
    let healed = tokio::task::spawn_blocking(move || heal(&pack, &there, &object)).await;
    let healed = healed.map_err(|cause| EngineError::Source(format!("rebuilding failed: {cause}")))?;
    Ok(healed.map_err(|cause| format!("{}: {cause}", parity.name)))
}

/// Puts the packs' bytes back, one after the other. Cut off, some are whole and the others as they were.
///
/// Not every service replaces in one step, and what is damaged may be gone in between: so parity that a pack comes back
/// from out of nothing is put first, and taken away once the pack was read again.
pub(super) async fn apply(
    repo: &Repository,
    healable: &[&Healable],
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    progress.phase("rebuilding from parity");
    progress.add_total(0, healable.len() as u64);
    let store = repo.store.as_ref();
    for one in healable {
        cancel.check()?;
        let there = match one.size_bytes {
            0 => Bytes::new(),
            size_bytes => read(store, &one.object, size_bytes).await?,
        };
        let failed = |why| EngineError::Source(format!("{} cannot be rebuilt: {why}", one.object));
        let healed = attempt(store, one.pack, there, &one.parity).await?.map_err(failed)?;
        let (kind, pack, bytes) = (healed.kind, one.pack, healed.bytes.clone());
        let safe = tokio::task::spawn_blocking(move || make(kind, pack, &bytes, Share::WHOLE)).await;
        let safe =
            safe.map_err(|cause| failed(cause.to_string()))?.map_err(|cause| failed(cause.to_string()))?;
        let is_there = safe.name == one.parity.name;
        if !is_there {
            store.put(&safe.name, safe.bytes).await?;
            repo.settle().await;
        }
        store.replace(&one.object, healed.bytes.clone()).await?;
        repo.settle().await;
        if store.get(&one.object).await? != healed.bytes {
            return Err(RepoError::object(&one.object)(SealError::Damaged).into());
        }
        if !is_there {
            store.delete(&safe.name).await?;
        }
        progress.add_done(0, 1);
    }
    Ok(())
}
