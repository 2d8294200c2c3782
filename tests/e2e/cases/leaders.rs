//! Two replicas: one works, the other knows the world already and takes over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use serde_json::json;
use tokenward::api::keys;

use crate::harness::{Operator, Scrape, Signal, Space, is_ready, own, sole_active, until, until_within};

/// Everything that a replica wrote, but its Lease.
fn writes(scrape: &Scrape) -> f64 {
    let calls = ["apply", "create", "patch", "delete"];
    let calls: f64 =
        calls.iter().map(|verb| scrape.sum("tokenward_api_requests_total", &[("verb", verb)])).sum();
    calls + scrape.sum("tokenward_status_writes_total", &[])
}

/// What it wrote, once that grows no more: it counts answers, and events about them, after a watch has shown the write.
async fn settled_writes(operator: &Operator) -> f64 {
    let mut last = writes(&operator.scrape().await);
    until("the count of writes stands still", async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = std::mem::replace(&mut last, writes(&operator.scrape().await));
        (last == before).then_some(last)
    })
    .await
}

/// Waits for the moment when `operator` leads.
async fn taken_over(operator: &Operator, since: Instant) -> Duration {
    until_within(Duration::from_secs(60), Duration::from_millis(10), "the other replica leads", async || {
        operator.leads().await.then_some(())
    })
    .await;
    since.elapsed()
}

/// Two replicas as the chart has them, one of them leading; the leader comes first.
async fn pair(space: &Space) -> (crate::harness::Release<'static>, [Arc<Operator>; 2]) {
    let release = space.release_for(&[&space.name], json!({})).await;
    let launch = release.launch().await;
    assert_eq!(launch.replicas, 2);
    let first = space.start(&launch, "replica-0").await;
    first.until_ready().await;
    first.until_leading().await;
    let second = space.start(&launch, "replica-1").await;
    second.until_ready().await;
    (release, [first, second])
}

#[test]
fn a_leader_that_is_asked_to_end_hands_over() {
    own("handover", async |space| {
        let (release, [mut leader, mut standby]) = pair(space).await;
        let launch = release.launch().await;
        for name in ["a", "b", "c"] {
            space.declare(name, json!({})).await;
            space.ready(name).await;
        }
        assert!(leader.leads().await && !standby.leads().await);
        assert_eq!(standby.get("/readyz").await.unwrap().0, 200, "a standby is ready to take over");
        assert_eq!(writes(&standby.scrape().await), 0.0, "a standby writes nothing");
        until("the leader has counted the answers to its writes", async || {
            (writes(&leader.scrape().await) >= 9.0).then_some(())
        })
        .await;

        let mut figures = Vec::new();
        for round in 0..3 {
            // With work under way.
            for name in ["a", "b", "c"] {
                space.request(name, keys::ROTATE_REQUESTED_AT).await;
            }
            let asked = Instant::now();
            leader.signal(Signal::Term).await;
            figures.push(taken_over(&standby, asked).await);
            assert_eq!(leader.ended().await.code(), Some(0), "it ends well");
            assert!(leader.read_log().contains("stopped"), "and says so");
            leader = standby;
            standby = space.start(&launch, &format!("replica-{}", round + 2)).await;
            standby.until_ready().await;
            for name in ["a", "b", "c"] {
                let token = space.rotate(name).await;
                space.holds_active(&token).await;
            }
        }
        println!("hand-over on SIGTERM: {figures:.2?}");
        figures.sort();
        assert!(figures[1] < Duration::from_secs(4), "taken at the next look: {figures:?}");
        // A Lease that was not given back would take 13 s and more to run out.
        assert!(figures[2] < Duration::from_secs(10), "given back every time: {figures:?}");
    });
}

#[test]
fn a_leader_that_is_killed_is_replaced_within_the_lease_time() {
    own("takeover", async |space| {
        let (_release, [leader, standby]) = pair(space).await;
        space.declare("kept", json!({})).await;
        let held = space.holds_active(&space.ready("kept").await).await;
        leader.kill().await;
        let killed = Instant::now();
        space.request("kept", keys::ROTATE_REQUESTED_AT).await;
        let figure = taken_over(&standby, killed).await;
        println!("takeover after kill -9: {figure:.2?} (lease duration 15 s, retry period 1 s)");
        assert!(figure < Duration::from_secs(15 + 1 + 8), "within the lease time: {figure:?}");
        assert!(figure > Duration::from_secs(9), "not before the lease has run out: {figure:?}");
        let token = space
            .until("kept", "rotated by the other replica", |token| {
                is_ready(token) && sole_active(token).id != held.id()
            })
            .await;
        space.holds_active(&token).await;
    });
}

#[test]
fn a_paused_leader_does_not_write_when_it_wakes() {
    own("paused", async |space| {
        let (release, [leader, standby]) = pair(space).await;
        let names: Vec<_> = (0..8).map(|number| format!("t{number}")).collect();
        for name in &names {
            space.declare(name, json!({})).await;
        }
        for name in &names {
            space.ready(name).await;
        }
        // In the middle of something, where possible.
        for name in &names {
            space.request(name, keys::ROTATE_REQUESTED_AT).await;
        }
        leader.signal(Signal::Stop).await;
        let paused = Instant::now();
        let figure = taken_over(&standby, paused).await;
        println!("takeover from a paused leader: {figure:.2?}");
        for name in &names {
            let token = space.rotate(name).await;
            space.holds_active(&token).await;
        }
        let versions = async || {
            let tokens = space.tokens().list(&ListParams::default()).await.unwrap();
            let secrets = space.secrets().list(&ListParams::default()).await.unwrap();
            let tokens = tokens.items.into_iter().map(|token| token.metadata.resource_version);
            let secrets = secrets.items.into_iter().map(|secret| secret.metadata.resource_version);
            tokens.chain(secrets).collect::<Vec<_>>()
        };
        let written = settled_writes(&standby).await;
        let quiet = versions().await;

        leader.signal(Signal::Continue).await;
        until("the woken leader knows that it leads no more", async || {
            let log = leader.read_log();
            let scrape = leader.try_scrape().await?;
            (scrape.sum("tokenward_leader", &[]) == 0.0 && log.contains("no longer lead")).then_some(())
        })
        .await;
        // It has seen the other's Lease by now, and each of the two has looked at every token it was told of.
        let leases = Api::<Lease>::namespaced(space.cluster.client.clone(), &release.name);
        let lease = leases.list(&ListParams::default()).await.unwrap().items.remove(0);
        assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("replica-1"));
        // Events about what it wrote before the pause may still have been on their way, and are no state.
        let first = settled_writes(&leader).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let second = leader.scrape().await;
        assert_eq!(writes(&second), first, "a woken leader writes nothing");
        assert_eq!(versions().await, quiet, "nothing was written since it woke");
        assert_eq!(writes(&standby.scrape().await), written);
        for name in &names {
            space.holds_active(&space.get(name).await).await;
        }
        assert!(standby.leads().await && !leader.leads().await);
    });
}
