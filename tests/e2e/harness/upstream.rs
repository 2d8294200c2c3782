//! The application behind a proxy: it answers with what reached it.

use std::convert::Infallible;
use std::fmt::Write as _;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
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
            let serve = http1::Builder::new()
                .max_headers(1_024)
                .serve_connection(TokioIo::new(stream), service_fn(echo))
                .with_upgrades();
            tokio::spawn(async move {
                // A proxy may close whenever it likes.
                let _ = serve.await;
            });
        }
    });
    port
}

/// One line for each header: the name, a colon and a space, the value; and one for the length of the body. A WebSocket gets
/// back what it sends.
async fn echo(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
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
        return Ok(answer.body(Full::default()).unwrap());
    }
    let bytes = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
    let _ = writeln!(text, "x-body-bytes: {bytes}");
    Ok(Response::builder().header(MARK, "yes").body(Full::from(text)).unwrap())
}
