//! Use, and the lack of it: what is shown, what is said, what ends by evidence.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::world::World;
use crate::api::*;
use crate::domain::coverage::Watched;
use crate::domain::usage::Persisted;

/// Rotates every 30 days, with a day of overlap and an hour to settle.
fn when_unused() -> Value {
    json!({"rotation": {"every": "720h", "overlap": "24h", "retire": "WhenUnused", "settle": "1h"}})
}

/// A token that gates have watched since before it was made.
fn watched(spec: Value) -> World {
    let mut world = World::new(spec);
    world.usage.watched = Watched::Since(world.now - k8s_openapi::jiff::SignedDuration::from_secs(60));
    world.reconcile();
    world
}

/// Gates accept this credential now; it is persisted at once.
fn use_now(world: &mut World, id: &str) {
    let now = world.now;
    world.usage.last_used.insert(id.to_owned(), now);
    let persisted = world.usage.persisted.get_or_insert_with(Persisted::default);
    persisted.requests += 1;
    persisted.callers = 1;
    persisted.last_used = Some(now);
    persisted.credentials.insert(id.to_owned(), now);
    persisted.described.insert(id.to_owned(), vec!["10.0.0.7 (curl/8)".to_owned()]);
}

fn rotate(world: &mut World, request: &str) -> (String, String) {
    let old = world.active().id;
    world.annotate(keys::ROTATE_REQUESTED_AT, request);
    world.reconcile();
    (old, world.active().id)
}

#[test]
fn without_a_ledger_nothing_is_said_about_use() {
    let world = World::issued(json!({"idle": {"after": "1h"}}));
    assert_eq!((world.health().as_str(), world.says(ConditionType::InUse).as_str()), ("Healthy", ""));
    assert_eq!(world.status().usage, None);
}

#[test]
fn never_used_then_in_use_then_idle_then_in_use_again() {
    let mut world = watched(json!({"idle": {"after": "1h"}}));
    assert_eq!(world.health(), "NeverUsed");
    assert_eq!(world.says(ConditionType::InUse), "False NeverUsed");
    world.check_quiescent();

    world.advance("5m");
    let id = world.active().id;
    use_now(&mut world, &id);
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.health(), "InUse");
    let usage = world.status().usage.unwrap();
    assert_eq!((usage.requests, usage.callers), (Some(1), Some(1)));
    assert_eq!(usage.last_used_at.map(|at| at.0), Some(world.now));
    assert_eq!(world.active().last_used_at.map(|at| at.0), Some(world.now));
    world.check_quiescent();

    world.advance("61m");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!((world.health().as_str(), world.says(ConditionType::Idle).as_str()), ("Idle", "True Idle"));
    assert!(world.is_true(ConditionType::Ready), "idle is not broken");
    world.check_quiescent();

    world.event_reasons();
    use_now(&mut world, &id);
    world.reconcile();
    assert_eq!((world.health().as_str(), world.says(ConditionType::Idle).as_str()), ("InUse", ""));
    assert_eq!(world.event_reasons(), [Reason::InUse]);
}

/// Between a use that is known to the millisecond and the next whole second, nothing is due and nothing becomes due.
#[test]
fn a_time_within_the_present_second_is_not_looked_at_until_the_second_is_over() {
    let millis = k8s_openapi::jiff::SignedDuration::from_millis;
    let mut world = watched(json!({"idle": {"after": "1h"}}));
    let id = world.active().id;
    let used = world.now + millis(1_500);
    world.usage.last_used.insert(id, used);
    world.now += millis(2_000);
    world.reconcile();
    let end = used + millis(3_600_000);
    let mut looks = 0;
    while world.health() != "Idle" {
        looks += 1;
        assert!(looks < 4, "{looks} looks by {}", world.now);
        let wake = world.wake.expect("it becomes idle");
        // As a timer that fires on time, a little into the second; and once more ahead of it.
        world.now = wake.min(end);
        world.reconcile();
        world.now = wake + millis(3);
        world.reconcile();
    }
}

#[test]
fn what_was_used_lately_and_not_yet_persisted_is_not_called_idle() {
    let mut world = watched(json!({"idle": {"after": "1h"}}));
    let id = world.active().id;
    use_now(&mut world, &id);
    world.reconcile();
    world.advance("59m");
    let now = world.now;
    world.usage.last_used.insert(id, now);
    world.check_quiescent();
    world.advance("2m");
    world.check_quiescent();
    assert_eq!(world.health(), "InUse");
}

#[test]
fn a_gap_takes_the_claim_of_silence_back_and_costs_one_write() {
    let mut world = watched(json!({}));
    world.usage.watched = Watched::Settling;
    world.check_quiescent();
    assert_eq!(world.health(), "NeverUsed", "as before, until every gate has reported");
    world.usage.watched = Watched::Nobody;
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(
        (world.health().as_str(), world.says(ConditionType::InUse).as_str()),
        ("Unknown", "Unknown NoGate")
    );
    world.advance("1h");
    world.usage.watched = Watched::Since(world.now);
    world.reconcile();
    assert_eq!(world.says(ConditionType::InUse), "Unknown NotObserved");
    world.check_quiescent();
}

#[test]
fn that_a_gate_starts_to_watch_is_no_reason_to_write_every_used_token() {
    let mut world = watched(json!({}));
    let id = world.active().id;
    use_now(&mut world, &id);
    world.reconcile();
    world.advance("1h");
    world.usage.watched = Watched::Since(world.now);
    world.check_quiescent();
}

#[test]
fn a_superseded_credential_ends_once_it_is_unused() {
    let mut world = watched(when_unused());
    let (old, new) = rotate(&mut world, "1");
    world.advance("30m");
    use_now(&mut world, &old);
    world.reconcile();
    world.advance("45m");
    world.reconcile();
    assert_eq!(world.in_state(CredentialState::Retiring).len(), 1, "used 45 minutes ago");
    world.event_reasons();
    world.advance("15m");
    world.reconcile();
    assert_eq!(world.ended(), [(old, EndState::Retired)]);
    assert_eq!(world.active().id, new);
    assert_eq!(world.event_reasons(), [Reason::RetiredUnused]);
    world.check_quiescent();
}

#[test]
fn nothing_ends_early_where_nobody_watches_or_nobody_asked_for_it() {
    for (spec, watch) in [
        (when_unused(), Watched::Nobody),
        (when_unused(), Watched::Settling),
        (when_unused(), Watched::Unasked),
        (json!({"rotation": {"every": "720h", "overlap": "24h"}}), Watched::Since(Timestamp::UNIX_EPOCH)),
    ] {
        let mut world = watched(spec);
        let (old, _) = rotate(&mut world, "1");
        world.usage.watched = watch.clone();
        world.advance("23h");
        world.reconcile();
        assert_eq!(world.in_state(CredentialState::Retiring).len(), 1, "{watch:?}");
        world.advance("1h");
        world.reconcile();
        assert_eq!(world.ended(), [(old, EndState::Retired)], "{watch:?}");
    }
}

#[test]
fn what_falls_due_while_gates_are_waited_for_is_looked_at_again_soon() {
    let minute = k8s_openapi::jiff::SignedDuration::from_mins(1);
    let mut world = watched(when_unused());
    let (old, _) = rotate(&mut world, "1");
    let since = std::mem::replace(&mut world.usage.watched, Watched::Settling);
    world.advance("30m");
    assert_eq!(world.reconcile(), "wait");
    assert_eq!(world.wake, Some(world.now + minute * 30), "an hour after the rotation");
    world.advance("45m");
    assert_eq!(world.reconcile(), "wait");
    assert_eq!(world.wake, Some(world.now + minute));
    world.usage.watched = since;
    world.advance("1m");
    world.reconcile();
    assert_eq!(world.ended(), [(old, EndState::Retired)]);

    let mut world = watched(json!({"idle": {"after": "1h"}}));
    let id = world.active().id;
    use_now(&mut world, &id);
    world.reconcile();
    let since = std::mem::replace(&mut world.usage.watched, Watched::Settling);
    world.advance("2h");
    assert_eq!((world.reconcile().as_str(), world.health().as_str()), ("wait", "InUse"));
    assert_eq!(world.wake, Some(world.now + minute));
    world.usage.watched = since;
    world.advance("1m");
    world.reconcile();
    assert_eq!(world.health(), "Idle");
    world.usage.watched = Watched::Settling;
    world.reconcile();
    assert_eq!(world.wake, None, "nothing new would be said");
}

#[test]
fn a_superseded_credential_in_use_near_its_deadline_names_its_callers() {
    let mut world = watched(json!({"rotation": {"every": "720h", "overlap": "24h", "settle": "1h"}}));
    let (old, _) = rotate(&mut world, "1");
    world.advance("17h");
    use_now(&mut world, &old);
    world.reconcile();
    assert_eq!(world.says(ConditionType::SupersededInUse), "", "the deadline is far");
    world.advance("1h30m");
    use_now(&mut world, &old);
    world.event_reasons();
    world.reconcile();
    assert_eq!(world.says(ConditionType::SupersededInUse), "True SupersededInUse");
    let status = world.status();
    let message = &status.condition(ConditionType::SupersededInUse).unwrap().message;
    assert!(message.contains(&old) && message.contains("10.0.0.7 (curl/8)"), "{message}");
    assert_eq!(world.event_reasons(), [Reason::SupersededInUse]);
    world.check_quiescent();
    world.advance("1h");
    world.reconcile();
    assert_eq!(world.says(ConditionType::SupersededInUse), "", "the caller has followed");
}

#[test]
fn news_is_what_nobody_asked_for_and_changes_no_credential() {
    type Case = (&'static str, fn(&mut World), bool);
    let cases: [Case; 12] = [
        ("nobody watches any more", |world| world.usage.watched = Watched::Nobody, true),
        (
            "it was used",
            |world| {
                let id = world.active().id;
                use_now(world, &id);
            },
            true,
        ),
        (
            "its Namespace has another owner",
            |world| world.namespace.labels = Some([("team".to_owned(), "platform".to_owned())].into()),
            true,
        ),
        ("edited", |world| world.edit(|spec| spec.description = Some("x".into())), false),
        ("suspended", |world| world.edit(|spec| spec.suspend = true), false),
        ("rotation requested", |world| world.annotate(keys::ROTATE_REQUESTED_AT, "1"), false),
        ("compromised", |world| world.annotate(keys::COMPROMISED_AT, "1"), false),
        ("due", |world| world.advance("720h"), false),
        ("the Secret is gone", World::delete_secret, false),
        ("the Secret was altered", |world| world.tamper(|secret| secret.data = None), false),
        ("its status was wiped", World::wipe_status, false),
        ("nothing", |_| {}, false),
    ];
    for (what, happens, expected) in cases {
        let mut world = watched(when_unused());
        happens(&mut world);
        world.reconcile();
        assert_eq!(world.began_with_news, expected, "{what}");
        world.check_quiescent();
    }
    assert!(World::new(json!({})).reconcile().starts_with("mint"));
}
