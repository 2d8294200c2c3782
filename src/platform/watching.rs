//! Watches that go on for ever, and say why when they falter.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::process::ProcessMetrics;
use super::words;

/// The events of a watch that is retried for ever. Every error is counted and told, with what to do about it.
pub fn resilient<K>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    resource: &'static str,
    metrics: &ProcessMetrics,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Send,
{
    let metrics = metrics.clone();
    let mut lists = 0_u64;
    stream.backoff(Retry::default()).filter_map(move |event| {
        let event = match event {
            Ok(event) => {
                if matches!(event, Event::Init) {
                    if lists > 0 {
                        metrics.watch_restarts.inc([resource]);
                        debug!(resource, "watch starts over with a list");
                    }
                    lists += 1;
                }
                Some(event)
            }
            Err(error) => {
                metrics.watch_errors.inc([resource]);
                explain(resource, &error);
                None
            }
        };
        std::future::ready(event)
    })
}

/// Logs why a watch failed, with what to do about it.
pub fn explain(resource: &'static str, error: &watcher::Error) {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code,
        _ => 0,
    };
    let (unreachable, broken) = match error {
        watcher::Error::InitialListFailed(kube::Error::Service(_))
        | watcher::Error::WatchStartFailed(kube::Error::Service(_)) => (true, false),
        watcher::Error::WatchFailed(_) => (false, true),
        _ => (false, false),
    };
    let error = words::of_watch(error);
    match code {
        404 if resource == "apitokens" => error!(
            resource,
            "the ApiToken CRD is not installed: install the chart, or apply the output of `tokenward crds`; trying again"
        ),
        403 => {
            error!(resource, error, "this may not be watched: check the Roles and --namespaces; trying again")
        }
        // Watches expire by design.
        410 => info!(resource, "watch expired; starting over"),
        // Connections end. If there is no other, the client tells that, for all watches together.
        _ if broken => info!(resource, error, "the watch broke off; opening it again"),
        _ if unreachable => debug!(resource, error, "watch failed; trying again"),
        _ => warn!(resource, error, "watch failed; trying again"),
    }
}

/// Half a second, doubling to fifteen. Without chance: two replicas differ in time anyway, and a replayed simulation
/// must not differ at all.
#[derive(Debug)]
pub struct Retry {
    next: Duration,
    failed: Option<Instant>,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(500);
    const LAST: Duration = Duration::from_secs(15);
    /// A watch that has worked for this long starts again with the shortest pause.
    const CALM: Duration = Duration::from_secs(60);
}

impl Default for Retry {
    fn default() -> Self {
        Self { next: Self::FIRST, failed: None }
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.next;
        self.next = (now * 2).min(Self::LAST);
        self.failed = Some(Instant::now());
        Some(now)
    }
}

impl Backoff for Retry {
    /// Called at every event; each attempt begins with one, also an attempt that then fails.
    fn reset(&mut self) {
        if self.failed.is_some_and(|failed| failed.elapsed() > Self::CALM) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_that_keep_failing_become_rare() {
        let mut retry = Retry::default();
        let pauses: Vec<_> = (0..7)
            .map(|_| {
                retry.reset();
                retry.next().unwrap().as_millis()
            })
            .collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 15000, 15000]);
        tokio::time::advance(Retry::CALM * 2).await;
        retry.reset();
        assert_eq!(retry.next(), Some(Retry::FIRST));
    }
}
