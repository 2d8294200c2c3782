//! The process around the controller and the gate: arguments, client, clock, randomness, logs, the admin endpoint, signals.

pub mod admin;
pub mod args;
pub mod client;
mod client_metrics;
pub mod clock;
pub mod controller;
pub mod entropy;
mod environment;
pub mod gate;
pub mod generated;
mod ledger;
mod lists;
mod metrics_reference;
pub mod reference;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod tls;

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};

/// The exit code for arguments that cannot be used, as clap's own.
const EXIT_USAGE: u8 = 2;

/// Everything that ends the process with an error. Shown as one line.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The arguments contradict each other.
    #[error(transparent)]
    Args(#[from] args::ArgsError),
    /// Logs cannot be written as asked for.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// There is no way to the API server.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] serve::ListenError),
    /// The certificate for proxies cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The ledger has no certificate.
    #[error(transparent)]
    Pinned(#[from] crate::platform::pinned::PinnedError),
    /// No generator of random bytes.
    #[error(transparent)]
    Entropy(#[from] crate::domain::ports::EntropyError),
    /// The runtime, the signal handlers or standard output do not work.
    #[error("{what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A definition cannot be written as YAML.
    #[error("a generated file cannot be written")]
    Generate(#[source] Box<dyn Error + Send + Sync>),
    /// The controller or the gate ended although nobody asked it to.
    #[error("ended unexpectedly; see the log above")]
    Ended,
}

impl RunError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Args(_) => "Args",
            Self::Telemetry(_) => "Telemetry",
            Self::Client(_) => "Client",
            Self::Listen(_) => "Listen",
            Self::Tls(_) => "Tls",
            Self::Pinned(_) => "Pinned",
            Self::Entropy(_) => "Entropy",
            Self::Io { .. } => "Io",
            Self::Generate(_) => "Generate",
            Self::Ended => "Ended",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Args(_) | Self::Telemetry(telemetry::TelemetryError::Level { .. }) => EXIT_USAGE,
            _ => 1,
        }
    }
}

/// Parses the arguments, runs the command and says how it ended: 0 done, 1 failed, 2 arguments that cannot be used.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tokenward: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), RunError> {
    match cli.command {
        Command::Crds => generated::print(&generated::crds()?),
        Command::Reference { topic } => generated::print(&generated::reference(topic)),
        Command::Controller(args) => {
            telemetry::init(cli.log_format, &cli.log_level)?;
            let settings = args.check()?;
            threads()?.block_on(controller::run(*args, settings))
        }
        Command::Gate(args) => {
            telemetry::init(cli.log_format, &cli.log_level)?;
            threads()?.block_on(gate::run(*args))
        }
    }
}

fn threads() -> Result<tokio::runtime::Runtime, RunError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::Io { what: "the async runtime did not start", source })
}

/// An error and its causes on one line. Causes that their effect quotes already are not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_every_cause_once() {
        let inner = std::io::Error::other("connection\n  refused");
        let error = RunError::Io { what: "cannot listen", source: inner };
        assert_eq!(chain(&error), "cannot listen: connection refused");
        assert_eq!((error.category(), error.exit_code()), ("Io", 1));
        // As kube's errors do it: the effect quotes its cause already.
        #[derive(Debug, thiserror::Error)]
        #[error("HyperError: {0}")]
        struct Quoting(#[source] std::io::Error);
        assert_eq!(chain(&Quoting(std::io::Error::other("reset"))), "HyperError: reset");
    }
}
