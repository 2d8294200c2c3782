//! What the cases stand on: control planes, releases of the chart, operators, namespaces, and the search for plaintext.

mod cluster;
mod command;
mod edge;
mod operator;
mod plaintext;
mod proxy;
mod release;
mod scrape;
mod space;
mod tenant;
mod upstream;
mod wait;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::OnceLock;

use futures::FutureExt as _;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};

pub use cluster::{Cluster, crd_dir};
pub use command::{Output, command, root};
pub use edge::{Edge, replaced, shared_edge};
pub use operator::{Operator, Signal, binary};
pub use proxy::{Answer, Kind, Proxy, Upstream, request};
pub use release::{Content, Release};
pub use scrape::Scrape;
pub use space::{Space, credential, is_ready, reason, sole_active};
pub use tenant::Tenant;
pub use upstream::MARK;
pub use wait::{PATIENCE, until, until_within};

/// Tests run on threads of their own; what they share (clients, children, watches) lives on this runtime.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// A case in a namespace of its own, beside others, served by the one operator that works in all namespaces.
pub fn shared(name: &str, body: impl AsyncFnOnce(&Space)) {
    runtime().block_on(async {
        let space = Space::create(shared_cluster().await, name).await;
        run(space, body).await;
    });
}

/// The cluster of [`shared`] cases with the chart installed and two replicas at work.
async fn shared_cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let cluster = Cluster::shared().await;
            cluster.apply_file("tests/fixtures/foreign-crds.yaml").await;
            // The policies are on by default; cases that forge a status do so as an administrator.
            let administrators = json!({"groups": ["system:masters", "kubeadm:cluster-admins"]});
            let values = json!({"admissionPolicies": {"statusWriters": administrators}});
            let release = Release::install(&cluster, "tokenward", values).await;
            let launch = release.launch().await;
            for replica in 0..launch.replicas {
                cluster.start_operator(&launch, &format!("tokenward-{replica}")).await.until_ready().await;
            }
            cluster
        })
        .await
}

/// A case that starts operators of its own, which work in its own namespaces only, beside other such cases.
pub fn own(name: &str, body: impl AsyncFnOnce(&Space)) {
    runtime().block_on(async {
        let _others_may_run = turns().read().await;
        let cluster = own_cluster().await;
        cluster.apply_definitions().await;
        let space = Space::create(cluster, name).await;
        run(space, body).await;
    });
}

/// A case that has a whole cluster for itself: it removes definitions, stops the API server, counts every request.
pub fn exclusive(name: &str, body: impl AsyncFnOnce(&Space)) {
    runtime().block_on(async {
        let _alone = turns().write().await;
        let cluster = own_cluster().await;
        cluster.start_apiserver().await;
        cluster.remove_definitions().await;
        cluster.until_settled().await;
        let space = Space::create(cluster, name).await;
        run(space, body).await;
    });
}

fn turns() -> &'static RwLock<()> {
    static TURNS: OnceLock<RwLock<()>> = OnceLock::new();
    TURNS.get_or_init(RwLock::default)
}

async fn own_cluster() -> &'static Cluster {
    static OWN: OnceCell<Cluster> = OnceCell::const_new();
    OWN.get_or_init(|| Cluster::start("e2e-own")).await
}

/// Runs a case, then looks for plaintext wherever it must not be. On failure says what the cluster looked like.
async fn run(space: Space, body: impl AsyncFnOnce(&Space)) {
    let outcome = AssertUnwindSafe(async {
        body(&space).await;
        space.no_plaintext().await;
    })
    .catch_unwind()
    .await;
    if let Err(panic) = outcome {
        space.explain().await;
        space.close(false).await;
        resume_unwind(panic);
    }
    space.close(true).await;
}
