//! Events on transitions: bounded, rate-limited, and never in the way of the work they tell about.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::metrics::Metrics;
use crate::domain::notice::Notice;

/// Events waiting to be published; more are dropped, and counted.
const QUEUE: usize = 512;
/// Events published at once before the rate applies.
const BURST: f64 = 50.0;
/// Events per second after that: ten thousand tokens created together must not triple the load with their news.
const PER_SECOND: f64 = 10.0;
/// Longest time an event may take to publish.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// The API allows a note of 1 kB.
const MAX_NOTE: usize = 1000;

/// Hands events to the publisher; cheap to clone and never blocks.
#[derive(Clone)]
pub struct Announcer {
    sender: mpsc::Sender<(ObjectReference, Notice)>,
    metrics: Metrics,
}

/// Publishes what [`Announcer`]s hand over.
pub struct Publisher {
    receiver: mpsc::Receiver<(ObjectReference, Notice)>,
    client: Client,
    reporter: Reporter,
    metrics: Metrics,
}

/// A queue with its two ends. `instance` names this process in the events.
pub fn channel(client: Client, instance: &str, metrics: Metrics) -> (Announcer, Publisher) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reporter =
        Reporter { controller: "tokenward.dev/controller".into(), instance: Some(instance.into()) };
    (Announcer { sender, metrics: metrics.clone() }, Publisher { receiver, client, reporter, metrics })
}

impl Announcer {
    /// Queues an event; drops it when the queue is full. Events are best effort, the status is not.
    pub fn announce(&self, about: ObjectReference, notice: Notice) {
        if self.sender.try_send((about, notice)).is_err() {
            self.metrics.events_published.inc(["dropped"]);
        }
    }
}

impl Publisher {
    /// Publishes until every announcer is gone.
    pub async fn run(mut self) {
        let mut budget = Budget { tokens: BURST, at: Instant::now() };
        while let Some((about, notice)) = self.receiver.recv().await {
            if !budget.take(Instant::now()) {
                self.metrics.events_published.inc(["dropped"]);
                continue;
            }
            let event = Event {
                type_: if notice.warning { EventType::Warning } else { EventType::Normal },
                reason: notice.reason.as_str().to_owned(),
                note: Some(notice.note.chars().take(MAX_NOTE).collect()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            // A recorder that is kept counts what has the same reason as one event, with the note of the first: the second
            // rotation within minutes would name the credential of the first. A notice is a transition, and never repeats.
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            match timeout(PUBLISH_TIMEOUT, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => self.metrics.events_published.inc(["published"]),
                Ok(Err(error)) => {
                    debug!(%error, "event not published");
                    self.metrics.events_published.inc(["failed"]);
                }
                Err(_) => self.metrics.events_published.inc(["failed"]),
            }
        }
    }
}

/// A token bucket on the clock that is passed in.
struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.tokens = (self.tokens + earned).min(BURST);
        self.at = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let start = Instant::now();
        let mut budget = Budget { tokens: BURST, at: start };
        assert_eq!((0..100).filter(|_| budget.take(start)).count(), 50);
        assert_eq!((0..100).filter(|_| budget.take(start + Duration::from_secs(2))).count(), 20);
    }
}
