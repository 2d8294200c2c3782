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
mod lines;
mod lists;
mod metrics_reference;
pub mod overseer;
pub mod reference;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod tls;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::Builder;

use self::args::{Cli, Command};
use self::overseer::Overseer;
pub use crate::platform::words::chain;

/// The exit code for arguments that cannot be used, as clap's own.
const EXIT_USAGE: u8 = 2;
/// Workers of the main runtime at least: one that is kept busy must not be the only one.
const WORKERS: usize = 4;
/// How long a worker that does not let go is waited for at the end.
const WORKERS_END: Duration = Duration::from_millis(500);

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
    let code = match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::say(&format!("tokenward: {}", chain(&error)));
            ExitCode::from(error.exit_code())
        }
    };
    telemetry::flush();
    code
}

fn run(cli: Cli) -> Result<(), RunError> {
    match cli.command {
        Command::Crds(secrets) => generated::print(&generated::crds(&secrets.allowed())?),
        Command::Reference { topic } => generated::print(&generated::reference(topic)),
        Command::Controller(args) => {
            telemetry::init(cli.log_format, &cli.log_level)?;
            let settings = args.check()?;
            let overseer = Overseer::start()?;
            block_on(controller::run(*args, settings, overseer.handle()))
        }
        Command::Gate(args) => {
            telemetry::init(cli.log_format, &cli.log_level)?;
            let overseer = Overseer::start()?;
            block_on(gate::run(*args, overseer.handle()))
        }
    }
}

/// Runs a role to its end.
fn block_on(role: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    let workers = std::thread::available_parallelism().map_or(WORKERS, |cores| WORKERS.max(cores.get()));
    let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime =
        runtime.map_err(|source| RunError::Io { what: "the async runtime did not start", source })?;
    let result = runtime.block_on(role);
    runtime.shutdown_timeout(WORKERS_END);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_causes_its_category_and_its_code() {
        let inner = std::io::Error::other("connection\n  refused");
        let error = RunError::Io { what: "cannot listen", source: inner };
        assert_eq!(chain(&error), "cannot listen: connection refused");
        assert_eq!((error.category(), error.exit_code()), ("Io", 1));
    }
}
