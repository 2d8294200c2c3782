//! A cluster with some ApiTokens, and ledgers over it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokenward::api::report::{CallerUse, CredentialUse, OutcomeCount, Receipt, Report, Sealed, Settled};
use tokenward::api::{ApiToken, Outcome, TokenUsage, TokenUsageStatus};
use tokenward::domain::directory::{Claimant, Directory, Published};
use tokenward::domain::ports::{Clock as _, News};
use tokenward::domain::token::CredentialId;
use tokenward::ledger::metrics::Metrics;
use tokenward::ledger::{Ledger, Options, Pace, Refusal};
use tokenward::platform::budget;
use tokenward::platform::leadership::Handle;
use tokenward::platform::readiness::Readiness;
use tokenward::testkit::apiserver::{ApiServer, Fault, RequestInfo, Verb};
use tokenward::testkit::clock::VirtualClock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const NAMESPACE: &str = "default";

pub struct Cluster {
    pub server: ApiServer,
    pub clock: Arc<VirtualClock>,
    pub world: Arc<RwLock<Directory>>,
}

/// A running ledger.
pub struct Process {
    pub ledger: Ledger,
    pub news: mpsc::Receiver<News>,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn credential(number: usize) -> String {
    format!("{number:010}")
}

pub async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

impl Cluster {
    pub fn new() -> Self {
        let clock = Arc::new(VirtualClock::default());
        Self { server: ApiServer::new(clock.clone()), clock, world: Arc::default() }
    }

    pub fn client(&self) -> Client {
        self.server.client("tester")
    }

    /// An ApiToken with one credential, as the watch would report it. Returns its uid.
    pub async fn token(&self, name: &str, id: &str) -> String {
        let api = Api::<ApiToken>::namespaced(self.client(), NAMESPACE);
        let token: ApiToken = serde_json::from_value(json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "metadata": {"name": name}, "spec": {},
        }))
        .unwrap();
        let token = api.create(&PostParams::default(), &token).await.unwrap();
        let claimant = Claimant {
            created: self.clock.now().as_second(),
            uid: token.uid().to_owned(),
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
        };
        self.world.write().apply(
            &claimant,
            &[Published { id: CredentialId::parse(id).unwrap(), print: None, current: true, shown: None }],
        );
        token.uid().to_owned()
    }

    pub async fn delete_token(&self, name: &str, uid: &str) {
        let api = Api::<ApiToken>::namespaced(self.client(), NAMESPACE);
        api.delete(name, &DeleteParams::default()).await.unwrap();
        self.world.write().remove(uid);
    }

    /// A ledger that always leads.
    pub fn ledger(&self, client: &str) -> Process {
        self.elected(client, Handle::always())
    }

    pub fn elected(&self, client: &str, leader: Handle) -> Process {
        let options = Options {
            pace: Pace::default(),
            budget: budget::Shared::new(Pace::default().writes_per_second),
            request_timeout: Duration::from_secs(5),
            here: None,
        };
        let (_, ready) = Readiness::channel([]);
        let metrics = Metrics::new(&mut Registry::default());
        let client = self.server.client(client);
        let (ledger, news) =
            Ledger::new(options, client, self.clock.clone(), self.world.clone(), leader, ready, metrics);
        let stop = CancellationToken::new();
        let task = tokio::spawn(ledger.clone().run(stop.clone()));
        Process { ledger, news, stop, task }
    }

    pub fn usage(&self, name: &str) -> Option<TokenUsage> {
        let object = self.server.get("tokenusages", NAMESPACE, name)?;
        Some(serde_json::from_value(object.as_ref().clone()).unwrap())
    }

    pub fn status(&self, name: &str) -> TokenUsageStatus {
        self.usage(name).and_then(|usage| usage.status).unwrap_or_default()
    }

    /// Writes that this client made.
    pub fn writes(&self, client: &str) -> u64 {
        self.server.writes(|who| who == client)
    }

    /// The fate of this client's writes of a TokenUsage's status, by their number from 1.
    pub fn fate(&self, client: &'static str, fate: impl Fn(u64) -> Fault + Send + Sync + 'static) {
        let count = std::sync::atomic::AtomicU64::new(0);
        let faults = move |request: &RequestInfo| {
            let concerned = &*request.client == client
                && request.verb == Verb::Update
                && request.resource == "tokenusages"
                && request.subresource.is_some();
            match concerned {
                true => fate(count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1),
                false => Fault::None,
            }
        };
        self.server.set_faults(Some(Arc::new(faults)));
    }

    /// Accepted requests with a credential, just now.
    pub fn sealed(&self, uid: &str, sequence: u64, id: &str, count: u64) -> Sealed {
        let now = self.clock.now().as_second();
        let caller = CallerUse {
            address: "10.0.0.1".to_owned(),
            count,
            first_seen: now,
            last_seen: now,
            ..CallerUse::default()
        };
        let used = CredentialUse {
            credential: id.to_owned(),
            outcomes: vec![OutcomeCount { outcome: Outcome::Accepted.index(), count }],
            first_used: now,
            last_used: now,
            callers: vec![caller],
            ..CredentialUse::default()
        };
        Sealed { token: uid.to_owned(), sequence, credentials: vec![used], scopes: Vec::new() }
    }

    /// A gate since the begin of time.
    pub fn gate(&self, name: &str) -> Gate {
        let started = self.clock.now();
        Gate { name: name.to_owned(), started, sequence: 0 }
    }
}

/// As much of a gate as a ledger sees.
pub struct Gate {
    name: String,
    started: Timestamp,
    sequence: u64,
}

impl Gate {
    pub fn send(&mut self, process: &Process, sealed: Vec<Sealed>) -> Result<Vec<Settled>, Refusal> {
        self.sequence += 1;
        process.ledger.report(self.report(sealed)).map(|receipt: Receipt| receipt.settled)
    }

    pub fn report(&self, sealed: Vec<Sealed>) -> Report {
        Report {
            gate: self.name.clone(),
            epoch: u64::try_from(self.started.as_millisecond()).unwrap(),
            sequence: self.sequence,
            observing_since: self.started.as_second(),
            leaving: false,
            sealed,
            open: Vec::new(),
            more: false,
        }
    }

    /// Gives a sign of life each second until something is settled.
    pub async fn until_settled(&mut self, process: &Process) -> Vec<Settled> {
        for _ in 0..600 {
            let settled = self.send(process, vec![]).unwrap();
            if !settled.is_empty() {
                return settled;
            }
            seconds(1.0).await;
        }
        panic!("nothing is settled in ten minutes");
    }
}
