//! What users see: the custom resources, label and annotation keys, and the reasons that conditions, events and
//! metrics give. Types only; decisions live in [`crate::domain`].

mod apitoken;
mod crd;
pub mod keys;
pub mod meaning;
mod reason;
pub mod report;
mod status;
mod usage;

pub use apitoken::{
    ApiToken, ApiTokenSpec, DEFAULT_SECRET_KEY, DEFAULT_SECRET_TYPE, ExpirySpec, IdleSpec, OwnerSpec,
    RetireWhen, RotationSpec, SecretSpec,
};
pub use crd::{crds, crds_allowing};
pub use reason::{Health, Outcome, Reason};
pub use status::{
    ApiTokenStatus, ConditionType, Credential, CredentialState, Delivery, EndState, EndedCredential,
    LastHandled, MAX_CREDENTIALS, MAX_ENDED, Owner, UsageSummary,
};
pub use usage::{
    CallerUsage, CredentialUsage, HourlyUsage, MAX_CALLERS, MAX_CREDENTIAL_USAGES, MAX_HOURS,
    MAX_REFUSED_CALLERS, MAX_SCOPES, MAX_SOURCES, MAX_UNPROVED_CALLERS, RefusedUsage, ScopeUsage, Source,
    TokenUsage, TokenUsageSpec, TokenUsageStatus,
};

/// The API group of every kind in this module.
pub const GROUP: &str = "tokenward.dev";
/// The API version of every kind in this module.
pub const VERSION: &str = "v1alpha1";
