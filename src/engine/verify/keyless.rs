//! Verify without any key, for whoever holds a copy: every byte of every object is covered by a hash that needs
//! none. Write-once objects are named by the hash of their bytes, fixed-name objects end in their own.
//!
//! It cannot tell that an object is missing, or was replaced by another that is whole: that takes a key.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;

use super::super::EngineError;
use super::is_pack;
use super::outcome::{Report, State, VerifyOutcome, state_of};
use super::subset::Subset;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::base::random::Random;
use crate::format::FormatError;
use crate::format::header::{ENC_LIMIT, FIXED_BYTES, Header, ObjectKind};
use crate::format::id::{ObjectHash, RepoId, SnapshotId};
use crate::format::manifest;
use crate::format::parity;
use crate::format::signed::{OBJECT_LIMIT_BYTES, check_checksum};
use crate::repo::sync::ListedPack;
use crate::store::{Listed, Store, StoreError, StoreErrorKind};

/// Bytes read at once; with [`PARALLEL_READS`] this bounds memory.
const WINDOW_BYTES: u64 = 8 << 20;
const PARALLEL_READS: usize = 8;

/// Verifies what lies at `store`. `read_data` leaves packs out that are not in the subset.
pub async fn verify_keyless(
    store: Arc<dyn Store>,
    read_data: Option<Subset>,
    random: &dyn Random,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<VerifyOutcome, EngineError> {
    let mut report = Report::default();
    report.not_tested("whether objects are missing, and what is inside them: that takes a key");
    progress.phase("hashing");
    let mut objects = Vec::new();
    for kind in ObjectKind::ALL {
        let listed = store.list(kind.folder()).await?;
        objects
            .extend(choose(kind, listed, read_data, random, &mut report).into_iter().map(|one| (kind, one)));
    }
    progress.add_total(objects.iter().map(|(_, one)| one.size_bytes).sum(), objects.len() as u64);
    let mut repositories: BTreeMap<RepoId, (u64, String)> = BTreeMap::new();
    let mut reads = futures::stream::iter(objects)
        .map(|(kind, listed)| {
            let (store, progress) = (store.clone(), progress.clone());
            async move {
                let result = object(store.as_ref(), kind, &listed, progress.as_ref()).await;
                (kind, listed, result)
            }
        })
        .buffer_unordered(PARALLEL_READS);
    while let Some((kind, listed, result)) = reads.next().await {
        cancel.check()?;
        progress.add_done(0, 1);
        report.checked.bytes_read += listed.size_bytes;
        if is_pack(kind) {
            report.checked.packs_read += 1;
        } else {
            report.checked.objects += 1;
        }
        match result {
            Ok(Some(header)) => {
                let known = repositories.entry(header.repo).or_insert((0, listed.name));
                known.0 += 1;
            }
            // Deleted since it was listed.
            Ok(None) => {}
            Err(Bad::Format(cause)) => {
                report.add(state_of(&cause.clone().into()), listed.name, cause.to_string())
            }
            Err(Bad::Store(error)) => return Err(error.into()),
        }
    }
    let most = repositories.values().map(|(count, _)| *count).max().unwrap_or(0);
    for (repo, (count, example)) in &repositories {
        if *count < most {
            let what = format!("belongs to another repository ({repo}), as do {} more", count - 1);
            report.add(State::Damaged, example.clone(), what);
        }
    }
    Ok(report.finish())
}

fn choose(
    kind: ObjectKind,
    listed: Vec<Listed>,
    subset: Option<Subset>,
    random: &dyn Random,
    report: &mut Report,
) -> Vec<Listed> {
    let Some(subset) = subset.filter(|_| is_pack(kind)) else { return listed };
    let mut by_hash = std::collections::HashMap::new();
    let mut packs = std::collections::HashMap::new();
    for one in listed {
        if let Some(hash) = one.name.rsplit('/').next().and_then(ObjectHash::from_hex) {
            packs.insert(hash, ListedPack { kind, size_bytes: one.size_bytes });
            by_hash.insert(hash, one);
        }
    }
    let chosen = subset.choose(&packs, random);
    if chosen.len() < packs.len() {
        let left = packs.len() - chosen.len();
        report.not_tested(format!("{left} packs of {} outside the chosen part", kind.folder()));
    }
    chosen.into_iter().filter_map(|(hash, _)| by_hash.remove(&hash)).collect()
}

enum Bad {
    Format(FormatError),
    Store(StoreError),
}

impl From<FormatError> for Bad {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

/// Reads one object. `None`: it is gone.
async fn object(
    store: &dyn Store,
    kind: ObjectKind,
    listed: &Listed,
    progress: &dyn Progress,
) -> Result<Option<Header>, Bad> {
    let name = expected(kind, &listed.name).ok_or(FormatError::Invalid("object's name"))?;
    let limit = if is_pack(kind) { crate::format::pack::PACK_LIMIT_BYTES } else { OBJECT_LIMIT_BYTES as u64 };
    if listed.size_bytes > limit && name == Expected::Checksum {
        return Err(FormatError::TooLarge { what: "object", value: listed.size_bytes, limit }.into());
    }
    let mut head = Vec::new();
    let mut hasher = blake3::Hasher::new();
    let mut from = 0;
    while from < listed.size_bytes {
        let length = WINDOW_BYTES.min(listed.size_bytes - from);
        let bytes = match store.get_range(&listed.name, from, length).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) if error.kind == StoreErrorKind::Truncated => {
                return Err(FormatError::Truncated("object").into());
            }
            Err(error) => return Err(Bad::Store(error)),
        };
        let keep = if name == Expected::Checksum { bytes.len() } else { FIXED_BYTES + ENC_LIMIT };
        if from == 0 || name == Expected::Checksum {
            head.extend_from_slice(&bytes[..keep.min(bytes.len())]);
        }
        hasher.update(&bytes);
        progress.add_done(length, 0);
        from += length;
    }
    // The version is judged first: a later format may name or end its objects otherwise.
    let header = Header::decode_kind(&head, kind)?.0;
    match name {
        Expected::Checksum => drop(check_checksum(&head)?),
        Expected::Hash(hash) if hasher.finalize().as_bytes() != hash.as_bytes() => {
            return Err(FormatError::Checksum.into());
        }
        Expected::Hash(_) => {}
    }
    Ok(Some(header))
}

/// How an object's bytes are covered.
#[derive(PartialEq, Eq)]
enum Expected {
    Hash(ObjectHash),
    Checksum,
}

/// What the name says; `None`: no Lifeboat names an object so.
fn expected(kind: ObjectKind, name: &str) -> Option<Expected> {
    let leaf = name.strip_prefix(kind.folder())?.strip_prefix('/')?;
    match kind {
        ObjectKind::Data | ObjectKind::Meta | ObjectKind::Index => {
            ObjectHash::from_hex(leaf).map(Expected::Hash)
        }
        ObjectKind::Snapshot => manifest::parse_object_name(name).map(|(_, hash)| Expected::Hash(hash)),
        ObjectKind::Parity => parity::parse_object_name(name).map(|(_, hash)| Expected::Hash(hash)),
        ObjectKind::Confirm | ObjectKind::Forgotten => SnapshotId::from_hex(leaf).map(|_| Expected::Checksum),
        _ => Some(Expected::Checksum),
    }
}
