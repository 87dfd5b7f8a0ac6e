//! What a restore did, and what it could not do. Added to by many threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::EngineError;

/// Problems kept by name; beyond that they are only counted.
const NAMED_LIMIT: usize = 20_000;

/// One path and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Relative to the target, components joined by 0x00; empty for the target itself or the snapshot as a whole.
    pub key: Vec<u8>,
    pub message: String,
}

/// Problems of one kind: the first by name, all by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    pub count: u64,
    pub named: Vec<Problem>,
}

impl Problems {
    pub(super) fn add(&mut self, key: &[u8], message: String) {
        self.count += 1;
        if self.named.len() < NAMED_LIMIT {
            self.named.push(Problem { key: key.to_vec(), message });
        }
    }
}

/// A partial success is a value.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Regular files that are now what the snapshot says, hard links and unchanged ones included.
    pub files: u64,
    pub directories: u64,
    /// Links, FIFOs, sockets and devices.
    pub others: u64,
    pub hardlinks: u64,
    /// Of `files`: their content was right already.
    pub unchanged: u64,
    /// Left alone because of the overwrite rule.
    pub skipped: u64,
    pub deleted: u64,
    /// Content bytes of `files`.
    pub bytes: u64,
    /// Content bytes that came from the repository.
    pub fetched_bytes: u64,
    /// Files read back and found right.
    pub verified: u64,
    /// What stored data being wrong or gone costs: these are not restored. Exit code 20.
    pub damaged: Problems,
    /// Could not be written, or were not what they should be when read back.
    pub failed: Problems,
    /// Restored, but an attribute could not be set.
    pub attributes: Problems,
    /// Owners that only root could have set; not counted as problems when the restore does not run as root.
    pub owners_not_set: u64,
}

impl Outcome {
    /// Whether stored data or restored data is wrong.
    pub fn is_damaged(&self) -> bool {
        self.damaged.count > 0
    }
}

#[derive(Default)]
struct Inner {
    outcome: Outcome,
    fatal: Option<EngineError>,
    /// Keys that are not there although they were wanted: nothing may be linked to them.
    lost: HashSet<Vec<u8>>,
    tree_damaged: bool,
}

/// The outcome while it grows.
#[derive(Default)]
pub(super) struct Report {
    pub(super) stop: AtomicBool,
    inner: Mutex<Inner>,
}

impl Report {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.lock().outcome);
    }

    pub(super) fn damaged(&self, key: &[u8], message: String) {
        let mut inner = self.lock();
        inner.lost.insert(key.to_vec());
        inner.outcome.damaged.add(key, message);
    }

    pub(super) fn failed(&self, key: &[u8], message: String) {
        let mut inner = self.lock();
        inner.lost.insert(key.to_vec());
        inner.outcome.failed.add(key, message);
    }

    /// Part of the tree cannot be read: what was in it is lost without a name.
    pub(super) fn lost_page(&self, after: &[u8], message: String) {
        let mut inner = self.lock();
        inner.tree_damaged = true;
        let message = format!("entries that follow this path are lost: {message}");
        inner.outcome.damaged.add(after, message);
    }

    pub(super) fn tree_is_damaged(&self) -> bool {
        self.lock().tree_damaged
    }

    pub(super) fn is_lost(&self, key: &[u8]) -> bool {
        self.lock().lost.contains(key)
    }

    /// Stops the whole restore; the first reason is kept.
    pub(super) fn stop_with(&self, error: EngineError) {
        self.lock().fatal.get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<(), EngineError> {
        if !self.is_stopped() {
            return Ok(());
        }
        self.lock().fatal.take().map_or(Ok(()), Err)
    }

    pub(super) fn take(&self) -> Outcome {
        let mut outcome = std::mem::take(&mut self.lock().outcome);
        for problems in [&mut outcome.damaged, &mut outcome.failed, &mut outcome.attributes] {
            problems.named.sort_by(|a, b| a.key.cmp(&b.key));
        }
        outcome
    }
}
