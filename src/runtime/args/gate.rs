//! Settings of the gate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{between, lease_name, namespace};
use crate::domain::token::Prefix;
use crate::gate::callers::Addresses;
use crate::runtime::lists::{Namespaces, ServiceAccounts};

/// Settings of the gate.
#[derive(Debug, Args)]
pub struct GateArgs {
    /// Kubeconfig to use [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, env = "TOKENWARD_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespaces whose tokens are accepted, separated by commas [default: all, which needs cluster-wide rights]
    #[arg(
        long,
        env = "TOKENWARD_NAMESPACES",
        default_value = "",
        hide_default_value = true,
        value_name = "A,B"
    )]
    pub namespaces: Namespaces,

    /// What every token of this installation begins with; as the controller's
    #[arg(long, env = "TOKENWARD_TOKEN_PREFIX", default_value = "twd", value_name = "PREFIX")]
    pub token_prefix: Prefix,

    /// Where nginx, Traefik, Caddy and Envoy ask over HTTP, and /introspect is served: HTTP/1.1
    #[arg(
        long,
        env = "TOKENWARD_HTTP_LISTEN",
        default_value = "127.0.0.1:8181",
        value_name = "ADDRESS:PORT"
    )]
    pub http_listen: SocketAddr,

    /// Where Envoy asks by ext_authz v3 over gRPC
    #[arg(
        long,
        env = "TOKENWARD_GRPC_LISTEN",
        default_value = "127.0.0.1:8182",
        value_name = "ADDRESS:PORT"
    )]
    pub grpc_listen: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served
    #[arg(
        long,
        env = "TOKENWARD_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "ADDRESS:PORT"
    )]
    pub admin_listen: SocketAddr,

    /// Certificate chain (PEM) to serve HTTP and gRPC with; taken up anew when it changes [default: no TLS]
    #[arg(long, env = "TOKENWARD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key (PEM) of that certificate; taken up anew when it changes
    #[arg(long, env = "TOKENWARD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Deny everything when the API server was not heard from for so long, from 90s to 720h [default: never, answer from
    /// memory]
    #[arg(long, env = "TOKENWARD_DENY_WHEN_STALE_FOR", value_name = "DURATION",
        value_parser = |text: &str| between(text, Duration::from_secs(90), Duration::from_secs(30 * 86_400)))]
    pub deny_when_stale_for: Option<Duration>,

    /// How much of callers' addresses is kept: all, their network (/24, /48), or nothing
    #[arg(
        long,
        env = "TOKENWARD_CALLER_ADDRESSES",
        default_value = "full",
        value_name = "full|truncated|none"
    )]
    pub caller_addresses: CallerAddresses,

    /// Proxies before the one that asks whose X-Forwarded-For is believed; 0 takes the address that the asking proxy saw
    #[arg(long, env = "TOKENWARD_TRUSTED_PROXIES", default_value_t = 0, value_name = "NUMBER",
        value_parser = clap::value_parser!(u8).range(0..=32))]
    pub trusted_proxies: u8,

    /// ServiceAccounts that may ask at /introspect, besides tokens with the scope tokenward:introspect [default: none]
    #[arg(
        long,
        env = "TOKENWARD_INTROSPECT_CALLERS",
        default_value = "",
        hide_default_value = true,
        value_name = "NAMESPACE/NAME,…"
    )]
    pub introspect_callers: ServiceAccounts,

    /// Audience that the tokens of those ServiceAccounts are for
    #[arg(
        long,
        env = "TOKENWARD_INTROSPECT_AUDIENCE",
        default_value = "tokenward-introspect",
        value_name = "AUDIENCE"
    )]
    pub introspect_audience: String,

    /// How often counts are brought to the ledger, from 100ms to 1m; what a gate that dies hard loses
    #[arg(long, env = "TOKENWARD_LEDGER_FLUSH", default_value = "1s", value_name = "DURATION",
        value_parser = |text: &str| between(text, Duration::from_millis(100), Duration::from_secs(60)))]
    pub ledger_flush: Duration,

    /// Projected ServiceAccount token that proves this gate to the ledger
    #[arg(
        long,
        env = "TOKENWARD_LEDGER_TOKEN_FILE",
        default_value = "/var/run/secrets/tokenward/ledger/token",
        value_name = "FILE"
    )]
    pub ledger_token_file: PathBuf,

    /// Audience that this token is for, as the controller's; named in the log
    #[arg(
        long,
        env = "TOKENWARD_LEDGER_AUDIENCE",
        default_value = "tokenward-ledger",
        value_name = "AUDIENCE"
    )]
    pub ledger_audience: String,

    /// Name of the controller's Lease, which says where the ledger is
    #[arg(long, env = "TOKENWARD_LEASE_NAME", default_value = "tokenward", value_name = "NAME",
        value_parser = lease_name)]
    pub lease_name: String,

    /// Namespace of the Lease [default: $POD_NAMESPACE, or that of the kubeconfig or service account]
    #[arg(long, env = "TOKENWARD_LEASE_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    pub lease_namespace: Option<String>,

    /// This gate's name in its reports, unlike every other's [default: $POD_NAME, or host name and random characters]
    #[arg(long, env = "TOKENWARD_IDENTITY", value_name = "NAME", value_parser = identity)]
    pub identity: Option<String>,

    /// Open connections over HTTP, from 1, and a quarter of it over gRPC; who has sent no request yet makes room for more
    #[arg(long, env = "TOKENWARD_MAX_CONNECTIONS", default_value_t = 4_096, value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// How long requests under way may take to end after SIGTERM, and the last report after that, at most 10m
    #[arg(long, env = "TOKENWARD_SHUTDOWN_GRACE", default_value = "10s", value_name = "DURATION",
        value_parser = |text: &str| between(text, Duration::ZERO, Duration::from_secs(600)))]
    pub shutdown_grace: Duration,
}

/// How much of callers' addresses is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CallerAddresses {
    /// All of it.
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Truncated,
    /// Nothing.
    None,
}

impl From<CallerAddresses> for Addresses {
    fn from(addresses: CallerAddresses) -> Self {
        match addresses {
            CallerAddresses::Full => Self::Full,
            CallerAddresses::Truncated => Self::Truncated,
            CallerAddresses::None => Self::None,
        }
    }
}

/// The ledger refuses longer names.
fn identity(text: &str) -> Result<String, String> {
    match text.len() <= crate::api::report::MAX_GATE && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("not a name for a gate: write at most 128 ASCII characters without spaces".to_owned()),
    }
}
