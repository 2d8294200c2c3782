//! A process that dies at each of its writes, before and after the write has its effect.

use serde_json::{Value, json};
use tokenward::api::keys;
use tokenward::testkit::apiserver::When;
use tokenward::testkit::world::{SETTLE, World};

use crate::support::{SHOP, converged, delivered, hours, quiet, six_hourly, sound, virtually};

/// More writes than any of these takes, events included.
const MOST_WRITES: u64 = 20;

/// What is interrupted.
#[derive(Clone, Copy, Debug)]
enum Act {
    Issue,
    DueRotation,
    Request,
    Compromise,
    Lost,
    Altered,
    Relabelled,
    AnotherKey,
    Revival,
    WipedStatus,
}

impl Act {
    fn spec(self) -> Value {
        match self {
            Self::Revival => json!({"expiry": {"after": "2h"}}),
            _ => six_hourly(),
        }
    }

    async fn begin(self, world: &World) {
        let people = &world.people;
        match self {
            Self::Issue => drop(people.declare(SHOP, "second", self.spec()).await.unwrap()),
            Self::DueRotation => world.pass(hours(6)).await,
            Self::Request => {
                drop(people.annotate(SHOP, "orders", keys::ROTATE_REQUESTED_AT, "now").await.unwrap());
            }
            Self::Compromise => {
                drop(people.annotate(SHOP, "orders", keys::COMPROMISED_AT, "now").await.unwrap());
            }
            Self::Lost => people.delete_secret(SHOP, "orders").await.unwrap(),
            Self::Altered => {
                drop(people.edit_secret(SHOP, "orders", json!({"data": {"token": "eA=="}})).await.unwrap());
            }
            Self::Relabelled => {
                let gone = json!({"metadata": {"labels": {keys::MANAGED_BY: null, keys::TOKEN: null}}});
                drop(people.edit_secret(SHOP, "orders", gone).await.unwrap());
            }
            Self::AnotherKey => {
                let change =
                    json!({"spec": {"secret": {"key": "api-key", "template": {"x": "{{ token }}"}}}});
                drop(people.edit(SHOP, "orders", change).await.unwrap());
            }
            Self::Revival => {
                world.pass(hours(3)).await;
                drop(
                    people.edit(SHOP, "orders", json!({"spec": {"expiry": {"after": "90h"}}})).await.unwrap(),
                );
            }
            Self::WipedStatus => {
                let gone = json!({"credentials": null, "conditions": null, "delivery": null, "health": null});
                drop(people.edit_status(SHOP, "orders", gone).await.unwrap());
            }
        }
        world.pass(SETTLE).await;
    }
}

/// Dies at each write in turn; returns how many there were.
async fn crash_everywhere(act: Act, when: When) -> u64 {
    for n in 1..=MOST_WRITES {
        let mut world = delivered(act.spec()).await;
        world.crash_at_write("a", n, when);
        act.begin(&world).await;
        if world.bury().is_empty() {
            return n - 1;
        }
        sound(&world);
        world.start("a");
        world.pass(SETTLE).await;
        converged(&world);
        quiet(&world).await;
    }
    panic!("{act:?} takes more than {MOST_WRITES} writes");
}

#[test]
fn a_crash_at_any_write_is_repaired_by_looking() {
    let acts = [
        (Act::Issue, 3),
        (Act::DueRotation, 3),
        (Act::Request, 3),
        (Act::Compromise, 3),
        (Act::Lost, 3),
        (Act::Altered, 3),
        (Act::Relabelled, 1),
        (Act::AnotherKey, 2),
        (Act::Revival, 3),
        (Act::WipedStatus, 1),
    ];
    for (act, least) in acts {
        for when in [When::Before, When::After] {
            let writes = virtually(crash_everywhere(act, when));
            println!("{act:?}, {when:?}: {writes} positions");
            assert!(writes >= least, "{act:?} is said to take {writes} writes");
        }
    }
}
