//! How often use may be written: a budget for all tokens, and a pace for each.

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
}
