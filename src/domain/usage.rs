//! What is known of a token's use: how sealed counts are merged into a [`TokenUsageStatus`], and what the plan takes
//! from it.
//!
//! Merging is idempotent by (gate, epoch, sequence) and commutes between gates: whatever is sent twice, late or by
//! another way is counted once.

mod merge;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

pub use self::merge::{Merged, merge, touch};
use super::coverage::Watched;

/// What the ledger knows of one token at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// What may be concluded from silence.
    pub watched: Watched,
    /// When gates last accepted each credential, by id, as far as it was reported since this leader began.
    pub last_used: BTreeMap<String, Timestamp>,
    /// What stands in the TokenUsage and is due to be shown in the ApiToken; `None` until this leader has persisted something.
    pub persisted: Option<Persisted>,
}

/// The coarse summary of a TokenUsage, as it was last persisted. It moves only when it is persisted again, so that showing
/// it costs one write each time at most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Persisted {
    /// Accepted requests.
    pub requests: i64,
    /// Distinct callers that are kept.
    pub callers: i32,
    /// When gates last accepted the token.
    pub last_used: Option<Timestamp>,
    /// When gates last accepted each credential, by id.
    pub credentials: BTreeMap<String, Timestamp>,
    /// The most recent callers of each credential, described for people; a few.
    pub described: BTreeMap<String, Vec<String>>,
}

/// Knows nothing, because no ledger listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLedger;

impl super::ports::UsageSource for NoLedger {
    fn observe(&self, _: &str, _: Timestamp) -> Observation {
        Observation::unasked()
    }
}

impl Observation {
    /// No ledger listens: nothing is known, nothing is concluded.
    pub fn unasked() -> Self {
        Self { watched: Watched::Unasked, last_used: BTreeMap::new(), persisted: None }
    }
}
