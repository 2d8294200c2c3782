//! What Secrets an installation allows beyond those that mean nothing to others.

use clap::Args;

use crate::api::meaning::Allowed;
use crate::runtime::lists::{Keys, Names, Types};

/// What ApiTokens may ask of their Secrets; the controller and the CustomResourceDefinition have to be given the same.
#[derive(Debug, Default, Args)]
pub struct SecretArgs {
    /// Types of Secrets that ApiTokens may ask for, besides Opaque, kubernetes.io/basic-auth and
    /// kubernetes.io/dockerconfigjson
    #[arg(
        long,
        env = "TOKENWARD_SECRET_TYPES",
        default_value = "",
        hide_default_value = true,
        value_name = "TYPE,TYPE"
    )]
    pub secret_types: Types,

    /// Names of Secrets that ApiTokens may ask for although another tool looks for them
    #[arg(
        long,
        env = "TOKENWARD_SECRET_NAMES",
        default_value = "",
        hide_default_value = true,
        value_name = "NAME,NAME"
    )]
    pub secret_names: Names,

    /// Labels and annotations that ApiTokens may put on their Secrets although another tool acts on them
    #[arg(
        long,
        env = "TOKENWARD_SECRET_KEYS",
        default_value = "",
        hide_default_value = true,
        value_name = "KEY,KEY"
    )]
    pub secret_keys: Keys,
}

impl SecretArgs {
    /// As the decisions take it.
    pub fn allowed(&self) -> Allowed {
        Allowed {
            types: self.secret_types.0.clone(),
            names: self.secret_names.0.clone(),
            keys: self.secret_keys.0.clone(),
        }
    }
}
