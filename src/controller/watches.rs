//! The watches of one scope: ApiTokens in full, Secrets and Namespaces by metadata only. They run in every replica, so
//! that a standby knows the world already when it takes over.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher as watch_objects;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use parking_lot::RwLock;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, warn};

use super::execute::slim;
use super::index::{NamespaceIndex, SecretIndex};
use super::kept::Kept;
use super::memory::Memory;
use super::metrics::Metrics;
use super::world;
use crate::api::{ApiToken, keys};
use crate::domain::directory::Directory;
use crate::domain::ports::Clock;
use crate::platform::readiness::Readiness;
use crate::platform::watching::resilient;

/// Names that readiness is told by.
pub const SYNCED: [&str; 3] = ["apitokens", "secrets", "namespaces"];

/// Objects asked for at once: while a page is taken apart it takes ten times its size in memory.
const PAGE: u32 = 50;
/// Triggers that a slow leader may be behind by before it looks at every token instead.
const TRIGGERS: usize = 4096;
/// In namespaced mode a Namespace is read this often: a Role can allow to get its own Namespace, but not to watch it.
const NAMESPACE_POLL: Duration = Duration::from_secs(300);
/// How often the wall clock is compared with the monotonic one.
const CLOCK_CHECK: Duration = Duration::from_secs(60);
/// Differences beyond this are steps, not drift.
const CLOCK_STEP_SECONDS: i64 = 2;

/// Which tokens to look at.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// One.
    One(ObjectRef<Kept>),
    /// All in the store.
    All,
}

/// What the watches share with the reconciles.
#[derive(Clone)]
pub struct Shared {
    /// The API server.
    pub client: Client,
    /// Secrets, fed by the watch.
    pub secrets: Arc<SecretIndex>,
    /// Namespaces, fed by the watch.
    pub namespaces: Arc<NamespaceIndex>,
    /// Which ApiTokens there are, for the ledger.
    pub world: Arc<RwLock<Directory>>,
    /// Forgets tokens that are gone.
    pub memory: Arc<Memory>,
    /// Counts errors and restarts.
    pub metrics: Metrics,
    /// Told when the first lists are complete.
    pub readiness: watch::Sender<Readiness>,
}

/// One namespace, or all of them, with its store of ApiTokens.
pub struct Scope {
    namespace: Option<String>,
    store: Store<Kept>,
    writer: Option<Writer<Kept>>,
    triggers: broadcast::Sender<Trigger>,
}

impl Scope {
    /// A scope that watches `namespace`, or all namespaces.
    pub fn new(namespace: Option<String>) -> Self {
        let writer = Writer::new(());
        let (triggers, _) = broadcast::channel(TRIGGERS);
        Self { namespace, store: writer.as_reader(), writer: Some(writer), triggers }
    }

    /// The ApiTokens of this scope.
    pub fn store(&self) -> Store<Kept> {
        self.store.clone()
    }

    /// Every token once, then those that something happened to. Never ends by itself.
    pub fn triggers(&self) -> impl Stream<Item = ObjectRef<Kept>> + Send + use<> {
        let receiver = self.triggers.subscribe();
        let store = self.store.clone();
        let news = futures::stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(trigger) => Some((trigger, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Trigger::All, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        futures::stream::iter([Trigger::All]).chain(news).flat_map(move |trigger| {
            let objects = match trigger {
                Trigger::One(object) => vec![object],
                Trigger::All => store.state().iter().map(|token| reference(token)).collect(),
            };
            futures::stream::iter(objects)
        })
    }

    /// Starts the watches.
    pub fn spawn(&mut self, tasks: &mut JoinSet<()>, shared: &Shared) {
        if let Some(writer) = self.writer.take() {
            tasks.spawn(watch_tokens(shared.clone(), self.namespace.clone(), writer, self.triggers.clone()));
        }
        tasks.spawn(watch_secrets(shared.clone(), self.namespace.clone(), self.triggers.clone()));
        let triggers = (self.store.clone(), self.triggers.clone());
        match &self.namespace {
            None => tasks.spawn(watch_namespaces(shared.clone(), triggers)),
            Some(name) => tasks.spawn(poll_namespace(shared.clone(), name.clone(), triggers)),
        };
    }

    /// The namespace served, and where to say that one of its tokens needs a look.
    pub fn listener(&self) -> Listener {
        (self.namespace.clone(), self.triggers.clone())
    }

    /// Looks at every token again and again.
    pub fn spawn_resync(&self, tasks: &mut JoinSet<()>, every: Duration) {
        let triggers = self.triggers.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let _ = triggers.send(Trigger::All);
            }
        });
    }

    /// Looks at every token again when the wall clock is set: timers run on the other clock.
    pub fn spawn_clock_watch(&self, tasks: &mut JoinSet<()>, clock: Arc<dyn Clock>) {
        tasks.spawn(watch_clock(clock, self.triggers.clone()));
    }
}

/// The namespace of a scope (all, if none) and its triggers.
pub type Listener = (Option<String>, broadcast::Sender<Trigger>);

/// Has the tokens looked at that `news` names (namespace, name).
pub async fn pass_on(mut news: mpsc::Receiver<(String, String)>, listeners: Vec<Listener>) {
    while let Some((namespace, name)) = news.recv().await {
        let served = |listener: &&Listener| listener.0.as_ref().is_none_or(|served| *served == namespace);
        if let Some((_, triggers)) = listeners.iter().find(served) {
            let _ = triggers.send(Trigger::One(ObjectRef::new(&name).within(&namespace)));
        }
    }
}

fn scoped<K>(shared: &Shared, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(shared.client.clone(), namespace),
        None => Api::all(shared.client.clone()),
    }
}

/// A reference by name alone: a queue of ten thousand is megabytes larger with uids and versions that nobody reads.
fn reference(token: &Kept) -> ObjectRef<Kept> {
    ObjectRef::new(token.name()).within(token.namespace())
}

async fn watch_tokens(
    shared: Shared,
    namespace: Option<String>,
    mut writer: Writer<Kept>,
    triggers: broadcast::Sender<Trigger>,
) {
    let api = scoped::<DeserializeGuard<ApiToken>>(&shared, namespace.as_deref());
    let store = writer.as_reader();
    let mut events = Box::pin(resilient(
        watch_objects(api, watcher::Config::default().page_size(PAGE)),
        "apitokens",
        &shared.metrics.process,
    ));
    while let Some(event) = events.next().await {
        let Some(event) = understood(event, &shared.metrics) else { continue };
        writer.apply_watcher_event(&event);
        world::follow(&shared.world, &event);
        let trigger = match &event {
            Event::Apply(token) => Some(Trigger::One(reference(token))),
            Event::Delete(token) => {
                shared.memory.forget(token.uid());
                None
            }
            Event::Init | Event::InitApply(_) => None,
            Event::InitDone => {
                let uids = store.state().iter().map(|token| token.uid().to_owned()).collect();
                shared.memory.listed(namespace.as_deref(), &uids);
                world::listed(&shared.world, namespace.as_deref(), &uids);
                Readiness::synced(&shared.readiness, SYNCED[0]);
                Some(Trigger::All)
            }
        };
        // Nobody listens while this replica does not lead; on taking over, it looks at every token anyway.
        trigger.map(|trigger| triggers.send(trigger).ok());
    }
}

/// The event with what no decision needs removed. An object that does not parse is treated as absent: it is not acted
/// on, and it does not stall the others.
fn understood(event: Event<DeserializeGuard<ApiToken>>, metrics: &Metrics) -> Option<Event<Kept>> {
    let parse = |guard: DeserializeGuard<ApiToken>| {
        let (metadata, error) = match guard.0 {
            Ok(mut token) => {
                slim(&mut token.metadata);
                match Kept::new(&token) {
                    Ok(kept) => return (true, kept),
                    Err(error) => (token.metadata, error.to_string()),
                }
            }
            Err(invalid) => (invalid.metadata, invalid.error),
        };
        let kept = Kept::gone(&metadata);
        let (namespace, name) = (kept.namespace(), kept.name());
        error!(namespace, name, error, "ApiToken cannot be understood and is left alone");
        metrics.process.watch_errors.inc([SYNCED[0]]);
        (false, kept)
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(guard) => match parse(guard) {
            (true, token) => Some(Event::InitApply(token)),
            (false, _) => None,
        },
        Event::Apply(guard) => match parse(guard) {
            (true, token) => Some(Event::Apply(token)),
            (false, token) => Some(Event::Delete(token)),
        },
        Event::Delete(guard) => Some(Event::Delete(parse(guard).1)),
    }
}

async fn watch_secrets(shared: Shared, namespace: Option<String>, triggers: broadcast::Sender<Trigger>) {
    let api = scoped::<PartialObjectMeta<Secret>>(&shared, namespace.as_deref());
    // By a label of our own domain, and whatever its value: labels that are everybody's are changed by everybody.
    let config = watcher::Config::default().page_size(PAGE).labels(keys::TOKEN);
    let mut events = Box::pin(resilient(watch_objects(api, config), "secrets", &shared.metrics.process));
    while let Some(event) = events.next().await {
        let listed = matches!(event, Event::InitDone);
        for (namespace, name) in shared.secrets.apply(metadata(event)) {
            let _ = triggers.send(Trigger::One(ObjectRef::new(&name).within(&namespace)));
        }
        if listed {
            Readiness::synced(&shared.readiness, SYNCED[1]);
        }
    }
}

type Listeners = (Store<Kept>, broadcast::Sender<Trigger>);

async fn watch_namespaces(shared: Shared, listeners: Listeners) {
    let api = Api::<PartialObjectMeta<Namespace>>::all(shared.client.clone());
    let mut events = Box::pin(resilient(
        watch_objects(api, watcher::Config::default()),
        "namespaces",
        &shared.metrics.process,
    ));
    while let Some(event) = events.next().await {
        let listed = matches!(event, Event::InitDone);
        trigger_namespaces(&shared.namespaces.apply(metadata(event)), &listeners);
        if listed {
            Readiness::synced(&shared.readiness, SYNCED[2]);
        }
    }
}

async fn poll_namespace(shared: Shared, name: String, listeners: Listeners) {
    let api = Api::<Namespace>::all(shared.client.clone());
    let mut ticks = interval(NAMESPACE_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match api.get_metadata(&name).await {
            Ok(namespace) => {
                trigger_namespaces(&shared.namespaces.apply(Event::Apply(namespace.metadata)), &listeners);
            }
            // Owners are then looked for on the ApiToken alone: an inconvenience, no reason not to be ready.
            Err(error) => warn!(namespace = %name, %error, "Namespace not read"),
        }
        Readiness::synced(&shared.readiness, SYNCED[2]);
    }
}

fn trigger_namespaces(changed: &[String], (store, triggers): &Listeners) {
    if changed.is_empty() {
        return;
    }
    for token in store.state_filter(|token| changed.iter().any(|namespace| namespace == token.namespace())) {
        let _ = triggers.send(Trigger::One(reference(&token)));
    }
}

async fn watch_clock(clock: Arc<dyn Clock>, triggers: broadcast::Sender<Trigger>) {
    let offset = |since: Instant, wall: Timestamp| {
        clock.now().duration_since(wall).as_secs() - since.elapsed().as_secs() as i64
    };
    let (mut since, mut wall) = (Instant::now(), clock.now());
    let mut ticks = interval(CLOCK_CHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let step = offset(since, wall);
        if step.abs() > CLOCK_STEP_SECONDS {
            warn!(seconds = step, "the wall clock was set: looking at every token again");
            (since, wall) = (Instant::now(), clock.now());
            let _ = triggers.send(Trigger::All);
        }
    }
}

fn metadata<K>(event: Event<PartialObjectMeta<K>>) -> Event<ObjectMeta> {
    match event {
        Event::Apply(object) => Event::Apply(object.metadata),
        Event::Delete(object) => Event::Delete(object.metadata),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.metadata),
        Event::InitDone => Event::InitDone,
    }
}
