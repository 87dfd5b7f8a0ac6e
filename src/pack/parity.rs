//! Level 3: parity of packs, made and used. On the data's way it stands behind the finished pack: [`ParityStore`] puts a
//! parity object after every pack that is put through it, [`heal`] makes a damaged pack whole again.
//!
//! Invariant: what comes out of [`heal`] has the pack's name as its hash, so a forged or damaged parity object can make
//! healing fail and no more. Parity is never needed to read, and whoever holds the storage can make it without a key.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use crate::format::FormatError;
use crate::format::header::{Header, ObjectKind};
use crate::format::id::ObjectHash;
use crate::format::parity::{self, Parity, Share, Table, cut, shard_hash};
use crate::store::{Listed, Store, StoreError, StoreErrorKind};

/// Why a parity object could not be made, or did not help.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParityError {
    #[error("it is damaged: {0}")]
    Format(#[from] FormatError),
    #[error("it is about another pack than its name says")]
    OtherPack,
    #[error("{lost} of {of} parts are damaged, and {sound} parts of parity are sound")]
    TooLittle { lost: u64, of: u64, sound: u64 },
    #[error("what it rebuilds is not the pack: the parity is not of this pack")]
    NotThePack,
    #[error("the code refuses it: {0}")]
    Code(#[from] reed_solomon_simd::Error),
}

/// A parity object ready to be put.
#[derive(Clone, Debug)]
pub struct Made {
    pub name: String,
    pub bytes: Bytes,
}

/// The kind and hash of the pack that an object's name names.
pub fn pack_of(name: &str) -> Option<(ObjectKind, ObjectHash)> {
    [ObjectKind::Data, ObjectKind::Meta].into_iter().find_map(|kind| {
        let leaf = name.strip_prefix(kind.folder())?.strip_prefix('/')?;
        Some((kind, ObjectHash::from_hex(leaf)?))
    })
}

/// The shards of `bytes`, as they are coded: the last one filled up with zeros.
fn shards(bytes: &[u8], shard_bytes: usize) -> impl Iterator<Item = std::borrow::Cow<'_, [u8]>> {
    bytes.chunks(shard_bytes).map(move |shard| match shard.len() == shard_bytes {
        true => shard.into(),
        false => {
            let mut filled = shard.to_vec();
            filled.resize(shard_bytes, 0);
            filled.into()
        }
    })
}

/// Makes parity of a whole pack. The caller knows that `bytes` are what `pack` names.
///
/// # Errors
/// Bytes that begin with no header.
pub fn make(kind: ObjectKind, pack: ObjectHash, bytes: &[u8], share: Share) -> Result<Made, ParityError> {
    let header = Header::decode_kind(bytes, kind)?.0;
    let (shard_bytes, count) = cut(bytes.len() as u64);
    let recovery = share.recovery(count);
    let mut encoder = ReedSolomonEncoder::new(count as usize, recovery as usize, shard_bytes as usize)?;
    let mut originals = Vec::with_capacity(count as usize);
    for shard in shards(bytes, shard_bytes as usize) {
        originals.push(shard_hash(&shard));
        encoder.add_original_shard(&shard)?;
    }
    let coded = encoder.encode()?;
    let pack_bytes = bytes.len() as u64;
    let recovery = coded.recovery_iter().map(shard_hash).collect();
    let table = Table { kind, pack, pack_bytes, shard_bytes, originals, recovery };
    let object = parity::encode(header.repo, header.domain, &table, coded.recovery_iter());
    let hash = ObjectHash(*blake3::hash(&object).as_bytes());
    Ok(Made { name: parity::object_name(&pack, &hash), bytes: object.into() })
}

/// A pack that was made whole.
#[derive(Clone, Debug)]
pub struct Healed {
    pub kind: ObjectKind,
    pub bytes: Bytes,
    /// Shards that had to be rebuilt, of how many.
    pub rebuilt: u64,
    pub shards: u64,
}

/// Rebuilds a pack from what is there of it (nothing, if it is gone) and one parity object.
///
/// # Errors
/// Parity of something else, or too little that is sound of both.
pub fn heal(pack: &ObjectHash, there: &[u8], parity: &[u8]) -> Result<Healed, ParityError> {
    let read = Parity::decode(parity)?;
    let table = &read.table;
    if table.pack != *pack {
        return Err(ParityError::OtherPack);
    }
    let there = &there[..there.len().min(table.pack_bytes as usize)];
    let shard_bytes = table.shard_bytes as usize;
    let mut found: Vec<_> = shards(there, shard_bytes).map(Some).collect();
    found.resize(table.originals.len(), None);
    for (shard, hash) in found.iter_mut().zip(&table.originals) {
        if shard.as_ref().is_some_and(|shard| shard_hash(shard) != *hash) {
            *shard = None;
        }
    }
    let sound_parity = read.shards.iter().zip(&table.recovery).enumerate();
    let sound_parity = sound_parity.filter(|(_, (shard, hash))| shard_hash(shard) == **hash);
    let sound_parity: Vec<_> = sound_parity.map(|(at, (shard, _))| (at, *shard)).collect();
    let (lost, of) = (found.iter().filter(|shard| shard.is_none()).count() as u64, found.len() as u64);
    if lost > sound_parity.len() as u64 {
        return Err(ParityError::TooLittle { lost, of, sound: sound_parity.len() as u64 });
    }
    let mut bytes = Vec::with_capacity(found.len() * shard_bytes);
    if lost == 0 {
        found.iter().flatten().for_each(|shard| bytes.extend_from_slice(shard));
    } else {
        let mut decoder = ReedSolomonDecoder::new(found.len(), table.recovery.len(), shard_bytes)?;
        for (at, shard) in found.iter().enumerate().filter_map(|(at, shard)| Some((at, shard.as_ref()?))) {
            decoder.add_original_shard(at, shard)?;
        }
        for (at, shard) in sound_parity.iter().take(lost as usize) {
            decoder.add_recovery_shard(*at, shard)?;
        }
        let restored = decoder.decode()?;
        for (at, shard) in found.iter().enumerate() {
            match shard {
                Some(shard) => bytes.extend_from_slice(shard),
                None => {
                    bytes.extend_from_slice(restored.restored_original(at).ok_or(ParityError::NotThePack)?)
                }
            }
        }
    }
    bytes.truncate(table.pack_bytes as usize);
    if blake3::hash(&bytes).as_bytes() != pack.as_bytes() {
        return Err(ParityError::NotThePack);
    }
    Ok(Healed { kind: table.kind, bytes: bytes.into(), rebuilt: lost, shards: of })
}

/// A store that puts parity after every pack.
#[derive(Debug)]
pub struct ParityStore {
    inner: Arc<dyn Store>,
    share: Share,
}

impl ParityStore {
    pub fn new(inner: Arc<dyn Store>, share: Share) -> Self {
        Self { inner, share }
    }

    fn error(&self, name: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::new(StoreErrorKind::Other, "make parity of", name, self.inner.location(), cause)
    }
}

#[async_trait]
impl Store for ParityStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    /// The pack first: parity of a pack that is not there would be litter.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let Some((kind, hash)) = pack_of(name) else { return self.inner.put(name, bytes).await };
        self.inner.put(name, bytes.clone()).await?;
        let share = self.share;
        let made = tokio::task::spawn_blocking(move || make(kind, hash, &bytes, share)).await;
        let made = made.map_err(|cause| self.error(name, cause))?.map_err(|cause| self.error(name, cause))?;
        self.inner.put(&made.name, made.bytes).await
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.replace(name, bytes).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.inner.get(name).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::Kem;
    use crate::format::id::RepoId;

    fn pack(size: usize) -> (ObjectHash, Vec<u8>) {
        let mut bytes = Header::new(ObjectKind::Data, Kem::X25519, RepoId([1; 16]), 2, 0).encode();
        let mut filler = blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof();
        let front = bytes.len();
        bytes.resize(size.max(front), 0);
        filler.fill(&mut bytes[front..]);
        (ObjectHash(*blake3::hash(&bytes).as_bytes()), bytes)
    }

    fn share(text: &str) -> Share {
        Share::parse(text).unwrap()
    }

    #[test]
    fn as_much_as_the_share_may_be_lost_anywhere_and_not_one_shard_more() {
        let (hash, whole) = pack(1_000_000);
        let made = make(ObjectKind::Data, hash, &whole, share("5%")).unwrap();
        // 245 shards, 13 of them may go.
        for lost in [0, 1, 13, 14] {
            let mut damaged = whole.clone();
            (0..lost).for_each(|n| damaged[(n * 17 + 3) * 4096 + 5] ^= 0x80);
            let healed = heal(&hash, &damaged, &made.bytes);
            if lost <= 13 {
                let healed = healed.unwrap();
                assert_eq!(
                    (&healed.bytes[..], healed.rebuilt, healed.shards),
                    (&whole[..], lost as u64, 245)
                );
            } else {
                let expected = ParityError::TooLittle { lost: 14, of: 245, sound: 13 };
                assert_eq!(healed.unwrap_err(), expected);
            }
        }
    }

    #[test]
    fn a_cut_or_lengthened_pack_is_made_whole() {
        for size in [1, 64, 4095, 4096, 4097, 50_000] {
            let (hash, whole) = pack(size);
            let made = make(ObjectKind::Data, hash, &whole, share("10%")).unwrap();
            let cut = &whole[..whole.len() - whole.len().min(4000)];
            assert_eq!(heal(&hash, cut, &made.bytes).unwrap().bytes, whole, "{size}");
            let longer = [&whole[..], b"and more"].concat();
            assert_eq!(heal(&hash, &longer, &made.bytes).unwrap().bytes, whole, "{size}");
        }
    }

    #[test]
    fn a_whole_share_brings_back_a_pack_that_is_gone() {
        let (hash, whole) = pack(300_000);
        let made = make(ObjectKind::Data, hash, &whole, share("100%")).unwrap();
        assert_eq!(heal(&hash, &[], &made.bytes).unwrap().bytes, whole);
    }

    #[test]
    fn damaged_parity_helps_as_far_as_it_is_sound() {
        let (hash, whole) = pack(1_000_000);
        let made = make(ObjectKind::Data, hash, &whole, share("5%")).unwrap();
        let mut parity = made.bytes.to_vec();
        // Thirteen shards between two fronts and the length: cut off in the last shard, and the first front hit.
        let front = (parity.len() - 13 * 4096 - 8) / 2;
        parity[40] ^= 1;
        assert_eq!(
            heal(&hash, &whole[..900_000], &parity).unwrap_err(),
            heal(&hash, &whole[..900_000], &made.bytes).unwrap_err()
        );
        parity[40] ^= 1;
        parity.truncate(front + 13 * 4096 - 1);
        let mut damaged = whole.clone();
        (0..12).for_each(|n| damaged[n * 4096] ^= 1);
        assert_eq!(heal(&hash, &damaged, &parity).unwrap().bytes, whole);
        damaged[12 * 4096] ^= 1;
        assert!(matches!(heal(&hash, &damaged, &parity), Err(ParityError::TooLittle { sound: 12, .. })));
    }

    #[test]
    fn forged_parity_never_makes_other_bytes() {
        let (hash, whole) = pack(100_000);
        let (_, other) = pack(100_001);
        let forged = make(ObjectKind::Data, hash, &other, share("100%")).unwrap();
        assert_eq!(heal(&hash, &whole[..5000], &forged.bytes).unwrap_err(), ParityError::NotThePack);
        let (wrong, _) = pack(7);
        let made = make(ObjectKind::Data, hash, &whole, share("5%")).unwrap();
        assert_eq!(heal(&wrong, &whole, &made.bytes).unwrap_err(), ParityError::OtherPack);
    }
}
