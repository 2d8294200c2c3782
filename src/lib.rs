//! Tokenward.

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision of this build, where the build was told.
pub const REVISION: &str = match option_env!("TOKENWARD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

pub mod api;
pub mod controller;
pub mod domain;
pub mod gate;
pub mod ledger;
pub mod platform;
pub mod runtime;
#[cfg(feature = "testkit")]
pub mod testkit;
