//! The budget of writes that nobody waits for: one for the whole process, whatever causes them.
//!
//! It has two purses. What gates counted is written from one, everything else that is only told from the other; each gets
//! its share of the rate, and what one does not need goes to the other. So neither waits for ever, and both together never
//! write more than was granted.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Of five writes one is news, while there is as much of both as can be written.
const NEWS_SHARE: f64 = 0.2;
/// Seconds of the rate that may be saved up.
const BURST: f64 = 2.0;

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purse {
    /// What gates counted: the TokenUsage, and the status that follows from it.
    Uses,
    /// Everything else that a status tells and nobody waits for.
    News,
}

/// A token bucket in two parts. Each may be overdrawn: what a write really took is known only afterwards.
#[derive(Debug)]
pub struct Budget {
    rate: f64,
    uses: f64,
    news: f64,
    at: Duration,
}

impl Budget {
    /// Full at `now` (monotonic).
    pub fn new(writes_per_second: u32, now: Duration) -> Self {
        let rate = f64::from(writes_per_second.max(1));
        let mut budget = Self { rate, uses: 0.0, news: 0.0, at: now };
        (budget.uses, budget.news) = (budget.most(Purse::Uses), budget.most(Purse::News));
        budget
    }

    /// When `writes` are affordable: now, or later. It may be earlier than that, if the other purse has more than it can hold.
    pub fn when(&mut self, purse: Purse, writes: u32, now: Duration) -> Duration {
        self.refill(now);
        let missing = f64::from(writes).min(self.most(purse)) - *self.level(purse);
        // Levels are sums of many small parts.
        if missing <= 1e-9 { now } else { now + Duration::from_secs_f64(missing / self.gain(purse)) }
    }

    /// Takes `writes` out, or puts them back where they are negative.
    pub fn charge(&mut self, purse: Purse, writes: i64, now: Duration) {
        self.refill(now);
        let most = self.most(purse);
        let level = self.level(purse);
        // Far fewer than 2^52.
        *level = (*level - writes as f64).min(most);
    }

    fn level(&mut self, purse: Purse) -> &mut f64 {
        match purse {
            Purse::Uses => &mut self.uses,
            Purse::News => &mut self.news,
        }
    }

    fn share(purse: Purse) -> f64 {
        match purse {
            Purse::Uses => 1.0 - NEWS_SHARE,
            Purse::News => NEWS_SHARE,
        }
    }

    fn most(&self, purse: Purse) -> f64 {
        self.rate * BURST * Self::share(purse)
    }

    /// What comes in a second: its share, and all of it while the other purse is full.
    fn gain(&self, purse: Purse) -> f64 {
        let other_is_full = match purse {
            Purse::Uses => self.news >= self.most(Purse::News),
            Purse::News => self.uses >= self.most(Purse::Uses),
        };
        self.rate * if other_is_full { 1.0 } else { Self::share(purse) }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64() * self.rate;
        self.at = self.at.max(now);
        let mut spare = 0.0;
        for purse in [Purse::Uses, Purse::News] {
            let most = self.most(purse);
            let level = self.level(purse);
            *level += passed * Self::share(purse);
            spare += (*level - most).max(0.0);
            *level = level.min(most);
        }
        // What one cannot hold the other may; what neither can is gone.
        for purse in [Purse::Uses, Purse::News] {
            let most = self.most(purse);
            let level = self.level(purse);
            let taken = spare.min(most - *level);
            *level += taken;
            spare -= taken;
        }
    }
}

/// The budget as its spenders share it, on the monotonic clock. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Shared {
    epoch: Instant,
    budget: Arc<Mutex<Budget>>,
}

impl Shared {
    /// Full now.
    pub fn new(writes_per_second: u32) -> Self {
        let budget = Budget::new(writes_per_second, Duration::ZERO);
        Self { epoch: Instant::now(), budget: Arc::new(Mutex::new(budget)) }
    }

    /// What the times of [`Budget`] are counted from.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The budget itself, for who counts time from [`Shared::epoch`].
    pub fn budget(&self) -> Arc<Mutex<Budget>> {
        self.budget.clone()
    }

    /// When one write is affordable: now, or later.
    pub fn when(&self, purse: Purse, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.epoch);
        self.epoch + self.budget.lock().when(purse, 1, since)
    }

    /// Takes `writes` out, or puts them back where they are negative.
    pub fn charge(&self, purse: Purse, writes: i64, now: Instant) {
        let since = now.saturating_duration_since(self.epoch);
        self.budget.lock().charge(purse, writes, since);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn spend(budget: &mut Budget, purse: Purse, now: Duration) -> u32 {
        let mut spent = 0;
        while budget.when(purse, 1, now) <= now {
            budget.charge(purse, 1, now);
            spent += 1;
        }
        spent
    }

    #[test]
    fn a_budget_is_spent_and_comes_back() {
        let mut budget = Budget::new(10, Duration::ZERO);
        assert_eq!(spend(&mut budget, Purse::Uses, Duration::ZERO), 16);
        assert_eq!(
            budget.when(Purse::Uses, 2, Duration::ZERO),
            Duration::from_millis(200),
            "the other is full"
        );
        budget.charge(Purse::Uses, 2, Duration::ZERO);
        assert_eq!(budget.when(Purse::Uses, 2, Duration::ZERO), Duration::from_millis(400), "overdrawn");
        budget.charge(Purse::Uses, -4, Duration::ZERO);
        assert_eq!(budget.when(Purse::Uses, 2, Duration::ZERO), Duration::ZERO, "given back");
        budget.charge(Purse::Uses, 2, Duration::ZERO);
        assert_eq!(budget.when(Purse::Uses, 20, SECOND * 60), SECOND * 60, "never more than the burst");
        budget.charge(Purse::Uses, 20, SECOND * 60);
        assert!(budget.when(Purse::Uses, 1, SECOND * 60) > SECOND * 60);
        assert!(budget.when(Purse::Uses, 1, SECOND) > SECOND, "time that goes back gives nothing");
    }

    #[test]
    fn each_purse_has_its_share_and_what_the_other_leaves() {
        for (who, expected) in [
            (&[Purse::Uses][..], [600.0, 0.0]),
            (&[Purse::News], [0.0, 600.0]),
            (&[Purse::Uses, Purse::News], [480.0, 120.0]),
            (&[Purse::News, Purse::Uses], [480.0, 120.0]),
        ] {
            let mut budget = Budget::new(10, Duration::ZERO);
            let mut spent = [0.0, 0.0];
            for tick in 0..6_000 {
                for purse in who {
                    spent[*purse as usize] += f64::from(spend(&mut budget, *purse, SECOND / 100 * tick));
                }
            }
            for (spent, expected) in spent.iter().zip(expected) {
                assert!((spent - expected).abs() <= 20.0, "{who:?}: {spent} of {expected}");
            }
        }
    }

    proptest! {
        #[test]
        fn both_together_never_spend_more_than_was_granted(
            rate in 1_u32..200,
            steps in proptest::collection::vec((0_u64..3_000, any::<bool>()), 1..200),
        ) {
            let mut budget = Budget::new(rate, Duration::ZERO);
            let (mut now, mut spent) = (Duration::ZERO, 0);
            for (pause, news) in steps {
                now += Duration::from_millis(pause);
                spent += spend(&mut budget, if news { Purse::News } else { Purse::Uses }, now);
                let granted = f64::from(rate) * (BURST + now.as_secs_f64());
                // One of each may be begun on less than a whole one, where the purse holds no more.
                prop_assert!(f64::from(spent) <= granted + 2.0, "{spent} of {granted}");
            }
        }
    }
}
