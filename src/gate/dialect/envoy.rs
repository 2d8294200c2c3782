//! Envoy's `ext_authz` over gRPC.

use std::net::IpAddr;
use std::time::Instant;

use prost::bytes::Bytes;

use super::Desk;
use super::answer::{self, Answer, Identity, answer};
use super::ext_authz::{
    AttributeContext, BoolValue, CheckRequest, CheckResponse, DeniedHttpResponse, Entry, HeaderValue,
    HeaderValueOption, HttpRequest, HttpResponse, HttpStatus, OkHttpResponse, Status,
};
use crate::api::Outcome;
use crate::gate::demand::Demand;
use crate::gate::extract::{self, Credential, Source};
use crate::gate::metrics::Dialect;

/// Longest message, in bytes. Envoy's own limit for a request's headers is 60 KiB.
pub const MAX_CHECK: usize = 64 * 1024;

/// `google.rpc.Code`.
const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;

/// Names of the identity headers, without a copy for each answer.
const TOKEN: Bytes = Bytes::from_static(answer::TOKEN.as_bytes());
const CREDENTIAL: Bytes = Bytes::from_static(answer::CREDENTIAL.as_bytes());
const OWNER: Bytes = Bytes::from_static(answer::OWNER.as_bytes());
const SCOPES: Bytes = Bytes::from_static(answer::SCOPES.as_bytes());
const AUTHORIZATION: Bytes = Bytes::from_static(b"authorization");
const WWW_AUTHENTICATE: Bytes = Bytes::from_static(b"www-authenticate");

/// Judges one `CheckRequest`.
pub fn check(desk: &Desk, request: &CheckRequest) -> CheckResponse {
    let (began, now) = (Instant::now(), desk.now());
    let nothing = AttributeContext::default();
    let attributes = request.attributes.as_ref().unwrap_or(&nothing);
    let response = match demand(attributes) {
        // Fails closed: what the route demands is not known.
        Err(outcome) => {
            desk.misrouted(Dialect::EnvoyGrpc, || Demand::misfit_in_extensions(extensions(attributes)));
            let verdict = desk.gate.refuse(Dialect::EnvoyGrpc, outcome, now);
            respond(&answer(&verdict, &Demand::none()), None, &Demand::none())
        }
        Ok(demand) => {
            let empty = HttpRequest::default();
            let http =
                attributes.request.as_ref().and_then(|request| request.http.as_ref()).unwrap_or(&empty);
            // A path that is not UTF-8 holds no token that could be read.
            let query = text(&http.path).split_once('?').map(|(_, query)| query);
            let credential = extract::credential(headers(http), query, demand.places());
            let agent = headers(http).find(|(name, _)| *name == "user-agent").map(|(_, value)| value);
            let principal =
                attributes.source.as_ref().map(|source| text(&source.principal)).unwrap_or_default();
            let caller = extract::caller(address(desk, attributes, http), principal, agent);
            let presented = credential.as_ref().map(Credential::as_str).map_err(|outcome| *outcome);
            let verdict = desk.gate.check(Dialect::EnvoyGrpc, presented, &demand, &caller, now);
            let source = credential.as_ref().ok().map(Credential::source);
            respond(&answer(&verdict, &demand), source, &demand)
        }
    };
    desk.gate.recorder().took(Dialect::EnvoyGrpc, began.elapsed());
    response
}

fn demand(attributes: &AttributeContext) -> Result<Demand<'_>, Outcome> {
    // Fails closed: an extension that is no text cannot be understood.
    let legible =
        |entry: &Entry| std::str::from_utf8(&entry.key).is_ok() && std::str::from_utf8(&entry.value).is_ok();
    if !attributes.context_extensions.iter().all(legible) {
        return Err(Outcome::Misrouted);
    }
    Demand::from_extensions(extensions(attributes))
}

fn extensions(attributes: &AttributeContext) -> impl Iterator<Item = (&str, &str)> {
    attributes.context_extensions.iter().map(|entry| (text(&entry.key), text(&entry.value)))
}

/// All headers, in whichever form Envoy sends them; were it both, what stands in both would be a conflict.
fn headers(http: &HttpRequest) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
    let raw = http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
        // With `encode_raw_headers` only the raw value is set; an empty header has neither.
        let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
        (text(&header.key), &**value)
    });
    http.headers.iter().map(|entry| (text(&entry.key), &*entry.value)).chain(raw)
}

/// A text that is not UTF-8 is none: no header and no key has such a name.
fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Without trusted proxies before this one, the address that Envoy saw; else what they say.
fn address(desk: &Desk, attributes: &AttributeContext, http: &HttpRequest) -> Option<IpAddr> {
    let seen = || {
        let address = attributes.source.as_ref()?.address.as_ref()?.socket_address.as_ref()?;
        extract::address(text(&address.address))
    };
    if desk.trusted_proxies == 0 {
        return seen();
    }
    let forwarded = headers(http).filter(|(name, _)| *name == "x-forwarded-for").map(|(_, value)| value);
    desk.forwarded(forwarded).or_else(seen)
}

fn respond(answer: &Answer<'_>, source: Option<Source>, demand: &Demand<'_>) -> CheckResponse {
    match answer {
        Answer::Pass(identity) => pass(identity, source, demand),
        Answer::Unauthorized(challenges) => {
            // Overwriting, each of them: Envoy drops one that appends where there is nothing yet, and adds one that
            // overwrites where there is one already.
            let challenges = challenges
                .iter()
                .map(|challenge| set(WWW_AUTHENTICATE, Bytes::from_static(challenge.as_bytes())));
            denied(UNAUTHENTICATED, 401, challenges.collect())
        }
        Answer::Scope(challenge) => denied(
            PERMISSION_DENIED,
            403,
            vec![set(WWW_AUTHENTICATE, Bytes::copy_from_slice(challenge.as_bytes()))],
        ),
        Answer::Forbidden => denied(PERMISSION_DENIED, 403, Vec::new()),
    }
}

/// Every identity header is either set or removed, never both and never neither: nothing of what the client sent under
/// these names reaches the upstream.
fn pass(identity: &Identity<'_>, source: Option<Source>, demand: &Demand<'_>) -> CheckResponse {
    let record = identity.record;
    let credential = identity.credential_text();
    let parts = [
        (TOKEN, record.token().as_bytes()),
        (CREDENTIAL, credential.as_bytes()),
        (OWNER, record.owner().as_bytes()),
        (SCOPES, record.scopes().as_bytes()),
    ];
    let mut ok = OkHttpResponse {
        headers: Vec::with_capacity(parts.len()),
        headers_to_remove: Vec::with_capacity(2),
        query_parameters_to_remove: Vec::new(),
    };
    // One copy for all four.
    let all: Vec<u8> = parts.iter().flat_map(|(_, value)| *value).copied().collect();
    let mut rest = Bytes::from(all);
    for (name, value) in parts {
        if value.is_empty() {
            ok.headers_to_remove.push(name);
        } else {
            ok.headers.push(set(name, rest.split_to(value.len())));
        }
    }
    match source {
        Some(Source::ApiKey) => {
            let name = demand.header().to_ascii_lowercase();
            ok.headers_to_remove.push(Bytes::copy_from_slice(name.as_bytes()));
        }
        Some(Source::Query) => {
            let name = demand.places().query.unwrap_or_default();
            ok.query_parameters_to_remove.push(Bytes::copy_from_slice(name.as_bytes()));
        }
        // Those headers hold more than the credential.
        Some(Source::Cookie | Source::WebSocket) => {}
        Some(Source::Bearer | Source::Basic) | None => ok.headers_to_remove.push(AUTHORIZATION),
    }
    CheckResponse { status: Some(Status { code: OK }), http_response: Some(HttpResponse::Ok(ok)) }
}

fn denied(code: i32, status: i32, headers: Vec<HeaderValueOption>) -> CheckResponse {
    let denied = DeniedHttpResponse { status: Some(HttpStatus { code: status }), headers };
    CheckResponse { status: Some(Status { code }), http_response: Some(HttpResponse::Denied(denied)) }
}

fn set(key: Bytes, value: Bytes) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key, value, raw_value: Bytes::new() }),
        append: Some(BoolValue { value: false }),
    }
}

#[cfg(test)]
mod tests;
