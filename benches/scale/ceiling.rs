//! The raw-write ceiling: a plain client that makes the operator's writes and nothing else.

use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokenward::api::{ApiToken, ApiTokenStatus, CredentialState};

use crate::common::Result;
use crate::common::cluster::{drop_namespace, fresh_namespace, token};

const MANAGER: &str = "scale-ceiling";

/// How a status is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StatusVerb {
    /// Replace under a resourceVersion.
    Put,
    /// JSON merge patch under a resourceVersion.
    Merge,
    /// Server-side apply under a resourceVersion.
    Apply,
}

/// What the operator wrote for one token.
#[derive(Clone)]
pub struct Sample {
    published: ApiTokenStatus,
    confirmed: ApiTokenStatus,
    secret: Secret,
}

/// All tokens of a namespace.
pub async fn list(client: &Client, namespace: &str) -> Result<Vec<ApiToken>> {
    let listed = Api::<ApiToken>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    Ok(listed.items)
}

/// Lets the running operator issue one token and keeps what it wrote.
pub async fn take_sample(client: &Client) -> Result<Sample> {
    let namespace = fresh_namespace(client).await?;
    let api = Api::<ApiToken>::namespaced(client.clone(), &namespace);
    api.create(&PostParams::default(), &token("sample")).await?;
    let healthy = |token: Option<&ApiToken>| {
        token
            .and_then(|token| token.status.as_ref())
            .is_some_and(|status| status.health.as_deref() == Some("Healthy"))
    };
    let issued = await_condition(api, "sample", healthy).await?.ok_or("the sample vanished")?;
    let mut secret = Api::<Secret>::namespaced(client.clone(), &namespace).get("sample").await?;
    secret.metadata = ObjectMeta {
        labels: secret.metadata.labels,
        annotations: secret.metadata.annotations,
        owner_references: secret.metadata.owner_references,
        ..Default::default()
    };
    let confirmed = issued.status.ok_or("no status")?;
    let mut published = confirmed.clone();
    published.credentials.iter_mut().for_each(|credential| credential.state = CredentialState::Pending);
    published.delivery = None;
    drop_namespace(client, &namespace).await?;
    Ok(Sample { published, confirmed, secret })
}

/// Writes the status of every token once.
pub async fn write_status_of(
    client: &Client,
    tokens: &[ApiToken],
    sample: &Sample,
    verb: StatusVerb,
    in_flight: usize,
) -> Result<()> {
    // Alternate, so that no write changes nothing.
    let status = |token: &ApiToken| {
        let published = token.status.as_ref().is_none_or(|status| status.delivery.is_some());
        if published { sample.published.clone() } else { sample.confirmed.clone() }
    };
    stream::iter(tokens.iter().map(Ok))
        .try_for_each_concurrent(in_flight, |token| {
            let status = status(token);
            async move { write_status(client, token, status, verb).await.map(drop) }
        })
        .await
}

async fn write_status(
    client: &Client,
    token: &ApiToken,
    status: ApiTokenStatus,
    verb: StatusVerb,
) -> Result<ApiToken> {
    let api = Api::<ApiToken>::namespaced(client.clone(), token.namespace());
    let name = token.name_any();
    let version = token.resource_version();
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..Default::default() };
    let written = match verb {
        StatusVerb::Put => {
            let mut object = token.clone();
            object.metadata.managed_fields = None;
            object.status = Some(status);
            api.replace_status(&name, &PostParams::default(), &object).await?
        }
        StatusVerb::Merge => {
            let body = json!({"metadata": {"resourceVersion": version}, "status": status});
            api.patch_status(&name, &params, &Patch::Merge(body)).await?
        }
        StatusVerb::Apply => {
            let body = json!({
                "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
                "metadata": {"name": name, "resourceVersion": version}, "status": status,
            });
            api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await?
        }
    };
    Ok(written)
}

/// Publishes, delivers and confirms one token.
async fn issue(client: &Client, token: ApiToken, sample: &Sample) -> Result<()> {
    let published = write_status(client, &token, sample.published.clone(), StatusVerb::Put).await?;
    let mut secret = sample.secret.clone();
    secret.metadata.name = Some(token.name_any());
    for owner in secret.metadata.owner_references.iter_mut().flatten() {
        owner.name = token.name_any();
        owner.uid = token.uid().to_owned();
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), token.namespace());
    secrets.patch(&token.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret)).await?;
    write_status(client, &published, sample.confirmed.clone(), StatusVerb::Put).await?;
    Ok(())
}

/// Issues existing tokens.
pub async fn issue_all(
    client: &Client,
    tokens: Vec<ApiToken>,
    sample: &Sample,
    in_flight: usize,
) -> Result<()> {
    stream::iter(tokens.into_iter().map(Ok))
        .try_for_each_concurrent(in_flight, |token| issue(client, token, sample))
        .await
}

/// Creates tokens and issues each.
pub async fn create_and_issue_all(
    client: &Client,
    namespace: &str,
    sample: &Sample,
    count: usize,
    in_flight: usize,
) -> Result<()> {
    let api = Api::<ApiToken>::namespaced(client.clone(), namespace);
    stream::iter((0..count).map(Ok))
        .try_for_each_concurrent(in_flight, |n| {
            let api = api.clone();
            async move {
                let created = api.create(&PostParams::default(), &token(&format!("t-{n}"))).await?;
                issue(client, created, sample).await
            }
        })
        .await
}
