//! A gate with many tokens, and requests as proxies send them.

use std::sync::{Arc, Mutex};

use hyper::body::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use prost::Message;
use serde_json::json;
use tokenward::api::Outcome;
use tokenward::domain::ports::{Clock, Entropy, EntropyError};
use tokenward::domain::token::{Prefix, Token};
use tokenward::gate::callers::Addresses;
use tokenward::gate::dialect::ext_authz::{
    Address, AttributeContext, CheckRequest, CheckResponse, Entry, HttpAttributes, HttpRequest, Peer,
    SocketAddress,
};
use tokenward::gate::dialect::{Desk, envoy};
use tokenward::gate::index::Writer;
use tokenward::gate::record::Record;
use tokenward::gate::{Gate, Settings};

/// Requests that are sent in turn.
const SAMPLE: usize = 4096;

/// Which tokens are sent.
#[derive(Clone, Copy)]
pub enum Traffic {
    /// Those that may pass.
    Hits,
    /// Proper tokens that nobody knows.
    Unknown,
    /// Those that have ended.
    Ended,
}

impl Traffic {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hits => "may pass",
            Self::Unknown => "unknown",
            Self::Ended => "ended",
        }
    }
}

/// The same in every run.
struct Chance(Mutex<u64>);

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.0.lock().unwrap();
        for byte in bytes {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (*state >> 57) as u8;
        }
        Ok(())
    }
}

/// The machine's clock.
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

pub struct Scene {
    gate: Arc<Gate>,
    living: Vec<String>,
    ended: Vec<String>,
    unknown: Vec<String>,
}

impl Scene {
    pub fn new(size: usize) -> Self {
        let (prefix, chance) = (Prefix::new("twd").unwrap(), Chance(Mutex::new(7)));
        let gate = Arc::new(Gate::new(Settings {
            prefix: prefix.clone(),
            deny_when_stale_for: None,
            addresses: Addresses::Full,
        }));
        let mut writer = Writer::new(gate.index(), None);
        let mint = || Token::mint(&prefix, &chance).unwrap();
        let (mut living, mut ended) = (Vec::new(), Vec::new());
        writer.begin_list();
        for number in 0..size {
            let (now, before) = (mint(), mint());
            let metadata = ObjectMeta {
                namespace: Some(format!("team-{}", number % 100)),
                name: Some(format!("client-{number}")),
                uid: Some(format!("4d6f1c2e-8a3b-4c5d-9e7f-{number:012}")),
                resource_version: Some((number + 1).to_string()),
                creation_timestamp: Some(Time("2026-01-01T00:00:00Z".parse().unwrap())),
                ..ObjectMeta::default()
            };
            let object = json!({
                "spec": {"audiences": ["orders"], "scopes": ["orders:read", "orders:write"]},
                "status": {
                    "owner": {"name": format!("team-{}", number % 100)},
                    "credentials": [{"id": now.id(), "digest": now.digest(), "state": "Active",
                        "issuedAt": "2026-01-01T00:00:00Z"}],
                    "ended": [{"id": before.id(), "digest": before.digest(), "state": "Retired",
                        "endedAt": "2026-01-01T00:00:00Z"}],
                },
            });
            writer.list_item(Record::from_json(&metadata, &object));
            living.push(now.expose().to_owned());
            ended.push(before.expose().to_owned());
        }
        writer.end_list();
        gate.open();
        let unknown = (0..SAMPLE).map(|_| mint().expose().to_owned()).collect();
        Self { gate, living, ended, unknown }
    }

    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    pub fn desk(&self) -> Desk {
        Desk::new(self.gate.clone(), Arc::new(System), 0)
    }

    fn sample(&self, traffic: Traffic) -> impl Iterator<Item = &String> {
        let tokens = match traffic {
            Traffic::Hits => &self.living,
            Traffic::Unknown => &self.unknown,
            Traffic::Ended => &self.ended,
        };
        tokens.iter().step_by((tokens.len() / SAMPLE).max(1)).take(SAMPLE)
    }

    /// As nginx asks.
    pub fn http(&self, traffic: Traffic) -> Arc<Vec<Vec<u8>>> {
        Self::asked(self.sample(traffic))
    }

    /// As nginx asks, with every token that may pass.
    pub fn http_all(&self) -> Arc<Vec<Vec<u8>>> {
        Self::asked(self.living.iter())
    }

    fn asked<'a>(tokens: impl Iterator<Item = &'a String>) -> Arc<Vec<Vec<u8>>> {
        let request = |token: &String| {
            format!(
                "GET /authz/nginx?audience=orders&scope=orders:read HTTP/1.1\r\nHost: gate:8181\r\n\
                 X-Forwarded-For: 10.1.2.3\r\nX-Original-URI: /v1/orders/4711?expand=lines\r\n\
                 X-Original-Method: GET\r\nUser-Agent: orders-client/2.7 (linux)\r\nAccept: application/json\r\n\
                 Accept-Encoding: gzip, br\r\nX-Request-ID: 5f0c1e0e-61b0-4c5e-9f4e-b4a4e0a7c001\r\n\
                 traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            )
            .into_bytes()
        };
        Arc::new(tokens.map(request).collect())
    }

    fn check(&self, token: &str) -> CheckRequest {
        let bytes = |text: &str| prost::bytes::Bytes::copy_from_slice(text.as_bytes());
        let entry = |(key, value): (&str, &str)| Entry { key: bytes(key), value: bytes(value) };
        let authorization = format!("Bearer {token}");
        let headers = [
            (":authority", "orders.example.com"),
            (":method", "GET"),
            (":path", "/v1/orders/4711?expand=lines"),
            (":scheme", "https"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip, br"),
            ("authorization", authorization.as_str()),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("user-agent", "orders-client/2.7 (linux)"),
            ("x-envoy-internal", "true"),
            ("x-forwarded-for", "10.1.2.3"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "5f0c1e0e-61b0-4c5e-9f4e-b4a4e0a7c001"),
        ];
        let headers = headers.into_iter().map(entry).collect();
        let http = HttpRequest { headers, ..HttpRequest::default() };
        let address = Address { socket_address: Some(SocketAddress { address: bytes("10.1.2.3") }) };
        let source =
            Peer { address: Some(address), principal: bytes("spiffe://cluster.local/ns/shop/sa/web") };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(source),
                request: Some(HttpAttributes { http: Some(http) }),
                context_extensions: [("audience", "orders"), ("scope", "orders:read")].map(entry).to_vec(),
            }),
        }
    }

    /// As Envoy asks: gRPC frames.
    pub fn grpc(&self, traffic: Traffic) -> Arc<Vec<Bytes>> {
        self.framed(self.sample(traffic))
    }

    /// As Envoy asks, with every token that may pass.
    pub fn grpc_all(&self) -> Arc<Vec<Bytes>> {
        self.framed(self.living.iter())
    }

    fn framed<'a>(&self, tokens: impl Iterator<Item = &'a String>) -> Arc<Vec<Bytes>> {
        let frame = |token: &String| {
            let message = self.check(token).encode_to_vec();
            let mut frame = vec![0];
            frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            frame.extend_from_slice(&message);
            Bytes::from(frame)
        };
        Arc::new(tokens.map(frame).collect())
    }

    /// What a token that may pass is answered.
    pub fn answer(&self) -> CheckResponse {
        envoy::check(&self.desk(), &self.check(&self.living[0]))
    }

    /// (accepted, denied) so far.
    pub fn answered(&self) -> (u64, u64) {
        let all = self.gate.recorder().totals().answers;
        let accepted = all.iter().map(|answers| answers[Outcome::Accepted.index() as usize]).sum();
        (accepted, all.iter().flatten().sum::<u64>() - accepted)
    }
}
