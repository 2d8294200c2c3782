//! What the scripted tests share.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use tokenward::api::{ApiToken, ConditionType, CredentialState};
use tokenward::testkit::world::World;

/// The namespace of the tokens.
pub const SHOP: &str = "shop";

/// Runs a test in virtual time.
pub fn virtually<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(work)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn minutes(minutes: u64) -> Duration {
    seconds(60 * minutes)
}

pub fn hours(hours: u64) -> Duration {
    minutes(60 * hours)
}

/// Rotates every six hours with an hour of overlap.
pub fn six_hourly() -> Value {
    json!({"rotation": {"every": "6h", "overlap": "1h"}})
}

/// A world of one pod without an election, and a token `shop/orders` that is delivered.
pub async fn delivered(spec: Value) -> World {
    let mut world = World::new(1, false);
    world.start("a");
    world.people.declare(SHOP, "orders", spec).await.unwrap();
    world.pass(seconds(30)).await;
    converged(&world);
    world
}

/// The token `shop/orders`.
pub fn orders(world: &World) -> ApiToken {
    world.token(SHOP, "orders").expect("shop/orders is gone")
}

/// Ids of the living credentials in a state.
pub fn in_state(token: &ApiToken, state: CredentialState) -> Vec<String> {
    let credentials = token.status.clone().unwrap_or_default().credentials;
    credentials
        .into_iter()
        .filter(|credential| credential.state == state)
        .map(|credential| credential.id)
        .collect()
}

/// Id of the active credential of `shop/orders`.
pub fn active(world: &World) -> String {
    in_state(&orders(world), CredentialState::Active).pop().expect("no active credential")
}

/// Status and reason of a condition of `shop/orders`, as `True Delivered`; empty if it is not there.
pub fn says(world: &World, kind: ConditionType) -> String {
    let status = orders(world).status.unwrap_or_default();
    status.condition(kind).map_or(String::new(), |c| format!("{} {}", c.status, c.reason))
}

/// Nothing was broken so far, whatever has yet to be put right.
pub fn sound(world: &World) {
    if let Err(what) = world.check() {
        panic!("{}\n{what}", world.story.join("\n"));
    }
}

/// Everything is as declared.
pub fn converged(world: &World) {
    if let Err(what) = world.check_converged() {
        panic!("{}\n{what}", world.story.join("\n"));
    }
}

/// Everything stays as it is for an hour.
pub async fn quiet(world: &World) {
    if let Err(what) = world.check_quiet(hours(1)).await {
        panic!("{}\n{what}", world.story.join("\n"));
    }
}
