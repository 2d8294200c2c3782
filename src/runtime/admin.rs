//! `/healthz`, `/readyz` and `/metrics`: for the kubelet and the scraper, not for the world.
//!
//! To be served by the [overseer](super::overseer), so that there is an answer whatever hangs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::serve::{Limits, Meter, Server};
use crate::platform::readiness::Readiness;
use crate::platform::vitals::Vitals;

/// The flag that names the address.
pub const FLAG: &str = "--admin-listen";

/// Probes and scrapers need a handful of connections and little patience.
const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(30),
    idle: Duration::from_secs(300),
    request: Duration::from_secs(30),
    drain: Duration::from_secs(2),
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is served.
#[derive(Clone)]
pub struct Admin {
    /// The metrics. Locked while scraped only, so that families can still be registered after the start.
    pub registry: Arc<Mutex<Registry>>,
    /// What `/readyz` answers.
    pub readiness: watch::Receiver<Readiness>,
    /// What `/healthz` answers.
    pub vitals: Arc<Vitals>,
}

/// Serves until `shutdown`, and then until the answers under way have ended.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(router(admin));
    Server::new(LIMITS, Meter::none("admin")).serve(listener, service, shutdown).await;
}

/// The routes; anything else is 404.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn healthz(State(admin): State<Admin>) -> Response {
    match admin.vitals.stalled() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("hangs: {why}\n")).into_response(),
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let readiness = admin.readiness.borrow().clone();
    if readiness.is_ready() {
        return "ok\n".into_response();
    }
    if readiness.is_leaving() {
        return (StatusCode::SERVICE_UNAVAILABLE, "leaving\n").into_response();
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
    use crate::runtime::serve::listen;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tower::ServiceExt;

    fn admin() -> (watch::Sender<Readiness>, Admin) {
        let mut registry = Registry::default();
        crate::controller::metrics::Metrics::new(&mut registry);
        let (sender, readiness) = Readiness::channel(["secrets", "apitokens"]);
        (sender, Admin { registry: Arc::new(Mutex::new(registry)), readiness, vitals: Arc::default() })
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
        admin.vitals.stall("the work has not come round for 30 s".to_owned());
        let (status, _, body) = ask(&admin, "GET", "/healthz").await;
        assert_eq!((status, body.as_str()), (503, "hangs: the work has not come round for 30 s\n"));
        Readiness::leave(&sender);
        let (status, _, body) = ask(&admin, "GET", "/readyz").await;
        assert_eq!((status, body.as_str()), (503, "leaving\n"));
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
        let listener = listen(FLAG, ([127, 0, 0, 1], 0).into()).await.expect("a port");
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
        // Less than what answers under way are given.
        let limit = LIMITS.drain - Duration::from_millis(200);
        tokio::time::timeout(limit, server).await.expect("ends").expect("no panic");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = listen(FLAG, ([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = first.local_addr().expect("bound");
        let error = listen(FLAG, address).await.expect_err("taken");
        assert_eq!(error.to_string(), format!("--admin-listen {address} cannot be listened on"));
        assert_eq!(error.category(), "Listen");
    }
}
