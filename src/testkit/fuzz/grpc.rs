//! Envoy's `CheckRequest`, and headers whichever way they come.

use std::net::IpAddr;

use ::http::{HeaderName, HeaderValue, Method, Uri};
use prost::Message as _;
use prost::bytes::Bytes;

use super::http::{ask, header, line};
use super::reference::{self, Shown};
use super::scene::{Identity, Scene};
use crate::api::report::{MAX_PRINCIPAL, MAX_USER_AGENT};
use crate::gate::demand::{DEFAULT_HEADER, Demand};
use crate::gate::dialect::answer::{CREDENTIAL, OWNER, SCOPES, TOKEN};
use crate::gate::dialect::envoy;
use crate::gate::dialect::ext_authz::{
    AttributeContext, CheckRequest, CheckResponse, Entry, HeaderMap, HeaderValue as Field, HttpAttributes,
    HttpRequest, HttpResponse, OkHttpResponse,
};
use crate::gate::extract;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The bytes of a `CheckRequest`. Accepted: code 0.
pub fn check_request(input: &[u8]) -> bool {
    let scene = Scene::enter();
    let Ok(mut request) = CheckRequest::decode(input) else { return false };
    let http = request.attributes.as_mut().and_then(|all| all.request.as_mut()?.http.as_mut());
    if let Some(http) = http {
        // After decoding: a token is longer than its name, and every length before it would be wrong.
        for entry in &mut http.headers {
            entry.value = scene.expand(&entry.value).into();
        }
        for field in http.header_map.iter_mut().flat_map(|map| &mut map.headers) {
            field.value = scene.expand(&field.value).into();
            field.raw_value = scene.expand(&field.raw_value).into();
        }
    }
    assert_eq!(
        CheckRequest::decode(&*request.encode_to_vec()).as_ref(),
        Ok(&request),
        "it survives the wire"
    );
    is_answered(&scene, &request)
}

/// Judges one request and holds the answer to everything that has to be true of it.
fn is_answered(scene: &Scene, request: &CheckRequest) -> bool {
    let attributes = request.attributes.clone().unwrap_or_default();
    let sent = sent(&attributes);
    let extensions: Vec<(&str, &str)> =
        attributes.context_extensions.iter().map(|entry| (utf8(&entry.key), utf8(&entry.value))).collect();
    let legible = attributes
        .context_extensions
        .iter()
        .all(|entry| std::str::from_utf8(&entry.key).is_ok() && std::str::from_utf8(&entry.value).is_ok());
    let demand = Demand::from_extensions(extensions.iter().copied()).ok().filter(|_| legible);
    let api_key = demand.as_ref().map_or(DEFAULT_HEADER, Demand::header);
    let fields: Vec<(&[u8], &[u8])> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
    let named = fields.iter().map(|(name, value)| (utf8(name), *value));
    let path =
        attributes.request.as_ref().and_then(|request| request.http.as_ref()).map(|http| utf8(&http.path));
    let query = path.and_then(|path| path.split_once('?')).map(|(_, query)| query);
    let places = demand.as_ref().map(Demand::places);
    let text = places.and_then(|places| extract::credential(named, query, places).ok());
    let text = text.map(|found| found.as_str().to_owned());
    let words = extensions.iter().flat_map(|(key, value)| {
        let several = matches!(*key, "audience" | "scope");
        let parts: Vec<&str> =
            if several { value.split(' ').filter(|word| !word.is_empty()).collect() } else { vec![value] };
        parts.into_iter().map(|word| (*key, word))
    });
    let demanded: Vec<_> = words.collect();
    let sources: Vec<&str> =
        extensions.iter().filter(|(key, _)| *key == "source").map(|(_, value)| *value).collect();
    let shown = reference::shown(scene, &fields, api_key, &sources);
    let may = |identity: &Identity| identity.may(demanded.iter().copied());
    let accepted = shown.as_ref().and_then(|shown| Some((shown, shown.known.living.filter(may)?)));

    let response = envoy::check(&scene.desk, request);
    let bytes = response.encode_to_vec();
    assert_eq!(CheckResponse::decode(&*bytes).as_ref(), Ok(&response), "the answer survives the wire");
    let route: Vec<u8> = attributes.context_extensions.iter().flat_map(|entry| entry.value.clone()).collect();
    scene.tells_no_secret(&bytes, text.as_deref(), &route);
    let code = response.status.expect("a code, always: without one Envoy lets through").code;
    let passed = match response.http_response.expect("an answer, always") {
        HttpResponse::Ok(ok) => {
            assert_eq!(code, 0, "Envoy would deny");
            if accepted.is_none() && sources.iter().any(|source| reference::ELSEWHERE.contains(source)) {
                let known = reference::presented(scene, text.as_deref());
                assert!(known.and_then(|known| known.living).is_some_and(|identity| may(&identity)));
                scene.counted(text.as_deref(), known);
                return true;
            }
            let (shown, identity) = accepted.expect("only a living token that may do this is accepted");
            passes(&ok, &sent, shown, &identity, api_key);
            true
        }
        HttpResponse::Denied(denied) => {
            let status = denied.status.map(|status| status.code);
            assert!(matches!((code, status), (16, Some(401)) | (7, Some(403))), "{code} and {status:?}");
            for option in &denied.headers {
                let header = option.header.as_ref().expect("a header");
                assert_eq!(&*header.key, b"www-authenticate", "a denial carries another header");
                assert!(HeaderValue::from_bytes(&header.value).is_ok(), "no value of a header");
            }
            assert!(status == Some(403) || !denied.headers.is_empty(), "a 401 without a challenge");
            let due = accepted.is_some_and(|(shown, _)| shown.clear) && demand.is_some();
            assert!(!due, "a living token that may do this was denied");
            false
        }
    };
    scene.counted(text.as_deref(), accepted.filter(|_| code == 0).map(|(shown, _)| shown.known));
    passed
}

/// What the upstream gets once Envoy has done as it was told: who it is, and nothing else under these names; no credential.
fn passes(ok: &OkHttpResponse, sent: &Pairs, shown: &Shown<'_>, identity: &Identity, api_key: &str) {
    let mut got: Pairs =
        sent.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    for option in &ok.headers {
        assert_eq!(option.append.map(|append| append.value), Some(false), "Envoy would append");
        let header = option.header.as_ref().expect("a header");
        assert!(header.raw_value.is_empty() && !header.value.is_empty(), "Envoy takes one of the two");
        got.retain(|(name, _)| *name != header.key);
        got.push((header.key.to_vec(), header.value.to_vec()));
    }
    got.retain(|(name, _)| !ok.headers_to_remove.iter().any(|removed| removed == name));
    let all = |wanted: &str| -> Vec<&[u8]> {
        got.iter().filter(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| &**value).collect()
    };
    let expected = [
        (TOKEN, identity.token),
        (CREDENTIAL, shown.known.token.id()),
        (OWNER, identity.owner),
        (SCOPES, identity.scopes),
    ];
    for (name, value) in expected {
        let wanted: &[&[u8]] = if value.is_empty() { &[] } else { &[value.as_bytes()] };
        assert_eq!(all(name), wanted, "{name}");
    }
    let spent = if shown.header.is_empty() { api_key.to_ascii_lowercase() } else { shown.header.to_owned() };
    assert!(all(&spent).is_empty(), "the upstream gets the credential in {spent}");
}

/// The headers of a request, in both forms.
fn sent(attributes: &AttributeContext) -> Pairs {
    let http = attributes.request.as_ref().and_then(|request| request.http.clone()).unwrap_or_default();
    let raw = http
        .header_map
        .into_iter()
        .flat_map(|map| map.headers)
        .map(|field| (field.key, if field.raw_value.is_empty() { field.value } else { field.raw_value }));
    let all = http.headers.into_iter().map(|entry| (entry.key, entry.value)).chain(raw);
    all.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Headers, a line each; the first line is the name of the route's API-key header. Every way to send them has to come to
/// the same. Accepted: by all of them.
pub fn headers(input: &[u8]) -> bool {
    let scene = Scene::enter();
    let (first, rest) = line(input);
    let expanded = scene.expand(rest);
    let all: Vec<(&[u8], &[u8])> = expanded.split(|byte| *byte == b'\n').filter_map(header).collect();
    let wanted = std::str::from_utf8(first).unwrap_or_default();
    let api_key = if Demand::from_extensions([("header", wanted)]).is_ok() { wanted } else { DEFAULT_HEADER };
    callers(&all);

    let plain = HttpRequest {
        headers: all.iter().map(|(key, value)| Entry { key: copied(key), value: copied(value) }).collect(),
        ..HttpRequest::default()
    };
    let accepted = is_answered(&scene, &asking(plain, api_key));
    // Only as the raw value; a raw one that is empty is none, and the value counts: two different requests to Envoy.
    let raw = |(key, value): &(&[u8], &[u8])| Field {
        key: copied(key),
        value: Bytes::new(),
        raw_value: copied(value),
    };
    let raw = HttpRequest {
        header_map: Some(HeaderMap { headers: all.iter().map(raw).collect() }),
        ..HttpRequest::default()
    };
    assert_eq!(is_answered(&scene, &asking(raw, api_key)), accepted, "raw headers come to something else");

    let mut headers = ::http::HeaderMap::new();
    for (name, value) in &all {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
            // Over HTTP this cannot be sent.
            return accepted;
        };
        if headers.try_append(name, value).is_err() {
            return accepted;
        }
    }
    let name: String = form_urlencoded::byte_serialize(api_key.as_bytes()).collect();
    let uri = Uri::try_from(format!("/authz/nginx?header={name}")).expect("a query");
    let reply = ask(&scene, Method::GET, uri, &headers, b"");
    assert_eq!(reply.status == 200, accepted, "HTTP comes to something else");
    accepted
}

fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn asking(http: HttpRequest, api_key: &str) -> CheckRequest {
    let header = Entry { key: Bytes::from_static(b"header"), value: copied(api_key.as_bytes()) };
    let request = Some(HttpAttributes { http: Some(http) });
    CheckRequest {
        attributes: Some(AttributeContext { source: None, request, context_extensions: vec![header] }),
    }
}

/// Who calls, as these headers tell it: bounded, fit to be shown, and the address that the right proxy wrote.
fn callers(all: &[(&[u8], &[u8])]) {
    let named = |wanted: &str| -> Vec<&[u8]> {
        let is = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
        all.iter().filter(|(name, _)| is(name)).map(|(_, value)| *value).collect()
    };
    let values = named("x-forwarded-for");
    for proxies in [0, 1, 2, 7, usize::MAX - 1] {
        let found = extract::forwarded(values.iter().copied(), proxies);
        let entry = reference::forwarded(&values, proxies).and_then(|entry| String::from_utf8(entry).ok());
        assert_eq!(found, entry.as_deref().and_then(extract::address), "the entry of another proxy");
        let Some(address) = found else { continue };
        let text = address.to_string();
        assert_eq!(extract::address(&text), Some(address));
        assert!(
            !matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()),
            "one address, two names"
        );
    }
    let agents = named("user-agent");
    for agent in agents.iter().copied() {
        let shown = extract::caller(None, utf8(agent), Some(agent));
        assert!(shown.user_agent.len() <= MAX_USER_AGENT && shown.principal.len() <= MAX_PRINCIPAL);
        assert!(
            [shown.user_agent, shown.principal]
                .iter()
                .all(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        );
        assert!(agent.starts_with(shown.user_agent.as_bytes()), "a caller of another name");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::dialect::ext_authz::{BoolValue, HeaderValueOption};

    /// A response that leaves one of the client's own headers in its place is found out.
    #[test]
    #[should_panic(expected = "x-tokenward-owner")]
    fn a_header_that_is_left_alone_is_noticed() {
        let scene = Scene::enter();
        let sent: Pairs = vec![(b"x-tokenward-owner".to_vec(), b"somebody".to_vec())];
        let known = &scene.known[1];
        let set = |key: &str, value: &str| HeaderValueOption {
            header: Some(Field {
                key: copied(key.as_bytes()),
                value: copied(value.as_bytes()),
                raw_value: Bytes::new(),
            }),
            append: Some(BoolValue { value: false }),
        };
        let ok = OkHttpResponse {
            headers: vec![set(TOKEN, "shop/plain"), set(CREDENTIAL, known.token.id())],
            headers_to_remove: vec![copied(SCOPES.as_bytes()), copied(b"authorization")],
            query_parameters_to_remove: Vec::new(),
        };
        let shown = Shown { known, header: "authorization", clear: true };
        passes(&ok, &sent, &shown, &known.living.unwrap(), DEFAULT_HEADER);
    }
}
