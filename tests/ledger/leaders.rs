//! Terms of leadership: what a new leader knows, and what two that both think they lead can do.

use std::time::Duration;

use tokenward::api::keys;
use tokenward::api::report::Report;
use tokenward::domain::coverage::{Coverage, Watched};
use tokenward::domain::ports::Clock as _;
use tokenward::ledger::Refusal;
use tokenward::platform::leadership::{Fence, Handle, Leadership};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::{Cluster, Process, credential, seconds};

#[tokio::test(start_paused = true)]
async fn two_that_both_lead_count_everything_once() {
    let cluster = Cluster::new();
    let id = credential(1);
    let uid = cluster.token("orders", &id).await;
    let (first, second) = (cluster.ledger("first"), cluster.ledger("second"));
    seconds(0.1).await;
    let (mut a, mut b) = (cluster.gate("gate-a"), cluster.gate("gate-b"));
    let mut sent = 0;
    for sequence in 1..=20_u64 {
        let shared = cluster.sealed(&uid, sequence, &id, sequence);
        let own = cluster.sealed(&uid, sequence, &id, 100);
        // One gate does not know whom to believe; the other believes the second.
        a.send(&first, vec![shared.clone()]).unwrap();
        a.send(&second, vec![shared]).unwrap();
        b.send(&second, vec![own]).unwrap();
        sent += sequence + 100;
        seconds(400.0).await;
    }
    assert_eq!(u64::try_from(cluster.status("orders").requests).unwrap(), sent);
}

/// An election of which the test decides the outcome.
struct Election {
    sender: watch::Sender<Leadership>,
    fence: Fence,
    handle: Handle,
}

impl Election {
    fn new() -> Self {
        let (sender, leadership) = watch::channel(Leadership::none());
        let fence = Fence::closed(Instant::now());
        let handle = Handle::new(leadership, fence.clone());
        Self { sender, fence, handle }
    }

    fn lead(&self, term: u64) {
        self.fence.set(Some(Duration::from_secs(1_000_000)));
        let _ = self.sender.send(Leadership { leading: true, term, ..Leadership::none() });
    }

    fn lose(&self) {
        self.fence.set(None);
        self.sender.send_modify(|now| now.leading = false);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_takes_reports_and_nothing_is_written_past_the_fence() {
    let cluster = Cluster::new();
    let id = credential(1);
    let uid = cluster.token("orders", &id).await;
    let election = Election::new();
    let process = cluster.elected("ledger", election.handle.clone());
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    assert_eq!(gate.send(&process, vec![]).err(), Some(Refusal::NotLeading));
    let observed = process.ledger.board().observe(&uid, cluster.clock.now());
    assert_eq!(observed.watched, Watched::Settling, "nothing is concluded by who does not lead");
    election.lead(1);
    seconds(0.1).await;
    // The fence closes before anybody is told.
    election.fence.set(None);
    let set = cluster.sealed(&uid, 1, &id, 3);
    gate.send(&process, vec![set.clone()]).unwrap();
    seconds(60.0).await;
    assert_eq!(cluster.writes("ledger"), 0);
    election.lose();
    seconds(0.1).await;
    assert_eq!(gate.send(&process, vec![]).err(), Some(Refusal::NotLeading));
    election.lead(2);
    seconds(0.1).await;
    assert!(gate.send(&process, vec![]).unwrap().is_empty(), "what was not settled is not known any more");
    gate.send(&process, vec![set]).unwrap();
    gate.until_settled(&process).await;
    assert_eq!(cluster.status("orders").requests, 3);
}

fn watched(cluster: &Cluster, process: &Process, uid: &str) -> Watched {
    process.ledger.board().observe(uid, cluster.clock.now()).watched
}

#[tokio::test(start_paused = true)]
async fn a_successor_learns_since_when_gates_have_watched() {
    let cluster = Cluster::new();
    let uid = cluster.token("orders", &credential(1)).await;
    let (first, second) = (Election::new(), Election::new());
    let old = cluster.elected("first", first.handle.clone());
    first.lead(1);
    seconds(0.1).await;
    let (mut a, mut b) = (cluster.gate("gate-a"), cluster.gate("gate-b"));
    let began = cluster.clock.now().as_second();
    for _ in 0..100 {
        a.send(&old, vec![]).unwrap();
        b.send(&old, vec![]).unwrap();
        seconds(5.0).await;
    }
    let mut lease = None;
    old.ledger.notes().write(&mut lease, true, Some(1));
    first.lose();
    seconds(0.1).await;
    let mut left = None;
    old.ledger.notes().write(&mut left, false, Some(1));
    assert_eq!(left, lease, "the Lease is given back after the ledger is closed");
    let mut nothing = None;
    old.ledger.notes().write(&mut nothing, true, None);
    assert!(nothing.is_some_and(|map| map.is_empty()), "whoever only claims the Lease leaves the legacy");

    let new = cluster.elected("second", second.handle.clone());
    new.ledger.notes().saw(lease.as_ref());
    second.lead(1);
    seconds(0.1).await;
    a.send(&new, vec![]).unwrap();
    assert_eq!(watched(&cluster, &new, &uid), Watched::Settling, "the other gate may know more");
    b.send(&new, vec![]).unwrap();
    let Watched::Since(since) = watched(&cluster, &new, &uid) else { panic!("no coverage") };
    assert_eq!(since.as_second(), began);
}

#[tokio::test(start_paused = true)]
async fn an_end_gives_up_at_once_and_loses_nothing_that_was_settled() {
    let cluster = Cluster::new();
    let id = credential(1);
    let uid = cluster.token("orders", &id).await;
    let mut process = cluster.ledger("ledger");
    seconds(0.1).await;
    cluster.fate("ledger", |_| tokenward::testkit::apiserver::Fault::Hang);
    let mut gate = cluster.gate("gate-a");
    gate.send(&process, vec![cluster.sealed(&uid, 1, &id, 3)]).unwrap();
    seconds(1.0).await;
    process.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(1), &mut process.task).await;
    ended.expect("at once").expect("no panic");
    assert_eq!(gate.send(&process, vec![]).err(), Some(Refusal::NotLeading));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_just_before_the_end_is_handed_down() {
    let cluster = Cluster::new();
    let election = Election::new();
    let process = cluster.elected("first", election.handle.clone());
    let notes = process.ledger.notes();
    election.lead(1);
    seconds(0.1).await;
    let mut gate = cluster.gate("gate-a");
    gate.send(&process, vec![]).unwrap();
    let leaving = Report { leaving: true, ..gate.report(vec![]) };
    process.ledger.report(leaving).unwrap();
    // The Lease is given back at the very end, when nothing of the ledger is left.
    process.stop.cancel();
    seconds(0.1).await;
    drop(process);
    let mut lease = None;
    notes.write(&mut lease, false, Some(1));
    let lease = lease.unwrap();
    let left = Coverage::load(&lease[keys::COVERAGE], cluster.clock.now());
    assert_eq!(left.names().count(), 0, "nobody waits for a gate that said goodbye: {lease:?}");
    assert!(lease[keys::COVERAGE].contains("since"), "and it has watched: {lease:?}");
}
