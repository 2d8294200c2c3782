//! The feed against the in-process API server, in virtual time.

mod bad_days;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::api::Outcome;
use crate::domain::token::Token;
use crate::gate::Settings;
use crate::gate::demand::Demand;
use crate::gate::fixtures::{ended, living, minted, settings};
use crate::gate::metrics::GateMetrics;
use crate::testkit::apiserver::{ApiServer, Config, Verb};
use crate::testkit::clock::VirtualClock;

/// A gate that follows an API server.
struct World {
    server: ApiServer,
    tokens: Api<DynamicObject>,
    clock: Arc<VirtualClock>,
    gate: Arc<Gate>,
    metrics: GateMetrics,
    ready: watch::Receiver<Readiness>,
    task: Option<JoinHandle<()>>,
}

fn tokens(server: &ApiServer, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<ApiToken>(&());
    Api::namespaced_with(server.client("somebody"), namespace, &resource)
}

impl World {
    fn new(settings: Settings) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let config = Config { bookmark_every: Some(Duration::from_secs(60)), ..Config::default() };
        let server = ApiServer::builder(clock.clone()).config(config).build();
        let gate = Arc::new(Gate::new(settings));
        let metrics = GateMetrics::new(&mut Registry::default(), &gate, || 0);
        let (_, ready) = Readiness::channel([SYNCED]);
        Self { tokens: tokens(&server, "default"), server, clock, gate, metrics, ready, task: None }
    }

    fn follow(&mut self, namespaces: &[&str]) {
        let (sender, ready) = Readiness::channel([SYNCED]);
        self.ready = ready;
        let setup = Setup {
            gate: self.gate.clone(),
            client: self.server.client("gate"),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let namespaces: Vec<String> = namespaces.iter().map(ToString::to_string).collect();
        self.task = Some(tokio::spawn(async move { run(setup, &namespaces, &sender).await }));
    }

    /// One that follows everything, and is ready.
    async fn ready() -> Self {
        let mut world = Self::new(settings());
        world.follow(&[]);
        pass(1).await;
        assert!(world.ready.borrow().is_ready());
        world
    }

    /// Declares a token with this status, in `default`.
    async fn declare(&self, name: &str, status: Value) {
        declare(&self.tokens, name, status).await;
    }

    async fn set_status(&self, name: &str, status: Value) {
        let patch = json!([{"op": "replace", "path": "/status", "value": status}]);
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let patch = Patch::Json::<()>(patch);
        self.tokens.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        self.tokens.delete(name, &DeleteParams::default()).await.unwrap();
    }

    fn outcome(&self, token: &Token) -> Outcome {
        use crate::domain::ports::Clock as _;
        self.gate.judge(Ok(token.expose()), &Demand::none(), self.clock.now()).outcome()
    }

    /// How many requests of this kind the gate has made.
    fn asked(&self, verb: Verb) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|request| &*request.info.client == "gate" && request.info.verb == verb).count()
    }

    /// Seconds since the API server was heard.
    fn age(&self) -> i64 {
        use crate::domain::ports::Clock as _;
        self.clock.now().as_second() - self.gate.last_heard().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn declare(tokens: &Api<DynamicObject>, name: &str, status: Value) {
    let object = json!({
        "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "metadata": {"name": name},
        "spec": {"scopes": ["read"]}, "status": status,
    });
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    tokens.create(&PostParams::default(), &object).await.unwrap();
    let patch = json!({"status": status});
    tokens.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

fn active(token: &Token) -> Value {
    json!({"credentials": [living(token)]})
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_fills_the_index_and_the_watch_keeps_it() {
    let mut world = World::new(settings());
    let [first, second] = [1, 2].map(|number| minted("twd", number));
    world.declare("first", active(&first)).await;
    assert_eq!(world.outcome(&first), Outcome::NotReady);
    world.follow(&[]);
    pass(1).await;
    assert!(world.ready.borrow().is_ready() && world.gate.is_open());
    assert_eq!((world.asked(Verb::List), world.asked(Verb::Watch)), (0, 1), "one request for all of it");
    assert_eq!(world.outcome(&first), Outcome::Accepted);
    assert_eq!(world.outcome(&second), Outcome::UnknownCredential);
    world.declare("second", active(&second)).await;
    world.set_status("first", json!({"credentials": [], "ended": [ended(&first)]})).await;
    pass(1).await;
    assert_eq!((world.outcome(&first), world.outcome(&second)), (Outcome::Ended, Outcome::Accepted));
    let version = i64::try_from(world.server.resource_version()).unwrap();
    assert_eq!(world.metrics.feed_version.get(), version);
    world.delete("second").await;
    pass(1).await;
    assert_eq!(world.outcome(&second), Outcome::UnknownCredential);
    assert_eq!(world.asked(Verb::Watch), 1);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_day_is_watches_and_bookmarks_and_no_list() {
    let world = World::ready().await;
    let mut oldest = 0;
    for _ in 0..8_640 {
        pass(10).await;
        oldest = oldest.max(world.age());
    }
    assert!(oldest <= 60, "the feed is never older than the pace of bookmarks: {oldest}");
    let watches = world.asked(Verb::Watch);
    assert!((290..=310).contains(&watches), "one in 290 seconds: {watches}");
    assert_eq!(world.asked(Verb::List), 0);
    assert_eq!(world.metrics.process.watch_errors.get([SYNCED]), 0);
}

#[tokio::test(start_paused = true)]
async fn each_of_several_namespaces_has_a_watch_of_its_own() {
    let mut world = World::new(settings());
    for namespace in ["shop", "bank"] {
        world.server.create_namespace(namespace);
    }
    let (shop, bank) = (tokens(&world.server, "shop"), tokens(&world.server, "bank"));
    let [first, second, elsewhere] = [1, 2, 3].map(|number| minted("twd", number));
    declare(&shop, "first", active(&first)).await;
    declare(&bank, "second", active(&second)).await;
    world.declare("elsewhere", active(&elsewhere)).await;
    // Only one of the two may be watched at first: no answers from half an index.
    world.server.set_authorizer(Some(Arc::new(|request| match request.namespace.as_deref() {
        Some("bank") if &*request.client == "gate" => Err("not this one".into()),
        _ => Ok(()),
    })));
    world.follow(&["shop", "bank"]);
    pass(100).await;
    assert!(!world.ready.borrow().is_ready() && !world.gate.is_open());
    assert_eq!(world.gate.last_heard(), None, "as old as the oldest");
    world.server.set_authorizer(None);
    pass(30).await;
    assert!(world.ready.borrow().is_ready());
    let outcomes = |world: &World| [&first, &second, &elsewhere].map(|token| world.outcome(token));
    assert_eq!(outcomes(&world), [Outcome::Accepted, Outcome::Accepted, Outcome::UnknownCredential]);
    // A list of one namespace says nothing about the other.
    world.server.compact();
    world.server.drop_watches();
    pass(60).await;
    assert_eq!(outcomes(&world), [Outcome::Accepted, Outcome::Accepted, Outcome::UnknownCredential]);
}
