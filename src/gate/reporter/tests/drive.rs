//! The loop around the core, in virtual time, with a ledger that does as it is told.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::gate::Gate;
use crate::gate::callers::Caller;
use crate::gate::demand::Demand;
use crate::gate::fixtures::{gate, living, metadata, minted, object};
use crate::gate::locate::Ledger;
use crate::gate::metrics::{Dialect, GateMetrics};
use crate::gate::record::Record;
use crate::gate::reporter::{Connect, LedgerLink, LinkError, Setup, run};
use crate::testkit::clock::VirtualClock;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Settles,
    /// Also what was kept before.
    SettlesAll,
    Keeps,
    Fails,
    Hangs,
}

/// What all ledgers of a test share.
#[derive(Default)]
struct Shared {
    fates: Mutex<VecDeque<Fate>>,
    reports: Mutex<Vec<(String, u64, Report)>>,
}

#[derive(Clone)]
struct Script(Arc<Shared>, tokio::time::Instant);

struct Link(Script, String);

impl Connect for Script {
    type Link = Link;

    fn connect(&self, ledger: &Ledger) -> Link {
        Link(self.clone(), ledger.holder.clone())
    }
}

impl LedgerLink for Link {
    async fn report(&self, report: Report) -> Result<Receipt, LinkError> {
        let Self(Script(shared, start), holder) = self;
        let fate = shared.fates.lock().pop_front().unwrap_or(Fate::Settles);
        shared.reports.lock().push((holder.clone(), start.elapsed().as_secs(), report.clone()));
        let earlier = shared.reports.lock().iter().flat_map(|(_, _, report)| report.sealed.clone()).collect();
        let report = if fate == Fate::SettlesAll { Report { sealed: earlier, ..report } } else { report };
        match fate {
            Fate::Settles | Fate::SettlesAll => Ok(Receipt {
                settled: report
                    .sealed
                    .into_iter()
                    .map(|set| Settled { token: set.token, sequence: set.sequence, refused: String::new() })
                    .collect(),
            }),
            Fate::Keeps => Ok(Receipt::default()),
            Fate::Fails => Err(LinkError::Unreachable("no way".into())),
            Fate::Hangs => std::future::pending().await,
        }
    }
}

struct World {
    gate: Arc<Gate>,
    clock: Arc<VirtualClock>,
    token: String,
    shared: Arc<Shared>,
    ledger: watch::Sender<Option<Ledger>>,
    metrics: GateMetrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn ledger(holder: &str) -> Ledger {
    Ledger { address: "10.0.0.7:8083".into(), sha256: "00".into(), holder: holder.into() }
}

impl World {
    fn new() -> Self {
        let token = minted("twd", 7);
        let record = Record::from_json(&metadata("shop", "t", 1), &object(&[living(&token)], &[]));
        let gate = Arc::new(gate(vec![record]));
        let clock = Arc::new(VirtualClock::default());
        let metrics = GateMetrics::new(&mut Registry::default(), &gate, || 0);
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = watch::channel(None);
        let stop = CancellationToken::new();
        let setup = Setup {
            gate: gate.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            identity: Identity { gate: "gate-a".into(), epoch: 7 },
            flush: FLUSH,
            grace: second(10),
        };
        let script = Script(shared.clone(), tokio::time::Instant::now());
        let task = tokio::spawn(run(setup, receiver, script, stop.clone()));
        let token = token.expose().to_owned();
        Self { gate, clock, token, shared, ledger: sender, metrics, stop, task }
    }

    fn ask(&self, times: u64) {
        use crate::domain::ports::Clock as _;
        for _ in 0..times {
            let caller = Caller { address: Some([10, 0, 0, 1].into()), principal: "", user_agent: "curl" };
            let now = self.clock.now();
            let verdict = self.gate.check(Dialect::Nginx, Ok(&self.token), &Demand::none(), &caller, now);
            assert!(verdict.is_accepted());
        }
    }

    fn fates(&self, fates: &[Fate]) {
        self.shared.fates.lock().extend(fates);
    }

    /// Reports so far that say something, or goodbye.
    fn said(&self) -> Vec<String> {
        let reports = self.shared.reports.lock();
        let told = reports.iter().map(|(holder, _, report)| {
            let goodbye = if report.leaving { "bye" } else { "" };
            format!("{holder}:{}{goodbye}", said(report).join(","))
        });
        told.filter(|told| !told.ends_with(':')).collect()
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(second(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn uses_are_reported_within_a_flush_and_silence_every_ten_seconds() {
    let world = World::new();
    pass(60).await;
    assert!(world.shared.reports.lock().is_empty(), "nobody is there");
    world.ledger.send_replace(Some(ledger("a")));
    pass(2).await;
    world.ask(5);
    pass(2).await;
    assert_eq!(world.said(), ["a:uid-t#1=5"]);
    let before = world.shared.reports.lock().len();
    pass(60).await;
    assert_eq!(world.shared.reports.lock().len() - before, 6);
    let report = world.shared.reports.lock()[0].2.clone();
    assert_eq!((report.observing_since, report.epoch), (1_767_225_600, 7));
    assert_eq!(world.metrics.reports.get(["Arrived"]), 8);
    assert_eq!(world.metrics.unsettled.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_hangs_or_fails_is_asked_again_and_nothing_is_lost() {
    let world = World::new();
    world.ledger.send_replace(Some(ledger("a")));
    world.fates(&[Fate::Hangs, Fate::Fails, Fate::Fails]);
    world.ask(2);
    pass(1).await;
    world.ask(3);
    pass(30).await;
    let said = world.said();
    assert_eq!(said.last().map(String::as_str), Some("a:uid-t#2=3"), "{said:?}");
    assert_eq!(world.metrics.reports.get(["Timeout"]), 1);
    assert_eq!(world.metrics.reports.get(["Unreachable"]), 2);
    assert_eq!(world.metrics.unsettled.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_told_what_the_old_one_did_not_settle() {
    let world = World::new();
    world.ledger.send_replace(Some(ledger("a")));
    pass(2).await;
    world.fates(&[Fate::Keeps, Fate::Hangs]);
    world.ask(2);
    pass(1).await;
    world.ask(3);
    pass(12).await;
    world.ledger.send_replace(Some(ledger("b")));
    pass(3).await;
    let said = world.said();
    assert_eq!(said[0], "a:uid-t#1=2");
    assert!(said.iter().any(|said| said == "b:uid-t#1=2"), "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("b:uid-t#2=3"));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_stop_says_what_is_left_and_goodbye() {
    let world = World::new();
    world.ledger.send_replace(Some(ledger("a")));
    pass(2).await;
    world.fates(&[Fate::Keeps]);
    world.ask(2);
    pass(1).await;
    world.ask(3);
    world.fates(&[Fate::Fails, Fate::Settles]);
    world.stop.cancel();
    world.task.await.expect("ends");
    let reports = world.shared.reports.lock();
    let (_, _, last) = reports.last().expect("reported");
    assert!(last.leaving);
    assert_eq!(said(last), ["uid-t#1=2", "uid-t#2=3"], "also what the old receipt did not settle");
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waits_until_what_was_said_is_persisted() {
    let world = World::new();
    world.ledger.send_replace(Some(ledger("a")));
    pass(2).await;
    // Taken at once, and persisted by the fourth report.
    world.fates(&[Fate::Keeps, Fate::Keeps, Fate::Keeps, Fate::SettlesAll]);
    world.ask(2);
    let start = tokio::time::Instant::now();
    world.stop.cancel();
    world.task.await.expect("ends");
    assert!((second(3)..second(5)).contains(&start.elapsed()), "{:?}", start.elapsed());
    let reports = world.shared.reports.lock();
    assert_eq!(reports.iter().filter(|(_, _, report)| report.leaving).count(), 4);
}

#[tokio::test(start_paused = true)]
async fn stopping_takes_no_longer_than_its_grace() {
    let world = World::new();
    world.ledger.send_replace(Some(ledger("a")));
    pass(1).await;
    world.ledger.send_replace(None);
    world.ask(2);
    let start = tokio::time::Instant::now();
    world.stop.cancel();
    world.task.await.expect("ends");
    assert_eq!(start.elapsed(), second(10), "nobody came to listen");
    let world = World::new();
    world.ask(2);
    let start = tokio::time::Instant::now();
    world.stop.cancel();
    world.task.await.expect("ends");
    assert!(start.elapsed() < second(1), "there has never been a ledger");
    let world = World::new();
    world.ledger.send_replace(Some(ledger("a")));
    world.fates(&[Fate::Hangs; 9]);
    pass(3).await;
    let start = tokio::time::Instant::now();
    world.stop.cancel();
    world.task.await.expect("ends");
    assert_eq!(start.elapsed(), second(10));
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_listens_keeps_nobody_from_stopping() {
    let world = World::new();
    world.ledger.send_replace(Some(ledger("a")));
    pass(2).await;
    let start = tokio::time::Instant::now();
    world.stop.cancel();
    world.task.await.expect("ends");
    assert!(start.elapsed() < second(1));
    assert!(world.shared.reports.lock().last().is_some_and(|(_, _, report)| report.leaving));
}
