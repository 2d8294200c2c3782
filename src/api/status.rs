//! What the controller reports back. Every list is bounded: the whole object stays well under 10 kB.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Reason;

/// Most credentials that may be alive at once (pending, active and retiring together).
pub const MAX_CREDENTIALS: usize = 12;
/// Most ended credentials that are remembered.
pub const MAX_ENDED: usize = 10;

/// What is so, as the controller last saw it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApiTokenStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Delivered` and `OwnerResolved` always; `InUse` while a ledger listens, once issued; the others while
    /// they are true.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// One word on the state of the token.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,

    /// Who answers for the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,

    /// The Secret that the token is delivered to.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// The Secret as it was last verified: while it has not changed since, it need not be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,

    /// The credentials that gates accept. Digests only: the token itself stands in the Secret alone.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_string()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Credential>,

    /// Credentials that ended lately, newest first.
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_string()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<EndedCredential>,

    /// When the first credential was confirmed to be in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_issued_time: Option<Time>,

    /// When the active credential was confirmed to be in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_time: Option<Time>,

    /// Why the active credential was issued.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_reason: Option<String>,

    /// When the next credential will be issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<Time>,

    /// When the token ends for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// The request annotations that have been honoured, by their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled: Option<LastHandled>,

    /// What gates reported, in brief.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageSummary>,
}

/// Who answers for a token, and where that was found.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// A team or a person.
    #[schemars(length(max = 253))]
    pub name: String,
    /// How to reach them.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Where the owner was found, such as `spec.owner`, `ApiToken label team` or `Namespace annotation tokenward.dev/owner`.
    #[schemars(length(max = 400))]
    pub source: String,
}

/// The Secret as it was last written or verified.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The Secret's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The Secret's resourceVersion.
    #[schemars(length(max = 64))]
    pub resource_version: String,
    /// Hash of everything but the token that shapes the Secret: keys, labels, annotations, templates, owner.
    #[schemars(length(max = 64))]
    pub content_hash: String,
}

/// Where a living credential stands. Gates accept all three, until `notAfter`.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
pub enum CredentialState {
    /// Its digest is published; it is on its way into the Secret.
    Pending,
    /// The Secret holds it.
    Active,
    /// Superseded, and valid until `notAfter` so that workloads can follow.
    Retiring,
}

/// A credential that gates accept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The id inside the token; not secret.
    #[schemars(length(max = 32))]
    pub id: String,
    /// `sha256:` and the hex digest of the whole token.
    #[schemars(length(max = 80))]
    pub digest: String,
    /// Where it stands in its life.
    pub state: CredentialState,
    /// Why it was issued.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was issued.
    pub issued_at: Time,
    /// When it ends: the end of the overlap or the expiry, whichever is first. Without it, not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When a gate last accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}

/// How a credential ended.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
pub enum EndState {
    /// Superseded, and its overlap is over.
    Retired,
    /// Declared compromised, or not one of ours.
    Revoked,
    /// The token's expiry passed.
    Expired,
    /// Published, but never delivered.
    Abandoned,
}

/// A credential that gates refuse, remembered so that its use can be named.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EndedCredential {
    /// The id inside the token; not secret.
    #[schemars(length(max = 32))]
    pub id: String,
    /// `sha256:` and the hex digest of the whole token.
    #[schemars(length(max = 80))]
    pub digest: String,
    /// How it ended.
    pub state: EndState,
    /// Why it ended before its deadline, where the state does not say it.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ended.
    pub ended_at: Time,
}

/// Values of the request annotations that have been honoured.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LastHandled {
    /// Last honoured value of `tokenward.dev/rotate-requested-at`.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_requested_at: Option<String>,
    /// Last honoured value of `tokenward.dev/compromised-at`.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_at: Option<String>,
    /// Last honoured value of `tokenward.dev/retire-now-at`.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_now_at: Option<String>,
    /// Last honoured value of `tokenward.dev/adopt`.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<String>,
}

/// What gates reported, in brief; the TokenUsage of the same name has the detail.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UsageSummary {
    /// When a gate last accepted the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
    /// Requests that gates accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<i64>,
    /// Distinct callers seen lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<i32>,
    /// Since when gates have watched this token without a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_since: Option<Time>,
}

/// The condition types that the controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// What this generation declares is in force.
    Ready,
    /// The Secret holds a credential that gates accept, whatever was declared since.
    Delivered,
    /// The controller is converging (kstatus). Present only while true.
    Reconciling,
    /// Nothing will change without the user (kstatus). Present only while true.
    Stalled,
    /// An owner was found.
    OwnerResolved,
    /// The expiry is near. Present only while true.
    Expiring,
    /// Whether gates see the token in use; `Unknown` while they cannot tell. Present while a ledger listens, once
    /// the first credential was issued.
    InUse,
    /// Not used for `spec.idle.after`. Present only while true.
    Idle,
    /// A superseded credential is still used although its deadline is near. Present only while true.
    SupersededInUse,
    /// The API server stored the Secret otherwise than it was written. Present only while true.
    SecretMutated,
    /// An annotation that looks like a request asks for nothing. Present only while true.
    UnknownAnnotation,
}

impl ConditionType {
    /// Every type that the controller writes.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Delivered,
        Self::Reconciling,
        Self::Stalled,
        Self::OwnerResolved,
        Self::Expiring,
        Self::InUse,
        Self::Idle,
        Self::SupersededInUse,
        Self::SecretMutated,
        Self::UnknownAnnotation,
    ];

    /// The condition's `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Delivered => "Delivered",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::OwnerResolved => "OwnerResolved",
            Self::Expiring => "Expiring",
            Self::InUse => "InUse",
            Self::Idle => "Idle",
            Self::SupersededInUse => "SupersededInUse",
            Self::SecretMutated => "SecretMutated",
            Self::UnknownAnnotation => "UnknownAnnotation",
        }
    }
}

impl ApiTokenStatus {
    /// The condition of this type.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind.as_str())
    }

    /// Whether the condition of this type is present and true.
    pub fn is_true(&self, kind: ConditionType) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    /// The credential in this state, the newest if there are several.
    pub fn newest(&self, state: CredentialState) -> Option<&Credential> {
        self.credentials
            .iter()
            .filter(|credential| credential.state == state)
            .max_by(|a, b| a.issued_at.cmp(&b.issued_at).then_with(|| a.id.cmp(&b.id)))
    }

    /// The reason of `Ready`, as far as this version knows it.
    pub fn ready_reason(&self) -> Option<Reason> {
        self.condition(ConditionType::Ready).and_then(|condition| Reason::parse(&condition.reason))
    }
}
