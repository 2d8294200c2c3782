//! Looks at the ApiTokens of one scope: who asks for them, and the loop that makes them while this replica leads.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::error;
use super::kept::Kept;
use super::metrics::Metrics;
use super::queue::{Name, Queue, name};
use super::reconcile::{self, Context};

/// When to look at a token again, if nothing happens to it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not at all.
    OnChange,
    /// After this.
    After(Duration),
}

/// Where looks are asked for. Nobody listens while this replica does not lead; when it takes over it looks at every token
/// anyway.
pub struct Looks {
    store: Store<Kept>,
    queue: Mutex<Option<Queue>>,
    changed: Notify,
}

impl Looks {
    /// For the tokens in this store.
    pub fn new(store: Store<Kept>) -> Self {
        Self { store, queue: Mutex::new(None), changed: Notify::new() }
    }

    /// Something happened to this token.
    pub fn ask(&self, namespace: &str, token: &str) {
        self.tell(|queue| queue.ask(name(namespace, token)));
    }

    /// Something happened that may concern every token.
    pub fn ask_all(&self) {
        self.tell(Queue::sweep);
    }

    /// Something happened that may concern every token of this namespace.
    pub fn ask_namespace(&self, namespace: &str) {
        self.tell(|queue| queue.sweep_namespace(namespace));
    }

    fn tell(&self, what: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.queue.lock().as_mut() {
            what(queue);
            self.changed.notify_one();
        }
    }

    /// The next token to look at, as the store has it.
    fn next(&self) -> Option<(Name, Arc<Kept>)> {
        loop {
            let token = self.queue.lock().as_mut()?.next(Instant::now(), || self.store.state())?;
            let (namespace, name) = (&*token.0, &*token.1);
            if let Some(kept) = self.store.get(&ObjectRef::new(name).within(namespace)) {
                return Some((token, kept));
            }
            debug!(namespace, name, "gone before it was looked at");
            self.done(&token, Next::OnChange);
        }
    }

    fn done(&self, token: &Name, next: Next) {
        let at = match next {
            Next::OnChange => None,
            Next::After(pause) => Some(Instant::now() + pause),
        };
        if let Some(queue) = self.queue.lock().as_mut() {
            queue.done(token, at);
        }
    }

    /// Tokens that wait, and when the next is due.
    fn outlook(&self) -> (usize, Option<Instant>) {
        self.queue.lock().as_ref().map_or((0, None), |queue| (queue.depth(), queue.wake()))
    }

    /// Looks at every token once, and then at those that something happens to, at most `concurrency` at once. When `over`,
    /// lets those under way end.
    pub async fn run(&self, context: &Arc<Context>, concurrency: usize, over: &CancellationToken) {
        let _open = Open::new(self);
        let mut depth = Depth::new(&context.metrics);
        let mut running = JoinSet::new();
        loop {
            while !over.is_cancelled() && running.len() < concurrency {
                let Some((token, kept)) = self.next() else { break };
                let context = context.clone();
                running.spawn(async move { (token, look(kept, context).await) });
            }
            if over.is_cancelled() && running.is_empty() {
                return;
            }
            let (waiting, wake) = self.outlook();
            depth.show(waiting);
            let has_room = running.len() < concurrency && !over.is_cancelled();
            let due = async {
                match wake.filter(|_| has_room) {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = running.join_next() => match ended {
                    Ok((token, next)) => self.done(&token, next),
                    // A defect: it takes the process down, as it would have where it happened.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                () = self.changed.notified(), if has_room => {}
                () = due => {}
                () = over.cancelled(), if !over.is_cancelled() => {}
            }
        }
    }
}

/// One look, counted.
async fn look(token: Arc<Kept>, context: Arc<Context>) -> Next {
    let started = Instant::now();
    let in_flight = InFlight::new(&context.metrics);
    let result = reconcile::reconcile(token.clone(), &context).await;
    drop(in_flight);
    context.metrics.reconcile_duration.observe(started.elapsed().as_secs_f64());
    context.metrics.reconciles.inc([result.as_ref().map_or_else(error::Error::category, |_| "ok")]);
    result.unwrap_or_else(|error| reconcile::backoff(&token, &error, &context))
}

/// Looks may be asked for while it lives.
struct Open<'a>(&'a Looks);

impl<'a> Open<'a> {
    fn new(looks: &'a Looks) -> Self {
        *looks.queue.lock() = Some(Queue::default());
        Self(looks)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        *self.0.queue.lock() = None;
    }
}

/// This scope's part of the gauge.
struct Depth<'a> {
    metrics: &'a Metrics,
    shown: i64,
}

impl<'a> Depth<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        Self { metrics, shown: 0 }
    }

    fn show(&mut self, depth: usize) {
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        self.metrics.queue_depth.inc_by(depth - self.shown);
        self.shown = depth;
    }
}

impl Drop for Depth<'_> {
    fn drop(&mut self) {
        self.show(0);
    }
}

/// Counts a reconcile as in flight for as long as it lives, even if it is dropped.
struct InFlight(Metrics);

impl InFlight {
    fn new(metrics: &Metrics) -> Self {
        metrics.reconciles_in_flight.inc();
        Self(metrics.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.reconciles_in_flight.dec();
    }
}
