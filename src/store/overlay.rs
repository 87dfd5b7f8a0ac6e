//! Level 2: a store as it would look after a loss, over one that is whole and stays so. For drills.
//!
//! What is missing, cut off or flipped is so for this view only: nothing is ever written to the store below, and a
//! write through the overlay is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Listed, Store, StoreError, StoreErrorKind};

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wound {
    Missing,
    /// Only its first bytes are left.
    Truncated {
        left_bytes: u64,
    },
    /// One bit is the other way round in the byte at each of these offsets.
    Flipped {
        offsets: Vec<u64>,
    },
}

/// What became of the storage.
#[derive(Clone, Debug, Default)]
pub struct Loss {
    pub objects: BTreeMap<String, Wound>,
    /// Folders of which nothing is left.
    pub folders: BTreeSet<String>,
    /// Folders of which about half of the objects is gone; which half depends on this seed and their names.
    pub halved: Option<(u64, BTreeSet<String>)>,
    /// Nothing answers at all.
    pub unreachable: bool,
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct OverlayStore {
    inner: Arc<dyn Store>,
    loss: Arc<Loss>,
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl OverlayStore {
    pub fn new(inner: Arc<dyn Store>, loss: Loss) -> Self {
        Self { inner, loss: Arc::new(loss) }
    }

    fn error(&self, kind: StoreErrorKind, operation: &'static str, name: &str, cause: &str) -> StoreError {
        StoreError::new(kind, operation, name, self.inner.location(), format!("injected: {cause}"))
    }

    fn reach(&self, operation: &'static str, name: &str) -> Result<(), StoreError> {
        match self.loss.unreachable {
            true => Err(self.error(StoreErrorKind::Other, operation, name, "the storage is gone")),
            false => Ok(()),
        }
    }

    fn is_gone(&self, name: &str) -> bool {
        let folder = folder_of(name);
        let halved = |(seed, folders): &(u64, BTreeSet<String>)| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
            folders.contains(folder) && hasher.finalize().as_bytes()[0] & 1 == 1
        };
        self.loss.folders.contains(folder)
            || self.loss.objects.get(name) == Some(&Wound::Missing)
            || self.loss.halved.as_ref().is_some_and(halved)
    }

    fn present(&self, name: &str) -> Result<(), StoreError> {
        self.reach("read", name)?;
        match self.is_gone(name) {
            true => Err(self.error(StoreErrorKind::NotFound, "read", name, "the object is missing")),
            false => Ok(()),
        }
    }

    fn refuse(&self, operation: &'static str, name: &str) -> StoreError {
        self.error(StoreErrorKind::Denied, operation, name, "a drill writes nothing")
    }
}

/// Flips what lies in `bytes`, which begin at `from` in their object.
fn flip(bytes: Bytes, from: u64, offsets: &[u64]) -> Bytes {
    let inside = |offset: &u64| offset.checked_sub(from).filter(|at| *at < bytes.len() as u64);
    let hit: Vec<u64> = offsets.iter().filter_map(inside).collect();
    if hit.is_empty() {
        return bytes;
    }
    let mut changed = BytesMut::from(&bytes[..]);
    for at in hit {
        changed[at as usize] ^= 1 << (at % 8);
    }
    changed.freeze()
}

#[async_trait]
impl Store for OverlayStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    async fn put(&self, name: &str, _: Bytes) -> Result<(), StoreError> {
        Err(self.refuse("write", name))
    }

    async fn replace(&self, name: &str, _: Bytes) -> Result<(), StoreError> {
        Err(self.refuse("write", name))
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.present(name)?;
        let bytes = self.inner.get(name).await?;
        Ok(match self.loss.objects.get(name) {
            Some(Wound::Truncated { left_bytes }) => bytes.slice(..bytes.len().min(*left_bytes as usize)),
            Some(Wound::Flipped { offsets }) => flip(bytes, 0, offsets),
            _ => bytes,
        })
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.present(name)?;
        match self.loss.objects.get(name) {
            Some(Wound::Truncated { left_bytes }) if offset.saturating_add(length) > *left_bytes => {
                Err(self.error(StoreErrorKind::Truncated, "read", name, "the object ends before"))
            }
            Some(Wound::Flipped { offsets }) => {
                Ok(flip(self.inner.get_range(name, offset, length).await?, offset, offsets))
            }
            _ => self.inner.get_range(name, offset, length).await,
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.reach("list", folder)?;
        let mut listed = self.inner.list(folder).await?;
        listed.retain(|object| !self.is_gone(&object.name));
        for object in &mut listed {
            if let Some(Wound::Truncated { left_bytes }) = self.loss.objects.get(&object.name) {
                object.size_bytes = object.size_bytes.min(*left_bytes);
            }
        }
        Ok(listed)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        Err(self.refuse("delete", name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    async fn over(loss: Loss) -> (MemoryStore, OverlayStore) {
        let memory = MemoryStore::new();
        for n in 0..32 {
            memory.put(&format!("data/{n:02}"), Bytes::from(vec![0; 100])).await.unwrap();
        }
        (memory.clone(), OverlayStore::new(Arc::new(memory), loss))
    }

    #[tokio::test]
    async fn a_loss_shows_in_reads_and_listings_and_leaves_the_store_below_whole() {
        let wounds = [
            ("data/00", Wound::Missing),
            ("data/01", Wound::Truncated { left_bytes: 40 }),
            ("data/02", Wound::Flipped { offsets: vec![7, 50] }),
        ];
        let objects = wounds.map(|(name, wound)| (name.to_owned(), wound)).into();
        let (memory, store) = over(Loss { objects, ..Loss::default() }).await;
        assert!(store.get("data/00").await.unwrap_err().is_not_found());
        assert!(store.get_range("data/00", 0, 1).await.unwrap_err().is_not_found());
        assert_eq!(store.get("data/01").await.unwrap().len(), 40);
        assert_eq!(store.get_range("data/01", 30, 20).await.unwrap_err().kind, StoreErrorKind::Truncated);
        assert_eq!(store.get_range("data/01", 30, 10).await.unwrap().len(), 10);
        let ones = |bytes: Bytes| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(ones(store.get("data/02").await.unwrap()), 2);
        assert_eq!(ones(store.get_range("data/02", 50, 1).await.unwrap()), 1);
        assert_eq!(ones(store.get_range("data/02", 8, 42).await.unwrap()), 0);
        let listed = store.list("data").await.unwrap();
        assert_eq!((listed.len(), listed[0].size_bytes), (31, 40));
        assert_eq!(store.put("data/xx", Bytes::new()).await.unwrap_err().kind, StoreErrorKind::Denied);
        assert_eq!(store.delete("data/05").await.unwrap_err().kind, StoreErrorKind::Denied);
        assert_eq!(memory.snapshot().len(), 32);
    }

    #[tokio::test]
    async fn half_is_about_half_and_gone_is_gone() {
        let halved = Some((7, BTreeSet::from(["data".to_owned()])));
        let (_, store) = over(Loss { halved, ..Loss::default() }).await;
        assert!((8..24).contains(&store.list("data").await.unwrap().len()));
        let folders = BTreeSet::from(["data".to_owned()]);
        let (_, store) = over(Loss { folders, ..Loss::default() }).await;
        assert!(store.list("data").await.unwrap().is_empty());
        let (_, store) = over(Loss { unreachable: true, ..Loss::default() }).await;
        assert!(!store.get("data/09").await.unwrap_err().is_not_found() && store.list("data").await.is_err());
    }
}
