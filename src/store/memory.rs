//! Level 2: objects in this process' memory. For tests, demos and simulations; gone when the process ends.
//!
//! Two stores of one name share their objects, so a repository can be opened twice in one process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, Store, StoreError, StoreErrorKind, name};

type Objects = Mutex<BTreeMap<String, Bytes>>;

static NAMED: LazyLock<Mutex<HashMap<String, Arc<Objects>>>> = LazyLock::new(Mutex::default);

/// See the module's page.
#[derive(Clone)]
pub struct MemoryStore {
    location: String,
    settle: Duration,
    objects: Arc<Objects>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A map survives a panic of another holder whole: every change below is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStore {
    /// A store nobody else sees.
    pub fn new() -> Self {
        Self { location: "memory:".into(), settle: Duration::ZERO, objects: Arc::default() }
    }

    /// The process' store of this name, made when first asked for. The empty name is a new store every time.
    pub fn named(key: &str, settle: Duration) -> Self {
        let objects = if key.is_empty() {
            Arc::default()
        } else {
            lock(&NAMED).entry(key.to_owned()).or_default().clone()
        };
        Self { location: format!("memory:{key}"), settle, objects }
    }

    /// Every object as it is now: to compare, to damage or to copy a repository in tests.
    pub fn snapshot(&self) -> BTreeMap<String, Bytes> {
        lock(&self.objects).clone()
    }

    /// A new private store holding exactly these objects.
    pub fn from_snapshot(objects: BTreeMap<String, Bytes>) -> Self {
        Self { objects: Arc::new(Mutex::new(objects)), ..Self::new() }
    }

    /// Sets or replaces an object whatever was there: how a test damages one.
    pub fn overwrite(&self, name: &str, bytes: Bytes) {
        lock(&self.objects).insert(name.to_owned(), bytes);
    }

    fn error(&self, kind: StoreErrorKind, operation: &'static str, name: &str, cause: &str) -> StoreError {
        StoreError::new(kind, operation, name, &self.location, cause)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("location", &self.location).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn settle(&self) -> Duration {
        self.settle
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        name::check("write", name, &self.location)?;
        let mut objects = lock(&self.objects);
        match objects.get(name) {
            Some(there) if *there != bytes => {
                Err(self.error(StoreErrorKind::Conflict, "write", name, "exists with other bytes"))
            }
            Some(_) => Ok(()),
            None => {
                objects.insert(name.to_owned(), bytes);
                Ok(())
            }
        }
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        name::check("write", name, &self.location)?;
        lock(&self.objects).insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        name::check("read", name, &self.location)?;
        let found = lock(&self.objects).get(name).cloned();
        found.ok_or_else(|| self.error(StoreErrorKind::NotFound, "read", name, "no such object"))
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let whole = self.get(name).await?;
        match offset.checked_add(length) {
            Some(end) if end <= whole.len() as u64 => Ok(whole.slice(offset as usize..end as usize)),
            _ => {
                let cause = format!("has {} bytes, wanted {length} from {offset}", whole.len());
                Err(self.error(StoreErrorKind::Truncated, "read", name, &cause))
            }
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        name::check_folder(folder, &self.location)?;
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let objects = lock(&self.objects);
        let in_folder = objects.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        Ok(in_folder
            .filter(|(name, _)| !name[prefix.len()..].contains('/'))
            .map(|(name, bytes)| Listed { name: name.clone(), size_bytes: bytes.len() as u64 })
            .collect())
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        name::check("delete", name, &self.location)?;
        lock(&self.objects).remove(name);
        Ok(())
    }
}
