//! Expiry and suspension.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::world::{Break, World, every};
use crate::api::*;

const READY: ConditionType = ConditionType::Ready;

fn lasting(after: &str) -> serde_json::Value {
    json!({"expiry": {"after": after}})
}

#[test]
fn a_token_expires_by_age() {
    let mut world = World::issued(lasting("100h"));
    let first = world.active();
    assert_eq!(first.not_after, world.status().expires_at);
    world.advance("99h");
    assert!(world.accepts(&first.digest));
    world.advance("1h");
    assert!(!world.accepts(&first.digest), "by the gate's own clock");
    world.reconcile();
    assert_eq!((world.says(READY), world.health()), ("False Expired".into(), "Expired".into()));
    assert_eq!(world.says(ConditionType::Stalled), "True Expired");
    assert_eq!(world.ended(), [(first.id, EndState::Expired)]);
    assert_eq!(world.status().next_rotation_time, None);
    assert!(world.secret.is_some(), "the Secret goes with its ApiToken, not before");
    world.check_quiescent();
}

#[test]
fn a_token_expires_at_a_time() {
    let mut world = World::issued(json!({"expiry": {"at": "2026-03-02T00:00:00Z"}}));
    world.advance("24h");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.says(READY), "False Expired");
}

#[test]
fn an_expiry_within_a_second_is_written_once() {
    let mut world =
        World::issued(json!({"expiry": {"at": "2026-03-02T00:00:00.75Z"}, "rotation": {"every": "2h"}}));
    world.check_quiescent();
    world.advance("2h");
    assert_eq!(world.reconcile(), "mint(Due) deliver status wait");
    world.check_quiescent();
    world.advance("22h");
    world.reconcile();
    world.check_quiescent();
}

#[test]
fn an_expiry_in_the_past_issues_nothing() {
    let mut world = World::new(json!({"expiry": {"at": "2020-01-01T00:00:00Z"}}));
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.says(ConditionType::Stalled), "True Expired");
    assert_eq!((world.minted.len(), world.secret_writes), (0, 0));
    world.check_quiescent();
}

#[test]
fn expiring_is_said_ahead() {
    let mut world = World::issued(lasting("100h"));
    world.advance("89h");
    assert_eq!(world.reconcile(), "wait");
    world.advance("1h");
    world.event_reasons();
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.says(ConditionType::Expiring), "True ExpiresSoon");
    assert_eq!((world.says(READY), world.health()), ("True Delivered".into(), "Expiring".into()));
    assert_eq!(world.event_reasons(), [Reason::ExpiresSoon]);
    world.check_quiescent();
}

#[test]
fn an_extension_in_time_keeps_the_credential() {
    let mut world = World::issued(lasting("100h"));
    let first = world.active();
    world.advance("95h");
    world.reconcile();
    world.edit(|spec| spec.expiry = Some(ExpirySpec { after: Some("1000h".into()), at: None }));
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!((world.active().id, world.active().not_after), (first.id, world.status().expires_at));
    assert_eq!(world.says(ConditionType::Expiring), "");
    world.check_quiescent();
}

#[test]
fn an_extension_too_late_revives_with_a_new_credential() {
    for seen in [true, false] {
        let mut world = World::issued(lasting("100h"));
        let first = world.active();
        world.advance("101h");
        if seen {
            world.reconcile();
        }
        world.edit(|spec| spec.expiry = None);
        assert_eq!(world.reconcile(), "read mint(Revived) deliver status wait", "seen: {seen}");
        assert_eq!(world.says(READY), "True Delivered");
        assert!(!world.accepts(&first.digest), "what was over stays over");
        world.check_quiescent();
    }
}

#[test]
fn what_ended_long_ago_is_forgotten_and_still_does_not_come_back() {
    let mut world = World::issued(lasting("100h"));
    let first = world.active();
    world.advance("100h");
    world.reconcile();
    world.advance("1000h");
    world.edit(|spec| spec.description = Some("any write of the status forgets what is old".into()));
    world.reconcile();
    assert_eq!(world.ended(), []);
    world.edit(|spec| spec.expiry = None);
    assert_eq!(world.reconcile(), "read mint(Revived) deliver status wait");
    assert!(!world.accepts(&first.digest));
}

#[test]
fn a_compromise_while_suspended_holds_even_where_the_status_is_wiped() {
    let mut world = World::issued(json!({}));
    let first = world.active();
    world.edit(|spec| spec.suspend = true);
    world.annotate(keys::COMPROMISED_AT, "1");
    world.wipe_status();
    assert_eq!(world.reconcile(), "status wait");
    world.edit(|spec| spec.suspend = false);
    world.reconcile();
    assert!(!world.accepts(&first.digest));
    assert_eq!(world.says(READY), "True Delivered");
}

#[test]
fn an_expiry_cuts_the_overlap_short() {
    let mut world =
        World::issued(json!({"rotation": {"every": "50h", "overlap": "20h"}, "expiry": {"after": "60h"}}));
    world.advance("50h");
    world.reconcile();
    let expires_at = world.status().expires_at;
    assert_eq!(world.in_state(CredentialState::Retiring)[0].not_after, expires_at);
    world.edit(|spec| {
        let sooner = world_time("2026-03-03T04:00:00Z");
        spec.expiry = Some(ExpirySpec { after: None, at: Some(sooner) });
    });
    world.reconcile();
    let sooner = Some(world_time("2026-03-03T04:00:00Z"));
    assert!(world.status().credentials.iter().all(|credential| credential.not_after == sooner));
}

fn world_time(text: &str) -> Time {
    Time(text.parse().unwrap())
}

#[test]
fn suspension_loses_nothing() {
    let mut world = World::issued(every("720h", "24h"));
    let before = world.active();
    world.edit(|spec| spec.suspend = true);
    assert!(!world.accepts(&before.digest), "gates refuse before any controller has looked");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!((world.says(READY), world.health()), ("False Suspended".into(), "Suspended".into()));
    world.check_quiescent();

    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!((world.active(), world.says(READY)), (before, "True Delivered".into()));
    assert_eq!((world.secret_writes, world.minted.len()), (1, 1));
    world.check_quiescent();
}

#[test]
fn nothing_rotates_while_suspended_and_a_due_rotation_follows() {
    let mut world = World::issued(every("720h", "24h"));
    world.edit(|spec| spec.suspend = true);
    world.advance("800h");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.minted.len(), 1);
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.reconcile(), "mint(Due) deliver status wait");
}

#[test]
fn a_token_suspended_at_creation_is_issued_when_it_is_resumed() {
    let mut world = World::new(json!({"suspend": true}));
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.says(READY), "False Suspended");
    world.check_quiescent();
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
}

#[test]
fn a_suspended_token_still_honours_a_compromise_and_its_expiry() {
    let mut world = World::issued(lasting("100h"));
    let first = world.active();
    world.edit(|spec| spec.suspend = true);
    world.reconcile();
    world.annotate(keys::COMPROMISED_AT, "1");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.ended(), [(first.id, EndState::Revoked)]);
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.reconcile(), "read mint(Compromised) deliver status wait");
    world.edit(|spec| spec.suspend = true);
    world.advance("100h");
    world.reconcile();
    assert_eq!(world.says(READY), "False Expired");
}

#[test]
fn suspending_in_the_middle_of_an_issue_finishes_it_later() {
    let mut world = World::new(json!({}));
    world.break_at = Some(Break::Crash(2));
    world.reconcile();
    world.edit(|spec| spec.suspend = true);
    world.reconcile();
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.reconcile(), "read status wait");
    assert_eq!(world.minted.len(), 1);
}

#[test]
fn a_clock_that_steps_back_brings_nothing_back() {
    let mut world =
        World::issued(json!({"rotation": {"every": "10h", "overlap": "1h"}, "expiry": {"after": "30h"}}));
    let first = world.active();
    world.advance("10h");
    world.reconcile();
    world.advance("1h");
    world.reconcile();
    world.step_back("1h");
    assert_eq!(world.reconcile(), "wait");
    assert!(!world.accepts(&first.digest));
    let second = world.active();
    world.advance("20h");
    world.reconcile();
    assert_eq!(world.says(READY), "False Expired");
    world.step_back("1h");
    world.reconcile();
    assert!(!world.accepts(&second.digest));
    assert_eq!(world.says(READY), "True Delivered");
}
