//! `Ready` says that what is declared now is in force; `Delivered`, that the Secret works. Each problem takes the first away and
//! leaves the second, and kstatus reads it as it is meant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::world::{Break, World, every, kstatus};
use crate::api::*;
use crate::domain::status::Problem;

const READY: ConditionType = ConditionType::Ready;
const DELIVERED: ConditionType = ConditionType::Delivered;

fn rotation(rotation: Value) -> impl Fn(&mut ApiTokenSpec) {
    move |spec| spec.rotation = Some(serde_json::from_value(rotation.clone()).unwrap())
}

fn template(text: &'static str) -> impl Fn(&mut ApiTokenSpec) {
    move |spec| drop(spec.secret.get_or_insert_default().template.insert("x".into(), text.into()))
}

fn expiry(after: &'static str) -> impl Fn(&mut ApiTokenSpec) {
    move |spec| spec.expiry = Some(ExpirySpec { after: Some(after.into()), at: None })
}

#[test]
fn a_spec_that_cannot_be_carried_out_is_not_ready_and_its_predecessor_goes_on_working() {
    type Edit = Box<dyn Fn(&mut ApiTokenSpec)>;
    let edits: [(Edit, &str); 8] = [
        (Box::new(rotation(json!({"schedule": "99 3 * * *"}))), "RotationInvalid"),
        (Box::new(rotation(json!({"schedule": "0 0 30 2 *"}))), "RotationInvalid"),
        (Box::new(rotation(json!({"schedule": "@daily", "timeZone": "Mars/Olympus"}))), "RotationInvalid"),
        (Box::new(rotation(json!({"every": "soon"}))), "RotationInvalid"),
        (Box::new(expiry("later")), "ExpiryInvalid"),
        (Box::new(template("{{ tokn }}")), "TemplateInvalid"),
        (Box::new(template("{{ token")), "TemplateInvalid"),
        (Box::new(template("{% if token %}{% endif %}")), "TemplateInvalid"),
    ];
    for (edit, reason) in edits {
        let mut world = World::issued(every("720h", "24h"));
        let (good, before) = (world.token.spec.clone(), world.active());
        world.edit(edit);
        let generation = world.token.metadata.generation;
        world.reconcile();
        let status = world.status();
        let ready = status.condition(READY).unwrap();
        assert_eq!(world.says(READY), format!("False {reason}"));
        assert_eq!((status.observed_generation, ready.observed_generation), (generation, generation));
        assert!(ready.message.contains("spec."), "{}", ready.message);
        assert_eq!((kstatus(&status), world.health().as_str()), ("Failed", "Blocked"), "{reason}");
        assert_eq!(world.says(DELIVERED), "True Delivered", "{reason}");
        assert!(world.accepts(&before.digest) && world.held() == Some(before.digest.clone()));
        world.check_quiescent();

        world.edit(|spec| *spec = good.clone());
        world.reconcile();
        assert_eq!((world.says(READY).as_str(), kstatus(&world.status())), ("True Delivered", "Current"));
        assert_eq!((world.active(), world.minted.len()), (before, 1), "{reason}");
        world.check_quiescent();
    }
}

#[test]
fn what_the_api_server_refuses_is_not_in_force() {
    let refusals = [
        Problem::terminal(Reason::SecretRejected, "invalid".into()),
        Problem::passing(Reason::SecretForbidden, "RBAC".into()),
        Problem::passing(Reason::QuotaExceeded, "secrets=10".into()),
        Problem::passing(Reason::NamespaceTerminating, "it ends".into()),
        Problem::passing(Reason::ApiUnavailable, "no answer".into()),
    ];
    for refusal in refusals {
        let mut world = World::issued(every("720h", "24h"));
        world.edit(template("T={{ token }}"));
        world.refuse_writes = Some(refusal.clone());
        world.reconcile();
        assert_eq!(world.says(READY), format!("False {}", refusal.reason));
        assert_eq!(world.says(DELIVERED), "True Delivered");
        assert_ne!(kstatus(&world.status()), "Current");
        world.refuse_writes = None;
        world.reconcile();
        assert_eq!((world.says(READY).as_str(), kstatus(&world.status())), ("True Delivered", "Current"));
        world.check_quiescent();
    }
}

#[test]
fn an_api_server_that_does_not_answer_moves_ready_neither_way() {
    let away = || Some(Problem::passing(Reason::ApiUnavailable, "no answer".into()));
    let mut world = World::issued(every("720h", "24h"));
    world.advance("720h");
    world.refuse_writes = away();
    world.reconcile();
    assert_eq!(world.says(READY), "True Delivered", "the generation is in force");
    assert_eq!((kstatus(&world.status()), world.health().as_str()), ("InProgress", "Blocked"));

    // Nor does it make a declaration true that was not.
    let mut world = World::issued(every("720h", "24h"));
    world.edit(template("{{ nope }}"));
    world.reconcile();
    world.tamper(|secret| drop(secret.metadata.labels.take()));
    world.refuse_reads = away();
    for _ in 0..2 {
        world.reconcile();
        assert_eq!(world.says(READY), "False ApiUnavailable");
        assert_eq!(world.says(DELIVERED), "True Delivered");
    }

    // Nor one that is not understood.
    let mut world = World::issued(every("720h", "24h"));
    world.edit(rotation(json!({"schedule": "99 3 * * *"})));
    world.tamper(|secret| drop(secret.metadata.labels.take()));
    world.refuse_reads = away();
    world.reconcile();
    assert_eq!((world.says(READY).as_str(), kstatus(&world.status())), ("False RotationInvalid", "Failed"));
}

#[test]
fn a_rotation_keeps_ready_only_where_the_generation_was_in_force() {
    let mut world = World::issued(every("720h", "24h"));
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.break_at = Some(Break::Crash(1));
    world.reconcile();
    assert_eq!((world.says(READY).as_str(), kstatus(&world.status())), ("True Delivered", "InProgress"));
    world.reconcile();

    // A new layout and a rotation at once: the first write knows of the generation, and has delivered nothing of it.
    world.edit(template("T={{ token }}"));
    world.annotate(keys::ROTATE_REQUESTED_AT, "2");
    world.break_at = Some(Break::Crash(1));
    assert_eq!(world.reconcile(), "mint(Requested) crash");
    assert_eq!((world.says(READY).as_str(), kstatus(&world.status())), ("False Delivering", "InProgress"));
    assert_eq!(world.says(DELIVERED), "True Delivered");
    world.reconcile();
    assert_eq!(world.says(READY), "True Delivered");
    assert!(world.value("x").is_some_and(|value| value.starts_with("T=")));
}

#[test]
fn an_edit_between_a_delivery_and_its_confirmation_is_not_taken_for_delivered() {
    let mut world = World::new(json!({}));
    world.break_at = Some(Break::Crash(2));
    assert_eq!(world.reconcile(), "mint(Issued) deliver crash");
    world.edit(template("T={{ token }}"));
    world.break_at = Some(Break::Crash(1));
    assert_eq!(world.reconcile(), "read status crash");
    assert_eq!(
        (world.says(READY).as_str(), world.says(DELIVERED).as_str()),
        ("False Delivering", "True Delivered")
    );
    world.reconcile();
    assert!(world.value("x").is_some_and(|value| value.starts_with("T=")), "the new layout is delivered");
    assert_eq!((world.says(READY).as_str(), world.minted.len()), ("True Delivered", 1));
    world.check_quiescent();
}

#[test]
fn suspended_and_expired_are_said_of_both() {
    let mut world = World::issued(json!({"expiry": {"after": "100h"}}));
    world.edit(|spec| spec.suspend = true);
    world.edit(rotation(json!({"schedule": "99 3 * * *"})));
    world.reconcile();
    assert_eq!(
        (world.says(READY), world.says(DELIVERED)),
        ("False Suspended".into(), "False Suspended".into())
    );
    assert_eq!(kstatus(&world.status()), "Failed");
    world.edit(|spec| spec.suspend = false);
    world.reconcile();
    assert_eq!(
        (world.says(READY), world.says(DELIVERED)),
        ("False RotationInvalid".into(), "True Delivered".into())
    );
    world.edit(|spec| spec.rotation = None);
    world.edit(|spec| spec.expiry = Some(ExpirySpec { after: None, at: Some(Time(spec_time())) }));
    world.reconcile();
    assert_eq!((world.says(READY), world.says(DELIVERED)), ("False Expired".into(), "False Expired".into()));
}

fn spec_time() -> k8s_openapi::jiff::Timestamp {
    "2026-02-01T00:00:00Z".parse().unwrap()
}
