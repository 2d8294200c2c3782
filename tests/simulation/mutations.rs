//! Admission changes Secrets as they are written: it is told, it costs no writes, and no Secret gets out of sight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokenward::api::{ConditionType, keys};
use tokenward::testkit::apiserver::Verb;
use tokenward::testkit::world::World;
use tokenward::testkit::world::replica::PREFIX;

use crate::support::{SHOP, active, hours, minutes, orders, says, seconds, six_hourly, virtually};

/// A token `shop/orders` whose Secret goes through `mutate` at every write.
async fn issued_through(mutate: impl Fn(&mut Value) + Send + Sync + 'static) -> World {
    let mut world = World::new(1, false);
    world.server.set_mutator("secrets", Some(Arc::new(mutate)));
    world.start("a");
    world.people.declare(SHOP, "orders", json!({"rotation": {"every": "8760h"}})).await.unwrap();
    world.pass(seconds(30)).await;
    world
}

fn asked(world: &World, verb: Verb) -> u64 {
    let counts = world.server.counts();
    let ours = counts.iter().filter(|((client, v, resource, _), _)| {
        client.starts_with(PREFIX) && *v == verb && resource == "secrets"
    });
    ours.map(|(_, count)| count).sum()
}

fn last_reason(world: &World) -> String {
    orders(world).status.unwrap().last_rotation_reason.unwrap()
}

#[test]
fn a_secret_whose_everyday_label_is_changed_stays_in_sight() {
    virtually(async {
        let world =
            issued_through(|secret| secret["metadata"]["labels"][keys::MANAGED_BY] = json!("platform")).await;
        assert_eq!(says(&world, ConditionType::SecretMutated), "True MetadataMutated");
        assert_eq!(says(&world, ConditionType::Ready), "True Delivered");
        let (gets, patches) = (asked(&world, Verb::Get), asked(&world, Verb::Patch));
        world.pass(hours(24)).await;
        assert_eq!(
            (asked(&world, Verb::Get), asked(&world, Verb::Patch)),
            (gets, patches),
            "nothing happened"
        );
        let before = active(&world);
        world.people.delete_secret(SHOP, "orders").await.unwrap();
        world.pass(seconds(2)).await;
        assert_ne!(active(&world), before);
        assert_eq!(last_reason(&world), "SecretLost");
        assert_eq!(says(&world, ConditionType::SecretMutated), "True MetadataMutated");
    });
}

#[test]
fn a_secret_that_no_watch_shows_is_looked_at_once_a_minute() {
    virtually(async {
        let hide = |secret: &mut Value| {
            if let Some(labels) = secret["metadata"]["labels"].as_object_mut() {
                labels.remove(keys::TOKEN);
            }
        };
        let mut world = issued_through(hide).await;
        assert_eq!(says(&world, ConditionType::SecretMutated), "True MetadataMutated");
        for restarted in [false, true] {
            if restarted {
                world.stop("a").await;
                world.start("a");
                world.pass(seconds(10)).await;
            }
            let (gets, patches) = (asked(&world, Verb::Get), asked(&world, Verb::Patch));
            world.pass(hours(2)).await;
            assert_eq!(asked(&world, Verb::Patch), patches, "restarted: {restarted}");
            let gets = asked(&world, Verb::Get) - gets;
            assert!((115..=121).contains(&gets), "{gets} looks in two hours, restarted: {restarted}");
        }
        // What has the token reconciled in between does not put the next look off.
        let gets = asked(&world, Verb::Get);
        for n in 0..15 {
            let touched = json!({"metadata": {"labels": {"n": n.to_string()}}});
            world.people.edit(SHOP, "orders", touched).await.unwrap();
            world.pass(seconds(40)).await;
        }
        let gets = asked(&world, Verb::Get) - gets;
        assert!((9..=11).contains(&gets), "{gets} looks in ten minutes");
        let before = active(&world);
        let altered = json!({"data": {"token": "eA=="}});
        world.people.edit_secret(SHOP, "orders", altered).await.unwrap();
        world.pass(seconds(62)).await;
        assert_eq!(last_reason(&world), "SecretAltered");
        let altered = active(&world);
        assert_ne!(altered, before);
        world.people.delete_secret(SHOP, "orders").await.unwrap();
        world.pass(seconds(62)).await;
        assert_eq!(last_reason(&world), "SecretLost");
        assert_ne!(active(&world), altered);
        // The webhook is mended, and somebody touches the Secret.
        world.server.set_mutator("secrets", None);
        let touched = json!({"metadata": {"annotations": {"touched": "x"}}});
        world.people.edit_secret(SHOP, "orders", touched).await.unwrap();
        world.pass(minutes(3)).await;
        assert_eq!(says(&world, ConditionType::SecretMutated), "");
        let gets = asked(&world, Verb::Get);
        world.pass(hours(2)).await;
        assert_eq!(asked(&world, Verb::Get), gets, "the watch shows it again");
    });
}

/// Its Secret need not be read any more, so that no look is ever made up for.
#[test]
fn a_token_that_ends_while_no_watch_shows_its_secret_comes_to_rest() {
    for change in [json!({"spec": {"suspend": true}}), json!({"spec": {"expiry": {"after": "2h"}}})] {
        virtually(async {
            let hide = |secret: &mut Value| {
                if let Some(labels) = secret["metadata"]["labels"].as_object_mut() {
                    labels.remove(keys::TOKEN);
                }
            };
            let world = issued_through(hide).await;
            world.people.edit(SHOP, "orders", change.clone()).await.unwrap();
            world.pass(hours(3)).await;
            assert!(!says(&world, ConditionType::Ready).starts_with("True"), "{change}: it has ended");
            let before = world.reconciles();
            world.pass(hours(1)).await;
            let looks = world.reconciles() - before;
            assert!(looks <= 61, "{change}: {looks} looks in an hour");
        });
    }
}

#[test]
fn many_secrets_that_no_watch_shows_share_a_budget_of_looks() {
    virtually(async {
        let hide = |secret: &mut Value| {
            if let Some(labels) = secret["metadata"]["labels"].as_object_mut() {
                labels.remove(keys::TOKEN);
            }
        };
        let world = issued_through(hide).await;
        const MANY: u64 = 900;
        for n in 1..MANY {
            world.people.declare(SHOP, &format!("t-{n}"), json!({})).await.unwrap();
        }
        world.pass(minutes(10)).await;
        let gets = asked(&world, Verb::Get);
        world.pass(minutes(15)).await;
        let gets = asked(&world, Verb::Get) - gets;
        assert!((8 * 900..=10 * 900).contains(&gets), "{gets} looks in 900 s: 10 a second");
    });
}

#[test]
fn a_token_that_admission_replaces_is_not_written_in_a_loop() {
    virtually(async {
        // Another value each time: each write is a new version of the Secret, and an event of the watch.
        let count = AtomicU64::new(0);
        let spoil = move |secret: &mut Value| {
            let n = count.fetch_add(1, Ordering::SeqCst);
            secret["data"]["token"] = json!(["eA==", "eHg=", "eHh4"][(n % 3) as usize]);
        };
        let world = issued_through(spoil).await;
        assert_eq!(says(&world, ConditionType::Ready), "False DataMutated");
        world.pass(hours(1)).await;
        let patches = asked(&world, Verb::Patch);
        assert!((10..=35).contains(&patches), "{patches} writes in an hour: one in two minutes, or rarer");
        let status = orders(&world).status.unwrap();
        assert_eq!(status.credentials.len(), 1, "and one credential");
        world.server.set_mutator("secrets", None);
        world.pass(minutes(5)).await;
        assert_eq!(says(&world, ConditionType::Ready), "True Delivered");
        assert_eq!(says(&world, ConditionType::SecretMutated), "");
    });
}

#[test]
fn rotations_go_on_under_a_webhook_that_relabels() {
    virtually(async {
        let world =
            issued_through(|secret| secret["metadata"]["labels"][keys::MANAGED_BY] = json!("platform")).await;
        world.people.edit(SHOP, "orders", json!({"spec": six_hourly()})).await.unwrap();
        let before = active(&world);
        world.pass(hours(7)).await;
        assert_ne!(active(&world), before);
        assert_eq!(last_reason(&world), "Due");
        assert_eq!(says(&world, ConditionType::SecretMutated), "True MetadataMutated");
    });
}
