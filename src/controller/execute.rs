//! The calls that carry out a step. Each passes the fence first and is bounded in time.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, Resource as _};

use super::error::{Call, Error};
use super::leader::Fence;
use super::metrics::Metrics;
use crate::api::{ApiToken, ApiTokenStatus, keys};
use crate::domain::delivery::DesiredSecret;
use crate::domain::plan::Precondition;

/// No object was ever at this version: etcd's revisions start at 1, which is the empty store.
///
/// A server-side apply that carries a resourceVersion is compared with it only where the object exists. With one that no
/// object can have, the apply creates or fails with a conflict: it never takes over a Secret that somebody else made in
/// the meantime, and never overwrites what another replica delivered.
const CREATE_ONLY: &str = "1";

/// The API server as a reconcile uses it.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    fence: Fence,
    timeout: Duration,
    metrics: Metrics,
}

impl Executor {
    /// Calls through `client`, each for at most `timeout`, and writes only while `fence` is open.
    pub fn new(client: Client, fence: Fence, timeout: Duration, metrics: Metrics) -> Self {
        Self { client, fence, timeout, metrics }
    }

    /// The token's Secret; `None` if there is none of this name.
    pub async fn read_secret(&self, token: &ApiToken) -> Result<Option<Secret>, Error> {
        let api = Api::<Secret>::namespaced(self.client.clone(), token.namespace());
        self.bounded(Call::ReadSecret, api.get_opt(token.secret_name())).await
    }

    /// Applies the Secret and returns it as the server stored it.
    pub async fn apply_secret(
        &self,
        token: &ApiToken,
        desired: &DesiredSecret,
        precondition: &Precondition,
    ) -> Result<Secret, Error> {
        self.fence.check()?;
        let api = Api::<Secret>::namespaced(self.client.clone(), token.namespace());
        let body = body(token, desired, precondition);
        // Forced: within our own Secret nobody else's claim on our keys stands. Whose Secret it is, the precondition says.
        let params = PatchParams::apply(keys::FIELD_MANAGER).force();
        let applied = self
            .bounded(Call::ApplySecret, api.patch(token.secret_name(), &params, &Patch::Apply(&body)))
            .await;
        self.metrics.secret_writes.inc([outcome(&applied)]);
        applied
    }

    /// Replaces the status of exactly the object that was read, and returns what the server stored. `None`: the ApiToken
    /// is gone.
    pub async fn write_status(
        &self,
        token: &ApiToken,
        status: ApiTokenStatus,
    ) -> Result<Option<ApiToken>, Error> {
        self.fence.check()?;
        let api = Api::<ApiToken>::namespaced(self.client.clone(), token.namespace());
        let object =
            ApiToken { metadata: token.metadata.clone(), spec: token.spec.clone(), status: Some(status) };
        let params = PostParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..Default::default() };
        let written =
            self.bounded(Call::WriteStatus, api.replace_status(token.name(), &params, &object)).await;
        self.metrics.status_writes.inc([outcome(&written)]);
        match written {
            Ok(mut token) => {
                slim(&mut token.metadata);
                Ok(Some(token))
            }
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn bounded<T>(
        &self,
        call: Call,
        future: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(self.timeout, future);
        match answer.await.map_err(|_| Error::Timeout { call, after: self.timeout })? {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) if status.code == 409 || names_another_object(&status) => {
                Err(Error::Conflict(call))
            }
            Err(source) => Err(Error::Api { call, source: Box::new(source) }),
        }
    }
}

/// The object was deleted and made anew meanwhile: a uid that does not fit is answered as a change of an immutable field.
fn names_another_object(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    status.code == 422 && causes.iter().any(|cause| cause.field == "metadata.uid")
}

fn outcome<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().map_or_else(Error::category, |_| "ok")
}

/// What kubectl leaves behind: the whole declaration once more.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what no decision needs and every copy would carry.
fn slim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

fn body(token: &ApiToken, desired: &DesiredSecret, precondition: &Precondition) -> Secret {
    let (uid, resource_version) = match precondition {
        Precondition::Create => (None, CREATE_ONLY.to_owned()),
        Precondition::Unchanged { uid, resource_version } => (Some(uid.clone()), resource_version.clone()),
    };
    let owner = OwnerReference {
        api_version: ApiToken::api_version(&()).into_owned(),
        kind: ApiToken::kind(&()).into_owned(),
        name: token.name().to_owned(),
        uid: token.uid().to_owned(),
        controller: Some(true),
        // Left out: blocking the owner's deletion would ask for a right on its finalizers and gain nothing.
        block_owner_deletion: None,
    };
    let data = desired.data.iter().map(|(key, value)| (key.clone(), ByteString(value.as_bytes().to_vec())));
    Secret {
        metadata: ObjectMeta {
            name: Some(token.secret_name().to_owned()),
            namespace: Some(token.namespace().to_owned()),
            uid,
            resource_version: Some(resource_version),
            labels: Some(desired.labels.clone()),
            annotations: Some(desired.annotations.clone()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        type_: Some(desired.type_.clone()),
        data: Some(data.collect()),
        ..Default::default()
    }
}
