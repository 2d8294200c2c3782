//! Envoy's messages, byte for byte where it matters.

use super::super::ext_authz::{Address, HeaderMap, HttpAttributes, METHOD, Peer, SocketAddress};
use super::super::testing::Scene;
use super::*;
use crate::domain::token::Token;
use crate::platform::grpc;
use proptest::prelude::*;
use prost::Message;

/// How Envoy sends headers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// `headers`: one value of each name.
    Joined,
    /// `header_map`, with `encode_raw_headers`.
    Raw,
}

fn bytes(text: &[u8]) -> Bytes {
    Bytes::copy_from_slice(text)
}

fn entry(key: &str, value: &[u8]) -> Entry {
    Entry { key: bytes(key.as_bytes()), value: bytes(value) }
}

fn request(mode: Mode, extensions: &[(&str, &str)], headers: &[(&str, &[u8])]) -> CheckRequest {
    let mut http = HttpRequest::default();
    match mode {
        Mode::Joined => http.headers = headers.iter().map(|(key, value)| entry(key, value)).collect(),
        Mode::Raw => {
            let raw = |(key, value): &(&str, &[u8])| HeaderValue {
                key: bytes(key.as_bytes()),
                value: Bytes::new(),
                raw_value: bytes(value),
            };
            http.header_map = Some(HeaderMap { headers: headers.iter().map(raw).collect() });
        }
    }
    let socket_address = Some(SocketAddress { address: bytes(b"10.0.0.7") });
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: Some(Address { socket_address }),
                principal: bytes(b"spiffe://c/ns/web"),
            }),
            request: Some(HttpAttributes { http: Some(http) }),
            context_extensions: extensions.iter().map(|(key, value)| entry(key, value.as_bytes())).collect(),
        }),
    }
}

fn ask(scene: &Scene, mode: Mode, extensions: &[(&str, &str)], headers: &[(&str, &[u8])]) -> CheckResponse {
    // As it travels: whatever is asked has been through the wire.
    let request = request(mode, extensions, headers).encode_to_vec();
    check(&scene.desk, &CheckRequest::decode(&*request).expect("a message"))
}

fn bearer(token: &Token) -> Vec<u8> {
    format!("Bearer {}", token.expose()).into_bytes()
}

fn shown(options: &[HeaderValueOption]) -> Vec<(String, String)> {
    let shown = |option: &HeaderValueOption| {
        assert_eq!(option.append, Some(BoolValue { value: false }), "overwrites, and says so");
        let header = option.header.as_ref().expect("a header");
        (text(&header.key).to_owned(), text(&header.value).to_owned())
    };
    options.iter().map(shown).collect()
}

/// Headers that are set, and headers that are removed.
type Changes = (Vec<(String, String)>, Vec<String>);

fn passed(response: &CheckResponse) -> Option<Changes> {
    match (&response.status, &response.http_response) {
        (Some(Status { code: 0 }), Some(HttpResponse::Ok(ok))) => Some((
            shown(&ok.headers),
            ok.headers_to_remove.iter().map(|name| text(name).to_owned()).collect(),
        )),
        _ => None,
    }
}

/// (gRPC code, HTTP status, challenges)
fn denied_with(response: &CheckResponse) -> (i32, i32, Vec<String>) {
    let Some(HttpResponse::Denied(denied)) = &response.http_response else { panic!("{response:?}") };
    let challenges = shown(&denied.headers).into_iter().map(|(name, value)| {
        assert_eq!(name, "www-authenticate");
        value
    });
    let code = response.status.as_ref().expect("always there").code;
    (code, denied.status.as_ref().expect("always there").code, challenges.collect())
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn identity_headers_are_set_or_removed_and_the_credential_goes() {
    let scene = Scene::new();
    let route = [("audience", "orders"), ("scope", "orders:read orders:write")];
    for mode in [Mode::Joined, Mode::Raw] {
        let spoofs: [(&str, &[u8]); 5] = [
            ("x-tokenward-token", b"evil/evil"),
            ("x-tokenward-credential", b"evil"),
            ("x-tokenward-owner", b"evil"),
            ("x-tokenward-scopes", b"admin"),
            (":path", b"/orders"),
        ];
        let credential = bearer(&scene.orders);
        let headers = [&[("authorization", &*credential)][..], &spoofs].concat();
        let (set, removed) = passed(&ask(&scene, mode, &route, &headers)).expect("may pass");
        let wanted = [
            pair("x-tokenward-token", "shop/orders"),
            pair("x-tokenward-credential", scene.orders.id()),
            pair("x-tokenward-owner", "payments"),
            pair("x-tokenward-scopes", "orders:read orders:write"),
        ];
        assert_eq!(set, wanted);
        assert_eq!(removed, ["authorization"]);

        let key = scene.plain.expose().as_bytes();
        let route = [("header", "X-Orders-Key")];
        let (set, removed) = passed(&ask(&scene, mode, &route, &[("x-orders-key", key)])).expect("may pass");
        assert_eq!(
            set,
            [wanted[0].0.as_str(), "x-tokenward-credential"].map(|name| {
                pair(name, if name == "x-tokenward-token" { "shop/plain" } else { scene.plain.id() })
            })
        );
        assert_eq!(removed, ["x-tokenward-owner", "x-tokenward-scopes", "x-orders-key"]);
    }
    assert_eq!(scene.count(Dialect::EnvoyGrpc, Outcome::Accepted), 4);
}

#[test]
fn every_denial_to_the_letter() {
    let scene = Scene::new();
    let (orders, former) = (bearer(&scene.orders), bearer(&scene.former));
    let (orders, former) = (&*orders, &*former);
    let twice = [orders, b",", orders].concat();
    let missing = "Bearer realm=\"tokenward\"";
    let basic = "Basic realm=\"tokenward\"";
    let invalid = "Bearer realm=\"tokenward\", error=\"invalid_token\"";
    let scope = "Bearer realm=\"tokenward\", error=\"insufficient_scope\", scope=\"orders:read admin\"";
    let (auth, key) = ("authorization", "x-api-key");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a [u8])], Outcome, (i32, i32), &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&[], &[], Outcome::Missing, (16, 401), &[missing]),
        (&[("challenge", "basic")], &[], Outcome::Missing, (16, 401), &[basic, missing]),
        (&[], &[(auth, b"")], Outcome::Missing, (16, 401), &[missing]),
        // Envoy joins a repeated Authorization always; a repeated API key only without raw headers.
        (&[], &[(auth, &twice)], Outcome::Malformed, (16, 401), &[invalid]),
        (&[], &[(key, b"1,2")], Outcome::Malformed, (16, 401), &[invalid]),
        (&[], &[(key, b"1"), (key, b"2")], Outcome::Conflicting, (16, 401), &[invalid]),
        (&[], &[(auth, orders), (key, b"2")], Outcome::Conflicting, (16, 401), &[invalid]),
        // Non-ASCII bytes, as they are and as Envoy replaces them.
        (&[], &[(auth, b"Bearer \xe9\xff")], Outcome::Malformed, (16, 401), &[invalid]),
        (&[], &[(auth, b"Bearer !!")], Outcome::Malformed, (16, 401), &[invalid]),
        (&[], &[(auth, former)], Outcome::Ended, (16, 401), &[invalid]),
        (&[("audience", "orders billing")], &[(auth, orders)], Outcome::WrongAudience, (16, 401), &[invalid]),
        (&[("scope", "orders:read admin")], &[(auth, orders)], Outcome::MissingScope, (7, 403), &[scope]),
        (&[("scopes", "orders:read")], &[(auth, orders)], Outcome::Misrouted, (7, 403), &[]),
        (&[("scope", "")], &[(auth, orders)], Outcome::Misrouted, (7, 403), &[]),
    ];
    for (extensions, headers, outcome, (code, status), challenges) in cases {
        for mode in [Mode::Joined, Mode::Raw] {
            let before = scene.count(Dialect::EnvoyGrpc, *outcome);
            let response = ask(&scene, mode, extensions, headers);
            let wanted: Vec<String> = challenges.iter().map(|challenge| (*challenge).to_owned()).collect();
            assert_eq!(
                denied_with(&response),
                (*code, *status, wanted),
                "{mode:?} {extensions:?} {headers:?}"
            );
            assert_eq!(scene.count(Dialect::EnvoyGrpc, *outcome), before + 1, "{outcome}");
        }
    }
}

#[test]
fn what_is_there_twice_in_two_forms_is_a_conflict() {
    let scene = Scene::new();
    let credential = bearer(&scene.orders);
    let headers: [(&str, &[u8]); 1] = [("authorization", &credential)];
    let mut both = request(Mode::Joined, &[], &headers);
    let raw = request(Mode::Raw, &[], &headers);
    let map = |request: &CheckRequest| {
        request.attributes.as_ref()?.request.as_ref()?.http.as_ref()?.header_map.clone()
    };
    if let Some(http) = both.attributes.as_mut().and_then(|all| all.request.as_mut()?.http.as_mut()) {
        http.header_map = map(&raw);
    }
    assert_eq!(denied_with(&check(&scene.desk, &both)).1, 401);
    assert_eq!(scene.count(Dialect::EnvoyGrpc, Outcome::Conflicting), 1);
}

#[test]
fn nothing_at_all_is_denied() {
    let scene = Scene::new();
    assert_eq!(denied_with(&check(&scene.desk, &CheckRequest::default())).1, 401);
    let closed = Scene::closed();
    let credential = bearer(&closed.orders);
    let response = ask(&closed, Mode::Joined, &[], &[("authorization", &credential)]);
    assert_eq!(denied_with(&response), (7, 403, Vec::new()));
    assert_eq!(closed.count(Dialect::EnvoyGrpc, Outcome::NotReady), 1);
}

#[test]
fn the_caller_is_the_peer_of_the_last_hop_and_its_principal() {
    for (trusted, wanted) in [(0, "10.0.0.7"), (1, "1.2.3.4"), (2, "6.6.6.6")] {
        for mode in [Mode::Joined, Mode::Raw] {
            let scene = Scene::trusting(trusted);
            let credential = bearer(&scene.orders);
            let headers: [(&str, &[u8]); 4] = [
                ("authorization", &credential),
                ("x-forwarded-for", b"6.6.6.6,1.2.3.4,10.0.0.7"),
                ("x-forwarded-client-cert", b"URI=spiffe://evil"),
                ("user-agent", b"curl/8.5"),
            ];
            assert!(passed(&ask(&scene, mode, &[], &headers)).is_some());
            let caller = scene.caller().expect("one");
            assert_eq!((&*caller.address, &*caller.user_agent), (wanted, "curl/8.5"));
            assert_eq!(caller.principal, "spiffe://c/ns/web");
        }
    }
}

/// Field numbers as Envoy's own files have them: a message put together by hand.
#[test]
fn the_wire_is_envoys() {
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend_from_slice(content);
        out
    }
    let scene = Scene::new();
    let credential = bearer(&scene.orders);
    let pair = |key: &[u8], value: &[u8]| [field(1, key), field(2, value)].concat();
    let raw = |key: &[u8], value: &[u8]| [field(1, key), field(3, value)].concat();
    let socket = [vec![0x08, 0x00], field(2, b"192.0.2.9"), vec![0x18, 0xd2, 0x09]].concat();
    let source = [field(1, &field(1, &socket)), field(2, b"claimed"), field(4, b"spiffe://x")].concat();
    for header in [
        field(3, &pair(b"authorization", &credential)),
        field(13, &field(1, &raw(b"authorization", &credential))),
    ] {
        let http =
            [field(1, b"id"), field(2, b"GET"), header, field(4, b"/orders"), field(5, b"host")].concat();
        let request = [field(1, &[0x08, 0x01]), field(2, &http)].concat();
        let attributes = [
            field(1, &source),
            field(2, b""),
            field(4, &request),
            field(10, &pair(b"audience", b"orders")),
            field(10, &pair(b"scope", b"orders:read")),
            field(11, b""),
        ]
        .concat();
        let message = field(1, &attributes);
        let response = check(&scene.desk, &CheckRequest::decode(&*message).expect("a message"));
        assert!(passed(&response).is_some(), "{response:?}");
        let caller = scene.caller().expect("one");
        assert_eq!((&*caller.address, &*caller.principal), ("192.0.2.9", "spiffe://x"));

        let option =
            |key: &[u8], value: &[u8]| field(2, &[field(1, &pair(key, value)), field(2, b"")].concat());
        let ok = [
            option(b"x-tokenward-token", b"shop/orders"),
            option(b"x-tokenward-credential", scene.orders.id().as_bytes()),
            option(b"x-tokenward-owner", b"payments"),
            option(b"x-tokenward-scopes", b"orders:read orders:write"),
            field(5, b"authorization"),
        ]
        .concat();
        assert_eq!(response.encode_to_vec(), [field(1, b""), field(3, &ok)].concat());
    }
    let response = check(&scene.desk, &CheckRequest::default()).encode_to_vec();
    let challenge = pair(b"www-authenticate", b"Bearer realm=\"tokenward\"");
    let option = field(2, &[field(1, &challenge), field(2, b"")].concat());
    let denied = [field(1, &[0x08, 0x91, 0x03]), option].concat();
    assert_eq!(response, [field(1, &[0x08, 0x10]), field(2, &denied)].concat());
}

/// Whatever arrives is answered, and only a credential that is known passes.
#[test]
fn any_message_is_denied() {
    let scene = Scene::new();
    proptest!(|(noise in proptest::collection::vec(any::<u8>(), 0..200))| {
        if let Ok(request) = CheckRequest::decode(&*noise) {
            prop_assert!(passed(&check(&scene.desk, &request)).is_none());
        }
    });
}

#[tokio::test]
async fn it_is_served_over_grpc_and_too_long_a_message_is_refused() {
    let scene = Scene::new();
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let desk = scene.desk.clone();
    let service = grpc::unary(METHOD, MAX_CHECK, move |request: tonic::Request<CheckRequest>| {
        std::future::ready(Ok(tonic::Response::new(check(&desk, request.get_ref()))))
    });
    tokio::spawn(async move {
        let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        server.serve_connection(hyper_util::rt::TokioIo::new(theirs), service).await
    });
    let connection = grpc::Connection::over(ours).await.expect("HTTP/2");
    let call = |request| {
        connection.call::<CheckRequest, CheckResponse>(METHOD, 1 << 20, tonic::Request::new(request))
    };
    let credential = bearer(&scene.orders);
    let headers: [(&str, &[u8]); 1] = [("authorization", &credential)];
    let response = call(request(Mode::Raw, &[], &headers)).await.expect("answered");
    assert!(passed(response.get_ref()).is_some());
    let long = vec![b'x'; MAX_CHECK];
    let error = call(request(Mode::Raw, &[], &[("cookie", &long)])).await.expect_err("too long");
    assert_eq!(error.code(), tonic::Code::OutOfRange);
}
