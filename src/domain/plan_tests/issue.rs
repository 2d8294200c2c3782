//! Issue, rotation, requests, and crashes in the middle of them.

use serde_json::json;

use super::world::{Break, World, every};
use crate::api::*;

const READY: ConditionType = ConditionType::Ready;

#[test]
fn first_issue_is_two_status_writes_one_secret_write_and_no_read() {
    let mut world = World::new(json!({"scopes": ["orders:read"]}));
    assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
    assert_eq!((world.status_writes, world.secret_writes, world.reads), (2, 1, 0));
    assert_eq!(world.says(READY), "True Delivered");
    assert_eq!(world.says(ConditionType::OwnerResolved), "False NoOwner");
    assert_eq!(
        (world.says(ConditionType::Reconciling), world.says(ConditionType::Stalled)),
        Default::default()
    );
    assert_eq!(world.health(), "Healthy");
    assert_eq!(world.held(), Some(world.active().digest));
    assert_eq!(world.active().not_after, None);
    assert_eq!(world.status().secret_name.as_deref(), Some("orders"));
    assert_eq!(world.event_reasons(), [Reason::Issued]);
    world.check_quiescent();
}

#[test]
fn ready_is_present_from_the_first_write() {
    let mut world = World::new(json!({}));
    world.break_at = Some(Break::Crash(1));
    assert_eq!(world.reconcile(), "mint(Issued) crash");
    assert_eq!(world.says(READY), "False Issuing");
    assert_eq!(world.says(ConditionType::Reconciling), "True Issuing");
    assert_eq!(world.health(), "Issuing");
}

#[test]
fn a_quiescent_token_takes_no_step() {
    let mut world = World::issued(every("720h", "24h"));
    world.advance("1h");
    assert_eq!(world.reconcile(), "wait");
    // What was verified stands in the status: a new process reads nothing either.
    world.restart();
    assert_eq!(world.reconcile(), "wait");
}

#[test]
fn due_rotation_keeps_the_predecessor_for_the_overlap() {
    let mut world = World::issued(every("720h", "24h"));
    let first = world.active();
    world.advance("718h");
    assert_eq!(world.reconcile(), "wait");
    world.advance("2h");
    world.event_reasons();
    assert_eq!(world.reconcile(), "mint(Due) deliver status wait");
    let second = world.active();
    assert_ne!(second.id, first.id);
    assert_eq!(world.held(), Some(second.digest.clone()));
    assert!(world.accepts(&first.digest) && world.accepts(&second.digest));
    assert_eq!(world.status().last_rotation_reason.as_deref(), Some("Due"));
    assert_eq!(world.event_reasons(), [Reason::Due]);

    world.advance("23h");
    assert_eq!(world.reconcile(), "wait");
    world.advance("1h");
    assert!(!world.accepts(&first.digest), "by the gate's own clock");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.ended(), [(first.id, EndState::Retired)]);
    assert_eq!(world.event_reasons(), [Reason::Retired]);
    world.check_quiescent();
}

#[test]
fn ready_stays_true_throughout_a_rotation() {
    let mut world = World::issued(every("720h", "24h"));
    world.advance("720h");
    for (point, trace) in
        [(1, "mint(Due) crash"), (2, "read mint(Due) deliver crash"), (3, "read status wait")]
    {
        world.break_at = Some(Break::Crash(point));
        assert_eq!(world.reconcile(), trace);
        world.break_at = None;
        assert_eq!(world.says(READY), "True Delivered");
        world.check_delivered();
    }
    assert_eq!(world.health(), "Healthy");
}

#[test]
fn no_overlap_ends_the_predecessor_with_the_confirmation() {
    let mut world = World::issued(every("1h", "0s"));
    let first = world.active();
    world.advance("1h");
    assert_eq!(world.reconcile(), "mint(Due) deliver status wait");
    assert_eq!(world.ended(), [(first.id, EndState::Retired)]);
    assert!(world.in_state(CredentialState::Retiring).is_empty());
}

#[test]
fn a_cron_schedule_rotates_once_a_firing() {
    let mut world =
        World::issued(json!({"rotation": {"schedule": "0 3 * * SUN", "timeZone": "Europe/Berlin"}}));
    for day in 1..=28_usize {
        world.advance("24h");
        world.reconcile();
        assert_eq!(world.minted.len(), 1 + day.div_ceil(7), "day {day}");
    }
}

#[test]
fn a_requested_rotation_is_honoured_once() {
    let mut world = World::issued(json!({}));
    let first = world.active();
    world.annotate(keys::ROTATE_REQUESTED_AT, "2026-03-01T10:00:00Z");
    assert_eq!(world.reconcile(), "mint(Requested) deliver status wait");
    assert!(world.accepts(&first.digest), "with overlap");
    world.check_quiescent();

    world.annotate(keys::ROTATE_REQUESTED_AT, "");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.says(ConditionType::UnknownAnnotation), "True UnknownAnnotation");
    world.annotate(keys::ROTATE_REQUESTED_AT, "again");
    assert_eq!(world.reconcile(), "mint(Requested) deliver status wait");
}

#[test]
fn a_request_that_stood_there_at_creation_does_not_rotate_the_first_credential() {
    let mut world = World::new(json!({}));
    world.annotate(keys::ROTATE_REQUESTED_AT, "restored from a backup");
    assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
    world.check_quiescent();
}

#[test]
fn a_compromise_ends_everything_in_the_write_that_publishes_the_successor() {
    let mut world = World::issued(every("720h", "24h"));
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.reconcile();
    let (retiring, active) = (world.in_state(CredentialState::Retiring)[0].clone(), world.active());
    world.annotate(keys::COMPROMISED_AT, "now");
    assert!(!world.accepts(&active.digest), "gates refuse before any controller has looked");

    world.event_reasons();
    world.break_at = Some(Break::Crash(1));
    assert_eq!(world.reconcile(), "mint(Compromised) crash");
    let pending = world.in_state(CredentialState::Pending);
    assert_eq!((pending.len(), world.status().credentials.len()), (1, 1));
    assert_eq!(world.status().last_handled.unwrap().compromised_at.as_deref(), Some("now"));
    assert!(world.ended().iter().all(|(_, how)| *how == EndState::Revoked));
    assert!(!world.accepts(&retiring.digest) && !world.accepts(&active.digest));
    assert_eq!(world.says(READY), "False Compromised");

    assert_eq!(world.reconcile(), "read mint(Compromised) deliver status wait");
    assert_eq!(world.says(READY), "True Delivered");
    assert!(world.in_state(CredentialState::Retiring).is_empty(), "no overlap");
    assert_eq!(world.event_reasons()[0], Reason::Compromised);
    world.check_quiescent();
}

#[test]
fn retire_now_ends_the_superseded_and_nothing_else() {
    let mut world = World::issued(every("720h", "24h"));
    let first = world.active();
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.reconcile();
    let second = world.active();
    world.annotate(keys::RETIRE_NOW_AT, "1");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.ended(), [(first.id, EndState::Retired)]);
    assert_eq!(world.active(), second);
    world.check_quiescent();
}

#[test]
fn after_a_crash_before_delivery_the_lost_credential_is_abandoned() {
    let mut world = World::new(json!({}));
    world.break_at = Some(Break::Crash(1));
    world.reconcile();
    let lost = world.in_state(CredentialState::Pending)[0].clone();
    assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
    assert_eq!(world.ended(), [(lost.id, EndState::Abandoned)]);
    world.check_quiescent();
}

#[test]
fn after_a_crash_behind_delivery_the_credential_is_confirmed_and_none_minted() {
    let mut world = World::new(json!({}));
    world.break_at = Some(Break::Crash(2));
    assert_eq!(world.reconcile(), "mint(Issued) deliver crash");
    assert_eq!(world.reconcile(), "read status wait");
    assert_eq!(world.minted.len(), 1);
    assert_eq!(world.says(READY), "True Delivered");
}

#[test]
fn an_answer_that_got_lost_costs_no_credential() {
    for point in 1..=3 {
        let mut world = World::new(json!({}));
        world.break_at = Some(Break::LostAnswer(point));
        world.reconcile();
        world.reconcile();
        assert_eq!((world.minted.len(), world.says(READY).as_str()), (1, "True Delivered"), "{point}");
    }
}

#[test]
fn crashing_forever_keeps_the_lists_bounded_and_the_overlap_whole() {
    let mut world = World::issued(every("720h", "24h"));
    let (first, mut retiring) = (world.active(), Vec::new());
    for request in 0..3 {
        retiring.push(world.active());
        world.annotate(keys::ROTATE_REQUESTED_AT, &request.to_string());
        world.reconcile();
    }
    world.annotate(keys::ROTATE_REQUESTED_AT, "and crash");
    for _ in 0..30 {
        world.break_at = Some(Break::Crash(1));
        world.reconcile();
        world.advance("1m");
    }
    assert_eq!(world.status().credentials.len(), MAX_CREDENTIALS);
    for credential in retiring.iter().chain([&first]) {
        assert!(
            world.accepts(&credential.digest),
            "a superseded credential outlives those that nobody ever got"
        );
    }
    world.reconcile();
    assert_eq!(world.says(READY), "True Delivered");
    assert_eq!(world.in_state(CredentialState::Pending).len(), 0);
    world.check_quiescent();
}

#[test]
fn more_rotations_than_there_is_room_for_retire_the_oldest() {
    let mut world = World::issued(every("720h", "24h"));
    for request in 0..20 {
        world.advance("1m");
        world.annotate(keys::ROTATE_REQUESTED_AT, &request.to_string());
        assert_eq!(world.reconcile(), "mint(Requested) deliver status wait");
    }
    assert_eq!(world.status().credentials.len(), MAX_CREDENTIALS);
    assert_eq!(world.status().ended.len(), 9);
    world.check_quiescent();
}

#[test]
fn a_restart_moves_no_rotation() {
    let mut world = World::issued(every("720h", "24h"));
    let next = world.status().next_rotation_time;
    world.advance("100h");
    world.restart();
    world.reconcile();
    world.edit(|spec| spec.description = Some("something else".into()));
    world.reconcile();
    assert_eq!(world.status().next_rotation_time, next);
}
