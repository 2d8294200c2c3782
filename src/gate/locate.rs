//! Where the ledger is: the leader writes it into annotations of its Lease.
//!
//! A gate may read that one Lease and no other, so the watch names it.

use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tracing::info;

use crate::api::keys::{LEDGER_ADDRESS, LEDGER_SHA256};
use crate::platform::process::ProcessMetrics;
use crate::platform::watching::resilient;

/// Seconds after which the watch is opened anew: a connection that died without a word must not hide a new leader for long.
const WATCH_TIMEOUT: u32 = 60;

/// A ledger, as its leader made it known. Another value is another process: what this one has not settled is told anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// `host:port`.
    pub address: String,
    /// SHA-256 of its certificate, in hex.
    pub sha256: String,
    /// Who leads.
    pub holder: String,
}

impl Ledger {
    /// From the Lease; `None` if nobody leads, or whoever leads has no ledger.
    pub fn of(lease: &Lease) -> Option<Self> {
        let annotation = |key: &str| {
            let value = lease.metadata.annotations.as_ref()?.get(key)?;
            (!value.is_empty()).then(|| value.clone())
        };
        let holder = lease.spec.as_ref()?.holder_identity.clone().filter(|holder| !holder.is_empty())?;
        Some(Self { address: annotation(LEDGER_ADDRESS)?, sha256: annotation(LEDGER_SHA256)?, holder })
    }
}

/// Follows the Lease `name` for ever and publishes where the ledger is. While the API server is away, the last place stands.
pub async fn run(
    api: Api<Lease>,
    name: &str,
    ledger: &watch::Sender<Option<Ledger>>,
    metrics: &ProcessMetrics,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}")).timeout(WATCH_TIMEOUT);
    let mut events = pin!(resilient(watcher(api, config), "leases", metrics));
    // Whether a list has shown the Lease.
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed = false,
            Event::InitApply(lease) | Event::Apply(lease) => {
                listed = true;
                publish(ledger, Ledger::of(&lease));
            }
            Event::Delete(_) => publish(ledger, None),
            Event::InitDone if !listed => publish(ledger, None),
            Event::InitDone => {}
        }
    }
}

fn publish(sender: &watch::Sender<Option<Ledger>>, found: Option<Ledger>) {
    sender.send_if_modified(|known| {
        if *known == found {
            return false;
        }
        match &found {
            Some(ledger) => {
                info!(holder = ledger.holder, address = ledger.address, "reporting to this ledger")
            }
            None => info!("no ledger: usage is kept until there is one"),
        }
        *known = found;
        true
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;
    use crate::testkit::apiserver::{ApiServer, Verb};
    use crate::testkit::clock::VirtualClock;

    fn lease(holder: &str, annotations: serde_json::Value) -> Lease {
        let lease = json!({"metadata": {"annotations": annotations}, "spec": {"holderIdentity": holder}});
        serde_json::from_value(lease).unwrap()
    }

    #[test]
    fn only_a_leader_that_says_where_has_a_ledger() {
        let all = json!({LEDGER_ADDRESS: "10.0.0.7:8083", LEDGER_SHA256: "ab"});
        let found = Ledger::of(&lease("a", all.clone())).unwrap();
        assert_eq!((&*found.address, &*found.sha256, &*found.holder), ("10.0.0.7:8083", "ab", "a"));
        assert_eq!(Ledger::of(&lease("", all)), None, "released");
        assert_eq!(Ledger::of(&lease("a", json!({LEDGER_ADDRESS: "10.0.0.7:8083"}))), None, "no fingerprint");
        assert_eq!(Ledger::of(&lease("a", json!({LEDGER_ADDRESS: "", LEDGER_SHA256: "ab"}))), None);
        assert_eq!(Ledger::of(&Lease::default()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ledger_is_followed_from_leader_to_leader() {
        let server = ApiServer::new(Arc::new(VirtualClock::default()));
        // As the Role of a gate has it: this one Lease, by name.
        server.set_authorizer(Some(Arc::new(|request| match (&*request.client, request.verb) {
            ("gate", Verb::List | Verb::Watch | Verb::Get) if request.resource == "leases" => Ok(()),
            ("gate", _) => Err("not allowed".into()),
            _ => Ok(()),
        })));
        let leases = Api::<Lease>::namespaced(server.client("leader"), "default");
        let mut other = lease("z", json!({LEDGER_ADDRESS: "elsewhere:1", LEDGER_SHA256: "cd"}));
        other.metadata.name = Some("another".into());
        leases.create(&PostParams::default(), &other).await.unwrap();
        let (sender, mut ledger) = watch::channel(None);
        let api = Api::<Lease>::namespaced(server.client("gate"), "default");
        let metrics = ProcessMetrics::new(&mut Registry::default());
        let task = tokio::spawn(async move { run(api, "tokenward", &sender, &metrics).await });
        let pass = || tokio::time::sleep(Duration::from_secs(1));
        pass().await;
        assert!(!ledger.has_changed().unwrap() && ledger.borrow().is_none(), "another's Lease is no ledger");

        let mut own = lease("a", json!({LEDGER_ADDRESS: "10.0.0.7:8083", LEDGER_SHA256: "ab"}));
        own.metadata.name = Some("tokenward".into());
        leases.create(&PostParams::default(), &own).await.unwrap();
        pass().await;
        assert_eq!(ledger.borrow_and_update().clone(), Ledger::of(&own));
        let patch = async |patch| {
            leases.patch("tokenward", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            pass().await;
        };
        patch(json!({"spec": {"renewTime": "2026-01-01T00:00:10.000000Z"}})).await;
        assert!(!ledger.has_changed().unwrap(), "a renewal is no news");
        patch(json!({"spec": {"holderIdentity": "b"}})).await;
        assert_eq!(ledger.borrow_and_update().as_ref().map(|found| found.holder.clone()), Some("b".into()));
        // What changes while the API server is away is seen afterwards; until then the last place stands.
        server.partition("gate", true);
        patch(json!({"metadata": {"annotations": {LEDGER_ADDRESS: "10.0.0.8:8083"}}})).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!ledger.has_changed().unwrap());
        server.partition("gate", false);
        tokio::time::sleep(Duration::from_secs(90)).await;
        let address = ledger.borrow_and_update().as_ref().map(|found| found.address.clone());
        assert_eq!(address.as_deref(), Some("10.0.0.8:8083"));
        leases.delete("tokenward", &DeleteParams::default()).await.unwrap();
        pass().await;
        assert!(ledger.borrow_and_update().is_none());
        task.abort();
    }
}
