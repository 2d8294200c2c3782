//! What the operator may do, and what people may.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokenward::api::{ConditionType, keys};

use crate::harness::{Space, is_ready, own, reason, shared, sole_active, until};

#[test]
fn two_namespaces_with_roles_only() {
    own("roles", async |space| {
        let a = space.namespace(&format!("{}-a", space.name), json!({"labels": {"team": "alpha"}})).await;
        let b = space.namespace(&format!("{}-b", space.name), json!({})).await;
        let outside = space.within(&space.name);
        outside.declare("left-alone", json!({})).await;
        let release = space.release_for(&[&a.name, &b.name], json!({"controller": {"replicas": 1}})).await;
        let rendered =
            space.cluster.helm(&["get", "manifest", &release.name, "--namespace", &release.name]).await.ok();
        let cluster_wide = rendered.split("\n---\n").filter(|object| object.contains("\nkind: ClusterRole"));
        for object in cluster_wide {
            assert!(
                object.contains("-tokenreviews\n"),
                "Roles only, but for what is in no namespace: {object}"
            );
        }
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;

        for inside in [&a, &b] {
            inside.declare("served", json!({})).await;
            inside.holds_active(&inside.ready("served").await).await;
            let token = inside.rotate("served").await;
            inside.holds_active(&token).await;
        }
        let owner = a.get("served").await.status.unwrap().owner.unwrap();
        assert_eq!(owner.source, "Namespace label team", "a Role can read its own Namespace");
        inside_repairs(&a).await;
        assert_eq!(outside.get("left-alone").await.status, None);
        assert!(outside.secrets().get_opt("left-alone").await.unwrap().is_none());
    });
}

#[test]
fn a_namespace_that_is_closed_holds_up_no_other() {
    own("closed", async |space| {
        let closed = space.namespace(&format!("{}-closed", space.name), json!({})).await;
        let open = space.namespace(&format!("{}-open", space.name), json!({})).await;
        let release =
            space.release_for(&[&closed.name, &open.name], json!({"controller": {"replicas": 1}})).await;
        let bindings = Api::<RoleBinding>::namespaced(space.cluster.client.clone(), &closed.name);
        let name = format!("{}-controller", short(&release.name));
        bindings.delete(&name, &DeleteParams::default()).await.unwrap();
        let launch = release.launch().await;
        let account = format!("system:serviceaccount:{}:{}", launch.namespace, launch.account);
        let ask = [
            "auth",
            "can-i",
            "list",
            "apitokens.tokenward.dev",
            "--namespace",
            &closed.name,
            "--as",
            &account,
        ];
        until("it is closed", async || space.kubectl(&ask).await.stdout.starts_with("no").then_some(()))
            .await;

        let operator = space.start(&launch, "operator").await;
        open.declare("served", json!({})).await;
        open.holds_active(&open.ready("served").await).await;
        inside_repairs(&open).await;
        let (status, said) = operator.get("/readyz").await.expect("an answer");
        assert_eq!((status, said.as_str()), (503, "not synced yet: apitokens, secrets\n"));
    });
}

async fn inside_repairs(inside: &Space) {
    let before = sole_active(&inside.get("served").await).id.clone();
    inside.secrets().delete("served", &DeleteParams::default()).await.unwrap();
    inside
        .until("served", "the lost Secret was replaced", |token| {
            is_ready(token) && sole_active(token).id != before
        })
        .await;
}

/// Waits until this ServiceAccount may not write Secrets: the API server learns of a change to a role from a watch.
async fn until_forbidden(space: &Space, account: &str) {
    let ask = ["auth", "can-i", "patch", "secrets", "--as", account];
    until(&format!("{account} may not write Secrets"), async || {
        space.kubectl(&ask).await.stdout.starts_with("no").then_some(())
    })
    .await;
}

#[test]
fn forbidden_secrets_are_reported_and_waited_for() {
    own("forbidden", async |space| {
        let release = space.release_for(&[&space.name], json!({"controller": {"replicas": 1}})).await;
        let launch = release.launch().await;
        let account = format!("system:serviceaccount:{}:{}", launch.namespace, launch.account);
        let operator = space.start(&launch, "operator").await;
        operator.until_ready().await;
        space.declare("served", json!({})).await;
        let held = space.holds_active(&space.ready("served").await).await;

        // Somebody takes the right to write Secrets away, but not the right to write the status.
        let roles = Api::<Role>::namespaced(space.cluster.client.clone(), &space.name);
        let name = format!("{}-controller", short(&release.name));
        let whole = roles.get(&name).await.unwrap();
        let less: Vec<_> = whole
            .rules
            .clone()
            .unwrap()
            .into_iter()
            .map(|mut rule| {
                if rule
                    .resources
                    .as_ref()
                    .is_some_and(|resources| resources.iter().any(|one| one == "secrets"))
                {
                    rule.verbs.retain(|verb| verb != "patch");
                }
                rule
            })
            .collect();
        let patch = |rules| Patch::Merge(json!({"rules": rules}));
        roles.patch(&name, &PatchParams::default(), &patch(&less)).await.unwrap();
        until_forbidden(space, &account).await;
        space.request("served", keys::ROTATE_REQUESTED_AT).await;
        let token = space
            .until("served", "SecretForbidden", |token| {
                reason(token, ConditionType::Reconciling).as_deref() == Some("SecretForbidden")
            })
            .await;
        assert_eq!(reason(&token, ConditionType::Ready).as_deref(), Some("SecretForbidden"));
        let status = token.status.as_ref().unwrap();
        assert!(!status.is_true(ConditionType::Ready), "what is declared cannot be carried out");
        assert!(status.is_true(ConditionType::Delivered), "what was delivered stays valid");
        let message = &token.status.as_ref().unwrap().condition(ConditionType::Reconciling).unwrap().message;
        assert!(message.contains("patch") && message.contains("secrets"), "{message}");
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        roles.patch(&name, &PatchParams::default(), &patch(&whole.rules.unwrap())).await.unwrap();
        let token = space
            .until("served", "rotated after all", |token| {
                is_ready(token) && sole_active(token).id != held.id()
            })
            .await;
        let held = space.holds_active(&token).await;

        // Then everything: not even the status can say so, but the log does, and the token stays.
        let bindings = Api::<RoleBinding>::namespaced(space.cluster.client.clone(), &space.name);
        let mut binding = bindings.get(&name).await.unwrap();
        bindings.delete(&name, &DeleteParams::default()).await.unwrap();
        until_forbidden(space, &account).await;
        let lines = operator.read_log().lines().count();
        space.request("served", keys::ROTATE_REQUESTED_AT).await;
        until("the log says what is forbidden", async || {
            let log = operator.read_log();
            log.lines().skip(lines).any(|line| line.contains("forbidden")).then_some(())
        })
        .await;
        space.holds_active(&space.get("served").await).await;
        binding.metadata.resource_version = None;
        binding.metadata.uid = None;
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        let token = space
            .until("served", "rotated after all", |token| {
                is_ready(token) && sole_active(token).id != held.id()
            })
            .await;
        space.holds_active(&token).await;
        assert!(operator.is_running());
    });
}

/// The chart's own shortening of names.
fn short(release: &str) -> String {
    let name = format!("{release}-tokenward");
    name[..name.len().min(35)].trim_end_matches('-').to_owned()
}

#[test]
fn people_may_declare_and_never_write_the_status() {
    shared("people", async |space| {
        for (user, role) in [("reader", "view"), ("writer", "edit"), ("boss", "admin")] {
            space.kubectl(&["create", "rolebinding", role, "--clusterrole", role, "--user", user]).await.ok();
        }
        let may = async |user: &str, verb: &str, status: bool| {
            let mut args = vec!["auth", "can-i", verb, "apitokens.tokenward.dev", "--as", user];
            if status {
                args.push("--subresource=status");
            }
            space.kubectl(&args).await.stdout.trim() == "yes"
        };
        // The built-in roles are put together by a controller.
        for (user, verb) in [("reader", "get"), ("writer", "create"), ("boss", "deletecollection")] {
            until(&format!("{user} may {verb}"), async || may(user, verb, false).await.then_some(())).await;
        }
        for (user, verb) in [("reader", "create"), ("reader", "patch"), ("writer", "deletecollection")] {
            assert!(!may(user, verb, false).await, "{user} may {verb}");
        }
        for user in ["reader", "writer", "boss"] {
            for verb in ["update", "patch"] {
                assert!(!may(user, verb, true).await, "{user} may {verb} the status");
            }
        }
        let manifest = json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "metadata": {"name": "theirs"}, "spec": {}
        });
        let apply = ["apply", "--filename", "-", "--as", "writer"];
        space.kubectl_with(&apply, &manifest.to_string()).await.ok();
        space.ready("theirs").await;
    });
}
