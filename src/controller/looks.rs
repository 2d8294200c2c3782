//! Looks at the ApiTokens of one scope: who asks for them, and the loop that makes them while this replica leads.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::error;
use super::kept::Kept;
use super::metrics::Metrics;
use super::queue::{Name, Queue, Turn, name};
use super::reconcile::{self, Context};
use crate::platform::budget::{Purse, Shared};
use crate::platform::vitals::Vitals;

/// When to look at a token again, if nothing happens to it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not at all.
    OnChange,
    /// After this.
    After(Duration),
    /// When the budget has room for its news; after this in any case.
    InLine(Option<Duration>),
    /// When the watch has caught up with it: until then nothing can be told, not even what is paid for.
    Stale {
        /// Who has paid for the look that came too early, and so has for the next one.
        paid: Option<Purse>,
        /// The watch may be silent.
        at_the_latest: Duration,
    },
}

/// Where looks are asked for. Nobody listens while this replica does not lead; when it takes over it looks at every token
/// anyway.
pub struct Looks {
    store: Store<Kept>,
    budget: Shared,
    queue: Mutex<Option<Queue>>,
    changed: Notify,
}

impl Looks {
    /// For the tokens in this store. What nobody waits for is told within `budget`.
    pub fn new(store: Store<Kept>, budget: Shared) -> Self {
        Self { store, budget, queue: Mutex::new(None), changed: Notify::new() }
    }

    /// Something happened to this token.
    pub fn ask(&self, namespace: &str, token: &str) {
        self.tell(|queue| queue.ask(name(namespace, token)));
    }

    /// Uses of this token were persisted, and a write was set aside for showing them.
    pub fn ask_reserved(&self, namespace: &str, token: &str) {
        let kept = self.tell(|queue| queue.ask_reserved(name(namespace, token)));
        if kept != Some(true) {
            self.budget.charge(Purse::Uses, -1, Instant::now());
        }
    }

    /// Something happened that may concern every token.
    pub fn ask_all(&self) {
        self.tell(Queue::sweep);
    }

    /// Something happened that may concern every token of this namespace.
    pub fn ask_namespace(&self, namespace: &str) {
        self.tell(|queue| queue.sweep_namespace(namespace));
    }

    fn tell<T>(&self, what: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let told = what(self.queue.lock().as_mut()?);
        self.changed.notify_one();
        Some(told)
    }

    /// The next token to look at, as the store has it.
    fn next(&self) -> Option<(Turn, Arc<Kept>)> {
        loop {
            let now = Instant::now();
            let turn = {
                let mut queue = self.queue.lock();
                let queue = queue.as_mut()?;
                let affordable = queue.in_line() > 0 && self.budget.when(Purse::News, now) <= now;
                queue.next(now, affordable, || self.store.state())?
            };
            if turn.is_charged {
                self.budget.charge(Purse::News, 1, now);
            }
            let (namespace, name) = (&*turn.token.0, &*turn.token.1);
            if let Some(kept) = self.store.get(&ObjectRef::new(name).within(namespace)) {
                return Some((turn, kept));
            }
            debug!(namespace, name, "gone before it was looked at");
            if let Some(purse) = turn.paid {
                self.budget.charge(purse, -1, now);
            }
            self.done(&turn.token, Next::OnChange);
        }
    }

    fn done(&self, token: &Name, next: Next) {
        let now = Instant::now();
        let at = match next {
            Next::OnChange | Next::InLine(None) => None,
            Next::After(pause) | Next::InLine(Some(pause)) | Next::Stale { at_the_latest: pause, .. } => {
                Some(now + pause)
            }
        };
        let mut unused = None;
        if let Some(queue) = self.queue.lock().as_mut() {
            match next {
                Next::InLine(_) => queue.line_up(token),
                Next::Stale { paid: Some(purse), .. } => unused = queue.keep(token, purse),
                _ => {}
            }
            queue.done(token, at);
        }
        if let Some(purse) = unused {
            self.budget.charge(purse, -1, now);
        }
    }

    /// Tokens that wait for a look, those that wait to tell news, and when there is something to do by itself.
    fn outlook(&self) -> (usize, usize, Option<Instant>) {
        let queue = self.queue.lock();
        let Some(queue) = queue.as_ref() else { return (0, 0, None) };
        let news = queue.has_idle_in_line().then(|| {
            // Timers tick in milliseconds and may fire early by one.
            self.budget.when(Purse::News, Instant::now()) + Duration::from_millis(1)
        });
        (queue.depth(), queue.in_line(), queue.wake().into_iter().chain(news).min())
    }

    /// Looks at every token once, and then at those that something happens to, at most `concurrency` at once. When `over`,
    /// lets those under way end.
    pub async fn run(&self, context: &Arc<Context>, concurrency: usize, over: &CancellationToken) {
        let _open = Open::new(self);
        let mut depth = Share::new(&context.metrics.queue_depth);
        let mut in_line = Share::new(&context.metrics.news_waiting);
        let mut running = JoinSet::new();
        loop {
            while !over.is_cancelled() && running.len() < concurrency {
                let Some((Turn { token, paid, .. }, kept)) = self.next() else { break };
                let context = context.clone();
                running.spawn(async move { (token, look(kept, paid, context).await) });
            }
            if over.is_cancelled() && running.is_empty() {
                return;
            }
            let (waiting, news, wake) = self.outlook();
            depth.show(waiting);
            in_line.show(news);
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
                // Also without room: what waits is shown all the same.
                () = self.changed.notified(), if !over.is_cancelled() => {}
                () = due => {}
                () = over.cancelled(), if !over.is_cancelled() => {}
            }
        }
    }
}

/// One look, counted.
async fn look(token: Arc<Kept>, paid: Option<Purse>, context: Arc<Context>) -> Next {
    let started = Instant::now();
    let in_flight = InFlight::new(&context.metrics);
    let work = reconcile::reconcile(token.clone(), paid, &context);
    let result = alone(&context.vitals, token.namespace(), token.name(), work).await;
    drop(in_flight);
    context.metrics.reconcile_duration.observe(started.elapsed().as_secs_f64());
    context.metrics.reconciles.inc([result.as_ref().map_or_else(error::Error::category, |_| "ok")]);
    result.unwrap_or_else(|error| reconcile::backoff(&token, &error, &context))
}

/// Shows what a look does: one that hangs keeps its worker, and is named. One that panics, a defect, fails by itself: were it to
/// take the process down, one ApiToken would hold up all others, again after each restart.
async fn alone<T>(
    vitals: &Arc<Vitals>,
    namespace: &str,
    name: &str,
    work: impl Future<Output = Result<T, error::Error>>,
) -> Result<T, error::Error> {
    let work = vitals.watched(namespace, name, work);
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Err(error::Error::Panicked))
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
        let queue = self.0.queue.lock().take();
        for purse in queue.iter().flat_map(Queue::unused) {
            self.0.budget.charge(purse, -1, Instant::now());
        }
    }
}

/// This scope's part of a gauge.
struct Share<'a> {
    gauge: &'a Gauge,
    shown: i64,
}

impl<'a> Share<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        Self { gauge, shown: 0 }
    }

    fn show(&mut self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.gauge.inc_by(count - self.shown);
        self.shown = count;
    }
}

impl Drop for Share<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn a_defect() -> Result<i32, error::Error> {
        panic!("a defect");
    }

    #[test]
    fn a_look_that_hangs_or_panics_stalls_no_other() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let vitals = Arc::new(Vitals::default());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (began, begins) = tokio::sync::oneshot::channel();
        runtime.block_on(async {
            let own = vitals.clone();
            let hangs = tokio::spawn(async move {
                let work = async move {
                    let _ = began.send(());
                    let _ = held.recv();
                    Ok(1)
                };
                alone(&own, "shop", "hangs", work).await
            });
            begins.await.unwrap();
            assert_eq!(
                alone(&vitals, "shop", "panics", a_defect()).await.unwrap_err().category(),
                "Panicked"
            );
            for number in 0..100 {
                let own = vitals.clone();
                let other =
                    tokio::spawn(async move { alone(&own, "shop", "others", async { Ok(number) }).await });
                assert_eq!(other.await.unwrap().unwrap(), number);
            }
            let named: Vec<_> = vitals.held(Duration::ZERO).into_iter().map(|held| held.name).collect();
            assert_eq!(named, ["hangs"]);
            drop(release);
            assert_eq!(hangs.await.unwrap().unwrap(), 1);
        });
    }
}
