//! `tokenward controller`: puts the parts together and takes them down in the right order.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::args::{Checked, ControllerArgs};
use super::clock::SystemClock;
use super::entropy::{SystemEntropy, suffix};
use super::{RunError, admin, client, shutdown};
use crate::api::Health;
use crate::controller::leader::{Elector, Handle};
use crate::controller::metrics::{Metrics, tokens};
use crate::controller::readiness::Readiness;
use crate::controller::{Controller, Options, watches};
use crate::domain::ports::EntropyError;

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

/// Runs until a signal. On the way down, reconciles end first, then the Lease is given back, then the admin endpoint
/// closes: the next leader starts only when this one has stopped writing.
pub async fn run(args: ControllerArgs, checked: Checked) -> Result<(), RunError> {
    let stop = shutdown::on_signals()
        .map_err(|source| RunError::Io { what: "signal handlers cannot be set up", source })?;
    let listener = admin::listen(args.admin_listen).await?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let client = client::connect(args.kubeconfig.as_deref(), args.request_timeout, metrics.clone()).await?;
    let identity = identity(&args)?;
    let clock = Arc::new(SystemClock);
    tracing::info!(
        version = crate::VERSION,
        revision = crate::REVISION,
        identity,
        admin = %args.admin_listen,
        namespaces = if args.namespaces.0.is_empty() { "all".to_owned() } else { args.namespaces.0.join(",") },
        "starting"
    );

    let released = CancellationToken::new();
    let (leader, election) = if args.leader_elect {
        let api = Api::<Lease>::namespaced(client.clone(), &lease_namespace(&args, &client));
        let config = args.lease_config(identity.clone())?;
        let (elector, handle) = Elector::new(api, &args.lease_name, config, clock.clone(), metrics.clone());
        (handle, Some(tokio::spawn(elector.run(released.clone()))))
    } else {
        metrics.leader.set(1);
        (Handle::always(), None)
    };

    let (readiness, ready) = Readiness::channel(watches::SYNCED);
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
    let controller = Controller::new(options, client, clock, entropy, metrics, leader, readiness);
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
    released.cancel();
    if let Some(election) = election {
        let _ = election.await;
    }
    closed.cancel();
    let _ = endpoint.await;
    if !stop.is_cancelled() {
        return Err(RunError::Ended);
    }
    tracing::info!("stopped");
    Ok(())
}

/// The name in the Lease. A pod's name is taken as it is: when its container restarts, it recognises its own Lease and
/// goes on at once. Anywhere else, two processes on one machine have to differ.
fn identity(args: &ControllerArgs) -> Result<String, EntropyError> {
    if let Some(name) = args.identity.clone().or_else(|| variable("POD_NAME")).filter(|name| !name.is_empty())
    {
        return Ok(name);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| variable("HOSTNAME"));
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    Ok(format!("{}-{}", host.as_deref().unwrap_or("tokenward"), suffix(&SystemEntropy)?))
}

fn lease_namespace(args: &ControllerArgs, client: &kube::Client) -> String {
    args.lease_namespace
        .clone()
        .or_else(|| variable("POD_NAMESPACE"))
        .unwrap_or_else(|| client.default_namespace().to_owned())
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_health_has_a_series() {
        assert!(HEALTHS.len() > 3 && HEALTHS.iter().all(|word| !word.is_empty()));
    }
}
