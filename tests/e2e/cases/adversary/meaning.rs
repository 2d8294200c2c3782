//! Secrets by which somebody else would act: the operator writes with its own rights, so it must not write them.

use serde_json::{Value, json};

use crate::cases::upgrade::previous_chart;
use crate::harness::{Release, Space, Tenant, exclusive, shared};

/// A Helm release as an administrator's `helm rollback` would obey it, but for its content.
fn helm_release() -> Value {
    json!({
        "name": "sh.helm.release.v1.shop.v2", "type": "helm.sh/release.v1",
        "labels": {"owner": "helm", "name": "shop", "status": "superseded", "version": "2"},
        "template": {"release": "{{ token }}"},
    })
}

/// Names of ApiTokens, what they ask of their Secrets, and what the refusal has to name.
fn hostile() -> Vec<(&'static str, Value, &'static str)> {
    let label = |key: &str, value: &str| json!({"labels": {key: value}});
    let annotation = |key: &str, value: &str| json!({"annotations": {key: value}});
    vec![
        ("helm", helm_release(), "helm.sh"),
        ("helm-type", json!({"type": "helm.sh/release.v1"}), "type"),
        // Helm reads a release by its name alone, whatever its type and labels say.
        ("helm-name", json!({"name": "sh.helm.release.v1.shop.v3", "template": {"release": "x"}}), "name"),
        ("helm-owner", label("owner", "helm"), "owner"),
        ("helm-shouts", label("OWNER", "HELM"), "OWNER"),
        ("terraform", json!({"name": "tfstate-default-prod", "template": {"tfstate": "x"}}), "name"),
        ("cluster-api", json!({"name": "prod-kubeconfig", "template": {"value": "x"}}), "name"),
        ("account", json!({"type": "kubernetes.io/service-account-token"}), "type"),
        ("bootstrap", json!({"type": "bootstrap.kubernetes.io/token"}), "type"),
        ("tls", json!({"type": "kubernetes.io/tls"}), "type"),
        ("argocd", label("argocd.argoproj.io/secret-type", "cluster"), "argocd.argoproj.io/secret-type"),
        (
            "sealed",
            label("sealedsecrets.bitnami.com/sealed-secrets-key", "active"),
            "sealedsecrets.bitnami.com/sealed-secrets-key",
        ),
        ("istio", label("istio/multiCluster", "true"), "istio/multiCluster"),
        ("capi", label("cluster.x-k8s.io/cluster-name", "prod"), "cluster.x-k8s.io/cluster-name"),
        ("grafana", label("grafana_datasource", "1"), "grafana_datasource"),
        ("eck", label("common.k8s.elastic.co/type", "user"), "common.k8s.elastic.co/type"),
        (
            "replicator",
            annotation("replicator.v1.mittwald.de/replicate-to", "*"),
            "replicator.v1.mittwald.de/replicate-to",
        ),
        (
            "reflector",
            annotation("reflector.v1.k8s.emberstack.com/reflection-auto-enabled", "true"),
            "reflector.v1.k8s.emberstack.com/reflection-auto-enabled",
        ),
        (
            "injector",
            annotation("cert-manager.io/allow-direct-injection", "true"),
            "cert-manager.io/allow-direct-injection",
        ),
    ]
}

fn secret_of<'a>(name: &'a str, secret: &'a Value) -> &'a str {
    secret["name"].as_str().unwrap_or(name)
}

#[test]
fn the_api_server_refuses_secrets_that_others_obey() {
    shared("meaning", async |space| {
        let tenant = space.tenant().await;
        for (name, secret, named) in hostile() {
            match tenant.declare(name, json!({}), json!({"secret": secret.clone()})).await {
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    assert!(status.message.contains(named), "{name}: {}", status.message);
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        // Nor can an ApiToken that is there already be changed into one.
        tenant.declare("innocent", json!({}), json!({})).await.unwrap();
        space.ready("innocent").await;
        let patch = json!({"spec": {"secret": {"labels": {"owner": "helm"}}}}).to_string();
        let refused = space
            .kubectl(&["patch", "apitoken", "innocent", "--type=merge", "--patch", &patch])
            .await
            .refused();
        assert!(refused.contains("label owner gives the Secret a meaning to others"), "{refused}");
        nothing_but(space, &tenant, &["innocent"]).await;
    });
}

/// The Secrets of these names exist, and no others.
async fn nothing_but(space: &Space, tenant: &Tenant, names: &[&str]) {
    let secrets = tenant.secrets().list(&Default::default()).await.unwrap();
    let found: Vec<_> = secrets.items.into_iter().filter_map(|secret| secret.metadata.name).collect();
    assert_eq!(found, names, "in {}", space.name);
}

#[test]
fn the_operator_refuses_what_is_older_than_the_rules_and_writes_what_is_allowed() {
    exclusive("oldmeaning", async |space| {
        let cluster = space.cluster;
        let release = Release { cluster, name: "meaning".to_owned() };
        space.owns("meaning");
        let values = |keys: Value| json!({"controller": {"replicas": 1}, "secrets": {"keys": keys}});
        release.upgrade(&previous_chart(&cluster.dir), &values(json!([]))).await.ok();
        cluster.apply_established().await;
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;
        let tenant = space.tenant().await;
        for (name, secret, _) in hostile() {
            tenant.declare(name, json!({}), json!({"secret": secret})).await.unwrap();
        }
        for (name, secret, _) in hostile() {
            let message = space.until_stalled(name, "SecretNotAllowed").await;
            assert!(message.contains("spec.secret."), "{name}: {message}");
            let token = space.get(name).await;
            assert!(token.status.unwrap().credentials.is_empty(), "{name}: nothing was minted");
            let written = tenant.secrets().get_opt(secret_of(name, &secret)).await.unwrap();
            assert!(written.is_none(), "{name}: written");
        }
        nothing_but(space, &tenant, &[]).await;

        // The new definition does not keep the operator from saying what is so about old objects.
        Release::install(cluster, "meaning", values(json!(["argocd.argoproj.io/secret-type"]))).await;
        for name in ["argocd", "helm", "helm-name"] {
            space.patch(name, json!({"spec": {"suspend": true}})).await;
            space.until_stalled(name, "Suspended").await;
        }
        // What whoever runs the operator allows is taken by the definition, and written.
        operator.kill().await;
        let allowing = space.start(&release.launch().await, "allowing").await;
        allowing.until_ready().await;
        space.patch("argocd", json!({"spec": {"suspend": false}})).await;
        space.ready("argocd").await;
        let label = json!({"secret": {"labels": {"argocd.argoproj.io/secret-type": "repository"}}});
        tenant.declare("allowed", json!({}), label).await.unwrap();
        space.ready("allowed").await;
        nothing_but(space, &tenant, &["allowed", "argocd"]).await;
        cluster.helm(&["uninstall", "meaning", "--namespace", "meaning", "--wait"]).await.ok();
    });
}
