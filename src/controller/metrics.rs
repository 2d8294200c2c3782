//! Everything the controller counts, and the table that describes it.
//!
//! Only the per-token families (see [`tokens`]) carry names and labels that users choose.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[cfg(test)]
mod tests;
pub mod tokens;

use crate::platform::families::{Buckets, CounterVec, PREFIX, counters, register, table};
use crate::platform::process::ProcessMetrics;
use prometheus_client::metrics::family::MetricConstructor as _;

table! {
    RECONCILES: Counter "reconciles_total" ["result"]
        "Reconciles of an ApiToken by how they ended";
    RECONCILE_DURATION: Histogram "reconcile_duration_seconds" []
        "How long one reconcile took, its API calls included";
    IN_FLIGHT: Gauge "reconciles_in_flight" []
        "Reconciles that run at this moment; at --concurrency for long means that it is the limit";
    HELD: Counter "reconciles_held_total" []
        "Reconciles that kept a worker busy for ten seconds without a pause; the log names the ApiToken";
    QUEUE_DEPTH: Gauge "queue_depth" []
        "ApiTokens that wait for a look; far above --concurrency for long means that looks do not keep up";
    NEWS_WAITING: Gauge "news_waiting" []
        "ApiTokens whose status has something to tell that nobody waits for: it is told within --usage-writes-per-second";
    ROTATIONS: Counter "rotations_total" ["reason"]
        "Credentials that became active, by the reason they were issued for";
    SECRET_WRITES: Counter "secret_writes_total" ["result"]
        "Writes of Secrets by how they ended";
    STATUS_WRITES: Counter "status_writes_total" ["result"]
        "Writes of an ApiToken's status by how they ended";
    EVENTS: Counter "events_published_total" ["result"]
        "Kubernetes events: published, dropped (too many at once) or failed";
    LEADER: Gauge "leader" []
        "1 while this replica leads, else 0; the sum over all replicas must not exceed 1";
    LEADER_TRANSITIONS: Counter "leader_transitions_total" []
        "Changes of the Lease's holder that this replica has seen";
    TOKENS: Gauge "tokens" ["health"]
        "ApiTokens by health";
    TOKEN: Info "token_info" ["namespace", "name", "owner", "health", "ready", "delivered"] per_token
        "One for each ApiToken, to join owner, health, conditions and business labels to other series";
    TOKEN_EXPIRY: Gauge "token_expiry_timestamp_seconds" ["namespace", "name"] per_token
        "When the token expires, in Unix time; absent if it never does";
    TOKEN_NEXT_ROTATION: Gauge "token_next_rotation_timestamp_seconds" ["namespace", "name"] per_token
        "When the token is rotated next, in Unix time; absent if it is not";
}

/// All families that are counted as things happen. Cheap to clone; clones count together. What is computed at scrape
/// time is registered by [`tokens::register`].
#[derive(Debug, Clone)]
pub struct Metrics {
    /// What every role counts.
    pub process: ProcessMetrics,
    /// `reconciles_total{result}`.
    pub reconciles: CounterVec<1>,
    /// `reconcile_duration_seconds`; observe seconds.
    pub reconcile_duration: Histogram,
    /// `reconciles_in_flight`.
    pub reconciles_in_flight: Gauge,
    /// `reconciles_held_total`.
    pub reconciles_held: Counter,
    /// `queue_depth`.
    pub queue_depth: Gauge,
    /// `news_waiting`.
    pub news_waiting: Gauge,
    /// `rotations_total{reason}`.
    pub rotations: CounterVec<1>,
    /// `secret_writes_total{result}`.
    pub secret_writes: CounterVec<1>,
    /// `status_writes_total{result}`.
    pub status_writes: CounterVec<1>,
    /// `events_published_total{result}`.
    pub events_published: CounterVec<1>,
    /// `leader`.
    pub leader: Gauge,
    /// `leader_transitions_total`.
    pub leader_transitions: Counter,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let process = ProcessMetrics::new(registry);
        let registry = registry.sub_registry_with_prefix(PREFIX);
        Self {
            process,
            reconciles: counters(registry, &RECONCILES),
            reconcile_duration: register(registry, &RECONCILE_DURATION, Buckets.new_metric()),
            reconciles_in_flight: register(registry, &IN_FLIGHT, Gauge::default()),
            reconciles_held: register(registry, &HELD, Counter::default()),
            queue_depth: register(registry, &QUEUE_DEPTH, Gauge::default()),
            news_waiting: register(registry, &NEWS_WAITING, Gauge::default()),
            rotations: counters(registry, &ROTATIONS),
            secret_writes: counters(registry, &SECRET_WRITES),
            status_writes: counters(registry, &STATUS_WRITES),
            events_published: counters(registry, &EVENTS),
            leader: register(registry, &LEADER, Gauge::default()),
            leader_transitions: register(registry, &LEADER_TRANSITIONS, Counter::default()),
        }
    }
}
