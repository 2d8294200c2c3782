//! The server's handle: how tests build it, look into it and disturb it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::{Notify, futures::Notified, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::admission::{Authorizer, Mutator, Validator};
use super::config::Config;
use super::faults::{Crash, Fault, Faults, Link, When, Wire};
use super::observe::{Commit, Counts, Log, Request};
use super::request::RequestInfo;
use super::resource::{ResourceType, standard};
use super::service::ClientService;
use super::store::State;
use crate::domain::ports::Clock;

type Observer = Box<dyn FnMut(&Commit) + Send>;

/// An in-process Kubernetes API server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

/// What all handles share. Locks are taken one at a time, briefly, and never across an await.
pub(super) struct Inner {
    state: Mutex<State>,
    wire: Mutex<Wire>,
    log: Mutex<Log>,
    observers: Mutex<Vec<Observer>>,
    healed: Notify,
    agenda_changed: Arc<Notify>,
    driver: Mutex<Option<AbortHandle>>,
    requests: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.get_mut().take() {
            driver.abort();
        }
    }
}

impl Inner {
    /// The bare state, for reading and for watches; changes go through [`Inner::with`].
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Works on the state, then wakes watches, tells observers and sees to the agenda.
    pub(super) fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut State) -> T) -> T {
        let (out, next) = self.work(work);
        if next.is_some() {
            self.drive();
        }
        out
    }

    /// The same without the agenda, whose next due time is returned.
    fn work<T>(&self, work: impl FnOnce(&mut State) -> T) -> (T, Option<Instant>) {
        let mut state = self.state.lock();
        let out = work(&mut state);
        let wakes = std::mem::take(&mut state.wakes);
        let (news, next) = (!state.unseen.is_empty(), state.agenda.next());
        drop(state);
        for waker in wakes {
            waker.wake();
        }
        if news {
            self.tell();
        }
        (out, next)
    }

    /// Tells observers what happened, in order and without holding the state: they may look into the server. Where
    /// one of them causes a change, whoever is telling goes on to tell that too.
    fn tell(&self) {
        while let Some(mut observers) = self.observers.try_lock() {
            loop {
                let Some(commit) = self.state.lock().unseen.pop_front() else { break };
                for observer in observers.iter_mut() {
                    observer(&commit);
                }
            }
            drop(observers);
            if self.state.lock().unseen.is_empty() {
                return;
            }
        }
    }

    /// Makes sure that a task waits for the next job. Without a runtime the next request does what is due.
    fn drive(self: &Arc<Self>) {
        let mut driver = self.driver.lock();
        if driver.as_ref().is_some_and(|task| !task.is_finished()) {
            self.agenda_changed.notify_one();
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (weak, changed) = (Arc::downgrade(self), self.agenda_changed.clone());
        let task = runtime.spawn(async move {
            loop {
                let Some(inner) = weak.upgrade() else { return };
                let Some(next) = inner.state().agenda.next() else { return };
                drop(inner);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(next) => {}
                    () = changed.notified() => {}
                }
                let Some(inner) = weak.upgrade() else { return };
                // Not `with`: it would call this task back at once, and virtual time would never pass.
                inner.work(State::run_due);
            }
        });
        *driver = Some(task.abort_handle());
    }

    pub(super) fn next_id(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn log(&self, info: RequestInfo, code: u16) {
        let at = self.state.lock().timestamp();
        self.log.lock().push(Request { info, at, code });
    }

    pub(super) fn decide(&self, info: &RequestInfo) -> Fault {
        let faults = self.wire.lock().faults.clone();
        faults.map_or(Fault::None, |faults| faults.decide(info))
    }

    pub(super) fn crash(&self, info: &RequestInfo) -> Option<Crash> {
        self.wire.lock().crash(info)
    }

    pub(super) fn link(&self, client: &str) -> Link {
        self.wire.lock().link(client)
    }

    /// Whether a watch can show anything; if not, it is woken when that changes.
    pub(super) fn link_is_up(&self, client: &str, cx: &Context<'_>) -> bool {
        let mut wire = self.wire.lock();
        if wire.links.get(client) == Some(&Link::Silent) {
            wire.wakers.push(cx.waker().clone());
            return false;
        }
        true
    }

    pub(super) fn links_changed(&self) -> Notified<'_> {
        self.healed.notified()
    }

    pub(super) fn epoch(&self, client: &str) -> u64 {
        let wire = self.wire.lock();
        wire.epoch + wire.epochs.get(client).copied().unwrap_or_default()
    }

    fn rewire(&self, change: impl FnOnce(&mut Wire)) {
        let mut wire = self.wire.lock();
        change(&mut wire);
        let wakers = std::mem::take(&mut wire.wakers);
        drop(wire);
        let mut state = self.state.lock();
        let watching: Vec<_> =
            state.tables.iter_mut().flat_map(|t| std::mem::take(&mut t.wakers).into_values()).collect();
        drop(state);
        for waker in wakers.into_iter().chain(watching) {
            waker.wake();
        }
        self.healed.notify_waiters();
    }
}

/// Sets up an [`ApiServer`].
pub struct Builder {
    config: Config,
    clock: Arc<dyn Clock>,
    resources: Vec<ResourceType>,
}

impl Builder {
    /// Serves one more resource.
    #[must_use]
    pub fn resource(mut self, resource: ResourceType) -> Self {
        self.resources.push(resource);
        self
    }

    /// Sets the knobs.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Starts the server, with the namespace `default` in it.
    #[must_use]
    pub fn build(self) -> ApiServer {
        let log = Mutex::new(Log::new(self.config.request_log));
        let server = ApiServer(Arc::new(Inner {
            state: Mutex::new(State::new(self.config, self.clock, self.resources)),
            wire: Mutex::default(),
            log,
            observers: Mutex::default(),
            healed: Notify::new(),
            agenda_changed: Arc::new(Notify::new()),
            driver: Mutex::new(None),
            requests: AtomicU64::new(0),
        }));
        server.create_namespace("default");
        server
    }
}

impl ApiServer {
    /// A server of the standard resources whose timestamps come from `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::builder(clock).build()
    }

    /// A server to be set up.
    #[must_use]
    pub fn builder(clock: Arc<dyn Clock>) -> Builder {
        Builder { config: Config::default(), clock, resources: standard() }
    }

    /// A client by the name under which faults, logs and commits know it. Each call is a new process of that name:
    /// one that a planned crash has struck stays dead, the next one lives. Needs a runtime.
    #[must_use]
    pub fn client(&self, name: &str) -> kube::Client {
        kube::Client::new(self.service(name), "default")
    }

    /// The service behind [`ApiServer::client`], for those who put layers around it.
    #[must_use]
    pub fn service(&self, name: &str) -> ClientService {
        ClientService::new(self.0.clone(), name)
    }

    /// Puts a namespace there, without a request.
    pub fn create_namespace(&self, name: &str) {
        self.0.with(|state| {
            let Some(table) = state.table_named("namespaces") else { return };
            if state.tables[table].objects.contains_key(name) {
                return;
            }
            let (uid, now) = (state.uid(), state.now());
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": name, "uid": uid, "creationTimestamp": now,
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            });
            state.put(table, name, object, super::managers::Managers::default(), &"<server>".into());
        });
    }

    /// The newest resourceVersion.
    #[must_use]
    pub fn resource_version(&self) -> u64 {
        self.0.state().rv
    }

    /// Looks at one object, without a request. `namespace` is empty for cluster-scoped objects.
    #[must_use]
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let state = self.0.state();
        let namespace = Some(namespace).filter(|ns| !ns.is_empty());
        let table = state.table_named(plural)?;
        state.tables[table].objects.get(&super::store::key(namespace, name)).map(|s| s.value.clone())
    }

    /// Looks at all objects of a resource, without a request.
    #[must_use]
    pub fn list(&self, plural: &str) -> Vec<Arc<Value>> {
        let state = self.0.state();
        let Some(table) = state.table_named(plural) else { return Vec::new() };
        state.tables[table].objects.values().map(|stored| stored.value.clone()).collect()
    }

    /// Calls `observer` after each committed change, in order. It may look into the server.
    pub fn on_commit(&self, observer: impl FnMut(&Commit) + Send + 'static) {
        self.0.observers.lock().push(Box::new(observer));
    }

    /// Calls `watcher` after each request. It must not call the server.
    pub fn on_request(&self, watcher: impl FnMut(&Request) + Send + 'static) {
        self.0.log.lock().watch(Box::new(watcher));
    }

    /// The most recent requests ([`Config::request_log`]).
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.0.log.lock().recent()
    }

    /// How many requests there have been of each kind.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.log.lock().counts()
    }

    /// How many writes were answered (or lost) for the clients that `whose` selects.
    #[must_use]
    pub fn writes(&self, whose: impl Fn(&str) -> bool) -> u64 {
        let counts = self.counts();
        counts.iter().filter(|((client, verb, ..), _)| verb.is_write() && whose(client)).map(|(_, n)| n).sum()
    }

    /// Judges every object of the resource with this plural before it is stored.
    pub fn set_validator(&self, plural: &str, validator: Option<Validator>) {
        self.0.with(|state| {
            let Some(table) = state.table_named(plural) else { return };
            match validator {
                Some(validator) => state.hooks.validators.insert(table, validator),
                None => state.hooks.validators.remove(&table),
            };
        });
    }

    /// Changes every object of the resource with this plural as it is written; ownership of fields stays as it was sent.
    pub fn set_mutator(&self, plural: &str, mutator: Option<Mutator>) {
        self.0.with(|state| {
            let Some(table) = state.table_named(plural) else { return };
            match mutator {
                Some(mutator) => state.hooks.mutators.insert(table, mutator),
                None => state.hooks.mutators.remove(&table),
            };
        });
    }

    /// Judges every request.
    pub fn set_authorizer(&self, authorizer: Option<Authorizer>) {
        self.0.with(|state| state.hooks.authorizer = authorizer);
    }

    /// Allows at most so many objects in a namespace.
    pub fn set_quota(&self, plural: &str, namespace: &str, most: Option<usize>) {
        self.0.with(|state| {
            let Some(table) = state.table_named(plural) else { return };
            match most {
                Some(most) => state.hooks.quotas.insert((namespace.into(), table), most),
                None => state.hooks.quotas.remove(&(namespace.into(), table)),
            };
        });
    }

    /// Serves a resource, or answers 404 as though its CRD were missing. Objects stay.
    pub fn set_served(&self, plural: &str, served: bool) {
        self.0.with(|state| {
            if let Some(table) = state.table_named(plural) {
                state.tables[table].served = served;
            }
        });
        if !served {
            self.drop_watches();
        }
    }

    /// Who decides the fate of requests from now on.
    pub fn set_faults(&self, faults: Option<Arc<dyn Faults>>) {
        self.0.wire.lock().faults = faults;
    }

    /// Breaks every open watch.
    pub fn drop_watches(&self) {
        self.0.rewire(|wire| wire.epoch += 1);
    }

    /// Breaks the open watches of one client.
    pub fn drop_watches_of(&self, client: &str) {
        self.0.rewire(|wire| *wire.epochs.entry(client.into()).or_default() += 1);
    }

    /// Forgets all history: watches from any version seen so far are answered with 410. Open watches that are up to
    /// date go on.
    pub fn compact(&self) {
        self.0.with(State::compact);
    }

    /// Changes the network between one client and the server.
    pub fn set_link(&self, client: &str, link: Link) {
        self.0.rewire(|wire| {
            wire.links.insert(client.into(), link);
            if link == Link::Refused {
                *wire.epochs.entry(client.into()).or_default() += 1;
            }
        });
    }

    /// Cuts a client off without a word, or lets it back: [`Link::Silent`] or [`Link::Up`].
    pub fn partition(&self, client: &str, on: bool) {
        self.set_link(client, if on { Link::Silent } else { Link::Up });
    }

    /// Takes the server away from everybody, or brings it back. Objects stay.
    pub fn set_down(&self, down: bool) {
        self.0.rewire(|wire| {
            wire.down = down;
            wire.epoch += u64::from(down);
        });
    }

    /// Kills a client at the `n`-th write (from 1) that it sends from now on: that write is never answered, nothing it
    /// sends later has an effect, and the receiver fires. The task is the caller's to abort.
    #[must_use]
    pub fn crash_at_write(&self, client: &str, n: u64, when: When) -> oneshot::Receiver<RequestInfo> {
        let (tell, told) = oneshot::channel();
        let crash = Crash { left: n.max(1), when, tell: Some(tell) };
        self.0.wire.lock().crashes.insert(client.into(), crash);
        told
    }
}
