//! Everything Tokenward counts, and the table that describes it.
//!
//! [`TABLE`] is the only place where a family's name, type, labels and help are written: registration takes them from
//! there, and so does the reference in `docs/metrics.md`. Label values are `&'static str` chosen by the callers from
//! bounded sets; only the per-token families (see [`tokens`]) carry names and labels that users choose.

use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

mod reference;
#[cfg(test)]
mod tests;
pub mod tokens;

pub use reference::reference;

/// What every family's name starts with, followed by an underscore.
pub const PREFIX: &str = "tokenward";

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its sample's name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
    /// Always 1; the labels are what matters. Its sample's name ends in `_info`.
    Info,
}

impl Kind {
    /// As OpenMetrics writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What the encoder appends to the name of the family.
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

/// One family.
#[derive(Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// As queried (histograms without `_bucket`, `_sum` and `_count`), without the prefix.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, without those from `--metric-labels`.
    pub labels: &'static [&'static str],
    /// Whether the labels from `--metric-labels` are added, and `--per-token-metrics=false` removes it.
    pub per_token: bool,
    /// One sentence without its full stop.
    pub help: &'static str,
}

impl Descriptor {
    /// The name as queried.
    pub fn full_name(&self) -> String {
        format!("{PREFIX}_{}", self.name)
    }

    /// The name to register: the encoder appends the suffix of the type itself.
    fn registered_name(&self) -> &'static str {
        self.name.strip_suffix(self.kind.suffix()).unwrap_or(self.name)
    }
}

macro_rules! table {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $($per_token:ident)? $help:literal;)*) => {
        $(const $id: Descriptor = Descriptor {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            per_token: table!(@per_token $($per_token)?),
            help: $help,
        };)*
        /// Every family there is, in the order of the reference.
        pub const TABLE: &[Descriptor] = &[$($id),*];
    };
    (@per_token) => { false };
    (@per_token per_token) => { true };
}

table! {
    RECONCILES: Counter "reconciles_total" ["result"]
        "Reconciles of an ApiToken by how they ended";
    RECONCILE_DURATION: Histogram "reconcile_duration_seconds" []
        "How long one reconcile took, its API calls included";
    IN_FLIGHT: Gauge "reconciles_in_flight" []
        "Reconciles that run at this moment; at --concurrency for long means that it is the limit";
    QUEUE_DEPTH: Gauge "queue_depth" []
        "ApiTokens taken up for a look that wait for a free slot, at most 256";
    ROTATIONS: Counter "rotations_total" ["reason"]
        "Credentials that became active, by the reason they were issued for";
    SECRET_WRITES: Counter "secret_writes_total" ["result"]
        "Writes of Secrets by how they ended";
    STATUS_WRITES: Counter "status_writes_total" ["result"]
        "Writes of an ApiToken's status by how they ended";
    EVENTS: Counter "events_published_total" ["result"]
        "Kubernetes events: published, dropped (too many at once) or failed";
    API_REQUESTS: Counter "api_requests_total" ["verb", "code"]
        "Requests to the API server by verb and HTTP status; without an answer, code is timeout, error or dropped (given up)";
    API_DURATION: Histogram "api_request_duration_seconds" ["verb"]
        "Time until the API server's answer began; for watches, until the stream opened";
    WATCH_ERRORS: Counter "watch_errors_total" ["resource"]
        "Watches that were refused or broke off with an error";
    WATCH_RESTARTS: Counter "watch_restarts_total" ["resource"]
        "Times a watch had to list everything anew";
    LEADER: Gauge "leader" []
        "1 while this replica leads, else 0; the sum over all replicas must not exceed 1";
    LEADER_TRANSITIONS: Counter "leader_transitions_total" []
        "Changes of the Lease's holder that this replica has seen";
    BUILD: Info "build_info" ["version", "revision"]
        "The version that runs";
    TOKENS: Gauge "tokens" ["health"]
        "ApiTokens by health";
    TOKEN: Info "token_info" ["namespace", "name", "owner", "health"] per_token
        "One for each ApiToken, to join owner, health and business labels to other series";
    TOKEN_EXPIRY: Gauge "token_expiry_timestamp_seconds" ["namespace", "name"] per_token
        "When the token expires, in Unix time; absent if it never does";
    TOKEN_NEXT_ROTATION: Gauge "token_next_rotation_timestamp_seconds" ["namespace", "name"] per_token
        "When the token is rotated next, in Unix time; absent if it is not";
}

/// Label names from the table with the values of one series.
type Pairs<const N: usize> = [(&'static str, &'static str); N];

/// Counters of one family, told apart by `N` labels.
#[derive(Debug, Clone)]
pub struct CounterVec<const N: usize> {
    labels: [&'static str; N],
    family: Family<Pairs<N>, Counter>,
}

impl<const N: usize> CounterVec<N> {
    /// Adds one to the series with these label values, in the table's order. Take them from bounded sets only.
    pub fn inc(&self, values: [&'static str; N]) {
        self.family.get_or_create(&pairs(self.labels, values)).inc();
    }

    /// The present count.
    pub fn get(&self, values: [&'static str; N]) -> u64 {
        self.family.get(&pairs(self.labels, values)).map_or(0, |counter| counter.get())
    }
}

/// Histograms of one family, told apart by `N` labels.
#[derive(Debug, Clone)]
pub struct HistogramVec<const N: usize> {
    labels: [&'static str; N],
    family: Family<Pairs<N>, Histogram, Buckets>,
}

impl<const N: usize> HistogramVec<N> {
    /// Notes one duration.
    pub fn observe(&self, values: [&'static str; N], duration: std::time::Duration) {
        self.family.get_or_create(&pairs(self.labels, values)).observe(duration.as_secs_f64());
    }
}

/// From a call within the same rack to one that ran into its timeout.
#[derive(Debug, Clone, Copy)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
    }
}

fn pairs<const N: usize>(labels: [&'static str; N], values: [&'static str; N]) -> Pairs<N> {
    let mut pairs = [("", ""); N];
    for (pair, (label, value)) in pairs.iter_mut().zip(labels.into_iter().zip(values)) {
        *pair = (label, value);
    }
    pairs
}

/// All families that are counted as things happen. Cheap to clone; clones count together. What is computed at scrape
/// time is registered by [`tokens::register`].
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `reconciles_total{result}`.
    pub reconciles: CounterVec<1>,
    /// `reconcile_duration_seconds`; observe seconds.
    pub reconcile_duration: Histogram,
    /// `reconciles_in_flight`.
    pub reconciles_in_flight: Gauge,
    /// `queue_depth`.
    pub queue_depth: Gauge,
    /// `rotations_total{reason}`.
    pub rotations: CounterVec<1>,
    /// `secret_writes_total{result}`.
    pub secret_writes: CounterVec<1>,
    /// `status_writes_total{result}`.
    pub status_writes: CounterVec<1>,
    /// `events_published_total{result}`.
    pub events_published: CounterVec<1>,
    /// `api_requests_total{verb,code}`.
    pub api_requests: CounterVec<2>,
    /// `api_request_duration_seconds{verb}`.
    pub api_request_duration: HistogramVec<1>,
    /// `watch_errors_total{resource}`.
    pub watch_errors: CounterVec<1>,
    /// `watch_restarts_total{resource}`.
    pub watch_restarts: CounterVec<1>,
    /// `leader`.
    pub leader: Gauge,
    /// `leader_transitions_total`.
    pub leader_transitions: Counter,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let build = [("version", crate::VERSION), ("revision", crate::REVISION)];
        registry.register(BUILD.registered_name(), BUILD.help, Info::new(build));
        Self {
            reconciles: counters(registry, &RECONCILES),
            reconcile_duration: register(registry, &RECONCILE_DURATION, Buckets.new_metric()),
            reconciles_in_flight: register(registry, &IN_FLIGHT, Gauge::default()),
            queue_depth: register(registry, &QUEUE_DEPTH, Gauge::default()),
            rotations: counters(registry, &ROTATIONS),
            secret_writes: counters(registry, &SECRET_WRITES),
            status_writes: counters(registry, &STATUS_WRITES),
            events_published: counters(registry, &EVENTS),
            api_requests: counters(registry, &API_REQUESTS),
            api_request_duration: histograms(registry, &API_DURATION),
            watch_errors: counters(registry, &WATCH_ERRORS),
            watch_restarts: counters(registry, &WATCH_RESTARTS),
            leader: register(registry, &LEADER, Gauge::default()),
            leader_transitions: register(registry, &LEADER_TRANSITIONS, Counter::default()),
        }
    }
}

fn register<M: Metric + Clone>(registry: &mut Registry, descriptor: &'static Descriptor, metric: M) -> M {
    registry.register(descriptor.registered_name(), descriptor.help, metric.clone());
    metric
}

fn counters<const N: usize>(registry: &mut Registry, descriptor: &'static Descriptor) -> CounterVec<N>
where
    Pairs<N>: Clone + Hash + Eq + EncodeLabelSet,
{
    CounterVec { labels: labels(descriptor), family: register(registry, descriptor, Family::default()) }
}

fn histograms<const N: usize>(registry: &mut Registry, descriptor: &'static Descriptor) -> HistogramVec<N>
where
    Pairs<N>: Clone + Hash + Eq + EncodeLabelSet,
{
    let family = register(registry, descriptor, Family::new_with_constructor(Buckets));
    HistogramVec { labels: labels(descriptor), family }
}

/// The table's label names as an array. A test holds that the numbers agree.
fn labels<const N: usize>(descriptor: &'static Descriptor) -> [&'static str; N] {
    std::array::from_fn(|index| descriptor.labels.get(index).copied().unwrap_or("unnamed"))
}
