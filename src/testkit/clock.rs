//! Wall clocks over tokio's time, so that pausing the runtime pauses them.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::ports::Clock;

/// A wall clock that starts at a given time, runs with tokio's, and steps when told.
#[derive(Debug)]
pub struct VirtualClock {
    start: Timestamp,
    since: Instant,
    offset: Mutex<SignedDuration>,
}

impl VirtualClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, since: Instant::now(), offset: Mutex::new(SignedDuration::ZERO) }
    }

    /// Sets the clock forward, or back.
    pub fn step(&self, by: SignedDuration) {
        let mut offset = self.offset.lock();
        *offset = offset.saturating_add(by);
    }
}

impl Default for VirtualClock {
    /// The first of January 2026, midnight UTC.
    fn default() -> Self {
        Self::starting_at(Timestamp::constant(1_767_225_600, 0))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let run = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        let shown = run.saturating_add(*self.offset.lock());
        self.start.saturating_add(shown).unwrap_or(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn runs_with_virtual_time_and_steps() {
        let clock = VirtualClock::default();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T01:00:00Z");
        clock.step(SignedDuration::from_hours(-2));
        assert_eq!(clock.now().to_string(), "2025-12-31T23:00:00Z");
    }
}
