//! An admission webhook or policy changes the Secret as it is written.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::world::{World, every};
use crate::api::*;

const READY: ConditionType = ConditionType::Ready;
const STALLED: ConditionType = ConditionType::Stalled;
const RECONCILING: ConditionType = ConditionType::Reconciling;
const MUTATED: ConditionType = ConditionType::SecretMutated;

fn relabels(secret: &mut Secret) {
    secret.metadata.labels.get_or_insert_default().insert(keys::MANAGED_BY.into(), "platform".into());
}

fn hides(secret: &mut Secret) {
    secret.metadata.labels.get_or_insert_default().remove(keys::TOKEN);
}

fn spoils_template(secret: &mut Secret) {
    secret.data.get_or_insert_default().insert("env".into(), ByteString(b"sealed".to_vec()));
}

fn spoils_token(secret: &mut Secret) {
    secret.data.get_or_insert_default().insert("token".into(), ByteString(b"sealed".to_vec()));
}

fn moves_token(secret: &mut Secret) {
    let data = secret.data.get_or_insert_default();
    if let Some(value) = data.remove("token") {
        data.insert("moved".into(), value);
    }
}

fn message(world: &World) -> String {
    world.status().condition(MUTATED).map(|said| said.message.clone()).unwrap_or_default()
}

#[test]
fn changed_labels_are_told_and_not_written_again() {
    for (mutator, part) in [
        (relabels as fn(&mut Secret), "managed-by] is changed from \"tokenward\" to \"platform\""),
        (hides as fn(&mut Secret), "metadata.labels[tokenward.dev/token] is removed; no watch shows it"),
    ] {
        let mut world = World::new(every("720h", "24h"));
        world.mutator = Some(mutator);
        assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
        assert_eq!(world.says(MUTATED), "True MetadataMutated");
        assert!(message(&world).contains(part), "{}", message(&world));
        assert_eq!((world.says(READY), world.health()), ("True Delivered".into(), "Healthy".into()));
        assert_eq!(world.event_reasons(), [Reason::Issued, Reason::MetadataMutated]);
        world.check_quiescent();
        // The next credential is no news.
        world.advance("720h");
        world.reconcile();
        assert_eq!(world.event_reasons(), [Reason::Due]);
        world.check_quiescent();
    }
}

#[test]
fn a_mutation_that_began_later_is_told_after_the_first_repair() {
    let mut world = World::issued(json!({}));
    world.mutator = Some(relabels);
    world.tamper(relabels);
    assert_eq!(world.reconcile(), "read deliver status wait");
    assert_eq!(world.says(MUTATED), "True MetadataMutated");
    // Whoever touches it has it written once more, for the case that the webhook is mended.
    world.tamper(|_| {});
    assert_eq!(world.reconcile(), "read deliver wait");
    assert_eq!(world.reconcile(), "wait");
    world.mutator = None;
    world.tamper(|_| {});
    assert_eq!(world.reconcile(), "read deliver status wait");
    assert_eq!((world.says(MUTATED), world.minted.len()), (String::new(), 1));
    world.check_quiescent();
}

#[test]
fn altered_data_beside_the_token_stalls_and_is_remembered() {
    let mut world = World::new(json!({"secret": {"template": {"env": "T={{ token }}"}}}));
    world.mutator = Some(spoils_template);
    world.reconcile();
    let stalls = |world: &World| {
        assert_eq!(
            (world.says(MUTATED), world.says(STALLED), world.health()),
            ("True DataMutated".into(), "True DataMutated".into(), "Blocked".into())
        );
        assert!(message(world).contains("data[env] is altered") && !message(world).contains("sealed"));
    };
    stalls(&world);
    assert_eq!(world.event_reasons(), [Reason::Issued, Reason::DataMutated]);
    world.check_quiescent();
    for suspend in [true, false] {
        world.edit(|spec| spec.suspend = suspend);
        world.reconcile();
    }
    stalls(&world);
    // Another declaration is tried at once.
    world.edit_secret_spec(|secret| secret.template.clear());
    world.mutator = None;
    world.reconcile();
    assert_eq!((world.says(MUTATED), world.says(STALLED)), (String::new(), String::new()));
}

#[test]
fn a_token_that_does_not_stand_is_not_delivered() {
    for mutator in [spoils_token as fn(&mut Secret), moves_token] {
        let mut world = World::new(json!({}));
        world.mutator = Some(mutator);
        assert_eq!(world.reconcile(), "mint(Issued) deliver status blocked(DataMutated)");
        assert_eq!(
            (world.says(READY), world.says(RECONCILING), world.says(MUTATED)),
            ("False DataMutated".into(), "True DataMutated".into(), "True DataMutated".into())
        );
        assert_eq!(world.event_reasons(), [Reason::DataMutated]);
        // Each look tries once; nothing is minted for it.
        for _ in 0..3 {
            assert_eq!(world.reconcile(), "read deliver blocked(DataMutated)");
        }
        world.mutator = None;
        assert_eq!(world.reconcile(), "read deliver status wait");
        assert_eq!((world.says(READY), world.says(MUTATED)), ("True Delivered".into(), String::new()));
        assert_eq!((world.held(), world.minted.len()), (Some(world.active().digest), 1));
        world.check_quiescent();
    }
}

#[test]
fn a_successor_that_does_not_stand_ends_nothing() {
    let mut world = World::issued(every("720h", "24h"));
    let first = world.active();
    world.mutator = Some(spoils_token);
    world.annotate(keys::ROTATE_REQUESTED_AT, "1");
    assert_eq!(world.reconcile(), "mint(Requested) deliver status blocked(DataMutated)");
    assert_eq!(world.says(READY), "False DataMutated");
    assert_eq!(world.active(), first, "workloads that read it before go on");
    world.mutator = None;
    assert_eq!(world.reconcile(), "read deliver status wait");
    assert_eq!(world.held(), Some(world.active().digest));
    assert_eq!(world.in_state(CredentialState::Retiring)[0].id, first.id);
    world.check_quiescent();
}

#[test]
fn a_secret_that_loses_its_owner_on_the_way_is_left_alone() {
    let mut world = World::new(json!({}));
    world.mutator = Some(|secret| secret.metadata.owner_references = None);
    assert_eq!(world.reconcile(), "mint(Issued) deliver status blocked(SecretConflict)");
    let message = world.status().condition(STALLED).unwrap().message.clone();
    assert!(message.contains("removes metadata.ownerReferences"), "{message}");
    for _ in 0..3 {
        world.reconcile();
    }
    assert_eq!((world.secret_writes, world.minted.len()), (1, 1));
}

#[test]
fn a_value_that_admission_puts_back_is_no_endless_delivery() {
    let mut world = World::issued(every("720h", "24h"));
    // As a webhook that fills Secrets from a vault would.
    world.mutator = Some(|secret| {
        secret.data.get_or_insert_default().insert("token".into(), ByteString(b"of the vault".to_vec()));
    });
    world.tamper(|secret| drop(secret.data.take()));
    assert_eq!(world.reconcile(), "read mint(SecretAltered) deliver status blocked(DataMutated)");
    assert_eq!(world.reconcile(), "read deliver blocked(DataMutated)");
    assert_eq!(world.minted.len(), 2);
}
