//! Level 2: a store that counts what is asked of it: for tests of cost ("reads each pack once") and reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, Store, StoreError};

/// Operations begun and bytes moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub puts: u64,
    pub gets: u64,
    pub ranges: u64,
    pub lists: u64,
    pub deletes: u64,
    pub uploaded_bytes: u64,
    pub downloaded_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    ranges: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    uploaded_bytes: AtomicU64,
    downloaded_bytes: AtomicU64,
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct CountingStore {
    inner: Arc<dyn Store>,
    counters: Arc<Counters>,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl CountingStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counters: Arc::default() }
    }

    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        Counts {
            puts: read(&c.puts),
            gets: read(&c.gets),
            ranges: read(&c.ranges),
            lists: read(&c.lists),
            deletes: read(&c.deletes),
            uploaded_bytes: read(&c.uploaded_bytes),
            downloaded_bytes: read(&c.downloaded_bytes),
        }
    }
}

#[async_trait]
impl Store for CountingStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        add(&self.counters.puts, 1);
        let size = bytes.len();
        self.inner.put(name, bytes).await?;
        add(&self.counters.uploaded_bytes, size);
        Ok(())
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        add(&self.counters.puts, 1);
        let size = bytes.len();
        self.inner.replace(name, bytes).await?;
        add(&self.counters.uploaded_bytes, size);
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        add(&self.counters.gets, 1);
        let bytes = self.inner.get(name).await?;
        add(&self.counters.downloaded_bytes, bytes.len());
        Ok(bytes)
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        add(&self.counters.ranges, 1);
        let bytes = self.inner.get_range(name, offset, length).await?;
        add(&self.counters.downloaded_bytes, bytes.len());
        Ok(bytes)
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        add(&self.counters.lists, 1);
        self.inner.list(folder).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        add(&self.counters.deletes, 1);
        self.inner.delete(name).await
    }
}
