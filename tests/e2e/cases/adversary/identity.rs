//! I9: whatever somebody writes into ApiTokens and Secrets of one namespace, every gate says the same of the tokens of another.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokenward::api::{ApiToken, keys};
use tokenward::domain::token::Token;
use tokenward::testkit::forge::forged;

use crate::harness::{Operator, Release, Space, Tenant, is_ready, request, shared, until};

/// What a gate says of a token: the status, and whose it is if it may pass.
async fn asked(gate: &Operator, token: &Token) -> (u16, String) {
    let value = format!("Bearer {}", token.expose());
    let headers: [(&str, &[u8]); 1] = [("Authorization", value.as_bytes())];
    let answer = request(gate.port("http"), "GET", "/authz/nginx", &headers, b"").await.expect("an answer");
    (answer.status, answer.all("x-tokenward-token").join(","))
}

/// A gate, and a delivered token in a namespace that the tenant has no rights in.
async fn victim(space: &Space) -> (Arc<Operator>, Space, Token) {
    let release = Release { cluster: space.cluster, name: "tokenward".to_owned() };
    let gate = space.start(&release.launch_gate().await, "gate").await;
    gate.until_ready().await;
    let other = space.namespace(&format!("{}-victim", space.name), json!({})).await;
    other.declare("victim", json!({"scopes": ["read"]})).await;
    let token = other.holds_active(&other.ready("victim").await).await;
    let wanted = (200, format!("{}/victim", other.name));
    until("the gate knows the victim", async || (asked(&gate, &token).await == wanted).then_some(())).await;
    (gate, other, token)
}

/// Plants a Secret as the operator would have delivered it: for `owner`, or nobody.
async fn plant(tenant: &Tenant, name: &str, owner: Option<&ApiToken>, token: &Token, issued: &str) -> String {
    let owners: Vec<Value> = owner
        .into_iter()
        .map(|owner| {
            json!({
                "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "controller": true,
                "name": name, "uid": owner.metadata.uid,
            })
        })
        .collect();
    let secret = json!({
        "metadata": {
            "name": name, "ownerReferences": owners,
            "labels": {keys::MANAGED_BY: keys::FIELD_MANAGER, keys::TOKEN: name},
            "annotations": {keys::TOKEN: name, keys::CREDENTIAL: token.id(), keys::ISSUED_AT: issued},
        },
        "data": {"token": STANDARD.encode(token.expose())},
    });
    let _ = tenant.secrets().delete(name, &DeleteParams::default()).await;
    let secret = serde_json::from_value(secret).unwrap();
    let made = tenant.secrets().create(&PostParams::default(), &secret).await.unwrap();
    made.metadata.uid.unwrap()
}

async fn change(tenant: &Tenant, name: &str, change: Value) {
    tenant.tokens().patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

#[test]
fn a_token_that_was_never_issued_takes_no_id_from_another_namespace() {
    shared("theft", async |space| {
        let (gate, other, genuine) = victim(space).await;
        let tenant = space.tenant().await;
        let copy = forged("twd", genuine.id(), &"f".repeat(43));
        let suspended = json!({"suspend": true});
        let bad_template = json!({"secret": {"template": {"x": "{{ nope }}"}}});
        // The issue's own, its neighbours, and the whole token of somebody who knows it.
        for (number, (spec, token)) in
            [(&suspended, &copy), (&bad_template, &copy), (&suspended, &genuine), (&bad_template, &genuine)]
                .into_iter()
                .enumerate()
        {
            let name = format!("thief-{number}");
            let owner = tenant.declare(&name, json!({}), spec.clone()).await.unwrap();
            space.until(&name, "looked at", |token| token.status.is_some()).await;
            plant(&tenant, &name, Some(&owner), token, "2026-01-01T00:00:00Z").await;
            change(&tenant, &name, json!({"spec": {"suspend": false, "secret": null}})).await;
            let issued = space.until(&name, "issued a token of its own", is_ready).await;
            let own = space.holds_active(&issued).await;
            assert!(![copy.digest(), genuine.digest()].contains(&own.digest()), "{name}");
            let wanted = (200, format!("{}/{name}", space.name));
            until("the gate knows it", async || (asked(&gate, &own).await == wanted).then_some(())).await;
            assert_eq!(asked(&gate, &copy).await.0, 401, "{name}");
            assert_eq!(asked(&gate, &genuine).await, (200, format!("{}/victim", other.name)), "{name}");
        }
    });
}

#[test]
fn an_adopted_token_stands_beside_another_of_the_same_id() {
    shared("clash", async |space| {
        // The thief's ApiToken is the older one.
        let tenant = space.tenant().await;
        tenant.declare("thief", json!({}), json!({"suspend": true})).await.unwrap();
        let (gate, other, genuine) = victim(space).await;
        let copy = forged("twd", genuine.id(), &"f".repeat(43));
        for issued in ["-005000-01-02T00:00:00Z", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z"] {
            let _ = tenant.tokens().delete("thief", &DeleteParams::default()).await;
            let uid = plant(&tenant, "thief", None, &copy, issued).await;
            until("declared", async || {
                let metadata = json!({"annotations": {keys::ADOPT: uid}});
                tenant.declare("thief", metadata, json!({})).await.ok()
            })
            .await;
            let token = space.ready("thief").await;
            assert_eq!(space.holds_active(&token).await.digest(), copy.digest(), "{issued}: its own affair");
            let thief = (200, format!("{}/thief", space.name));
            until("the gate knows the thief", async || (asked(&gate, &copy).await == thief).then_some(()))
                .await;
            let victim = (200, format!("{}/victim", other.name));
            assert_eq!(asked(&gate, &genuine).await, victim, "the digest decides");
            assert_eq!(asked(&gate, &forged("twd", genuine.id(), &"g".repeat(43))).await.0, 401);
        }
    });
}

#[test]
fn what_another_has_published_is_not_adopted() {
    shared("copied", async |space| {
        let (gate, other, genuine) = victim(space).await;
        let tenant = space.tenant().await;
        let refused = async |why: &str| {
            let uid = plant(&tenant, "thief", None, &genuine, "2026-01-01T00:00:00Z").await;
            let metadata = json!({"annotations": {keys::ADOPT: uid}});
            tenant.declare("thief", metadata, json!({"scopes": ["everything"]})).await.unwrap();
            let message = space.until_stalled("thief", "SecretConflict").await;
            assert!(message.contains("another ApiToken has published its credential"), "{why}: {message}");
            tenant.tokens().delete("thief", &DeleteParams::default()).await.unwrap();
        };
        refused("living").await;
        assert_eq!(asked(&gate, &genuine).await, (200, format!("{}/victim", other.name)));
        other.request("victim", keys::COMPROMISED_AT).await;
        until("revoked", async || (asked(&gate, &genuine).await.0 == 401).then_some(())).await;
        other.until("victim", "replaced", is_ready).await;
        refused("ended").await;
        assert_eq!(asked(&gate, &genuine).await.0, 401, "what has ended is not brought back");
    });
}
