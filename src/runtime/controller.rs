//! `tokenward controller`: puts the parts together and takes them down in the right order.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::args::{Checked, ControllerArgs};
use super::clock::SystemClock;
use super::entropy::SystemEntropy;
use super::overseer::{self, Limits, Subject, on};
use super::{RunError, admin, client, environment, ledger, serve, shutdown};
use crate::api::Health;
use crate::controller::leader::{Elector, Handle as Leader};
use crate::controller::metrics::{Metrics, tokens};
use crate::controller::{Controller, Options, Sources, watches};
use crate::platform::readiness::Readiness;

/// Time on the way down for what follows the reconciles: the ledger, the Lease, the admin endpoint. With the chart's values
/// the process is gone before the kubelet kills it.
const AFTER_GRACE: Duration = Duration::from_secs(8);

/// Every health as a metric label, in the order of the type.
const HEALTHS: [&str; Health::ALL.len()] = {
    let mut words = [""; Health::ALL.len()];
    let mut index = 0;
    while index < words.len() {
        words[index] = Health::ALL[index].as_str();
        index += 1;
    }
    words
};

/// Runs until a signal. On the way down, reconciles and the ledger end first, then the Lease is given back, then the admin endpoint
/// closes: the next leader starts only when this one has stopped writing. What has to work whatever hangs runs on `overseer`.
pub async fn run(args: ControllerArgs, checked: Checked, overseer: Handle) -> Result<(), RunError> {
    let stop = shutdown::on_signals(&overseer, args.shutdown_grace + AFTER_GRACE)
        .map_err(|source| RunError::Io { what: "signal handlers cannot be set up", source })?;
    let listener = on(&overseer, serve::listen(admin::FLAG, args.admin_listen)).await??;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let outage = client::Outage::default();
    let connect = || {
        let (kubeconfig, timeout) = (args.kubeconfig.clone(), args.request_timeout);
        let (counts, outage) = (metrics.process.clone(), outage.clone());
        async move { client::connect(kubeconfig.as_deref(), timeout, counts, &outage).await }
    };
    let client = connect().await?;
    let identity = environment::identity(args.identity.as_deref())?;
    let clock = Arc::new(SystemClock);
    tracing::info!(
        version = crate::VERSION,
        revision = crate::REVISION,
        identity,
        admin = %args.admin_listen,
        namespaces = %args.namespaces,
        "starting"
    );

    let released = CancellationToken::new();
    let (readiness, ready) = Readiness::channel(watches::awaited(&args.namespaces.0));
    let (leader, elector) = if args.leader_elect {
        let namespace = environment::lease_namespace(args.lease_namespace.as_deref(), &client);
        // A client's connections belong to the runtime that it was made on.
        let api = Api::<Lease>::namespaced(on(&overseer, connect()).await??, &namespace);
        let config = args.lease_config(identity.clone())?;
        let (elector, handle) = Elector::new(api, &args.lease_name, config, clock.clone(), metrics.clone());
        (handle, Some(elector))
    } else {
        metrics.leader.set(1);
        (Leader::always(), None)
    };

    let around = ledger::Around {
        client: client.clone(),
        clock: clock.clone(),
        leader: leader.clone(),
        ready: ready.clone(),
        request_timeout: args.request_timeout,
    };
    let (ledger, usage, notes) = ledger::listen(&args.ledger, around, &mut registry).await?;
    let election = elector.map(|elector| overseer.spawn(elector.with_notes(notes).run(released.clone())));
    let ledger = ledger.map(|ledger| ledger.run(&stop));

    let options = Options {
        settings: checked.settings,
        namespaces: args.namespaces.0,
        metric_labels: checked.labels.keys().to_vec(),
        concurrency: args.concurrency,
        request_timeout: args.request_timeout,
        resync: args.resync,
        shutdown_grace: args.shutdown_grace,
        identity,
    };
    let depth = metrics.queue_depth.clone();
    let (held, stalled) = (metrics.reconciles_held.clone(), metrics.process.stalled.clone());
    let entropy = Arc::new(SystemEntropy);
    let controller =
        Controller::new(options, client, Sources { clock, entropy }, metrics, leader, readiness, usage);
    let vitals = controller.vitals();
    let rows = controller.token_rows();
    tokens::register(&mut registry, rows, &HEALTHS, args.per_token_metrics, &checked.labels);

    let closed = CancellationToken::new();
    let admin =
        admin::Admin { registry: Arc::new(Mutex::new(registry)), readiness: ready, vitals: vitals.clone() };
    let endpoint = overseer.spawn(admin::serve(listener, admin, closed.clone()));

    let subject = Subject {
        vitals: vitals.clone(),
        waiting: Box::new(move || depth.get() > 0),
        limits: Limits::with_calls_of(args.request_timeout),
        held,
        stalled,
    };
    // A process that hangs gives the Lease up: its fence closes with it.
    overseer.spawn(overseer::watch(subject, released.clone()));
    // A task of its own, so that a panic in it is seen here.
    let running = stop.clone();
    let work = tokio::spawn(async move { vitals.beating(controller.run(running)).await }).await;
    if let Err(error) = &work {
        // The Lease is not given back: tasks of the controller may still write. It runs out by itself.
        tracing::error!(%error, "the controller broke down");
        return Err(RunError::Ended);
    }
    let sound = match ledger {
        Some(ledger) => ledger.ended().await,
        None => true,
    };
    released.cancel();
    if let Some(election) = election {
        let _ = election.await;
    }
    closed.cancel();
    let _ = endpoint.await;
    if !stop.is_cancelled() || !sound {
        return Err(RunError::Ended);
    }
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_health_has_a_series() {
        assert!(HEALTHS.len() > 3 && HEALTHS.iter().all(|word| !word.is_empty()));
    }
}
