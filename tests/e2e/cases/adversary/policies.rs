//! What the API server itself enforces for the operator: the chart's admission policies.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokenward::api::{ApiToken, TokenUsage, keys};

use crate::harness::{Output, Space, own, shared, until};

/// Somebody whose role allows everything about ApiTokens and TokenUsages of this namespace, their status included.
async fn status_writer(space: &Space) -> Client {
    let (client, meta) = (&space.cluster.client, json!({"name": "status-writer"}));
    let role: Role = serde_json::from_value(json!({"metadata": meta, "rules": [
        {"apiGroups": ["tokenward.dev"], "resources": ["*"], "verbs": ["*"]},
    ]}))
    .unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "status-writer"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": space.name}],
    }))
    .unwrap();
    let create = PostParams::default();
    Api::<Role>::namespaced(client.clone(), &space.name).create(&create, &role).await.unwrap();
    Api::<RoleBinding>::namespaced(client.clone(), &space.name).create(&create, &binding).await.unwrap();
    let token = until("the default ServiceAccount is there", async || {
        let made = space.kubectl(&["create", "token", "default", "--duration", "2h"]).await;
        (made.code == 0).then(|| made.stdout.trim().to_owned())
    })
    .await;
    let file = Kubeconfig::from_yaml(&space.cluster.kubeconfig_with(&token)).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    let writer = Client::try_from(config).unwrap();
    until("the status writer may read", async || {
        Api::<ApiToken>::namespaced(writer.clone(), &space.name).get_opt("none").await.ok()
    })
    .await;
    writer
}

/// The policy, not the role, refused it.
fn refused_by_policy<T: std::fmt::Debug>(result: kube::Result<T>) {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            assert!(status.message.contains("only the operator writes"), "{}", status.message);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_operator_writes_what_is_so() {
    shared("policy", async |space| {
        space.declare("victim", json!({"audiences": ["orders"]})).await;
        let token = space.ready("victim").await;
        let held = space.holds_active(&token).await;
        let writer = status_writer(space).await;
        let tokens = Api::<ApiToken>::namespaced(writer.clone(), &space.name);
        let usages = Api::<TokenUsage>::namespaced(writer, &space.name);
        let params = PatchParams::default();

        // A digest of their own, a wiped status, a status in place of another: each in every way to write one.
        let forged = json!({"status": {"credentials": [{
            "id": "aaaaaaaaaa", "digest": format!("sha256:{}", "0".repeat(64)), "state": "Active",
            "issuedAt": "2026-01-01T00:00:00Z",
        }]}});
        refused_by_policy(tokens.patch_status("victim", &params, &Patch::Merge(&forged)).await);
        refused_by_policy(
            tokens.patch_status("victim", &params, &Patch::Merge(json!({"status": null}))).await,
        );
        let replaced = ApiToken { status: None, ..tokens.get("victim").await.unwrap() };
        refused_by_policy(tokens.replace_status("victim", &PostParams::default(), &replaced).await);
        let applied =
            json!({"apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "status": forged["status"]});
        let apply = PatchParams::apply("mallory").force();
        refused_by_policy(tokens.patch_status("victim", &apply, &Patch::Apply(&applied)).await);
        // A status that comes with the object is dropped, as it always was.
        let born = json!({"apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
            "metadata": {"name": "born"}, "spec": {}, "status": forged["status"]});
        let born =
            tokens.create(&PostParams::default(), &serde_json::from_value(born).unwrap()).await.unwrap();
        assert_eq!(born.status, None);

        // Nor what gates are said to have counted.
        let usage: TokenUsage = serde_json::from_value(json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "TokenUsage", "metadata": {"name": "invented"}, "spec": {},
        }))
        .unwrap();
        refused_by_policy(usages.create(&PostParams::default(), &usage).await);

        // What is the user's stays theirs, and the operator works on under the policy.
        let suspend = |on: bool| Patch::Merge(json!({"spec": {"suspend": on}}));
        tokens.patch("victim", &params, &suspend(true)).await.unwrap();
        space.until_stalled("victim", "Suspended").await;
        tokens.patch("victim", &params, &suspend(false)).await.unwrap();
        let token = space.ready("victim").await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        let token = space.rotate("victim").await;
        space.holds_active(&token).await;
    });
}

#[test]
fn a_release_of_some_namespaces_forbids_no_other_operator() {
    own("policies", async |space| {
        let one = space.namespace(&format!("{}-one", space.name), json!({})).await;
        let two = space.namespace(&format!("{}-two", space.name), json!({})).await;
        let policies = json!({"controller": {"replicas": 1}, "admissionPolicies": {"enabled": true}});
        for inside in [&one, &two] {
            let release = inside.release_for(&[&inside.name], policies.clone()).await;
            space.owns(&release.name);
            let operator = space.start(&release.launch().await, &format!("{}-0", release.name)).await;
            operator.until_ready().await;
        }
        // Each works in its own namespace, and the other's policy does not concern it.
        for inside in [&one, &two] {
            inside.declare("served", json!({})).await;
            inside.holds_active(&inside.ready("served").await).await;
            let writer = Api::<ApiToken>::namespaced(status_writer(inside).await, &inside.name);
            let said = Patch::Merge(json!({"status": {"health": "Healthy"}}));
            // A policy comes into force a moment after it was created.
            until("the policy is in force", async || {
                writer.patch_status("served", &PatchParams::default(), &said).await.err()
            })
            .await;
            refused_by_policy(writer.patch_status("served", &PatchParams::default(), &said).await);
        }
        // Where neither is at work, neither says anything.
        let outside = space.within(&space.name);
        outside.declare("elsewhere", json!({})).await;
        let writer = Api::<ApiToken>::namespaced(status_writer(&outside).await, &outside.name);
        let said = Patch::Merge(json!({"status": {"health": "Healthy"}}));
        writer.patch_status("elsewhere", &PatchParams::default(), &said).await.unwrap();
        for inside in [&one, &two] {
            let name = format!("{}-op", inside.name);
            space.cluster.helm(&["uninstall", &name, "--namespace", &name, "--wait"]).await.ok();
        }
    });
}

async fn annotate(space: &Space, pair: &str) -> Output {
    space.kubectl(&["annotate", "apitoken", "asked", "--overwrite", pair]).await
}

#[test]
fn requests_that_ask_for_nothing_are_warned_of() {
    shared("warned", async |space| {
        space.declare("asked", json!({})).await;
        space.ready("asked").await;
        let warned = async |pair: &str, said: &str| {
            let output = annotate(space, pair).await;
            assert!(output.code == 0 && output.stderr.contains(said), "{pair}: {}", output.stderr);
        };
        warned("tokenward.dev/rotate=now", "annotation tokenward.dev/rotate asks for nothing").await;
        warned("tokenward.dev/rotate-", "").await;
        warned(
            "tokenward.dev/compromised-at=",
            "tokenward.dev/compromised-at asks for nothing while it is empty",
        )
        .await;
        warned("tokenward.dev/compromised-at-", "").await;

        let pair = |value: &str| format!("{}={value}", keys::ROTATE_REQUESTED_AT);
        let silent = annotate(space, &pair("one")).await;
        assert!(silent.code == 0 && silent.stderr.is_empty(), "{}", silent.stderr);
        until("the request is honoured", async || {
            let handled = space.get("asked").await.status?.last_handled?;
            (handled.rotate_requested_at.as_deref() == Some("one")).then_some(())
        })
        .await;
        warned(&pair("one"), "this value was honoured already").await;
        // A change of something else is no request.
        let patch = json!({"spec": {"description": "d"}}).to_string();
        let other = space.kubectl(&["patch", "apitoken", "asked", "--type=merge", "--patch", &patch]).await;
        assert!(other.code == 0 && other.stderr.is_empty(), "{}", other.stderr);
        let label = space.kubectl(&["label", "apitoken", "asked", &pair("two")]).await;
        assert!(label.stderr.contains("requests are annotations"), "{}", label.stderr);
    });
}

#[test]
fn a_token_without_an_audience_is_warned_of_once() {
    shared("no-audience", async |space| {
        let said = async |spec: serde_json::Value| {
            let object = json!({
                "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
                "metadata": {"name": "nobody", "namespace": space.name}, "spec": spec,
            });
            let file = space.cluster.dir.join("nobody.json");
            std::fs::write(&file, object.to_string()).unwrap();
            let output =
                space.kubectl(&["apply", "--server-side", "--filename", &file.display().to_string()]).await;
            assert_eq!(output.code, 0, "{}", output.stderr);
            output.stderr
        };
        let nobody = "spec.audiences is empty";
        assert!(said(json!({})).await.contains(nobody));
        assert!(!said(json!({"description": "d"})).await.contains(nobody), "once is enough");
        assert!(!said(json!({"audiences": ["orders"]})).await.contains(nobody));
        assert!(said(json!({"description": "d"})).await.contains(nobody));
    });
}

#[test]
fn labels_and_annotations_have_a_measure() {
    shared("measure", async |space| {
        let declared = async |labels: usize, annotation: usize| {
            let labels: serde_json::Map<_, _> =
                (0..labels).map(|number| (format!("l{number}"), json!("x"))).collect();
            let object = json!({
                "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "spec": {},
                "metadata": {"name": "large", "namespace": space.name, "labels": labels,
                             "annotations": {"note": "x".repeat(annotation)}},
            });
            let file = space.cluster.dir.join("large.json");
            std::fs::write(&file, object.to_string()).unwrap();
            space.kubectl(&["apply", "--server-side", "--filename", &file.display().to_string()]).await
        };
        let refused = declared(65, 0).await;
        assert!(
            refused.stderr.contains("may have 64 labels and 64 annotations, and this one has 65 and 1"),
            "{}",
            refused.stderr
        );
        let refused = declared(1, 131_073).await;
        assert!(refused.stderr.contains("may have 128 Ki characters together"), "{}", refused.stderr);
        let taken = declared(64, 131_072).await;
        assert_eq!(taken.code, 0, "{}", taken.stderr);
        // What finalizers keep can be let go, whatever else is in it.
        assert_eq!(space.kubectl(&["delete", "apitoken", "large"]).await.code, 0);
    });
}

/// What the policy takes for a request is what the operator takes for one.
#[test]
fn the_policy_knows_the_requests_of_the_operator() {
    let helpers = std::fs::read_to_string("charts/tokenward/templates/_helpers.tpl").unwrap();
    let listed = |name: &str| -> Vec<String> {
        let begin = helpers.find(&format!("define \"tokenward.{name}\"")).unwrap();
        serde_json::from_str(helpers[begin..].lines().nth(1).unwrap()).unwrap()
    };
    assert_eq!(listed("requests"), keys::REQUESTS);
    assert_eq!(listed("annotations"), [keys::ADOPT, keys::OWNER, keys::CONTACT, keys::SCHEMA]);
    let policy = std::fs::read_to_string("charts/tokenward/templates/admissionpolicies.yaml").unwrap();
    for key in keys::REQUESTS {
        assert!(policy.contains(&format!("'{key}'")), "{key}");
    }
}
