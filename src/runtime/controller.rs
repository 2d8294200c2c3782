//! `tokenward controller`: puts the parts together and takes them down in the right order.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::args::{Checked, ControllerArgs};
use super::clock::SystemClock;
use super::entropy::SystemEntropy;
use super::{RunError, admin, client, environment, ledger, serve, shutdown};
use crate::api::Health;
use crate::controller::leader::{Elector, Handle};
use crate::controller::metrics::{Metrics, tokens};
use crate::controller::{Controller, Options, Sources, watches};
use crate::platform::readiness::Readiness;

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
/// closes: the next leader starts only when this one has stopped writing.
pub async fn run(args: ControllerArgs, checked: Checked) -> Result<(), RunError> {
    let stop = shutdown::on_signals()
        .map_err(|source| RunError::Io { what: "signal handlers cannot be set up", source })?;
    let listener = serve::listen(admin::FLAG, args.admin_listen).await?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let client =
        client::connect(args.kubeconfig.as_deref(), args.request_timeout, metrics.process.clone()).await?;
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
    let (readiness, ready) = Readiness::channel(watches::SYNCED);
    let (leader, elector) = if args.leader_elect {
        let namespace = environment::lease_namespace(args.lease_namespace.as_deref(), &client);
        let api = Api::<Lease>::namespaced(client.clone(), &namespace);
        let config = args.lease_config(identity.clone())?;
        let (elector, handle) = Elector::new(api, &args.lease_name, config, clock.clone(), metrics.clone());
        (handle, Some(elector))
    } else {
        metrics.leader.set(1);
        (Handle::always(), None)
    };

    let around = ledger::Around {
        client: client.clone(),
        clock: clock.clone(),
        leader: leader.clone(),
        ready: ready.clone(),
        request_timeout: args.request_timeout,
    };
    let (ledger, usage, notes) = ledger::listen(&args.ledger, around, &mut registry).await?;
    let election = elector.map(|elector| tokio::spawn(elector.with_notes(notes).run(released.clone())));
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
    let entropy = Arc::new(SystemEntropy);
    let controller =
        Controller::new(options, client, Sources { clock, entropy }, metrics, leader, readiness, usage);
    let rows = controller.token_rows();
    tokens::register(&mut registry, rows, &HEALTHS, args.per_token_metrics, &checked.labels);

    let closed = CancellationToken::new();
    let admin = admin::Admin { registry: Arc::new(Mutex::new(registry)), readiness: ready };
    let endpoint = tokio::spawn(admin::serve(listener, admin, closed.clone()));

    // A task of its own, so that a panic in it is seen here.
    let work = tokio::spawn(controller.run(stop.clone())).await;
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
