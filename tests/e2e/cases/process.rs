//! The process itself: its endpoint, its log, its arguments, and a cluster that is not there or not prepared.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokenward::api::keys;

use crate::harness::{binary, command, exclusive, is_ready, shared, sole_active, until};

#[test]
fn arguments_that_cannot_be_used_are_named() {
    crate::harness::runtime().block_on(async {
        let binary = binary().await;
        let cases: &[(&[&str], &str)] = &[
            (&["--lease-duration=soon"], "--lease-duration"),
            (&["--lease-duration=10s", "--lease-renew-deadline=20s"], "--lease-renew-deadline"),
            (&["--token-prefix=No_Capitals"], "--token-prefix"),
            (&["--concurrency=0"], "--concurrency"),
            (&["--admin-listen=nowhere"], "--admin-listen"),
            (&["--namespaces=Not_A_Name"], "--namespaces"),
            (&["--log-format=xml"], "--log-format"),
            (&["--log-level=loud=very"], "--log-level"),
            (&["--metric-labels=a-b,a.b"], "--metric-labels"),
            (&["--no-such-flag"], "--no-such-flag"),
        ];
        for (args, named) in cases {
            let all: Vec<_> = ["controller"].iter().chain(*args).copied().collect();
            let output = command(&binary, &all, &[], "").await;
            assert_eq!(output.code, 2, "{args:?}: {}", output.stderr);
            let said = output.refused();
            assert!(said.contains(named), "{args:?} is not told by {said:?}");
        }
        let twin = command(&binary, &["controller"], &[("TOKENWARD_CONCURRENCY", "many")], "").await;
        assert_eq!(twin.code, 2);
        assert!(twin.refused().contains("--concurrency"));
        let version = command(&binary, &["--version"], &[], "").await.ok();
        assert!(version.contains(tokenward::VERSION), "{version}");
        let lost = command(&binary, &["controller", "--kubeconfig", "/no/such/file"], &[], "").await;
        assert_eq!(lost.code, 1);
        assert!(lost.refused().contains("--kubeconfig /no/such/file"));
    });
}

#[test]
fn the_admin_endpoint_and_the_log() {
    shared("process", async |space| {
        space
            .declare_with(
                "seen",
                json!({"labels": {"team": "payments"}}),
                json!({"rotation": {"every": "720h"}}),
            )
            .await;
        space.ready("seen").await;
        // Beside the two replicas, other cases may have started gates.
        let mut operators = space.cluster.operators.lock().unwrap().clone();
        operators.retain(|operator| operator.pod.starts_with("tokenward-") && !operator.pod.contains("gate"));
        for operator in &operators {
            assert_eq!(operator.get("/healthz").await, Some((200, "ok\n".to_owned())));
            assert_eq!(operator.get("/readyz").await, Some((200, "ok\n".to_owned())));
            assert_eq!(operator.get("/other").await.unwrap().0, 404);
        }
        let mut leaders = Vec::new();
        for operator in &operators {
            if operator.leads().await {
                leaders.push(operator);
            }
        }
        assert_eq!((operators.len(), leaders.len()), (2, 1), "one of two replicas leads");
        let labels = [("namespace", space.name.as_str()), ("name", "seen"), ("owner", "payments")];
        let scrape = until("the token is in the metrics", async || {
            let scrape = leaders[0].scrape().await;
            let reconciled = scrape.sum("tokenward_reconciles_total", &[("result", "ok")]) >= 1.0;
            let known = scrape.sum("tokenward_token_info", &labels) == 1.0;
            // It has an owner before it was delivered, and its next rotation only then.
            let next = scrape.sum("tokenward_token_next_rotation_timestamp_seconds", &labels[..2]);
            (reconciled && known && next > 1.7e9).then_some(scrape)
        })
        .await;
        assert!(
            scrape.sum("tokenward_api_requests_total", &[("verb", "apply"), ("code", "201")]) >= 1.0,
            "{}",
            scrape.text
        );

        // It logs what it wrote once the API server has answered, which may be after the watch has shown it to us.
        let about = |line: &Value| line["namespace"] == space.name.as_str() && line["name"] == "seen";
        let issued = until("the log tells about the token", async || {
            let log = leaders[0].read_log();
            // The last line may be half written.
            let (whole, _) = log.rsplit_once('\n')?;
            let lines = whole.lines().map(|line| {
                serde_json::from_str::<Value>(line)
                    .unwrap_or_else(|error| panic!("a line of the log is not JSON: {error}: {line}"))
            });
            let lines: Vec<_> = lines.collect();
            lines.into_iter().find(|line| about(line) && line["reason"] == "Issued")
        })
        .await;
        assert!(
            issued["timestamp"].is_string() && issued["level"] == "INFO" && issued["message"].is_string()
        );
    });
}

#[test]
fn without_the_definition_it_waits_and_says_so() {
    exclusive("nocrd", async |space| {
        let release = space.release_for(&[&space.name], json!({"controller": {"replicas": 1}})).await;
        let operator = space.start(&release.launch().await, "operator").await;
        until("the log says what is missing", async || {
            operator.read_log().contains("the ApiToken CRD is not installed: install the chart").then_some(())
        })
        .await;
        let (status, body) = operator.get("/readyz").await.unwrap();
        assert_eq!(status, 503);
        assert!(body.contains("apitokens"), "{body}");
        assert_eq!(operator.get("/healthz").await.unwrap().0, 200);

        space.cluster.apply_definitions().await;
        space.declare("late", json!({})).await;
        let token = space.ready("late").await;
        space.holds_active(&token).await;
        operator.until_ready().await;
        let complaints = operator.read_log().matches("CRD is not installed").count();
        println!("without the definition: said {complaints} times until it appeared");
        assert!(complaints < 20, "not in a tight loop");
    });
}

#[test]
fn the_api_server_goes_away_and_comes_back() {
    exclusive("outage", async |space| {
        let cluster = space.cluster;
        cluster.apply_definitions().await;
        let release = space.release_for(&[&space.name], json!({})).await;
        let launch = release.launch().await;
        let operators = [space.start(&launch, "replica-0").await, space.start(&launch, "replica-1").await];
        for operator in &operators {
            operator.until_ready().await;
        }
        for name in ["a", "b", "c"] {
            space.declare(name, json!({})).await;
            space.ready(name).await;
        }
        let held = space.holds_active(&space.get("a").await).await;
        let versions = async || {
            let mut versions = Vec::new();
            for name in ["b", "c"] {
                versions.push(space.secret(name).await.metadata.resource_version);
                versions.push(space.get(name).await.metadata.resource_version);
            }
            versions
        };
        let before = versions().await;

        // Asked for in the last moment.
        space.request("a", keys::ROTATE_REQUESTED_AT).await;
        cluster.stop_apiserver().await;
        let gone = Instant::now();
        until("nobody leads without renewing, and the time of an outage is over", async || {
            for operator in &operators {
                assert!(operator.is_running(), "it survives");
                assert_eq!(operator.get("/healthz").await.unwrap().0, 200, "restarting it would not help");
                assert_eq!(operator.get("/readyz").await.unwrap().0, 200, "it still serves what it knows");
            }
            let idle = !operators[0].leads().await && !operators[1].leads().await;
            (idle && gone.elapsed() > Duration::from_secs(20)).then_some(())
        })
        .await;
        cluster.start_apiserver().await;
        let back = Instant::now();
        let token = space
            .until("a", "rotated after all", |token| is_ready(token) && sole_active(token).id != held.id())
            .await;
        println!(
            "after an outage of 20 s the requested rotation was done in {:.1} s",
            back.elapsed().as_secs_f64()
        );
        space.holds_active(&token).await;
        let token = space.rotate("a").await;
        space.holds_active(&token).await;
        assert_eq!(versions().await, before, "nothing else was touched");
        assert_eq!(u8::from(operators[0].leads().await) + u8::from(operators[1].leads().await), 1);
    });
}
