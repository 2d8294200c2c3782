//! What keeps the declared state from being reached: foreign Secrets, bad declarations, refusals.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::world::{Break, World, every};
use crate::api::*;
use crate::domain::status::Problem;

const READY: ConditionType = ConditionType::Ready;
const DELIVERED: ConditionType = ConditionType::Delivered;
const STALLED: ConditionType = ConditionType::Stalled;
const RECONCILING: ConditionType = ConditionType::Reconciling;

#[test]
fn a_foreign_secret_is_never_touched_and_its_end_is_noticed() {
    let mut world = World::new(json!({}));
    let foreign = world.put_foreign_secret();
    // Unlabelled, it is in no watch of ours: the first delivery finds it.
    assert_eq!(world.reconcile(), "mint(Issued) conflict read status blocked(SecretConflict)");
    for _ in 0..3 {
        assert_eq!(world.reconcile(), "read blocked(SecretConflict)");
        world.restart();
    }
    assert_eq!(world.secret.as_ref(), Some(&foreign));
    assert_eq!(
        (world.says(READY), world.says(STALLED)),
        ("False SecretConflict".into(), "True SecretConflict".into())
    );
    assert_eq!((world.health(), world.secret_writes), ("Blocked".into(), 0));
    assert_eq!(world.event_reasons(), [Reason::SecretConflict]);

    world.secret = None;
    assert_eq!(world.reconcile(), "read mint(Issued) deliver status wait");
    assert_eq!((world.says(READY), world.says(STALLED)), ("True Delivered".into(), String::new()));
    world.check_quiescent();
}

#[test]
fn a_foreign_secret_in_place_of_ours_is_not_touched_either() {
    let mut world = World::issued(every("720h", "24h"));
    let foreign = world.put_foreign_secret();
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.advance("720h");
    assert_eq!(world.reconcile(), "read status blocked(SecretConflict)");
    assert_eq!(world.secret.as_ref(), Some(&foreign));
    world.delete_secret();
    assert_eq!(world.reconcile(), "read mint(SecretLost) deliver status wait");
}

#[test]
fn a_secret_of_another_api_token_is_foreign() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| secret.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into());
    assert_eq!(world.reconcile(), "read status blocked(SecretConflict)");
}

#[test]
fn a_reference_that_does_not_control_is_not_enough() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| secret.metadata.owner_references.as_mut().unwrap()[0].controller = None);
    assert_eq!(world.reconcile(), "read status blocked(SecretConflict)");
}

#[test]
fn a_secret_that_appears_just_before_the_delivery_is_not_overwritten() {
    let mut world = World::issued(every("720h", "24h"));
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.break_at = Some(Break::LostAnswer(1));
    assert_eq!(world.reconcile(), "mint(Requested) lost");
    // The watch has not told yet: the delivery goes by the version that was verified.
    world.tamper(|secret| drop(secret.data.get_or_insert_default().insert("x".into(), ByteString(vec![1]))));
    assert_eq!(world.reconcile(), "read deliver status wait");
}

#[test]
fn a_bad_template_blocks_minting() {
    let mut world = World::new(json!({"secret": {"template": {"netrc": "password {{ tokn }}"}}}));
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(
        (world.says(READY), world.says(STALLED)),
        ("False TemplateInvalid".into(), "True TemplateInvalid".into())
    );
    assert_eq!((world.minted.len(), world.secret_writes), (0, 0));
    world.check_quiescent();
    world.edit_secret_spec(|secret| {
        drop(secret.template.insert("netrc".into(), "password {{ token }}".into()))
    });
    assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
}

#[test]
fn a_template_that_goes_bad_keeps_the_good_credential() {
    let mut world = World::issued(every("720h", "24h"));
    let (before, secret) = (world.active(), world.secret.clone());
    world.edit_secret_spec(|secret| drop(secret.template.insert("x".into(), "{{ nope }}".into())));
    assert_eq!(world.reconcile(), "read status wait");
    assert_eq!(
        (world.says(READY), world.says(STALLED)),
        ("False TemplateInvalid".into(), "True TemplateInvalid".into())
    );
    assert_eq!(world.says(DELIVERED), "True Delivered");
    world.check_quiescent();
    // Even when a rotation is due: a credential that cannot be delivered helps nobody.
    world.advance("800h");
    world.reconcile();
    assert_eq!((world.active(), &world.secret), (before, &secret));
    assert_eq!(world.says(DELIVERED), "True Delivered");
    world.check_quiescent();
}

#[test]
fn a_bad_rotation_still_issues() {
    for rotation in [
        json!({"schedule": "61 * * * *"}),
        json!({"schedule": "0 0 30 2 *"}),
        json!({"schedule": "@daily", "timeZone": "Mars/Olympus"}),
        json!({"every": "soon"}),
    ] {
        let mut world = World::new(json!({"rotation": rotation}));
        assert_eq!(world.reconcile(), "mint(Issued) deliver status wait", "{rotation}");
        assert_eq!(
            (world.says(READY), world.says(STALLED)),
            ("False RotationInvalid".into(), "True RotationInvalid".into()),
            "{rotation}"
        );
        assert_eq!(world.says(DELIVERED), "True Delivered");
        assert_eq!(world.status().next_rotation_time, None);
        world.check_quiescent();
    }
}

#[test]
fn an_expiry_that_is_not_understood_issues_nothing_and_ends_nothing() {
    let nonsense = || Some(ExpirySpec { after: Some("soon".into()), at: None });
    let mut world = World::new(json!({}));
    world.token.spec.expiry = nonsense();
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!((world.says(STALLED), world.minted.len()), ("True ExpiryInvalid".into(), 0));

    let mut world = World::issued(json!({"expiry": {"after": "100h"}}));
    let (before, expires_at) = (world.active(), world.status().expires_at);
    world.edit(|spec| spec.expiry = nonsense());
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!((world.active(), world.status().expires_at), (before, expires_at));
    assert_eq!(
        (world.says(READY), world.says(STALLED)),
        ("False ExpiryInvalid".into(), "True ExpiryInvalid".into())
    );
    assert_eq!(world.says(DELIVERED), "True Delivered");
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.edit_secret_spec(|secret| secret.key = Some("other".into()));
    assert_eq!(world.reconcile(), "read deliver status wait", "the Secret is still looked after");
    assert_eq!((world.active().digest, world.minted.len()), (world.held().unwrap(), 1));
    world.advance("100h");
    world.reconcile();
    assert_eq!(world.says(READY), "False Expired", "what was promised last still holds");
}

fn away() -> Problem {
    Problem::passing(Reason::ApiUnavailable, "the API server did not answer".into())
}

fn quota() -> Problem {
    Problem::passing(Reason::QuotaExceeded, "secrets=10".into())
}

#[test]
fn a_refused_rotation_keeps_what_is_delivered_and_the_minted_credential() {
    let mut world = World::issued(every("720h", "24h"));
    world.advance("720h");
    world.refuse_writes = Some(quota());
    assert_eq!(world.reconcile(), "mint(Due) refused status blocked(QuotaExceeded)");
    assert_eq!(
        (world.says(READY), world.says(RECONCILING)),
        ("False QuotaExceeded".into(), "True QuotaExceeded".into())
    );
    assert_eq!(world.says(DELIVERED), "True Delivered");
    assert_eq!(world.health(), "Blocked");
    assert_eq!(world.reconcile(), "refused blocked(QuotaExceeded)");
    world.refuse_writes = None;
    assert_eq!(world.reconcile(), "deliver status wait");
    assert_eq!((world.minted.len(), world.says(RECONCILING)), (2, String::new()));
    assert_eq!(world.says(READY), "True Delivered");
    world.check_quiescent();
}

#[test]
fn a_refused_first_issue_is_not_ready() {
    let mut world = World::new(json!({}));
    world.refuse_writes = Some(quota());
    assert_eq!(world.reconcile(), "mint(Issued) refused status blocked(QuotaExceeded)");
    assert_eq!(world.says(READY), "False QuotaExceeded");
    assert_eq!(world.reconcile(), "refused blocked(QuotaExceeded)");
    assert_eq!(world.minted.len(), 1);
}

#[test]
fn a_refused_repair_is_not_ready() {
    let mut world = World::issued(json!({}));
    world.delete_secret();
    world.refuse_writes = Some(Problem::terminal(Reason::SecretForbidden, "RBAC".into()));
    assert_eq!(world.reconcile(), "read mint(SecretLost) refused status wait");
    assert_eq!(
        (world.says(READY), world.says(STALLED)),
        ("False SecretForbidden".into(), "True SecretForbidden".into())
    );
}

#[test]
fn a_refused_read_keeps_ready() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| drop(secret.metadata.labels.take()));
    world.refuse_reads = Some(away());
    assert_eq!(world.reconcile(), "refused status blocked(ApiUnavailable)");
    assert_eq!(
        (world.says(READY), world.says(RECONCILING)),
        ("True Delivered".into(), "True ApiUnavailable".into())
    );
    world.refuse_reads = None;
    assert_eq!(world.reconcile(), "read deliver status wait");
}

#[test]
fn a_refused_read_does_not_keep_what_has_just_ended() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| drop(secret.metadata.labels.take()));
    world.refuse_reads = Some(away());
    let first = world.active();
    world.annotate(keys::COMPROMISED_AT, "1");
    assert_eq!(world.reconcile(), "mint(Compromised) refused status blocked(ApiUnavailable)");
    assert_eq!(world.says(READY), "False ApiUnavailable");
    assert!(!world.accepts(&first.digest), "what is compromised ends, whatever else fails");
    world.refuse_reads = None;
    assert_eq!(world.reconcile(), "read deliver status wait");
}

#[test]
fn a_compromise_ends_credentials_even_where_no_successor_can_be_issued() {
    let mut world = World::issued(json!({}));
    let first = world.active();
    world.edit_secret_spec(|secret| drop(secret.template.insert("x".into(), "{{ nope }}".into())));
    world.annotate(keys::COMPROMISED_AT, "1");
    world.reconcile();
    assert!(!world.accepts(&first.digest));
    assert_eq!((world.says(READY), world.minted.len()), ("False TemplateInvalid".into(), 1));
    world.check_quiescent();
}

#[test]
fn the_longest_status_is_below_ten_kilobytes() {
    let long = "ß".repeat(126);
    let mut world = World::issued(every("720h", "24h"));
    world.namespace.annotations = Some([("contact".into(), long.clone())].into());
    world.token.metadata.annotations = Some([("owner".into(), long)].into());
    for number in 0..9 {
        world.annotate(&format!("tokenward.dev/{}{number}", "x".repeat(62)), "");
    }
    world.edit(|spec| spec.expiry = Some(ExpirySpec { after: Some("27h".into()), at: None }));
    world.advance("25h");
    for request in 0..40 {
        world.annotate(keys::ROTATE_REQUESTED_AT, &format!("{request}{}", "€".repeat(200)));
        world.annotate(keys::RETIRE_NOW_AT, &"€".repeat(200));
        if request == 20 {
            world.annotate(keys::COMPROMISED_AT, &"€".repeat(200));
        }
        world.reconcile();
    }
    world.refuse_writes = Some(Problem::terminal(Reason::SecretRejected, "€".repeat(40_000)));
    world.delete_secret();
    assert_eq!(world.reconcile(), "read mint(SecretLost) refused status blocked(SecretRejected)");
    let status = world.status();
    assert_eq!((status.credentials.len(), status.ended.len()), (MAX_CREDENTIALS, MAX_ENDED));
    assert!(status.is_true(ConditionType::Expiring) && status.is_true(ConditionType::UnknownAnnotation));
}

#[test]
fn a_refused_read_does_not_keep_ready_without_a_credential() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| drop(secret.metadata.labels.take()));
    world.token.status.as_mut().unwrap().credentials[0].digest = "sha256:zz".into();
    world.refuse_reads = Some(away());
    assert_eq!(world.reconcile(), "refused status blocked(ApiUnavailable)");
    assert_eq!(world.says(READY), "False ApiUnavailable");
}

#[test]
fn a_key_is_followed_even_while_the_expiry_makes_no_sense() {
    let mut world = World::issued(json!({}));
    world.edit_secret_spec(|secret| secret.key = Some("api-key".into()));
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.edit(|spec| spec.expiry = Some(ExpirySpec { after: Some("nonsense".into()), at: None }));
    world.reconcile();
    assert_eq!(world.held(), Some(world.active().digest), "under the new key");
    assert_eq!((world.says(DELIVERED), world.minted.len()), ("True Delivered".into(), 1));
}

#[test]
fn a_secret_that_means_something_to_others_is_not_written() {
    let labels = |key: &str, value: &str| json!({"secret": {"labels": {key: value}}});
    for (spec, said) in [
        (
            json!({"secret": {"type": "helm.sh/release.v1"}}),
            "spec.secret.type helm.sh/release.v1 is never allowed",
        ),
        (json!({"secret": {"type": "kubernetes.io/tls"}}), "--secret-types"),
        (json!({"secret": {"name": "sh.helm.release.v1.shop.v2"}}), "is read by Helm as a release"),
        (labels("owner", "helm"), "spec.secret.labels: owner makes Helm take the Secret for a release"),
        (labels("argocd.argoproj.io/secret-type", "cluster"), "argocd.argoproj.io/secret-type makes Argo CD"),
        (
            json!({"secret": {"annotations": {"replicator.v1.mittwald.de/replicate-to": "*"}}}),
            "spec.secret.annotations: replicator.v1.mittwald.de/replicate-to makes the replicator",
        ),
    ] {
        let mut world = World::new(spec.clone());
        assert_eq!(world.reconcile(), "status wait", "{spec}");
        assert_eq!(world.says(STALLED), "True SecretNotAllowed", "{spec}");
        assert_eq!(world.says(READY), "False SecretNotAllowed", "{spec}");
        let status = world.status();
        let message = &status.condition(STALLED).unwrap().message;
        assert!(message.contains(said), "{message}");
        assert_eq!((world.minted.len(), world.secret_writes, world.reads), (0, 0, 0), "{spec}");
        world.check_quiescent();
    }
}

#[test]
fn what_an_installation_allows_is_written_and_what_it_no_longer_allows_is_left_as_it_is() {
    let mut world =
        World::new(json!({"secret": {"labels": {"argocd.argoproj.io/secret-type": "repository"}}}));
    world.settings.allowed.keys = vec!["argocd.argoproj.io/secret-type".into()];
    assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
    let (before, secret) = (world.active(), world.secret.clone());
    world.settings.allowed.keys.clear();
    world.advance("1h");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.says(STALLED), "True SecretNotAllowed");
    // The delivered credential works on, until it is revoked; nothing follows it.
    assert!(world.accepts(&before.digest));
    assert_eq!(world.secret, secret);
    world.annotate(keys::COMPROMISED_AT, "1");
    world.reconcile();
    assert!(!world.accepts(&before.digest));
    assert_eq!((world.minted.len(), &world.secret), (1, &secret));
}

#[test]
fn what_is_deleted_and_kept_by_finalizers_is_said_to_be_refused_and_left_alone() {
    let mut world = World::issued(every("720h", "24h"));
    let held = world.value("token");
    world.token.metadata.deletion_timestamp = Some(Time(world.now));
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.says(ConditionType::Ready), "False Deleting");
    assert_eq!(world.says(ConditionType::Delivered), "False Deleting");
    assert_eq!(world.value("token"), held);
    world.advance("900h");
    assert_eq!(world.reconcile(), "wait", "nothing rotates any more");
}
