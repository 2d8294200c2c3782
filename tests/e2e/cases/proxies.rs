//! A gate behind real proxies: who passes, who does not, and what the application sees of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokenward::domain::ports::{Entropy, EntropyError};
use tokenward::domain::token::{CRC_LEN, Prefix, SECRET_LEN, Token};

use crate::harness::{Answer, Edge, Kind, Proxy, Space, Upstream, replaced, request, shared, shared_edge};

const MISSING: &str = r#"Bearer realm="tokenward""#;
const INVALID: &str = r#"Bearer realm="tokenward", error="invalid_token""#;
const IDENTITY: [&str; 4] =
    ["x-tokenward-token", "x-tokenward-credential", "x-tokenward-owner", "x-tokenward-scopes"];

/// An ApiToken that the examples accept, and its token. The proxies have seen it when this returns.
async fn accepted(space: &Space, edge: &Edge, name: &str, team: Option<&str>) -> Token {
    let labels = team.map_or(json!({}), |team| json!({"labels": {"team": team}}));
    let spec = json!({"audiences": ["orders"], "scopes": ["orders:read", "orders:write"]});
    let token = issued(space, name, labels, spec).await;
    edge.until_status(token.expose(), 200, "a good token").await;
    token
}

/// What it is, the challenge it is answered with, and the headers.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, Vec<u8>)>);

async fn issued(space: &Space, name: &str, metadata: serde_json::Value, spec: serde_json::Value) -> Token {
    space.declare_with(name, metadata, spec).await;
    let ready = space.ready(name).await;
    space.holds_active(&ready).await
}

fn basic(user: &str, password: &str) -> Vec<u8> {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes()
}

fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

#[track_caller]
fn passed(proxy: &Proxy, answer: &Answer) -> Upstream {
    assert_eq!(answer.status, 200, "{:?}: {answer:?}", proxy.kind);
    answer.upstream().unwrap_or_else(|| panic!("{:?}: not from the application: {answer:?}", proxy.kind))
}

/// The identity is the gate's, and nothing of the credential is left.
#[track_caller]
fn names(proxy: &Proxy, upstream: &Upstream, identity: [&str; 4], token: &Token) {
    for (name, value) in IDENTITY.iter().zip(identity) {
        assert_eq!(upstream.one(name), value, "{:?}: {name}: {upstream:?}", proxy.kind);
    }
    let text = format!("{upstream:?}");
    assert!(!text.contains("evil"), "{:?}: {text}", proxy.kind);
    assert!(!text.contains(token.expose()), "{:?}: the credential reached the application", proxy.kind);
    assert!(!text.contains(&token.expose()[token.expose().len() - CRC_LEN..]), "{:?}", proxy.kind);
    assert_eq!(upstream.one("authorization"), "", "{:?}", proxy.kind);
}

#[test]
fn a_good_token_passes_and_is_named() {
    shared("passes", async |space| {
        let edge = shared_edge(space.cluster).await;
        let token = accepted(space, edge, "client", Some("payments")).await;
        let text = token.expose();
        let name = format!("{}/client", space.name);
        let identity = [name.as_str(), token.id(), "payments", "orders:read orders:write"];
        let ways: [(&str, Vec<u8>); 8] = [
            ("Authorization", bearer(text)),
            ("authorization", format!("bearer {text}").into_bytes()),
            ("Authorization", basic("git", text)),
            ("Authorization", basic("", text)),
            ("Authorization", basic(text, "")),
            ("Authorization", basic(text, "x-oauth-basic")),
            ("Authorization", format!("token {text}").into_bytes()),
            ("X-API-Key", text.as_bytes().to_vec()),
        ];
        // A client's path adds nothing to what the route demands, whatever it looks like.
        let paths = [
            "/",
            "/orders?x=y",
            "/o?audience=evil&scope=evil&header=evil&path=/&nonsense=1",
            "/o&path=/?a=b",
        ];
        for proxy in &edge.proxies {
            for (header, value) in &ways {
                for path in paths {
                    let answer = proxy.get(path, &[(header, value)]).await;
                    names(proxy, &passed(proxy, &answer), identity, &token);
                }
            }
        }
    });
}

#[test]
fn what_a_client_says_about_itself_is_never_believed() {
    shared("spoofing", async |space| {
        let edge = shared_edge(space.cluster).await;
        let owned = accepted(space, edge, "owned", Some("payments")).await;
        // Without an owner, one of the four headers has no value of its own to overwrite the client's with.
        let orphan = accepted(space, edge, "orphan", None).await;
        for (name, token, owner) in [("owned", &owned, "payments"), ("orphan", &orphan, "")] {
            let full = format!("{}/{name}", space.name);
            let identity = [full.as_str(), token.id(), owner, "orders:read orders:write"];
            for proxy in &edge.proxies {
                for headers in spoofs() {
                    let value = bearer(token.expose());
                    let mut all: Vec<(&str, &[u8])> = vec![("Authorization", &value)];
                    all.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
                    let answer = proxy.get("/orders", &all).await;
                    names(proxy, &passed(proxy, &answer), identity, token);
                    let reversed: Vec<_> = all.into_iter().rev().collect();
                    let answer = proxy.get("/orders", &reversed).await;
                    names(proxy, &passed(proxy, &answer), identity, token);
                }
                // The control: what is like none of them arrives, but for nginx, which drops such names by itself.
                if proxy.kind != Kind::Nginx {
                    let value = bearer(token.expose());
                    let other: [(&str, &[u8]); 2] = [("Authorization", &value), ("x!other!header", b"kept")];
                    let answer = proxy.get("/orders", &other).await;
                    assert_eq!(passed(proxy, &answer).one("x!other!header"), "kept", "{:?}", proxy.kind);
                }
                // Named as a header of this hop only, the proxy may drop it. The client's must not come in its place.
                let value = bearer(token.expose());
                let hop: [(&str, &[u8]); 3] = [
                    ("Authorization", &value),
                    ("Connection", b"x-tokenward-token, x-tokenward-scopes"),
                    ("x-tokenward-token", b"evil"),
                ];
                let answer = proxy.get("/orders", &hop).await;
                let text = format!("{:?}", answer.upstream());
                assert!(!text.contains("evil"), "{:?}: {text}", proxy.kind);
            }
        }
    });
}

/// Each identity header in the spellings that an application might take for it, alone and repeated, and all at once.
fn spoofs() -> Vec<Vec<(String, String)>> {
    let mut all = Vec::new();
    let mut together = Vec::new();
    for name in IDENTITY {
        // CGI, WSGI, PHP and Rack read each of these as the same variable: RFC 9110 section 5.1 allows them in a name.
        let aliases = "!#$%&'*+.^_`|~".chars().map(|mark| name.replace('-', &mark.to_string()));
        let mixed = [name.replacen('-', "_", 1), name.replacen('-', ".", 1)];
        let spellings = [name.to_owned(), name.to_uppercase()].into_iter().chain(aliases).chain(mixed);
        for spelling in spellings {
            let one = (spelling, "evil".to_owned());
            all.push(vec![one.clone()]);
            all.push(vec![one.clone(), one.clone()]);
            together.push(one);
        }
    }
    together.push(("x-envoy-auth-headers-to-remove".to_owned(), "x-tokenward-token".to_owned()));
    all.push(together);
    all
}

struct Chance;

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        rand::fill(bytes);
        Ok(())
    }
}

fn minted(prefix: &str) -> Token {
    Token::mint(&Prefix::new(prefix).unwrap(), &Chance).unwrap()
}

/// The id of a token that is known, the secret of another one, and a checksum that fits.
fn forged(token: &Token) -> String {
    let own = token.expose();
    let other = minted("twd");
    let secret = &other.expose()[other.expose().len() - CRC_LEN - SECRET_LEN..][..SECRET_LEN];
    let body = format!("{}{secret}", &own[..own.len() - CRC_LEN - SECRET_LEN]);
    let digits: Vec<_> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut checksum = Vec::new();
    for _ in 0..CRC_LEN {
        checksum.push(digits[rest % 62]);
        rest /= 62;
    }
    let forged = format!("{body}{}", checksum.iter().rev().collect::<String>());
    Token::parse(&forged).expect("well formed");
    forged
}

#[test]
fn what_is_not_accepted_is_turned_away() {
    shared("denied", async |space| {
        let edge = shared_edge(space.cluster).await;
        let token = accepted(space, edge, "client", None).await;
        let other = accepted(space, edge, "other", None).await;
        let elsewhere = json!({"audiences": ["billing"], "scopes": ["orders:read"]});
        let elsewhere = issued(space, "elsewhere", json!({}), elsewhere).await;
        let text = token.expose();
        let flipped = format!("{}{}", &text[..text.len() - 1], if text.ends_with('0') { '1' } else { '0' });
        let cases: Vec<Case<'_>> = vec![
            ("nothing", MISSING, vec![]),
            ("an unknown token", INVALID, vec![("Authorization", bearer(minted("twd").expose()))]),
            ("a known id with another secret", INVALID, vec![("Authorization", bearer(&forged(&token)))]),
            ("a bad checksum", INVALID, vec![("Authorization", bearer(&flipped))]),
            ("a truncated token", INVALID, vec![("Authorization", bearer(&text[..text.len() - 1]))]),
            ("a foreign prefix", INVALID, vec![("Authorization", bearer(minted("acme").expose()))]),
            ("another audience", INVALID, vec![("Authorization", bearer(elsewhere.expose()))]),
            ("no token at all", INVALID, vec![("Authorization", b"Bearer nonsense".to_vec())]),
            ("an oversize token", INVALID, vec![("Authorization", bearer(&"x".repeat(5000)))]),
            ("non-ASCII", INVALID, vec![("Authorization", b"Bearer \xc3\xa9\xff".to_vec())]),
            ("non-ASCII behind a token", INVALID, vec![("Authorization", bearer(&format!("{text}é")))]),
            ("another scheme", MISSING, vec![("Authorization", format!("Digest {text}").into_bytes())]),
            ("Basic that is no base64", INVALID, vec![("Authorization", b"Basic ####".to_vec())]),
            ("two tokens in Basic", INVALID, vec![("Authorization", basic(text, other.expose()))]),
            ("no token in Basic", INVALID, vec![("Authorization", basic("git", ""))]),
            (
                "two tokens in one header",
                INVALID,
                vec![("Authorization", bearer(&format!("{text}, {text}")))],
            ),
            ("a nonsense key", INVALID, vec![("X-API-Key", b"nonsense".to_vec())]),
            (
                "a repeated key",
                INVALID,
                vec![("X-API-Key", text.as_bytes().to_vec()), ("x-api-key", text.as_bytes().to_vec())],
            ),
            (
                "two credentials that conflict",
                INVALID,
                vec![("Authorization", bearer(text)), ("X-API-Key", other.expose().as_bytes().to_vec())],
            ),
        ];
        for proxy in &edge.proxies {
            for (name, challenge, headers) in &cases {
                // nginx before 1.23 hands over the first of them only, and takes them all away from the request.
                if proxy.kind == Kind::Nginx && *name == "a repeated key" {
                    continue;
                }
                let headers: Vec<(&str, &[u8])> =
                    headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
                let answer = proxy.get("/orders", &headers).await;
                assert_eq!(answer.status, 401, "{:?}: {name}: {answer:?}", proxy.kind);
                assert_eq!(answer.all("www-authenticate"), [*challenge], "{:?}: {name}", proxy.kind);
                assert!(answer.upstream().is_none(), "{:?}: {name}", proxy.kind);
            }
        }
        cut_off_earlier(edge, &token).await;
    });
}

/// What some proxies turn away by themselves, before a gate is asked.
async fn cut_off_earlier(edge: &Edge, token: &Token) {
    let value = bearer(token.expose());
    let twice: [(&str, &[u8]); 2] = [("Authorization", &value), ("authorization", &value)];
    let huge = bearer(&"x".repeat(20_000));
    for proxy in &edge.proxies {
        let answer = proxy.get("/orders", &twice).await;
        let wanted = if proxy.kind == Kind::Nginx { 400 } else { 401 };
        assert_eq!(answer.status, wanted, "{:?}: a repeated Authorization: {answer:?}", proxy.kind);
        let answer = proxy.get("/orders", &[("Authorization", &huge)]).await;
        assert!([400, 401, 431].contains(&answer.status), "{:?}: 20 kB: {answer:?}", proxy.kind);
        assert!(answer.upstream().is_none(), "{:?}", proxy.kind);
        // An empty header is as good as none, or as a bad one.
        let answer = proxy.get("/orders", &[("Authorization", b"")]).await;
        assert_eq!(answer.status, 401, "{:?}: empty: {answer:?}", proxy.kind);
    }
}

#[test]
fn a_scope_that_is_missing_is_named() {
    shared("scopes", async |space| {
        let edge = shared_edge(space.cluster).await;
        let spec = json!({"audiences": ["orders"], "scopes": ["orders:write"]});
        let token = issued(space, "writer", json!({}), spec).await;
        edge.until_status(token.expose(), 403, "the gate knows it").await;
        for proxy in &edge.proxies {
            let answer = proxy.bearer(token.expose()).await;
            let wanted =
                r#"Bearer realm="tokenward", error="insufficient_scope", scope="orders:read""#.to_owned();
            // nginx keeps it to itself.
            let wanted = if proxy.kind == Kind::Nginx { vec![] } else { vec![wanted] };
            assert_eq!(answer.all("www-authenticate"), wanted, "{:?}", proxy.kind);
            assert!(answer.upstream().is_none());
        }
        // All scopes that are named are needed.
        let reader = accepted(space, edge, "reader", None).await;
        for proxy in edge.demanding("&scope=orders:read&scope=orders:write").await {
            assert_eq!(proxy.bearer(reader.expose()).await.status, 200, "{:?}", proxy.kind);
        }
        for proxy in edge.demanding("&scope=orders:read&scope=orders:delete").await {
            assert_eq!(proxy.bearer(reader.expose()).await.status, 403, "{:?}", proxy.kind);
        }
        // A slip in the configuration denies, and does not open.
        for proxy in edge.demanding("&scop=orders:read").await {
            assert_eq!(proxy.bearer(reader.expose()).await.status, 403, "{:?}", proxy.kind);
        }
    });
}

#[test]
fn a_route_chooses_its_header_and_its_challenge() {
    shared("routes", async |space| {
        let edge = shared_edge(space.cluster).await;
        let token = accepted(space, edge, "client", None).await;
        let key = token.expose().as_bytes();
        let challenge = [r#"Basic realm="tokenward""#, MISSING];

        let grpc = edge.proxies.iter().find(|proxy| proxy.kind == Kind::EnvoyGrpc).unwrap();
        assert_eq!(grpc.get("/git", &[]).await.all("www-authenticate"), challenge);
        names_no_key(grpc, &grpc.get("/partner", &[("X-Orders-Key", key)]).await, &token);
        assert_eq!(grpc.get("/partner", &[("X-API-Key", key)]).await.status, 401);
        assert_eq!(grpc.get("/", &[("X-Orders-Key", key)]).await.status, 401);

        for proxy in edge.demanding("&challenge=basic").await {
            let answer = proxy.get("/git", &[]).await;
            let lines = answer.all("www-authenticate");
            // nginx 1.22 passes the first line only; git and docker need that to be Basic.
            assert_eq!(lines[..], challenge[..lines.len()], "{:?}", proxy.kind);
            assert!(lines.len() == 2 || proxy.kind == Kind::Nginx, "{:?}: {lines:?}", proxy.kind);
            let value = basic("git", token.expose());
            let answer = proxy.get("/git", &[("Authorization", &value)]).await;
            assert!(answer.upstream().is_some(), "{:?}: {answer:?}", proxy.kind);
        }
        for kind in [Kind::EnvoyHttp, Kind::Nginx, Kind::Caddy] {
            let named = |text: &str| {
                let text = replaced(text, "&scope=orders:read", "&header=X-Orders-Key");
                let text = text.replace("x_api_key", "x_orders_key");
                text.replace("x-api-key", "x-orders-key").replace("X-API-Key", "X-Orders-Key")
            };
            let proxy = edge.proxy(kind, named).await;
            names_no_key(&proxy, &proxy.get("/orders", &[("X-Orders-Key", key)]).await, &token);
            assert_eq!(proxy.get("/orders", &[("X-API-Key", key)]).await.status, 401, "{kind:?}");
        }
    });
}

#[track_caller]
fn names_no_key(proxy: &Proxy, answer: &Answer, token: &Token) {
    let upstream = passed(proxy, answer);
    assert_eq!(upstream.one("x-tokenward-credential"), token.id(), "{:?}", proxy.kind);
    assert!(!format!("{upstream:?}").contains(token.expose()), "{:?}: {upstream:?}", proxy.kind);
}

#[test]
fn envoy_may_hand_over_its_own_path_or_a_bare_prefix() {
    shared("prefixes", async |space| {
        let edge = shared_edge(space.cluster).await;
        let token = accepted(space, edge, "client", None).await;
        let prefix = r#"path_prefix: "/authz/envoy?audience=orders&scope=orders:read&path=""#;
        let over = |demand: &str| format!(r#"path_override: "/authz/envoy?audience={demand}""#);
        let bare =
            edge.proxy(Kind::EnvoyHttp, |text| replaced(text, prefix, "path_prefix: /authz/envoy")).await;
        let path = "/?audience=evil&scope=evil&nonsense=1";
        let value = bearer(token.expose());
        // Nothing is demanded, and a client cannot demand either.
        passed(&bare, &bare.get(path, &[("Authorization", &value)]).await);
        assert_eq!(bare.get(path, &[]).await.status, 401);
        for (demand, wanted) in [("orders", 200), ("billing", 401), ("orders&scope=orders:delete", 403)] {
            let proxy = edge.proxy(Kind::EnvoyHttp, |text| replaced(text, prefix, &over(demand))).await;
            let answer = proxy.get(path, &[("Authorization", &value)]).await;
            assert_eq!(answer.status, wanted, "{demand}: {answer:?}");
        }
    });
}

/// The part of an nginx configuration from `begin` to the brace that ends it.
fn block<'a>(text: &'a str, begin: &str) -> &'a str {
    let from = text.find(begin).unwrap_or_else(|| panic!("{begin} is in the example"));
    let length = text[from..].find("\n        }\n").expect("it ends") + "\n        }\n".len();
    &text[from..from + length]
}

/// The example of nginx with a cache as its comment says, for longer, and with a second route that demands another scope.
fn cached(text: &str) -> String {
    let mut text = replaced(text, "proxy_cache_valid 200 1s;", "proxy_cache_valid 200 10m;");
    let path = "proxy_cache_path cache keys_zone=tokenward:1m;";
    text = replaced(&text, &format!("            #   {path}     (at http level)\n"), "");
    text = replaced(&text, "    access_log off;\n", &format!("    access_log off;\n    {path}\n"));
    text = replaced(&text, "            #   proxy_cache", "            proxy_cache");
    let (route, asks) =
        (block(&text, "        location / {"), block(&text, "        location = /_tokenward {"));
    let route = route.replace("location / {", "location /reports {").replace("/_tokenward;", "/_reports;");
    let asks = asks.replace("/_tokenward {", "/_reports {").replace("orders:read", "reports:read");
    let begin = "        location / {";
    replaced(&text, begin, &format!("{route}{asks}{begin}"))
}

#[test]
fn an_answer_that_nginx_keeps_is_for_what_was_asked() {
    shared("cached", async |space| {
        let edge = shared_edge(space.cluster).await;
        let token = accepted(space, edge, "client", None).await;
        let value = bearer(token.expose());
        let headers: [(&str, &[u8]); 1] = [("Authorization", &value)];
        let proxy = edge.proxy(Kind::Nginx, cached).await;
        let refused = async |why: &str| {
            let answer = proxy.get("/reports", &headers).await;
            assert_eq!((answer.status, answer.upstream().is_some()), (403, false), "{why}: {answer:?}");
        };
        refused("before").await;
        passed(&proxy, &proxy.get("/orders", &headers).await);
        refused("after the other route let it in").await;
        // The control: with the key that leaves the demand out, the other route's answer lets it in.
        let blind = |text: &str| replaced(&cached(text), "\"$demand|", "\"");
        let careless = edge.proxy(Kind::Nginx, blind).await;
        passed(&careless, &careless.get("/orders", &headers).await);
        passed(&careless, &careless.get("/reports", &headers).await);
        // And it is a cache: what was revoked since is let in where it was before, and nowhere else.
        space.patch("client", json!({"spec": {"suspend": true}})).await;
        edge.until_status(token.expose(), 401, "suspended").await;
        passed(&proxy, &proxy.get("/orders", &headers).await);
        assert_eq!(proxy.get("/reports", &headers).await.status, 401);
        assert_eq!(proxy.get("/orders", &[("X-API-Key", token.expose().as_bytes())]).await.status, 401);
    });
}

#[test]
fn many_headers_and_large_cookies_pass() {
    shared("many", async |space| {
        let edge = shared_edge(space.cluster).await;
        let token = accepted(space, edge, "client", None).await;
        let value = bearer(token.expose());
        let names: Vec<String> = (0..300).map(|number| format!("X-Short-{number}")).collect();
        let cookie = [b"session=".to_vec(), vec![b'x'; 7_000]].concat();
        for proxy in &edge.proxies {
            // The examples let Envoy take 256 with its own, and Caddy passes all on to the gate, which takes as many.
            let most = if proxy.kind == Kind::Nginx { 300 } else { 240 };
            for count in [88, 94, most] {
                let mut headers: Vec<(&str, &[u8])> = vec![("Authorization", &value)];
                headers.extend(names[..count].iter().map(|name| (name.as_str(), &b"y"[..])));
                let answer = proxy.get("/orders", &headers).await;
                assert_eq!(passed(proxy, &answer).one(&format!("x-short-{}", count - 1)), "y");
                assert_eq!(proxy.get("/orders", &headers[1..]).await.status, 401, "{:?}", proxy.kind);
            }
            let mut headers: Vec<(&str, &[u8])> = vec![("Authorization", &value)];
            headers.extend([("Cookie", cookie.as_slice()); 3]);
            let upstream = passed(proxy, &proxy.get("/orders", &headers).await);
            let cookies =
                upstream.0.iter().filter(|(name, _)| name == "cookie").map(|(_, value)| value.len());
            assert!(
                cookies.sum::<usize>() >= 21_000,
                "{:?}: the application's cookies are its own",
                proxy.kind
            );
        }
    });
}

/// Traefik cannot run here; its dialect is asked directly, as Traefik would.
#[test]
fn the_answer_to_traefik_names_all_four() {
    shared("traefik", async |space| {
        let edge = shared_edge(space.cluster).await;
        let token = accepted(space, edge, "client", None).await;
        let value = bearer(token.expose());
        let path = "/authz/traefik?audience=orders&scope=orders:read";
        let headers: [(&str, &[u8]); 4] = [
            ("Authorization", &value),
            ("X-Forwarded-Method", b"DELETE"),
            ("X-Forwarded-Uri", b"/orders/1?scope=evil"),
            ("X-Tokenward-Owner", b"evil"),
        ];
        let answer = request(edge.gate.port("http"), "GET", path, &headers, b"").await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let name = format!("{}/client", space.name);
        let values = [name.as_str(), token.id(), "", "orders:read orders:write"];
        for (header, value) in IDENTITY.iter().zip(values) {
            assert_eq!(answer.all(header), [value], "{header}: an empty one deletes the client's, too");
        }
        let answer = request(edge.gate.port("http"), "GET", path, &headers[1..], b"").await.unwrap();
        assert_eq!((answer.status, answer.all("www-authenticate")), (401, vec![MISSING]));
    });
}
