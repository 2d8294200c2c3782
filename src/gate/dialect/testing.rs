//! A gate with three tokens, and what happened at it.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::Desk;
use crate::api::Outcome;
use crate::api::report::CallerUse;
use crate::domain::ports::Clock;
use crate::domain::token::Token;
use crate::gate::Gate;
use crate::gate::fixtures::{at, ended, gate, living, metadata, minted, object};
use crate::gate::metrics::Dialect;
use crate::gate::record::Record;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        at("2026-03-01T12:00:00Z")
    }
}

/// Tokens and the gate that knows them.
pub struct Scene {
    pub gate: Arc<Gate>,
    pub desk: Desk,
    /// Of `shop/orders`: audience `orders`, scopes `orders:read orders:write`, owner `payments`.
    pub orders: Token,
    /// Of the same, ended.
    pub former: Token,
    /// Of `shop/plain`: no audiences, no scopes, no owner.
    pub plain: Token,
    /// Of `shop/asker`: scope `tokenward:introspect`.
    pub asker: Token,
}

impl Scene {
    pub fn new() -> Self {
        Self::trusting(0)
    }

    /// With as many trusted proxies.
    pub fn trusting(trusted_proxies: usize) -> Self {
        let (orders, former, plain, asker) =
            (minted("twd", 1), minted("twd", 2), minted("twd", 3), minted("twd", 4));
        let of = |name: &str, object: &Value| Record::from_json(&metadata("shop", name, 1), object);
        let bare = |token: &Token, scopes: &[&str]| json!({"spec": {"scopes": scopes}, "status": {"credentials": [living(token)]}});
        let gate = Arc::new(gate(vec![
            of("orders", &object(&[living(&orders)], &[ended(&former)])),
            of("plain", &bare(&plain, &[])),
            of("asker", &bare(&asker, &["tokenward:introspect"])),
        ]));
        let desk = Desk::new(gate.clone(), Arc::new(Noon), trusted_proxies);
        Self { gate, desk, orders, former, plain, asker }
    }

    /// One that has not loaded its index.
    pub fn closed() -> Self {
        let scene = Self::new();
        let gate = Arc::new(Gate::new(crate::gate::fixtures::settings()));
        Self { desk: Desk::new(gate.clone(), Arc::new(Noon), 0), gate, ..scene }
    }

    /// How often this was answered.
    pub fn count(&self, dialect: Dialect, outcome: Outcome) -> u64 {
        self.gate.recorder().totals().answers[dialect as usize][outcome.index() as usize]
    }

    /// Who used a token since the last time; `None` if nobody used exactly one.
    pub fn caller(&self) -> Option<CallerUse> {
        let mut drained = self.gate.recorder().drain();
        let mut credentials = drained.pop().filter(|_| drained.is_empty())?.credentials;
        let mut callers = credentials.pop().filter(|_| credentials.is_empty())?.callers;
        callers.pop().filter(|_| callers.is_empty())
    }
}
