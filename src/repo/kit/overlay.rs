//! A store over another one that supplies from a recovery kit what the other lost: config, keyring, roster, slots.
//!
//! Storage wins wherever its object is there and whole; the kit is only read. Nothing of the kit is written back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::format::signed::check_checksum;
use crate::store::{Listed, Store, StoreError};

/// See the module.
#[derive(Debug)]
pub struct KitStore {
    inner: Arc<dyn Store>,
    objects: BTreeMap<String, Bytes>,
}

impl KitStore {
    pub fn new(inner: Arc<dyn Store>, objects: BTreeMap<String, Bytes>) -> Self {
        Self { inner, objects }
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

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
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
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = self.inner.list(folder).await?;
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
