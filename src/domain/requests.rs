//! Requests by annotation: a value counts once, and counts as honoured when `status.lastHandled` names it.

use super::ownership::OwnershipRules;
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

/// Most keys that a message names.
const MAX_NAMED: usize = 3;
/// Most characters of a key or value that a message repeats.
const MAX_REPEATED: usize = 48;

/// What looks like a request and asks for nothing, and what to write instead; `None` if there is nothing like it. It names
/// keys, never values.
///
/// That is an annotation or label of ours that nobody reads, a request's name under another domain or none, a request as a
/// label, and a request with an empty value. A value that was honoured before cannot be told from one that still stands there.
pub fn ignored(token: &ApiToken, rules: &OwnershipRules) -> Option<String> {
    let annotations = token.metadata.annotations.iter().flatten().filter_map(|(key, value)| {
        let unread = !keys::REQUESTS.contains(&key.as_str()) && looks_like_ours(key) && !is_read(key, rules);
        let empty = value.is_empty() && is_request(key);
        (unread || empty)
            .then(|| format!("annotation {}{}", repeated(key), if empty { " (empty)" } else { "" }))
    });
    let labels = token.metadata.labels.iter().flatten().map(|(key, _)| key);
    let labels = labels.filter(|key| is_request(key) || (looks_like_ours(key) && !is_read(key, rules)));
    let labels = labels.map(|key| format!("label {}", repeated(key)));
    let mut found: Vec<String> = annotations.chain(labels).collect();
    let more = found.len().saturating_sub(MAX_NAMED);
    found.truncate(MAX_NAMED);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    let requests = keys::REQUESTS.join(", ");
    (!found.is_empty()).then(|| {
        let found = found.join("; ");
        format!("Asks for nothing: {found}. A request is one of the annotations {requests}, with a new value such as the current time, or {}, with a Secret's uid", keys::ADOPT)
    })
}

fn is_request(key: &str) -> bool {
    keys::REQUESTS.contains(&key) || key == keys::ADOPT
}

fn looks_like_ours(key: &str) -> bool {
    let name = |key: &str| key.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    key.starts_with(keys::OWN_PREFIX) || keys::REQUESTS.into_iter().any(|request| name(request) == name(key))
}

fn is_read(key: &str, rules: &OwnershipRules) -> bool {
    let mut read = rules.owner_keys.iter().chain(&rules.contact_keys);
    [keys::OWNER, keys::CONTACT, keys::SCHEMA, keys::ADOPT].contains(&key) || read.any(|owner| owner == key)
}

/// Whether the value of a label or annotation of this key is read, and whether it is told of at least: `(read, told)`.
pub fn is_of_use(key: &str, rules: &OwnershipRules) -> (bool, bool) {
    (keys::REQUESTS.contains(&key) || is_read(key, rules), looks_like_ours(key))
}

/// Whether the same value is likely to be written again for the next request, and would then pass for the old one: `now`,
/// `true`, `1`, not a time or a UUID.
pub fn is_soon_repeated(value: &str) -> bool {
    value.len() < 8 || !value.bytes().any(|byte| byte.is_ascii_digit())
}

/// As much of a key or value as a message repeats, with what is not printable escaped.
pub fn repeated(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_REPEATED).flat_map(char::escape_debug).collect();
    if text.chars().count() > MAX_REPEATED {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(annotations: &[(&str, &str)], labels: &[(&str, &str)]) -> Option<String> {
        let map = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let mut token = ApiToken::new("orders", Default::default());
        token.metadata.annotations = map(annotations);
        token.metadata.labels = map(labels);
        ignored(&token, &OwnershipRules::default())
    }

    #[test]
    fn what_asks_for_nothing_is_named_with_what_to_write_instead() {
        for key in [
            "tokenward.dev/rotate",
            "tokenward.dev/rotate-requested",
            "tokenward.dev/Rotate-Requested-At",
            "tokenward.dev/compromised",
            "rotate-requested-at",
            "tokenward.io/retire-now-at",
        ] {
            let said = said(&[(key, "a value that nobody should read here")], &[]).unwrap();
            assert!(said.contains(&format!("annotation {key}")), "{said}");
            assert!(keys::REQUESTS.iter().all(|request| said.contains(request)), "{said}");
            assert!(!said.contains("nobody should read"), "{said}");
        }
        assert!(said(&[(keys::ROTATE_REQUESTED_AT, "")], &[]).unwrap().contains("(empty)"));
        assert!(said(&[(keys::ADOPT, "")], &[]).unwrap().contains("(empty)"));
        assert!(said(&[], &[(keys::ADOPT, "u")]).unwrap().contains("label tokenward.dev/adopt"));
        assert!(
            said(&[], &[(keys::ROTATE_REQUESTED_AT, "now")]).unwrap().contains("label tokenward.dev/rotate")
        );
    }

    #[test]
    fn what_is_read_and_what_is_not_ours_is_left_alone() {
        let now = "2026-03-01T00:00:00Z";
        let requests: Vec<_> = keys::REQUESTS.iter().map(|key| (*key, now)).collect();
        assert_eq!(said(&requests, &[("team", "payments"), (keys::OWNER, "payments")]), None);
        assert_eq!(
            said(&[(keys::CONTACT, "#payments"), ("example.com/rotate", "now")], &[("app", "x")]),
            None
        );
    }

    #[test]
    fn a_message_is_short_whatever_the_keys() {
        let long = format!("tokenward.dev/{}", "x".repeat(300));
        let keys: Vec<_> = (0..100).map(|n| format!("{long}{n}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "")).collect();
        let said = said(&pairs, &[]).unwrap();
        assert!(said.len() < 600 && said.contains("97 more"), "{said}");
    }

    #[test]
    fn values_that_are_written_again_and_values_that_are_not() {
        for value in ["now", "true", "1", "please rotate it", "ASAP"] {
            assert!(is_soon_repeated(value), "{value}");
        }
        for value in ["2026-03-01T00:00:00Z", "1772323200", "0f8fad5b-d9cb-469f-a165-70867728950e"] {
            assert!(!is_soon_repeated(value), "{value}");
        }
    }
}
