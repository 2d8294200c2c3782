//! What nobody waits for is told at the pace of its budget, whatever causes it; what somebody waits for is not held up by it.

use serde_json::json;
use tokenward::api::{ConditionType, keys};
use tokenward::testkit::world::World;
use tokenward::testkit::world::replica::PREFIX;

use crate::support::{SHOP, minutes, seconds, sound, virtually};

const TOKENS: usize = 300;
/// The default of `--usage-writes-per-second`, and what may be saved up.
const BUDGET: (u64, u64) = (10, 20);

async fn declare(world: &World) {
    for number in 0..TOKENS {
        world.people.declare(SHOP, &format!("t{number}"), json!({})).await.unwrap();
    }
}

/// Writes of ApiTokens and Secrets by operators so far.
fn writes(world: &World) -> u64 {
    let counts = world.server.counts();
    let of_replicas = counts.iter().filter(|((client, verb, resource, _), _)| {
        client.starts_with(PREFIX) && verb.is_write() && ["apitokens", "secrets"].contains(&&**resource)
    });
    of_replicas.map(|(_, count)| count).sum()
}

fn saying(world: &World, reason: &str) -> usize {
    let says = |token: &tokenward::api::ApiToken| {
        let status = token.status.clone().unwrap_or_default();
        status.condition(ConditionType::InUse).is_some_and(|said| said.reason == reason)
    };
    world.tokens().iter().filter(|token| says(token)).count()
}

#[test]
fn a_leader_that_starts_where_nobody_watches_says_so_at_the_budgets_pace() {
    virtually(async {
        let mut world = World::with_ledger(1);
        world.start("a");
        world.start_gate("g");
        world.pass(minutes(2)).await;
        declare(&world).await;
        world.pass(minutes(5)).await;
        assert_eq!(saying(&world, "NeverUsed"), TOKENS);
        // The gate says goodbye, so that nobody waits for what it may still have to say.
        world.stop_gate("g").await;
        world.pass(seconds(5)).await;
        world.stop("a").await;
        world.pass(minutes(20)).await;

        let mut before = writes(&world);
        world.start("a");
        let mut rounds = 0;
        while saying(&world, "NoGate") < TOKENS {
            // In the middle of it, one is declared compromised.
            if rounds == 2 {
                world.people.annotate(SHOP, "t7", keys::COMPROMISED_AT, "now").await.unwrap();
                let waits = |world: &World| {
                    let status = world.token(SHOP, "t7").unwrap().status.unwrap();
                    status.last_handled.and_then(|handled| handled.compromised_at).is_none()
                };
                world.pass(seconds(1)).await;
                assert!(!waits(&world), "it waited behind news");
            }
            world.pass(seconds(5)).await;
            let now = writes(&world);
            let most = 6 * BUDGET.0 + BUDGET.1 + 4 * u64::from(rounds == 2);
            assert!(now - before <= most, "{} writes in round {rounds}", now - before);
            before = now;
            rounds += 1;
            assert!(rounds < 20, "{} of {TOKENS} say so", saying(&world, "NoGate"));
        }
        assert!(rounds >= 5, "{TOKENS} in {rounds} rounds of 5 s");
        sound(&world);
    });
}

#[test]
fn a_new_owner_of_a_namespace_is_followed_at_the_budgets_pace_and_edits_do_not_wait() {
    virtually(async {
        let mut world = World::new(1, false);
        world.start("a");
        declare(&world).await;
        for number in 0..TOKENS {
            // Nobody's but the Namespace's.
            let unlabelled = json!({"metadata": {"labels": {"team": null}}});
            world.people.edit(SHOP, &format!("t{number}"), unlabelled).await.unwrap();
        }
        world.pass(minutes(10)).await;
        let before = writes(&world);
        world.people.label_namespace(SHOP, json!({"team": "platform"})).await.unwrap();
        world.pass(seconds(10)).await;
        let told = writes(&world) - before;
        assert!((10..=10 * BUDGET.0 + BUDGET.1 + 10).contains(&told), "{told} writes in 10 s");
        world.people.edit(SHOP, "t7", json!({"spec": {"description": "edited"}})).await.unwrap();
        world.pass(seconds(1)).await;
        let status = world.token(SHOP, "t7").unwrap().status.unwrap();
        assert_eq!(status.observed_generation, Some(2), "an edit waited behind news");
        assert_eq!(
            status.owner.map(|owner| owner.name).as_deref(),
            Some("platform"),
            "and took the news along"
        );
        // Two writes each, of the Secret and of the status.
        world.pass(minutes(3)).await;
        let owned = |token: &tokenward::api::ApiToken| {
            token.status.clone().unwrap_or_default().owner.is_some_and(|owner| owner.name == "platform")
        };
        assert_eq!(world.tokens().iter().filter(|token| owned(token)).count(), TOKENS);
        crate::support::converged(&world);
    });
}
