//! What a test may set about the server.

use std::time::Duration;

/// Knobs of the server. The defaults suit simulations: faithful, and quiet when nothing happens.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where uids and generated names come from.
    pub seed: u64,
    /// The version before the first write. Well above 1, so that `resourceVersion: "1"` never names a real state.
    pub first_resource_version: u64,
    /// Changes kept for each resource; a watch from before them is answered with 410.
    pub history: usize,
    /// How often a watch that asked for bookmarks gets one (about a minute in the real server). One is sent when the
    /// watch times out in any case; the periodic ones are off by default, for they would be most of the events of a
    /// month in virtual time.
    pub bookmark_every: Option<Duration>,
    /// How long a watch lasts that names no timeout.
    pub watch_timeout: Duration,
    /// How long a watch lasts at least, whatever it asks for. The real server has no such floor; a month in virtual time
    /// would otherwise consist of watches that start over.
    pub watch_timeout_floor: Option<Duration>,
    /// How long the garbage collector takes to act on a vanished owner.
    pub gc_delay: Duration,
    /// How long the namespace controller takes to empty a namespace that is being deleted.
    pub namespace_delay: Duration,
    /// Whether a namespaced object needs its namespace.
    pub require_namespaces: bool,
    /// Requests kept in the log; counters are kept of all.
    pub request_log: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            first_resource_version: 1000,
            history: 1000,
            bookmark_every: None,
            watch_timeout: Duration::from_secs(1800),
            watch_timeout_floor: None,
            gc_delay: Duration::from_secs(1),
            namespace_delay: Duration::from_secs(2),
            require_namespaces: true,
            request_log: 10_000,
        }
    }
}
