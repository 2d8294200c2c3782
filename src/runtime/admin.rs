//! `/healthz`, `/readyz` and `/metrics`: for the kubelet and the scraper, not for the world.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controller::readiness::Readiness;

/// Connections at once; more wait in the backlog. Probes and scrapers need a handful.
const MAX_CONNECTIONS: usize = 64;
/// Longest time for a request to arrive, and for an open connection to stay unused.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest life of a connection: slow readers do not hold their place for ever, and a scraper just connects anew.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// How long answers under way may take to end on shutdown.
const DRAIN: Duration = Duration::from_secs(2);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the endpoint is not there.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("--admin-listen {address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl AdminError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "Listen",
        }
    }
}

/// What is served.
#[derive(Clone)]
pub struct Admin {
    /// The metrics. Locked while scraped only, so that families can still be registered after the start.
    pub registry: Arc<Mutex<Registry>>,
    /// What `/readyz` answers.
    pub readiness: watch::Receiver<Readiness>,
}

/// Takes the port, so that a wrong address ends the process before it does anything else.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address).await.map_err(|source| AdminError::Listen { address, source })
}

/// Serves until `shutdown`, and then until the answers under way have ended.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    let router = router(admin);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let Some(Some((accepted, place))) = shutdown.run_until_cancelled(accept).await else { break };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // Out of file descriptors, or a client that was gone before it was accepted: neither is ours to end by.
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}

async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(MAX_CONNECTION_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(DRAIN, connection).await;
}

/// The routes; anything else is 404.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let readiness = admin.readiness.borrow().clone();
    if readiness.is_ready() {
        return "ok\n".into_response();
    }
    let pending: Vec<&str> = readiness.pending().collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("not synced yet: {}\n", pending.join(", "))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Infallible> {
    // Ten thousand tokens are some megabytes of text: not on a thread that leases are renewed on.
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &admin.registry.lock()).map(|()| text)
    })
    .await;
    Ok(match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    fn admin() -> (watch::Sender<Readiness>, Admin) {
        let mut registry = Registry::default();
        crate::controller::metrics::Metrics::new(&mut registry);
        let (sender, readiness) = Readiness::channel(["secrets", "apitokens"]);
        (sender, Admin { registry: Arc::new(Mutex::new(registry)), readiness })
    }

    async fn ask(admin: &Admin, method: &str, path: &str) -> (u16, String, String) {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.body(axum::body::Body::empty()).expect("a request");
        let answer = router(admin.clone()).oneshot(request).await.expect("infallible");
        let status = answer.status().as_u16();
        let kind =
            answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.to_owned();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn ready_only_when_everything_is_synced() {
        let (sender, admin) = admin();
        let (status, _, body) = ask(&admin, "GET", "/readyz").await;
        assert_eq!((status, body.as_str()), (503, "not synced yet: apitokens, secrets\n"));
        assert_eq!(ask(&admin, "GET", "/healthz").await.0, 200, "alive all the same");
        Readiness::synced(&sender, "apitokens");
        assert_eq!(ask(&admin, "GET", "/readyz").await.2, "not synced yet: secrets\n");
        Readiness::synced(&sender, "secrets");
        assert_eq!(ask(&admin, "GET", "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_and_the_rest_is_not_there() {
        let (_sender, admin) = admin();
        let (status, kind, body) = ask(&admin, "GET", "/metrics").await;
        assert_eq!((status, kind.as_str()), (200, OPENMETRICS));
        assert!(body.contains("tokenward_build_info{") && body.ends_with("# EOF\n"), "{body}");
        assert_eq!(ask(&admin, "GET", "/").await.0, 404);
        assert_eq!(ask(&admin, "GET", "/debug/pprof").await.0, 404);
        assert_eq!(ask(&admin, "POST", "/metrics").await.0, 405);
    }

    #[tokio::test]
    async fn a_shutdown_lets_answers_end_and_frees_the_port() {
        let (_sender, admin) = admin();
        let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, admin, shutdown.clone()));
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await.expect("answered");
        assert!(
            buffer[..count].starts_with(b"HTTP/1.1 200"),
            "{:?}",
            String::from_utf8_lossy(&buffer[..count])
        );
        // An open, unused connection does not hold the process up.
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(1), server).await.expect("ends").expect("no panic");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = listen(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = first.local_addr().expect("bound");
        let error = listen(address).await.expect_err("taken");
        assert_eq!(error.to_string(), format!("--admin-listen {address} cannot be listened on"));
        assert_eq!(error.category(), "Listen");
    }
}
