//! Everything that a seed decides.

use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::domain::ports::{Entropy, EntropyError};

/// Dice that fall the same way in every run with the same seed.
#[derive(Debug)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// Dice for one purpose: two purposes with one seed do not disturb each other.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(purpose);
        Self(dice)
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A time between two, in whole milliseconds.
    pub fn time(&mut self, least: Duration, most: Duration) -> Duration {
        let range = least.as_millis() as u64..=most.as_millis() as u64;
        Duration::from_millis(self.0.random_range(range))
    }
}

/// Secrets that are the same in every run with the same seed.
#[derive(Debug)]
pub struct SeededEntropy {
    seed: u64,
    process: u64,
    start: Instant,
    /// The instant of the last draw, and how many there were in it.
    last: Mutex<(Duration, u64)>,
}

impl SeededEntropy {
    /// A source for one process.
    #[must_use]
    pub fn new(seed: u64, process: u64) -> Self {
        Self { seed, process, start: Instant::now(), last: Mutex::default() }
    }
}

impl Entropy for SeededEntropy {
    /// Depends on the virtual time, not on what was drawn before: two runs that once differ in the order of a draw are
    /// not to differ ever after.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let at = self.start.elapsed();
        let mut last = self.last.lock();
        *last = if last.0 == at { (at, last.1 + 1) } else { (at, 0) };
        let draw = at.as_nanos() as u64 ^ (last.1 << 56);
        Chance::new(self.seed ^ draw, self.process).0.fill_bytes(bytes);
        Ok(())
    }
}
