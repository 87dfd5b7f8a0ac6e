//! What a fault takes away from a repository: the same for the same snapshot and kind, so that a run can be repeated.

use std::collections::{BTreeMap, BTreeSet};

use super::FaultKind;
use crate::base::cancel::Cancel;
use crate::engine::EngineError;
use crate::engine::needs::{NeededPack, needs};
use crate::format::header::ObjectKind;
use crate::repo::Repository;
use crate::repo::snapshots::Snapshot;
use crate::store::overlay::{Loss, Wound};

/// Folders that lose half of their objects.
const HALVED: [ObjectKind; 4] = [ObjectKind::Data, ObjectKind::Meta, ObjectKind::Index, ObjectKind::Snapshot];

/// The packs that a snapshot needs: what files hold, if anything does, for pages that are gone hide what becomes of
/// damaged content.
pub async fn needed(
    repo: &Repository,
    snapshot: &Snapshot,
    cancel: &Cancel,
) -> Result<Vec<NeededPack>, EngineError> {
    let all = needs(repo, snapshot, cancel).await?;
    let data: Vec<NeededPack> = all.iter().filter(|pack| pack.kind == ObjectKind::Data).cloned().collect();
    Ok(if data.is_empty() { all } else { data })
}

/// Decides which object is hit.
pub fn seed_of(snapshot: &str, kind: FaultKind) -> u64 {
    let hash = blake3::hash(format!("{snapshot} {}", kind.name()).as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// What is lost, in words too. `None`: this kind takes nothing away, or there is nothing to take.
pub fn loss_of(kind: FaultKind, packs: &[NeededPack], seed: u64) -> Option<(String, Loss)> {
    let victim = packs.get((seed % packs.len().max(1) as u64) as usize);
    let one = |wound: Wound| BTreeMap::from_iter(victim.map(|pack| (pack.object.clone(), wound)));
    let mut loss = Loss::default();
    let injected = match kind {
        FaultKind::BitFlips => {
            victim?;
            loss.objects = packs.iter().map(|pack| (pack.object.clone(), flip(pack, seed))).collect();
            match packs.len() {
                1 => "one bit in the only pack".to_owned(),
                packs => format!("one bit in each of {packs} packs"),
            }
        }
        FaultKind::TruncatedPack => {
            let left_bytes = victim?.size_bytes / 2;
            loss.objects = one(Wound::Truncated { left_bytes });
            format!("{} cut to {left_bytes} bytes", short(&victim?.object))
        }
        FaultKind::MissingPack => {
            loss.objects = one(Wound::Missing);
            format!("{} gone", short(&victim?.object))
        }
        FaultKind::MissingIndex => {
            loss.folders = BTreeSet::from([ObjectKind::Index.folder().to_owned()]);
            "every index object gone".into()
        }
        FaultKind::HalfGone => {
            victim?;
            loss.objects = one(Wound::Missing);
            loss.halved = Some((seed, HALVED.map(|kind| kind.folder().to_owned()).into()));
            "half of all packs, index objects and manifests gone".into()
        }
        FaultKind::PrimaryGone => {
            loss.unreachable = true;
            "it does not answer".into()
        }
        FaultKind::StorageErrors
        | FaultKind::StorageTimeouts
        | FaultKind::SlowStorage
        | FaultKind::WrongKey
        | FaultKind::NoLocalState => return None,
    };
    Some((injected, loss))
}

/// One bit in the middle of a block that is needed.
fn flip(pack: &NeededPack, seed: u64) -> Wound {
    let (offset, length) = pack.blocks[(seed % pack.blocks.len() as u64) as usize];
    Wound::Flipped { offsets: vec![offset + length / 2] }
}

fn short(object: &str) -> String {
    object.chars().take(17).collect()
}
