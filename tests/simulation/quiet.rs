//! A world in which nothing is due: nothing is written, and a restart reads no Secret.

use serde_json::json;
use tokenward::testkit::apiserver::Verb;

use crate::support::{SHOP, converged, delivered, hours, minutes, virtually};

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
