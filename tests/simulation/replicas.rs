//! Two replicas: the leader is killed, stopped, paused, cut off; nobody else ever writes.

use std::time::Duration;

use tokenward::api::{CredentialState, keys};
use tokenward::testkit::apiserver::Link;
use tokenward::testkit::world::{SETTLE, World};

use crate::support::{
    SHOP, active, converged, hours, in_state, minutes, orders, quiet, seconds, six_hourly, sound, virtually,
};

async fn two() -> (World, &'static str, &'static str) {
    let mut world = World::new(2, true);
    world.oracle.expect_one_leader();
    world.start("a");
    world.start("b");
    world.people.declare(SHOP, "orders", six_hourly()).await.unwrap();
    world.pass(minutes(1)).await;
    converged(&world);
    let leader = world.leader().expect("nobody leads");
    (world, leader, if leader == "a" { "b" } else { "a" })
}

/// How long it takes until `pod` leads, to a tenth of a second.
async fn takeover(world: &World, pod: &str) -> Duration {
    for tenths in 0..600 {
        if world.leader() == Some(pod) {
            return Duration::from_millis(100 * tenths);
        }
        world.pass(Duration::from_millis(100)).await;
    }
    panic!("{pod} does not take over within a minute");
}

async fn request(world: &World, value: &str) {
    world.people.annotate(SHOP, "orders", keys::ROTATE_REQUESTED_AT, value).await.unwrap();
}

#[test]
fn a_killed_leader_is_replaced_within_the_lease_time() {
    virtually(async {
        let (mut world, leader, other) = two().await;
        let before = active(&world);
        world.kill(leader);
        request(&world, "after the kill").await;
        let gap = takeover(&world, other).await;
        println!("taken over after {gap:?}");
        assert!(gap <= seconds(20), "the Lease lasts 15 s, the retry period is 2 s");
        world.pass(seconds(5)).await;
        assert_ne!(active(&world), before);
        world.start(leader);
        world.pass(SETTLE).await;
        assert_eq!(world.leader(), Some(other));
        converged(&world);
        quiet(&world).await;
    });
}

#[test]
fn a_stopped_leader_hands_over_at_once() {
    virtually(async {
        let (mut world, leader, other) = two().await;
        world.stop(leader).await;
        let gap = takeover(&world, other).await;
        println!("handed over in {gap:?}");
        assert!(gap <= seconds(2));
        request(&world, "after the stop").await;
        world.pass(SETTLE).await;
        converged(&world);
    });
}

#[test]
fn a_leader_that_is_cut_off_falls_silent_before_the_other_speaks() {
    for link in [Link::Silent, Link::Refused] {
        virtually(async move {
            let (mut world, leader, other) = two().await;
            let client = world.replica(leader).unwrap().client.clone();
            world.server.set_link(&client, link);
            request(&world, "while cut off").await;
            takeover(&world, other).await;
            assert!(!world.replica(leader).unwrap().leads());
            world.pass(minutes(5)).await;
            request(&world, "once more").await;
            world.server.set_link(&client, Link::Up);
            world.pass(SETTLE).await;
            assert_eq!(world.leader(), Some(other));
            converged(&world);
            quiet(&world).await;
        });
    }
}

#[test]
fn a_leader_that_stood_still_does_not_go_on_writing() {
    virtually(async {
        let (mut world, leader, other) = two().await;
        // In the middle of a rotation: the digest is published, the Secret is not written yet.
        request(&world, "before the pause").await;
        while in_state(&orders(&world), CredentialState::Pending).is_empty() {
            world.pass(Duration::from_millis(1)).await;
        }
        world.pause(leader, true);
        // It does not know that it has lost, and nobody asks it.
        for _ in 0..300 {
            world.pass(Duration::from_millis(100)).await;
            if world.replica(other).unwrap().leads() {
                break;
            }
        }
        assert!(world.replica(other).unwrap().leads());
        world.pass(seconds(30)).await;
        converged(&world);
        world.pause(leader, false);
        world.pass(SETTLE).await;
        sound(&world);
        assert!(!world.replica(leader).unwrap().leads());
        converged(&world);
        quiet(&world).await;
    });
}

#[test]
fn leaders_that_come_and_go_mint_nothing() {
    virtually(async {
        let mut world = World::new(3, true);
        world.oracle.expect_one_leader();
        world.start("a");
        world.start("b");
        let spec = serde_json::json!({"rotation": {"every": "8760h"}});
        for name in ["one", "two", "three"] {
            world.people.declare(SHOP, name, spec.clone()).await.unwrap();
        }
        world.pass(minutes(1)).await;
        let writes = world.oracle.controller_writes();
        for turn in 0..20 {
            let pod = if turn % 2 == 0 { "a" } else { "b" };
            if turn % 3 == 0 {
                world.kill(pod)
            } else {
                world.stop(pod).await
            }
            world.pass(minutes(3)).await;
            world.start(pod);
            world.pass(minutes(1)).await;
        }
        world.pass(hours(1)).await;
        converged(&world);
        assert_eq!(world.oracle.controller_writes(), writes);
    });
}
