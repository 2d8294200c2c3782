//! An ApiToken becomes a Secret, and stays in step with it.

use serde_json::json;
use tokenward::api::{CredentialState, keys};

use crate::harness::{credential, shared, sole_active};

#[test]
fn the_least_token_is_delivered() {
    shared("minimal", async |space| {
        let declared = space.declare("minimal", json!({})).await;
        space.kubectl(&["wait", "apitoken/minimal", "--for=condition=Ready", "--timeout=60s"]).await.ok();
        let token = space.ready("minimal").await;
        let held = space.holds_active(&token).await;
        assert!(held.expose().starts_with("twd_"));

        let secret = space.secret("minimal").await;
        assert_eq!(secret.type_.as_deref(), Some("Opaque"));
        assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["token"]);
        let meta = secret.metadata;
        let owner = &meta.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("ApiToken", "minimal"));
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), None));
        assert_eq!(Some(&owner.uid), declared.metadata.uid.as_ref());
        let labels: Vec<_> = meta.labels.unwrap().into_iter().collect();
        assert_eq!(
            labels,
            [
                (keys::MANAGED_BY.to_owned(), "tokenward".to_owned()),
                (keys::TOKEN.to_owned(), "minimal".to_owned())
            ]
        );
        let annotations = meta.annotations.unwrap();
        assert_eq!(annotations[keys::TOKEN], "minimal");
        assert_eq!(annotations[keys::CREDENTIAL], held.id());
        assert_eq!(annotations[keys::ISSUED_AT], sole_active(&token).issued_at.0.to_string());
        let managers: Vec<_> =
            meta.managed_fields.unwrap().into_iter().map(|field| field.manager.unwrap()).collect();
        assert_eq!(managers, ["tokenward"]);

        // The specification is the user's: nothing is defaulted into it.
        assert_eq!(token.spec, declared.spec);
        assert_eq!(token.metadata.generation, Some(1));
        assert_eq!(token.metadata.finalizers, None);
        space.event("minimal", "Issued").await;
    });
}

#[test]
fn kubectl_shows_and_explains() {
    shared("columns", async |space| {
        space
            .declare_with(
                "shown",
                json!({"labels": {"team": "payments"}}),
                json!({"rotation": {"every": "720h"}}),
            )
            .await;
        let token = space.ready("shown").await;
        let table = space.kubectl(&["get", "apitokens", "--output", "wide"]).await.ok();
        let mut lines =
            table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()));
        let header: Vec<_> = lines.next().unwrap().collect();
        let columns = [
            "NAME",
            "READY",
            "HEALTH",
            "OWNER",
            "LAST USED",
            "NEXT ROTATION",
            "EXPIRES",
            "AGE",
            "SECRET",
            "CREDENTIAL",
            "REQUESTS",
            "DELIVERED",
            "REASON",
        ];
        assert_eq!(header, columns);
        let row: Vec<_> = lines.next().unwrap().collect();
        for cell in ["shown", "True", "payments", sole_active(&token).id.as_str(), "Delivered"] {
            assert!(row.contains(&cell), "{cell} in {row:?}");
        }
        // A ledger listens: what it knows of the use is news, and may be told a moment later. Whether a gate has watched since
        // before, other cases decide.
        assert!(["Healthy", "Unknown", "NeverUsed"].contains(&row[2]), "{row:?}");
        let narrow = space.kubectl(&["get", "apitok"]).await.ok();
        assert!(!narrow.contains("CREDENTIAL"), "{narrow}");
        let all = space.kubectl(&["get", "tokenward", "--output", "name"]).await.ok();
        assert_eq!(all.trim(), "apitoken.tokenward.dev/shown");

        let explained = space.kubectl(&["explain", "apitoken.spec.rotation"]).await.ok();
        for word in ["every", "schedule", "timeZone", "overlap", "Interval between credentials"] {
            assert!(explained.contains(word), "{word} in\n{explained}");
        }
        let all = space.kubectl(&["explain", "apitoken", "--recursive"]).await.ok();
        assert!(all.contains("lastHandled") && all.contains("compromisedAt"), "{all}");
    });
}

#[test]
fn another_shape_of_the_secret_holds_the_same_token() {
    shared("shape", async |space| {
        space.declare("shaped", json!({"rotation": {"every": "720h"}})).await;
        let first = space.ready("shaped").await;
        let held = space.holds_active(&first).await;

        let changes = [
            json!({"key": "api-key"}),
            json!({"labels": {"app.kubernetes.io/component": "checkout"}}),
            json!({"annotations": {"example.com/runbook": "https://example.com"}}),
            json!({"template": {".netrc": "machine a password {{ token }}\n", "id": "{{ id }}"}}),
            json!({"template": {".netrc": null}}),
        ];
        for change in changes {
            space.patch("shaped", json!({"spec": {"secret": change}})).await;
            let token = space.ready("shaped").await;
            assert_eq!(space.holds_active(&token).await.expose(), held.expose(), "after {change}");
            assert!(credential(&token, CredentialState::Retiring).is_none());
            assert_eq!(
                token.status.unwrap().next_rotation_time,
                first.status.clone().unwrap().next_rotation_time
            );
        }
        let secret = space.secret("shaped").await;
        let keys: Vec<_> = secret.data.unwrap().into_keys().collect();
        assert_eq!(keys, ["api-key", "id"], "keys that are no longer declared are gone");
        assert_eq!(secret.metadata.labels.unwrap()["app.kubernetes.io/component"], "checkout");
        assert_eq!(secret.metadata.annotations.unwrap()["example.com/runbook"], "https://example.com");

        space.patch("shaped", json!({"spec": {"secret": null}})).await;
        let token = space.ready("shaped").await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        space.event("shaped", "Redelivered").await;
    });
}

#[test]
fn what_must_not_change_is_refused() {
    shared("immutable", async |space| {
        space.declare("fixed", json!({"secret": {"name": "one"}})).await;
        space.ready("fixed").await;
        for (patch, said) in [
            (r#"{"spec":{"secret":{"name":"two"}}}"#, "spec.secret.name is immutable"),
            (r#"{"spec":{"secret":{"type":"example.com/other"}}}"#, "spec.secret.type is immutable"),
        ] {
            let refused = space
                .kubectl(&["patch", "apitoken", "fixed", "--type=merge", "--patch", patch])
                .await
                .refused();
            assert!(refused.contains(said), "{refused}");
        }
    });
}
