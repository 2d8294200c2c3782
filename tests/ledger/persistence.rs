//! What is persisted, once, whatever happens on the way; what is settled, and what not.

use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokenward::api::TokenUsage;
use tokenward::domain::coverage::Watched;
use tokenward::domain::ports::{Clock as _, News};
use tokenward::testkit::apiserver::{Fault, When};

use crate::support::{Cluster, NAMESPACE, credential, seconds};

#[tokio::test(start_paused = true)]
async fn a_first_use_is_there_at_once_and_settled_after_it() {
    let cluster = Cluster::new();
    let id = credential(1);
    let uid = cluster.token("orders", &id).await;
    let mut process = cluster.ledger("ledger");
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    assert!(gate.send(&process, vec![cluster.sealed(&uid, 1, &id, 3)]).unwrap().is_empty());
    let observed = process.ledger.board().observe(&uid, cluster.clock.now());
    assert_eq!(observed.last_used.keys().collect::<Vec<_>>(), [&id], "known before it is persisted");
    assert_eq!(observed.persisted, None);
    seconds(0.5).await;
    let usage = cluster.usage("orders").expect("created");
    let owner = &usage.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), &owner.uid, owner.controller), ("ApiToken", &uid, None));
    let status = usage.status.unwrap();
    assert_eq!((status.requests, status.callers[0].address.as_str()), (3, "10.0.0.1"));
    // First those of a new leader, once it knows what silence means.
    let mut news = std::iter::from_fn(|| process.news.try_recv().ok());
    let persisted = News::Persisted { namespace: NAMESPACE.to_owned(), name: "orders".to_owned() };
    assert_eq!(news.find(|news| *news != News::Watched), Some(persisted));
    assert_eq!(news.next(), None);
    let settled = gate.send(&process, vec![]).unwrap();
    assert_eq!((settled[0].token.as_str(), settled[0].sequence, settled[0].refused.as_str()), (&*uid, 1, ""));
    let observed = process.ledger.board().observe(&uid, cluster.clock.now());
    assert!(matches!(observed.watched, Watched::Since(_)));
    assert_eq!(observed.persisted.unwrap().requests, 3);
    assert_eq!(cluster.writes("ledger"), 2, "one to create it, one for the status");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_gets_lost_counts_nothing_twice() {
    for fate in [Fault::FailAfter, Fault::HangAfter, Fault::FailBefore, Fault::Hang] {
        let cluster = Cluster::new();
        let id = credential(1);
        let uid = cluster.token("orders", &id).await;
        let process = cluster.ledger("ledger");
        seconds(0.1).await;
        cluster.fate("ledger", move |number| if number == 1 { fate } else { Fault::None });
        let mut gate = cluster.gate("gate-a");
        gate.send(&process, vec![cluster.sealed(&uid, 1, &id, 3)]).unwrap();
        let settled = gate.until_settled(&process).await;
        assert_eq!((settled.len(), settled[0].refused.as_str()), (1, ""), "{fate:?}");
        assert_eq!(cluster.status("orders").requests, 3, "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_between_the_write_and_the_receipt_counts_nothing_twice() {
    for (write, when) in [(1, When::Before), (1, When::After), (2, When::Before), (2, When::After)] {
        let cluster = Cluster::new();
        let id = credential(1);
        let uid = cluster.token("orders", &id).await;
        let first = cluster.ledger("first");
        seconds(0.1).await;
        let crash = cluster.server.crash_at_write("first", write, when);
        let mut gate = cluster.gate("gate-a");
        let set = cluster.sealed(&uid, 1, &id, 3);
        gate.send(&first, vec![set.clone()]).unwrap();
        crash.await.unwrap();
        drop(first);
        // The gate was not told that it is settled: it sends it to the next leader.
        let second = cluster.ledger("second");
        seconds(0.1).await;
        gate.send(&second, vec![set.clone()]).unwrap();
        gate.until_settled(&second).await;
        assert_eq!(cluster.status("orders").requests, 3, "write {write}, {when:?}");
        if (write, when) == (2, When::After) {
            assert_eq!(cluster.writes("second"), 0, "it was there already");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changes_in_between_is_kept() {
    let cluster = Cluster::new();
    let id = credential(1);
    let uid = cluster.token("orders", &id).await;
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    gate.send(&process, vec![cluster.sealed(&uid, 1, &id, 3)]).unwrap();
    gate.until_settled(&process).await;
    cluster.fate("ledger", |number| match number {
        1 => Fault::Delay(Duration::from_secs(2)),
        _ => Fault::None,
    });
    seconds(400.0).await;
    gate.send(&process, vec![cluster.sealed(&uid, 2, &id, 4)]).unwrap();
    seconds(1.0).await;
    let api = Api::<TokenUsage>::namespaced(cluster.client(), NAMESPACE);
    let label = json!({"metadata": {"labels": {"theirs": "stays"}}});
    api.patch("orders", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
    gate.until_settled(&process).await;
    let usage = cluster.usage("orders").unwrap();
    assert_eq!(usage.metadata.labels.unwrap()["theirs"], "stays");
    assert_eq!(usage.status.unwrap().requests, 7);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_refuses_costs_time_only_and_is_not_hammered() {
    for code in [429, 503] {
        let cluster = Cluster::new();
        let process = cluster.ledger("ledger");
        seconds(0.1).await;
        let mut sets = Vec::new();
        for number in 0..20 {
            let uid = cluster.token(&format!("token-{number}"), &credential(number)).await;
            sets.push(cluster.sealed(&uid, u64::try_from(number).unwrap() + 1, &credential(number), 1));
        }
        cluster.server.set_faults(Some(std::sync::Arc::new(
            move |request: &tokenward::testkit::apiserver::RequestInfo| match &*request.client {
                "ledger" => Fault::Status { code, retry_after: None },
                _ => Fault::None,
            },
        )));
        let mut gate = cluster.gate("gate-a");
        gate.send(&process, sets.clone()).unwrap();
        seconds(60.0).await;
        assert!(gate.send(&process, vec![]).unwrap().is_empty(), "{code}");
        let tried: u64 =
            cluster.server.counts().iter().filter(|((who, ..), _)| &**who == "ledger").map(|(_, n)| n).sum();
        assert!(tried < 60, "{code}: {tried} requests in a minute");
        cluster.server.set_faults(None);
        let mut settled = Vec::new();
        while settled.len() < sets.len() {
            settled.extend(gate.until_settled(&process).await);
        }
        let sum: i64 = (0..20).map(|number| cluster.status(&format!("token-{number}")).requests).sum();
        assert_eq!(sum, 20, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_a_deleted_token_is_dropped_and_said_so() {
    let cluster = Cluster::new();
    let id = credential(1);
    let uid = cluster.token("orders", &id).await;
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    gate.send(&process, vec![cluster.sealed(&uid, 1, &id, 3)]).unwrap();
    gate.until_settled(&process).await;
    gate.send(&process, vec![cluster.sealed(&uid, 2, &id, 3)]).unwrap();
    cluster.delete_token("orders", &uid).await;
    let settled = gate.until_settled(&process).await;
    assert_eq!(settled[0].refused, "UnknownToken");
    seconds(30.0).await;
    assert!(cluster.usage("orders").is_none(), "collected with its owner");
}

#[tokio::test(start_paused = true)]
async fn a_token_declared_anew_begins_anew() {
    let cluster = Cluster::new();
    let id = credential(1);
    let old = cluster.token("orders", &id).await;
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    gate.send(&process, vec![cluster.sealed(&old, 1, &id, 3)]).unwrap();
    gate.until_settled(&process).await;
    cluster.delete_token("orders", &old).await;
    let new = cluster.token("orders", &credential(2)).await;
    gate.send(&process, vec![cluster.sealed(&new, 2, &credential(2), 5)]).unwrap();
    gate.until_settled(&process).await;
    let usage = cluster.usage("orders").unwrap();
    assert_eq!(usage.metadata.owner_references.unwrap()[0].uid, new);
    assert_eq!(usage.status.unwrap().requests, 5);
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_got_lost_is_restored() {
    let cluster = Cluster::new();
    let id = credential(1);
    let uid = cluster.token("orders", &id).await;
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    gate.send(&process, vec![cluster.sealed(&uid, 1, &id, 3)]).unwrap();
    gate.until_settled(&process).await;
    let api = Api::<TokenUsage>::namespaced(cluster.client(), NAMESPACE);
    let orphan = json!({"metadata": {"ownerReferences": null}});
    api.patch("orders", &PatchParams::default(), &Patch::Merge(&orphan)).await.unwrap();
    gate.send(&process, vec![cluster.sealed(&uid, 2, &id, 1)]).unwrap();
    gate.until_settled(&process).await;
    let usage = cluster.usage("orders").unwrap();
    assert_eq!(usage.metadata.owner_references.unwrap()[0].uid, uid);
    assert_eq!(usage.status.unwrap().requests, 4);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_write_nothing() {
    let cluster = Cluster::new();
    for number in 0..10 {
        cluster.token(&format!("token-{number}"), &credential(number)).await;
    }
    let mut process = cluster.ledger("ledger");
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    for _ in 0..3_600 {
        gate.send(&process, vec![]).unwrap();
        seconds(1.0).await;
    }
    assert_eq!(cluster.writes("ledger"), 0);
    // The looks of a new leader, once what silence means is known.
    let mut looks = 0;
    while process.news.try_recv().is_ok() {
        looks += 1;
    }
    assert_eq!(looks, 2, "nobody watches, then somebody does: all tokens once for each");
}

#[tokio::test(start_paused = true)]
async fn many_first_uses_keep_to_the_budget() {
    let cluster = Cluster::new();
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let mut sets = Vec::new();
    for number in 0..300 {
        let uid = cluster.token(&format!("token-{number}"), &credential(number)).await;
        sets.push(cluster.sealed(&uid, u64::try_from(number).unwrap() + 1, &credential(number), 1));
    }
    let mut gate = cluster.gate("gate-a");
    gate.send(&process, sets).unwrap();
    seconds(30.0).await;
    // Of three writes each two are ours; the third is the ApiToken's status, that the controller makes.
    let writes = cluster.writes("ledger");
    assert!((190..=220).contains(&writes), "{writes} in half a minute");
    // A share of the budget is for the looks that a new leader makes.
    seconds(100.0).await;
    assert_eq!(cluster.writes("ledger"), 600);
}
