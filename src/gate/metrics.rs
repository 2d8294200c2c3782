//! What a gate counts, and the table that describes it.
//!
//! Answers are counted by the recorder, per thread, and summed when they are scraped: one shared counter would be fought over
//! by all cores.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Gate;
use super::counter::Counter as Ticks;
use crate::api::Outcome;
use crate::platform::families::{CounterVec, Descriptor, PREFIX, counters, register, table};
use crate::platform::process::ProcessMetrics;

table! {
    REQUESTS: Counter "gate_requests_total" ["dialect", "outcome"]
        "Answers by the way the proxy asks and by why it may or may not pass; outcome Accepted is the only one that lets through. An introspection counts for the token that is asked about, and for the one that asks";
    DURATION: Histogram "gate_request_duration_seconds" ["dialect"]
        "Time from a request's arrival to its answer, within the gate";
    READY: Gauge "gate_ready" []
        "1 once the first full list is loaded; before that everything is denied";
    TOKENS: Gauge "gate_tokens" []
        "ApiTokens in the index";
    CREDENTIALS: Gauge "gate_credentials" []
        "Living credentials in the index";
    UNREADABLE: Gauge "gate_unreadable_tokens" []
        "ApiTokens that this gate cannot understand and therefore denies: look for a newer operator or an altered status";
    FEED_AGE: Gauge "gate_feed_age_seconds" []
        "Time since the gate last heard from the API server, -1 before the first time";
    FEED_LAG: Histogram "gate_feed_lag_seconds" []
        "Time from the arrival of a change of an ApiToken until answers follow it";
    FEED_VERSION: Gauge "gate_feed_resource_version" []
        "Up to which resourceVersion everything is in the index; compare the gates of one cluster";
    CONNECTIONS: Gauge "gate_connections" ["listener"]
        "Open connections of proxies";
    CONNECTIONS_REFUSED: Counter "gate_connections_refused_total" ["listener", "reason"]
        "Connections that were closed without an answer";
    REPORTS: Counter "gate_reports_total" ["result"]
        "Reports to the ledger by how they ended";
    UNSETTLED: Gauge "gate_unsettled_tokens" []
        "ApiTokens with counts that the ledger has not settled yet";
    STRANGERS: Gauge "gate_unknown_credential_callers" []
        "Callers within the last minute of tokens that no ApiToken knows, 16 at most; the log names the busiest";
    STRANGERS_SEEN: Gauge "gate_unknown_credential_last_seen_timestamp_seconds" []
        "When such a token was last sent, 0 before the first time; known a minute later";
    REFUSED: Counter "gate_refused_counts_total" ["reason"]
        "Sealed counts that the ledger refused for good, by its reason";
}

/// How a proxy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// nginx `auth_request`.
    Nginx,
    /// Traefik `ForwardAuth`.
    Traefik,
    /// Caddy `forward_auth`.
    Caddy,
    /// Envoy `ext_authz` over HTTP.
    EnvoyHttp,
    /// Envoy `ext_authz` over gRPC.
    EnvoyGrpc,
    /// RFC 7662.
    Introspect,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 6] =
        [Self::Nginx, Self::Traefik, Self::Caddy, Self::EnvoyHttp, Self::EnvoyGrpc, Self::Introspect];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::EnvoyHttp => "envoy_http",
            Self::EnvoyGrpc => "envoy_grpc",
            Self::Introspect => "introspect",
        }
    }
}

/// Upper bounds of the duration's buckets, in microseconds: answers come from memory.
const BOUNDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 1_000, 5_000, 25_000, 100_000, 1_000_000];

/// Upper bounds of the lag's buckets, in seconds: parsing one object, or waiting behind a burst of them.
const LAG: [f64; 9] = [0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0];

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Each bound's own bucket, and the rest.
    buckets: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

/// The same, as one thread counts it.
#[derive(Debug, Default)]
pub(super) struct DurationCounters {
    buckets: [Ticks; BOUNDS.len() + 1],
    nanoseconds: Ticks,
}

impl DurationCounters {
    pub(super) fn add(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| bound * 1_000 < nanoseconds)].add(1);
        self.nanoseconds.add(nanoseconds);
    }

    pub(super) fn add_to(&self, sum: &mut Durations) {
        sum.buckets.iter_mut().zip(&self.buckets).for_each(|(sum, count)| *sum += count.get());
        sum.nanoseconds = sum.nanoseconds.saturating_add(self.nanoseconds.get());
    }
}

/// What is counted as it happens. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct GateMetrics {
    /// What every role counts.
    pub process: ProcessMetrics,
    /// `gate_feed_lag_seconds`; observe seconds.
    pub feed_lag: Histogram,
    /// `gate_feed_resource_version`.
    pub feed_version: Gauge,
    /// `gate_connections{listener="http"}`.
    pub http_connections: Gauge,
    /// `gate_connections{listener="grpc"}`.
    pub grpc_connections: Gauge,
    /// `gate_connections_refused_total{listener,reason}`.
    pub connections_refused: CounterVec<2>,
    /// `gate_reports_total{result}`.
    pub reports: CounterVec<1>,
    /// `gate_unsettled_tokens`.
    pub unsettled: Gauge,
    /// `gate_unknown_credential_callers`.
    pub strangers: Gauge,
    /// `gate_unknown_credential_last_seen_timestamp_seconds`.
    pub strangers_seen: Gauge,
    /// `gate_refused_counts_total{reason}`.
    pub refused: CounterVec<1>,
}

impl GateMetrics {
    /// Makes and registers them, and those that are computed from `gate` at the moment of the scrape. `now` is the clock, in
    /// Unix seconds.
    pub fn new(
        registry: &mut Registry,
        gate: &Arc<Gate>,
        now: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Self {
        let process = ProcessMetrics::new(registry);
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let metrics = Self {
            process,
            feed_lag: register(registry, &FEED_LAG, Histogram::new(LAG)),
            feed_version: register(registry, &FEED_VERSION, Gauge::default()),
            http_connections: Gauge::default(),
            grpc_connections: Gauge::default(),
            connections_refused: counters(registry, &CONNECTIONS_REFUSED),
            reports: counters(registry, &REPORTS),
            unsettled: register(registry, &UNSETTLED, Gauge::default()),
            strangers: register(registry, &STRANGERS, Gauge::default()),
            strangers_seen: register(registry, &STRANGERS_SEEN, Gauge::default()),
            refused: counters(registry, &REFUSED),
        };
        let connections =
            [("http", metrics.http_connections.clone()), ("grpc", metrics.grpc_connections.clone())];
        let collector = AtScrape { gate: Arc::clone(gate), now: Box::new(now), connections };
        registry.register_collector(Box::new(collector));
        metrics
    }
}

/// Computes families when they are scraped.
struct AtScrape {
    gate: Arc<Gate>,
    now: Box<dyn Fn() -> i64 + Send + Sync>,
    connections: [(&'static str, Gauge); 2],
}

impl Debug for AtScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtScrape")
    }
}

impl AtScrape {
    fn gauge(
        encoder: &mut DescriptorEncoder<'_>,
        descriptor: &'static Descriptor,
        value: i64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            descriptor.registered_name(),
            descriptor.help,
            None,
            MetricType::Gauge,
        )?;
        family.encode_gauge(&value)
    }
}

impl Collector for AtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let totals = self.gate.recorder().totals();
        let (name, help) = (REQUESTS.registered_name(), REQUESTS.help);
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (dialect, answers) in Dialect::ALL.iter().zip(totals.answers) {
            // Each has a series from the start: an alert on one that is absent never fires.
            for (outcome, count) in Outcome::ALL.iter().zip(answers) {
                let labels = [(REQUESTS.labels[0], dialect.as_str()), (REQUESTS.labels[1], outcome.as_str())];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let (name, help) = (DURATION.registered_name(), DURATION.help);
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (dialect, durations) in Dialect::ALL.iter().zip(&totals.durations) {
            let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(durations.buckets).collect();
            let count = durations.buckets.iter().sum();
            let labels = [(DURATION.labels[0], dialect.as_str())];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                durations.nanoseconds as f64 / 1e9,
                count,
                &buckets,
                None,
            )?;
        }
        let (name, help) = (CONNECTIONS.registered_name(), CONNECTIONS.help);
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (listener, open) in &self.connections {
            family.encode_family(&[(CONNECTIONS.labels[0], *listener)])?.encode_gauge(&open.get())?;
        }
        let stats = self.gate.index().stats();
        let age = self.gate.last_heard().map_or(-1, |heard| ((self.now)() - heard).max(0));
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (descriptor, value) in [
            (&READY, i64::from(self.gate.is_open())),
            (&TOKENS, number(stats.tokens)),
            (&CREDENTIALS, number(stats.credentials)),
            (&UNREADABLE, number(stats.unreadable)),
            (&FEED_AGE, age),
        ] {
            Self::gauge(&mut encoder, descriptor, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::fixtures::{at, gate, living, metadata, minted, object};
    use crate::gate::record::Record;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn a_scrape_shows_what_was_answered_and_what_is_known() {
        let record =
            Record::from_json(&metadata("shop", "web", 1), &object(&[living(&minted("twd", 1))], &[]));
        let gate = Arc::new(gate(vec![record]));
        let mut registry = Registry::default();
        let metrics = GateMetrics::new(&mut registry, &gate, || at("2026-06-01T00:00:09Z").as_second());
        metrics.http_connections.inc();
        // These have no series until something happens.
        metrics.connections_refused.inc(["http", "too_many"]);
        metrics.reports.inc(["settled"]);
        metrics.refused.inc(["sequence"]);
        let scrape = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let has = |line: &str| assert!(scrape().lines().any(|found| found == line), "{line}\n{}", scrape());
        has("tokenward_gate_feed_age_seconds -1");
        gate.heard(at("2026-06-01T00:00:00Z"));
        gate.refuse(Dialect::EnvoyHttp, Outcome::Misrouted, at("2026-06-01T00:00:00Z"));
        gate.recorder().took(Dialect::EnvoyHttp, Duration::from_micros(5));
        gate.recorder().took(Dialect::EnvoyHttp, Duration::from_secs(7));
        for line in [
            "tokenward_gate_ready 1",
            "tokenward_gate_tokens 1",
            "tokenward_gate_credentials 1",
            "tokenward_gate_unreadable_tokens 0",
            "tokenward_gate_feed_age_seconds 9",
            "tokenward_gate_connections{listener=\"http\"} 1",
            "tokenward_gate_connections{listener=\"grpc\"} 0",
            "tokenward_gate_requests_total{dialect=\"envoy_http\",outcome=\"Misrouted\"} 1",
            "tokenward_gate_requests_total{dialect=\"nginx\",outcome=\"Accepted\"} 0",
            "tokenward_gate_request_duration_seconds_bucket{le=\"0.000005\",dialect=\"envoy_http\"} 1",
            "tokenward_gate_request_duration_seconds_bucket{le=\"1.0\",dialect=\"envoy_http\"} 1",
            "tokenward_gate_request_duration_seconds_bucket{le=\"+Inf\",dialect=\"envoy_http\"} 2",
            "tokenward_gate_request_duration_seconds_count{dialect=\"envoy_http\"} 2",
        ] {
            has(line);
        }
        for family in TABLE {
            assert!(scrape().contains(&format!(" {}", family.help)), "{}", family.name);
        }
        assert!(Dialect::ALL.iter().enumerate().all(|(at, dialect)| *dialect as usize == at));
    }
}
