//! Requests by annotation: a value counts once, and counts as honoured when `status.lastHandled` names it.

use crate::api::{ApiToken, keys};

/// Most bytes of a request's value that are remembered and compared.
pub const MAX_VALUE: usize = 128;

/// What the annotation `key` asks for: its value as it is remembered. An empty one asks for nothing.
pub fn value(token: &ApiToken, key: &str) -> Option<String> {
    let value = token.annotation(key)?;
    (!value.is_empty()).then(|| remembered(value).to_owned())
}

/// Whether the token was declared compromised and nobody has honoured it yet: everything issued so far is refused.
pub fn is_compromise_unhandled(token: &ApiToken) -> bool {
    let handled = token.status.as_ref().and_then(|status| status.last_handled.as_ref());
    let handled = handled.and_then(|handled| handled.compromised_at.as_deref());
    is_unhandled(token.annotation(keys::COMPROMISED_AT), handled)
}

/// Whether a request whose annotation says `asked` is honoured by a status that says `handled`.
pub fn is_unhandled(asked: Option<&str>, handled: Option<&str>) -> bool {
    let asked = asked.map(remembered).filter(|asked| !asked.is_empty());
    asked.is_some() && asked != handled
}

fn remembered(value: &str) -> &str {
    &value[..value.floor_char_boundary(MAX_VALUE)]
}
