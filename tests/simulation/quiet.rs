//! A world in which nothing is due: nothing is written, a restart reads no Secret, and reconciles rest.

use std::time::Duration;

use serde_json::json;
use tokenward::testkit::apiserver::Verb;
use tokenward::testkit::world::World;

use crate::support::{SHOP, converged, delivered, hours, minutes, sound, virtually};

#[test]
fn a_quiet_month_writes_nothing() {
    virtually(async {
        let mut world = delivered(json!({"rotation": {"every": "8760h"}})).await;
        for name in ["plain", "templated", "ending"] {
            let spec = match name {
                "templated" => json!({"secret": {"template": {"x": "{{ token }}"}}}),
                "ending" => json!({"expiry": {"after": "20000h"}}),
                _ => json!({}),
            };
            world.people.declare(SHOP, name, spec).await.unwrap();
        }
        world.pass(minutes(1)).await;
        converged(&world);
        let writes = |world: &tokenward::testkit::world::World| {
            world.server.writes(|client| client.starts_with(tokenward::testkit::world::replica::PREFIX))
        };
        let before = writes(&world);
        for day in 0..30 {
            world.pass(hours(24)).await;
            match day {
                7 => world.server.drop_watches(),
                9 => {
                    world.server.compact();
                    world.server.drop_watches();
                }
                14 => {
                    world.stop("a").await;
                    world.start("a");
                }
                21 => {
                    world.kill("a");
                    world.start("a");
                }
                _ => {}
            }
        }
        converged(&world);
        assert_eq!(writes(&world), before, "nothing was due");
        let reads: u64 = world
            .server
            .counts()
            .iter()
            .filter(|((client, verb, resource, _), _)| {
                &**client != "replica-a.1" && *verb == Verb::Get && resource == "secrets"
            })
            .map(|(_, count)| count)
            .sum();
        assert_eq!(reads, 0, "a restart reads no Secret");
    });
}

/// What the Secret of a token in the shop holds.
fn held(world: &World, name: &str) -> String {
    let secret = world.server.get("secrets", SHOP, name).expect("a Secret");
    let value = secret["data"]["token"].as_str().expect("a token");
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Tokens of every kind: idle soon and late, rotated, suspended, retired for want of use; each used once at a moment of its
/// own, then never again. Gates go on to report.
#[test]
fn a_quiet_world_with_gates_looks_at_a_token_a_few_times_an_hour() {
    const TOKENS: usize = 120;
    virtually(async {
        let mut world = World::with_ledger(1);
        world.start("a");
        world.start_gate("g");
        world.pass(minutes(2)).await;
        let name = |number: usize| format!("t{number}");
        for number in 0..TOKENS {
            let spec = match number % 4 {
                0 => json!({}),
                1 => json!({"idle": {"after": "2h"}}),
                2 => json!({"idle": {"after": "3m"}, "rotation": {"every": "720h"}}),
                _ => json!({"rotation": {"every": "8760h", "retire": "WhenUnused", "settle": "30m"}}),
            };
            world.people.declare(SHOP, &name(number), spec).await.unwrap();
        }
        world.pass(minutes(2)).await;
        for number in 0..TOKENS {
            let outcome = world.gate("g").unwrap().ask(&held(&world, &name(number)), "curl/8");
            assert_eq!(outcome, tokenward::api::Outcome::Accepted);
            world.pass(Duration::from_millis(137)).await;
        }
        let most = u64::try_from(TOKENS).unwrap();
        let mut before = world.reconciles();
        // Each becomes idle within its own second: that costs the looks that write it, not one a millisecond.
        for quarter in 0..12 {
            if quarter == 2 {
                for number in (0..TOKENS).step_by(10) {
                    world.people.edit(SHOP, &name(number), json!({"spec": {"suspend": true}})).await.unwrap();
                }
            }
            world.pass(minutes(15)).await;
            let looks = world.reconciles() - before;
            before += looks;
            assert!(looks <= 3 * most, "{looks} looks at {TOKENS} tokens in quarter of an hour {quarter}");
        }
        let looks = world.reconciles();
        world.pass(hours(4)).await;
        let looks = world.reconciles() - looks;
        assert!(looks <= most, "{looks} looks at {TOKENS} tokens in four quiet hours");
        sound(&world);
    });
}

/// A Namespace with more tokens than any queue of messages would hold changes its owner, again and again; meanwhile
/// something happens to some.
#[test]
fn a_change_that_concerns_every_token_is_a_sweep_and_not_a_flood() {
    const TOKENS: usize = 400;
    virtually(async {
        let mut world = World::new(1, false);
        world.start("a");
        for number in 0..TOKENS {
            world.people.declare(SHOP, &format!("t{number}"), json!({})).await.unwrap();
        }
        world.pass(minutes(5)).await;
        converged(&world);
        let before = world.reconciles();
        for round in 0..20 {
            // Named by nobody's token: each has its own owner.
            let labels = json!({"team": format!("team-{round}")});
            world.people.label_namespace(SHOP, labels).await.unwrap();
        }
        world.pass(minutes(5)).await;
        let looks = world.reconciles() - before;
        assert!(looks <= 21 * TOKENS as u64, "{looks} looks at {TOKENS} tokens");
        converged(&world);
        let before = world.reconciles();
        world.pass(hours(4)).await;
        assert!(world.reconciles() - before <= 2, "it does not come to rest");
    });
}
