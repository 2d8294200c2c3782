//! Gates and ledgers in the simulated world: how fast a revocation arrives, that it never comes undone, that nothing is
//! counted twice or lost, and that a quiet world writes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use tokenward::api::{ConditionType, Outcome, TokenUsageStatus, keys};
use tokenward::testkit::world::World;
use tokenward::testkit::world::chance::Chance;
use tokenward::testkit::world::gates::FLUSH;
use tokenward::testkit::world::replica::PREFIX;

use crate::support::{SHOP, active, hours, minutes, orders, says, seconds, sound, virtually};

/// Two replicas with ledgers, two gates, a delivered token `shop/orders`.
async fn watched(seed: u64, spec: Value) -> World {
    let mut world = World::with_ledger(seed);
    for pod in ["a", "b"] {
        world.start(pod);
    }
    for gate in ["g", "h"] {
        world.start_gate(gate);
    }
    world.pass(minutes(2)).await;
    world.people.declare(SHOP, "orders", spec).await.unwrap();
    world.pass(seconds(30)).await;
    sound(&world);
    world
}

/// What the Secret holds.
fn token(world: &World) -> String {
    let secret = world.server.get("secrets", SHOP, "orders").expect("a Secret");
    let value = secret["data"]["token"].as_str().expect("a token");
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn usage(world: &World) -> TokenUsageStatus {
    let stored = world.server.get("tokenusages", SHOP, "orders");
    let status = stored.and_then(|usage| usage.get("status").cloned()).unwrap_or_default();
    serde_json::from_value(status).unwrap_or_default()
}

fn health(world: &World) -> String {
    orders(world).status.unwrap_or_default().health.unwrap_or_default()
}

fn ask(world: &World, gate: &str, token: &str) -> Outcome {
    world.gate(gate).expect("a gate").ask(token, "curl/8")
}

#[test]
fn a_first_use_is_seen_within_seconds_and_everything_is_counted_once() {
    virtually(async {
        let world = watched(1, json!({"idle": {"after": "2h"}})).await;
        assert_eq!(
            (health(&world).as_str(), says(&world, ConditionType::InUse).as_str()),
            ("NeverUsed", "False NeverUsed")
        );
        let token = token(&world);
        assert_eq!(ask(&world, "g", &token), Outcome::Accepted);
        world.pass(seconds(3)).await;
        let shown = orders(&world).status.unwrap().usage.expect("usage is shown");
        assert_eq!((shown.requests, shown.callers, health(&world).as_str()), (Some(1), Some(1), "InUse"));
        for _ in 0..50 {
            assert_eq!(ask(&world, "g", &token), Outcome::Accepted);
            assert_eq!(ask(&world, "h", &token), Outcome::Accepted);
            world.pass(seconds(7)).await;
        }
        world.pass(minutes(15)).await;
        assert_eq!(usage(&world).requests, 101);
        assert_eq!(usage(&world).callers.iter().map(|caller| caller.requests).sum::<i64>(), 101);
        world.pass(minutes(130)).await;
        assert_eq!(
            (health(&world).as_str(), says(&world, ConditionType::Idle).as_str()),
            ("Idle", "True Idle")
        );
        sound(&world);
    });
}

#[test]
fn a_revocation_arrives_at_once_and_never_comes_undone() {
    virtually(async {
        let world = watched(2, json!({})).await;
        let first = token(&world);
        for (name, change) in [
            ("suspended", json!({"spec": {"suspend": true}})),
            ("compromised", json!({"metadata": {"annotations": {keys::COMPROMISED_AT: "now"}}})),
        ] {
            assert_eq!(ask(&world, "g", &token(&world)), Outcome::Accepted, "{name}");
            let presented = token(&world);
            world.people.edit(SHOP, "orders", change).await.unwrap();
            world.pass(Duration::from_millis(50)).await;
            for gate in ["g", "h"] {
                assert_ne!(ask(&world, gate, &presented), Outcome::Accepted, "{name} at {gate}");
            }
            world.people.edit(SHOP, "orders", json!({"spec": {"suspend": false}})).await.unwrap();
            world.pass(seconds(10)).await;
        }
        // Revoked is revoked, through every relist and without an API server.
        world.server.compact();
        world.server.drop_watches();
        world.pass(minutes(2)).await;
        world.server.set_down(true);
        world.pass(hours(1)).await;
        for gate in ["g", "h"] {
            assert_eq!(ask(&world, gate, &first), Outcome::Ended);
            assert_eq!(ask(&world, gate, &token(&world)), Outcome::Accepted, "answers go on from memory");
        }
        world.server.set_down(false);
        world.pass(minutes(2)).await;
        world.people.delete(SHOP, "orders").await.unwrap();
        world.pass(Duration::from_millis(50)).await;
        assert_eq!(ask(&world, "g", &first), Outcome::UnknownCredential);
        sound(&world);
    });
}

#[test]
fn a_leader_that_dies_loses_nothing_and_a_new_one_calls_nothing_idle_too_soon() {
    virtually(async {
        let mut world = watched(3, json!({})).await;
        let token = token(&world);
        let mut sent = 0;
        for round in 0..6 {
            for _ in 0..20 {
                sent += i64::from(ask(&world, "g", &token) == Outcome::Accepted);
                world.pass(Duration::from_millis(700)).await;
            }
            let leader = world.leader().expect("a leader");
            if round % 2 == 0 {
                world.kill(leader)
            } else {
                world.stop(leader).await
            }
            world.pass(seconds(20)).await;
            world.start(leader);
            assert_ne!(health(&world), "NeverUsed", "round {round}");
        }
        world.pass(minutes(20)).await;
        assert_eq!((usage(&world).requests, sent), (sent, 120));
        sound(&world);
    });
}

#[test]
fn a_gate_that_dies_hard_loses_one_flush_at_most() {
    virtually(async {
        let mut world = watched(4, json!({})).await;
        let token = token(&world);
        let (mut sent, mut at_risk) = (0, 0);
        for round in 0_u32..5 {
            for _ in 0..30 {
                sent += i64::from(ask(&world, "g", &token) == Outcome::Accepted);
                world.pass(seconds(5)).await;
            }
            // Whatever was counted more than a flush ago has arrived.
            for _ in 0..3 {
                at_risk += i64::from(ask(&world, "g", &token) == Outcome::Accepted);
            }
            world.pass(FLUSH / 4 * round.min(3)).await;
            world.kill_gate("g");
            world.pass(seconds(5)).await;
            world.start_gate("g");
            world.pass(minutes(1)).await;
        }
        world.pass(minutes(30)).await;
        let counted = usage(&world).requests;
        assert!((sent..=sent + at_risk).contains(&counted), "{counted} of {sent} and {at_risk}");
        sound(&world);
    });
}

#[test]
fn a_gate_that_leaves_in_order_loses_nothing() {
    virtually(async {
        let mut world = watched(5, json!({})).await;
        let token = token(&world);
        for round in 0..5 {
            for _ in 0..10 {
                assert_eq!(ask(&world, "g", &token), Outcome::Accepted, "round {round}");
            }
            world.stop_gate("g").await;
            world.start_gate("g");
            world.pass(minutes(1)).await;
        }
        world.pass(minutes(30)).await;
        assert_eq!(usage(&world).requests, 50);
        sound(&world);
    });
}

#[test]
fn without_traffic_nothing_is_written() {
    virtually(async {
        let mut world = watched(6, json!({})).await;
        world.pass(minutes(15)).await;
        let writes = |world: &World| {
            let counts = world.server.counts();
            let of_replicas = counts.iter().filter(|((client, verb, resource, _), _)| {
                client.starts_with(PREFIX) && verb.is_write() && resource != "leases"
            });
            of_replicas.map(|(_, count)| count).sum::<u64>()
        };
        let before = writes(&world);
        world.pass(hours(4)).await;
        world.stop_gate("h").await;
        world.pass(hours(1)).await;
        world.start_gate("h");
        world.server.drop_watches();
        world.pass(hours(2)).await;
        assert_eq!(writes(&world), before);
        sound(&world);
    });
}

#[test]
fn a_superseded_credential_is_retired_once_gates_see_it_unused() {
    virtually(async {
        let spec =
            json!({"rotation": {"every": "720h", "overlap": "48h", "retire": "WhenUnused", "settle": "1h"}});
        let world = watched(7, spec).await;
        let old = token(&world);
        let change = json!({"metadata": {"annotations": {keys::ROTATE_REQUESTED_AT: "now"}}});
        world.people.edit(SHOP, "orders", change).await.unwrap();
        world.pass(minutes(30)).await;
        assert_eq!(ask(&world, "h", &old), Outcome::Accepted);
        world.pass(minutes(50)).await;
        assert_eq!(ask(&world, "h", &old), Outcome::Accepted, "it was used less than an hour ago");
        world.pass(minutes(62)).await;
        assert_eq!(ask(&world, "h", &old), Outcome::Ended);
        assert_ne!(&old[4..14], active(&world));
        assert_eq!(ask(&world, "h", &token(&world)), Outcome::Accepted);
        sound(&world);
    });
}

#[test]
fn a_gap_in_coverage_is_said_and_nothing_is_called_idle_in_it() {
    virtually(async {
        let mut world = watched(8, json!({"idle": {"after": "2h"}})).await;
        let token = token(&world);
        assert_eq!(ask(&world, "g", &token), Outcome::Accepted);
        world.pass(hours(1)).await;
        for gate in ["g", "h"] {
            world.kill_gate(gate);
        }
        world.pass(hours(3)).await;
        assert_eq!(says(&world, ConditionType::InUse), "Unknown NoGate");
        world.start_gate("g");
        world.pass(minutes(100)).await;
        assert_eq!(says(&world, ConditionType::InUse), "Unknown NotObserved");
        world.pass(minutes(30)).await;
        assert_eq!(says(&world, ConditionType::Idle), "True Idle");
        sound(&world);
    });
}

/// A seed as two hours of traffic over a bad network, with replicas and gates that come and go.
async fn story(seed: u64) -> Result<(), String> {
    let mut world = watched(seed, json!({"rotation": {"every": "2h", "overlap": "30m"}})).await;
    let mut chance = Chance::new(seed, 9);
    let mut refused = BTreeMap::<String, u64>::new();
    let mut sent = 0_i64;
    let mut tokens = vec![token(&world)];
    world.exchange().lose(10);
    let end = world.now() + SignedDuration::from_hours(2);
    let problem =
        |world: &World, what: String| Err(format!("seed {seed}: {what}\n{}", world.story.join("\n")));
    while world.now() < end {
        world.pass(chance.time(Duration::ZERO, minutes(4))).await;
        let current = world.server.get("secrets", SHOP, "orders").map(|_| token(&world));
        if let Some(current) = current.filter(|current| !tokens.contains(current)) {
            tokens.push(current);
        }
        for _ in 0..chance.below(20) {
            let gate = *chance.pick(&["g", "h"]);
            let presented = chance.pick(&tokens).clone();
            let Some(pod) = world.gate(gate) else { continue };
            let outcome = pod.ask(&presented, "curl/8");
            sent += i64::from(outcome == Outcome::Accepted);
            // What a gate has once refused as ended it never accepts again.
            let key = format!("{} {presented}", pod.client);
            match outcome {
                Outcome::Ended | Outcome::Overdue => drop(refused.insert(key, 1)),
                Outcome::Accepted if refused.contains_key(&key) => {
                    return problem(&world, "a gate accepted what it had refused as ended".to_owned());
                }
                _ => {}
            }
        }
        match chance.below(8) {
            0 => {
                let pod = *chance.pick(&["a", "b"]);
                world.kill(pod);
                world.pass(chance.time(Duration::ZERO, minutes(2))).await;
                world.start(pod);
            }
            1 => {
                let gate = *chance.pick(&["g", "h"]);
                world.stop_gate(gate).await;
                world.start_gate(gate);
            }
            2 => {
                world.server.drop_watches();
                world.server.compact();
            }
            3 => {
                world.server.set_down(true);
                world.pass(chance.time(Duration::ZERO, minutes(3))).await;
                world.server.set_down(false);
            }
            4 => {
                let change = json!({"metadata": {"annotations": {keys::ROTATE_REQUESTED_AT: world.now().to_string()}}});
                let _ = world.people.edit(SHOP, "orders", change).await;
            }
            _ => {}
        }
        world.check()?;
    }
    world.exchange().lose(0);
    world.pass(minutes(30)).await;
    world.check()?;
    let counted = usage(&world).requests;
    if counted != sent {
        return problem(&world, format!("{sent} sent, {counted} persisted"));
    }
    Ok(())
}

#[test]
fn every_seed_counts_each_use_once_and_no_revocation_comes_undone() {
    let seeds = std::env::var("TOKENWARD_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10);
    for seed in 0..seeds {
        if let Err(what) = virtually(story(seed)) {
            panic!("{what}");
        }
    }
}
