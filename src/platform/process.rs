//! What every role counts about itself and its calls to the API server.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::families::{CounterVec, HistogramVec, PREFIX, counters, histograms, table};

table! {
    API_REQUESTS: Counter "api_requests_total" ["verb", "code"]
        "Requests to the API server by verb and HTTP status; without an answer, code is timeout, error or dropped (given up)";
    API_DURATION: Histogram "api_request_duration_seconds" ["verb"]
        "Time until the API server's answer began; for watches, until the stream opened";
    WATCH_ERRORS: Counter "watch_errors_total" ["resource"]
        "Watches that were refused or broke off with an error";
    WATCH_RESTARTS: Counter "watch_restarts_total" ["resource"]
        "Times a watch had to list everything anew";
    BUILD: Info "build_info" ["version", "revision"]
        "The version that runs";
}

/// Families of every role. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    /// `api_requests_total{verb,code}`.
    pub api_requests: CounterVec<2>,
    /// `api_request_duration_seconds{verb}`.
    pub api_request_duration: HistogramVec<1>,
    /// `watch_errors_total{resource}`.
    pub watch_errors: CounterVec<1>,
    /// `watch_restarts_total{resource}`.
    pub watch_restarts: CounterVec<1>,
}

impl ProcessMetrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let build = [("version", crate::VERSION), ("revision", crate::REVISION)];
        registry.register(BUILD.registered_name(), BUILD.help, Info::new(build));
        Self {
            api_requests: counters(registry, &API_REQUESTS),
            api_request_duration: histograms(registry, &API_DURATION),
            watch_errors: counters(registry, &WATCH_ERRORS),
            watch_restarts: counters(registry, &WATCH_RESTARTS),
        }
    }
}
