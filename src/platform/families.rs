//! Families of metrics: a table describes each, and registration takes name, help and labels from there.
//!
//! Label values are `&'static str` chosen by the callers from bounded sets; nothing that a user writes becomes one.

use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

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
    pub fn suffix(self) -> &'static str {
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
    pub fn registered_name(&self) -> &'static str {
        self.name.strip_suffix(self.kind.suffix()).unwrap_or(self.name)
    }
}

/// Writes descriptors down as a table: one constant each, and `TABLE` of all.
macro_rules! table {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $($per_token:ident)? $help:literal;)*) => {
        $(pub(crate) const $id: $crate::platform::families::Descriptor = $crate::platform::families::Descriptor {
            name: $name,
            kind: $crate::platform::families::Kind::$kind,
            labels: &[$($label),*],
            per_token: $crate::platform::families::table!(@per_token $($per_token)?),
            help: $help,
        };)*
        /// Every family there is, in the order of the reference.
        pub const TABLE: &[$crate::platform::families::Descriptor] = &[$($id),*];
    };
    (@per_token) => { false };
    (@per_token per_token) => { true };
}

pub(crate) use table;

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
pub struct Buckets;

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

/// Registers a metric under its descriptor.
pub fn register<M: Metric + Clone>(registry: &mut Registry, descriptor: &'static Descriptor, metric: M) -> M {
    registry.register(descriptor.registered_name(), descriptor.help, metric.clone());
    metric
}

/// A family of counters.
pub fn counters<const N: usize>(registry: &mut Registry, descriptor: &'static Descriptor) -> CounterVec<N>
where
    Pairs<N>: Clone + Hash + Eq + EncodeLabelSet,
{
    CounterVec { labels: labels(descriptor), family: register(registry, descriptor, Family::default()) }
}

/// A family of histograms.
pub fn histograms<const N: usize>(registry: &mut Registry, descriptor: &'static Descriptor) -> HistogramVec<N>
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
