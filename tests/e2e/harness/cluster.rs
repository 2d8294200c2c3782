//! Real control planes, and what all cases on one of them share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config};
use serde_json::json;
use tokenward::api::ApiToken;

use super::command::{Output, command, root, tool};
use super::operator::Operator;
use super::plaintext::Seen;
use super::release::Launch;
use super::scrape::Scrape;
use super::wait::until;

/// The chart's definitions.
pub fn crd_dir() -> &'static str {
    "charts/tokenward/crd"
}

/// One control plane.
pub struct Cluster {
    /// Where its files, and those of the operators on it, are.
    pub dir: PathBuf,
    /// An administrator's.
    pub kubeconfig: PathBuf,
    /// An administrator's.
    pub client: Client,
    /// Every token that ever stood in one of its Secrets.
    pub seen: Seen,
    /// Every operator that was started on it.
    pub operators: Mutex<Vec<Arc<Operator>>>,
    local: bool,
}

impl Cluster {
    /// The cluster that was named, or one of our own.
    pub async fn shared() -> Self {
        match std::env::var_os("TOKENWARD_TEST_KUBECONFIG") {
            Some(kubeconfig) => {
                let dir = root().join(".run/e2e");
                std::fs::create_dir_all(&dir).unwrap();
                build_tools(&["kubectl", "helm"]).await;
                Self::connect(dir, kubeconfig.into(), false).await
            }
            None => Self::start("e2e").await,
        }
    }

    /// A fresh control plane, which ends with this process.
    pub async fn start(name: &str) -> Self {
        let started = Instant::now();
        build_tools(&[]).await;
        let dir = root().join(".run").join(name);
        let path = dir.to_str().unwrap();
        let script = root().join("tools/cluster.sh");
        command(&script, &["down", "--dir", path], &[], "").await.ok();
        for old in std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if old.extension().is_some_and(|extension| extension == "log") {
                std::fs::remove_file(old).unwrap();
            }
        }
        let pid = std::process::id().to_string();
        command(&script, &["up", "--dir", path, "--until-exit-of", &pid], &[], "").await.ok();
        println!("cluster {name} is ready after {:.1} s", started.elapsed().as_secs_f64());
        let kubeconfig = dir.join("kubeconfig");
        Self::connect(dir, kubeconfig, true).await
    }

    async fn connect(dir: PathBuf, kubeconfig: PathBuf, local: bool) -> Self {
        let file = Kubeconfig::read_from(&kubeconfig).unwrap();
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        config.read_timeout = Some(Duration::from_secs(300));
        let client = Client::try_from(config).unwrap();
        let seen = Seen::watch(client.clone());
        Self { dir, kubeconfig, client, seen, operators: Mutex::default(), local }
    }

    /// `kubectl` as an administrator.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Output {
        self.tool("kubectl", args, stdin).await
    }

    /// `helm` as an administrator.
    pub async fn helm(&self, args: &[&str]) -> Output {
        self.tool("helm", args, "").await
    }

    async fn tool(&self, name: &str, args: &[&str], stdin: &str) -> Output {
        let cache = self.dir.join("cache");
        let envs = [
            ("KUBECONFIG", self.kubeconfig.to_str().unwrap()),
            ("KUBECACHEDIR", cache.to_str().unwrap()),
            ("HELM_CACHE_HOME", cache.to_str().unwrap()),
            ("HELM_CONFIG_HOME", cache.to_str().unwrap()),
            ("HELM_DATA_HOME", cache.to_str().unwrap()),
        ];
        command(&tool(name), args, &envs, stdin).await
    }

    /// Applies the chart's definitions, and waits until ApiTokens are served.
    pub async fn apply_definitions(&self) {
        self.apply_file(crd_dir()).await;
        self.until_served().await;
    }

    /// Waits until ApiTokens are served: their definition is established a moment before.
    pub async fn until_served(&self) {
        let tokens = Api::<ApiToken>::all(self.client.clone());
        let one = ListParams::default().limit(1);
        until("ApiTokens are served", async || tokens.list(&one).await.ok()).await;
    }

    /// Applies a file or folder of the project and waits until the definitions in it are established.
    pub async fn apply_file(&self, path: &str) {
        let apply = ["apply", "--server-side", "--force-conflicts", "--filename", path];
        self.kubectl(&apply, "").await.ok();
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", path], "")
            .await
            .ok();
    }

    /// Removes the definition of ApiTokens, and with it all of them.
    pub async fn remove_definitions(&self) {
        let definitions = Api::<CustomResourceDefinition>::all(self.client.clone());
        for name in ["apitokens.tokenward.dev", "tokenusages.tokenward.dev"] {
            let Some(found) = definitions.get_opt(name).await.unwrap() else { continue };
            let uid = found.metadata.uid.unwrap();
            let gone = conditions::is_deleted(&uid);
            definitions.delete(name, &DeleteParams::default()).await.unwrap();
            let gone = await_condition(definitions.clone(), name, gone);
            tokio::time::timeout(super::PATIENCE, gone).await.expect("the CRD is deleted in time").unwrap();
        }
    }

    /// Waits until the namespaces of earlier cases are gone, and with them what is written while they go.
    pub async fn until_settled(&self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        until("the namespaces of earlier cases are gone", async || {
            let all = namespaces.list(&ListParams::default()).await.unwrap();
            all.iter().all(|namespace| namespace.metadata.deletion_timestamp.is_none()).then_some(())
        })
        .await;
    }

    /// Takes the API server away.
    pub async fn stop_apiserver(&self) {
        self.script("stop-apiserver").await;
    }

    /// Brings it back.
    pub async fn start_apiserver(&self) {
        self.script("start-apiserver").await;
    }

    async fn script(&self, verb: &str) {
        assert!(self.local, "only a control plane of our own is stopped");
        let script = root().join("tools/cluster.sh");
        command(&script, &[verb, "--dir", self.dir.to_str().unwrap()], &[], "").await.ok();
    }

    /// The API server's own metrics: what it was really asked for.
    pub async fn apiserver_metrics(&self) -> Scrape {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        Scrape::parse(&self.client.request_text(request).await.unwrap())
    }

    /// Starts an operator as the Deployment says, under the name of a pod.
    pub async fn start_operator(&self, launch: &Launch, pod: &str) -> Arc<Operator> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let operator = Arc::new(Operator::start(self, launch, pod, number).await);
        self.operators.lock().unwrap().push(operator.clone());
        operator
    }

    /// A kubeconfig for this cluster with this bearer token and nothing else.
    pub fn kubeconfig_with(&self, token: &str) -> String {
        let file = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let current = file.current_context.as_deref();
        let context = file.contexts.iter().find(|context| Some(context.name.as_str()) == current).unwrap();
        let name = &context.context.as_ref().unwrap().cluster;
        let cluster = file.clusters.iter().find(|cluster| cluster.name == *name).unwrap();
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": cluster.cluster}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "operator"}}],
            "current-context": "it",
        })
        .to_string()
    }
}

pub(super) async fn build_tools(names: &[&str]) {
    let needed = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm"];
    let names = if names.is_empty() { &needed } else { names };
    command(&root().join("tools/build.sh"), names, &[], "").await.ok();
}
