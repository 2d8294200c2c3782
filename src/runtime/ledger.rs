//! The ledger as a part of `tokenward controller`: its certificate, its listener, its tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kube::Client;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::args::ledger::LedgerArgs;
use super::serve::{self, Limits, Meter, Server};
use super::{RunError, environment};
use crate::controller::Usage;
use crate::controller::leader::Handle;
use crate::domain::directory::Directory;
use crate::domain::ports::Clock;
use crate::ledger::metrics::Metrics;
use crate::ledger::service::Service;
use crate::ledger::{Ledger, Options};
use crate::platform::budget;
use crate::platform::leadership::Notes;
use crate::platform::pinned::Identity;
use crate::platform::readiness::Readiness;
use crate::platform::reviews::Reviews;

/// The flag that names the address.
const FLAG: &str = "--ledger-listen";
/// Twice as many as there may be gates, and some for those that come and go.
const CONNECTIONS: usize = 256;
/// How long reports under way may take to be answered on shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// A ledger whose port is taken.
pub struct Listening {
    ledger: Ledger,
    listener: TcpListener,
    server: Server,
    service: Arc<Service>,
}

/// What the ledger needs of the process around it.
pub struct Around {
    /// The API server.
    pub client: Client,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Who leads.
    pub leader: Handle,
    /// Whether the ApiTokens are known.
    pub ready: watch::Receiver<Readiness>,
    /// Longest time for one call to the API server.
    pub request_timeout: Duration,
}

/// Takes the port, if there is to be a ledger, and says what the controller gets of it.
pub async fn listen(
    args: &LedgerArgs,
    around: Around,
    registry: &mut Registry,
) -> Result<(Option<Listening>, Usage, Arc<Notes>), RunError> {
    let budget = budget::Shared::new(args.usage_writes_per_second);
    let Some(address) = args.ledger_listen else {
        return Ok((None, Usage::none(budget), Arc::new(Notes::without_ledger())));
    };
    let listener = serve::listen(FLAG, address).await?;
    // Port 0 is whichever is free.
    let address = listener.local_addr().unwrap_or(address);
    let identity = Identity::generate()?;
    let tls = Arc::new(ArcSwap::new(identity.server_config()?));
    let found = found(args, address, std::env::var("POD_IP").ok().as_deref());
    tracing::info!(listen = %address, advertised = found, fingerprint = %identity.fingerprint(), "the ledger listens");
    let options = Options {
        pace: args.pace(),
        budget: budget.clone(),
        request_timeout: around.request_timeout,
        here: Some((found, identity.fingerprint().to_string())),
    };
    let world = Arc::new(RwLock::new(Directory::default()));
    let gates = args.ledger_gates.0.iter().map(|account| (&*account.namespace, &*account.name));
    let reviews = Reviews::new(around.client.clone(), args.ledger_audience.clone(), around.request_timeout)
        .allowing(gates)
        .issued_by(environment::issuer());
    let (ledger, news) = Ledger::new(
        options,
        around.client,
        around.clock,
        world.clone(),
        around.leader,
        around.ready,
        Metrics::new(registry),
    );
    let service = Arc::new(Service::new(ledger.clone(), reviews));
    let limits = Limits {
        connections: CONNECTIONS,
        // A question to the API server may be part of it.
        request: around.request_timeout + Duration::from_secs(5),
        drain: DRAIN,
        ..Limits::default()
    };
    let server = Server::new(limits, Meter::none("ledger")).http2_only().with_tls(Some(tls));
    let usage = Usage { source: ledger.board(), news, budget, world };
    let notes = ledger.notes();
    Ok((Some(Listening { ledger, listener, server, service }), usage, notes))
}

/// The running ledger.
pub struct Running {
    tasks: [JoinHandle<()>; 2],
    broken: Arc<AtomicBool>,
}

impl Listening {
    /// Serves until `stop`. If it breaks down, it cancels `stop`: reports that nobody persists must not be taken.
    pub fn run(self, stop: &CancellationToken) -> Running {
        let broken = Arc::new(AtomicBool::new(false));
        let service = self.service.serves();
        let served = tokio::spawn(self.server.serve(self.listener, service, stop.clone()));
        let (work, alarm, end) = (self.ledger.run(stop.clone()), broken.clone(), stop.clone());
        let work = tokio::spawn(async move {
            if let Err(error) = tokio::spawn(work).await {
                tracing::error!(%error, "the ledger broke down");
                alarm.store(true, Ordering::Relaxed);
                end.cancel();
            }
        });
        Running { tasks: [served, work], broken }
    }
}

impl Running {
    /// Waits for its end; false if it broke down.
    pub async fn ended(self) -> bool {
        for task in self.tasks {
            let _ = task.await;
        }
        !self.broken.load(Ordering::Relaxed)
    }
}

/// Where gates find a ledger that listens on `address`.
fn found(args: &LedgerArgs, address: SocketAddr, pod_ip: Option<&str>) -> String {
    if let Some(given) = &args.ledger_advertise {
        return given.clone();
    }
    match pod_ip.and_then(|ip| ip.trim().parse().ok()) {
        Some(ip) => SocketAddr::new(ip, address.port()).to_string(),
        None => {
            if address.ip().is_unspecified() {
                tracing::warn!(
                    "other machines do not find the ledger: set --ledger-advertise, or POD_IP in the environment"
                );
            }
            address.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command};
    use super::*;
    use clap::Parser as _;

    fn args(flags: &[&str]) -> LedgerArgs {
        let all = ["tokenward", "controller", "--ledger-listen", "0.0.0.0:8183"];
        match Cli::try_parse_from(all.iter().chain(flags)).unwrap().command {
            Command::Controller(args) => args.ledger,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_found_where_it_says_then_at_the_pod_then_at_its_address() {
        let address = "0.0.0.0:8183".parse().unwrap();
        let given = args(&["--ledger-advertise", "ledger:1"]);
        assert_eq!(found(&given, address, Some("10.0.0.7")), "ledger:1");
        assert_eq!(found(&args(&[]), address, Some("10.0.0.7")), "10.0.0.7:8183");
        assert_eq!(found(&args(&[]), address, Some("fd00::7")), "[fd00::7]:8183");
        assert_eq!(found(&args(&[]), address, None), "0.0.0.0:8183");
    }
}
