//! Time as a parameter: the instant of day for what is recorded, a monotonic reading for what is waited for.
//!
//! Nothing below the composition root asks the machine for the time; it is handed a [`Clock`]. The protocol's
//! waits use [`Clock::elapsed`] only: the time of day may jump, and the clocks of two hosts are never compared.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day. May jump in either direction between two calls.
    fn now(&self) -> Timestamp;
    /// Time since the clock was made. Never goes backwards; time spent suspended may be missing, so a wait
    /// measured by it is at least as long as asked for.
    fn elapsed(&self) -> Duration;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic reading starts at zero now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until it is told to move: tests, models and simulations are repeatable by it.
#[derive(Debug)]
pub struct ManualClock {
    reading: Mutex<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    now: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// Stands at `now`, with a monotonic reading of zero.
    pub fn new(now: Timestamp) -> Self {
        Self { reading: Mutex::new(Reading { now, elapsed: Duration::ZERO }) }
    }

    /// Lets `by` pass: both readings move. The time of day stops at the last instant that can be written.
    pub fn advance(&self, by: Duration) {
        self.change(|reading| {
            reading.now = reading.now.checked_add(by).unwrap_or(Timestamp::MAX);
            reading.elapsed = reading.elapsed.saturating_add(by);
        });
    }

    /// Sets the time of day, as an operator or NTP would; the monotonic reading does not notice.
    pub fn set_now(&self, now: Timestamp) {
        self.change(|reading| reading.now = now);
    }

    // A poisoned lock still holds a whole reading: every change is a plain assignment.
    fn change(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.reading.lock().unwrap_or_else(PoisonError::into_inner));
    }
    fn read(&self) -> Reading {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.read().now
    }
    fn elapsed(&self) -> Duration {
        self.read().elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_time_of_day_leaves_the_monotonic_reading_alone() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(90));
        clock.set_now(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        assert_eq!(clock.elapsed(), Duration::from_secs(90));
    }

    #[test]
    fn the_end_of_time_is_not_a_panic() {
        let clock = ManualClock::new(Timestamp::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
        assert_eq!(clock.elapsed(), Duration::MAX);
    }

    #[test]
    fn the_system_clock_never_runs_backwards() {
        let clock = SystemClock::new();
        let earlier = clock.elapsed();
        assert!(clock.elapsed() >= earlier);
    }
}
