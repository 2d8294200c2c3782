//! A runtime of its own for what has to work whatever hangs: signals, the admin endpoint, the election, and the watch over
//! the rest of the process.
//!
//! Everything else runs on the main runtime, where the work that users declare is done. Were a piece of that never to end,
//! it would keep a worker there and none here. Two workers, because an election may wait for a lock of the main runtime.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use super::{RunError, telemetry};
use crate::platform::process::ProcessMetrics;
use crate::platform::vitals::Vitals;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// After this, a process that hangs and that nobody ended ends itself. More than the chart's liveness probe takes.
const LEAVE_AFTER: Duration = Duration::from_secs(120);
/// The exit code of a process that hung.
const EXIT_STALLED: i32 = 1;

/// From when on something is said to hang.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A piece of work that keeps a worker.
    pub held: Duration,
    /// Work that does not come round.
    pub silent: Duration,
    /// Work that comes round and does not get on, while there is some. Longer than any call may take.
    pub stuck: Duration,
}

impl Limits {
    /// With calls of this length at most.
    pub fn with_calls_of(request_timeout: Duration) -> Self {
        let silent = Duration::from_secs(30);
        Self { held: Duration::from_secs(10), silent, stuck: silent + request_timeout }
    }
}

/// The second runtime. Ends when it is dropped, whatever runs there.
pub struct Overseer(Option<Runtime>);

impl Overseer {
    /// Starts its threads.
    pub fn start() -> Result<Self, RunError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("overseer").enable_all().build();
        let runtime =
            runtime.map_err(|source| RunError::Io { what: "the async runtime did not start", source })?;
        Ok(Self(Some(runtime)))
    }

    /// To run something there.
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Overseer {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Does something on another runtime. It only fails with that runtime.
pub async fn on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, RunError> {
    runtime.spawn(work).await.map_err(|_| RunError::Ended)
}

/// What is watched.
pub struct Subject {
    /// Its signs of life.
    pub vitals: Arc<Vitals>,
    /// Whether there is work that waits.
    pub waiting: Box<dyn Fn() -> bool + Send>,
    /// From when on it hangs.
    pub limits: Limits,
    /// Counts what keeps a worker.
    pub held: Counter,
    /// Says whether it hangs.
    pub stalled: Gauge,
}

impl Subject {
    /// Of a role that has no queue of work.
    pub fn without_queue(vitals: Arc<Vitals>, limits: Limits, metrics: &ProcessMetrics) -> Self {
        let (held, stalled) = (Counter::default(), metrics.stalled.clone());
        Self { vitals, waiting: Box::new(|| false), limits, held, stalled }
    }
}

/// Looks every second until the process ends. Once it hangs, `stalled` is cancelled, and the process ends itself later if
/// nobody else ends it. To be run by an [`Overseer`].
pub async fn watch(subject: Subject, stalled: CancellationToken) {
    let mut watch = Watch::new(subject.limits, Instant::now());
    let look = LOOK.min(subject.limits.silent / 10);
    let why = loop {
        tokio::time::sleep(look).await;
        for held in subject.vitals.held(subject.limits.held) {
            subject.held.inc();
            tracing::error!(
                namespace = held.namespace,
                name = held.name,
                seconds = held.by.as_secs(),
                "this ApiToken keeps a worker busy and does not let go; the others are looked at by the workers that are left"
            );
        }
        let waiting = (subject.waiting)();
        if let Some(why) = watch.look(Instant::now(), subject.vitals.counts(), waiting) {
            break why;
        }
    };
    subject.stalled.set(1);
    subject.vitals.stall(why.clone());
    tracing::error!(
        why,
        "this process hangs: it is no longer healthy, gives up its Lease if it has one, and waits to be restarted"
    );
    stalled.cancel();
    tokio::time::sleep(LEAVE_AFTER).await;
    tracing::error!("nobody restarted this process: it ends itself");
    telemetry::flush();
    std::process::exit(EXIT_STALLED);
}

/// Judges signs of life over time.
#[derive(Debug)]
struct Watch {
    limits: Limits,
    looked: Instant,
    counts: (u64, u64),
    silent: Duration,
    stuck: Duration,
}

impl Watch {
    /// Most time that counts between two looks: when the whole process stood still, so did the watch.
    const MOST: Duration = Duration::from_secs(3);

    fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, looked: now, counts: (0, 0), silent: Duration::ZERO, stuck: Duration::ZERO }
    }

    /// Why it hangs, if it does.
    fn look(&mut self, now: Instant, (beats, steps): (u64, u64), waiting: bool) -> Option<String> {
        let passed = now.duration_since(self.looked).min(Self::MOST);
        self.looked = now;
        self.silent = if beats == self.counts.0 { self.silent + passed } else { Duration::ZERO };
        self.stuck = if waiting && steps == self.counts.1 { self.stuck + passed } else { Duration::ZERO };
        self.counts = (beats, steps);
        if self.silent >= self.limits.silent {
            return Some(format!("the work has not come round for {} s", self.silent.as_secs()));
        }
        (self.stuck >= self.limits.stuck)
            .then(|| format!("work waits, and nothing has got on for {} s", self.stuck.as_secs()))
    }
}

#[cfg(test)]
mod tests;
