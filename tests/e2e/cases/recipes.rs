//! What browsers and large clients do, through the proxies as the examples have them: preflights, WebSockets, large bodies.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Edge, Kind, Proxy, Space, request, shared, shared_edge};

type Header<'a> = (&'a str, &'a [u8]);

const SITE: Header<'_> = ("Origin", b"https://shop.example.com");
const STRANGER: Header<'_> = ("Origin", b"https://shop.example.com.evil.example");
const METHOD: Header<'_> = ("Access-Control-Request-Method", b"POST");

/// The `Authorization` of a token that the examples accept, once the proxies have seen it.
async fn accepted(space: &Space, edge: &Edge) -> Vec<u8> {
    space
        .declare_with("client", json!({}), json!({"audiences": ["orders"], "scopes": ["orders:read"]}))
        .await;
    let ready = space.ready("client").await;
    let token = space.holds_active(&ready).await;
    edge.until_status(token.expose(), 200, "a good token").await;
    format!("Bearer {}", token.expose()).into_bytes()
}

#[test]
fn a_preflight_is_answered_without_a_token_and_nothing_else_is() {
    shared("preflight", async |space| {
        let edge = shared_edge(space.cluster).await;
        let value = accepted(space, edge).await;
        let token: Header<'_> = ("Authorization", &value);
        let nonsense: Header<'_> = ("Authorization", b"Bearer nonsense");
        for proxy in &edge.proxies {
            let kind = proxy.kind;
            let ask = async |method: &str, headers: &[Header<'_>]| {
                request(proxy.port(), method, "/orders", headers, b"").await.expect("an answer")
            };
            let answer = ask("OPTIONS", &[SITE, METHOD]).await;
            assert!([200, 204].contains(&answer.status), "{kind:?}: {answer:?}");
            assert_eq!(answer.all("access-control-allow-origin"), ["https://shop.example.com"], "{kind:?}");
            assert!(answer.upstream().is_none(), "{kind:?}: the application was asked: {answer:?}");
            // One of the four is not as it has to be: the gate is asked, and says no.
            let others: [(&str, &[Header<'_>]); 7] = [
                ("OPTIONS", &[STRANGER, METHOD]),
                ("OPTIONS", &[SITE]),
                ("OPTIONS", &[METHOD]),
                ("GET", &[SITE, METHOD]),
                ("POST", &[SITE, METHOD]),
                ("OPTIONSX", &[SITE, METHOD]),
                ("options", &[SITE, METHOD]),
            ];
            for (method, headers) in others {
                let answer = ask(method, headers).await;
                assert!((400..500).contains(&answer.status), "{kind:?}: {method} {headers:?}: {answer:?}");
                assert!(answer.upstream().is_none(), "{kind:?}: {method} {headers:?}");
            }
            // With a credential it is none; Envoy answers it all the same, and lets it go no further.
            let answer = ask("OPTIONS", &[SITE, METHOD, nonsense]).await;
            assert!(answer.upstream().is_none(), "{kind:?}: {answer:?}");
            let envoy = matches!(kind, Kind::EnvoyGrpc | Kind::EnvoyHttp);
            assert_eq!(answer.status, if envoy { 200 } else { 401 }, "{kind:?}");
            // The request itself, and its answer that the page may read.
            let answer = ask("GET", &[SITE, token]).await;
            assert!(answer.upstream().is_some(), "{kind:?}: {answer:?}");
            assert_eq!(answer.all("access-control-allow-origin"), ["https://shop.example.com"], "{kind:?}");
            let answer = ask("GET", &[STRANGER, token]).await;
            assert!(answer.all("access-control-allow-origin").is_empty(), "{kind:?}: {answer:?}");
        }
    });
}

#[test]
fn a_websocket_is_let_in_with_a_token_only() {
    shared("websocket", async |space| {
        let edge = shared_edge(space.cluster).await;
        let value = accepted(space, edge).await;
        for proxy in &edge.proxies {
            let kind = proxy.kind;
            let (head, _) = upgraded(proxy, b"Bearer nonsense").await;
            assert!(head.starts_with("HTTP/1.1 401"), "{kind:?}: {head}");
            let (head, stream) = upgraded(proxy, &value).await;
            assert!(head.starts_with("HTTP/1.1 101"), "{kind:?}: {head}");
            let mut stream = stream.expect("open");
            stream.write_all(b"to and fro").await.unwrap();
            let mut back = [0; 10];
            let read = timeout(Duration::from_secs(20), stream.read_exact(&mut back)).await;
            assert!(read.is_ok_and(|read| read.is_ok()) && &back == b"to and fro", "{kind:?}");
        }
    });
}

/// The head of the answer to a request for a WebSocket; the connection if there is one.
async fn upgraded(proxy: &Proxy, authorization: &[u8]) -> (String, Option<TcpStream>) {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let head =
        b"GET /orders HTTP/1.1\r\nHost: orders.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: ";
    stream.write_all(&[head, authorization, b"\r\n\r\n"].concat()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"\r\n\r\n") && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0)
        {
        }
    };
    let _ = timeout(Duration::from_secs(20), read).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let open = answer.starts_with("HTTP/1.1 101");
    (answer, open.then_some(stream))
}

#[test]
fn a_large_body_goes_to_the_application_and_not_to_the_gate() {
    shared("bodies", async |space| {
        let edge = shared_edge(space.cluster).await;
        let value = accepted(space, edge).await;
        let body = vec![b'x'; 8 << 20];
        for proxy in &edge.proxies {
            let headers: [Header<'_>; 1] = [("Authorization", &value)];
            let answer = request(proxy.port(), "POST", "/orders", &headers, &body).await;
            let answer = answer.unwrap_or_else(|| panic!("{:?} does not answer", proxy.kind));
            let upstream = answer.upstream().unwrap_or_else(|| panic!("{:?}: {answer:?}", proxy.kind));
            assert_eq!(upstream.one("x-body-bytes"), body.len().to_string(), "{:?}", proxy.kind);
        }
    });
}
