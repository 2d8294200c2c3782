//! A gate over time: what is withdrawn stops working, and what cannot be reached does not stop the rest.

use serde_json::json;
use tokenward::api::keys;

use crate::harness::{Edge, exclusive, shared, shared_edge, sole_active, until};

#[test]
fn what_is_withdrawn_is_denied_from_then_on() {
    shared("withdrawn", async |space| {
        let edge = shared_edge(space.cluster).await;
        let spec = json!({
            "audiences": ["orders"], "scopes": ["orders:read"],
            "rotation": {"every": "720h", "overlap": "1h"},
        });
        space.declare("client", spec).await;
        let first = space.holds_active(&space.ready("client").await).await;
        edge.until_status(first.expose(), 200, "issued").await;

        // Suspended and let go again: nothing was ended.
        space.patch("client", json!({"spec": {"suspend": true}})).await;
        edge.until_status(first.expose(), 401, "suspended").await;
        edge.all_answer(first.expose(), 401, "still suspended").await;
        space.patch("client", json!({"spec": {"suspend": false}})).await;
        edge.until_status(first.expose(), 200, "no longer suspended").await;

        // Rotated: both work, until the old one is retired.
        let rotated = space.rotate("client").await;
        let second = space.holds_active(&rotated).await;
        edge.until_status(second.expose(), 200, "the new one").await;
        edge.all_answer(first.expose(), 200, "the old one overlaps").await;
        space.request("client", keys::RETIRE_NOW_AT).await;
        edge.until_status(first.expose(), 401, "retired").await;
        edge.all_answer(second.expose(), 200, "the new one stays").await;

        // Compromised: the one in use ends, and another takes its place.
        space.request("client", keys::COMPROMISED_AT).await;
        edge.until_status(second.expose(), 401, "compromised").await;
        let replaced = space
            .until("client", "replaced", |token| {
                crate::harness::is_ready(token) && sole_active(token).id != second.id()
            })
            .await;
        let third = space.holds_active(&replaced).await;
        edge.until_status(third.expose(), 200, "issued after the compromise").await;

        // Narrowed: what it may do changes with the object.
        space.patch("client", json!({"spec": {"scopes": ["orders:write"]}})).await;
        edge.until_status(third.expose(), 403, "without the scope").await;
        space.patch("client", json!({"spec": {"scopes": ["orders:read"], "audiences": ["billing"]}})).await;
        edge.until_status(third.expose(), 401, "for another audience").await;
        space.patch("client", json!({"spec": {"audiences": ["orders"]}})).await;
        edge.until_status(third.expose(), 200, "as before").await;

        space.kubectl(&["delete", "apitoken", "client", "--wait=false"]).await.ok();
        edge.until_status(third.expose(), 401, "deleted").await;
        for token in [&first, &second, &third] {
            edge.all_answer(token.expose(), 401, "gone for good").await;
        }
    });
}

#[test]
fn answers_go_on_without_the_api_server_and_stop_without_a_gate() {
    exclusive("edge", async |space| {
        space.cluster.apply_definitions().await;
        let release = space.release_for(&[&space.name], json!({"controller": {"replicas": 1}})).await;
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;
        let gate = space.start(&release.launch_gate().await, "gate").await;
        let edge = Edge::before(space.cluster, gate).await;
        space.declare("client", json!({"audiences": ["orders"], "scopes": ["orders:read"]})).await;
        let token = space.holds_active(&space.ready("client").await).await;
        let unknown = tokenward::domain::token::Token::placeholder();
        edge.until_status(token.expose(), 200, "issued").await;

        space.cluster.stop_apiserver().await;
        for _ in 0..20 {
            edge.all_answer(token.expose(), 200, "from memory").await;
            edge.all_answer(unknown.expose(), 401, "from memory").await;
        }
        assert_eq!(edge.gate.get("/readyz").await.map(|(status, _)| status), Some(200), "it still serves");
        space.cluster.start_apiserver().await;
        edge.all_answer(token.expose(), 200, "the API server is back").await;
        // The feed finds its way back by itself.
        space.patch("client", json!({"spec": {"suspend": true}})).await;
        edge.until_status(token.expose(), 401, "suspended").await;
        space.patch("client", json!({"spec": {"suspend": false}})).await;
        edge.until_status(token.expose(), 200, "no longer suspended").await;

        // Without a gate nothing passes, and every proxy says so in its own way.
        edge.gate.kill().await;
        for proxy in &edge.proxies {
            let wanted = proxy.kind.without_gate();
            until(&format!("{:?} notices that no gate answers", proxy.kind), async || {
                let answer = proxy.bearer(token.expose()).await;
                assert!(answer.upstream().is_none(), "{:?} let it through: {answer:?}", proxy.kind);
                (answer.status == wanted).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_gate_that_starts_later_knows_what_is_there() {
    shared("later", async |space| {
        let edge = shared_edge(space.cluster).await;
        space.declare("client", json!({"audiences": ["orders"], "scopes": ["orders:read"]})).await;
        let token = space.holds_active(&space.ready("client").await).await;
        edge.until_status(token.expose(), 200, "issued").await;
        let release = crate::harness::Release { cluster: space.cluster, name: "tokenward".to_owned() };
        let gate = space.start(&release.launch_gate().await, "tokenward-gate-1").await;
        let second = Edge::before(space.cluster, gate).await;
        // Ready means: every token is known. The first request is answered as the thousandth.
        second.all_answer(token.expose(), 200, "the first request of all").await;
    });
}
