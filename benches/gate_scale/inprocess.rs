//! The in-process API server, on a port for a process to use.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::api::{Api, PostParams};
use kube::client::Body;
use serde_json::json;
use tokenward::api::{ApiToken, ApiTokenStatus};
use tokenward::domain::token::{Prefix, Token};
use tokenward::runtime::clock::SystemClock;
use tokenward::runtime::entropy::SystemEntropy;
use tokenward::testkit::apiserver::{ApiServer, ReplyBody};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::common::{Result, cluster};

/// An API server full of tokens.
pub struct Cluster {
    /// The tokens themselves.
    pub tokens: Vec<String>,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Serves on a loopback port, on a thread of its own, for as long as this process lives.
    pub async fn start(count: usize) -> Result<Self> {
        let server = ApiServer::new(Arc::new(SystemClock));
        let tokens = fill(&server, count).await?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(serve(server, listener)))
        });
        let kubeconfig = std::env::temp_dir().join(format!("gate-scale-{}.kubeconfig", std::process::id()));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\nusers: [{{name: c, user: {{}}}}]\n"
        );
        std::fs::write(&kubeconfig, text)?;
        Ok(Self { tokens, kubeconfig })
    }

    /// The way to it.
    pub fn kubeconfig(&self) -> &str {
        self.kubeconfig.to_str().unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

async fn serve(server: ApiServer, listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = server.clone();
        let service = service_fn(move |request| answer(server.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(server: ApiServer, request: Request<Incoming>) -> Result<Response<ReplyBody>> {
    let (parts, body) = request.into_parts();
    let body = Body::from(body.collect().await?.to_bytes());
    server.service("gate").oneshot(Request::from_parts(parts, body)).await
}

/// Puts the tokens there, each as the controller leaves it some days after its last rotation.
async fn fill(server: &ApiServer, count: usize) -> Result<Vec<String>> {
    let prefix = Prefix::new("twd").map_err(|error| error.to_string())?;
    let mint = || Token::mint(&prefix, &SystemEntropy);
    let api = Api::<ApiToken>::namespaced(server.client("fill"), "default");
    let mut tokens = Vec::with_capacity(count);
    for number in 0..count {
        let (now, before) = (mint()?, mint()?);
        let created = api.create(&PostParams::default(), &cluster::token(&format!("t-{number}"))).await?;
        let status = Some(status(&now, &before)?);
        api.replace_status(&format!("t-{number}"), &PostParams::default(), &ApiToken { status, ..created })
            .await?;
        tokens.push(now.expose().to_owned());
    }
    Ok(tokens)
}

fn status(now: &Token, before: &Token) -> Result<ApiTokenStatus> {
    let rotated = "2026-01-31T00:00:00Z";
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let status = json!({
        "observedGeneration": 1,
        "health": "InUse",
        "conditions": [
            condition("Ready", "Delivered", "The Secret holds a credential that gates accept"),
            condition("OwnerResolved", "Found", "ApiToken label team"),
            condition("InUse", "InUse", "Used within the last days"),
        ],
        "owner": {"name": "payments", "source": "ApiToken label team"},
        "secretName": "orders-api-token",
        "delivery": {"uid": "4d6f1c2e-8a3b-4c5d-9e7f-000000000000", "resourceVersion": "123456",
            "contentHash": "9f86d081884c7d659a2feaa0c55ad015"},
        "credentials": [{"id": now.id(), "digest": now.digest(), "state": "Active", "reason": "Scheduled",
            "issuedAt": rotated, "lastUsedAt": rotated}],
        "ended": [{"id": before.id(), "digest": before.digest(), "state": "Retired", "endedAt": rotated}],
        "lastRotationTime": rotated,
        "lastRotationReason": "Scheduled",
        "nextRotationTime": "2026-03-02T00:00:00Z",
        "usage": {"lastUsedAt": rotated, "requests": 4711, "callers": 2, "observedSince": rotated},
    });
    Ok(serde_json::from_value(status)?)
}
