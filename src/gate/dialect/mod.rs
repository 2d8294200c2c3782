//! How proxies ask, and how they are answered. Each dialect has its own URL or method; none guesses which one it speaks,
//! because what one proxy sets, another lets the client set.
//!
//! | dialect | asked at | demand | address of the caller |
//! |---|---|---|---|
//! | nginx, Traefik, Caddy | `/authz/nginx`, … | query | `X-Forwarded-For` |
//! | Envoy, HTTP | `/authz/envoy` | query before `path=` | `X-Forwarded-For` |
//! | Envoy, gRPC | `envoy.service.auth.v3.Authorization/Check` | `context_extensions` | `source.address` |
//! | RFC 7662 | `/introspect` | none | not known |
//!
//! Whatever else the client sends, `X-Tokenward-*` above all, is never read. Nothing here lets through by itself: only a
//! [`Verdict`] that is accepted does.

pub mod answer;
pub mod envoy;
pub mod ext_authz;
pub mod http;
pub mod introspect;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use super::Gate;
use super::extract;
use super::metrics::Dialect;
use crate::domain::ports::Clock;
use crate::platform::reminder::Reminder;

/// What all dialects share: the gate, the clock, and whom to believe about addresses.
#[derive(Clone)]
pub struct Desk {
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    trusted_proxies: usize,
    misrouted: Arc<[Mutex<Reminder>; Dialect::ALL.len()]>,
}

impl Desk {
    /// `trusted_proxies` is how many entries of `X-Forwarded-For` are passed over from the right: 0 takes the address that
    /// the asking proxy saw.
    pub fn new(gate: Arc<Gate>, clock: Arc<dyn Clock>, trusted_proxies: usize) -> Self {
        Self { gate, clock, trusted_proxies, misrouted: Arc::default() }
    }

    /// A route's demand cannot be understood, and everybody is denied there: that is for whoever configured it. `key` says what
    /// of it, and never what was sent.
    fn misrouted(&self, dialect: Dialect, key: impl FnOnce() -> &'static str) {
        if self.misrouted[dialect as usize].lock().is_due() {
            tracing::warn!(
                dialect = dialect.as_str(),
                key = key(),
                "a route's demand cannot be understood, so all its requests are denied: see the proxy's configuration"
            );
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn forwarded<'a>(&self, values: impl DoubleEndedIterator<Item = &'a [u8]>) -> Option<IpAddr> {
        extract::forwarded(values, self.trusted_proxies)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desk({} trusted proxies)", self.trusted_proxies)
    }
}

#[cfg(test)]
mod testing;
