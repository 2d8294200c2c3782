//! Requests by annotation: a value counts once, and counts as honoured when `status.lastHandled` names it.

use crate::api::{ApiToken, keys};

/// Most bytes of a request's value that are remembered and compared.
pub const MAX_VALUE: usize = 128;

/// What the annotation `key` asks for: its value as it is remembered. An empty one asks for nothing.
pub fn value(token: &ApiToken, key: &str) -> Option<String> {
    let value = token.annotation(key)?;
    (!value.is_empty()).then(|| value[..value.floor_char_boundary(MAX_VALUE)].to_owned())
}

/// Whether the token was declared compromised and nobody has honoured it yet: everything issued so far is refused.
pub fn is_compromise_unhandled(token: &ApiToken) -> bool {
    let asked = value(token, keys::COMPROMISED_AT);
    let handled = token.status.as_ref().and_then(|status| status.last_handled.as_ref());
    asked.is_some() && asked != handled.and_then(|handled| handled.compromised_at.clone())
}
