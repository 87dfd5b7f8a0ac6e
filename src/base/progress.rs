//! How far a verb has come: counters that workers add to and a front end looks at.
//!
//! Nothing here prints. Workers on many threads report deltas, which cost an atomic addition each; whoever shows
//! them takes a [`Reading`] as often as it likes. Progress is advice for people: no result depends on it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an engine verb tells about its way. Every call is cheap and may come from any thread.
pub trait Progress: Send + Sync {
    /// A new phase begins, named by a verb form (`scanning`, `storing`); all counters start again from zero.
    fn phase(&self, name: &'static str);
    /// More work became known. A phase whose total stays zero is shown without an estimate.
    fn add_total(&self, bytes: u64, files: u64);
    /// Work was done.
    fn add_done(&self, bytes: u64, files: u64);
    /// What is being worked on now. May be dropped when others report at the same moment.
    fn current(&self, item: &str);
}

/// For callers that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn phase(&self, _name: &'static str) {}
    fn add_total(&self, _bytes: u64, _files: u64) {}
    fn add_done(&self, _bytes: u64, _files: u64) {}
    fn current(&self, _item: &str) {}
}

/// Counters to be shared between the workers and whoever shows them.
#[derive(Debug, Default)]
pub struct Counters {
    total_bytes: AtomicU64,
    total_files: AtomicU64,
    done_bytes: AtomicU64,
    done_files: AtomicU64,
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    phase: &'static str,
    /// Counts phases, so that a watcher sees a phase that was repeated under the same name.
    phase_number: u64,
    item: String,
}

/// The counters at one moment. Not a consistent cut: `done` may run ahead of `total` by what is in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Empty before the first phase.
    pub phase: &'static str,
    /// How many phases have begun.
    pub phase_number: u64,
    pub total_bytes: u64,
    pub total_files: u64,
    pub done_bytes: u64,
    pub done_files: u64,
    /// As the worker named it: may hold control characters.
    pub item: String,
}

impl Counters {
    /// All zero, before any phase.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at everything.
    pub fn read(&self) -> Reading {
        // The words are replaced whole, so a panic elsewhere cannot have left them half-written.
        let words = self.words.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Reading {
            phase: words.phase,
            phase_number: words.phase_number,
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            total_files: self.total_files.load(Ordering::Relaxed),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            done_files: self.done_files.load(Ordering::Relaxed),
            item: words.item.clone(),
        }
    }
}

impl Progress for Counters {
    fn phase(&self, name: &'static str) {
        let mut words = self.words.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        words.phase = name;
        words.phase_number += 1;
        words.item.clear();
        for counter in [&self.total_bytes, &self.total_files, &self.done_bytes, &self.done_files] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn add_total(&self, bytes: u64, files: u64) {
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total_files.fetch_add(files, Ordering::Relaxed);
    }

    fn add_done(&self, bytes: u64, files: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.done_files.fetch_add(files, Ordering::Relaxed);
    }

    fn current(&self, item: &str) {
        // Workers never wait for each other, or for a watcher, only to say where they are.
        if let Ok(mut words) = self.words.try_lock() {
            words.item.clear();
            words.item.push_str(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_from_many_threads_add_up() {
        let counters = Counters::new();
        counters.phase("storing");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.add_total(3, 1);
                        counters.add_done(2, 1);
                        counters.current("a");
                    }
                });
            }
        });
        let reading = counters.read();
        assert_eq!((reading.total_bytes, reading.total_files), (12_000, 4000));
        assert_eq!((reading.done_bytes, reading.done_files), (8000, 4000));
        assert_eq!(reading.item, "a");
    }

    #[test]
    fn a_new_phase_starts_from_zero() {
        let counters = Counters::new();
        counters.phase("scanning");
        counters.add_done(5, 5);
        counters.current("x");
        counters.phase("storing");
        assert_eq!(counters.read(), Reading { phase: "storing", phase_number: 2, ..Reading::default() });
    }
}
