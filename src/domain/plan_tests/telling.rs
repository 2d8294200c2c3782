//! What is told, how often and in which words; and what is not claimed.

use serde_json::json;

use super::world::{Break, World, every};
use crate::api::*;
use crate::domain::coverage::Watched;
use crate::domain::status::Problem;

/// What happened since this was asked last: `Reason: note`.
fn told(world: &mut World) -> Vec<String> {
    let notices = std::mem::take(&mut world.notices);
    notices.into_iter().map(|notice| format!("{}: {}", notice.reason, notice.note)).collect()
}

fn count(told: &[String], reason: Reason) -> usize {
    told.iter().filter(|line| line.starts_with(&format!("{reason}:"))).count()
}

const NOW: &str = "2026-03-01T00:00:00Z";
const LATER: &str = "2026-03-01T00:00:01Z";

#[test]
fn a_compromise_is_told_once_whatever_breaks() {
    for breaks in [None, Some(Break::Crash(1)), Some(Break::Crash(2)), Some(Break::LostAnswer(1))] {
        let mut world = World::issued(json!({}));
        let leaked = world.active().id;
        world.event_reasons();
        world.annotate(keys::COMPROMISED_AT, NOW);
        world.break_at = breaks;
        world.reconcile();
        world.reconcile();
        let told = told(&mut world);
        assert_eq!(count(&told, Reason::Compromised), 1, "{breaks:?}: {told:#?}");
        assert!(told[0].contains(&leaked), "{told:#?}");
        assert_eq!(count(&told, Reason::Delivered), 1, "{breaks:?}: {told:#?}");
        assert_eq!(world.status().last_rotation_reason.as_deref(), Some("Compromised"));
    }
}

#[test]
fn a_compromise_while_suspended_is_told_once_too() {
    let mut world = World::issued(json!({}));
    world.edit(|spec| spec.suspend = true);
    world.reconcile();
    world.event_reasons();
    world.annotate(keys::COMPROMISED_AT, NOW);
    world.reconcile();
    world.edit(|spec| spec.suspend = false);
    world.reconcile();
    let told = told(&mut world);
    assert_eq!(count(&told, Reason::Compromised), 1, "{told:#?}");
    assert_eq!(count(&told, Reason::Resumed), 1, "{told:#?}");
}

#[test]
fn a_credential_for_a_forged_status_is_not_called_compromised() {
    let mut world = World::issued(json!({}));
    world.token.status.as_mut().unwrap().credentials[0].digest = format!("sha256:{}", "a".repeat(64));
    world.allowed_mints += 1;
    world.event_reasons();
    world.reconcile();
    assert_eq!(world.status().last_rotation_reason.as_deref(), Some("StatusAltered"));
    assert_eq!(world.event_reasons(), [Reason::StatusAltered, Reason::Delivered]);
}

#[test]
fn what_the_bound_cuts_short_is_not_called_unused() {
    let mut world = World::issued(every("720h", "24h"));
    for minute in 0..14 {
        world.advance("1m");
        world.annotate(keys::ROTATE_REQUESTED_AT, &format!("2026-03-01T00:{minute:02}:00Z"));
        world.reconcile();
    }
    let cut: Vec<_> = world.status().ended.into_iter().map(|ended| (ended.state, ended.reason)).collect();
    assert_eq!(cut.len(), 3);
    assert!(cut.iter().all(|end| *end == (EndState::Retired, Some("TooManyCredentials".into()))), "{cut:?}");
    let notices = std::mem::take(&mut world.notices);
    let cut: Vec<_> = notices.iter().filter(|notice| notice.reason == Reason::TooManyCredentials).collect();
    assert_eq!(cut.len(), 3);
    assert!(cut.iter().all(|notice| notice.warning && notice.note.contains("at most 12 credentials")));
    assert!(notices.iter().all(|notice| !notice.note.contains("nobody uses it")), "{notices:#?}");
}

#[test]
fn each_end_of_an_overlap_says_why() {
    let mut world = World::issued(every("720h", "24h"));
    world.annotate(keys::ROTATE_REQUESTED_AT, NOW);
    world.reconcile();
    world.event_reasons();
    world.annotate(keys::RETIRE_NOW_AT, NOW);
    world.reconcile();
    let early = told(&mut world);
    assert!(early.len() == 1 && early[0].starts_with("Retired: Retired on request"), "{early:#?}");
    assert_eq!(world.status().ended[0].reason.as_deref(), Some("Requested"));

    world.annotate(keys::ROTATE_REQUESTED_AT, LATER);
    world.reconcile();
    world.advance("24h");
    world.event_reasons();
    world.reconcile();
    let due = told(&mut world);
    assert!(due.len() == 1 && due[0].starts_with("Retired: Retired at the end of the overlap"), "{due:#?}");
    assert_eq!(world.status().ended[0].reason, None);
}

#[test]
fn resumed_is_told_as_such() {
    let mut world = World::issued(json!({}));
    world.event_reasons();
    world.edit(|spec| spec.suspend = true);
    world.reconcile();
    world.edit(|spec| spec.suspend = false);
    world.reconcile();
    assert_eq!(told(&mut world)[1..], ["Resumed: Resumed: gates accept the token again"]);

    // What stands in the way now is told, too.
    world.edit(|spec| spec.suspend = true);
    world.reconcile();
    world.edit(|spec| spec.suspend = false);
    world.edit_secret_spec(|secret| drop(secret.template.insert("x".into(), "{{ nope }}".into())));
    world.event_reasons();
    world.reconcile();
    assert_eq!(world.event_reasons(), [Reason::Resumed, Reason::TemplateInvalid]);
}

#[test]
fn the_end_of_a_problem_says_which_and_what_is_so_now() {
    let mut world = World::issued(json!({}));
    world.edit_secret_spec(|secret| drop(secret.template.insert("x".into(), "{{ nope }}".into())));
    world.reconcile();
    world.edit_secret_spec(|secret| secret.template.clear());
    world.event_reasons();
    world.reconcile();
    let ended = told(&mut world);
    assert!(
        ended.iter().any(
            |line| line.starts_with("Delivered: No longer TemplateInvalid. What is declared is in force")
        ),
        "{ended:#?}"
    );

    world.refuse_writes = Some(Problem::passing(Reason::QuotaExceeded, "secrets=10".into()));
    world.annotate(keys::ROTATE_REQUESTED_AT, NOW);
    world.reconcile();
    assert_eq!(world.event_reasons(), [Reason::QuotaExceeded]);
    world.refuse_writes = None;
    world.reconcile();
    let ended = told(&mut world);
    assert!(ended.iter().any(|line| line.starts_with("Delivered: No longer QuotaExceeded.")), "{ended:#?}");
}

#[test]
fn an_annotation_that_asks_for_nothing_is_told_once_for_each_change() {
    const UNKNOWN: ConditionType = ConditionType::UnknownAnnotation;
    let mut world = World::issued(json!({}));
    world.event_reasons();
    world.annotate("tokenward.dev/rotate", "now");
    assert_eq!(world.reconcile(), "status wait");
    let told = told(&mut world);
    assert_eq!(count(&told, Reason::UnknownAnnotation), told.len());
    assert!(told.len() == 1 && told[0].contains("annotation tokenward.dev/rotate."), "{told:#?}");
    assert_eq!(world.says(UNKNOWN), "True UnknownAnnotation");
    assert_eq!((world.says(ConditionType::Ready).as_str(), world.minted.len()), ("True Delivered", 1));
    for _ in 0..3 {
        world.advance("1h");
        world.check_quiescent();
    }
    // Another value of it says nothing new; another key does.
    world.annotate("tokenward.dev/rotate", "please");
    world.check_quiescent();
    world.annotate("tokenward.dev/retire", "now");
    world.reconcile();
    assert_eq!(world.event_reasons(), [Reason::UnknownAnnotation]);
    world.token.metadata.annotations = None;
    world.reconcile();
    assert_eq!((world.says(UNKNOWN).as_str(), world.event_reasons()), ("", vec![]));
    world.check_quiescent();
}

#[test]
fn a_value_that_will_be_written_again_is_said_to_be_used_up() {
    let mut world = World::issued(json!({}));
    world.event_reasons();
    world.annotate(keys::ROTATE_REQUESTED_AT, "now");
    world.reconcile();
    let first = told(&mut world);
    assert_eq!(count(&first, Reason::ValueUsedUp), 1, "{first:#?}");
    assert_eq!(count(&first, Reason::Requested), 1, "{first:#?}");
    world.check_quiescent();
    world.annotate(keys::ROTATE_REQUESTED_AT, NOW);
    world.reconcile();
    assert_eq!(world.event_reasons(), [Reason::Requested]);
}

#[test]
fn what_was_never_issued_is_neither_unused_nor_idle() {
    let mut world = World::new(json!({
        "idle": {"after": "24h"}, "secret": {"template": {"x": "{{ nope }}"}}
    }));
    world.usage.watched = Watched::Since(world.now - k8s_openapi::jiff::SignedDuration::from_secs(60));
    world.reconcile();
    world.advance("48h");
    world.check_quiescent();
    let silent = |world: &World| {
        assert_eq!((world.says(ConditionType::InUse), world.says(ConditionType::Idle)), Default::default());
        assert_ne!(world.health(), "NeverUsed");
        assert_eq!(world.status().usage, None);
    };
    silent(&world);
    // Nor while its first credential is on its way.
    world.edit_secret_spec(|secret| secret.template.clear());
    world.break_at = Some(Break::Crash(1));
    world.reconcile();
    silent(&world);

    // Once issued, it has all of its time to be used.
    world.reconcile();
    let issued = world.now;
    assert_eq!(world.says(ConditionType::InUse), "False NeverUsed");
    assert_eq!(world.status().usage.unwrap().observed_since.map(|at| at.0), Some(issued));
    assert_eq!(world.status().first_issued_time.map(|at| at.0), Some(issued));
    world.advance("23h");
    world.check_quiescent();
    assert_eq!(world.says(ConditionType::Idle), "");
    world.advance("1h");
    world.reconcile();
    assert_eq!(world.says(ConditionType::Idle), "True NeverUsed");

    // Nor is anything said where no ledger listens any more.
    world.usage.watched = Watched::Unasked;
    world.reconcile();
    assert_eq!((world.says(ConditionType::InUse), world.says(ConditionType::Idle)), Default::default());
    assert_eq!(world.health(), "Healthy");
}
