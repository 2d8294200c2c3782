//! Releases of the chart, and how their Deployment would run the operator.

use std::path::PathBuf;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use serde_json::Value;

use super::cluster::Cluster;
use super::command::Output;

/// The chart as it is in the tree.
pub const CHART: &str = "charts/tokenward";

/// A release, in a namespace of its own name.
pub struct Release<'c> {
    pub cluster: &'c Cluster,
    pub name: String,
}

/// What the Deployment says about a replica.
#[derive(Clone, Debug)]
pub struct Launch {
    pub args: Vec<String>,
    /// Names and values; the downward values of a pod are filled in at the start.
    pub env: Vec<(String, Env)>,
    pub account: String,
    pub namespace: String,
    pub replicas: i32,
}

/// Where the value of a variable comes from.
#[derive(Clone, Debug)]
pub enum Env {
    Value(String),
    PodName,
    PodNamespace,
}

impl<'c> Release<'c> {
    /// Installs or upgrades the chart in the tree with these values.
    pub async fn install(cluster: &'c Cluster, name: &str, values: Value) -> Self {
        let release = Self { cluster, name: name.to_owned() };
        release.upgrade(CHART, &values).await.ok();
        if values.pointer("/crds/install") != Some(&Value::Bool(false)) {
            cluster.apply_established().await;
        }
        release
    }

    /// `helm upgrade --install` of some chart. No pod runs here, so nothing is waited for.
    pub async fn upgrade(&self, chart: &str, values: &Value) -> Output {
        let path: PathBuf = self.cluster.dir.join(format!("{}-values.yaml", self.name));
        std::fs::write(&path, values.to_string()).unwrap();
        let name = self.name.as_str();
        let file = path.to_str().unwrap();
        let args = [
            "upgrade",
            "--install",
            name,
            chart,
            "--namespace",
            name,
            "--create-namespace",
            "--values",
            file,
        ];
        self.cluster.helm(&args).await
    }

    pub async fn uninstall(&self) {
        self.cluster.helm(&["uninstall", &self.name, "--namespace", &self.name, "--wait"]).await.ok();
    }

    /// The Deployment as the API server stored it.
    pub async fn launch(&self) -> Launch {
        let deployments = Api::<Deployment>::namespaced(self.cluster.client.clone(), &self.name);
        let selector = format!("app.kubernetes.io/instance={}", self.name);
        let mut found = deployments.list(&ListParams::default().labels(&selector)).await.unwrap().items;
        assert_eq!(found.len(), 1, "one Deployment");
        let spec = found.remove(0).spec.unwrap();
        let pod = spec.template.spec.unwrap();
        let container = pod.containers.into_iter().next().unwrap();
        assert!(container.command.is_none(), "the image's entrypoint is the binary");
        let env = container.env.unwrap_or_default().into_iter().map(|variable| {
            let field = variable.value_from.and_then(|source| source.field_ref).map(|field| field.field_path);
            let value = match field.as_deref() {
                None => Env::Value(variable.value.unwrap_or_default()),
                Some("metadata.name") => Env::PodName,
                Some("metadata.namespace") => Env::PodNamespace,
                Some(other) => panic!("{}: a pod's {other} is not known here", variable.name),
            };
            (variable.name, value)
        });
        Launch {
            args: container.args.unwrap_or_default(),
            env: env.collect(),
            account: pod.service_account_name.unwrap(),
            namespace: self.name.clone(),
            replicas: spec.replicas.unwrap(),
        }
    }
}

impl Cluster {
    /// Waits until ApiTokens are served.
    pub async fn apply_established(&self) {
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd/apitokens.tokenward.dev"];
        self.kubectl(&wait, "").await.ok();
    }
}
