//! The loop against a Lease endpoint of a few lines, in virtual time.

use std::collections::BTreeMap;
use std::convert::Infallible;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use super::*;

struct Wall;

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000).expect("in range")
    }
}

/// Stores one Lease with compare-and-swap.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
    /// Requests are swallowed: no answer ever.
    silent: bool,
    requests: Vec<(Method, String)>,
}

impl Server {
    fn store(&mut self, mut lease: Lease) -> Response<Body> {
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        answer(200, &lease)
    }

    fn handle(&mut self, method: &Method, path: &str, body: &[u8]) -> Response<Body> {
        let sent = || serde_json::from_slice::<Lease>(body).expect("a Lease");
        let refuse = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "Conflict" };
            let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "refused", "reason": reason, "code": code});
            answer(code, &status)
        };
        assert!(path.starts_with("/apis/coordination.k8s.io/v1/namespaces/ns/leases"), "{path}");
        match (method.as_str(), &self.lease) {
            ("GET", Some(lease)) => answer(200, lease),
            ("GET", None) | ("PUT", None) => refuse(404),
            ("POST", None) => self.store(sent()),
            ("POST", Some(_)) => refuse(409),
            ("PUT", Some(lease)) => {
                let sent = sent();
                assert!(sent.metadata.resource_version.is_some(), "a replace without a version is no swap");
                match sent.metadata.resource_version == lease.metadata.resource_version {
                    true => self.store(sent),
                    false => refuse(409),
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn answer(code: u16, value: &impl serde::Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).expect("serializes");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code).expect("valid");
    response
}

#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Server>>);

impl Cluster {
    fn api(&self) -> Api<Lease> {
        let server = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                tokio::time::sleep(Duration::from_millis(5)).await;
                server.lock().requests.push((parts.method.clone(), parts.uri.path().to_owned()));
                if server.lock().silent {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(server.lock().handle(&parts.method, parts.uri.path(), &body))
            }
        });
        Api::namespaced(Client::new(service, "ns"), "ns")
    }

    fn candidate(&self, name: &str) -> Candidate {
        self.noting(name, None)
    }

    fn noting(&self, name: &str, notes: Option<Notes>) -> Candidate {
        let second = Duration::from_secs(1);
        let config = Config::new(name, second * 15, second * 10, second).expect("valid");
        let metrics = Metrics::new(&mut Registry::default());
        let (elector, handle) =
            Elector::new(self.api(), "tokenward", config, Arc::new(Wall), metrics.clone());
        let elector = match notes {
            Some(notes) => elector.with_notes(Arc::new(notes)),
            None => elector,
        };
        let release = CancellationToken::new();
        let task = tokio::spawn(elector.run(release.clone()));
        Candidate { handle, release, task, metrics }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        self.0.lock().lease.clone().and_then(|lease| lease.metadata.annotations).unwrap_or_default()
    }

    fn spec(&self) -> LeaseSpec {
        self.0.lock().lease.clone().and_then(|lease| lease.spec).expect("a Lease with a spec")
    }
}

struct Candidate {
    handle: Handle,
    release: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    metrics: Metrics,
}

impl Candidate {
    fn leads(&self) -> bool {
        let leads = self.handle.fence.check().is_ok();
        assert_eq!(leads, self.handle.leadership.borrow().leading, "the fence and the published state agree");
        leads
    }

    async fn until(&mut self, leading: bool) {
        let change = self.handle.leadership.wait_for(|leadership| leadership.leading == leading);
        tokio::time::timeout(Duration::from_secs(300), change)
            .await
            .expect("in time")
            .expect("the loop runs");
    }

    async fn until_leading(&mut self) {
        self.until(true).await;
    }
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn one_leads_renews_and_writes_what_others_expect_to_read() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    seconds(60.0).await;
    let second = cluster.candidate("second");
    seconds(60.0).await;
    assert!(first.leads() && !second.leads());
    assert_eq!(second.handle.leadership.borrow().holder, "first");
    let spec = serde_json::to_value(cluster.spec()).expect("serializes");
    assert_eq!(spec["holderIdentity"], "first");
    assert_eq!(spec["leaseDurationSeconds"], 15);
    assert_eq!(spec["leaseTransitions"], 0);
    assert_eq!(spec["acquireTime"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(first.metrics.leader.get(), 1);
    assert_eq!(second.metrics.leader.get(), 0);
    let writes = cluster.0.lock().requests.iter().filter(|(method, _)| method == Method::PUT).count();
    assert!((55..=62).contains(&writes), "{writes} renewals in two minutes");
}

#[tokio::test(start_paused = true)]
async fn a_release_hands_over_within_two_seconds() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    let mut second = cluster.candidate("second");
    seconds(30.3).await;
    let start = Instant::now();
    first.release.cancel();
    second.until_leading().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    first.task.await.expect("returns after the release");
    assert!(first.handle.fence.check().is_err());
    assert_eq!(cluster.spec().lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_within_the_lease_duration() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    let mut second = cluster.candidate("second");
    seconds(30.0).await;
    let start = Instant::now();
    first.task.abort();
    second.until_leading().await;
    let took = start.elapsed();
    assert!(took > Duration::from_secs(12) && took <= Duration::from_secs(17), "{took:?}");
    assert_eq!(cluster.spec().holder_identity.as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_ends_leadership_at_the_deadline() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    seconds(20.0).await;
    let deadline = first.handle.fence.deadline().expect("leads");
    cluster.0.lock().silent = true;
    // Published at that moment, although a call is on its way then.
    first.until(false).await;
    assert!(Instant::now() >= deadline, "not before the deadline");
    assert!(Instant::now() <= deadline + Duration::from_millis(10), "and not after it");
    assert!(first.handle.fence.check().is_err());
    assert_eq!(first.metrics.leader.get(), 0);
    cluster.0.lock().silent = false;
    first.until_leading().await;
    assert_eq!(first.handle.leadership.borrow().term, 2, "a slow receiver sees that it was interrupted");
}

#[tokio::test(start_paused = true)]
async fn the_fence_closes_even_when_the_loop_does_not_run() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    first.task.abort();
    assert!(first.handle.fence.check().is_ok());
    seconds(10.1).await;
    assert_eq!(first.handle.fence.check(), Err(NotLeading));
}

#[tokio::test(start_paused = true)]
async fn what_else_stands_in_the_lease_is_kept() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    {
        let mut server = cluster.0.lock();
        let mut lease = server.lease.clone().expect("a Lease");
        lease.metadata.annotations = Some([("ledger".to_owned(), "10.0.0.7".to_owned())].into());
        if let Some(spec) = &mut lease.spec {
            spec.preferred_holder = Some("somebody".to_owned());
        }
        server.store(lease);
    }
    seconds(10.0).await;
    assert!(first.leads(), "an edit of the metadata does not end leadership");
    assert_eq!(first.handle.leadership.borrow().term, 1);
    first.release.cancel();
    first.task.await.expect("released");
    let lease = cluster.0.lock().lease.clone().expect("a Lease");
    assert_eq!(lease.metadata.annotations.expect("annotations")["ledger"], "10.0.0.7");
    let spec = lease.spec.expect("a spec");
    assert_eq!(spec.preferred_holder.as_deref(), Some("somebody"));
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some(""), Some(1)));
}

/// Notes of a process at this address; what it hands down is what stands in `legacy`, in the term it is for.
fn notes(address: &str, legacy: &Arc<Mutex<Option<(u64, String)>>>) -> Notes {
    let legacy = legacy.clone();
    let here = BTreeMap::from([("address", Some(address.to_owned()))]);
    let own = move |term| legacy.lock().clone().filter(|(own, _)| *own == term).map(|(_, value)| value);
    Notes::new(here, "coverage", Box::new(own))
}

#[tokio::test(start_paused = true)]
async fn notes_travel_with_the_renewals_and_go_with_the_leader() {
    let cluster = Cluster::default();
    let legacy = Arc::new(Mutex::new(None));
    let mut first = cluster.noting("first", Some(notes("10.0.0.1", &legacy)));
    first.until_leading().await;
    assert_eq!(cluster.annotations()["address"], "10.0.0.1", "with the write that makes it leader");
    assert!(!cluster.annotations().contains_key("coverage"));
    *legacy.lock() = Some((1, "since monday".to_owned()));
    seconds(60.0).await;
    assert_eq!(cluster.annotations()["coverage"], "since monday");
    let writes = cluster.0.lock().requests.iter().filter(|(method, _)| method == Method::PUT).count();
    assert!((28..=32).contains(&writes), "{writes} writes in a minute: none of their own");
    *legacy.lock() = Some((1, "since monday, until now".to_owned()));
    first.release.cancel();
    first.task.await.expect("released");
    let left = cluster.annotations();
    assert!(!left.contains_key("address"), "nobody is found there any more");
    assert_eq!(left["coverage"], "since monday, until now", "the last word counts");
}

#[tokio::test(start_paused = true)]
async fn a_successor_reads_the_legacy_before_it_writes_its_own() {
    let cluster = Cluster::default();
    let legacy = Arc::new(Mutex::new(Some((1, "of the first".to_owned()))));
    let mut first = cluster.noting("first", Some(notes("10.0.0.1", &legacy)));
    first.until_leading().await;
    seconds(10.0).await;
    first.task.abort();
    // A process that has led before still holds what it handed down then.
    let stale = Arc::new(Mutex::new(Some((0, "of another time".to_owned()))));
    let mut second = cluster.noting("second", Some(notes("10.0.0.2", &stale)));
    second.until_leading().await;
    seconds(10.0).await;
    let found = cluster.annotations();
    assert_eq!((found["address"].as_str(), found["coverage"].as_str()), ("10.0.0.2", "of the first"));
    *stale.lock() = Some((1, "of both".to_owned()));
    seconds(10.0).await;
    assert_eq!(cluster.annotations()["coverage"], "of both");
}

#[tokio::test(start_paused = true)]
async fn what_was_found_is_told_before_leadership_is() {
    let cluster = Cluster::default();
    let legacy = Arc::new(Mutex::new(Some((1, "of the first".to_owned()))));
    let mut first = cluster.noting("first", Some(notes("10.0.0.1", &legacy)));
    first.until_leading().await;
    seconds(10.0).await;
    first.release.cancel();
    first.task.await.expect("released");
    let second =
        Config::new("second", Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(1));
    let metrics = Metrics::new(&mut Registry::default());
    let (elector, mut handle) =
        Elector::new(cluster.api(), "tokenward", second.expect("valid"), Arc::new(Wall), metrics);
    let found = Arc::new(notes("10.0.0.2", &Arc::default()));
    let task = tokio::spawn(elector.with_notes(found.clone()).run(CancellationToken::new()));
    handle.leadership.wait_for(|now| now.leading).await.expect("leads");
    assert_eq!(found.found(), "of the first");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_no_address_of_another_stays() {
    let cluster = Cluster::default();
    let keys = [crate::api::keys::LEDGER_ADDRESS, crate::api::keys::COVERAGE];
    let there = keys.map(|key| (key.to_owned(), "old".to_owned()));
    let metadata = ObjectMeta { annotations: Some(there.into()), ..ObjectMeta::default() };
    cluster.0.lock().store(Lease { metadata, spec: None });
    let mut first = cluster.noting("first", Some(Notes::without_ledger()));
    first.until_leading().await;
    let left = cluster.annotations();
    assert_eq!(left.keys().collect::<Vec<_>>(), [crate::api::keys::COVERAGE]);
}

#[tokio::test(start_paused = true)]
async fn a_release_returns_even_when_nobody_answers() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    cluster.0.lock().silent = true;
    first.release.cancel();
    tokio::time::timeout(Duration::from_secs(15), first.task).await.expect("gives up").expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_standby_leaves_without_a_write() {
    let cluster = Cluster::default();
    let mut first = cluster.candidate("first");
    first.until_leading().await;
    let second = cluster.candidate("second");
    seconds(5.0).await;
    let before = cluster.spec();
    second.release.cancel();
    second.task.await.expect("returns");
    assert_eq!(cluster.spec(), before);
    assert!(first.leads());
}

#[tokio::test(start_paused = true)]
async fn without_election_the_process_always_leads() {
    let mut handle = Handle::always();
    assert!(handle.fence.check().is_ok() && handle.leadership.borrow().leading);
    assert_eq!(handle.fence.deadline(), None);
    let change = tokio::time::timeout(Duration::from_secs(1), handle.leadership.changed()).await;
    assert!(change.is_err(), "and nothing ever changes");
}
