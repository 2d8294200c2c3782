//! Puts what waits for one token into its TokenUsage.
//!
//! Read, merge, replace under the version that was read; on a conflict, once more. Which sets are counted in stands in the
//! TokenUsage itself, so that a crash between the write and the receipt, a lost answer, or a second leader counts nothing twice.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource as _};

use super::desk::{Job, Outcome, Waiting, fingerprint};
use super::metrics::Metrics;
use crate::api::Outcome::Accepted;
use crate::api::{ApiToken, CallerUsage, RefusedUsage, TokenUsage, TokenUsageSpec, TokenUsageStatus, keys};
use crate::domain::directory::Claimant;
use crate::domain::usage::{Merged, Persisted, merge, touch};
use crate::platform::leadership::{Fence, NotLeading};
use crate::platform::words;

/// Attempts for one job; after that it waits for its next turn.
const ATTEMPTS: u32 = 4;

/// Writes TokenUsages.
#[derive(Clone)]
pub struct Persister {
    client: Client,
    fence: Fence,
    limit: Duration,
    metrics: Metrics,
}

/// Why it did not work this time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or could not be reached.
    #[error("{}", words::of(.0))]
    Api(#[from] kube::Error),
    /// No answer in time. The write may have taken effect all the same.
    #[error("no answer within {}", crate::domain::duration::format(*.0))]
    Timeout(Duration),
    /// Another replica leads now.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The TokenUsage of an ApiToken that had the same name: it is about to be collected.
    #[error("the TokenUsage belongs to an ApiToken that is gone")]
    Predecessor,
    /// Somebody else writes all the time.
    #[error("changed by somebody else each of {ATTEMPTS} times")]
    Contended,
}

impl Error {
    /// A bounded name for logs and metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api(_) if self.code() == Some(409) => "Conflict",
            Self::Api(_) => "Api",
            Self::Timeout(_) => "Timeout",
            Self::NotLeading(_) => "NotLeading",
            Self::Predecessor => "Predecessor",
            Self::Contended => "Contended",
        }
    }

    /// Whether the API server is the trouble, not this token.
    pub fn is_everywhere(&self) -> bool {
        match self {
            Self::Api(_) => self.code().is_none_or(|code| code == 429 || code >= 500),
            Self::Timeout(_) | Self::NotLeading(_) => true,
            Self::Predecessor | Self::Contended => false,
        }
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether there is nothing to write to, for good.
    fn is_gone(&self) -> bool {
        let Self::Api(kube::Error::Api(status)) = self else { return false };
        let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
        status.code == 403 && causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

impl Persister {
    /// Writes through `client`, each call for at most `limit`, and only while `fence` is open.
    pub fn new(client: Client, fence: Fence, limit: Duration, metrics: Metrics) -> Self {
        Self { client, fence, limit, metrics }
    }

    /// Persists a job; returns how it ended and how many writes it took. `exists`: whether the ApiToken is still there.
    pub async fn persist(
        &self,
        job: &Job,
        exists: impl Fn() -> bool,
        now: impl Fn() -> Timestamp,
    ) -> (Outcome, u32) {
        let mut writes = 0;
        let (namespace, name) = (&job.claimant.namespace, &job.claimant.name);
        let outcome = match self.attempt(job, exists, now, &mut writes).await {
            Ok(Some((status, outdated))) => Outcome::Written {
                callers: known_callers(&status),
                summary: Persisted::of(&status),
                outdated,
            },
            Ok(None) => Outcome::Gone,
            Err(error) if error.is_gone() => Outcome::Gone,
            Err(error) => {
                match error {
                    Error::NotLeading(_) => {
                        tracing::info!(namespace, name, "usage kept: another replica leads")
                    }
                    Error::Predecessor | Error::Contended => {
                        tracing::info!(namespace, name, %error, "usage is not persisted yet");
                    }
                    _ => {
                        let category = error.category();
                        tracing::warn!(namespace, name, %error, category, "usage is not persisted yet");
                    }
                }
                Outcome::Failed { everywhere: error.is_everywhere() }
            }
        };
        (outcome, writes)
    }

    /// What stands in the TokenUsage now, and the sets that are not in it. `None`: the ApiToken is gone.
    async fn attempt(
        &self,
        job: &Job,
        exists: impl Fn() -> bool,
        now: impl Fn() -> Timestamp,
        writes: &mut u32,
    ) -> Result<Option<(TokenUsageStatus, Vec<Waiting>)>, Error> {
        let api = Api::<TokenUsage>::namespaced(self.client.clone(), &job.claimant.namespace);
        let name = job.claimant.name.as_str();
        let params =
            PostParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        for _ in 0..ATTEMPTS {
            if !exists() {
                return Ok(None);
            }
            let usage = match self.bounded(api.get_opt(name)).await? {
                Some(usage) => match standing(&usage, &job.claimant) {
                    Standing::Ours => usage,
                    Standing::Predecessors => return Err(Error::Predecessor),
                    Standing::Nobodys => {
                        let mut adopted = usage;
                        adopted.metadata.owner_references = Some(vec![reference(&job.claimant)]);
                        adopted.metadata.managed_fields = None;
                        let call = api.replace(name, &params, &adopted);
                        match self.written("adopt", call, writes).await? {
                            Some(usage) => usage,
                            None => continue,
                        }
                    }
                },
                None => {
                    match self.written("create", api.create(&params, &fresh(&job.claimant)), writes).await? {
                        Some(usage) => usage,
                        None => continue,
                    }
                }
            };
            let before = usage.status.clone().unwrap_or_default();
            let mut after = before.clone();
            let mut outdated = Vec::new();
            for set in &job.sets {
                match merge(&mut after, &set.gate, set.epoch, &set.sealed, now()) {
                    Merged::Counted | Merged::Known => {}
                    Merged::Outdated => outdated.push(set.clone()),
                }
            }
            job.live.iter().for_each(|(credential, at)| touch(&mut after, credential, *at));
            if after == before {
                // Counted in before: the receipt got lost, or another leader did it.
                return Ok(Some((after, outdated)));
            }
            let object = TokenUsage {
                metadata: ObjectMeta {
                    name: usage.metadata.name.clone(),
                    namespace: usage.metadata.namespace.clone(),
                    uid: usage.metadata.uid.clone(),
                    resource_version: usage.metadata.resource_version.clone(),
                    ..ObjectMeta::default()
                },
                spec: TokenUsageSpec::default(),
                status: Some(after),
            };
            let call = api.replace_status(name, &params, &object);
            if let Some(usage) = self.written("status", call, writes).await? {
                return Ok(Some((usage.status.unwrap_or_default(), outdated)));
            }
        }
        Err(Error::Contended)
    }

    /// One write, past the fence. `None`: the object is not what it was; look again.
    async fn written(
        &self,
        kind: &'static str,
        call: impl Future<Output = kube::Result<TokenUsage>>,
        writes: &mut u32,
    ) -> Result<Option<TokenUsage>, Error> {
        self.fence.check()?;
        *writes += 1;
        let answer = self.bounded(call).await;
        self.metrics.writes.inc([kind, answer.as_ref().map_or_else(Error::category, |_| "ok")]);
        match answer {
            Ok(usage) => Ok(Some(usage)),
            Err(error) if error.code() == Some(409) => Ok(None),
            // 404 to a create: the namespace is gone, and with it the ApiToken, of which the watch will tell.
            Err(error) if error.code() == Some(404) && kind != "create" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::Timeout(self.limit)),
        }
    }
}

/// Accepted, or refused although they hold the credential.
fn known_callers(status: &TokenUsageStatus) -> HashSet<u64> {
    let accepted = status.callers.iter().map(|caller| {
        let CallerUsage { credential, address, principal, user_agent, .. } = caller;
        fingerprint(credential, Accepted.as_str(), address, principal, user_agent)
    });
    let refused = status.refused.iter().map(|caller| {
        let RefusedUsage { credential, outcome, address, principal, user_agent, .. } = caller;
        fingerprint(credential, outcome, address, principal, user_agent)
    });
    accepted.chain(refused).collect()
}

enum Standing {
    Ours,
    Predecessors,
    Nobodys,
}

/// Whose TokenUsage this is. One of another uid is that of an ApiToken of the same name that was deleted; its counts are not
/// ours, and the garbage collector is about to take it.
fn standing(usage: &TokenUsage, claimant: &Claimant) -> Standing {
    let references = usage.metadata.owner_references.as_deref().unwrap_or_default();
    let mut owners = references.iter().filter(|owner| owner.kind == ApiToken::kind(&()));
    match owners.clone().any(|owner| owner.uid == claimant.uid) {
        true => Standing::Ours,
        false if owners.next().is_some() || usage.metadata.deletion_timestamp.is_some() => {
            Standing::Predecessors
        }
        false => Standing::Nobodys,
    }
}

fn reference(claimant: &Claimant) -> OwnerReference {
    OwnerReference {
        api_version: ApiToken::api_version(&()).into_owned(),
        kind: ApiToken::kind(&()).into_owned(),
        name: claimant.name.clone(),
        uid: claimant.uid.clone(),
        controller: None,
        block_owner_deletion: None,
    }
}

fn fresh(claimant: &Claimant) -> TokenUsage {
    let mut usage = TokenUsage::new(&claimant.name, TokenUsageSpec::default());
    usage.metadata.namespace = Some(claimant.namespace.clone());
    usage.metadata.owner_references = Some(vec![reference(claimant)]);
    usage.metadata.labels =
        Some([(keys::MANAGED_BY.to_owned(), keys::FIELD_MANAGER.to_owned())].into_iter().collect());
    usage
}
