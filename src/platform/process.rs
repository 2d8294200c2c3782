//! What every role counts about itself and its calls to the API server.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::families::{CounterVec, HistogramVec, PREFIX, counters, histograms, register, table};

table! {
    API_REQUESTS: Counter "api_requests_total" ["verb", "code"]
        "Requests to the API server by verb and HTTP status; without an answer, code is timeout, error or dropped (given up)";
    API_DURATION: Histogram "api_request_duration_seconds" ["verb"]
        "Time until the API server's answer began; for watches, until the stream opened";
    WATCH_ERRORS: Counter "watch_errors_total" ["resource"]
        "Watches that were refused or broke off with an error";
    WATCH_RESTARTS: Counter "watch_restarts_total" ["resource"]
        "Times a watch had to list everything anew";
    STALLED: Gauge "stalled" []
        "1 once the process hangs: its work does not come round or does not get on, and it waits to be restarted; else 0";
    LOG_LINES_LOST: Counter "log_lines_lost_total" []
        "Log lines that were not written, because whoever reads them does not keep up or is gone";
    BUILD: Info "build_info" ["version", "revision"]
        "The version that runs";
}

/// `log_lines_lost_total`: there is one log, whoever counts.
pub static LOST_LINES: LazyLock<Counter> = LazyLock::new(Counter::default);

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
    /// `stalled`.
    pub stalled: Gauge,
}

impl ProcessMetrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let build = [("version", crate::VERSION), ("revision", crate::REVISION)];
        registry.register(BUILD.registered_name(), BUILD.help, Info::new(build));
        register(registry, &LOG_LINES_LOST, LOST_LINES.clone());
        Self {
            api_requests: counters(registry, &API_REQUESTS),
            api_request_duration: histograms(registry, &API_DURATION),
            watch_errors: counters(registry, &WATCH_ERRORS),
            watch_restarts: counters(registry, &WATCH_RESTARTS),
            stalled: register(registry, &STALLED, Gauge::default()),
        }
    }
}
