//! Upgrades, removal and return of the chart: credentials outlive them all.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use serde_json::json;

use crate::harness::{Operator, Release, Signal, Space, crd_dir, exclusive, is_ready, until};

/// The chart as it was with the first definition that this project ever had.
pub fn previous_chart(at: &Path) -> String {
    let chart = at.join("previous");
    if chart.exists() {
        std::fs::remove_dir_all(&chart).unwrap();
    }
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/tokenward")), &chart);
    for definition in std::fs::read_dir(chart.join("crd")).unwrap() {
        std::fs::remove_file(definition.unwrap().path()).unwrap();
    }
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/crd-previous.yaml");
    std::fs::copy(fixture, chart.join("crd/tokenward.dev_apitokens.yaml")).unwrap();
    chart.to_str().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() { copy(&entry, &target) } else { std::fs::copy(&entry, &target).map(drop).unwrap() }
    }
}

async fn end(operator: &Operator) {
    operator.signal(Signal::Term).await;
    assert_eq!(operator.ended().await.code(), Some(0));
}

/// Declares some tokens of different shapes and returns their values.
async fn some_tokens(space: &Space) -> Vec<(String, String)> {
    let specs = [
        ("plain", json!({})),
        (
            "shaped",
            json!({"secret": {"key": "k", "labels": {"tier": "gold"}, "template": {"h": "{{ token }}"}}}),
        ),
        (
            "rhythm",
            json!({"scopes": ["a:b"], "rotation": {"every": "720h", "overlap": "24h"}, "expiry": {"after": "8760h"}}),
        ),
    ];
    let mut values = Vec::new();
    for (name, spec) in specs {
        space.declare(name, spec).await;
        let token = space.ready(name).await;
        values.push((name.to_owned(), space.holds_active(&token).await.expose().to_owned()));
    }
    values
}

async fn unchanged(space: &Space, values: &[(String, String)]) {
    for (name, value) in values {
        let token = space.until(name, "Ready", is_ready).await;
        assert_eq!(space.holds_active(&token).await.expose(), value, "{name} has another credential");
        assert_eq!(token.status.unwrap().credentials.len(), 1, "{name}");
    }
}

#[test]
fn an_upgrade_from_the_previous_definition_keeps_everything() {
    exclusive("crdupgrade", async |space| {
        let cluster = space.cluster;
        let release = Release { cluster, name: "upgraded".to_owned() };
        space.owns("upgraded");
        let values = json!({"controller": {"replicas": 1}});
        release.upgrade(&previous_chart(&cluster.dir), &values).await.ok();
        cluster.apply_established().await;
        let before = definition(space).await;
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;
        let tokens = some_tokens(space).await;

        Release::install(cluster, "upgraded", values).await;
        let after = definition(space).await;
        assert_eq!(after.metadata.uid, before.metadata.uid, "the definition was upgraded in place");
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(crd_dir()).join("tokenward.dev_apitokens.yaml"),
        );
        let wanted: CustomResourceDefinition = serde_saphyr::from_str(&text.unwrap()).unwrap();
        assert_eq!(
            json!(after.spec.versions),
            json!(wanted.spec.versions),
            "the cluster has the chart's definition"
        );
        unchanged(space, &tokens).await;

        // The running operator goes on, and so does its successor.
        let token = space.rotate("plain").await;
        space.holds_active(&token).await;
        end(&operator).await;
        let successor = space.start(&release.launch().await, "operator-2").await;
        successor.until_ready().await;
        successor.until_leading().await;
        unchanged(space, &tokens[1..]).await;
        let token = space.rotate("rhythm").await;
        space.holds_active(&token).await;
        cluster.helm(&["uninstall", "upgraded", "--namespace", "upgraded", "--wait"]).await.ok();
    });
}

async fn definition(space: &Space) -> CustomResourceDefinition {
    let definitions = Api::<CustomResourceDefinition>::all(space.cluster.client.clone());
    definitions.get("apitokens.tokenward.dev").await.unwrap()
}

#[test]
fn an_upgrade_with_other_values_keeps_the_credentials() {
    exclusive("helmupgrade", async |space| {
        let release =
            Release::install(space.cluster, "changed", json!({"controller": {"replicas": 1}})).await;
        space.owns("changed");
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;
        let tokens = some_tokens(space).await;
        end(&operator).await;

        let values = json!({
            "tokenPrefix": "acme_live",
            "ownership": {"defaultOwner": "platform", "defaultContact": "#platform"},
            "metrics": {"labels": ["team"]},
            "log": {"format": "text", "level": "debug"},
            "controller": {"replicas": 3, "leaderElection": {"leaseDuration": "20s"}},
        });
        let release = Release::install(space.cluster, "changed", values).await;
        let launch = release.launch().await;
        assert_eq!(launch.replicas, 3);
        let operator = space.start(&launch, "operator-2").await;
        operator.until_ready().await;
        let token = space
            .until("plain", "the default owner is known", |token| {
                is_ready(token) && token.status.as_ref().is_some_and(|status| status.owner.is_some())
            })
            .await;
        assert_eq!(token.status.unwrap().owner.unwrap().source, "installation default");
        unchanged(space, &tokens).await;
        // Tokens take the new prefix when they rotate, not before.
        let token = space.rotate("plain").await;
        assert!(space.holds_active(&token).await.expose().starts_with("acme_live_"));
        unchanged(space, &tokens[1..]).await;
        release.uninstall().await;
    });
}

#[test]
fn uninstalled_and_installed_again_the_tokens_are_still_there() {
    exclusive("reinstall", async |space| {
        let values = json!({"controller": {"replicas": 1}});
        let release = Release::install(space.cluster, "again", values.clone()).await;
        space.owns("again");
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;
        let tokens = some_tokens(space).await;
        end(&operator).await;

        let before = definition(space).await.metadata.uid;
        release.uninstall().await;
        assert_eq!(definition(space).await.metadata.uid, before, "the definition stays");
        unchanged(space, &tokens).await;
        let left = space.cluster.kubectl(
            &[
                "get",
                "clusterroles,clusterrolebindings,deployments,serviceaccounts",
                "--all-namespaces",
                "--selector",
                "app.kubernetes.io/instance=again",
                "--output",
                "name",
            ],
            "",
        );
        assert_eq!(left.await.ok(), "", "the rest is gone");

        let release = Release::install(space.cluster, "again", values).await;
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;
        operator.until_leading().await;
        // Another token proves that it works; by then it has looked at the others, too.
        space.declare("new", json!({})).await;
        space.holds_active(&space.ready("new").await).await;
        unchanged(space, &tokens).await;
        // It counts at the API server's answer, which a watch may be ahead of.
        let scrape = until("the new token was counted", async || {
            let scrape = operator.scrape().await;
            (scrape.sum("tokenward_rotations_total", &[]) >= 1.0).then_some(scrape)
        })
        .await;
        assert_eq!(
            scrape.sum("tokenward_rotations_total", &[]),
            1.0,
            "only the new token was issued:\n{}",
            scrape.text
        );
        release.uninstall().await;
    });
}
