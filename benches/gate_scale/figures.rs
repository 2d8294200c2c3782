//! Times as figures, beside their aims.

use std::time::Duration;

/// Whether an aim was reached, said plainly.
pub fn aim(figure: f64, most: f64, unit: &str) -> String {
    let word = if figure <= most { "met" } else { "MISSED" };
    format!("aim <= {most} {unit}: {word}")
}

/// Many times, in order.
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts them.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this share of all does not exceed, in seconds.
    pub fn share(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).map_or(f64::NAN, Duration::as_secs_f64)
    }
}
