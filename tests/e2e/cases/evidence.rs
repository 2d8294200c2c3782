//! Whoever still tries a revoked token is named.

use serde_json::json;
use tokenward::api::keys;

use crate::harness::{Release, is_ready, request, shared, sole_active, until};

/// As docs/operations.md gives it.
const WHO: &str = r#"jsonpath={range .status.refused[*]}{.lastSeenAt} {.outcome} {.credential} {.address} "{.userAgent}" {.requests}{"\n"}{end}"#;

#[test]
fn a_revoked_token_that_is_still_tried_shows_from_where() {
    shared("evidence", async |space| {
        let release = Release { cluster: space.cluster, name: "tokenward".to_owned() };
        let gate = space.start(&release.launch_gate().await, "tokenward-gate-evidence").await;
        gate.until_ready().await;
        space.declare("client", json!({"audiences": ["orders"]})).await;
        let revoked = space.holds_active(&space.ready("client").await).await;
        space.request("client", keys::COMPROMISED_AT).await;
        let replaced = space
            .until("client", "replaced", |token| is_ready(token) && sole_active(token).id != revoked.id())
            .await;
        let version: f64 = replaced.metadata.resource_version.as_ref().unwrap().parse().unwrap();
        until("the gate knows", async || {
            let known = gate.scrape().await.sum("tokenward_gate_feed_resource_version", &[]);
            (known >= version).then_some(())
        })
        .await;

        let ask = async |token: &str, from: &str, agent: &str| {
            let bearer = format!("Bearer {token}");
            let headers = [
                ("Authorization", bearer.as_bytes()),
                ("X-Forwarded-For", from.as_bytes()),
                ("User-Agent", agent.as_bytes()),
            ];
            let path = "/authz/nginx?audience=orders";
            request(gate.port("http"), "GET", path, &headers, b"").await.unwrap().status
        };
        for _ in 0..3 {
            assert_eq!(ask(revoked.expose(), "203.0.113.9", "old-job/1.4").await, 401);
        }
        // Somebody who only knows the id, from many places.
        let current = space.holds_active(&replaced).await;
        let forged = forged(current.id());
        for n in 0..40 {
            assert_eq!(ask(&forged, &format!("198.51.100.{n}"), "guess").await, 401);
        }
        assert_eq!(ask(current.expose(), "203.0.113.10", "new-job/1").await, 200);

        let shown = until("who was refused is shown", async || {
            let shown = space.kubectl(&["get", "tokenusage", "client", "--output", WHO]).await;
            shown.stdout.lines().find(|line| line.ends_with(" 3")).map(str::to_owned)
        })
        .await;
        let wanted = format!(" Ended {} 203.0.113.9 \"old-job/1.4\" 3", revoked.id());
        assert!(shown.ends_with(&wanted), "{shown}");
        println!("evidence: {shown}");
        let usage = until("all are counted", async || {
            let text = space.kubectl(&["get", "tokenusage", "client", "--output", "json"]).await.ok();
            let usage: serde_json::Value = serde_json::from_str(&text).unwrap();
            (usage["status"]["outcomes"]["WrongSecret"] == 40 && usage["status"]["requests"] == 1)
                .then_some(usage["status"].clone())
        })
        .await;
        let [only] = usage["refused"].as_array().unwrap().as_slice() else { panic!("{usage}") };
        assert!(only["firstSeenAt"].as_str() <= only["lastSeenAt"].as_str(), "{only}");
        assert_eq!(usage["outcomes"]["Ended"], 3);
        assert!(usage["unproved"].as_array().unwrap().len() <= 8, "{usage}");
        assert_eq!(usage["unproved"][0]["userAgent"], "guess");
        assert_eq!(usage["callers"][0]["address"], "203.0.113.10", "{usage}");
    });
}

/// A token of the right form with this id: what anybody can make up who has read a status.
fn forged(id: &str) -> String {
    const ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let body = format!("twd_{id}_{}", "a".repeat(43));
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    body + std::str::from_utf8(&digits).unwrap()
}
