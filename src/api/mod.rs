//! What users see: the custom resources, label and annotation keys, and the reasons that conditions, events and
//! metrics give. Types only; decisions live in [`crate::domain`].

mod apitoken;
mod crd;
pub mod keys;
mod reason;
mod status;

pub use apitoken::{
    ApiToken, ApiTokenSpec, DEFAULT_SECRET_KEY, DEFAULT_SECRET_TYPE, ExpirySpec, IdleSpec, RotationSpec,
    SecretSpec,
};
pub use crd::crds;
pub use reason::{Health, Reason};
pub use status::{
    ApiTokenStatus, ConditionType, Credential, CredentialState, Delivery, EndState, EndedCredential,
    LastHandled, MAX_CREDENTIALS, MAX_ENDED, Owner, UsageSummary,
};

/// The API group of every kind in this module.
pub const GROUP: &str = "tokenward.dev";
/// The API version of every kind in this module.
pub const VERSION: &str = "v1alpha1";
