//! Somebody touches what is the operator's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokenward::api::{ApiToken, ConditionType, CredentialState, EndState, keys};
use tokenward::domain::token::digest_of;

use crate::harness::{Space, credential, is_ready, reason, shared, until};

async fn patch_secret(space: &Space, name: &str, patch: Value) {
    let params = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    space.secrets().patch(name, &params, &Patch::Merge(patch)).await.unwrap();
}

fn issued_for(wanted: &'static str) -> impl Fn(&ApiToken) -> bool {
    move |token| {
        is_ready(token)
            && token
                .status
                .as_ref()
                .is_some_and(|status| status.last_rotation_reason.as_deref() == Some(wanted))
    }
}

#[test]
fn a_deleted_secret_is_replaced_loudly() {
    shared("lost", async |space| {
        space.declare("lost", json!({"rotation": {"every": "720h", "overlap": "1h"}})).await;
        let old = space.holds_active(&space.ready("lost").await).await;
        space.secrets().delete("lost", &DeleteParams::default()).await.unwrap();
        let token = space.until("lost", "issued anew", issued_for("SecretLost")).await;
        assert_ne!(space.holds_active(&token).await.expose(), old.expose());
        assert_eq!(
            credential(&token, CredentialState::Retiring).unwrap().id,
            old.id(),
            "workloads still use it"
        );
        let note = space.event("lost", "SecretLost").await;
        assert!(!note.is_empty());
    });
}

#[test]
fn an_altered_value_is_replaced_loudly() {
    shared("altered", async |space| {
        space.declare("altered", json!({})).await;
        let old = space.holds_active(&space.ready("altered").await).await;
        let forged = STANDARD.encode("not a token of ours");
        patch_secret(space, "altered", json!({"data": {"token": forged}})).await;
        let token = space.until("altered", "issued anew", issued_for("SecretAltered")).await;
        assert_ne!(space.holds_active(&token).await.expose(), old.expose());
        space.event("altered", "SecretAltered").await;
    });
}

#[test]
fn labels_are_repaired_and_what_others_add_stays() {
    shared("labels", async |space| {
        let spec =
            json!({"secret": {"labels": {"tier": "gold"}, "template": {"header": "Bearer {{ token }}"}}});
        space.declare("kept", spec).await;
        let held = space.holds_active(&space.ready("kept").await).await;
        patch_secret(
            space,
            "kept",
            json!({
                "metadata": {"labels": {"tier": "lead", keys::TOKEN: null, "theirs": "stays"}},
                "data": {"header": STANDARD.encode("spoilt")},
            }),
        )
        .await;
        let secret = until("the Secret is repaired", async || {
            let secret = space.secret("kept").await;
            let labels = secret.metadata.labels.clone().unwrap();
            (labels.get("tier").map(String::as_str) == Some("gold") && labels.contains_key(keys::TOKEN))
                .then_some(secret)
        })
        .await;
        assert_eq!(secret.metadata.labels.unwrap()["theirs"], "stays");
        assert_eq!(secret.data.unwrap()["header"].0, format!("Bearer {}", held.expose()).into_bytes());
        assert_eq!(space.holds_active(&space.ready("kept").await).await.expose(), held.expose());

        // Without the label that the operator's watch selects by, the Secret looks deleted: it has to look twice.
        patch_secret(
            space,
            "kept",
            json!({"metadata": {"labels": {keys::MANAGED_BY: null, keys::TOKEN: null}}}),
        )
        .await;
        until("the labels are back", async || {
            let labels = space.secret("kept").await.metadata.labels.unwrap();
            (labels.contains_key(keys::MANAGED_BY) && labels.contains_key(keys::TOKEN)).then_some(())
        })
        .await;
        let token = space.ready("kept").await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose(), "the same token");
        assert!(token.status.unwrap().ended.is_empty());
    });
}

#[test]
fn a_wiped_status_is_written_again_around_the_same_credential() {
    shared("wiped", async |space| {
        space.declare("wiped", json!({})).await;
        let token = space.ready("wiped").await;
        let held = space.holds_active(&token).await;
        let version = space.secret("wiped").await.metadata.resource_version;
        space.patch_status("wiped", Value::Null).await;
        let token = space.until("wiped", "adopted", issued_for("Adopted")).await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        assert_eq!(space.secret("wiped").await.metadata.resource_version, version, "nobody wrote the Secret");
    });
}

#[test]
fn forged_credentials_are_thrown_out_where_that_can_be_known() {
    shared("forged", async |space| {
        space.declare("forged", json!({})).await;
        let token = space.ready("forged").await;
        let held = space.holds_active(&token).await;
        let genuine = json!(token.status.as_ref().unwrap().credentials[0]);

        // A second active credential: the Secret decides which is genuine.
        let digest = digest_of(b"twd_ForgedForge_something");
        let foreign = json!({"id": "ForgedForg", "digest": digest, "state": "Active", "issuedAt": "2030-01-01T00:00:00Z"});
        space.patch_status("forged", json!({"credentials": [genuine, foreign]})).await;
        let token = space
            .until("forged", "the foreign credential ended", |token| {
                token
                    .status
                    .as_ref()
                    .is_some_and(|status| status.ended.iter().any(|ended| ended.id == "ForgedForg"))
                    && is_ready(token)
            })
            .await;
        let status = token.status.as_ref().unwrap();
        assert_eq!(status.ended[0].state, EndState::Revoked);
        assert_eq!(status.credentials.len(), 1);
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());

        // One that cannot be the operator's.
        let malformed = json!({"id": "x", "digest": "sha256:00", "state": "Retiring", "issuedAt": "2026-01-01T00:00:00Z"});
        let genuine = json!(status.credentials[0]);
        space.patch_status("forged", json!({"credentials": [genuine, malformed]})).await;
        let token = space
            .until("forged", "the malformed credential is gone", |token| {
                token.status.as_ref().is_some_and(|status| status.credentials.len() == 1) && is_ready(token)
            })
            .await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        space.event("forged", "StatusAltered").await;

        // The digest of the active credential replaced: it does not fit what was delivered, and ends at once.
        let mut forged = json!(token.status.as_ref().unwrap().credentials[0]);
        forged["digest"] = json!(digest);
        space.patch_status("forged", json!({"credentials": [forged]})).await;
        let token = space
            .until("forged", "issued anew", |token| {
                let active = credential(token, CredentialState::Active);
                is_ready(token)
                    && active.is_some_and(|active| active.digest != digest && active.digest != held.digest())
            })
            .await;
        assert_eq!(token.status.as_ref().unwrap().credentials.len(), 1, "the forged digest has no overlap");
        space.holds_active(&token).await;
    });
}

#[test]
fn a_foreign_secret_is_never_touched() {
    shared("conflict", async |space| {
        let foreign = json!({
            "metadata": {"name": "taken", "labels": {keys::MANAGED_BY: "tokenward", keys::TOKEN: "taken"}},
            "stringData": {"token": "somebody else's"},
        });
        let secrets = space.secrets();
        let made =
            secrets.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
        space.declare("taken", json!({})).await;
        let message = space.until_stalled("taken", "SecretConflict").await;
        assert!(message.contains("not controlled by this ApiToken"), "{message}");
        let token = space.get("taken").await;
        assert_eq!(reason(&token, ConditionType::Ready).as_deref(), Some("SecretConflict"));
        assert!(token.status.unwrap().credentials.is_empty(), "nothing is minted that cannot be delivered");
        space.event("taken", "SecretConflict").await;
        let shown = space.kubectl(&["get", "apitoken", "taken", "--output", "wide"]).await.ok();
        assert!(shown.contains("Blocked") && shown.contains("SecretConflict"), "{shown}");

        // Whatever is asked for meanwhile, the Secret is not ours.
        space.request("taken", keys::ROTATE_REQUESTED_AT).await;
        space.request("taken", keys::COMPROMISED_AT).await;
        space
            .until("taken", "the compromise was noted", |token| {
                let handled = token.status.as_ref().and_then(|status| status.last_handled.as_ref());
                handled.is_some_and(|handled| handled.compromised_at.is_some())
            })
            .await;
        let now = space.secret("taken").await;
        assert_eq!(
            now.metadata.resource_version, made.metadata.resource_version,
            "the foreign Secret was written"
        );
        assert_eq!(now.metadata.uid, made.metadata.uid);

        let gone = std::time::Instant::now();
        secrets.delete("taken", &DeleteParams::default()).await.unwrap();
        let token = space.ready("taken").await;
        println!(
            "conflict: Ready {:.1} s after the foreign Secret was removed",
            gone.elapsed().as_secs_f64()
        );
        assert!(gone.elapsed().as_secs() < 30, "Ready within 30 s: {:?}", gone.elapsed());
        assert_eq!(reason(&token, ConditionType::Stalled), None);
        space.holds_active(&token).await;
    });
}

#[test]
fn a_foreign_secret_without_our_labels_is_never_touched() {
    shared("unlabelled", async |space| {
        let foreign = json!({"metadata": {"name": "taken"}, "stringData": {"token": "somebody else's"}});
        let secrets = space.secrets();
        let made =
            secrets.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
        space.declare("wants", json!({"secret": {"name": "taken"}})).await;
        space.until_stalled("wants", "SecretConflict").await;
        let now = space.secret("taken").await;
        assert_eq!(now.metadata.resource_version, made.metadata.resource_version);

        let gone = std::time::Instant::now();
        secrets.delete("taken", &DeleteParams::default()).await.unwrap();
        space.ready("wants").await;
        println!(
            "conflict: Ready {:.1} s after an unlabelled Secret was removed",
            gone.elapsed().as_secs_f64()
        );
        assert!(gone.elapsed().as_secs() < 30, "Ready within 30 s: {:?}", gone.elapsed());
    });
}

#[test]
fn two_tokens_that_want_one_secret_do_not_fight() {
    shared("rivals", async |space| {
        space.declare("first", json!({"secret": {"name": "one"}})).await;
        let first = space.ready("first").await;
        let held = space.holds_active(&first).await;
        space.declare("second", json!({"secret": {"name": "one"}})).await;
        space.until_stalled("second", "SecretConflict").await;
        assert_eq!(space.holds_active(&space.get("first").await).await.expose(), held.expose());
        // With the first goes its Secret, and the second may have the name.
        space.tokens().delete("first", &DeleteParams::default()).await.unwrap();
        space.holds_active(&space.ready("second").await).await;
    });
}
