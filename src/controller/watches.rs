//! The watches of one scope: ApiTokens in full, Secrets and Namespaces by metadata only. They run in every replica, so
//! that a standby knows the world already when it takes over.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta};
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher as watch_objects;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, warn};

use super::glimpse::Glimpse;
use super::index::{NamespaceIndex, SecretIndex};
use super::kept::{Guarded, Kept, OfUse};
use super::looks::Looks;
use super::memory::Memory;
use super::metrics::Metrics;
use super::world;
use crate::api::keys;
use crate::domain::directory::Directory;
use crate::domain::ownership::OwnershipRules;
use crate::domain::ports::{Clock, News};
use crate::domain::requests;
use crate::platform::budget;
use crate::platform::readiness::Readiness;
use crate::platform::watching::resilient;
use crate::platform::words;

/// Names that readiness is told by.
const SYNCED: [&str; 3] = ["apitokens", "secrets", "namespaces"];

/// What readiness waits for: each watch of each of these namespaces; without any, each watch of all.
pub fn awaited(namespaces: &[String]) -> impl Iterator<Item = &'static str> {
    std::iter::repeat_n(SYNCED, namespaces.len().max(1)).flatten()
}

/// Objects asked for at once: while a page is taken apart it takes ten times its size in memory.
const PAGE: u32 = 50;
/// In namespaced mode a Namespace is read this often: a Role can allow to get its own Namespace, but not to watch it.
const NAMESPACE_POLL: Duration = Duration::from_secs(300);
/// How often the wall clock is compared with the monotonic one.
const CLOCK_CHECK: Duration = Duration::from_secs(60);
/// Differences beyond this are steps, not drift.
const CLOCK_STEP_SECONDS: i64 = 2;

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
    /// Which labels and annotations are read.
    pub ownership: Arc<OwnershipRules>,
    /// Counts errors and restarts.
    pub metrics: Metrics,
    /// Told when the first lists are complete.
    pub readiness: watch::Sender<Readiness>,
}

/// Says once that a watch has its first list: for its scope, and for the process.
struct First(Option<([watch::Sender<Readiness>; 2], &'static str)>);

impl First {
    fn done(&mut self) {
        if let Some((both, name)) = self.0.take() {
            both.iter().for_each(|readiness| Readiness::synced(readiness, name));
        }
    }
}

/// One namespace, or all of them, with its store of ApiTokens.
pub struct Scope {
    namespace: Option<String>,
    store: Store<Kept>,
    writer: Option<Writer<Kept>>,
    ready: watch::Sender<Readiness>,
    /// Where looks at its tokens are asked for, and made.
    pub looks: Arc<Looks>,
}

impl Scope {
    /// A scope that watches `namespace`, or all namespaces, and tells what nobody waits for within `budget`.
    pub fn new(namespace: Option<String>, budget: budget::Shared) -> Self {
        let writer = Writer::new(());
        let store = writer.as_reader();
        let looks = Arc::new(Looks::new(store.clone(), budget));
        let (ready, _) = Readiness::channel(SYNCED);
        Self { namespace, looks, store, writer: Some(writer), ready }
    }

    /// Ready when its first lists are complete: deciding on half a list would take present Secrets for missing.
    pub async fn synced(&self) {
        let _ = self.ready.subscribe().wait_for(Readiness::is_ready).await;
    }

    /// The ApiTokens of this scope.
    pub fn store(&self) -> Store<Kept> {
        self.store.clone()
    }

    /// Starts the watches.
    pub fn spawn(&mut self, tasks: &mut JoinSet<()>, shared: &Shared) {
        let looks = || self.looks.clone();
        let first =
            |number: usize| First(Some(([self.ready.clone(), shared.readiness.clone()], SYNCED[number])));
        if let Some(writer) = self.writer.take() {
            tasks.spawn(watch_tokens(shared.clone(), self.namespace.clone(), writer, looks(), first(0)));
        }
        tasks.spawn(watch_secrets(shared.clone(), self.namespace.clone(), looks(), first(1)));
        match &self.namespace {
            None => tasks.spawn(watch_namespaces(shared.clone(), looks(), first(2))),
            Some(name) => tasks.spawn(poll_namespace(shared.clone(), name.clone(), looks(), first(2))),
        };
    }

    /// The namespace served, and where to say that one of its tokens needs a look.
    pub fn listener(&self) -> Listener {
        (self.namespace.clone(), self.looks.clone())
    }

    /// Looks at every token again and again.
    pub fn spawn_resync(&self, tasks: &mut JoinSet<()>, every: Duration) {
        let looks = self.looks.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                looks.ask_all();
            }
        });
    }

    /// Looks at every token again when the wall clock is set: timers run on the other clock.
    pub fn spawn_clock_watch(&self, tasks: &mut JoinSet<()>, clock: Arc<dyn Clock>) {
        tasks.spawn(watch_clock(clock, self.looks.clone()));
    }
}

/// The namespace of a scope (all, if none) and where looks at its tokens are asked for.
pub type Listener = (Option<String>, Arc<Looks>);

/// Has the tokens looked at that `news` is about.
pub async fn pass_on(mut news: mpsc::Receiver<News>, listeners: Vec<Listener>) {
    while let Some(news) = news.recv().await {
        match news {
            News::Persisted { namespace, name } => {
                let served =
                    |listener: &&Listener| listener.0.as_ref().is_none_or(|served| *served == namespace);
                if let Some((_, looks)) = listeners.iter().find(served) {
                    looks.ask_reserved(&namespace, &name);
                }
            }
            News::Watched => listeners.iter().for_each(|(_, looks)| looks.ask_all()),
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

async fn watch_tokens(
    shared: Shared,
    namespace: Option<String>,
    mut writer: Writer<Kept>,
    looks: Arc<Looks>,
    mut first: First,
) {
    let api = scoped::<Guarded>(&shared, namespace.as_deref());
    let mut events = Box::pin(resilient(
        watch_objects(api, watcher::Config::default().page_size(PAGE)),
        "apitokens",
        &shared.metrics.process,
    ));
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        // First: whoever finds a token in the store finds its digests among those that are taken. Those of one that cannot be
        // understood stay taken.
        world::follow(&shared.world, &event);
        if let Event::InitApply(token) = &event {
            listed.insert(token.kept.uid().to_owned());
        }
        let Some(event) = understood(event, &shared.ownership, &shared.metrics) else { continue };
        writer.apply_watcher_event(&event);
        match &event {
            Event::Apply(token) => looks.ask(token.namespace(), token.name()),
            Event::Delete(token) => shared.memory.forget(token.uid()),
            Event::Init => listed.clear(),
            Event::InitApply(_) => {}
            Event::InitDone => {
                let uids = std::mem::take(&mut listed);
                shared.memory.listed(namespace.as_deref(), &uids);
                world::listed(&shared.world, namespace.as_deref(), &uids);
                first.done();
                looks.ask_all();
            }
        }
    }
}

/// For the store. An object that cannot be understood is not in it: it is not acted on, and it does not stall the others.
fn understood(event: Event<Guarded>, ownership: &OwnershipRules, metrics: &Metrics) -> Option<Event<Kept>> {
    let of_use = |key: &str| match requests::is_of_use(key, ownership) {
        (true, _) => OfUse::Value,
        (false, true) => OfUse::Presence,
        (false, false) => OfUse::Nothing,
    };
    let kept = |Guarded { kept, flaw }: Guarded| {
        if let Some(error) = &flaw {
            let (namespace, name) = (kept.namespace(), kept.name());
            error!(namespace, name, error, "ApiToken cannot be understood and is left alone");
            metrics.process.watch_errors.inc([SYNCED[0]]);
        }
        (kept.without_version().slim(of_use), flaw.is_none())
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(token) => match kept(token) {
            (kept, true) => Some(Event::InitApply(kept)),
            (_, false) => None,
        },
        Event::Apply(token) => match kept(token) {
            (kept, true) => Some(Event::Apply(kept)),
            (kept, false) => Some(Event::Delete(kept)),
        },
        Event::Delete(token) => Some(Event::Delete(token.kept.without_version())),
    }
}

async fn watch_secrets(shared: Shared, namespace: Option<String>, looks: Arc<Looks>, mut first: First) {
    let api = scoped::<Glimpse<Secret>>(&shared, namespace.as_deref());
    // By a label of our own domain, and whatever its value: labels that are everybody's are changed by everybody.
    let config = watcher::Config::default().page_size(PAGE).labels(keys::TOKEN);
    let mut events = Box::pin(resilient(watch_objects(api, config), "secrets", &shared.metrics.process));
    while let Some(event) = events.next().await {
        let listed = matches!(event, Event::InitDone);
        for (namespace, name) in shared.secrets.apply(namespace.as_deref(), metadata(event)) {
            looks.ask(&namespace, &name);
        }
        if listed {
            first.done();
        }
    }
}

async fn watch_namespaces(shared: Shared, looks: Arc<Looks>, mut first: First) {
    let api = Api::<Glimpse<Namespace>>::all(shared.client.clone());
    let mut events = Box::pin(resilient(
        watch_objects(api, watcher::Config::default()),
        "namespaces",
        &shared.metrics.process,
    ));
    while let Some(event) = events.next().await {
        let listed = matches!(event, Event::InitDone);
        shared.namespaces.apply(metadata(event)).iter().for_each(|changed| looks.ask_namespace(changed));
        if listed {
            first.done();
        }
    }
}

async fn poll_namespace(shared: Shared, name: String, looks: Arc<Looks>, mut first: First) {
    let api = Api::<Namespace>::all(shared.client.clone());
    let mut ticks = interval(NAMESPACE_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match api.get_metadata(&name).await {
            Ok(namespace) => {
                let changed = shared.namespaces.apply(Event::Apply(namespace.metadata));
                changed.iter().for_each(|changed| looks.ask_namespace(changed));
            }
            // Owners are then looked for on the ApiToken alone: an inconvenience, no reason not to be ready.
            Err(error) => warn!(namespace = name, error = words::of(&error), "Namespace not read"),
        }
        first.done();
    }
}

async fn watch_clock(clock: Arc<dyn Clock>, looks: Arc<Looks>) {
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
            looks.ask_all();
        }
    }
}

fn metadata<K>(event: Event<Glimpse<K>>) -> Event<ObjectMeta> {
    match event {
        Event::Apply(object) => Event::Apply(object.into_meta()),
        Event::Delete(object) => Event::Delete(object.into_meta()),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.into_meta()),
        Event::InitDone => Event::InitDone,
    }
}
