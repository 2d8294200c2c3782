//! The `ApiToken` custom resource: what a user declares.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::status::ApiTokenStatus;

/// Key of the Secret that holds the token when `spec.secret.key` is not given.
pub const DEFAULT_SECRET_KEY: &str = "token";
/// Type of the Secret when `spec.secret.type` is not given.
pub const DEFAULT_SECRET_TYPE: &str = "Opaque";

/// What the user wants: which API accepts the token, where it is delivered, when it rotates and ends.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tokenward.dev",
    version = "v1alpha1",
    kind = "ApiToken",
    plural = "apitokens",
    shortname = "apitok",
    category = "tokenward",
    namespaced,
    status = "ApiTokenStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An API token that is issued into a Secret, rotated on schedule, owned by somebody, and retired on time.",
    annotation("tokenward.dev/schema", "1"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether what is declared is in force"),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.health", description = "One word on the state of the token"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".status.owner.name", description = "Who answers for the token"),
    printcolumn(name = "Last Used", type_ = "date", json_path = ".status.usage.lastUsedAt", description = "When a gate last accepted the token"),
    printcolumn(name = "Next Rotation", type_ = "string", json_path = ".status.nextRotationTime", description = "When the next credential will be issued"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt", description = "When the token ends for good"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName", priority = 1, description = "The Secret that the token is delivered to"),
    printcolumn(name = "Credential", type_ = "string", json_path = r#".status.credentials[?(@.state=="Active")].id"#, priority = 1, description = "Id of the active credential; not secret"),
    printcolumn(name = "Requests", type_ = "integer", json_path = ".status.usage.requests", priority = 1, description = "Requests that gates answered for the token"),
    printcolumn(name = "Delivered", type_ = "string", json_path = r#".status.conditions[?(@.type=="Delivered")].status"#, priority = 1, description = "Whether the Secret holds a credential that gates accept, whatever was declared since"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1, description = "Why Ready is what it is"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name is also a label value on the Secret: use at most 63 characters"),
    validation = Rule::new("(has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name) == (has(oldSelf.spec.secret) && has(oldSelf.spec.secret.name) ? oldSelf.spec.secret.name : oldSelf.metadata.name)").message("spec.secret.name is immutable (default: metadata.name): create a new ApiToken to deliver under another name"),
    validation = Rule::new("(has(self.spec.secret) && has(self.spec.secret.type) ? self.spec.secret.type : 'Opaque') == (has(oldSelf.spec.secret) && has(oldSelf.spec.secret.type) ? oldSelf.spec.secret.type : 'Opaque')").message("spec.secret.type is immutable (default: Opaque), as a Secret's type is: create a new ApiToken for another type")
)]
#[serde(rename_all = "camelCase")]
pub struct ApiTokenSpec {
    /// What the token is for, in a sentence: whoever finds the token in a log will read this.
    #[schemars(length(max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,

    /// Who answers for the token. Comes before every label and annotation that could name somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerSpec>,

    /// Which APIs accept the token: a gate asked for another audience refuses it. Without any, none that is named:
    /// write `["*"]` for all.
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new("self.all(a, a.matches('^[A-Za-z0-9._:/*-]+$'))").message("an audience may hold letters, digits and . _ : / * - only"), validation = Rule::new("self.size() <= 1 || !('*' in self)").message("\"*\" stands for every audience, so it stands alone: leave it out, or leave the others out"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,

    /// What the token may do: a gate asked for a scope that is not listed refuses it. `["*"]` stands for every scope but
    /// those under `tokenward:`, which give rights on the gate and have to be named.
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new("self.all(s, s.matches('^[A-Za-z0-9._:/*-]+$'))").message("a scope may hold letters, digits and . _ : / * - only"), validation = Rule::new("self.size() <= 1 || !('*' in self)").message("\"*\" stands for every scope, so it stands alone: leave it out, or leave the others out"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,

    /// The Secret that the token is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSpec>,

    /// When a new credential replaces the current one. Without it, only on request or when the Secret is lost or altered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationSpec>,

    /// When the token ends for good. Without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<ExpirySpec>,

    /// When the token counts as idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleSpec>,

    /// Refuse the token at once, reversibly: no credential is lost, and `false` makes it valid again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Who answers for a token.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OwnerSpec {
    /// A team or a person.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^\\p{Z}\\p{Cc}]([^\\p{Zl}\\p{Zp}\\p{Cc}]*[^\\p{Z}\\p{Cc}])?$')").message("an owner's name is one line, without spaces around it"))]
    pub name: String,

    /// How to reach them: an address, a channel, a page. Default: looked up as it is without `spec.owner`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^\\p{Z}\\p{Cc}]([^\\p{Zl}\\p{Zp}\\p{Cc}]*[^\\p{Z}\\p{Cc}])?$')").message("a contact is one line, without spaces around it"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

/// The Secret that a token is delivered to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.template) || !((has(self.key) ? self.key : 'token') in self.template)").message("secret.template must not name the key that holds the token itself (secret.key, default: token)"))]
pub struct SecretSpec {
    /// Name of the Secret, but none that another tool looks for. Default: the ApiToken's own name. Immutable.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("a Secret's name holds lower-case letters, digits, - and . and starts and ends with a letter or digit"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Key that holds the token. Default: `token`. A change moves the same token to the new key.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')").message("a Secret's key holds letters, digits, - _ and . only, and does not begin with two dots"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,

    /// Type of the Secret: `Opaque`, `kubernetes.io/basic-auth`, `kubernetes.io/dockerconfigjson`, or one that the installation
    /// allows. Default: `Opaque`. Immutable.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$')").message("write a Secret type such as Opaque, kubernetes.io/basic-auth or example.com/my-type"))]
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,

    /// Labels added to the Secret, but none that gives it a meaning to others. Nothing is copied from the ApiToken's own labels.
    #[schemars(extend("maxProperties" = 16), extend("additionalProperties" = {"type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"}))]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$'))").message("a label key holds letters, digits, - _ . and one / after an optional DNS prefix"), validation = Rule::new("self.all(k, !k.startsWith('tokenward.dev/') && k != 'app.kubernetes.io/managed-by')").message("labels under tokenward.dev/ and app.kubernetes.io/managed-by are written by the operator"))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Annotations added to the Secret, but none that gives it a meaning to others.
    #[schemars(extend("maxProperties" = 16), extend("additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$'))").message("an annotation key holds letters, digits, - _ . and one / after an optional DNS prefix"), validation = Rule::new("self.all(k, !k.startsWith('tokenward.dev/'))").message("annotations under tokenward.dev/ are written by the operator"))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// Extra keys, rendered with the token: `.netrc: "machine api login me password {{ token }}"`. Between the braces
    /// stand the names `token`, `id`, `name`, `namespace`, `owner`, `contact`; texts in quotes; `~` to join; a bar before a
    /// filter, `b64encode`, `lower`, `replace('old', 'new')`, `trim` or `upper`, which binds tighter than `~`; parentheses.
    /// Nothing else is understood. An unknown name is an error, never an empty string.
    #[schemars(extend("maxProperties" = 16), extend("additionalProperties" = {"type": "string", "maxLength": 8192}))]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[-._a-zA-Z0-9]+$') && k != '.' && !k.startsWith('..'))").message("a Secret's key holds letters, digits, - _ and . only, and does not begin with two dots"))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub template: BTreeMap<String, String>,
}

/// When a new credential replaces the current one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.every) != has(self.schedule)").message("write exactly one of rotation.every (an interval such as 720h) and rotation.schedule (cron such as \"0 3 * * SUN\")"),
    validation = Rule::new("!has(self.timeZone) || has(self.schedule)").message("rotation.timeZone goes with rotation.schedule"),
    validation = Rule::new("!has(self.every) || !has(self.overlap) || !self.every.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') || !self.overlap.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') || duration(self.overlap) < duration(self.every)").message("rotation.overlap must be shorter than rotation.every: a superseded credential ends before the next one is superseded")
)]
pub struct RotationSpec {
    /// Interval between credentials, as a Go-style duration: `720h`, `90m`. At least `1m`. Each token rotates up to a
    /// tenth of the interval (an hour at most) early, always by the same amount, so that a fleet does not rotate at once.
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('876000h')").message("write a duration from 1m to 876000h in hours, minutes and seconds, such as 720h, 90m or 1h30m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,

    /// Cron expression of five fields, such as `0 3 * * SUN`. Rotation happens within five minutes after it fires.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^(@(yearly|annually|monthly|weekly|daily|hourly)|[0-9A-Za-z*/,#?-]+( [0-9A-Za-z*/,#?-]+){4})$')").message("write five cron fields separated by single spaces, such as \"0 3 * * SUN\", or @daily, @weekly, @monthly"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// Time zone of the schedule by its IANA name, such as `Europe/Berlin`. Default: `UTC`.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$')").message("write an IANA time zone name such as Europe/Berlin or UTC"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,

    /// How long a superseded credential stays valid, so that every workload has time to pick up its successor.
    /// Default: `24h`, or half the interval if that is shorter. `0s` ends it at once.
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) <= duration('876000h')").message("write a duration of at most 876000h in hours, minutes and seconds, such as 24h, 90m or 0s"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,

    /// When a superseded credential ends: `AtDeadline`, at the end of the overlap; or `WhenUnused`, as soon as gates have
    /// watched it unused for `settle`, and at the end of the overlap at the latest. Default: `AtDeadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire: Option<RetireWhen>,

    /// How long a superseded credential must stay unused to count as no longer in use. Default: `1h`, or half the overlap
    /// if that is shorter.
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('876000h')").message("write a duration from 1m to 876000h in hours, minutes and seconds, such as 1h or 30m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<String>,
}

/// When a superseded credential ends.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetireWhen {
    /// At the end of the overlap.
    #[default]
    AtDeadline,
    /// As soon as gates have watched it unused for `rotation.settle`, and at the end of the overlap at the latest.
    WhenUnused,
}

/// When the token ends for good.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.after) != has(self.at)").message("write exactly one of expiry.after (an age such as 8760h) and expiry.at (a time such as 2027-01-01T00:00:00Z)"))]
pub struct ExpirySpec {
    /// Age of the ApiToken at which it ends, as a Go-style duration: `8760h`. At least `1m`.
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('876000h')").message("write a duration from 1m to 876000h in hours, minutes and seconds, such as 8760h or 30m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,

    /// Time at which it ends, RFC 3339. A later time revives an expired token with a new credential.
    #[x_kube(validation = Rule::new("self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('9000-01-01T00:00:00Z')").message("write a time from the year 1970 to 8999; a token without spec.expiry never ends"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// When the token counts as idle.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IdleSpec {
    /// Time without use after which the token is idle, as a Go-style duration: `720h`. At least `1m`.
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('876000h')").message("write a duration from 1m to 876000h in hours, minutes and seconds, such as 720h"))]
    pub after: String,
}

impl ApiToken {
    /// Name of the Secret that the token is delivered to.
    pub fn secret_name(&self) -> &str {
        let declared = self.spec.secret.as_ref().and_then(|secret| secret.name.as_deref());
        declared.or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    /// The namespace of the ApiToken and of its Secret.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The ApiToken's own name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The uid that the Secret's owner reference carries.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

impl SecretSpec {
    /// Key that holds the token.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(DEFAULT_SECRET_KEY)
    }

    /// Type of the Secret.
    pub fn secret_type(&self) -> &str {
        self.type_.as_deref().unwrap_or(DEFAULT_SECRET_TYPE)
    }
}
