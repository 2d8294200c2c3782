//! The in-process API server under real kube-rs clients, watchers and reflectors, in virtual time.

// Helpers of tests stop the test where they stand, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta, WatchEvent};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokenward::testkit::apiserver::{ApiServer, Config, Fault, Faults, Link, RequestInfo, Verb, When};
use tokenward::testkit::clock::VirtualClock;

fn server() -> ApiServer {
    ApiServer::new(Arc::new(VirtualClock::default()))
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "default")
}

fn named(name: &str) -> Secret {
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})).unwrap()
}

fn labelled(name: &str, label: &str) -> Secret {
    let labels = json!({"app": label});
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels},
    }))
    .unwrap()
}

fn apply(manager: &str) -> PatchParams {
    PatchParams::apply(manager)
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason),
        other => panic!("not an answer of the API server: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_of_one_snapshot() {
    let server = server();
    let api = secrets(&server.client("a"));
    for i in 0..7 {
        api.create(&PostParams::default(), &named(&format!("s{i}"))).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(3)).await.unwrap();
    api.delete("s4", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &named("s33")).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let rest = api.list(&ListParams::default().limit(10).continue_token(&token)).await.unwrap();
    let names: Vec<String> = rest.items.iter().map(|s| s.name_any()).collect();
    assert_eq!(names, ["s3", "s4", "s5", "s6"]);
    server.compact();
    let expired = api.list(&ListParams::default().limit(10).continue_token(&token)).await;
    assert_eq!(code(expired), (410, "Expired".into()));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_recovers_from_410_and_misses_nothing() {
    let server = server();
    let client = server.client("a");
    let api = secrets(&client);
    let (reader, writer) = reflector::store::<Secret>();
    let stream = reflector(writer, watcher(api.clone(), watcher::Config::default())).default_backoff();
    let task = tokio::spawn(stream.for_each(|_| async {}));
    reader.wait_until_ready().await.unwrap();
    api.create(&PostParams::default(), &named("one")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reader.len(), 1);
    // Gone while nobody watches and nobody remembers.
    server.partition("a", true);
    let other = secrets(&server.client("b"));
    other.delete("one", &DeleteParams::default()).await.unwrap();
    other.create(&PostParams::default(), &named("two")).await.unwrap();
    server.compact();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(reader.state()[0].name_any(), "one");
    server.partition("a", false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(reader.len(), 1);
    assert_eq!(reader.state()[0].name_any(), "two");
    // And once more, with the connection broken under an idle watch.
    server.compact();
    server.drop_watches();
    tokio::time::sleep(Duration::from_secs(60)).await;
    other.create(&PostParams::default(), &named("three")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reader.len(), 2);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn streaming_lists_work_under_a_watcher() {
    let server = server();
    let api = secrets(&server.client("a"));
    api.create(&PostParams::default(), &named("one")).await.unwrap();
    let stream = watcher(api.clone(), watcher::Config::default().streaming_lists());
    let mut stream = std::pin::pin!(stream);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(stream.try_next().await.unwrap().unwrap().to_string());
    }
    assert_eq!(seen, ["Init", "InitApply(one)", "InitDone"]);
    api.create(&PostParams::default(), &named("two")).await.unwrap();
    assert_eq!(stream.try_next().await.unwrap().unwrap().to_string(), "Apply(two)");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_when_asked_for_and_watches_time_out() {
    let config = Config { bookmark_every: Some(Duration::from_secs(60)), ..Config::default() };
    let server = ApiServer::builder(Arc::new(VirtualClock::default())).config(config).build();
    let api = secrets(&server.client("a"));
    let start = tokio::time::Instant::now();
    let params = WatchParams::default().timeout(290);
    let events: Vec<_> = api.watch(&params, "1000").await.unwrap().boxed().try_collect().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 290);
    assert_eq!(events.len(), 5, "four periodic ones and a last one");
    assert!(events.iter().all(|event| matches!(event, WatchEvent::Bookmark(_))));
    let params = WatchParams::default().timeout(290).disable_bookmarks();
    let events: Vec<_> = api.watch(&params, "1000").await.unwrap().boxed().try_collect().await.unwrap();
    assert!(events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_metadata_watch_with_a_label_selector_sees_what_enters_and_leaves() {
    let server = server();
    let client = server.client("a");
    let api = secrets(&client);
    let metadata: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, "default");
    let stream = watcher(metadata, watcher::Config::default().labels("app=x"));
    let mut stream = std::pin::pin!(stream);
    for _ in 0..2 {
        stream.try_next().await.unwrap();
    }
    let params = apply("m").force();
    for label in ["y", "x", "y"] {
        api.patch("s", &params, &Patch::Apply(labelled("s", label))).await.unwrap();
    }
    assert_eq!(stream.try_next().await.unwrap().unwrap().to_string(), "Apply(s)");
    assert_eq!(stream.try_next().await.unwrap().unwrap().to_string(), "Delete(s)");
}

#[tokio::test(start_paused = true)]
async fn apply_owns_removes_and_stays_silent_when_nothing_changes() {
    let server = server();
    let api = secrets(&server.client("a"));
    let commits = Arc::new(AtomicU64::new(0));
    let counter = commits.clone();
    server.on_commit(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let first = api.patch("s", &apply("m"), &Patch::Apply(labelled("s", "x"))).await.unwrap();
    let again = api.patch("s", &apply("m"), &Patch::Apply(labelled("s", "x"))).await.unwrap();
    assert_eq!(first.resource_version(), again.resource_version());
    assert_eq!(commits.load(Ordering::Relaxed), 1);
    let conflict = api.patch("s", &apply("n"), &Patch::Apply(labelled("s", "y"))).await;
    assert_eq!(code(conflict), (409, "Conflict".into()));
    let dropped = api.patch("s", &apply("m"), &Patch::Apply(named("s"))).await.unwrap();
    assert!(dropped.labels().is_empty());
    assert_eq!(server.writes(|client| client == "a"), 4);
}

#[tokio::test(start_paused = true)]
async fn owners_take_their_dependents_with_them() {
    let server = server();
    let client = server.client("a");
    let api = secrets(&client);
    let tokens: Api<DynamicObject> = Api::namespaced_with(
        client,
        "default",
        &ApiResource {
            group: "tokenward.dev".into(),
            version: "v1alpha1".into(),
            api_version: "tokenward.dev/v1alpha1".into(),
            kind: "ApiToken".into(),
            plural: "apitokens".into(),
        },
    );
    let token: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "metadata": {"name": "t"}, "spec": {},
    }))
    .unwrap();
    let token = tokens.create(&PostParams::default(), &token).await.unwrap();
    assert_eq!(token.metadata.generation, Some(1));
    let owned: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "ownerReferences": [{
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "name": "t", "uid": token.uid().unwrap(),
        }]},
    }))
    .unwrap();
    api.create(&PostParams::default(), &owned).await.unwrap();
    tokens.delete("t", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("s").await.unwrap().is_some());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(server.get("secrets", "default", "s").is_none(), "without any request in between");
}

#[tokio::test(start_paused = true)]
async fn faults_strike_before_or_after_a_write() {
    struct Once(AtomicU64, Fault);
    impl Faults for Once {
        fn decide(&self, request: &RequestInfo) -> Fault {
            let first = request.verb.is_write() && self.0.fetch_add(1, Ordering::Relaxed) == 0;
            if first { self.1 } else { Fault::None }
        }
    }
    let strike =
        |server: &ApiServer, fault| server.set_faults(Some(Arc::new(Once(AtomicU64::new(0), fault))));
    let server = server();
    let api = secrets(&server.client("a"));
    let create = |name: &'static str| {
        let api = api.clone();
        async move { api.create(&PostParams::default(), &named(name)).await }
    };
    let exists = |name: &str| server.get("secrets", "default", name).is_some();
    strike(&server, Fault::FailBefore);
    assert!(create("before").await.is_err());
    assert!(!exists("before"));
    strike(&server, Fault::FailAfter);
    assert!(create("after").await.is_err());
    assert!(exists("after"));
    strike(&server, Fault::Status { code: 500, retry_after: None });
    assert_eq!(code(create("refused").await).0, 500);
    strike(&server, Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_secs(60), create("hung")).await.is_err());
    strike(&server, Fault::Delay(Duration::from_secs(5)));
    assert!(tokio::time::timeout(Duration::from_secs(1), create("delayed")).await.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!exists("delayed"), "the client gave up in time");
    strike(&server, Fault::Late(Duration::from_secs(5)));
    assert!(tokio::time::timeout(Duration::from_secs(1), create("late")).await.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(exists("late"), "the network did not know that the client had given up");
}

#[tokio::test(start_paused = true)]
async fn a_client_dies_at_the_write_it_was_told_to() {
    for (when, applied) in [(When::Before, false), (When::After, true)] {
        let server = server();
        let client = server.client("replica-a");
        let crash = server.crash_at_write("replica-a", 2, when);
        let task = tokio::spawn(async move {
            let api = secrets(&client);
            for name in ["one", "two", "three"] {
                api.create(&PostParams::default(), &named(name)).await.unwrap();
            }
        });
        let at = crash.await.unwrap();
        assert_eq!((at.verb, at.name.as_deref()), (Verb::Create, Some("two")));
        task.abort();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let names: Vec<_> =
            server.list("secrets").iter().map(|s| s["metadata"]["name"].to_string()).collect();
        assert_eq!(names.len(), 1 + usize::from(applied));
        // The next process of that name lives.
        secrets(&server.client("replica-a")).create(&PostParams::default(), &named("four")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_delivers_late_and_a_refused_one_fails() {
    let server = server();
    let api = secrets(&server.client("a"));
    server.set_link("a", Link::Refused);
    assert!(api.list(&ListParams::default()).await.is_err());
    server.set_link("a", Link::Silent);
    let late = tokio::spawn(async move { api.create(&PostParams::default(), &named("late")).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(server.list("secrets").is_empty());
    server.set_link("a", Link::Up);
    late.await.unwrap().unwrap();
    server.set_down(true);
    assert!(secrets(&server.client("b")).list(&ListParams::default()).await.is_err());
    server.set_down(false);
    assert_eq!(secrets(&server.client("b")).list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn hooks_refuse_by_validation_quota_and_access() {
    let server = server();
    let api = secrets(&server.client("a"));
    server.set_validator(
        "secrets",
        Some(Arc::new(|new, _| match new["metadata"]["name"] == "bad" {
            true => Err(vec!["spec: Invalid value: bad".into()]),
            false => Ok(()),
        })),
    );
    assert_eq!(code(api.create(&PostParams::default(), &named("bad")).await), (422, "Invalid".into()));
    server.set_quota("secrets", "default", Some(1));
    api.create(&PostParams::default(), &named("one")).await.unwrap();
    let refused = api.create(&PostParams::default(), &named("two")).await.unwrap_err();
    assert!(refused.to_string().contains("exceeded quota"), "{refused}");
    server.set_authorizer(Some(Arc::new(|request| match request.verb {
        Verb::Delete => Err("may not delete".into()),
        _ => Ok(()),
    })));
    assert_eq!(code(api.delete("one", &DeleteParams::default()).await), (403, "Forbidden".into()));
    server.set_served("secrets", false);
    assert_eq!(code(api.get("one").await).0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_month_of_leases_and_watches_is_cheap() {
    let server = server();
    let began = std::time::Instant::now();
    let client = server.client("a");
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    let watch = tokio::spawn(watcher(secrets(&client), watcher::Config::default()).for_each(|_| async {}));
    for turn in 0..10_000 {
        let body = json!({"spec": {"leaseTransitions": turn}});
        leases.patch("l", &PatchParams::default(), &Patch::Merge(&body)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(259)).await;
    }
    watch.abort();
    let opened: u64 =
        server.counts().iter().filter(|((_, verb, ..), _)| *verb == Verb::Watch).map(|(_, n)| n).sum();
    println!("10,000 writes and {opened} watches in {:?}", began.elapsed());
    let began = std::time::Instant::now();
    for turn in 0..5_000 {
        let body = json!({"spec": {"leaseTransitions": turn}});
        leases.patch("l", &PatchParams::default(), &Patch::Merge(&body)).await.unwrap();
    }
    println!("5,000 writes in {:?}", began.elapsed());
    let began = std::time::Instant::now();
    for _ in 0..5_000 {
        leases.get("l").await.unwrap();
    }
    println!("5,000 reads in {:?}", began.elapsed());
    assert!(opened > 8_000);
}
