//! Gates in a simulated world: the real index, feed, recorder and reporter, and a way to the ledgers of the replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::replica::{LEASE, settings};
use crate::api::Outcome;
use crate::api::report::{Receipt, Report};
use crate::domain::ports::Clock as _;
use crate::gate::callers::{Addresses, Caller};
use crate::gate::demand::Demand;
use crate::gate::metrics::{Dialect, GateMetrics};
use crate::gate::reporter::core::Identity;
use crate::gate::reporter::{Connect, LedgerLink, LinkError, Setup};
use crate::gate::{Gate, Settings, feed, locate, reporter};
use crate::ledger::{Ledger, Refusal};
use crate::platform::process::ProcessMetrics;
use crate::platform::readiness::Readiness;
use crate::testkit::apiserver::ApiServer;
use crate::testkit::clock::VirtualClock;

/// How often simulated gates report.
pub const FLUSH: Duration = Duration::from_secs(1);
/// How long a report or its receipt is under way.
const LATENCY: Duration = Duration::from_millis(3);

/// The network between gates and ledgers.
#[derive(Clone)]
pub struct Exchange(Arc<Mutex<Lines>>);

struct Lines {
    ledgers: BTreeMap<String, Ledger>,
    chance: Chance,
    /// Out of a hundred, reports that are lost, and as many receipts.
    lost: u32,
}

impl Exchange {
    pub(super) fn new(seed: u64) -> Self {
        let lines = Lines { ledgers: BTreeMap::new(), chance: Chance::new(seed, 3), lost: 0 };
        Self(Arc::new(Mutex::new(lines)))
    }

    /// A ledger listens at this address.
    pub(super) fn listen(&self, address: &str, ledger: Ledger) {
        self.0.lock().ledgers.insert(address.to_owned(), ledger);
    }

    /// Nobody listens there any more.
    pub(super) fn close(&self, address: &str) {
        self.0.lock().ledgers.remove(address);
    }

    /// So many of a hundred reports are lost from now on, and as many receipts.
    pub fn lose(&self, percent: u32) {
        self.0.lock().lost = percent;
    }

    fn find(&self, address: &str) -> Option<Ledger> {
        self.0.lock().ledgers.get(address).cloned()
    }

    fn loses(&self) -> bool {
        let mut lines = self.0.lock();
        let lost = lines.lost;
        lost > 0 && lines.chance.percent(lost)
    }
}

impl Connect for Exchange {
    type Link = Line;

    fn connect(&self, ledger: &locate::Ledger) -> Line {
        Line { exchange: self.clone(), address: ledger.address.clone() }
    }
}

/// The way from a gate to one ledger.
pub struct Line {
    exchange: Exchange,
    address: String,
}

impl LedgerLink for Line {
    async fn report(&self, report: Report) -> Result<Receipt, LinkError> {
        let lost = || LinkError::Unreachable("lost on the way".into());
        tokio::time::sleep(LATENCY).await;
        if self.exchange.loses() {
            return Err(lost());
        }
        let ledger = self.exchange.find(&self.address).ok_or_else(lost)?;
        let answer = ledger.report(report);
        tokio::time::sleep(LATENCY).await;
        if self.exchange.loses() {
            return Err(lost());
        }
        answer.map_err(|refusal| match refusal {
            Refusal::NotLeading => LinkError::NotLeading("not the leader".to_owned()),
            other => LinkError::Refused(other.to_string()),
        })
    }
}

/// A running gate.
pub struct GatePod {
    /// Its name to the server.
    pub client: String,
    /// Its wall clock.
    pub clock: Arc<VirtualClock>,
    gate: Arc<Gate>,
    tasks: Vec<JoinHandle<()>>,
    reporter: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl GatePod {
    /// Starts a gate's process, the `start`-th of this pod.
    pub(super) fn start(
        server: &ApiServer,
        exchange: &Exchange,
        pod: &str,
        start: u64,
        clock: VirtualClock,
    ) -> Self {
        let client_name = format!("gate-{pod}.{start}");
        let client = server.client(&client_name);
        let clock = Arc::new(clock);
        let gate = Arc::new(Gate::new(Settings {
            prefix: settings().prefix,
            deny_when_stale_for: None,
            addresses: Addresses::Full,
        }));
        let now = clock.clone();
        let mut registry = Registry::default();
        let metrics = GateMetrics::new(&mut registry, &gate, move || now.now().as_second());
        let (readiness, _) = Readiness::channel([feed::SYNCED]);
        let setup = feed::Setup {
            gate: gate.clone(),
            client: client.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let feed = tokio::spawn(async move { feed::run(setup, &[], &readiness).await });
        let (found, ledger) = watch::channel(None);
        let leases = Api::<Lease>::namespaced(client, LEASE.0);
        let process = ProcessMetrics::new(&mut Registry::default());
        let locate = tokio::spawn(async move { locate::run(leases, LEASE.1, &found, &process).await });
        let stop = CancellationToken::new();
        let epoch = u64::try_from(clock.now().as_millisecond()).unwrap_or(1);
        let setup = Setup {
            gate: gate.clone(),
            clock: clock.clone(),
            metrics,
            identity: Identity { gate: pod.to_owned(), epoch },
            flush: FLUSH,
            grace: Duration::from_secs(10),
        };
        let reporter = tokio::spawn(reporter::run(setup, ledger, exchange.clone(), stop.clone()));
        Self { client: client_name, clock, gate, tasks: vec![feed, locate], reporter: Some(reporter), stop }
    }

    /// Asks it about a token, as a proxy would.
    #[must_use]
    pub fn ask(&self, token: &str, user_agent: &str) -> Outcome {
        let caller = Caller { user_agent, ..Caller::default() };
        self.gate.check(Dialect::Nginx, Ok(token), &Demand::none(), &caller, self.clock.now()).outcome()
    }

    /// Asks it about a token; says also of which ApiToken it is, `namespace/name`, if it may pass.
    #[must_use]
    pub fn ask_whose(&self, token: &str) -> (Outcome, Option<String>) {
        let now = self.clock.now();
        let verdict = self.gate.check(Dialect::Nginx, Ok(token), &Demand::none(), &Caller::default(), now);
        let whose =
            verdict.found().filter(|_| verdict.is_accepted()).map(|found| found.record().token().to_owned());
        (verdict.outcome(), whose)
    }

    /// Dies at once: what it had not reported is lost.
    pub(super) fn kill(&mut self) {
        self.tasks.drain(..).chain(self.reporter.take()).for_each(|task| task.abort());
    }

    /// Leaves in order: what is left is reported, for ten seconds at most.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(reporter) = self.reporter.take() {
            reporter.await.unwrap();
        }
        self.kill();
    }
}

impl Drop for GatePod {
    fn drop(&mut self) {
        self.kill();
    }
}
