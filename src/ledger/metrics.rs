//! What the ledger counts, and the table that describes it.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::platform::families::{CounterVec, PREFIX, counters, register, table};

table! {
    REPORTS: Counter "ledger_reports_total" ["result"]
        "Reports of gates: ok, or why they were not taken";
    REFUSED: Counter "ledger_refused_total" ["reason"]
        "Entries in reports that were not counted, or not counted yet";
    WAITING: Gauge "ledger_sets_waiting" []
        "Sealed sets of counts that are not persisted yet";
    OLDEST: Gauge "ledger_oldest_waiting_timestamp_seconds" []
        "Since when the oldest of them has waited, in Unix time; 0 if none waits";
    TOKENS: Gauge "ledger_tokens_waiting" []
        "ApiTokens whose use is to be persisted";
    WRITES: Counter "ledger_usage_writes_total" ["kind", "result"]
        "Writes of TokenUsages: create, adopt (a lost owner reference), status; by how they ended";
    GATES: Gauge "ledger_gates" []
        "Gates that report";
    COVERAGE: Gauge "ledger_coverage_since_timestamp_seconds" []
        "Since when gates have watched without a gap, in Unix time; 0 while none does";
    STRETCH: Gauge "ledger_stretch_ratio" []
        "How much longer than their pace busy tokens wait for the budget of writes; 1 when it suffices";
}

/// The ledger's families. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `ledger_reports_total{result}`.
    pub reports: CounterVec<1>,
    /// `ledger_refused_total{reason}`.
    pub refused: CounterVec<1>,
    /// `ledger_sets_waiting`.
    pub sets: Gauge,
    /// `ledger_oldest_waiting_timestamp_seconds`.
    pub oldest: Gauge,
    /// `ledger_tokens_waiting`.
    pub tokens: Gauge,
    /// `ledger_usage_writes_total{kind,result}`.
    pub writes: CounterVec<2>,
    /// `ledger_gates`.
    pub gates: Gauge,
    /// `ledger_coverage_since_timestamp_seconds`.
    pub coverage: Gauge,
    /// `ledger_stretch_ratio`.
    pub stretch: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        Self {
            reports: counters(registry, &REPORTS),
            refused: counters(registry, &REFUSED),
            sets: register(registry, &WAITING, Gauge::default()),
            oldest: register(registry, &OLDEST, Gauge::default()),
            tokens: register(registry, &TOKENS, Gauge::default()),
            writes: counters(registry, &WRITES),
            gates: register(registry, &GATES, Gauge::default()),
            coverage: register(registry, &COVERAGE, Gauge::default()),
            stretch: register(registry, &STRETCH, Gauge::default()),
        }
    }
}
