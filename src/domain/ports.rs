//! What decisions and loops take from outside as arguments: time and randomness.
//!
//! The traits live here so that `controller` can name them; the implementations that read the world live in
//! `runtime`, the virtual ones in `testkit`.

use k8s_openapi::jiff::Timestamp;

use super::usage::Observation;

/// Wall-clock time. Durations between two readings may be negative: clocks step.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// A source of random bytes fit for secrets.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes`, or says why it could not. A short or predictable fill is never returned as success.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;
}

/// What the ledger knows, as the controller asks for it.
pub trait UsageSource: Send + Sync + 'static {
    /// What is known of the use of the ApiToken with this uid at `now`. Never blocks on anything but a short lock.
    fn observe(&self, uid: &str, now: Timestamp) -> Observation;
}

/// What the ledger tells the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Uses of this ApiToken were persisted. A write is set aside in the budget for showing them.
    Persisted {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// What silence means has changed, for every token.
    Watched,
}

/// The operating system's generator did not answer.
#[derive(Debug, thiserror::Error)]
#[error("no randomness available: {0}")]
pub struct EntropyError(pub String);
