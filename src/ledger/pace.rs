//! How often writes may happen: one budget for all tokens, and a pace for each.

use std::time::Duration;

/// What the installation grants the ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Writes a second, of all kinds together; twice as many at once. At least 1.
    pub writes_per_second: u32,
    /// Longest pause between two writes of a busy token; also the quiet after which a use is shown at once.
    pub interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { writes_per_second: 10, interval: Duration::from_secs(300) }
    }
}

impl Pace {
    /// The first pause of a token that is used.
    const FIRST: Duration = Duration::from_secs(5);

    /// The pause after the next write, when the pause before it was `last` (zero: it had been quiet).
    pub fn pause_after(&self, last: Duration) -> Duration {
        match last.is_zero() {
            true => self.first(),
            false => (last * 2).min(self.interval),
        }
    }

    /// The shortest pause.
    pub fn first(&self) -> Duration {
        Self::FIRST.min(self.interval)
    }
}

/// A token bucket. It may be overdrawn: what a write really took is known only afterwards.
#[derive(Debug)]
pub struct Budget {
    rate: f64,
    level: f64,
    at: Duration,
}

impl Budget {
    /// Full at `now` (monotonic).
    pub fn new(writes_per_second: u32, now: Duration) -> Self {
        let rate = f64::from(writes_per_second.max(1));
        Self { rate, level: rate * 2.0, at: now }
    }

    /// When `writes` are affordable: now, or later.
    pub fn when(&mut self, writes: u32, now: Duration) -> Duration {
        self.refill(now);
        let missing = f64::from(writes).min(self.rate * 2.0) - self.level;
        if missing <= 0.0 { now } else { now + Duration::from_secs_f64(missing / self.rate) }
    }

    /// Takes `writes` out, or puts them back where they are negative.
    pub fn charge(&mut self, writes: i64, now: Duration) {
        self.refill(now);
        // Far fewer than 2^52.
        self.level = (self.level - writes as f64).min(self.rate * 2.0);
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.level = (self.level + passed.as_secs_f64() * self.rate).min(self.rate * 2.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_interval() {
        let pace = Pace::default();
        let mut pause = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pause = pace.pause_after(pause);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        let short = Pace { interval: Duration::from_secs(2), ..pace };
        assert_eq!(short.pause_after(Duration::ZERO), Duration::from_secs(2));
    }

    #[test]
    fn a_budget_is_spent_and_comes_back() {
        let second = Duration::from_secs(1);
        let mut budget = Budget::new(10, Duration::ZERO);
        for _ in 0..10 {
            assert_eq!(budget.when(2, Duration::ZERO), Duration::ZERO);
            budget.charge(2, Duration::ZERO);
        }
        assert_eq!(budget.when(2, Duration::ZERO), Duration::from_millis(200));
        budget.charge(2, Duration::ZERO);
        assert_eq!(budget.when(2, Duration::ZERO), Duration::from_millis(400), "overdrawn");
        budget.charge(-4, Duration::ZERO);
        assert_eq!(budget.when(2, Duration::ZERO), Duration::ZERO, "given back");
        budget.charge(2, Duration::ZERO);
        assert_eq!(budget.when(20, second * 60), second * 60, "never more than the burst");
        budget.charge(20, second * 60);
        assert!(budget.when(1, second * 60) > second * 60);
        assert!(budget.when(1, second) > second, "time that goes back gives nothing");
    }
}
