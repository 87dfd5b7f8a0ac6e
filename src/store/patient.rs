//! Level 2: a store whose reads are tried again as those of a service are. For what injects faults above the layer
//! that has its own retries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::retry::Tries;
use super::{Listed, Store, StoreError, StoreOptions};

/// See the module's page.
#[derive(Debug)]
pub struct PatientStore {
    inner: Arc<dyn Store>,
    tries: Tries,
}

impl PatientStore {
    pub fn new(inner: Arc<dyn Store>, options: &StoreOptions) -> Self {
        let tries = Tries::new(inner.location(), options, options.max_concurrent);
        Self { inner, tries }
    }
}

#[async_trait]
impl Store for PatientStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let size_bytes = bytes.len() as u64;
        self.tries.run("write", name, size_bytes, || self.inner.put(name, bytes.clone())).await
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let size_bytes = bytes.len() as u64;
        self.tries.run("write", name, size_bytes, || self.inner.replace(name, bytes.clone())).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.tries.run("read", name, 0, || self.inner.get(name)).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.tries.run("read", name, length, || self.inner.get_range(name, offset, length)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.tries.run("list", folder, 0, || self.inner.list(folder)).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.tries.run("delete", name, 0, || self.inner.delete(name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{FaultPlan, FaultStore};
    use super::super::memory::MemoryStore;
    use super::*;

    async fn reads(plan: FaultPlan) -> usize {
        let memory = MemoryStore::new();
        for n in 0..40 {
            memory.put(&format!("data/{n:02}"), Bytes::from_static(b"x")).await.unwrap();
        }
        let options = StoreOptions { timeout: Duration::from_secs(1), ..StoreOptions::default() };
        let store = PatientStore::new(Arc::new(FaultStore::new(Arc::new(memory), plan)), &options);
        let mut read = 0;
        for n in 0..40 {
            read += usize::from(store.get(&format!("data/{n:02}")).await.is_ok());
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_silence_that_pass_are_outlasted() {
        assert_eq!(reads(FaultPlan { read_error_permille: 200, ..Default::default() }).await, 40);
        let silence = Duration::from_secs(1);
        assert_eq!(reads(FaultPlan { silent_permille: 200, silence, ..Default::default() }).await, 40);
        assert_eq!(reads(FaultPlan { read_error_permille: 1000, ..Default::default() }).await, 0);
        assert_eq!(reads(FaultPlan { silent_permille: 1000, silence, ..Default::default() }).await, 0);
    }
}
