//! Where nothing is due nothing is written, and a restart reads no Secret.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use crate::harness::{Release, Scrape, Signal, Space, exclusive, until};

const TOKENS: usize = 20;
const QUIET: Duration = Duration::from_secs(20);

/// Groups and resources that the operator writes, but its Lease. The core group's events are other controllers'.
const WRITTEN: [(&str, &str); 3] =
    [("tokenward.dev", "apitokens"), ("", "secrets"), ("events.k8s.io", "events")];

/// What the API server says it was asked to write. Not deletes: the operator has no right to them.
fn asked(scrape: &Scrape) -> Vec<(&'static str, &'static str, f64)> {
    let verbs = ["POST", "PUT", "PATCH", "APPLY"];
    let each = WRITTEN.iter().flat_map(|(group, resource)| verbs.map(|verb| (*group, *resource, verb)));
    each.map(|(group, resource, verb)| {
        let labels = [("group", group), ("resource", resource), ("verb", verb)];
        (resource, verb, scrape.sum("apiserver_request_total", &labels))
    })
    .collect()
}

fn secrets_read(scrape: &Scrape) -> f64 {
    scrape.sum("apiserver_request_total", &[("resource", "secrets"), ("verb", "GET")])
}

fn calls(scrape: &Scrape, verb: &str) -> f64 {
    scrape.sum("tokenward_api_requests_total", &[("verb", verb)])
}

async fn versions(space: &Space) -> Vec<Option<String>> {
    let tokens = space.tokens().list(&ListParams::default()).await.unwrap();
    let secrets = space.secrets().list(&ListParams::default()).await.unwrap();
    let tokens = tokens.items.into_iter().map(|token| token.metadata.resource_version);
    tokens.chain(secrets.items.into_iter().map(|secret| secret.metadata.resource_version)).collect()
}

/// How often the Lease is renewed while `work` runs.
async fn renewals(leases: Api<Lease>, name: &str, work: impl Future<Output = ()>) -> usize {
    let mut seen = BTreeSet::new();
    let mut events = std::pin::pin!(watcher::watch_object(leases, name).default_backoff());
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            () = &mut work => return seen.len(),
            Some(Ok(Some(lease))) = events.next() => {
                seen.insert(lease.metadata.resource_version);
            }
        }
    }
}

#[test]
fn nothing_due_nothing_written_and_a_restart_reads_no_secret() {
    exclusive("quiet", async |space| {
        let cluster = space.cluster;
        let release = Release::install(cluster, "quiet", json!({"controller": {"replicas": 1}})).await;
        space.owns("quiet");
        let launch = release.launch().await;
        let operator = space.start(&launch, "operator").await;
        operator.until_ready().await;
        let fresh = operator.scrape().await;
        for number in 0..TOKENS {
            let spec =
                json!({"rotation": {"every": "720h"}, "secret": {"template": {"h": "Bearer {{ token }}"}}});
            space.declare(&format!("t{number}"), spec).await;
        }
        for number in 0..TOKENS {
            space.ready(&format!("t{number}")).await;
        }
        until("every event was published", async || {
            let published = operator.scrape().await.sum("tokenward_events_published_total", &[]);
            (published >= TOKENS as f64).then_some(())
        })
        .await;

        let (own, server, objects) =
            (operator.scrape().await, cluster.apiserver_metrics().await, versions(space).await);
        // A watch that forgets how far it has come begins anew with each event.
        assert!(calls(&fresh, "list") > 0.0 && calls(&fresh, "watch") > 0.0, "{}", fresh.text);
        let lists = calls(&own, "list") - calls(&fresh, "list");
        let watches = calls(&own, "watch") - calls(&fresh, "watch");
        assert!(
            lists == 0.0 && watches <= 2.0,
            "{lists} lists and {watches} watches more for {TOKENS} tokens"
        );

        let leases = Api::<Lease>::namespaced(cluster.client.clone(), &release.name);
        let renewed = renewals(leases, "quiet-tokenward-controller", tokio::time::sleep(QUIET)).await;
        let (own_after, server_after) = (operator.scrape().await, cluster.apiserver_metrics().await);
        for verb in ["apply", "create", "patch", "delete", "list"] {
            assert_eq!(calls(&own_after, verb), calls(&own, verb), "{verb} while nothing was due");
        }
        // It looks at the Lease after a renewal that was not answered in time, and at no Secret.
        let looks = calls(&own_after, "get") - calls(&own, "get");
        assert!(looks <= 3.0, "{}", own_after.text);
        assert_eq!(secrets_read(&server_after), secrets_read(&server), "a Secret was read");
        let updates = calls(&own_after, "update") - calls(&own, "update");
        assert!(
            updates >= 1.0 && updates <= renewed as f64 + 1.0 + looks,
            "{updates} updates, {renewed} renewals of the Lease, {looks} looks at it"
        );
        assert_eq!(asked(&server_after), asked(&server), "the API server was asked to write");
        assert_eq!(versions(space).await, objects);
        // By itself the operator looks at a token twice a day.
        let reconciles = |scrape: &Scrape| scrape.sum("tokenward_reconciles_total", &[]);
        let reconciled = reconciles(&own_after) - reconciles(&own);
        assert!(reconciled <= TOKENS as f64, "{reconciled} reconciles while nothing was due");
        println!("quiet for {QUIET:?} with {TOKENS} tokens: 0 writes, {updates} renewals of the Lease");

        operator.signal(Signal::Term).await;
        operator.ended().await;
        let server = cluster.apiserver_metrics().await;
        let started = Instant::now();
        let operator = space.start(&launch, "operator-2").await;
        operator.until_ready().await;
        operator.until_leading().await;
        let synced = started.elapsed();
        until("every token was looked at", async || {
            let looks = operator.scrape().await.sum("tokenward_reconciles_total", &[("result", "ok")]);
            (looks >= TOKENS as f64).then_some(())
        })
        .await;
        let server_after = cluster.apiserver_metrics().await;
        assert_eq!(asked(&server_after), asked(&server), "a restart writes nothing");
        assert_eq!(secrets_read(&server_after), secrets_read(&server), "a restart reads no Secret");
        let own = operator.scrape().await;
        for verb in ["apply", "create", "patch", "delete"] {
            assert_eq!(calls(&own, verb), 0.0, "{verb} by a restarted operator");
        }
        // One look at the Lease, and no Secret.
        assert!(calls(&own, "get") <= 3.0, "{}", own.text);
        assert_eq!(own.sum("tokenward_status_writes_total", &[]), 0.0);
        assert_eq!(versions(space).await, objects);
        println!(
            "restart with {TOKENS} tokens: leading and synced after {:.2} s, 0 writes, 0 Secrets read",
            synced.as_secs_f64()
        );
    });
}
