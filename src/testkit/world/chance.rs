//! Everything that a seed decides.

use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

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
pub struct SeededEntropy(Mutex<ChaCha8Rng>);

impl SeededEntropy {
    /// A source for one process.
    #[must_use]
    pub fn new(seed: u64, process: u64) -> Self {
        Self(Mutex::new(Chance::new(seed, process).0))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        self.0.lock().fill_bytes(bytes);
        Ok(())
    }
}
