//! `tokenward gate`: puts the parts together and takes them down in the right order.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::args::gate::GateArgs;
use super::clock::SystemClock;
use super::overseer::{self, Subject, on};
use super::serve::{Limits, Meter, Reserved, Server, Serves};
use super::tls::Certificates;
use super::{RunError, admin, client, environment, serve, shutdown};
use crate::domain::ports::Clock;
use crate::gate::dialect::ext_authz::{CheckRequest, CheckResponse, METHOD};
use crate::gate::dialect::http::HttpGate;
use crate::gate::dialect::introspect::Introspection;
use crate::gate::dialect::{Desk, envoy};
use crate::gate::link::Network;
use crate::gate::metrics::GateMetrics;
use crate::gate::reporter::core::Identity;
use crate::gate::{Gate, Settings, feed, locate, reporter, strangers};
use crate::platform::readiness::Readiness;
use crate::platform::reviews::Reviews;
use crate::platform::vitals::Vitals;
use crate::platform::{apart, grpc};

/// Longest time for one call to the API server; watches are not cut.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a TokenReview: whoever asks for an introspection waits for it.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(3);
/// Time on the way down for what follows the last answers and the last reports.
const AFTER_GRACE: Duration = Duration::from_secs(4);
/// Waited for besides the feed: both ports are open.
const OPEN: &str = "listeners";

const HTTP_FLAG: &str = "--http-listen";
const GRPC_FLAG: &str = "--grpc-listen";

/// Runs until a signal. The ports are taken at once, so that a wrong address ends the process, but opened only when the index
/// is loaded: before, a proxy is refused at once and denies. On the way down, readiness goes first, then the ports close,
/// requests under way end, and what was counted is reported. What has to work whatever hangs runs on `overseer`.
pub async fn run(args: GateArgs, overseer: Handle) -> Result<(), RunError> {
    let stop = shutdown::on_signals(&overseer, 2 * args.shutdown_grace + AFTER_GRACE)
        .map_err(|source| RunError::Io { what: "signal handlers cannot be set up", source })?;
    let admin_listener = on(&overseer, serve::listen(admin::FLAG, args.admin_listen)).await??;
    let http = serve::reserve(HTTP_FLAG, args.http_listen)?;
    let grpc = serve::reserve(GRPC_FLAG, args.grpc_listen)?;
    let certificates = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Certificates::load(certificate.clone(), key.clone())?),
        _ => None,
    };

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let gate = Arc::new(Gate::new(settings(&args)));
    let mut registry = Registry::default();
    let metrics = GateMetrics::new(&mut registry, &gate, {
        let clock = clock.clone();
        move || clock.now().as_second()
    });
    let client = client::connect(
        args.kubeconfig.as_deref(),
        REQUEST_TIMEOUT,
        metrics.process.clone(),
        &client::Outage::default(),
    )
    .await?;
    let identity = Identity {
        gate: environment::identity(args.identity.as_deref())?,
        epoch: u64::try_from(clock.now().as_millisecond()).unwrap_or_default().max(1),
    };
    tracing::info!(
        version = crate::VERSION,
        revision = crate::REVISION,
        identity = identity.gate,
        http = %args.http_listen,
        grpc = %args.grpc_listen,
        admin = %args.admin_listen,
        tls = certificates.is_some(),
        namespaces = %args.namespaces,
        ledger_token = %args.ledger_token_file.display(),
        ledger_audience = args.ledger_audience,
        "starting"
    );

    let (readiness, ready) = Readiness::channel([feed::SYNCED, OPEN]);
    let readiness = Arc::new(readiness);
    let vitals = Arc::new(Vitals::default());
    let subject = Subject::without_queue(
        vitals.clone(),
        overseer::Limits::with_calls_of(REQUEST_TIMEOUT),
        &metrics.process,
    );
    overseer.spawn(overseer::watch(subject, CancellationToken::new()));
    let beats = vitals.clone();
    let _beating =
        AbortOnDropHandle::new(tokio::spawn(
            async move { beats.beating(std::future::pending::<()>()).await },
        ));
    let admin = admin::Admin { registry: Arc::new(Mutex::new(registry)), readiness: ready.clone(), vitals };
    let admin_closed = CancellationToken::new();
    let endpoint = overseer.spawn(admin::serve(admin_listener, admin, admin_closed.clone()));

    let (ledger, place) = watch::channel(None);
    let (located, lost) = vital({
        let namespace = environment::lease_namespace(args.lease_namespace.as_deref(), &client);
        let (api, process) = (Api::<Lease>::namespaced(client.clone(), &namespace), metrics.process.clone());
        let name = args.lease_name.clone();
        async move { locate::run(api, &name, &ledger, &process).await }
    });
    let reported = CancellationToken::new();
    let setup = reporter::Setup {
        gate: gate.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        identity,
        flush: args.ledger_flush,
        grace: args.shutdown_grace,
    };
    let network = Network::new(args.ledger_token_file.clone());
    // Copying and encoding thousands of counts at every flush must hold up nobody who asks.
    let mute = apart::spawn("reporter", reporter::run(setup, place, network, reported.clone()))
        .map_err(|source| RunError::Io { what: "the reporter's thread cannot be started", source })?;
    let silenced = mute.clone();
    let feed = follow(&args, &gate, &client, &clock, &metrics, &readiness);
    let strangers = strangers::run(gate.clone(), metrics.clone());
    let fed = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            () = feed => tracing::error!("the feed ended"),
            never = strangers => match never {},
            _ = lost => tracing::error!("the look-out for the ledger broke down"),
            // A gate that answers and does not report would make tokens look unused.
            () = silenced.cancelled() => tracing::error!("the reporter broke down"),
        }
    }));

    let desk = Desk::new(gate, clock, usize::from(args.trusted_proxies));
    let listeners = Listeners::new(&args, &metrics, certificates.as_ref());
    if let Some(certificates) = certificates {
        tokio::spawn(certificates.keep(stop.clone()));
    }
    let served = match stop.run_until_cancelled(loaded(ready, fed)).await {
        // Told to leave before the index was loaded.
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(fed)) => {
            let service = HttpGate::new(desk.clone(), introspection(&args, &client));
            listeners.serve(http, grpc, service, desk, &readiness, stop.clone(), fed).await
        }
    };

    // Only now: nothing is counted any more.
    reported.cancel();
    mute.cancelled().await;
    located.abort();
    admin_closed.cancel();
    let _ = endpoint.await;
    served?;
    tracing::info!("stopped");
    Ok(())
}

fn settings(args: &GateArgs) -> Settings {
    Settings {
        prefix: args.token_prefix.clone(),
        deny_when_stale_for: args.deny_when_stale_for,
        addresses: args.caller_addresses.into(),
    }
}

fn introspection(args: &GateArgs, client: &kube::Client) -> Introspection {
    match args.introspect_callers.0.as_slice() {
        [] => Introspection::by_scope(),
        callers => {
            let callers = callers.iter().map(|account| (&*account.namespace, &*account.name));
            let reviews = Reviews::new(client.clone(), &args.introspect_audience, REVIEW_TIMEOUT);
            Introspection::with_accounts(reviews.allowing(callers).issued_by(environment::issuer()))
        }
    }
}

/// The feed, as a task's work.
fn follow(
    args: &GateArgs,
    gate: &Arc<Gate>,
    client: &kube::Client,
    clock: &Arc<dyn Clock>,
    metrics: &GateMetrics,
    readiness: &Arc<watch::Sender<Readiness>>,
) -> impl Future<Output = ()> + Send + 'static {
    let setup = feed::Setup {
        gate: gate.clone(),
        client: client.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let (namespaces, readiness) = (args.namespaces.0.clone(), readiness.clone());
    async move { feed::run(setup, &namespaces, &readiness).await }
}

/// Work without which a gate must not go on: the receiver is told of its end, even by a panic.
fn vital(work: impl Future<Output = ()> + Send + 'static) -> (JoinHandle<()>, oneshot::Receiver<()>) {
    let (alive, ended) = oneshot::channel();
    let task = tokio::spawn(async move {
        let _alive: oneshot::Sender<()> = alive;
        work.await;
    });
    (task, ended)
}

/// The feed, and the watch over all that has to go on besides; it never ends by itself, and with whoever holds it.
type Fed = AbortOnDropHandle<()>;

/// Waits for the first full list.
async fn loaded(mut ready: watch::Receiver<Readiness>, mut fed: Fed) -> Result<Fed, RunError> {
    let synced = ready.wait_for(|readiness| !readiness.pending().any(|name| name == feed::SYNCED));
    tokio::select! {
        _ = synced => Ok(fed),
        ended = &mut fed => Err(broke(ended)),
    }
}

fn broke(ended: Result<(), tokio::task::JoinError>) -> RunError {
    if let Err(error) = ended {
        tracing::error!(%error, "the feed broke down");
    }
    RunError::Ended
}

/// The two listeners for proxies.
struct Listeners {
    http: Server,
    grpc: Server,
}

impl Listeners {
    fn new(args: &GateArgs, metrics: &GateMetrics, certificates: Option<&Certificates>) -> Self {
        let limits = Limits {
            connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
            drain: args.shutdown_grace,
            ..Limits::default()
        };
        let meter = |listener, open: &Gauge| Meter {
            listener,
            open: open.clone(),
            refused: Some(metrics.connections_refused.clone()),
        };
        let tls = certificates.map(Certificates::current);
        Self {
            http: Server::new(limits, meter("http", &metrics.http_connections))
                .http1_only()
                .with_tls(tls.clone()),
            grpc: Server::new(
                Limits { connections: limits.connections.div_ceil(4), ..limits },
                meter("grpc", &metrics.grpc_connections),
            )
            .http2_only()
            .with_tls(tls),
        }
    }

    /// Opens both ports and serves until `stop`, then until what is under way has ended.
    #[allow(clippy::too_many_arguments, reason = "each is used once")]
    async fn serve(
        self,
        http: Reserved,
        grpc: Reserved,
        service: HttpGate,
        desk: Desk,
        readiness: &watch::Sender<Readiness>,
        stop: CancellationToken,
        mut fed: Fed,
    ) -> Result<(), RunError> {
        let (http, grpc) = (http.open()?, grpc.open()?);
        let closed = CancellationToken::new();
        let checks = checks(desk);
        let servers = async {
            tokio::join!(
                tokio::spawn(self.http.serve(http, service, closed.clone())),
                tokio::spawn(self.grpc.serve(grpc, checks, closed.clone())),
            )
        };
        let mut servers = std::pin::pin!(servers);
        Readiness::synced(readiness, OPEN);
        tracing::info!("the index is loaded; proxies are answered");
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = &mut fed => Err(broke(ended)),
            // A listener broke down: nothing is left that could be let end.
            _ = servers.as_mut() => {
                Readiness::leave(readiness);
                return Err(RunError::Ended);
            }
        };
        // First of all: whoever routes to this gate shall stop.
        Readiness::leave(readiness);
        closed.cancel();
        let _ = servers.await;
        // Revocations were heard until the last answer.
        drop(fed);
        result
    }
}

/// Envoy's checks, as a service.
fn checks(desk: Desk) -> impl Serves<tonic::body::Body> + Sync {
    grpc::unary(METHOD, envoy::MAX_CHECK, move |request: tonic::Request<CheckRequest>| -> Checked {
        ready(Ok(tonic::Response::new(envoy::check(&desk, request.get_ref()))))
    })
}

type Checked = Ready<Result<tonic::Response<CheckResponse>, tonic::Status>>;
