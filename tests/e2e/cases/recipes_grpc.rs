//! An application that speaks gRPC, through the proxies as the examples have them with the changes that docs/operations.md says.

use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::harness::{Edge, Kind, MARK, Proxy, replaced, root, shared, shared_edge, until};

const GUIDE: &str = "### Applications that speak gRPC";

/// The blocks of code below the guide's heading, in order: Envoy, nginx's listener, nginx's location, Caddy's servers, Caddy's
/// upstream.
fn guide() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = text.split_once(GUIDE).expect("the guide").1;
    let section = section.split("\n### ").next().unwrap();
    let mut blocks = section.split("```");
    let mut found = Vec::new();
    while let (Some(_), Some(block)) = (blocks.next(), blocks.next()) {
        found.push(block.split_once('\n').expect("a language").1.to_owned());
    }
    found
}

fn indented(block: &str, by: &str) -> String {
    block.lines().map(|line| format!("{by}{line}\n")).collect()
}

/// The example of this proxy with what the guide says.
async fn speaking_grpc(edge: &Edge, kind: Kind) -> Proxy {
    let guide = guide();
    let [envoy, listen, location, servers, upstream] = guide.as_slice() else {
        panic!("{} blocks", guide.len())
    };
    edge.proxy(kind, |text| match kind {
        Kind::EnvoyGrpc | Kind::EnvoyHttp => {
            let orders = "    - name: orders\n      type: STATIC\n";
            replaced(text, orders, &format!("{orders}{}", indented(envoy, "      ")))
        }
        Kind::Nginx => {
            let text = replaced(text, "        listen 127.0.0.1:8000;\n", &indented(listen, "        "));
            let place = "        location = /_tokenward {\n";
            replaced(&text, place, &format!("{}{place}", indented(location, "        ")))
        }
        Kind::Caddy => {
            let text =
                replaced(text, "\tservers {\n", &format!("\tservers {{\n{}", indented(servers, "\t\t")));
            replaced(&text, "\t\treverse_proxy 127.0.0.1:9000\n", &indented(upstream, "\t\t"))
        }
    })
    .await
}

/// What a client of gRPC gets.
#[derive(Debug)]
struct Called {
    http: u16,
    headers: HeaderMap,
    trailers: HeaderMap,
    body: String,
}

impl Called {
    /// `grpc-status`, or what clients make of the HTTP status where there is none:
    /// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>.
    fn code(&self) -> u16 {
        let said = self.headers.get("grpc-status").or(self.trailers.get("grpc-status"));
        match (said.and_then(|code| code.to_str().ok()), self.http) {
            (Some(code), _) => code.parse().unwrap(),
            (None, 401) => 16,
            (None, 403) => 7,
            (None, other) => panic!("{other} is neither: {self:?}"),
        }
    }
}

async fn call(proxy: &Proxy, headers: &[(&str, &str)]) -> Called {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut request = Request::post("http://orders.example/orders.Orders/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let message = Full::new(Bytes::from_static(&[0, 0, 0, 0, 0]));
    let (head, body) =
        client.send_request(request.body(message).unwrap()).await.expect("an answer").into_parts();
    let whole = body.collect().await.expect("a whole answer");
    let trailers = whole.trailers().cloned().unwrap_or_default();
    let body = String::from_utf8_lossy(&whole.to_bytes()).into_owned();
    Called { http: head.status.as_u16(), headers: head.headers, trailers, body }
}

#[test]
fn an_application_that_speaks_grpc_is_behind_the_same_gate() {
    shared("grpc", async |space| {
        let edge = shared_edge(space.cluster).await;
        let spec = |scope: &str| json!({"audiences": ["orders"], "scopes": [scope]});
        space.declare_with("client", json!({}), spec("orders:read")).await;
        space.declare_with("other", json!({}), spec("invoices:read")).await;
        let token = space.holds_active(&space.ready("client").await).await;
        let other = space.holds_active(&space.ready("other").await).await;
        edge.until_status(token.expose(), 200, "a good token").await;
        edge.until_status(other.expose(), 403, "a token without the scope").await;
        let (token, other) = (format!("Bearer {}", token.expose()), format!("Bearer {}", other.expose()));
        for kind in Kind::ALL {
            let proxy = speaking_grpc(edge, kind).await;
            let forged = ("x-tokenward-token", "shop/forged");
            let called = until(&format!("{kind:?} reaches the application"), async || {
                let called = call(&proxy, &[("authorization", &token), forged]).await;
                called.headers.contains_key(MARK).then_some(called)
            })
            .await;
            assert_eq!((called.http, called.code()), (200, 0), "{kind:?}: {called:?}");
            assert!(called.body.contains("te: trailers"), "{kind:?}: {called:?}");
            assert!(
                called.body.contains(&format!("x-tokenward-token: {}/client", space.name)),
                "{kind:?}: {called:?}"
            );
            assert!(
                !called.body.contains("forged") && !called.body.contains("Bearer"),
                "{kind:?}: {called:?}"
            );
            for (headers, code) in [(&[][..], 16), (&[("authorization", other.as_str())], 7)] {
                let called = call(&proxy, headers).await;
                assert_eq!(called.code(), code, "{kind:?}: {called:?}");
                assert!(
                    !called.headers.contains_key(MARK),
                    "{kind:?}: the application was asked: {called:?}"
                );
            }
        }
    });
}
