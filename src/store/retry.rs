//! Level 2: one policy for every operation on a service: so many at once, each try bounded in time, temporary
//! errors tried again after a growing, random pause, and then given up.
//!
//! Repeating is safe because every operation is: objects are written once and whole, so a put whose answer
//! was lost is put again with the same bytes, and a delete of what is gone is done.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{StoreError, StoreErrorKind, StoreOptions};

const MAX_PAUSE: Duration = Duration::from_secs(30);

/// See the module's page.
#[derive(Debug)]
pub(super) struct Tries {
    location: String,
    options: StoreOptions,
    permits: Semaphore,
}

impl Tries {
    pub(super) fn new(location: String, options: &StoreOptions, max_concurrent: usize) -> Self {
        Self { location, options: options.clone(), permits: Semaphore::new(max_concurrent.max(1)) }
    }

    /// Runs `attempt` until it ends other than by a temporary error, or the retries are used up.
    pub(super) async fn run<T, F>(
        &self,
        operation: &'static str,
        subject: &str,
        bytes: u64,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let allowance = self.options.allowance(bytes);
        let mut tried = 0;
        loop {
            let permit = self.permits.acquire().await;
            let result = match tokio::time::timeout(allowance, attempt()).await {
                Ok(result) => result,
                Err(_) => {
                    let cause = format!("no answer within {} s", allowance.as_secs());
                    Err(StoreError::new(StoreErrorKind::Temporary, operation, subject, &self.location, cause))
                }
            };
            drop(permit);
            match result {
                Err(e) if e.kind == StoreErrorKind::Temporary && tried < self.options.max_retries => {
                    let pause = self.pause(tried);
                    tried += 1;
                    tracing::debug!(operation, subject, cause = %e.cause, ?pause, "trying again");
                    tokio::time::sleep(pause).await;
                }
                other => return other,
            }
        }
    }

    /// Doubling, with as much again at random so that many clients do not come back at the same moment.
    fn pause(&self, tried: u32) -> Duration {
        let base = self.options.retry_delay.saturating_mul(1 << tried.min(16)).min(MAX_PAUSE / 2);
        let mut random = [0; 4];
        // Without randomness the pause is merely regular.
        let _ = getrandom::fill(&mut random);
        base + base.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn tries_of(kind: StoreErrorKind) -> u32 {
        let options = StoreOptions { max_retries: 3, ..Default::default() };
        let tries = Tries::new("nowhere".into(), &options, 2);
        let count = AtomicU32::new(0);
        let result: Result<(), _> = tries
            .run("read", "x", 0, || async {
                count.fetch_add(1, Ordering::Relaxed);
                Err(StoreError::new(kind, "read", "x", "nowhere", "no"))
            })
            .await;
        assert_eq!(result.unwrap_err().kind, kind);
        count.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn only_temporary_errors_are_tried_again_and_not_for_ever() {
        assert_eq!(tries_of(StoreErrorKind::Temporary).await, 4);
        for kind in
            [StoreErrorKind::NotFound, StoreErrorKind::Denied, StoreErrorKind::Full, StoreErrorKind::Other]
        {
            assert_eq!(tries_of(kind).await, 1, "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_hangs_is_given_up() {
        let options = StoreOptions { max_retries: 1, ..Default::default() };
        let tries = Tries::new("nowhere".into(), &options, 2);
        let result: Result<(), _> = tries.run("read", "x", 1 << 20, std::future::pending).await;
        assert_eq!(result.unwrap_err().kind, StoreErrorKind::Temporary);
    }
}
