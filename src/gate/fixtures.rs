//! ApiTokens and tokens for the tests of this module.

use std::sync::Mutex;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::callers::Addresses;
use super::index::Writer;
use super::record::Record;
use super::{Gate, Settings};
use crate::domain::ports::{Entropy, EntropyError};
use crate::domain::token::{Prefix, Token};

/// The same tokens in every run.
struct Counter(Mutex<u64>);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.0.lock().unwrap();
        for byte in bytes {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (*state >> 57) as u8;
        }
        Ok(())
    }
}

/// The token of this number.
pub fn minted(prefix: &str, number: u64) -> Token {
    Token::mint(&Prefix::new(prefix).unwrap(), &Counter(Mutex::new(number))).unwrap()
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn metadata(namespace: &str, name: &str, version: u64) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some(version.to_string()),
        creation_timestamp: Some(Time(at("2026-01-01T00:00:00Z"))),
        ..ObjectMeta::default()
    }
}

/// The id of one token with the secret of another, and a checksum that fits: what anybody can make up who knows the id.
pub fn with_secret_of(id: &Token, secret: &Token) -> String {
    let body =
        format!("{}_{}_{}", id.prefix(), id.id(), &secret.expose()[secret.expose().len() - 49..][..43]);
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut crc = [b'0'; 6];
    crc.iter_mut().rev().for_each(|digit| {
        *digit = digits[rest % 62];
        rest /= 62;
    });
    body + std::str::from_utf8(&crc).unwrap()
}

/// As it stands in `status.credentials`.
pub fn living(token: &Token) -> Value {
    json!({"id": token.id(), "digest": token.digest(), "state": "Active", "issuedAt": "2026-02-01T00:00:00Z"})
}

/// As it stands in `status.ended`.
pub fn ended(token: &Token) -> Value {
    json!({"id": token.id(), "digest": token.digest(), "state": "Retired", "endedAt": "2026-02-01T00:00:00Z"})
}

/// Spec and status of a token for `orders` with two scopes.
pub fn object(credentials: &[Value], ended: &[Value]) -> Value {
    json!({
        "spec": {"audiences": ["orders"], "scopes": ["orders:read", "orders:write"]},
        "status": {"owner": {"name": "payments", "source": "default"}, "credentials": credentials, "ended": ended},
    })
}

pub fn settings() -> Settings {
    Settings { prefix: Prefix::new("twd").unwrap(), deny_when_stale_for: None, addresses: Addresses::Full }
}

/// An open gate that knows these.
pub fn gate(records: Vec<Record>) -> Gate {
    gate_keeping(Addresses::Full, records)
}

/// The same, that keeps so much of addresses.
pub fn gate_keeping(addresses: Addresses, records: Vec<Record>) -> Gate {
    let gate = Gate::new(Settings { addresses, ..settings() });
    let mut writer = Writer::new(gate.index(), None);
    writer.begin_list();
    for record in records {
        writer.list_item(record);
    }
    writer.end_list();
    gate.open();
    gate
}
