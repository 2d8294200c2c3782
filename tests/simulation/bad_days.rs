//! Bad days, each on its own: what the user sees, and that everything is put right afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;
use tokenward::api::{ConditionType, CredentialState, keys};
use tokenward::testkit::apiserver::{Fault, RequestInfo, Verb};
use tokenward::testkit::world::weather::Weather;
use tokenward::testkit::world::{SETTLE, World};

use crate::support::{
    SHOP, active, converged, delivered, hours, in_state, minutes, orders, quiet, says, seconds, six_hourly,
    sound, virtually,
};

#[test]
fn every_kind_of_weather_passes_and_leaves_nothing_behind() {
    for weather in Weather::ALL {
        virtually(async move {
            let mut world = delivered(six_hourly()).await;
            world.set_weather(4, Some(weather));
            let before = active(&world);
            world.people.annotate(SHOP, "orders", keys::ROTATE_REQUESTED_AT, "in bad weather").await.unwrap();
            world.people.declare(SHOP, "second", six_hourly()).await.unwrap();
            world.pass(minutes(20)).await;
            world.people.delete_secret(SHOP, "orders").await.unwrap();
            world.pass(hours(12)).await;
            sound(&world);
            world.set_weather(5, None);
            world.pass(SETTLE).await;
            converged(&world);
            assert_ne!(active(&world), before, "{weather:?}");
            quiet(&world).await;
        });
    }
}

#[test]
fn a_publication_that_arrives_after_it_was_given_up_is_not_minted_again() {
    virtually(async {
        let mut world = World::new(11, false);
        // Its client gives up after ten seconds and tries again a second later; then the first one overtakes the second.
        let count = AtomicUsize::new(0);
        world.server.set_faults(Some(Arc::new(move |request: &RequestInfo| {
            if request.subresource.as_deref() != Some("status") {
                return Fault::None;
            }
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Fault::Late(Duration::from_millis(11_500)),
                1 => Fault::Delay(seconds(2)),
                _ => Fault::None,
            }
        })));
        world.start("a");
        world.people.declare(SHOP, "orders", six_hourly()).await.unwrap();
        world.pass(minutes(2)).await;
        converged(&world);
        assert_eq!(orders(&world).status.unwrap().ended, [], "one credential, and no other");
    });
}

#[test]
fn an_api_server_that_is_away_costs_nothing_but_time() {
    virtually(async {
        let mut world = delivered(six_hourly()).await;
        let before = active(&world);
        world.tell("the API server goes away for seven hours");
        world.server.set_down(true);
        world.pass(hours(7)).await;
        assert_eq!(active(&world), before);
        world.server.set_down(false);
        world.pass(minutes(3)).await;
        assert_ne!(active(&world), before, "what fell due is done afterwards");
        converged(&world);
        quiet(&world).await;
    });
}

#[test]
fn watches_that_end_in_410_are_followed_by_lists() {
    virtually(async {
        let world = delivered(six_hourly()).await;
        // Gone and made anew while nobody watches.
        world.server.set_link("replica-a.1", tokenward::testkit::apiserver::Link::Silent);
        world.people.delete_secret(SHOP, "orders").await.unwrap();
        world.people.declare(SHOP, "second", six_hourly()).await.unwrap();
        world.server.compact();
        world.server.set_link("replica-a.1", tokenward::testkit::apiserver::Link::Up);
        world.server.drop_watches();
        world.pass(minutes(3)).await;
        converged(&world);
        quiet(&world).await;
    });
}

#[test]
fn a_clock_that_is_an_hour_ahead_rotates_early_and_loses_nothing() {
    virtually(async {
        let mut world = delivered(six_hourly()).await;
        let before = active(&world);
        world.set_clock("a", SignedDuration::from_hours(1));
        world.pass(hours(5)).await;
        let rotated = active(&world);
        assert_ne!(rotated, before);
        sound(&world);
        world.set_clock("a", SignedDuration::from_hours(-1));
        world.pass(minutes(30)).await;
        assert_eq!(active(&world), rotated, "the right time brings nothing back and rotates nothing twice");
        sound(&world);
        world.pass(hours(2)).await;
        converged(&world);
    });
}

#[test]
fn a_clock_that_is_an_hour_behind_rotates_late_and_catches_up_when_it_is_set() {
    virtually(async {
        let mut world = delivered(six_hourly()).await;
        let before = active(&world);
        world.set_clock("a", SignedDuration::from_hours(-1));
        world.pass(hours(6)).await;
        assert_eq!(active(&world), before);
        world.set_clock("a", SignedDuration::from_hours(1));
        world.pass(minutes(2)).await;
        assert_ne!(active(&world), before, "timers run on another clock: a step is noticed within a minute");
        converged(&world);
    });
}

#[test]
fn a_missing_crd_is_waited_for() {
    virtually(async {
        let mut world = World::new(6, false);
        world.server.set_served("apitokens", false);
        world.start("a");
        world.pass(hours(1)).await;
        world.server.set_served("apitokens", true);
        world.people.declare(SHOP, "orders", six_hourly()).await.unwrap();
        world.pass(seconds(16)).await;
        converged(&world);
    });
}

#[test]
fn a_watch_that_rbac_forbids_is_tried_again() {
    virtually(async {
        let mut world = World::new(7, false);
        world.server.set_authorizer(Some(Arc::new(|request: &RequestInfo| {
            let forbidden = request.resource == "secrets" && matches!(request.verb, Verb::List | Verb::Watch);
            if forbidden { Err("secrets is forbidden".to_owned()) } else { Ok(()) }
        })));
        world.start("a");
        world.people.declare(SHOP, "orders", six_hourly()).await.unwrap();
        world.pass(hours(1)).await;
        assert_eq!(orders(&world).status, None, "half a list would take present Secrets for missing");
        world.server.set_authorizer(None);
        world.pass(seconds(30)).await;
        converged(&world);
    });
}

#[test]
fn secrets_that_rbac_forbids_are_reported_and_delivered_later() {
    virtually(async {
        let mut world = World::new(8, false);
        world.server.set_authorizer(Some(Arc::new(|request: &RequestInfo| {
            let forbidden = request.resource == "secrets" && request.verb.is_write();
            if forbidden { Err("secrets is forbidden".to_owned()) } else { Ok(()) }
        })));
        world.start("a");
        world.people.declare(SHOP, "orders", six_hourly()).await.unwrap();
        world.pass(hours(2)).await;
        assert_eq!(says(&world, ConditionType::Reconciling), "True SecretForbidden");
        assert_eq!(in_state(&orders(&world), CredentialState::Pending).len(), 1, "not one for each attempt");
        world.server.set_authorizer(None);
        world.pass(minutes(3)).await;
        converged(&world);
    });
}

#[test]
fn a_used_up_quota_is_reported_and_waited_for() {
    virtually(async {
        let mut world = World::new(9, false);
        world.server.set_quota("secrets", SHOP, Some(0));
        world.start("a");
        world.people.declare(SHOP, "orders", six_hourly()).await.unwrap();
        world.pass(hours(2)).await;
        assert_eq!(says(&world, ConditionType::Reconciling), "True QuotaExceeded");
        assert_eq!(in_state(&orders(&world), CredentialState::Pending).len(), 1, "not one for each attempt");
        world.server.set_quota("secrets", SHOP, None);
        world.pass(minutes(3)).await;
        converged(&world);
    });
}

#[test]
fn a_namespace_that_ends_takes_its_tokens_along_and_no_others() {
    virtually(async {
        let world = delivered(six_hourly()).await;
        world.people.declare("billing", "other", six_hourly()).await.unwrap();
        // Held up, so that the operator has time to try.
        let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
        world.people.edit(SHOP, "orders", hold).await.unwrap();
        world.people.declare(SHOP, "late", six_hourly()).await.unwrap();
        world.people.delete_namespace(SHOP).await.unwrap();
        world.pass(minutes(10)).await;
        sound(&world);
        assert!(world.server.get("secrets", SHOP, "orders").is_none());
        let release = json!({"metadata": {"finalizers": null}});
        world.people.edit(SHOP, "orders", release).await.unwrap();
        world.pass(minutes(1)).await;
        assert!(world.server.get("namespaces", "", SHOP).is_none());
        assert_eq!(world.tokens().len(), 1);
        converged(&world);
        quiet(&world).await;
    });
}

#[test]
fn a_secret_cannot_be_created_in_a_namespace_that_ends() {
    virtually(async {
        let mut world = World::new(10, false);
        let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
        world.people.declare(SHOP, "orders", six_hourly()).await.unwrap();
        world.people.edit(SHOP, "orders", hold).await.unwrap();
        world.people.delete_namespace(SHOP).await.unwrap();
        world.start("a");
        // Between the mark on the namespace and the one on its content.
        world.pass(seconds(1)).await;
        assert_eq!(says(&world, ConditionType::Reconciling), "True NamespaceTerminating");
        world.pass(minutes(5)).await;
        sound(&world);
        assert!(world.server.get("secrets", SHOP, "orders").is_none());
    });
}

#[test]
fn a_token_that_cannot_be_understood_stalls_no_other() {
    virtually(async {
        let world = delivered(six_hourly()).await;
        let before = (orders(&world).status, world.server.get("secrets", SHOP, "orders"));
        // As a later schema might have it: this operator does not know what it means.
        world.people.edit(SHOP, "orders", json!({"spec": {"scopes": {"orders": ["read"]}}})).await.unwrap();
        world.people.declare(SHOP, "second", six_hourly()).await.unwrap();
        world.pass(hours(8)).await;
        let stored = world.server.get("apitokens", SHOP, "orders").unwrap();
        assert_eq!(stored["status"], json!(before.0), "left alone");
        assert_eq!(world.server.get("secrets", SHOP, "orders"), before.1, "left alone");
        let second = world.token(SHOP, "second").unwrap();
        assert_eq!(in_state(&second, CredentialState::Active).len(), 1);
        world.people.edit(SHOP, "orders", json!({"spec": {"scopes": ["orders:read"]}})).await.unwrap();
        world.pass(minutes(3)).await;
        assert_eq!(says(&world, ConditionType::Ready), "True Delivered");
    });
}
