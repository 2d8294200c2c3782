//! A gate with every proxy in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::OnceCell;

use super::cluster::{Cluster, build_tools};
use super::operator::Operator;
use super::proxy::{Kind, Ports, Proxy};
use super::release::{Launch, Release};
use super::upstream;
use super::wait::until;

/// A gate, an application, and a proxy of each kind between a client and them.
pub struct Edge {
    pub gate: Arc<Operator>,
    pub proxies: Vec<Proxy>,
    cluster: &'static Cluster,
    ports: Ports,
}

impl Edge {
    /// Starts the gate as its Deployment says, and the proxies as the examples say.
    pub async fn start(cluster: &'static Cluster, launch: &Launch, pod: &str) -> Self {
        let gate = cluster.start_operator(launch, pod).await;
        Self::before(cluster, gate).await
    }

    /// The proxies in front of a gate that runs.
    pub async fn before(cluster: &'static Cluster, gate: Arc<Operator>) -> Self {
        build_tools(&["envoy", "nginx", "caddy"]).await;
        gate.until_ready().await;
        let ports =
            Ports { http: gate.port("http"), grpc: gate.port("grpc"), upstream: upstream::start().await };
        let mut edge = Self { gate, proxies: Vec::new(), cluster, ports };
        for kind in Kind::ALL {
            let proxy = edge.proxy(kind, str::to_owned).await;
            edge.proxies.push(proxy);
        }
        edge
    }

    /// One more proxy, with a changed example.
    pub async fn proxy(&self, kind: Kind, edit: impl Fn(&str) -> String) -> Proxy {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{kind:?}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)).to_lowercase();
        Proxy::start(kind, &self.cluster.dir, &name, self.ports, edit).await
    }

    /// Proxies that ask over HTTP, with the example's demand of a scope replaced.
    pub async fn demanding(&self, demand: &str) -> Vec<Proxy> {
        let mut changed = Vec::new();
        for kind in [Kind::EnvoyHttp, Kind::Nginx, Kind::Caddy] {
            let edit = |text: &str| replaced(text, "&scope=orders:read", demand);
            changed.push(self.proxy(kind, edit).await);
        }
        changed
    }

    /// Waits until every proxy answers a request with this token so.
    pub async fn until_status(&self, token: &str, wanted: u16, why: &str) {
        for proxy in &self.proxies {
            until(&format!("{:?} answers {wanted}: {why}", proxy.kind), async || {
                (proxy.bearer(token).await.status == wanted).then_some(())
            })
            .await;
        }
    }

    /// Every proxy answers so at once: the first request that differs fails the case.
    pub async fn all_answer(&self, token: &str, wanted: u16, why: &str) {
        for proxy in &self.proxies {
            let answer = proxy.bearer(token).await;
            assert_eq!(answer.status, wanted, "{:?}: {why}: {answer:?}", proxy.kind);
            assert_eq!(answer.upstream().is_some(), wanted == 200, "{:?}: {why}", proxy.kind);
        }
    }
}

/// The text with a part replaced that must be in it.
pub fn replaced(text: &str, part: &str, by: &str) -> String {
    assert!(text.contains(part), "{part} is in the example");
    text.replace(part, by)
}

/// The gate of the release that the shared cases stand on, and the proxies in front of it.
pub async fn shared_edge(cluster: &'static Cluster) -> &'static Edge {
    static SHARED: OnceCell<Edge> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let release = Release { cluster, name: "tokenward".to_owned() };
            Edge::start(cluster, &release.launch_gate().await, "tokenward-gate-0").await
        })
        .await
}
