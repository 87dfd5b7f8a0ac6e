//! Level 2: bandwidth limits. One pacer per direction and store, shared by all operations under way.
//!
//! Bytes are booked ahead on one time line: whoever sends next waits until the line is free. So the average
//! holds whatever the number of operations, and a burst is never more than one piece per operation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The piece in which paced bytes travel.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// See the module's page. Clones share the line.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    free_at: Arc<Mutex<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        let bytes_per_second = bytes_per_second.map(|rate| rate.max(1));
        Self { bytes_per_second, free_at: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Books `bytes` on the line; they have had their time at the returned instant. `None` = no limit.
    pub(super) fn book(&self, bytes: usize) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + cost;
        Some(*free_at)
    }

    /// Waits until `bytes` have had their time.
    pub(super) async fn wait(&self, bytes: usize) {
        if let Some(instant) = self.book(bytes) {
            tokio::time::sleep_until(instant).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_all_who_share_the_line() {
        let pace = Pace::new(Some(1 << 20));
        let begin = Instant::now();
        let tasks = (0..4).map(|_| {
            let pace = pace.clone();
            async move {
                for _ in 0..16 {
                    pace.wait(PIECE_BYTES).await;
                }
            }
        });
        futures::future::join_all(tasks).await;
        let seconds = begin.elapsed().as_secs_f64();
        assert!((3.99..4.1).contains(&seconds), "4 MiB at 1 MiB/s took {seconds} s");
        assert!(Pace::new(None).book(1 << 40).is_none());
    }
}
