//! Releases of the chart, and how their Deployments would run the operator.

use std::path::PathBuf;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EnvVar, Volume};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::command::Output;

/// The chart as it is in the tree.
pub const CHART: &str = "charts/tokenward";

/// A release, in a namespace of its own name.
pub struct Release<'c> {
    pub cluster: &'c Cluster,
    pub name: String,
}

/// What a Deployment says about a replica.
#[derive(Clone, Debug)]
pub struct Launch {
    pub args: Vec<String>,
    /// Names and values; the downward values of a pod are filled in at the start.
    pub env: Vec<(String, Env)>,
    /// Folders of the pod, and what the kubelet would put there.
    pub mounts: Vec<(String, Vec<Content>)>,
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
    PodIp,
}

/// What the kubelet puts into a folder of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A token of the pod's ServiceAccount for an audience, in a file of this name.
    Token { file: String, audience: String, seconds: i64 },
    /// Keys of a Secret of the release's namespace, each with the name of its file.
    Secret { name: String, files: Vec<(String, String)> },
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
    /// Policies are objects of the cluster, outlive a case, and would forbid the next one's operator: only who asks for
    /// them gets them.
    pub async fn upgrade(&self, chart: &str, values: &Value) -> Output {
        let mut values = values.clone();
        if values.get("admissionPolicies").is_none() {
            values["admissionPolicies"] = json!({"enabled": false});
        }
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

    /// How the controller runs.
    pub async fn launch(&self) -> Launch {
        self.launch_of("controller").await
    }

    /// How a gate runs.
    pub async fn launch_gate(&self) -> Launch {
        self.launch_of("gate").await
    }

    /// The Deployment of a component as the API server stored it.
    async fn launch_of(&self, component: &str) -> Launch {
        let deployments = Api::<Deployment>::namespaced(self.cluster.client.clone(), &self.name);
        let selector =
            format!("app.kubernetes.io/instance={},app.kubernetes.io/component={component}", self.name);
        let mut found = deployments.list(&ListParams::default().labels(&selector)).await.unwrap().items;
        assert_eq!(found.len(), 1, "one Deployment of the {component}");
        let spec = found.remove(0).spec.unwrap();
        let pod = spec.template.spec.unwrap();
        let container = pod.containers.into_iter().next().unwrap();
        assert!(container.command.is_none(), "the image's entrypoint is the binary");
        let volumes = pod.volumes.unwrap_or_default();
        let mounts = container.volume_mounts.unwrap_or_default().into_iter().map(|mount| {
            assert_eq!(mount.sub_path, None, "a subPath does not follow changes");
            let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
            (mount.mount_path, contents(volume))
        });
        Launch {
            args: container.args.unwrap_or_default(),
            env: container.env.unwrap_or_default().into_iter().map(variable).collect(),
            mounts: mounts.collect(),
            account: pod.service_account_name.unwrap(),
            namespace: self.name.clone(),
            replicas: spec.replicas.unwrap(),
        }
    }
}

fn variable(variable: EnvVar) -> (String, Env) {
    let field = variable.value_from.and_then(|source| source.field_ref).map(|field| field.field_path);
    let value = match field.as_deref() {
        None => Env::Value(variable.value.unwrap_or_default()),
        Some("metadata.name") => Env::PodName,
        Some("metadata.namespace") => Env::PodNamespace,
        Some("status.podIP") => Env::PodIp,
        Some(other) => panic!("{}: a pod's {other} is not known here", variable.name),
    };
    (variable.name, value)
}

fn contents(volume: &Volume) -> Vec<Content> {
    if let Some(secret) = &volume.secret {
        let files = secret.items.iter().flatten().map(|item| (item.key.clone(), item.path.clone()));
        return vec![Content::Secret { name: secret.secret_name.clone().unwrap(), files: files.collect() }];
    }
    let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
    let Some(sources) = sources else { panic!("{}: not known here", volume.name) };
    let tokens = sources.iter().map(|source| {
        let token = source.service_account_token.as_ref().unwrap();
        Content::Token {
            file: token.path.clone(),
            audience: token.audience.clone().unwrap(),
            seconds: token.expiration_seconds.unwrap(),
        }
    });
    tokens.collect()
}

impl Cluster {
    /// Waits until ApiTokens are served.
    pub async fn apply_established(&self) {
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd/apitokens.tokenward.dev"];
        self.kubectl(&wait, "").await.ok();
        self.until_served().await;
    }
}
