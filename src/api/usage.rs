//! `TokenUsage`: the detail of a token's use, under the name of its ApiToken. Written by the ledger only.
//!
//! It stands beside the ApiToken, not in it: detail that changes by the minute must not fan out to the gates, which watch
//! ApiTokens, nor disturb GitOps diffs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Most callers that are kept.
pub const MAX_CALLERS: usize = 32;
/// Most refused callers that are kept, who proved to hold the credential.
pub const MAX_REFUSED_CALLERS: usize = 16;
/// Most who did not.
pub const MAX_UNPROVED_CALLERS: usize = 8;
/// Most scopes that are kept.
pub const MAX_SCOPES: usize = 64;
/// Most credentials that are kept.
pub const MAX_CREDENTIAL_USAGES: usize = 24;
/// Most gates whose progress is kept.
pub const MAX_SOURCES: usize = 64;
/// Hours that are kept: seven days.
pub const MAX_HOURS: usize = 168;

/// Nothing to declare: a TokenUsage only reports.
// The lint takes what columns have in common for one attribute written twice.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tokenward.dev",
    version = "v1alpha1",
    kind = "TokenUsage",
    plural = "tokenusages",
    shortname = "tokuse",
    category = "tokenward",
    namespaced,
    status = "TokenUsageStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "How the ApiToken of the same name is used, as gates reported it. Written by the operator only.",
    annotation("tokenward.dev/schema", "1"),
    printcolumn(
        name = "Requests",
        type_ = "integer",
        json_path = ".status.requests",
        description = "Requests that gates accepted"
    ),
    printcolumn(
        name = "First Used",
        type_ = "date",
        json_path = ".status.firstUsedAt",
        description = "When a gate first accepted the token"
    ),
    printcolumn(
        name = "Last Used",
        type_ = "date",
        json_path = ".status.lastUsedAt",
        description = "When a gate last accepted the token"
    ),
    printcolumn(
        name = "Callers",
        type_ = "string",
        json_path = ".status.callers[*].address",
        priority = 1,
        description = "Addresses it was called from"
    ),
    printcolumn(
        name = "Refused",
        type_ = "string",
        json_path = ".status.refused[*].address",
        priority = 1,
        description = "Addresses from where it was tried and refused, by whoever holds it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TokenUsageSpec {}

/// What gates reported.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TokenUsageStatus {
    /// When a gate first accepted the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_used_at: Option<Time>,

    /// When a gate last accepted the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,

    /// Requests that gates accepted.
    #[serde(default)]
    pub requests: i64,

    /// Answers of the gates by outcome; `Accepted` is the same as `requests`.
    #[schemars(extend("maxProperties" = 32))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes: BTreeMap<String, i64>,

    /// Use of each credential.
    #[schemars(length(max = 24))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_string()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialUsage>,

    /// Who used it, most recent first. Bounded: counts of busy callers are exact to within their `error`.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerUsage>,

    /// Who was refused although they hold a credential of this token, most recent first: it has ended, is suspended or
    /// compromised, or was sent where it is not meant for.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedUsage>,

    /// Who was refused and did not prove to hold anything, most recent first. Ids are public: anybody can stand here.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproved: Vec<RefusedUsage>,

    /// Scopes that accepted requests needed.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["scope".to_string()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ScopeUsage>,

    /// Requests by the hour, for seven days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<HourlyUsage>,

    /// How far each gate's reports are counted in: what makes counting twice impossible.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["gate".to_string()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
}

/// Use of one credential.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialUsage {
    /// The credential id.
    #[schemars(length(max = 32))]
    pub id: String,
    /// Requests that gates accepted.
    pub requests: i64,
    /// When a gate first accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_used_at: Option<Time>,
    /// When a gate last accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}

/// One caller with one credential.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CallerUsage {
    /// The credential it used.
    #[schemars(length(max = 32))]
    pub credential: String,
    /// Address, or the network it is truncated to.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// mTLS principal.
    #[schemars(length(max = 200))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub principal: String,
    /// User agent.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// Requests, at most `error` too many.
    pub requests: i64,
    /// How much too high `requests` may be.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub error: i64,
    /// First seen.
    pub first_seen_at: Time,
    /// Last seen.
    pub last_seen_at: Time,
}

/// One caller that was refused with one credential, for one reason.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RefusedUsage {
    /// The credential it named.
    #[schemars(length(max = 32))]
    pub credential: String,
    /// Why it was refused, as in `outcomes`.
    #[schemars(length(max = 32))]
    pub outcome: String,
    /// Address, or the network it is truncated to.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// mTLS principal.
    #[schemars(length(max = 200))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub principal: String,
    /// User agent.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// Requests, at most `error` too many.
    pub requests: i64,
    /// How much too high `requests` may be.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub error: i64,
    /// First seen.
    pub first_seen_at: Time,
    /// Last seen.
    pub last_seen_at: Time,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Use of one scope.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScopeUsage {
    /// The scope.
    #[schemars(length(max = 128))]
    pub scope: String,
    /// Accepted requests that needed it.
    pub requests: i64,
    /// Last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}

/// Requests by the hour: two rows of numbers, one for each hour since `from`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HourlyUsage {
    /// Begin of the first hour.
    pub from: Time,
    /// Accepted requests of each hour.
    #[schemars(length(max = 168))]
    pub accepted: Vec<i64>,
    /// Refused requests of each hour.
    #[schemars(length(max = 168))]
    pub refused: Vec<i64>,
}

/// How far one gate's reports are counted in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The gate.
    #[schemars(length(max = 128))]
    pub gate: String,
    /// When its process started, Unix milliseconds.
    pub epoch: i64,
    /// The last sealed set that is counted in.
    pub sequence: i64,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Time>,
}
