//! A MutatingAdmissionPolicy of the real API server changes Secrets as they are written: what stands is told, and no Secret
//! gets out of sight.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};
use tokenward::api::{ApiToken, ConditionType, keys};

use crate::harness::{Space, is_ready, reason, shared, until};

/// How long a Secret that no watch shows may be gone before that is noticed.
const A_LOOK: std::time::Duration = std::time::Duration::from_secs(75);

/// A policy that patches every Secret of one namespace as it is written; removed when the case is over.
struct Policy<'a> {
    space: &'a Space,
    name: String,
}

fn api(space: &Space, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let plural = match kind.kind.as_str() {
        "MutatingAdmissionPolicy" => "mutatingadmissionpolicies",
        _ => "mutatingadmissionpolicybindings",
    };
    Api::all_with(space.cluster.client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural))
}

impl<'a> Policy<'a> {
    /// `patch` is a list of JSONPatch operations in CEL.
    async fn install(space: &'a Space, patch: &str) -> Self {
        let name = format!("mutate-{}", space.name);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"],
                    "operations": ["CREATE", "UPDATE"],
                }]},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "matchResources": {"namespaceSelector": {"matchLabels": {
                    "kubernetes.io/metadata.name": space.name,
                }}},
            },
        });
        for (kind, object) in
            [("MutatingAdmissionPolicy", policy), ("MutatingAdmissionPolicyBinding", binding)]
        {
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            api(space, kind).create(&PostParams::default(), &object).await.unwrap();
        }
        let policy = Self { space, name };
        policy.until_felt(true).await;
        policy
    }

    /// The API server learns of a policy, and of its end, from a watch of its own.
    async fn until_felt(&self, wanted: bool) {
        until(&format!("the policy is felt: {wanted}"), async || {
            let probe = json!({
                "metadata": {"name": "probe", "labels": {keys::MANAGED_BY: "probe", keys::TOKEN: "probe"}},
                "stringData": {"token": "probe", "env": "probe"},
            });
            let secrets = self.space.secrets();
            let sent: Secret = serde_json::from_value(probe).unwrap();
            let made = secrets.create(&PostParams::default(), &sent).await.unwrap();
            let felt = made.metadata.labels != sent.metadata.labels
                || made.data.unwrap().values().any(|value| value.0 != b"probe");
            secrets.delete("probe", &DeleteParams::default()).await.unwrap();
            (felt == wanted).then_some(())
        })
        .await;
    }

    async fn remove(self) {
        for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
            api(self.space, kind).delete(&self.name, &DeleteParams::default()).await.unwrap();
        }
        self.until_felt(false).await;
    }
}

fn mutated(token: &ApiToken) -> Option<String> {
    reason(token, ConditionType::SecretMutated)
}

fn message(token: &ApiToken) -> String {
    let status = token.status.as_ref().unwrap();
    status.condition(ConditionType::SecretMutated).map(|said| said.message.clone()).unwrap_or_default()
}

async fn version(space: &Space, name: &str) -> Option<String> {
    space.secret(name).await.metadata.resource_version
}

const RELABEL: &str = r#"[JSONPatch{op: "replace", path: "/metadata/labels/app.kubernetes.io~1managed-by", value: "platform"}]"#;
const HIDE: &str = r#"[JSONPatch{op: "remove", path: "/metadata/labels/tokenward.dev~1token"}]"#;
const SPOIL: &str = r#"[JSONPatch{op: "replace", path: "/data/token", value: "c2VhbGVk"}]"#;
const SPOIL_ENV: &str =
    r#"has(object.data.env) ? [JSONPatch{op: "replace", path: "/data/env", value: "c2VhbGVk"}] : []"#;

fn issued_for(wanted: &'static str) -> impl Fn(&ApiToken) -> bool {
    move |token| {
        let status = token.status.as_ref();
        is_ready(token) && status.is_some_and(|status| status.last_rotation_reason.as_deref() == Some(wanted))
    }
}

#[test]
fn labels_that_a_policy_changes_are_named_and_the_secret_stays_in_sight() {
    shared("relabel", async |space| {
        let policy = Policy::install(space, RELABEL).await;
        space.declare("shown", json!({})).await;
        let token = space.until("shown", "told", |token| is_ready(token) && mutated(token).is_some()).await;
        assert_eq!(mutated(&token).as_deref(), Some("MetadataMutated"));
        let part =
            "metadata.labels[app.kubernetes.io/managed-by] is changed from \"tokenward\" to \"platform\"";
        assert!(message(&token).contains(part), "{}", message(&token));
        space.event("shown", "MetadataMutated").await;
        let stands = version(space, "shown").await;
        let old = space.holds_active(&token).await;
        // A user with few rights sees the Secret and may delete it.
        let tenant = space.tenant().await;
        assert_eq!(version(space, "shown").await, stands, "nothing writes it again");
        let gone = std::time::Instant::now();
        tenant.secrets().delete("shown", &DeleteParams::default()).await.unwrap();
        let token = space.until("shown", "issued anew", issued_for("SecretLost")).await;
        println!("relabelled: a deletion was noticed after {:.1} s", gone.elapsed().as_secs_f64());
        assert_ne!(space.holds_active(&token).await.expose(), old.expose());
        assert_eq!(mutated(&token).as_deref(), Some("MetadataMutated"));
        policy.remove().await;
    });
}

#[test]
fn a_secret_without_our_label_is_read_instead() {
    shared("hidden", async |space| {
        let policy = Policy::install(space, HIDE).await;
        space.declare("hidden", json!({})).await;
        let token = space.until("hidden", "told", |token| is_ready(token) && mutated(token).is_some()).await;
        let message = message(&token);
        let part = "metadata.labels[tokenward.dev/token] is removed; no watch shows it";
        assert!(message.contains(part), "{message}");
        let old = space.holds_active(&token).await;
        let gone = std::time::Instant::now();
        space.secrets().delete("hidden", &DeleteParams::default()).await.unwrap();
        let noticed = async {
            loop {
                let token = space.get("hidden").await;
                if issued_for("SecretLost")(&token) {
                    break token;
                }
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        };
        let token = tokio::time::timeout(A_LOOK * 2, noticed).await.expect("noticed");
        println!("hidden: a deletion was noticed after {:.1} s", gone.elapsed().as_secs_f64());
        assert!(gone.elapsed() < A_LOOK, "{:?}", gone.elapsed());
        assert_ne!(space.holds_active(&token).await.expose(), old.expose());
        policy.remove().await;
    });
}

#[test]
fn a_token_that_a_policy_alters_is_not_called_delivered() {
    shared("spoilt", async |space| {
        let policy = Policy::install(space, SPOIL).await;
        space.declare("spoilt", json!({})).await;
        let token = space.until_reason("spoilt", "DataMutated").await;
        assert!(
            !is_ready(&token) && message(&token).contains("data[token] is altered"),
            "{}",
            message(&token)
        );
        assert!(!message(&token).contains("sealed") && !message(&token).contains("c2VhbGVk"));
        space.event("spoilt", "DataMutated").await;
        policy.remove().await;
        // Whoever changes the ApiToken need not wait for the next attempt.
        space.patch("spoilt", json!({"spec": {"description": "again"}})).await;
        let token =
            space.until("spoilt", "delivered", |token| is_ready(token) && mutated(token).is_none()).await;
        space.holds_active(&token).await;
        assert_eq!(token.status.unwrap().ended.len(), 0, "one credential for all attempts");
    });
}

#[test]
fn another_key_that_a_policy_alters_is_named() {
    shared("env", async |space| {
        let policy = Policy::install(space, SPOIL_ENV).await;
        let spec: Value = json!({"secret": {"template": {"env": "TOKEN={{ token }}"}}});
        space.declare("env", spec).await;
        let told = space.until_stalled("env", "DataMutated").await;
        assert!(told.contains("data[env] is altered") && !told.contains("TOKEN="), "{told}");
        space.holds_active(&space.get("env").await).await;
        policy.remove().await;
    });
}
