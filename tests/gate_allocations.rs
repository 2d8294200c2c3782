//! A request that may pass, from a caller that is known, takes no memory: not the verdict, not the counting.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test, and says where")]

use allocation_counter::{AllocationInfo, measure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokenward::api::Outcome;
use tokenward::domain::ports::{Entropy, EntropyError};
use tokenward::domain::token::{Prefix, Token};
use tokenward::gate::callers::Addresses;
use tokenward::gate::demand::Demand;
use tokenward::gate::extract::{address, caller, credential, forwarded};
use tokenward::gate::index::Writer;
use tokenward::gate::metrics::Dialect;
use tokenward::gate::record::Record;
use tokenward::gate::{Gate, Settings};

struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.iter_mut().zip(0_u8..).for_each(|(byte, value)| *byte = value);
        Ok(())
    }
}

fn scene() -> (Gate, Token) {
    let prefix = Prefix::new("twd").unwrap();
    let token = Token::mint(&prefix, &Fixed).unwrap();
    let gate = Gate::new(Settings { prefix, deny_when_stale_for: None, addresses: Addresses::Full });
    let metadata = ObjectMeta {
        name: Some("web".into()),
        namespace: Some("shop".into()),
        uid: Some("u-1".into()),
        ..ObjectMeta::default()
    };
    let object = json!({
        "spec": {"audiences": ["orders"], "scopes": ["orders:read", "orders:write"]},
        "status": {"credentials": [{"id": token.id(), "digest": token.digest(), "state": "Active",
                                    "issuedAt": "2026-01-01T00:00:00Z"}]},
    });
    Writer::new(gate.index(), None).apply(Record::from_json(&metadata, &object));
    gate.open();
    (gate, token)
}

/// What one request takes, from its query and headers to the counts.
fn request(gate: &Gate, headers: &[(&str, &[u8])], user_agent: &str, expected: Outcome) -> AllocationInfo {
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    measure(|| {
        let demand = Demand::from_query("audience=orders&scope=orders:read&scope=orders:write").unwrap();
        let from = forwarded(std::iter::once(b"10.1.2.3, 10.9.9.9".as_slice()), 1).or(address("10.0.0.1"));
        let from = caller(from, "spiffe://cluster.local/ns/shop/sa/web", Some(user_agent.as_bytes()));
        let credential = credential(headers.iter().copied(), None, demand.places());
        let text = credential.as_ref().map(|credential| credential.as_str()).map_err(|outcome| *outcome);
        let verdict = gate.check(Dialect::EnvoyGrpc, text, &demand, &from, now);
        assert_eq!(verdict.outcome(), expected);
    })
}

#[test]
fn the_allow_path_takes_no_memory() {
    let (gate, token) = scene();
    let bearer = format!("Bearer {}", token.expose());
    let headers: [(&str, &[u8]); 2] = [("host", b"orders"), ("authorization", bearer.as_bytes())];
    let first = request(&gate, &headers, "curl/8", Outcome::Accepted);
    assert!(first.count_total > 0, "a new caller is written down: the counter counts");
    let second = request(&gate, &headers, "curl/8", Outcome::Accepted);
    assert!(second.count_total > 0, "one that comes again gets a place without a lock");
    for _ in 0..1_000 {
        let again = request(&gate, &headers, "curl/8", Outcome::Accepted);
        assert_eq!(again.count_total, 0, "{again:?}");
    }
    let key: [(&str, &[u8]); 1] = [("x-api-key", token.expose().as_bytes())];
    assert_eq!(request(&gate, &key, "curl/8", Outcome::Accepted).count_total, 0);
    // Between callers that are known, too.
    for _ in 0..2 {
        request(&gate, &headers, "wget/1", Outcome::Accepted);
    }
    for agent in ["curl/8", "wget/1", "curl/8"] {
        assert_eq!(request(&gate, &headers, agent, Outcome::Accepted).count_total, 0);
    }
}

#[test]
fn floods_of_garbage_take_no_memory() {
    let (gate, token) = scene();
    let foreign = token.expose().replace("twd_", "acme_");
    for (name, value, expected) in [
        ("cookie", "x", Outcome::Missing),
        ("x-api-key", "x y", Outcome::Malformed),
        ("x-api-key", foreign.as_str(), Outcome::BadChecksum),
    ] {
        let headers: [(&str, &[u8]); 1] = [(name, value.as_bytes())];
        request(&gate, &headers, "curl/8", expected);
        assert_eq!(request(&gate, &headers, "curl/8", expected).count_total, 0, "{expected}");
    }
}
