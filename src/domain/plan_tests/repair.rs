//! Secrets lost, altered and drifted; status wiped and forged; edits that change the Secret but not the credential.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::world::{Break, World, every, somebody_elses_token};
use crate::api::*;
use crate::domain::delivery;
use crate::domain::directory::{Claimant, Published, print_of};
use crate::domain::token::{CredentialId, Token};

const READY: ConditionType = ConditionType::Ready;

#[test]
fn a_lost_secret_is_issued_anew() {
    let mut world = World::issued(every("720h", "24h"));
    let first = world.active();
    world.delete_secret();
    world.event_reasons();
    assert_eq!(world.reconcile(), "read mint(SecretLost) deliver status wait");
    assert!(world.accepts(&first.digest), "workloads that still hold it have time to follow");
    assert_eq!(world.says(READY), "True Delivered");
    assert_eq!(world.event_reasons(), [Reason::SecretLost, Reason::Delivered]);
    world.check_quiescent();
}

#[test]
fn an_altered_value_is_issued_anew() {
    for value in [b"junk".to_vec(), somebody_elses_token().expose().as_bytes().to_vec()] {
        let mut world = World::issued(json!({}));
        world.tamper(|secret| {
            drop(secret.data.get_or_insert_default().insert("token".into(), ByteString(value)))
        });
        assert_eq!(world.reconcile(), "read mint(SecretAltered) deliver status wait");
        assert_eq!(world.held(), Some(world.active().digest));
        world.check_quiescent();
    }
}

#[test]
fn a_removed_value_is_issued_anew() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| secret.data = None);
    assert_eq!(world.reconcile(), "read mint(SecretAltered) deliver status wait");
}

#[test]
fn an_altered_secret_is_not_taken_for_a_good_one_after_a_failure() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| secret.data = None);
    // The template keeps the successor from being issued; mending it must find the Secret still altered.
    world.edit_secret_spec(|secret| drop(secret.template.insert("x".into(), "{{ nope }}".into())));
    assert_eq!(world.reconcile(), "read status wait");
    assert_eq!(world.says(READY), "False TemplateInvalid");
    world.edit_secret_spec(|secret| secret.template.clear());
    assert_eq!(world.reconcile(), "read mint(SecretAltered) deliver status wait");
}

#[test]
fn a_superseded_value_put_back_is_replaced() {
    let mut world = World::issued(every("720h", "24h"));
    let old = world.secret.clone().unwrap().data;
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.reconcile();
    world.tamper(|secret| secret.data = old);
    assert_eq!(world.reconcile(), "read mint(SecretAltered) deliver status wait");
}

#[test]
fn a_wiped_status_adopts_what_the_secret_holds() {
    let mut world = World::issued(every("720h", "24h"));
    let (before, status) = (world.active(), world.status());
    world.advance("100h");
    world.wipe_status();
    world.event_reasons();
    // Which keys of an earlier declaration may linger in the Secret is forgotten too: it is written once.
    assert_eq!(world.reconcile(), "read status deliver status wait");
    let after = world.active();
    assert_eq!((&after.id, &after.digest, &after.issued_at), (&before.id, &before.digest, &before.issued_at));
    assert_eq!(world.status().next_rotation_time, status.next_rotation_time);
    assert_eq!(world.says(READY), "True Delivered");
    assert_eq!(world.event_reasons()[0], Reason::Adopted);
    world.check_quiescent();
}

#[test]
fn a_wiped_status_does_not_bring_a_compromised_credential_back() {
    let mut world = World::issued(json!({}));
    let first = world.active();
    world.annotate(keys::COMPROMISED_AT, "1");
    world.break_at = Some(Break::Crash(1));
    world.reconcile();
    world.wipe_status();
    assert_eq!(world.reconcile(), "mint(Compromised) read deliver status wait");
    assert!(!world.accepts(&first.digest));
}

#[test]
fn a_wiped_status_does_not_adopt_a_foreign_value() {
    let mut world = World::issued(json!({}));
    let forged = somebody_elses_token();
    world.tamper(|secret| {
        let value = ByteString(forged.expose().as_bytes().to_vec());
        secret.data.get_or_insert_default().insert("token".into(), value);
    });
    world.wipe_status();
    assert_eq!(world.reconcile(), "read mint(Issued) deliver status wait");
    assert!(!world.accepts(&forged.digest()));
}

/// What somebody makes who may write Secrets only: controlled by the ApiToken, with the right annotation and a proper token.
fn plant(world: &mut World, token: &Token) {
    let mut secret = World::issued(json!({})).secret.unwrap();
    secret.metadata.uid = Some("planted".into());
    let annotations = secret.metadata.annotations.as_mut().unwrap();
    annotations.insert(keys::CREDENTIAL.into(), token.id().into());
    secret.data.as_mut().unwrap().insert("token".into(), ByteString(token.expose().as_bytes().to_vec()));
    world.delete_secret();
    world.secret = Some(secret);
}

#[test]
fn a_token_that_was_never_issued_adopts_nothing() {
    let forged = somebody_elses_token();
    let states: [(&str, fn(&mut World)); 4] = [
        ("never looked at", |_| ()),
        ("suspended", |world| {
            world.edit(|spec| spec.suspend = true);
            world.reconcile();
            world.edit(|spec| spec.suspend = false);
        }),
        ("template", |world| {
            world.edit_secret_spec(|secret| drop(secret.template.insert("x".into(), "{{ nope }}".into())));
            world.reconcile();
            world.edit_secret_spec(|secret| secret.template.clear());
        }),
        ("expired", |world| {
            let at = Some(Time(world.now));
            world.edit(|spec| spec.expiry = Some(ExpirySpec { after: None, at }));
            world.reconcile();
            world.edit(|spec| spec.expiry = None);
        }),
    ];
    for (what, state) in states {
        for restart in [false, true] {
            let mut world = World::new(json!({}));
            state(&mut world);
            plant(&mut world, &forged);
            if restart {
                world.restart();
            }
            world.reconcile();
            world.reconcile();
            assert!(!world.accepts(&forged.digest()), "{what}");
            assert_eq!(world.held(), Some(world.active().digest), "{what}: replaced by a proper one");
            assert_eq!(world.minted.len(), 1, "{what}");
        }
    }
}

#[test]
fn a_wiped_status_adopts_nothing_but_what_it_had() {
    // What has ended, what another has, and what nobody alive has seen.
    let mut world = World::issued(every("720h", "24h"));
    let first = Token::parse(&world.value("token").unwrap()).unwrap();
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.reconcile();
    plant(&mut world, &first);
    world.wipe_status();
    world.reconcile();
    assert!(!world.accepts(&first.digest()), "superseded");

    let mut world = World::issued(json!({}));
    let held = world.active();
    let print = print_of(&held.digest);
    let copy = Published { id: CredentialId::parse(&held.id).unwrap(), print, current: true, shown: None };
    let other = Claimant { created: 1, uid: "other".into(), namespace: "x".into(), name: "other".into() };
    world.wipe_status();
    world.directory.apply(&other, &[copy]);
    world.allowed_mints += 1;
    world.reconcile();
    assert!(!world.accepts(&held.digest), "another's");

    let mut world = World::issued(json!({}));
    let held = world.active();
    world.wipe_status();
    world.restart();
    world.reconcile();
    assert!(!world.accepts(&held.digest), "wiped while nobody looked");
    assert_eq!(world.held(), Some(world.active().digest));
}

/// Times that are no times of ours: the API server refuses most of them in a status.
pub const HOSTILE_TIMES: [&str; 9] = [
    "-005000-01-02T00:00:00Z",
    "-009999-01-02T01:59:59Z",
    "0000-01-01T00:00:00+23:59",
    "1969-12-31T23:59:59Z",
    "9999-12-30T22:00:00.999999999Z",
    "9999-12-31T23:59:59-23:59",
    "2026-03-01T00:00:00.000000001Z",
    "+275760-09-13T00:00:00Z",
    "now",
];

#[test]
fn no_time_in_an_annotation_is_believed_that_cannot_be_true() {
    for time in HOSTILE_TIMES {
        let mut world = World::issued(every("720h", "24h"));
        world.advance("100h");
        world.wipe_status();
        world.tamper(|secret| {
            let annotations = secret.metadata.annotations.as_mut().unwrap();
            annotations.insert(keys::ISSUED_AT.into(), time.into());
        });
        world.reconcile();
        let (created, issued) =
            (world.token.metadata.creation_timestamp.clone().unwrap().0, world.active().issued_at.0);
        assert!(
            (created..=world.now).contains(&issued) && issued.subsec_nanosecond() == 0,
            "{time}: {issued}"
        );
        assert_eq!(world.minted.len(), 1, "{time}");
        world.check_quiescent();
    }
}

/// A credential entered in the status by somebody who may write it.
fn forge(world: &mut World, state: CredentialState) -> Credential {
    let token = somebody_elses_token();
    let forged = Credential {
        id: token.id().to_owned(),
        digest: token.digest(),
        state,
        reason: None,
        issued_at: Time(world.now),
        not_after: None,
        last_used_at: None,
    };
    world.token.status.as_mut().unwrap().credentials.push(forged.clone());
    forged
}

#[test]
fn a_forged_second_active_credential_is_removed() {
    let mut world = World::issued(every("720h", "24h"));
    let genuine = world.active();
    world.advance("1h");
    let forged = forge(&mut world, CredentialState::Active);
    assert_eq!(world.reconcile(), "read status wait");
    assert_eq!(world.active(), genuine);
    assert_eq!(world.ended(), [(forged.id.clone(), EndState::Revoked)]);
    assert!(!world.accepts(&forged.digest));
    world.check_quiescent();
}

#[test]
fn a_forged_active_credential_gets_no_overlap_from_a_rotation() {
    let mut world = World::issued(every("720h", "24h"));
    let genuine = world.active();
    let forged = forge(&mut world, CredentialState::Active);
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    assert_eq!(world.reconcile(), "read mint(Requested) deliver status wait");
    assert!(world.accepts(&genuine.digest) && !world.accepts(&forged.digest));
}

#[test]
fn a_forged_pending_credential_is_abandoned() {
    let mut world = World::issued(every("720h", "24h"));
    let forged = forge(&mut world, CredentialState::Pending);
    world.allowed_mints += 1;
    world.reconcile();
    assert!(!world.accepts(&forged.digest));
    assert_eq!(world.held(), Some(world.active().digest));
    world.check_quiescent();
}

#[test]
fn malformed_credentials_are_dropped() {
    let mut world = World::issued(json!({}));
    let genuine = world.active();
    for (id, digest) in [
        ("short", format!("sha256:{}", "a".repeat(64))),
        ("0123456789", "sha256:abc".to_owned()),
        ("0123456788", format!("sha256:{}", "A".repeat(64))),
        ("012345678_", format!("sha256:{}", "a".repeat(64))),
    ] {
        let forged = Credential { id: id.into(), digest, ..genuine.clone() };
        world.token.status.as_mut().unwrap().credentials.push(forged);
    }
    world.event_reasons();
    assert_eq!(world.reconcile(), "status wait");
    assert_eq!(world.status().credentials, [genuine]);
    assert_eq!(world.event_reasons(), [Reason::StatusAltered]);
    world.check_quiescent();
}

#[test]
fn a_genuine_credential_made_malformed_is_replaced() {
    let mut world = World::issued(json!({}));
    world.token.status.as_mut().unwrap().credentials[0].digest = "sha256:zz".into();
    world.allowed_mints += 1;
    world.reconcile();
    assert_eq!(world.says(READY), "True Delivered");
    assert_eq!(world.held(), Some(world.active().digest));
    world.check_quiescent();
}

#[test]
fn drifted_labels_are_repaired_around_the_same_credential() {
    for drift in [keys::MANAGED_BY, keys::TOKEN, "tier"] {
        let mut world = World::issued(json!({"secret": {"labels": {"tier": "gold"}}}));
        let before = world.active();
        world.tamper(|secret| drop(secret.metadata.labels.as_mut().unwrap().remove(drift)));
        assert_eq!(world.reconcile(), "read deliver wait");
        assert_eq!(world.active(), before);
        assert!(world.secret.as_ref().unwrap().metadata.labels.as_ref().unwrap().contains_key(drift));
        world.check_quiescent();
    }
}

#[test]
fn a_secret_out_of_sight_is_read_before_it_is_taken_for_lost() {
    let mut world = World::issued(json!({}));
    // Neither the watch nor the status tells of the Secret; the credential in the status does.
    world.tamper(|secret| secret.metadata.labels = None);
    world.token.status.as_mut().unwrap().delivery = None;
    world.restart();
    assert_eq!(world.reconcile(), "read deliver status wait");
    assert_eq!(world.minted.len(), 1);
}

#[test]
fn what_others_add_to_the_secret_stays() {
    let mut world = World::issued(json!({}));
    world.tamper(|secret| {
        secret.metadata.labels.get_or_insert_default().insert("theirs".into(), "x".into());
    });
    assert_eq!(world.reconcile(), "read wait");
    assert_eq!(world.reconcile(), "wait");
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.reconcile();
    assert!(world.secret.as_ref().unwrap().metadata.labels.as_ref().unwrap().contains_key("theirs"));
}

#[test]
fn a_touch_by_others_is_not_announced_as_a_delivery() {
    let mut world = World::issued(every("720h", "24h"));
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    world.reconcile();
    world.tamper(|secret| {
        secret.metadata.labels.get_or_insert_default().insert("theirs".into(), "x".into());
    });
    world.advance("24h");
    world.event_reasons();
    assert_eq!(world.reconcile(), "read status wait");
    assert_eq!(world.event_reasons(), [Reason::Retired]);
}

#[test]
fn every_edit_of_the_delivery_keeps_the_credential() {
    let mut world = World::issued(json!({"secret": {"template": {"env": "T={{ token }}"}}}));
    let before = world.active();
    let edits: [(&str, fn(&mut World)); 6] = [
        ("key", |world| world.edit_secret_spec(|secret| secret.key = Some("api-key".into()))),
        ("labels", |world| {
            world.edit_secret_spec(|secret| drop(secret.labels.insert("tier".into(), "gold".into())));
        }),
        ("annotations", |world| {
            world.edit_secret_spec(|secret| drop(secret.annotations.insert("note".into(), "x".into())));
        }),
        ("template", |world| {
            world.edit_secret_spec(|secret| {
                drop(secret.template.insert("env".into(), "TOKEN={{ token }}".into()))
            });
        }),
        ("owner", |world| world.label("team", "payments")),
        ("namespace's contact", |world| {
            world.namespace.annotations = Some([("contact".into(), "#payments".into())].into());
        }),
    ];
    for (what, edit) in edits {
        edit(&mut world);
        world.event_reasons();
        assert_eq!(world.reconcile(), "read deliver status wait", "{what}");
        assert_eq!((world.active(), world.minted.len()), (before.clone(), 1), "{what}");
        assert_eq!(world.held(), Some(before.digest.clone()), "{what}");
        assert_eq!(world.event_reasons(), [Reason::Redelivered], "{what}");
        world.check_quiescent();
    }
    let token = world.value("api-key").unwrap();
    assert_eq!(world.value("token"), None, "the old key goes");
    assert_eq!(world.value("env"), Some(format!("TOKEN={token}")));
    let annotations = world.secret.as_ref().unwrap().metadata.annotations.clone().unwrap();
    assert_eq!(
        (annotations[keys::OWNER].as_str(), annotations[keys::CONTACT].as_str()),
        ("payments", "#payments")
    );
    assert_eq!(world.says(ConditionType::OwnerResolved), "True FoundOnToken");
    assert!(delivery::is_controlled_by(&world.secret.as_ref().unwrap().metadata, world.token.uid()));
}

#[test]
fn edits_that_do_not_concern_the_secret_do_not_touch_it() {
    let mut world = World::issued(every("720h", "24h"));
    world.edit(|spec| {
        spec.description = Some("x".into());
        spec.scopes = vec!["a".into()];
        spec.audiences = vec!["b".into()];
        spec.rotation.as_mut().unwrap().every = Some("700h".into());
    });
    assert_eq!(world.reconcile(), "status wait");
    world.label("unrelated", "x");
    assert_eq!(world.reconcile(), "wait");
    assert_eq!((world.secret_writes, world.reads, world.minted.len()), (1, 0, 1));
}
