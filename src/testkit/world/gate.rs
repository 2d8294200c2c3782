//! What a gate may accept, from the ApiToken alone. Written a second time on purpose: an oracle that called the code it
//! judges would agree with its mistakes.

use k8s_openapi::jiff::Timestamp;

use crate::api::{ApiToken, Credential, keys};
use crate::domain::schedule::Expiry;

/// The end that `spec.expiry` declares.
pub(super) fn expires_at(token: &ApiToken) -> Option<Timestamp> {
    let created = token.metadata.creation_timestamp.as_ref()?.0;
    Expiry::parse(token.spec.expiry.as_ref(), created).ok().flatten().map(|expiry| expiry.at)
}

/// Whether the token as a whole has ended.
pub(super) fn is_over(token: &ApiToken, now: Timestamp) -> bool {
    expires_at(token).is_some_and(|at| at <= now)
}

/// Whether a compromise was declared that the status has not caught up with.
pub(super) fn is_compromised(token: &ApiToken) -> bool {
    let asked = token.annotation(keys::COMPROMISED_AT).filter(|value| !value.is_empty());
    let handled = token.status.as_ref().and_then(|status| status.last_handled.as_ref());
    asked.is_some() && asked != handled.and_then(|handled| handled.compromised_at.as_deref())
}

/// The living credential with this digest.
pub(super) fn living<'a>(token: &'a ApiToken, digest: &str, now: Timestamp) -> Option<&'a Credential> {
    let status = token.status.as_ref()?;
    let mut credentials = status.credentials.iter();
    credentials
        .find(|credential| credential.digest == digest)
        .filter(|credential| credential.not_after.as_ref().is_none_or(|end| now < end.0))
}

/// Whether a gate that has seen `token` accepts a bearer with this digest at `now`.
pub(super) fn accepts(token: &ApiToken, digest: &str, now: Timestamp) -> bool {
    !token.spec.suspend
        && !is_compromised(token)
        && !is_over(token, now)
        && living(token, digest, now).is_some()
}
