//! The real API server: what is put there before anything is measured, and taken away afterwards.

use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt as _};
use tokenward::api::{ApiToken, ApiTokenSpec, RotationSpec};

use super::Result;

const MANAGER: &str = "bench";

/// A client for the cluster of this kubeconfig.
pub async fn connect(path: &str) -> Result<Client> {
    let config = Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Installs the CRDs and waits until they are served.
pub async fn install_crds(client: &Client) -> Result<()> {
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let params = PatchParams::apply(MANAGER).force();
    for crd in tokenward::api::crds() {
        crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await?;
        await_condition(crds.clone(), &crd.name_any(), conditions::is_crd_established()).await?;
    }
    Ok(())
}

/// A namespace of its own for each measurement, so that none lists another's objects.
pub async fn fresh_namespace(client: &Client) -> Result<String> {
    let metadata = ObjectMeta { generate_name: Some("bench-".into()), ..Default::default() };
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace =
        namespaces.create(&PostParams::default(), &Namespace { metadata, ..Default::default() }).await?;
    Ok(namespace.name_any())
}

/// Deletes a namespace and waits until it is gone: leftovers must not weigh on the next measurement.
pub async fn drop_namespace(client: &Client, name: &str) -> Result<()> {
    let tokens = Api::<ApiToken>::namespaced(client.clone(), name);
    // The API server gives a request a minute, and ten thousand objects may take longer: what is deleted stays deleted.
    let mut attempts = 0;
    while let Err(error) = tokens.delete_collection(&DeleteParams::background(), &ListParams::default()).await
    {
        attempts += 1;
        if attempts == 10 {
            return Err(error.into());
        }
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    let uid = namespaces.get(name).await?.uid().unwrap_or_default();
    namespaces.delete(name, &DeleteParams::background()).await?;
    await_condition(namespaces, name, conditions::is_deleted(&uid)).await?;
    Ok(())
}

/// A token as teams declare it.
pub fn token(name: &str) -> ApiToken {
    let rotation =
        RotationSpec { every: Some("720h".into()), overlap: Some("24h".into()), ..Default::default() };
    let spec = ApiTokenSpec {
        description: Some("Payments calls the orders API".into()),
        audiences: vec!["orders-api".into()],
        scopes: vec!["orders:read".into(), "orders:write".into()],
        rotation: Some(rotation),
        ..Default::default()
    };
    let mut token = ApiToken::new(name, spec);
    token.labels_mut().insert("team".into(), "payments".into());
    token
}

/// Creates `count` tokens: `t-0`, `t-1` and so on.
pub async fn create_tokens(client: &Client, namespace: &str, count: usize, in_flight: usize) -> Result<()> {
    let api = Api::<ApiToken>::namespaced(client.clone(), namespace);
    stream::iter((0..count).map(Ok))
        .try_for_each_concurrent(in_flight, |n| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &token(&format!("t-{n}"))).await.map(drop) }
        })
        .await?;
    Ok(())
}
