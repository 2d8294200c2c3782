//! One process of the operator: the elector and the controller as `tokenward controller` puts them together, on tasks
//! that can be killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::chance::SeededEntropy;
use super::gates::Exchange;
use crate::api::meaning::Allowed;
use crate::controller::leader::{Elector, Handle, Leadership};
use crate::controller::metrics::Metrics;
use crate::controller::{Controller, Options, Sources, Usage, watches};
use crate::domain::directory::Directory;
use crate::domain::lease;
use crate::domain::ownership::OwnershipRules;
use crate::domain::plan::Settings;
use crate::domain::ports::News;
use crate::domain::token::Prefix;
use crate::ledger::{self, Ledger, Pace};
use crate::platform::budget;
use crate::platform::readiness::Readiness;
use crate::testkit::apiserver::{ApiServer, RequestInfo, When};
use crate::testkit::clock::VirtualClock;

/// Clients of this prefix are processes of the operator.
pub const PREFIX: &str = "replica-";
/// Where replicas elect their leader.
pub const LEASE: (&str, &str) = ("tokenward-system", "tokenward");

/// A running process.
pub struct Replica {
    /// Its name to the server: that of the pod, and how often its container was started.
    pub client: String,
    /// Its wall clock, which may be wrong.
    pub clock: Arc<VirtualClock>,
    server: ApiServer,
    leadership: watch::Receiver<Leadership>,
    shutdown: CancellationToken,
    released: CancellationToken,
    controller: Option<JoinHandle<()>>,
    ledger: Option<(JoinHandle<()>, Exchange)>,
    elector: Option<JoinHandle<()>>,
    pause: Arc<Pause>,
    crash: Option<oneshot::Receiver<RequestInfo>>,
    metrics: Metrics,
}

/// What a replica is started with.
pub struct Start<'a> {
    /// The cluster.
    pub server: &'a ApiServer,
    /// The pod's name.
    pub pod: &'a str,
    /// How often it was started.
    pub start: u64,
    /// Makes its secrets.
    pub seed: u64,
    /// Whether it stands for election.
    pub elect: bool,
    /// Its clock.
    pub clock: Arc<VirtualClock>,
    /// Where its ledger listens; without, it keeps none.
    pub exchange: Option<&'a Exchange>,
}

impl Replica {
    /// Starts a process.
    #[must_use]
    pub fn start(start: &Start<'_>) -> Self {
        let client_name = format!("{PREFIX}{}.{}", start.pod, start.start);
        let client = start.server.client(&client_name);
        let metrics = Metrics::new(&mut Registry::default());
        let pause = Arc::new(Pause::default());
        let (shutdown, released) = (CancellationToken::new(), CancellationToken::new());
        let (handle, elector) = if start.elect {
            let seconds = Duration::from_secs;
            let config = lease::Config::new(start.pod, seconds(15), seconds(10), seconds(2)).unwrap();
            let api = Api::<Lease>::namespaced(client.clone(), LEASE.0);
            let (elector, handle) = Elector::new(api, LEASE.1, config, start.clock.clone(), metrics.clone());
            (handle, Some(elector))
        } else {
            (Handle::always(), None)
        };
        let leadership = handle.leadership.clone();
        let (readiness, ready) = Readiness::channel(watches::awaited(&[]));
        let budget = budget::Shared::new(Pace::default().writes_per_second);
        let (ledger, usage) = match start.exchange {
            Some(exchange) => {
                let world = Arc::default();
                let (ledger, news) =
                    new_ledger(start, (&client, &client_name), budget.clone(), &world, &handle, ready);
                exchange.listen(&client_name, ledger.clone());
                let usage = Usage { source: ledger.board(), news, budget, world };
                (Some((ledger, exchange.clone())), usage)
            }
            None => (None, Usage::none(budget)),
        };
        let elector = elector.map(|elector| match &ledger {
            Some((ledger, _)) => elector.with_notes(ledger.notes()),
            None => elector,
        });
        let elector =
            elector.map(|elector| tokio::spawn(Pause::around(&pause, elector.run(released.clone()))));
        let ledger = ledger.map(|(ledger, exchange)| {
            (tokio::spawn(Pause::around(&pause, ledger.run(shutdown.clone()))), exchange)
        });
        let entropy = pod_number(start.pod) * 100_000 + start.start;
        let controller = Controller::new(
            options(start.pod),
            client,
            Sources {
                clock: start.clock.clone(),
                entropy: Arc::new(SeededEntropy::new(start.seed, entropy)),
            },
            metrics.clone(),
            handle,
            readiness,
            usage,
        );
        let controller = tokio::spawn(Pause::around(&pause, controller.run(shutdown.clone())));
        Self {
            client: client_name,
            clock: start.clock.clone(),
            server: start.server.clone(),
            leadership,
            shutdown,
            released,
            controller: Some(controller),
            ledger,
            elector,
            pause,
            crash: None,
            metrics,
        }
    }

    /// Reconciles so far, however they ended.
    #[must_use]
    pub fn reconciles(&self) -> u64 {
        let results =
            ["ok", "Api", "Timeout", "Conflict", "NotLeading", "Entropy", "Blocked", "Store", "Endless"];
        results.map(|result| self.metrics.reconciles.get([result])).iter().sum()
    }

    /// Whether it leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leadership.borrow().leading
    }

    /// Dies at once: no answer to what is under way is seen, nothing more is sent.
    pub fn kill(&mut self) {
        if let Some((ledger, exchange)) = self.ledger.take() {
            exchange.close(&self.client);
            ledger.abort();
        }
        for task in [self.controller.take(), self.elector.take()].into_iter().flatten() {
            task.abort();
        }
    }

    /// Stops as on SIGTERM: what is under way ends, then the Lease is given back.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(controller) = self.controller.take() {
            controller.await.unwrap();
        }
        if let Some((ledger, exchange)) = self.ledger.take() {
            exchange.close(&self.client);
            ledger.await.unwrap();
        }
        self.released.cancel();
        if let Some(elector) = self.elector.take() {
            elector.await.unwrap();
        }
    }

    /// Stands still, as under SIGSTOP or on a machine that is short of everything, or goes on. Reconciles and the
    /// election do not run meanwhile; time does.
    pub fn pause(&self, on: bool) {
        self.pause.set(on);
    }

    /// Will die at the `n`-th write from now.
    pub fn crash_at_write(&mut self, n: u64, when: When) {
        self.crash = Some(self.server.crash_at_write(&self.client, n, when));
    }

    /// Whether a planned crash has struck; the rest of the process is then taken down.
    pub fn has_crashed(&mut self) -> bool {
        let struck = self.crash.as_mut().is_some_and(|crash| crash.try_recv().is_ok());
        if struck {
            self.crash = None;
            self.kill();
        }
        struck
    }

    /// Whether one of its tasks ended by itself, or a look panicked, which none should.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let panicked = self.metrics.reconciles.get(["Panicked"]) > 0;
        panicked || [&self.controller, &self.elector].into_iter().flatten().any(JoinHandle::is_finished)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps futures from being polled.
#[derive(Default)]
struct Pause {
    on: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Pause {
    fn set(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
        self.waiting.lock().drain(..).for_each(Waker::wake);
    }

    fn around<F: Future<Output = ()> + Send>(
        this: &Arc<Self>,
        work: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let (this, mut work) = (this.clone(), Box::pin(work));
        std::future::poll_fn(move |cx| {
            if this.on.load(Ordering::SeqCst) {
                this.waiting.lock().push(cx.waker().clone());
                return Poll::Pending;
            }
            work.as_mut().poll(cx)
        })
    }
}

fn new_ledger(
    start: &Start<'_>,
    (client, address): (&kube::Client, &str),
    budget: budget::Shared,
    world: &Arc<RwLock<Directory>>,
    handle: &Handle,
    ready: watch::Receiver<Readiness>,
) -> (Ledger, mpsc::Receiver<News>) {
    let options = ledger::Options {
        pace: Pace::default(),
        budget,
        request_timeout: Duration::from_secs(10),
        here: Some((address.to_owned(), "0".repeat(64))),
    };
    let metrics = ledger::metrics::Metrics::new(&mut Registry::default());
    let (client, clock) = (client.clone(), start.clock.clone());
    Ledger::new(options, client, clock, world.clone(), handle.clone(), ready, metrics)
}

fn pod_number(pod: &str) -> u64 {
    pod.bytes().fold(0, |number, byte| number * 31 + u64::from(byte)) % 1000
}

fn options(identity: &str) -> Options {
    Options {
        settings: settings(),
        namespaces: Vec::new(),
        metric_labels: Vec::new(),
        concurrency: 32,
        request_timeout: Duration::from_secs(10),
        resync: Duration::from_secs(10 * 3600),
        shutdown_grace: Duration::from_secs(10),
        identity: identity.to_owned(),
    }
}

/// What every installation in a simulation decides.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        prefix: Prefix::new("twd").unwrap(),
        ownership: OwnershipRules::default(),
        allowed: Allowed::default(),
    }
}
