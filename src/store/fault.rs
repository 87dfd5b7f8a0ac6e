//! Level 2: a store that fails on purpose, the same way for the same seed. For tests and drills.
//!
//! Whether an operation fails depends on the seed, the kind of operation, the name and how often that pair
//! came before, and not on how threads interleave: a failing run can be repeated from its seed alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Listed, Store, StoreError, StoreErrorKind};

/// What the last write does when the store dies at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastWrite {
    /// Nothing of it arrives.
    #[default]
    Lost,
    /// It arrives whole, but the caller sees an error.
    Landed,
    /// A put leaves its first half under its name (a service that breaks its word); a delete is lost.
    Torn,
}

/// What goes wrong and how often. Chances are in 1/1000 of the operations of their kind; all 0 by default.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    pub seed: u64,
    /// A put or delete that never reaches the inner store.
    pub write_lost_permille: u32,
    /// A put or delete that is done and reported as failed: its outcome is unknown to the caller.
    pub write_unacknowledged_permille: u32,
    /// A put that leaves half its bytes under its name and fails.
    pub write_torn_permille: u32,
    pub read_error_permille: u32,
    pub list_error_permille: u32,
    /// One bit of what is read comes back flipped.
    pub read_flip_permille: u32,
    /// A read or listing that is not answered: given up after `silence`.
    pub silent_permille: u32,
    pub silence: Duration,
    /// Every operation waits up to this long, by seed.
    pub max_latency: Duration,
    /// What is read arrives no faster than this, each operation for itself.
    pub read_bytes_per_second: Option<u64>,
    /// This many puts and deletes reach the store; at the next one it dies, and everything after fails.
    pub die_after_writes: Option<u64>,
    pub last_write: LastWrite,
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    plan: FaultPlan,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    writes: AtomicU64,
    dead: AtomicBool,
    /// How often each (kind, name) was met.
    met: Mutex<HashMap<(&'static str, String), u64>>,
}

/// The fate of one put or delete.
enum Fate {
    Done,
    Lost,
    Unacknowledged,
    Torn,
}

impl FaultStore {
    pub fn new(inner: Arc<dyn Store>, plan: FaultPlan) -> Self {
        Self { inner, plan, shared: Arc::default() }
    }

    /// Makes every later operation fail, as a killed process or a pulled cable would.
    pub fn die(&self) {
        self.shared.dead.store(true, Ordering::SeqCst);
    }

    pub fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::SeqCst)
    }

    /// How many puts and deletes were begun: the number of places a run can be cut at.
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::SeqCst)
    }

    fn error(&self, operation: &'static str, name: &str, cause: &str) -> StoreError {
        let kind = if self.is_dead() { StoreErrorKind::Other } else { StoreErrorKind::Temporary };
        StoreError::new(kind, operation, name, self.inner.location(), format!("injected: {cause}"))
    }

    /// Random bytes that belong to this operation only.
    fn dice(&self, kind: &'static str, name: &str) -> Dice {
        let mut met = self.shared.met.lock().unwrap_or_else(PoisonError::into_inner);
        let count = met.entry((kind, name.to_owned())).or_default();
        *count += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.plan.seed.to_le_bytes()).update(&count.to_le_bytes());
        hasher.update(kind.as_bytes()).update(b"\0").update(name.as_bytes());
        Dice(hasher.finalize_xof())
    }

    async fn begin(&self, kind: &'static str, name: &str) -> Result<Dice, StoreError> {
        let mut dice = self.dice(kind, name);
        if !self.plan.max_latency.is_zero() {
            tokio::time::sleep(self.plan.max_latency.mul_f64(dice.fraction())).await;
        }
        if self.is_dead() {
            return Err(self.error(kind, name, "the store is dead"));
        }
        Ok(dice)
    }

    fn fate(&self, dice: &mut Dice) -> Fate {
        let nth = self.shared.writes.fetch_add(1, Ordering::SeqCst);
        if self.plan.die_after_writes.is_some_and(|allowed| nth >= allowed) {
            if self.shared.dead.swap(true, Ordering::SeqCst) {
                return Fate::Lost;
            }
            return match self.plan.last_write {
                LastWrite::Lost => Fate::Lost,
                LastWrite::Landed => Fate::Unacknowledged,
                LastWrite::Torn => Fate::Torn,
            };
        }
        if dice.hits(self.plan.write_lost_permille) {
            Fate::Lost
        } else if dice.hits(self.plan.write_unacknowledged_permille) {
            Fate::Unacknowledged
        } else if dice.hits(self.plan.write_torn_permille) {
            Fate::Torn
        } else {
            Fate::Done
        }
    }

    /// What may become of a read or listing before it reaches the store.
    async fn ask(
        &self,
        dice: &mut Dice,
        kind: &'static str,
        name: &str,
        permille: u32,
    ) -> Result<(), StoreError> {
        if dice.hits(permille) {
            return Err(self.error(kind, name, "failed"));
        }
        if self.plan.silent_permille > 0 && dice.hits(self.plan.silent_permille) {
            tokio::time::sleep(self.plan.silence).await;
            return Err(self.error(kind, name, "no answer"));
        }
        Ok(())
    }

    async fn arrive(&self, bytes: &Bytes) {
        if let Some(rate) = self.plan.read_bytes_per_second {
            let seconds = bytes.len() as f64 / rate.max(1) as f64;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
    }

    fn flip(&self, dice: &mut Dice, bytes: Bytes) -> Bytes {
        if bytes.is_empty() || !dice.hits(self.plan.read_flip_permille) {
            return bytes;
        }
        let bit = (dice.fraction() * (bytes.len() * 8) as f64) as usize;
        let mut changed = BytesMut::from(&bytes[..]);
        changed[bit / 8] ^= 1 << (bit % 8);
        changed.freeze()
    }

    async fn write(&self, name: &str, bytes: Bytes, replaces: bool) -> Result<(), StoreError> {
        let mut dice = self.begin("write", name).await?;
        let put = async |bytes| match replaces {
            true => self.inner.replace(name, bytes).await,
            false => self.inner.put(name, bytes).await,
        };
        match self.fate(&mut dice) {
            Fate::Done => put(bytes).await,
            Fate::Lost => Err(self.error("write", name, "never arrived")),
            Fate::Unacknowledged => {
                put(bytes).await?;
                Err(self.error("write", name, "arrived, but the answer was lost"))
            }
            Fate::Torn => {
                put(bytes.slice(..bytes.len() / 2)).await?;
                Err(self.error("write", name, "torn in the middle"))
            }
        }
    }
}

struct Dice(blake3::OutputReader);

impl Dice {
    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn hits(&mut self, permille: u32) -> bool {
        // Drawn even when it cannot hit, so that changing one chance leaves the others' outcomes alone.
        self.next() % 1000 < u64::from(permille)
    }

    /// In [0, 1).
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[async_trait]
impl Store for FaultStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(name, bytes, false).await
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(name, bytes, true).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let mut dice = self.begin("read", name).await?;
        self.ask(&mut dice, "read", name, self.plan.read_error_permille).await?;
        let bytes = self.inner.get(name).await?;
        self.arrive(&bytes).await;
        Ok(self.flip(&mut dice, bytes))
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let mut dice = self.begin("read", name).await?;
        self.ask(&mut dice, "read", name, self.plan.read_error_permille).await?;
        let bytes = self.inner.get_range(name, offset, length).await?;
        self.arrive(&bytes).await;
        Ok(self.flip(&mut dice, bytes))
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let mut dice = self.begin("list", folder).await?;
        self.ask(&mut dice, "list", folder, self.plan.list_error_permille).await?;
        self.inner.list(folder).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let mut dice = self.begin("delete", name).await?;
        match self.fate(&mut dice) {
            Fate::Done => self.inner.delete(name).await,
            Fate::Lost | Fate::Torn => Err(self.error("delete", name, "never arrived")),
            Fate::Unacknowledged => {
                self.inner.delete(name).await?;
                Err(self.error("delete", name, "arrived, but the answer was lost"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    async fn outcomes(seed: u64) -> Vec<bool> {
        let plan =
            FaultPlan { seed, write_lost_permille: 300, read_error_permille: 300, ..Default::default() };
        let store = FaultStore::new(Arc::new(MemoryStore::new()), plan);
        let mut seen = Vec::new();
        for n in 0..50 {
            let name = format!("data/{n:02x}");
            seen.push(store.put(&name, Bytes::from_static(b"x")).await.is_ok());
            seen.push(store.get(&name).await.is_ok());
        }
        seen
    }

    #[tokio::test]
    async fn the_same_seed_fails_the_same_way() {
        assert_eq!(outcomes(7).await, outcomes(7).await);
        assert_ne!(outcomes(7).await, outcomes(8).await);
        assert!(outcomes(7).await.contains(&false));
    }

    #[tokio::test]
    async fn after_its_last_write_nothing_works() {
        for (last_write, visible) in [(LastWrite::Lost, 2), (LastWrite::Landed, 3), (LastWrite::Torn, 3)] {
            let memory = MemoryStore::new();
            let plan = FaultPlan { die_after_writes: Some(2), last_write, ..Default::default() };
            let store = FaultStore::new(Arc::new(memory.clone()), plan);
            let mut done = 0;
            for name in ["a", "b", "c", "d"] {
                done += usize::from(store.put(name, Bytes::from_static(b"1234")).await.is_ok());
            }
            assert_eq!((done, memory.snapshot().len()), (2, visible), "{last_write:?}");
            assert!(store.is_dead() && store.get("a").await.is_err() && store.list("").await.is_err());
            assert!(!store.get("zz").await.unwrap_err().is_not_found());
        }
    }

    #[tokio::test]
    async fn a_flip_changes_exactly_one_bit() {
        let memory = MemoryStore::new();
        memory.put("a", Bytes::from(vec![0; 100])).await.unwrap();
        let store =
            FaultStore::new(Arc::new(memory), FaultPlan { read_flip_permille: 1000, ..Default::default() });
        let bits: u32 = store.get("a").await.unwrap().iter().map(|b| b.count_ones()).sum();
        assert_eq!(bits, 1);
    }
}
