//! Level 0: buffers that go round. A place that gives a buffer back and one that takes it need not know each other.
//!
//! A pool keeps at most as many as it was made for, so what waits in it is part of the memory budget.

use crossbeam_channel::{Receiver, Sender};

/// Buffers given back to be used again: touching fresh memory costs as much as hashing it.
#[derive(Clone, Debug)]
pub struct Pool {
    free: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
}

impl Pool {
    pub fn new(limit: usize) -> Self {
        Self { free: crossbeam_channel::bounded(limit) }
    }
    /// An empty buffer with room for about `capacity_bytes`.
    pub fn take(&self, capacity_bytes: usize) -> Vec<u8> {
        let mut buffer = self.free.1.try_recv().unwrap_or_default();
        buffer.clear();
        buffer.reserve(capacity_bytes);
        buffer
    }
    /// A buffer of at least `length_bytes` that still holds what it held before.
    pub fn take_filled(&self, length_bytes: usize) -> Vec<u8> {
        let mut buffer = self.free.1.try_recv().unwrap_or_default();
        if buffer.len() < length_bytes {
            buffer.resize(length_bytes, 0);
        }
        buffer
    }
    pub fn give(&self, buffer: Vec<u8>) {
        let _ = self.free.0.try_send(buffer);
    }
}
