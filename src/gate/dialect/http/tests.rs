//! Each proxy's question, and the answer to the letter.

use super::super::testing::Scene;
use super::*;
use crate::gate::metrics::Dialect;
use crate::platform::grpc;
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;

const ROUTES: [(&str, Dialect); 4] = [
    ("/authz/nginx?", Dialect::Nginx),
    ("/authz/traefik?", Dialect::Traefik),
    ("/authz/caddy?", Dialect::Caddy),
    ("/authz/envoy?", Dialect::EnvoyHttp),
];

/// Status, and all headers in order.
type Told = (u16, Vec<(String, String)>);

fn service(scene: &Scene) -> HttpGate {
    HttpGate::new(scene.desk.clone(), Introspection::by_scope())
}

fn ask(scene: &Scene, method: &str, uri: &str, headers: &[(&str, &str)]) -> Told {
    let raw: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    ask_raw(scene, method, uri, &raw)
}

fn ask_raw(scene: &Scene, method: &str, uri: &str, headers: &[(&str, &[u8])]) -> Told {
    // A route of the tables below without a query.
    let uri = uri.strip_suffix('?').unwrap_or(uri);
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).expect("a value"));
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = match service(scene).call(request) {
        Either::Left(answer) => answer.into_inner().expect("infallible"),
        Either::Right(_) => panic!("not at once"),
    };
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = answer.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    (answer.status().as_u16(), headers.collect())
}

fn bearer_of(token: &crate::domain::token::Token) -> String {
    format!("Bearer {}", token.expose())
}

fn told(status: u16, headers: &[(&str, &str)]) -> Told {
    (status, headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn who_may_pass_is_named_in_all_four_headers_whatever_the_client_sent() {
    let scene = Scene::new();
    let spoofs = [
        ("x-tokenward-token", "evil/evil"),
        ("x-tokenward-credential", "evil"),
        ("X-Tokenward-Owner", "evil"),
        ("x-tokenward-scopes", "admin"),
        ("x-tokenward-scopes", "admin2"),
        ("x-envoy-auth-headers-to-remove", "x-real"),
    ];
    for (route, dialect) in ROUTES {
        for method in ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PROPFIND"] {
            let bearer = bearer_of(&scene.orders);
            let headers = [&[("Authorization", bearer.as_str())], &spoofs[..]].concat();
            let uri = format!("{route}audience=orders&scope=orders:read&scope=orders%3Awrite");
            let mut wanted = vec![
                ("x-tokenward-token", "shop/orders"),
                ("x-tokenward-credential", scene.orders.id()),
                ("x-tokenward-owner", "payments"),
                ("x-tokenward-scopes", "orders:read orders:write"),
            ];
            if dialect == Dialect::EnvoyHttp {
                wanted.push(("x-envoy-auth-headers-to-remove", "authorization"));
            }
            assert_eq!(ask(&scene, method, &uri, &headers), told(200, &wanted), "{method} {uri}");
        }
        assert_eq!(scene.count(dialect, Outcome::Accepted), 6);
        // Without owner and scopes the headers are there and empty: they overwrite.
        let bearer = bearer_of(&scene.plain);
        let (status, headers) = ask(&scene, "GET", route, &[("authorization", &bearer)]);
        assert_eq!(status, 200);
        assert_eq!(headers[2], ("x-tokenward-owner".to_owned(), String::new()));
        assert_eq!(headers[3], ("x-tokenward-scopes".to_owned(), String::new()));
    }
}

#[test]
fn every_way_to_send_a_credential_and_which_header_envoy_removes() {
    let scene = Scene::new();
    let token = scene.orders.expose();
    let basic = |user: &str| {
        use base64::Engine as _;
        let text = format!("{user}:{token}");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    };
    for (query, name, value, removed) in [
        ("", "authorization", format!("Bearer {token}"), "authorization"),
        ("", "authorization", format!("bearer   {token}"), "authorization"),
        ("", "authorization", basic("git"), "authorization"),
        ("", "authorization", basic(""), "authorization"),
        ("", "x-api-key", token.to_owned(), "x-api-key"),
        ("header=X-Orders-Key", "x-orders-key", token.to_owned(), "X-Orders-Key"),
    ] {
        for (route, dialect) in ROUTES {
            let (status, headers) = ask(&scene, "GET", &format!("{route}{query}"), &[(name, &value)]);
            assert_eq!(status, 200, "{route}{query} {name}");
            let found = headers.iter().find(|(name, _)| name == "x-envoy-auth-headers-to-remove");
            let found = found.map(|(_, value)| value.as_str());
            assert_eq!(found, (dialect == Dialect::EnvoyHttp).then_some(removed));
        }
    }
    // The default header counts for nothing where the route names another.
    let elsewhere = ask(&scene, "GET", "/authz/nginx?header=x-orders-key", &[("x-api-key", token)]);
    assert_eq!(elsewhere.0, 401);
}

#[test]
fn every_denial_to_the_letter() {
    let scene = Scene::new();
    let missing = ("www-authenticate", "Bearer realm=\"tokenward\"");
    let basic = ("www-authenticate", "Basic realm=\"tokenward\"");
    let invalid = ("www-authenticate", "Bearer realm=\"tokenward\", error=\"invalid_token\"");
    let (orders, former) = (bearer_of(&scene.orders), bearer_of(&scene.former));
    let orders = orders.as_str();
    let broken = format!("{}x", &orders[..orders.len() - 1]);
    let foreign = bearer_of(&crate::gate::fixtures::minted("acme", 1));
    let unknown = bearer_of(&crate::gate::fixtures::minted("twd", 99));
    let twice = format!("{orders},{orders}");
    let (auth, key) = ("authorization", "x-api-key");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Headers<'_>, Outcome, u16, Headers<'_>)] = &[
        ("", &[], Outcome::Missing, 401, &[missing]),
        ("challenge=basic", &[], Outcome::Missing, 401, &[basic, missing]),
        ("", &[(auth, "Negotiate abc")], Outcome::Missing, 401, &[missing]),
        ("", &[(auth, orders), (auth, orders)], Outcome::Conflicting, 401, &[invalid]),
        ("", &[(auth, orders), (key, "x")], Outcome::Conflicting, 401, &[invalid]),
        ("challenge=basic", &[(key, "a"), (key, "a")], Outcome::Conflicting, 401, &[invalid]),
        // As Envoy joins repeated ones.
        ("", &[(auth, &twice)], Outcome::Malformed, 401, &[invalid]),
        ("", &[(auth, "Bearer")], Outcome::Malformed, 401, &[invalid]),
        ("", &[(key, "1,2")], Outcome::Malformed, 401, &[invalid]),
        ("", &[(auth, "Basic !!!")], Outcome::Malformed, 401, &[invalid]),
        ("", &[(auth, &broken)], Outcome::BadChecksum, 401, &[invalid]),
        ("", &[(auth, &foreign)], Outcome::ForeignPrefix, 401, &[invalid]),
        ("", &[(auth, &unknown)], Outcome::UnknownCredential, 401, &[invalid]),
        ("", &[(auth, &former)], Outcome::Ended, 401, &[invalid]),
        ("audience=billing", &[(auth, orders)], Outcome::WrongAudience, 401, &[invalid]),
        ("audience=orders&audience=b", &[(auth, orders)], Outcome::WrongAudience, 401, &[invalid]),
        (
            "scope=orders:read&scope=admin",
            &[(auth, orders)],
            Outcome::MissingScope,
            403,
            &[(
                "www-authenticate",
                "Bearer realm=\"tokenward\", error=\"insufficient_scope\", scope=\"orders:read admin\"",
            )],
        ),
        ("scopes=orders:read", &[(auth, orders)], Outcome::Misrouted, 403, &[]),
        ("scope=", &[(auth, orders)], Outcome::Misrouted, 403, &[]),
        ("audience=%zz", &[(auth, orders)], Outcome::Misrouted, 403, &[]),
        ("header=authorization", &[(auth, orders)], Outcome::Misrouted, 403, &[]),
    ];
    for (query, headers, outcome, status, wanted) in cases {
        for (route, dialect) in ROUTES {
            let before = scene.count(dialect, *outcome);
            let uri = format!("{route}{query}");
            assert_eq!(ask(&scene, "GET", &uri, headers), told(*status, wanted), "{uri} {headers:?}");
            assert_eq!(scene.count(dialect, *outcome), before + 1, "{uri}: {outcome}");
        }
    }
    assert_eq!(scene.count(Dialect::Nginx, Outcome::Accepted), 0);
}

#[test]
fn bytes_that_are_no_text_are_denied() {
    let scene = Scene::new();
    for value in [&b"Bearer \xe9\xff"[..], b"\xff", b"Bearer \tx\t\xa0", b"", b" "] {
        let (status, _) = ask_raw(&scene, "GET", "/authz/envoy", &[("authorization", value)]);
        assert_eq!(status, 401, "{value:?}");
    }
    let oversize = format!("Bearer {}", "x".repeat(8_000));
    assert_eq!(ask(&scene, "GET", "/authz/nginx", &[("authorization", &oversize)]).0, 401);
}

#[test]
fn before_the_index_is_loaded_everything_is_denied_and_no_credential_is_called_invalid() {
    let scene = Scene::closed();
    let bearer = bearer_of(&scene.orders);
    for (route, dialect) in ROUTES {
        assert_eq!(ask(&scene, "GET", route, &[("authorization", &bearer)]), told(403, &[]));
        assert_eq!(ask(&scene, "GET", route, &[]), told(403, &[]));
        assert_eq!(scene.count(dialect, Outcome::NotReady), 2);
    }
}

#[test]
fn what_envoy_appends_to_its_prefix_changes_no_demand() {
    let scene = Scene::new();
    let bearer = bearer_of(&scene.orders);
    for (uri, status) in [
        // Exactly as Envoy 1.40 writes it.
        ("/authz/envoy?audience=orders&scope=orders:read&path=/p?audience=evil&path=x", 200),
        ("/authz/envoy?audience=billing&path=/p?audience=orders&path=x", 401),
        ("/authz/envoy?scope=admin&path=/p?scope=orders:read", 403),
        ("/authz/envoy?path=/p?scope=admin", 200),
        // The same as a path.
        ("/authz/envoy/audience=orders&scope=orders:read&path=/p?scope=admin", 200),
        ("/authz/envoy/audience=billing&path=/p", 401),
        ("/authz/envoy/header=x-other&path=/p", 403),
        ("/authz/envoy/scopes=a&path=/p", 403),
        // Nothing appended: `path_override`.
        ("/authz/envoy?audience=orders&scope=orders:read", 200),
        ("/authz/envoy?audience=billing", 401),
        ("/authz/envoy", 200),
        // A bare prefix.
        ("/authz/envoy/orders/1?scope=admin&x=%zz", 200),
        ("/authz/envoy/", 200),
        ("/authz/envoy/orders/audience=billing&path=/", 200),
        // A prefix whose `path=` was forgotten lets nobody through.
        ("/authz/envoy?audience=orders/p", 401),
        ("/authz/envoy?audience=orders/p&path=/", 401),
        ("/authz/envoy?audience=orders*", 401),
        ("/authz/envoy?scope=orders:read/p?x", 403),
    ] {
        assert_eq!(ask(&scene, "GET", uri, &[("authorization", &bearer)]).0, status, "{uri}");
    }
}

/// Whatever the client's path: a route that demands what the token lacks never lets it through.
#[test]
fn no_path_talks_a_demand_away() {
    let scene = Scene::new();
    let bearer = bearer_of(&scene.orders);
    proptest!(|(client in "[/?&=a-z%:]{0,30}", prefix in 0..4_usize)| {
        let prefix = [
            "/authz/envoy?audience=billing&path=",
            "/authz/envoy/audience=billing&path=",
            "/authz/envoy?audience=billing",
            "/authz/envoy/scope=admin&path=",
        ][prefix];
        let uri = format!("{prefix}/{client}");
        if uri.parse::<::http::Uri>().is_ok() {
            prop_assert_ne!(ask(&scene, "GET", &uri, &[("authorization", &bearer)]).0, 200);
        }
    });
}

#[test]
fn other_paths_are_not_there() {
    let scene = Scene::new();
    let bearer = bearer_of(&scene.orders);
    for path in [
        "/",
        "/authz",
        "/authz/",
        "/authz/nginx/",
        "/authz/nginx/orders",
        "/authz/NGINX",
        "/authz/haproxy",
        "/authz/envoyx",
        "/authz/envoy%2f",
        "/metrics",
        "/introspect/",
        "*",
    ] {
        assert_eq!(ask(&scene, "OPTIONS", path, &[("authorization", &bearer)]), told(404, &[]), "{path}");
    }
    assert_eq!(ask(&scene, "GET", "/introspect", &[]), told(405, &[("allow", "POST")]));
}

#[test]
fn the_caller_is_whom_the_asking_proxy_saw() {
    let agent = ("user-agent", "curl/8.5");
    for (trusted, lines, wanted) in [
        (0, &["1.2.3.4, 10.0.0.7"][..], "10.0.0.7"),
        (0, &["1.2.3.4,10.0.0.7"], "10.0.0.7"),
        (0, &["6.6.6.6", "10.0.0.7"], "10.0.0.7"),
        (0, &["2001:db8::1"], "2001:db8::1"),
        (0, &["1.2.3.4, nonsense"], ""),
        (0, &[], ""),
        (1, &["6.6.6.6, 1.2.3.4, 10.0.0.7"], "1.2.3.4"),
        (2, &["6.6.6.6, 1.2.3.4", "10.0.0.7"], "6.6.6.6"),
    ] {
        let scene = Scene::trusting(trusted);
        let bearer = bearer_of(&scene.orders);
        let forwarded = lines.iter().map(|line| ("x-forwarded-for", *line));
        // Nothing of this is believed.
        let spoofs = [
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-client-cert", "URI=spiffe://evil"),
            ("x-envoy-external-address", "6.6.6.6"),
        ];
        for (route, _) in ROUTES {
            let headers: Vec<_> = [agent, ("authorization", &*bearer)]
                .into_iter()
                .chain(forwarded.clone())
                .chain(spoofs)
                .collect();
            assert_eq!(ask(&scene, "GET", route, &headers).0, 200);
            let caller = scene.caller().expect("one");
            assert_eq!((&*caller.address, &*caller.user_agent), (wanted, "curl/8.5"), "{route} {lines:?}");
            assert_eq!(caller.principal, "", "nobody vouches for one over HTTP");
        }
    }
}

#[tokio::test]
async fn a_whole_http2_request_is_answered() {
    // The service as `serve` uses it, over HTTP/2, with a body that nobody reads.
    let scene = Scene::new();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let service = service(&scene);
    tokio::spawn(async move {
        let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        server.serve_connection(hyper_util::rt::TokioIo::new(theirs), service).await
    });
    let connection = grpc::Connection::over(ours).await.expect("HTTP/2");
    let request = Request::post("http://gate/authz/nginx?audience=orders")
        .header("authorization", bearer_of(&scene.orders))
        .body(tonic::body::Body::new(Full::<Bytes>::from("x".repeat(1000))))
        .expect("a request");
    let answer = tower::ServiceExt::oneshot(connection, request).await.expect("answered");
    assert_eq!(
        (answer.status(), answer.headers()["x-tokenward-token"].as_bytes()),
        (StatusCode::OK, &b"shop/orders"[..])
    );
    assert!(answer.into_body().collect().await.expect("a body").to_bytes().is_empty());
}
