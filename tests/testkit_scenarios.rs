//! The in-process API server against the recorded behaviour of the real one, and the record against the real one.
//!
//! - `TOKENWARD_KUBECONFIG=F cargo test --test testkit_scenarios` also runs every scenario against the cluster of that
//!   kubeconfig and compares. It needs an API server with a controller-manager, and leaves nothing but a CRD behind.
//! - With `TOKENWARD_RECORD=1` as well, `tests/scenarios/*.trace` is written anew from that cluster.

// Helpers of tests stop the test where they stand, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use kube::Client;
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokenward::testkit::apiserver::ApiServer;
use tokenward::testkit::clock::VirtualClock;
use tokenward::testkit::scenarios::{self, Trace};

type Traces = BTreeMap<&'static str, Trace>;

fn record(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(format!("{name}.trace"))
}

async fn in_process() -> Traces {
    let mut traces = Traces::new();
    for scenario in scenarios::all() {
        let clock = Arc::new(VirtualClock::default());
        let server = ApiServer::builder(clock).resource(scenarios::widgets()).build();
        let namespace = format!("scenario-{}", scenario.name.replace('_', "-"));
        server.create_namespace(&namespace);
        let trace = (scenario.run)(server.client("scenario"), namespace).await;
        traces.insert(scenario.name, trace.unwrap_or_else(|e| panic!("{}: {e}", scenario.name)));
    }
    traces
}

/// Lines that differ, in full.
fn differences(name: &str, want: &Trace, have: &Trace) -> String {
    let mut out = String::new();
    for i in 0..want.len().max(have.len()) {
        let line = |trace: &Trace| trace.get(i).cloned().unwrap_or_else(|| "(nothing)".into());
        if line(want) != line(have) {
            out += &format!(
                "{name}, step {}:\n  real        {}\n  in-process  {}\n",
                i + 1,
                line(want),
                line(have)
            );
        }
    }
    out
}

#[tokio::test(start_paused = true)]
async fn the_in_process_server_behaves_as_recorded() {
    let mut wrong = String::new();
    for (name, have) in in_process().await {
        let recorded = std::fs::read_to_string(record(name)).unwrap_or_default();
        let want: Trace = recorded.lines().map(str::to_owned).collect();
        wrong += &differences(name, &want, &have);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

async fn send(client: &Client, method: &str, uri: &str, body: &Value) -> (u16, Value) {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(bytes))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.unwrap();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn install_widgets(client: &Client) {
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, body) = send(client, "POST", crds, &scenarios::crd()).await;
    assert!(matches!(code, 201 | 409), "{body}");
    for _ in 0..600 {
        let uri = "/apis/scenario.tokenward.dev/v1/widgets";
        if send(client, "GET", uri, &Value::Null).await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the CRD was not served within 60 s");
}

#[tokio::test]
async fn the_record_agrees_with_the_real_server() {
    let Ok(path) = std::env::var("TOKENWARD_KUBECONFIG") else { return };
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    install_widgets(&client).await;
    let recording = std::env::var("TOKENWARD_RECORD").is_ok();
    let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let mut wrong = String::new();
    for scenario in scenarios::all() {
        let namespace = format!("s-{run}-{}", scenario.name.replace('_', "-"));
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        assert_eq!(send(&client, "POST", "/api/v1/namespaces", &body).await.0, 201);
        let trace = (scenario.run)(client.clone(), namespace.clone()).await;
        let have = trace.unwrap_or_else(|e| panic!("{}: {e}", scenario.name));
        send(&client, "DELETE", &format!("/api/v1/namespaces/{namespace}"), &Value::Null).await;
        if recording {
            std::fs::write(record(scenario.name), have.join("\n") + "\n").unwrap();
            continue;
        }
        let recorded = std::fs::read_to_string(record(scenario.name)).unwrap_or_default();
        let want: Trace = recorded.lines().map(str::to_owned).collect();
        // The real server speaks here: its line is the right one.
        wrong += &differences(scenario.name, &have, &want);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
