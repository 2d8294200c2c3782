//! Who answers for a token.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokenward::api::{ConditionType, keys};

use crate::harness::{Space, reason, shared};

async fn label_namespace(space: &Space, labels: Value) {
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    let namespaces = Api::<Namespace>::all(space.cluster.client.clone());
    namespaces.patch(&space.name, &PatchParams::default(), &patch).await.unwrap();
}

async fn until_owner(space: &Space, owner: Option<&str>) {
    let what = format!("owned by {owner:?}");
    space
        .until("owned", &what, |token| {
            let status = token.status.as_ref();
            status.is_some_and(|status| {
                status.condition(ConditionType::OwnerResolved).is_some()
                    && !status.is_true(ConditionType::Reconciling)
                    && status.owner.as_ref().map(|found| found.name.as_str()) == owner
            })
        })
        .await;
}

#[test]
fn the_owner_follows_the_namespace_and_the_token_wins() {
    shared("owner", async |space| {
        label_namespace(space, json!({"team": "platform"})).await;
        space.declare("owned", json!({})).await;
        // The label comes on another watch than the token, and maybe later.
        until_owner(space, Some("platform")).await;
        let token = space.ready("owned").await;
        let held = space.holds_active(&token).await;
        let owner = token.status.as_ref().unwrap().owner.clone().unwrap();
        assert_eq!((owner.name.as_str(), owner.source.as_str()), ("platform", "Namespace label team"));
        assert_eq!(reason(&token, ConditionType::OwnerResolved).as_deref(), Some("FoundOnNamespace"));
        assert_eq!(space.secret("owned").await.metadata.annotations.unwrap()[keys::OWNER], "platform");

        label_namespace(space, json!({"team": "payments", "contact": "oncall"})).await;
        until_owner(space, Some("payments")).await;
        let token = space.ready("owned").await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose(), "the same token");
        let annotations = space.secret("owned").await.metadata.annotations.unwrap();
        assert_eq!(
            (annotations[keys::OWNER].as_str(), annotations[keys::CONTACT].as_str()),
            ("payments", "oncall")
        );

        space.patch("owned", json!({"metadata": {"labels": {"owner": "ada"}}})).await;
        until_owner(space, Some("ada")).await;
        let token = space.get("owned").await;
        assert_eq!(reason(&token, ConditionType::OwnerResolved).as_deref(), Some("FoundOnToken"));

        let said = json!({"name": "Ledger Team", "contact": "#ledger"});
        space.patch("owned", json!({"spec": {"owner": said}})).await;
        until_owner(space, Some("Ledger Team")).await;
        let token = space.ready("owned").await;
        let owner = token.status.as_ref().unwrap().owner.clone().unwrap();
        assert_eq!((owner.source.as_str(), owner.contact.as_deref()), ("spec.owner", Some("#ledger")));
        assert_eq!(reason(&token, ConditionType::OwnerResolved).as_deref(), Some("FoundOnToken"));
        let annotations = space.secret("owned").await.metadata.annotations.unwrap();
        assert_eq!(
            (annotations[keys::OWNER].as_str(), annotations[keys::CONTACT].as_str()),
            ("Ledger Team", "#ledger")
        );

        space.patch("owned", json!({"metadata": {"labels": {"owner": null}}, "spec": {"owner": null}})).await;
        label_namespace(space, json!({"team": null, "contact": null})).await;
        until_owner(space, None).await;
        let token = space.ready("owned").await;
        assert_eq!(reason(&token, ConditionType::OwnerResolved).as_deref(), Some("NoOwner"));
        assert_eq!(space.holds_active(&token).await.expose(), held.expose(), "no owner is not an error");
        let annotations = space.secret("owned").await.metadata.annotations.unwrap();
        assert!(!annotations.contains_key(keys::OWNER) && !annotations.contains_key(keys::CONTACT));
    });
}

#[test]
fn owners_that_change_while_secrets_are_written_are_followed() {
    shared("moving", async |space| {
        space.declare("owned", json!({})).await;
        let held = space.holds_active(&space.ready("owned").await).await;
        for round in 0..12 {
            // Two changes in a row: the second comes while the first is being delivered.
            label_namespace(space, json!({"team": format!("passing-{round}")})).await;
            let team = (round % 3 != 2).then(|| format!("team-{round}"));
            label_namespace(space, json!({"team": team})).await;
            until_owner(space, team.as_deref()).await;
            let token = space.ready("owned").await;
            let annotations = space.secret("owned").await.metadata.annotations.unwrap();
            assert_eq!(annotations.get(keys::OWNER), team.as_ref(), "the Secret follows, too");
            assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        }
    });
}
