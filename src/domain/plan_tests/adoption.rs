//! Secrets that nobody controls, taken over with the credential that they hold.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::repair::HOSTILE_TIMES;
use super::world::{Break, World, every, somebody_elses_token};
use crate::api::*;
use crate::domain::delivery;
use crate::domain::directory::{Claimant, Published, print_of};
use crate::domain::token::{CredentialId, Prefix, Token};
use crate::testkit::forge::forged;

const READY: ConditionType = ConditionType::Ready;

/// Issued, backed up, and restored into an empty cluster.
fn restored() -> World {
    let mut world = World::issued(every("720h", "24h"));
    world.advance("100h");
    world.restore();
    world
}

fn put(world: &mut World, token: &Token) {
    let value = ByteString(token.expose().as_bytes().to_vec());
    world.tamper(|secret| drop(secret.data.get_or_insert_default().insert("token".into(), value)));
}

fn message(world: &World) -> String {
    world.status().condition(READY).unwrap().message.clone()
}

#[test]
fn a_restored_token_goes_on_with_the_same_credential() {
    let before = World::issued(every("720h", "24h")).active();
    let mut world = restored();
    assert_eq!(world.reconcile(), "read status blocked(SecretConflict)");
    let uid = world.secret.as_ref().unwrap().metadata.uid.clone().unwrap();
    let command =
        format!("kubectl annotate --namespace shop --overwrite apitoken orders tokenward.dev/adopt={uid}");
    assert!(message(&world).contains(&command), "{}", message(&world));
    world.event_reasons();
    world.adopt();
    assert_eq!(world.reconcile(), "read status deliver status wait");
    let after = world.active();
    assert_eq!((&after.id, &after.digest, &after.issued_at), (&before.id, &before.digest, &before.issued_at));
    assert_eq!(world.says(READY), "True Delivered");
    assert_eq!((world.held(), world.minted.len()), (Some(before.digest), 1));
    assert!(world.event_reasons().contains(&Reason::Adopted));
    assert!(delivery::is_controlled_by(&world.secret.as_ref().unwrap().metadata, world.token.uid()));
    world.check_quiescent();
    // From here on it is a token like any other.
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    assert_eq!(world.reconcile(), "mint(Requested) deliver status wait");
}

#[test]
fn a_crash_at_any_write_of_an_adoption_is_repaired_by_looking() {
    for (first, second) in (1..=4).flat_map(|first| (0..=4).map(move |second| (first, second))) {
        for lost in [false, true] {
            let mut world = restored();
            let held = world.held();
            world.adopt();
            for at in [first, second] {
                let cut = if lost { Break::LostAnswer } else { Break::Crash };
                world.break_at = (at > 0).then_some(cut(at));
                world.reconcile();
            }
            world.break_at = None;
            world.reconcile();
            assert_eq!(world.says(READY), "True Delivered", "{first} {second}");
            assert_eq!((world.held(), world.minted.len()), (held.clone(), 1), "{first} {second}");
            assert_eq!(Some(world.active().digest), held);
            world.check_quiescent();
        }
    }
}

#[test]
fn an_owner_reference_that_was_taken_away_is_put_back() {
    let mut world = World::issued(json!({}));
    let before = world.active();
    world.tamper(|secret| secret.metadata.owner_references = None);
    assert_eq!(world.reconcile(), "read status blocked(SecretConflict)");
    world.adopt();
    assert_eq!(world.reconcile(), "read deliver status wait");
    assert_eq!((world.active(), world.minted.len(), world.is_true(READY)), (before, 1, true));
    world.check_quiescent();
}

fn controlled_by_another(world: &mut World) {
    let owner = OwnerReference {
        kind: "Deployment".into(),
        uid: "somebody".into(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    world.tamper(|secret| secret.metadata.owner_references = Some(vec![owner]));
}

fn labelled(world: &mut World, name: &str) {
    world.tamper(|secret| {
        secret.metadata.labels.get_or_insert_default().insert(keys::TOKEN.into(), name.into());
    });
}

/// Living or ended, and whatever the id says.
fn published_by_another(world: &mut World) {
    let id = CredentialId::parse("0123456789").unwrap();
    let print = print_of(&world.held().unwrap());
    let copy = Published { id, print, current: false, shown: None };
    let other = Claimant { created: 1, uid: "o".into(), namespace: "x".into(), name: "o".into() };
    world.directory.apply(&other, &[copy]);
}

#[test]
fn only_a_secret_that_is_ours_in_every_other_respect_is_taken_over() {
    let cases: [(&str, fn(&mut World)); 10] = [
        ("another object controls", controlled_by_another),
        ("does not carry the label", |world| world.tamper(|secret| secret.metadata.labels = None)),
        ("does not carry the label", |world| labelled(world, "other")),
        ("another type", |world| {
            world.tamper(|secret| secret.type_ = Some("kubernetes.io/basic-auth".into()));
        }),
        ("no token of this installation", |world| world.tamper(|secret| secret.data = None)),
        ("no token of this installation", |world| {
            world.edit_secret_spec(|secret| secret.key = Some("elsewhere".into()));
        }),
        ("no token of this installation", |world| world.settings.prefix = Prefix::new("acme").unwrap()),
        ("another ApiToken has published", published_by_another),
        ("is being deleted", |world| {
            world.tamper(|secret| secret.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH)));
        }),
        ("declared compromised", |world| world.annotate(keys::COMPROMISED_AT, "1")),
    ];
    for (why, change) in cases {
        let mut world = restored();
        world.allowed_mints += 1;
        let held = world.held().unwrap();
        change(&mut world);
        let secret = world.secret.clone();
        world.reconcile();
        assert!(!message(&world).contains("kubectl"), "{why}: {}", message(&world));
        // Unasked, of one that looks like ours only.
        assert_eq!(message(&world).contains(why), !why.contains("carry the label"), "{}", message(&world));
        world.annotate(keys::ADOPT, "the-uid-of-long-ago");
        world.reconcile();
        assert!(message(&world).contains(why), "{why}: {}", message(&world));
        world.adopt();
        world.reconcile();
        world.reconcile();
        assert_eq!(world.says(READY), "False SecretConflict", "{why}");
        assert!(message(&world).contains(why), "{why}: {}", message(&world));
        assert!(!world.accepts(&held), "{why}");
        assert_eq!(world.secret, secret, "{why}: not written");
    }
}

#[test]
fn another_secrets_uid_takes_nothing_over() {
    let mut world = restored();
    world.annotate(keys::ADOPT, "the-uid-of-long-ago");
    assert_eq!(world.reconcile(), "read status blocked(SecretConflict)");
    assert!(message(&world).contains("kubectl annotate"));
    assert!(message(&world).contains("does not hold the uid of this Secret"), "{}", message(&world));
}

#[test]
fn what_has_ended_is_not_brought_back() {
    let mut world = World::issued(every("720h", "24h"));
    let first = Token::parse(&world.value("token").unwrap()).unwrap();
    for (n, state) in [(1, "superseded"), (2, "ended")] {
        world.annotate(keys::ROTATE_REQUESTED_AT, &n.to_string());
        if n == 2 {
            world.annotate(keys::RETIRE_NOW_AT, "1");
        }
        world.reconcile();
        put(&mut world, &first);
        world.tamper(|secret| {
            secret.metadata.owner_references = None;
            secret.metadata.uid = Some(format!("moved-{n}"));
        });
        world.adopt();
        world.reconcile();
        assert!(message(&world).contains(state), "{}", message(&world));
        assert!(world.in_state(CredentialState::Pending).is_empty());
        world.delete_secret();
        world.reconcile();
    }
    assert!(!world.accepts(&first.digest()));
}

/// A token with the id of one of its own ApiToken's credentials, and another secret: two entries of one id would make every
/// write of the status fail.
#[test]
fn a_forged_token_with_an_id_of_its_own_is_refused() {
    let mut world = World::issued(json!({}));
    let genuine = Token::parse(&world.value("token").unwrap()).unwrap();
    let forged = forged(genuine.prefix(), genuine.id(), &"x".repeat(43));
    put(&mut world, &forged);
    world.tamper(|secret| secret.metadata.owner_references = None);
    world.adopt();
    world.reconcile();
    assert_eq!(world.says(READY), "False SecretConflict");
    assert!(!world.accepts(&forged.digest()));
}

/// Whoever may write Secrets only finds no door that a request has left open.
#[test]
fn a_request_counts_once() {
    let forged = somebody_elses_token();
    let plant = |world: &mut World| {
        put(world, &forged);
        world.tamper(|secret| secret.metadata.owner_references = None);
        world.reconcile();
        world.reconcile();
        assert_eq!(world.says(READY), "False SecretConflict");
        assert!(!world.accepts(&forged.digest()));
        assert!(!message(world).contains("kubectl"), "{}", message(world));
    };
    // Honoured.
    let mut world = restored();
    world.adopt();
    world.reconcile();
    plant(&mut world);
    // Pointless: the Secret was its own already.
    let mut world = World::issued(json!({}));
    world.adopt();
    world.reconcile();
    plant(&mut world);
    // Changed in the middle: the status names what was there, and nothing else is taken.
    let mut world = restored();
    world.adopt();
    world.break_at = Some(Break::Crash(1));
    world.reconcile();
    plant(&mut world);
}

#[test]
fn no_time_in_an_annotation_is_believed_that_cannot_be_true() {
    for time in HOSTILE_TIMES {
        let mut world = restored();
        world.tamper(|secret| {
            let annotations = secret.metadata.annotations.as_mut().unwrap();
            annotations.insert(keys::ISSUED_AT.into(), time.into());
        });
        world.adopt();
        world.reconcile();
        let issued = world.active().issued_at.0;
        let oldest = "2020-01-01T00:00:00Z".parse().unwrap();
        assert!(
            (oldest..=world.now).contains(&issued) && issued.subsec_nanosecond() == 0,
            "{time}: {issued}"
        );
        world.check_quiescent();
    }
}
