//! A counter of one thread that others read: to add is a load and a store, not an atomic addition, which costs a core more
//! than the rest of counting together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Loses nothing as long as only one thread adds at a time. Only ever grows, so that whoever reads it may take the
/// difference to what was read before.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        // Whoever sees this sum also sees what was stored before it.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Release);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
