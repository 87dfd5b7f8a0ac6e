//! A store over another one that supplies from a recovery kit what the other lost: config, keyring, roster, slots.
//!
//! Storage wins wherever its object is there and whole; the kit is only read. Nothing of the kit is written back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::format::signed::check_checksum;
use crate::store::{Listed, Store, StoreError, StoreErrorKind};

/// See the module.
#[derive(Debug)]
pub struct KitStore {
    inner: Arc<dyn Store>,
    objects: BTreeMap<String, Bytes>,
    /// Folders of which the inner store is not asked.
    hidden: Vec<&'static str>,
}

impl KitStore {
    pub fn new(inner: Arc<dyn Store>, objects: BTreeMap<String, Bytes>) -> Self {
        Self { inner, objects, hidden: Vec::new() }
    }

    /// Of these folders there is what the kit holds and nothing else.
    pub fn alone(
        inner: Arc<dyn Store>,
        objects: BTreeMap<String, Bytes>,
        hidden: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        Self { inner, objects, hidden: hidden.into_iter().collect() }
    }

    fn is_hidden(&self, name: &str) -> bool {
        let folder = name.rsplit_once('/').map_or(name, |(folder, _)| folder);
        self.hidden.contains(&folder)
    }

    fn hidden(&self, name: &str) -> Result<Bytes, StoreError> {
        self.objects.get(name).cloned().ok_or_else(|| {
            let kind = StoreErrorKind::NotFound;
            StoreError::new(kind, "read", name, self.inner.location(), "the recovery kit does not hold it")
        })
    }
}

#[async_trait]
impl Store for KitStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(name, bytes).await
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.replace(name, bytes).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        if self.is_hidden(name) {
            return self.hidden(name);
        }
        let result = self.inner.get(name).await;
        let Some(kept) = self.objects.get(name) else { return result };
        match result {
            Ok(bytes) if check_checksum(&bytes).is_ok() => Ok(bytes),
            Ok(_) => Ok(kept.clone()),
            Err(error) if error.is_not_found() => Ok(kept.clone()),
            Err(error) => Err(error),
        }
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        if self.is_hidden(name) {
            let bytes = self.hidden(name)?;
            let end = offset.checked_add(length).and_then(|end| usize::try_from(end).ok());
            let range = end.filter(|end| *end <= bytes.len()).map(|end| offset as usize..end);
            return range.map(|range| bytes.slice(range)).ok_or_else(|| {
                let kind = StoreErrorKind::Truncated;
                StoreError::new(kind, "read", name, self.inner.location(), "the object is shorter")
            });
        }
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = match self.hidden.contains(&folder) {
            true => Vec::new(),
            false => self.inner.list(folder).await?,
        };
        for (name, bytes) in &self.objects {
            let inside = name.rsplit_once('/').is_some_and(|(parent, _)| parent == folder);
            if inside && !listed.iter().any(|other| other.name == *name) {
                listed.push(Listed { name: name.clone(), size_bytes: bytes.len() as u64 });
            }
        }
        listed.sort();
        Ok(listed)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
}
