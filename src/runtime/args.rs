//! What can be set, by flag or by environment variable; the flag wins.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::lists::{Keys, Namespaces, is_dns_label, is_dns_name};
use crate::controller::metrics::tokens::{BusinessLabelError, BusinessLabels};
use crate::domain::duration;
use crate::domain::lease;
use crate::domain::ownership::OwnershipRules;
use crate::domain::plan::Settings;
use crate::domain::token::Prefix;

pub mod gate;
#[cfg(test)]
mod gate_tests;
pub mod ledger;
pub mod secrets;
#[cfg(test)]
mod tests;

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (revision {})", crate::VERSION, crate::REVISION));

/// Tokenward issues, rotates, watches and retires API tokens in Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "tokenward", version = VERSION.as_str(), arg_required_else_help = true)]
pub struct Cli {
    /// How logs are written, always to standard error
    #[arg(long, global = true, env = "TOKENWARD_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or a filter such as info,kube=debug
    #[arg(long, global = true, env = "TOKENWARD_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller: issue and rotate the tokens that ApiTokens declare
    Controller(Box<ControllerArgs>),
    /// Run a gate: tell proxies which requests may pass, and count the use of every token
    Gate(Box<gate::GateArgs>),
    /// Print the CustomResourceDefinitions as YAML
    Crds(secrets::SecretArgs),
    /// Print a reference for docs/
    #[command(hide = true)]
    Reference {
        /// Which
        topic: Topic,
    },
}

/// The references that are generated.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Topic {
    /// docs/api.md
    Api,
    /// docs/metrics.md
    Metrics,
}

/// Settings of the controller.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Kubeconfig to use [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, env = "TOKENWARD_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Where /healthz, /readyz and /metrics are served
    #[arg(
        long,
        env = "TOKENWARD_ADMIN_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub admin_listen: SocketAddr,

    /// Namespaces to serve, separated by commas [default: all, which needs cluster-wide rights]
    #[arg(
        long,
        env = "TOKENWARD_NAMESPACES",
        default_value = "",
        hide_default_value = true,
        value_name = "A,B"
    )]
    pub namespaces: Namespaces,

    /// What every token begins with, so that one seen in the wrong place names its home
    #[arg(long, env = "TOKENWARD_TOKEN_PREFIX", default_value = "twd", value_name = "PREFIX")]
    pub token_prefix: Prefix,

    /// Label or annotation keys that name an owner, looked up on the ApiToken, then on its Namespace
    #[arg(
        long,
        env = "TOKENWARD_OWNER_KEYS",
        default_value = "tokenward.dev/owner,team,owner",
        value_name = "KEY,KEY"
    )]
    pub owner_keys: Keys,

    /// Label or annotation keys that say how to reach the owner
    #[arg(
        long,
        env = "TOKENWARD_CONTACT_KEYS",
        default_value = "tokenward.dev/contact,contact",
        value_name = "KEY,KEY"
    )]
    pub contact_keys: Keys,

    /// Owner of tokens that nobody claims
    #[arg(long, env = "TOKENWARD_DEFAULT_OWNER", value_name = "NAME")]
    pub default_owner: Option<String>,

    /// Contact for tokens that name none
    #[arg(long, env = "TOKENWARD_DEFAULT_CONTACT", value_name = "CONTACT")]
    pub default_contact: Option<String>,

    /// Labels of ApiTokens that tokenward_token_info carries as label_…
    #[arg(
        long,
        env = "TOKENWARD_METRIC_LABELS",
        default_value = "",
        hide_default_value = true,
        value_name = "KEY,KEY"
    )]
    pub metric_labels: Keys,

    /// Whether there are metric series for each ApiToken
    #[arg(long, env = "TOKENWARD_PER_TOKEN_METRICS", default_value_t = true, action = ArgAction::Set,
        value_name = "true|false")]
    pub per_token_metrics: bool,

    /// ApiTokens worked on at once, from 1 to 64
    #[arg(long, env = "TOKENWARD_CONCURRENCY", default_value_t = 32, value_name = "NUMBER",
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,

    /// Longest time for one call to the API server, from 100ms to 5m; watches are not cut
    #[arg(long, env = "TOKENWARD_REQUEST_TIMEOUT", default_value = "10s", value_name = "DURATION",
        value_parser = |text: &str| between(text, Duration::from_millis(100), Duration::from_secs(300)))]
    pub request_timeout: Duration,

    /// Longest time between two looks at an ApiToken, from 1m to 24h
    #[arg(long, env = "TOKENWARD_RESYNC", default_value = "12h", value_name = "DURATION",
        value_parser = |text: &str| between(text, Duration::from_secs(60), Duration::from_secs(86_400)))]
    pub resync: Duration,

    /// Whether replicas elect a leader; without it, run one replica only
    #[arg(long, env = "TOKENWARD_LEADER_ELECT", default_value_t = true, action = ArgAction::Set,
        value_name = "true|false")]
    pub leader_elect: bool,

    /// Name of the Lease that replicas elect their leader by
    #[arg(long, env = "TOKENWARD_LEASE_NAME", default_value = "tokenward", value_name = "NAME",
        value_parser = lease_name)]
    pub lease_name: String,

    /// Namespace of the Lease [default: $POD_NAMESPACE, or that of the kubeconfig or service account]
    #[arg(long, env = "TOKENWARD_LEASE_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    pub lease_namespace: Option<String>,

    /// How long a silent leader is waited for before another takes over, in whole seconds
    #[arg(long, env = "TOKENWARD_LEASE_DURATION", default_value = "15s", value_name = "DURATION",
        value_parser = duration::parse)]
    pub lease_duration: Duration,

    /// How long a leader acts on without a successful renewal; shorter than the lease duration
    #[arg(long, env = "TOKENWARD_LEASE_RENEW_DEADLINE", default_value = "10s", value_name = "DURATION",
        value_parser = duration::parse)]
    pub lease_renew_deadline: Duration,

    /// How often a standby looks at the Lease; leaders renew half as often
    #[arg(long, env = "TOKENWARD_LEASE_RETRY_PERIOD", default_value = "1s", value_name = "DURATION",
        value_parser = duration::parse)]
    pub lease_retry_period: Duration,

    /// This replica's name in the Lease and in events, unlike every other's [default: $POD_NAME, or host name and random
    /// characters]
    #[arg(long, env = "TOKENWARD_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// How long work under way may take to end after SIGTERM, at most 10m
    #[arg(long, env = "TOKENWARD_SHUTDOWN_GRACE", default_value = "10s", value_name = "DURATION",
        value_parser = |text: &str| between(text, Duration::ZERO, Duration::from_secs(600)))]
    pub shutdown_grace: Duration,

    /// What Secrets may be.
    #[command(flatten)]
    pub secrets: secrets::SecretArgs,

    /// The ledger's.
    #[command(flatten)]
    pub ledger: ledger::LedgerArgs,
}

/// Arguments that are well-formed each by itself but cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// The election's times contradict each other.
    #[error(transparent)]
    Lease(#[from] lease::ConfigError),
    /// The business labels clash.
    #[error(transparent)]
    Labels(#[from] BusinessLabelError),
    /// The ledger cannot be served like this.
    #[error(transparent)]
    Ledger(#[from] ledger::LedgerArgsError),
}

impl ArgsError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Lease(_) => "Lease",
            Self::Labels(_) => "Labels",
            Self::Ledger(_) => "Ledger",
        }
    }
}

/// What follows from the arguments.
#[derive(Debug)]
pub struct Checked {
    /// For the decisions.
    pub settings: Settings,
    /// For the metrics.
    pub labels: BusinessLabels,
}

impl ControllerArgs {
    /// Checks what the parser cannot: how the arguments fit together.
    pub fn check(&self) -> Result<Checked, ArgsError> {
        if self.leader_elect {
            // The name comes later (it may need randomness); whether the times fit can be said now.
            self.lease_config("unnamed".to_owned())?;
        }
        self.ledger.check(self.leader_elect)?;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        Ok(Checked {
            settings: Settings {
                prefix: self.token_prefix.clone(),
                ownership: OwnershipRules {
                    owner_keys: self.owner_keys.0.clone(),
                    contact_keys: self.contact_keys.0.clone(),
                    default_owner: given(&self.default_owner),
                    default_contact: given(&self.default_contact),
                },
                allowed: self.secrets.allowed(),
            },
            labels: BusinessLabels::new(&self.metric_labels.0)?,
        })
    }

    /// The election's settings for this identity.
    pub fn lease_config(&self, identity: String) -> Result<lease::Config, ArgsError> {
        Ok(lease::Config::new(
            identity,
            self.lease_duration,
            self.lease_renew_deadline,
            self.lease_retry_period,
        )?)
    }
}

fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let value = duration::parse(text).map_err(|error| error.to_string())?;
    if value < least || value > most {
        return Err(format!(
            "{text} is out of range: write {} to {}",
            duration::format(least),
            duration::format(most)
        ));
    }
    Ok(value)
}

fn lease_name(text: &str) -> Result<String, String> {
    match is_dns_name(text) {
        true => Ok(text.to_owned()),
        false => Err("not a name for a Lease: write lower-case letters, digits, dashes and dots".to_owned()),
    }
}

fn namespace(text: &str) -> Result<String, String> {
    match is_dns_label(text) {
        true => Ok(text.to_owned()),
        false => Err("not a namespace: write lower-case letters, digits and dashes, at most 63".to_owned()),
    }
}
