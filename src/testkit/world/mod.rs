//! A seeded world in virtual time: the real controller in one or more replicas, the in-process API server, people who
//! change things, and everything that goes wrong. Oracles watch every commit for a broken invariant.
//!
//! | module | job |
//! |---|---|
//! | `chance` | everything that a seed decides |
//! | `replica` | one process of the operator, that can be killed |
//! | `gates` | processes of the gate, and their way to the ledgers |
//! | `people` | what users and other controllers do |
//! | `mallory` | what a tenant does who attacks the others |
//! | `weather` | what networks, servers and clocks do |
//! | `oracle`, `book`, `gate` | what must hold, judged without the code that is judged |
//! | `story` | a seed as a sequence of days |

mod book;
pub mod chance;
mod gate;
pub mod gates;
pub mod mallory;
pub mod oracle;
pub mod people;
pub mod replica;
pub mod story;
pub mod weather;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;

use self::book::parse;
use self::gates::{Exchange, GatePod};
use self::oracle::Oracle;
use self::people::People;
use self::replica::{LEASE, Replica, Start};
use self::weather::{Network, Weather};
use super::apiserver::{ApiServer, Config, When};
use super::clock::VirtualClock;
use crate::api::{ApiToken, ConditionType, CredentialState, Health};
use crate::domain::ports::Clock as _;
use crate::domain::schedule::{Expiry, Rotation};
use crate::domain::token::Token;
use crate::domain::{delivery, ownership};

/// Long enough for every backoff, look-again and watch retry to have had its turn.
pub const SETTLE: Duration = Duration::from_secs(600);

/// Where simulated users keep their tokens.
pub const NAMESPACES: [&str; 2] = ["shop", "billing"];

/// A cluster with an operator in it.
pub struct World {
    /// The API server.
    pub server: ApiServer,
    /// The time that is right.
    pub clock: Arc<VirtualClock>,
    /// What must hold.
    pub oracle: Oracle,
    /// Users and other controllers.
    pub people: People,
    /// What happened, for people to read.
    pub story: Vec<String>,
    replicas: BTreeMap<&'static str, Replica>,
    starts: BTreeMap<&'static str, u64>,
    seed: u64,
    elect: bool,
    /// Where ledgers listen, in a world that has them.
    exchange: Option<Exchange>,
    gates: BTreeMap<&'static str, GatePod>,
}

impl World {
    /// A cluster with its namespaces and no operator yet.
    #[must_use]
    pub fn new(seed: u64, elect: bool) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let config = Config {
            seed,
            // Watches that start over every five minutes would be most of a month.
            watch_timeout_floor: Some(Duration::from_secs(6 * 3600)),
            request_log: 0,
            ..Config::default()
        };
        let server = ApiServer::builder(clock.clone()).config(config).build();
        for namespace in NAMESPACES.into_iter().chain([LEASE.0]) {
            server.create_namespace(namespace);
        }
        let oracle = Oracle::watch(&server);
        server.set_faults(Some(Arc::new(Network::new(seed, None, oracle.clone()))));
        let people = People::new(&server);
        Self {
            server,
            clock,
            oracle,
            people,
            story: Vec::new(),
            replicas: BTreeMap::new(),
            starts: BTreeMap::new(),
            seed,
            elect,
            exchange: None,
            gates: BTreeMap::new(),
        }
    }

    /// A cluster whose replicas keep a ledger, for gates to report to.
    #[must_use]
    pub fn with_ledger(seed: u64) -> Self {
        Self { exchange: Some(Exchange::new(seed)), ..Self::new(seed, true) }
    }

    /// The time that is right.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Adds a line to the story.
    pub fn tell(&mut self, what: impl Into<String>) {
        self.story.push(format!("{} {}", self.now(), what.into()));
    }

    /// Lets time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Changes the network between the operator and the server.
    pub fn set_weather(&mut self, seed: u64, weather: Option<Weather>) {
        self.tell(weather.map_or("the weather clears".to_owned(), |weather| format!("{weather:?}")));
        self.server.set_faults(Some(Arc::new(Network::new(seed, weather, self.oracle.clone()))));
    }

    // ---- The operator -----------------------------------------------------------------------------------------------

    /// Starts a pod's container, for the first time or again. Its clock is right.
    pub fn start(&mut self, pod: &'static str) {
        let start = self.starts.entry(pod).or_default();
        *start += 1;
        let replica = Replica::start(&Start {
            server: &self.server,
            pod,
            start: *start,
            seed: self.seed,
            elect: self.elect,
            clock: Arc::new(VirtualClock::starting_at(self.clock.now())),
            exchange: self.exchange.as_ref(),
        });
        self.tell(format!("{} starts", replica.client));
        self.replicas.insert(pod, replica);
    }

    /// A running pod.
    pub fn replica(&mut self, pod: &str) -> Option<&mut Replica> {
        self.replicas.get_mut(pod)
    }

    /// The pods that run.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        self.replicas.keys().copied().collect()
    }

    /// Reconciles by the pods that run.
    #[must_use]
    pub fn reconciles(&self) -> u64 {
        self.replicas.values().map(Replica::reconciles).sum()
    }

    /// The pod that leads, if any.
    #[must_use]
    pub fn leader(&self) -> Option<&'static str> {
        self.replicas.iter().find(|(_, replica)| replica.leads()).map(|(pod, _)| *pod)
    }

    /// Kills a pod.
    pub fn kill(&mut self, pod: &str) {
        if let Some(mut replica) = self.replicas.remove(pod) {
            replica.kill();
            self.tell(format!("{} is killed", replica.client));
        }
    }

    /// Stops a pod as on SIGTERM.
    pub async fn stop(&mut self, pod: &str) {
        if let Some(mut replica) = self.replicas.remove(pod) {
            replica.stop().await;
            self.tell(format!("{} has stopped", replica.client));
        }
    }

    /// Stops a pod's process from running, or lets it go on.
    pub fn pause(&mut self, pod: &str, on: bool) {
        if let Some(replica) = self.replicas.get(pod) {
            replica.pause(on);
            let line = format!("{} {}", replica.client, if on { "stands still" } else { "goes on" });
            self.tell(line);
        }
    }

    /// A pod will die at its `n`-th write from now.
    pub fn crash_at_write(&mut self, pod: &str, n: u64, when: When) {
        if let Some(replica) = self.replicas.get_mut(pod) {
            replica.crash_at_write(n, when);
            let line = format!("{} will die at write {n} ({when:?})", replica.client);
            self.tell(line);
        }
    }

    /// Takes down what planned crashes have struck; says which pods.
    pub fn bury(&mut self) -> Vec<&'static str> {
        let struck: Vec<_> = self
            .replicas
            .iter_mut()
            .filter_map(|(pod, replica)| replica.has_crashed().then_some(*pod))
            .collect();
        for pod in &struck {
            self.replicas.remove(pod);
            self.tell(format!("{pod} has died at its write"));
        }
        struck
    }

    /// Sets a pod's clock forward, or back.
    pub fn set_clock(&mut self, pod: &str, by: SignedDuration) {
        if let Some(replica) = self.replicas.get(pod) {
            replica.clock.step(by);
            self.oracle.clocks_step(replica.clock.now().duration_since(self.clock.now()));
            let line = format!("the clock of {} is set by {by:#}", replica.client);
            self.tell(line);
        }
    }

    // ---- The gates --------------------------------------------------------------------------------------------------

    /// The network between gates and ledgers.
    ///
    /// # Panics
    /// In a world without a ledger.
    #[must_use]
    pub fn exchange(&self) -> &Exchange {
        self.exchange.as_ref().expect("a world with a ledger")
    }

    /// Starts a gate's container, for the first time or again.
    pub fn start_gate(&mut self, pod: &'static str) {
        let start = self.starts.entry(pod).or_default();
        *start += 1;
        let clock = VirtualClock::starting_at(self.clock.now());
        let gate = GatePod::start(&self.server, self.exchange(), pod, self.starts[pod], clock);
        self.tell(format!("{} starts", gate.client));
        self.gates.insert(pod, gate);
    }

    /// A running gate.
    #[must_use]
    pub fn gate(&self, pod: &str) -> Option<&GatePod> {
        self.gates.get(pod)
    }

    /// Kills a gate.
    pub fn kill_gate(&mut self, pod: &str) {
        if let Some(mut gate) = self.gates.remove(pod) {
            gate.kill();
            self.tell(format!("{} is killed", gate.client));
        }
    }

    /// Stops a gate as on SIGTERM.
    pub async fn stop_gate(&mut self, pod: &str) {
        if let Some(mut gate) = self.gates.remove(pod) {
            gate.stop().await;
            self.tell(format!("{} has stopped", gate.client));
        }
    }

    // ---- What must hold ---------------------------------------------------------------------------------------------

    /// The first thing that is wrong by now, if any.
    pub fn check(&self) -> Result<(), String> {
        if let Some(complaint) = self.oracle.complaints().first() {
            return Err(complaint.clone());
        }
        match self.replicas.values().find(|replica| replica.is_broken()) {
            Some(replica) => Err(format!("{} broke down", replica.client)),
            None => Ok(()),
        }
    }

    /// One ApiToken as it is now.
    #[must_use]
    pub fn token(&self, namespace: &str, name: &str) -> Option<ApiToken> {
        self.server.get("apitokens", namespace, name).and_then(|token| parse(&token).ok())
    }

    /// The ApiTokens as they are now.
    #[must_use]
    pub fn tokens(&self) -> Vec<ApiToken> {
        self.server.list("apitokens").iter().filter_map(|token| parse(token).ok()).collect()
    }

    /// Nothing disturbs the world any more: every token must be as it is declared.
    pub fn check_converged(&self) -> Result<(), String> {
        self.check()?;
        let now = self.now();
        for token in self.tokens() {
            let key = format!("{}/{}", token.namespace(), token.name());
            self.is_as_declared(&key, &token, now)
                .map_err(|what| format!("{key} has not converged: {what}: {}", json!(token.status)))?;
        }
        Ok(())
    }

    fn is_as_declared(&self, key: &str, token: &ApiToken, now: Timestamp) -> Result<(), String> {
        let status = token.status.clone().ok_or("no status")?;
        let need = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        need(status.observed_generation == token.metadata.generation, "its generation is not observed")?;
        let ready = status.is_true(ConditionType::Ready);
        let health = status.health.as_deref().unwrap_or_default();
        let stalled = status.is_true(ConditionType::Stalled) && !ready;
        let Ok(rotation) = Rotation::parse(token.spec.rotation.as_ref()) else {
            return need(stalled, "a bad rotation is not said to be so");
        };
        let created = token.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
        let expiry = Expiry::parse(token.spec.expiry.as_ref(), created).map_err(|error| error.to_string())?;
        if expiry.is_some_and(|expiry| expiry.at <= now) {
            need(status.credentials.is_empty(), "expired and credentials live")?;
            return need(!ready && health == Health::Expired.as_str(), "expired and does not say so");
        }
        if token.spec.suspend {
            return need(!ready && health == Health::Suspended.as_str(), "suspended and does not say so");
        }
        let delivered = status.is_true(ConditionType::Delivered);
        need(!delivered || self.oracle.works(key, now), "Delivered, and gates refuse what the Secret holds")?;
        if delivery::desired(token, status.owner.as_ref(), &Token::placeholder(), now).is_err() {
            return need(stalled, "a bad template is not said to be so");
        }
        need(ready && delivered, "not Ready")?;
        need(self.oracle.works(key, now), "Ready, and gates refuse what the Secret holds")?;
        let overdue = |at: Timestamp| now.duration_since(at) > SignedDuration::from_secs(5);
        for credential in &status.credentials {
            need(credential.state != CredentialState::Pending, "a credential is undelivered")?;
            let ended = credential.not_after.as_ref().is_some_and(|end| overdue(end.0));
            need(!ended, "a credential outlives its deadline")?;
        }
        let active = status.newest(CredentialState::Active).ok_or("no active credential")?;
        let due =
            rotation.due(token.uid(), &active.id, active.issued_at.0).map_err(|error| error.to_string())?;
        need(
            due == status.next_rotation_time.as_ref().map(|at| at.0),
            "nextRotationTime is not when it is due",
        )?;
        need(!due.is_some_and(overdue), "a rotation is overdue")?;
        self.secret_is_as_declared(token, &active.id, active.issued_at.0)
    }

    fn secret_is_as_declared(&self, token: &ApiToken, active: &str, issued: Timestamp) -> Result<(), String> {
        let stored = self.server.get("secrets", token.namespace(), token.secret_name()).ok_or("no Secret")?;
        let secret = parse(&stored)?;
        let namespace = self.server.get("namespaces", "", token.namespace()).ok_or("no Namespace")?;
        let namespace = parse(&namespace["metadata"])?;
        let (rules, declared) = (replica::settings().ownership, token.spec.owner.as_ref());
        let owner = ownership::resolve(&rules, declared, &token.metadata, Some(&namespace));
        let owner = owner.map(|(owner, _)| owner);
        let held = delivery::noted_token(&secret).filter(|held| held.id() == active);
        let held = held.ok_or("the Secret does not name the active credential")?;
        let desired =
            delivery::desired(token, owner.as_ref(), &held, issued).map_err(|error| error.to_string())?;
        if desired.is_met_by(&secret) { Ok(()) } else { Err("the Secret is not as declared".to_owned()) }
    }

    /// I5: lets `time` pass, in which nothing is written about a token for which nothing falls due, and reconciles rest.
    pub async fn check_quiet(&self, time: Duration) -> Result<(), String> {
        let end = self.now().saturating_add(time).map_err(|error| error.to_string())?;
        let version = |plural: &str, namespace: &str, name: &str| {
            self.server
                .get(plural, namespace, name)
                .map(|object| object["metadata"]["resourceVersion"].clone())
        };
        let state = |token: &ApiToken| {
            let secret = version("secrets", token.namespace(), token.secret_name());
            (version("apitokens", token.namespace(), token.name()), secret)
        };
        let now = self.now();
        let is_idle = |token: &ApiToken| next_due(token, now).is_none_or(|due| due > end);
        let idle: Vec<_> = self.tokens().into_iter().filter(is_idle).collect();
        let before: Vec<_> = idle.iter().map(state).collect();
        let looks = self.reconciles();
        self.pass(time).await;
        self.oracle.rests(self.reconciles().saturating_sub(looks), self.tokens().len(), time);
        self.check()?;
        for (token, before) in idle.iter().zip(before) {
            let after = state(token);
            if after != before {
                let (namespace, name) = (token.namespace(), token.name());
                return Err(format!(
                    "I5: {namespace}/{name} was quiet and was written: {before:?} to {after:?}"
                ));
            }
        }
        Ok(())
    }
}

/// When time alone makes something due for a token that is as declared.
fn next_due(token: &ApiToken, now: Timestamp) -> Option<Timestamp> {
    let status = token.status.as_ref()?;
    let created = token.metadata.creation_timestamp.as_ref()?.0;
    let expiry = Expiry::parse(token.spec.expiry.as_ref(), created).ok().flatten();
    let ends = status.credentials.iter().filter_map(|credential| credential.not_after.as_ref());
    let times = ends.chain(&status.next_rotation_time).chain(&status.expires_at).map(|at| at.0);
    times.chain(expiry.map(|expiry| expiry.warn_from)).filter(|at| *at > now).min()
}
