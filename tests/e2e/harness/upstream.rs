//! The application behind a proxy: it answers with what reached it.

use std::convert::Infallible;
use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

/// Stands in every answer of the application, so that one of a proxy's own is not taken for it.
pub const MARK: &str = "x-reached";

/// Starts one on a free loopback port, for as long as the process lives; the port.
pub async fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whatever a proxy passes on.
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http1().max_headers(1_024);
                // A proxy may close whenever it likes.
                let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(echo)).await;
            });
        }
    });
    port
}

/// One line for each header: the name, a colon and a space, the value; and one for the length of the body. A WebSocket gets
/// back what it sends; a call of gRPC the lines as its message, and trailers.
async fn echo(mut request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let mut text = String::new();
    for (name, value) in request.headers() {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    if request.headers().get("upgrade").is_some_and(|value| value == "websocket") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(stream) = upgrade.await {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        let answer = Response::builder().status(101).header(MARK, "yes");
        let answer = answer.header("connection", "upgrade").header("upgrade", "websocket");
        return Ok(answer.body(Full::default().boxed()).unwrap());
    }
    let calls = request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
    let bytes = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
    let _ = writeln!(text, "x-body-bytes: {bytes}");
    let answer = Response::builder().header(MARK, "yes");
    if calls {
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        message.extend_from_slice(text.as_bytes());
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let body = Full::from(message).with_trailers(async { Some(Ok(trailers)) }).boxed();
        return Ok(answer.header("content-type", "application/grpc").body(body).unwrap());
    }
    Ok(answer.body(Full::from(text).boxed()).unwrap())
}
