//! Secrets that nobody controls any more: after a restore by object, and after a deletion that orphans.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use serde_json::{Value, json};
use tokenward::api::{ApiToken, keys};

use crate::harness::{Operator, Space, command, own, request, shared, until};

/// What an object keeps that a backup by object brings back.
fn kept(metadata: &ObjectMeta) -> ObjectMeta {
    let ObjectMeta { name, labels, annotations, .. } = metadata.clone();
    ObjectMeta { name, labels, annotations, ..ObjectMeta::default() }
}

async fn accepted(gate: &Operator, token: &str) -> bool {
    let value = format!("Bearer {token}");
    let headers: [(&str, &[u8]); 1] = [("Authorization", value.as_bytes())];
    request(gate.port("http"), "GET", "/authz/nginx", &headers, b"")
        .await
        .is_some_and(|answer| answer.status == 200)
}

/// The command of the documentation that annotates every ApiToken, for one namespace.
fn documented(namespace: &str) -> String {
    let text = std::fs::read_to_string("docs/operations.md").unwrap();
    let (_, section) = text.split_once("### Restore from a backup").expect("the section is there");
    let lines = section.lines().skip_while(|line| !line.starts_with("    kubectl get secrets"));
    let lines: Vec<_> = lines.take_while(|line| line.starts_with("    ")).map(str::trim_start).collect();
    let command = lines.join("\n");
    assert!(command.contains("--all-namespaces"), "{command}");
    command.replace("--all-namespaces", &format!("--namespace {namespace}"))
}

async fn shell(space: &Space, script: &str) -> String {
    let tools = std::env::current_dir().unwrap().join(".tools/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let envs = [("KUBECONFIG", space.cluster.kubeconfig.to_str().unwrap()), ("PATH", path.as_str())];
    let script = format!("set -o pipefail; {script}");
    command(&PathBuf::from("/bin/bash"), &["-c", &script], &envs, "").await.ok()
}

#[test]
fn a_backup_without_status_and_owners_is_restored_with_every_token() {
    own("restore", async |space| {
        let release = space.release_for(&[&space.name], json!({"controller": {"replicas": 1}})).await;
        let launch = release.launch().await;
        let first = space.start(&launch, "first").await;
        first.until_ready().await;
        let specs: [(&str, Value); 3] = [
            ("plain", json!({"scopes": ["read"]})),
            (
                "shaped",
                json!({"secret": {"name": "other", "key": "pass", "template": {"url": "x:{{ token }}"}}}),
            ),
            ("turning", json!({"rotation": {"every": "720h", "overlap": "1h"}})),
        ];
        let mut tokens = Vec::new();
        for (name, spec) in specs {
            space.declare(name, spec).await;
            tokens.push((name, space.holds_active(&space.ready(name).await).await));
        }
        first.kill().await;

        // The backup, and an empty cluster.
        let mut apitokens: Vec<ApiToken> = space.tokens().list(&ListParams::default()).await.unwrap().items;
        let ours = ListParams::default().labels(&format!("{}={}", keys::MANAGED_BY, keys::FIELD_MANAGER));
        let mut secrets: Vec<Secret> = space.secrets().list(&ours).await.unwrap().items;
        assert_eq!((apitokens.len(), secrets.len()), (3, 3));
        space.tokens().delete_collection(&DeleteParams::background(), &ListParams::default()).await.unwrap();
        until("the cluster is empty", async || {
            let tokens = space.tokens().list(&ListParams::default()).await.unwrap().items;
            let secrets = space.secrets().list(&ours).await.unwrap().items;
            (tokens.is_empty() && secrets.is_empty()).then_some(())
        })
        .await;

        // Restored.
        for secret in &mut secrets {
            secret.metadata = kept(&secret.metadata);
            space.secrets().create(&PostParams::default(), secret).await.unwrap();
        }
        for token in &mut apitokens {
            (token.metadata, token.status) = (kept(&token.metadata), None);
            space.tokens().create(&PostParams::default(), token).await.unwrap();
        }
        let second = space.start(&launch, "second").await;
        second.until_ready().await;
        let gate = space.start(&release.launch_gate().await, "gate").await;
        gate.until_ready().await;
        for (name, token) in &tokens {
            let message = space.until_stalled(name, "SecretConflict").await;
            let secret = space.secret(space.get(name).await.secret_name()).await.metadata.uid.unwrap();
            let wanted = format!("--overwrite apitoken {name} {}={secret}", keys::ADOPT);
            assert!(message.contains(&wanted), "{message}");
            assert!(!accepted(&gate, token.expose()).await, "{name}: not before somebody says so");
        }
        shell(space, &documented(&space.name)).await;
        for (name, token) in &tokens {
            let restored = space.ready(name).await;
            assert_eq!(space.holds_active(&restored).await.expose(), token.expose(), "{name}");
            until("the gate accepts it", async || accepted(&gate, token.expose()).await.then_some(())).await;
            space.event(name, "Adopted").await;
        }
        let scrape = second.scrape().await;
        assert_eq!(scrape.sum("tokenward_rotations_total", &[("reason", "Adopted")]), 3.0);
        assert_eq!(scrape.sum("tokenward_rotations_total", &[]), 3.0, "none was minted");
    });
}

#[test]
fn what_was_deleted_without_its_secret_goes_on_with_the_same_token() {
    shared("takeover", async |space| {
        space.declare("orphan", json!({})).await;
        let held = space.holds_active(&space.ready("orphan").await).await;
        space.kubectl(&["delete", "apitoken", "orphan", "--cascade=orphan", "--timeout=120s"]).await.ok();
        until("nobody owns the Secret", async || {
            space.secret("orphan").await.metadata.owner_references.is_none().then_some(())
        })
        .await;
        space.declare("orphan", json!({})).await;
        let message = space.until_stalled("orphan", "SecretConflict").await;
        // Exactly as it is written there.
        let command = message.split_once("kubectl ").and_then(|(_, rest)| rest.split_once(". Otherwise"));
        let (command, _) = command.unwrap_or_else(|| panic!("no command: {message}"));
        shell(space, &format!("kubectl {command}")).await;
        let token = space.ready("orphan").await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        let handled = token.status.unwrap().last_handled.unwrap().adopt;
        assert_eq!(handled, space.secret("orphan").await.metadata.uid);
    });
}
