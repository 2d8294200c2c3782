//! The ledger, in the leading controller: takes what gates counted, merges it, and persists it under a budget of writes.
//!
//! | module | job |
//! |---|---|
//! | `check` | judges a report, entry by entry |
//! | `desk`, `pace` | what waits, and whose turn it is |
//! | `persist` | a token's counts into its TokenUsage |
//! | `board` | what is known, for the controller |
//! | `service` | who may report, over gRPC |
//!
//! The controller takes three things from it: what is known of a token's use ([`Ledger::board`]), news of tokens that need a look
//! ([`Ledger::new`]), and the Lease's annotations ([`Ledger::notes`]), by which gates find it and a successor learns since
//! when gates have watched.

mod board;
pub mod check;
pub mod desk;
#[cfg(test)]
mod fixtures;
pub mod metrics;
pub mod pace;
mod persist;
pub mod service;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::check::Refusal;
pub use self::pace::Pace;

use self::desk::{Command, Desk, Job, Outcome};
use self::metrics::Metrics;
use self::persist::Persister;
use crate::api::keys;
use crate::api::report::{Receipt, Refused, Report};
use crate::domain::coverage::{Coverage, Watched};
use crate::domain::directory::Directory;
use crate::domain::lease::Moment;
use crate::domain::ports::{Clock, News, UsageSource};
use crate::platform::budget;
use crate::platform::leadership::{Handle, Notes};
use crate::platform::readiness::Readiness;

/// News that wait for the controller; the rest waits where it stands.
const NEWS: usize = 256;
/// How often the figures are told to the metrics, at most.
const FIGURES: Duration = Duration::from_secs(1);

/// What the ledger is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often it may write.
    pub pace: Pace,
    /// What it may write, shared with whoever else writes what nobody waits for.
    pub budget: budget::Shared,
    /// Longest time for one call to the API server.
    pub request_timeout: Duration,
    /// Where gates find it: address and SHA-256 of its certificate in hex. `None`: gates are led there otherwise.
    pub here: Option<(String, String)>,
}

/// What the parts share.
struct Hall {
    clock: Arc<dyn Clock>,
    started: Instant,
    world: Arc<RwLock<Directory>>,
    pace: Pace,
    budget: budget::Shared,
    /// The desk of the present term. Locked before `world` where both are.
    desk: Mutex<Option<(u64, Desk)>>,
    /// The coverage that the last term ended with: the Lease is given back after that.
    left: Mutex<Option<(u64, String)>>,
    changed: Notify,
    metrics: Metrics,
}

/// A ledger, ready to run. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger {
    hall: Arc<Hall>,
    leader: Handle,
    ready: watch::Receiver<Readiness>,
    notes: Arc<Notes>,
    persister: Persister,
    news: mpsc::Sender<News>,
}

impl Ledger {
    /// Puts a ledger together; nothing is sent before [`Ledger::run`]. `world` is kept by the controller's watch, and complete
    /// once `ready`. The receiver gets what the controller is to look at.
    pub fn new(
        options: Options,
        client: Client,
        clock: Arc<dyn Clock>,
        world: Arc<RwLock<Directory>>,
        leader: Handle,
        ready: watch::Receiver<Readiness>,
        metrics: Metrics,
    ) -> (Self, mpsc::Receiver<News>) {
        let hall = Arc::new(Hall {
            clock,
            started: options.budget.epoch(),
            world,
            pace: options.pace,
            budget: options.budget,
            desk: Mutex::new(None),
            left: Mutex::new(None),
            changed: Notify::new(),
            metrics: metrics.clone(),
        });
        // Not weakly: the Lease is given back after the ledger has ended, with what it knew then.
        let legacy = hall.clone();
        let (address, fingerprint) = options.here.unzip();
        let notes = Notes::new(
            BTreeMap::from([(keys::LEDGER_ADDRESS, address), (keys::LEDGER_SHA256, fingerprint)]),
            keys::COVERAGE,
            Box::new(move |term| legacy.coverage(term)),
        );
        let persister = Persister::new(client, leader.fence.clone(), options.request_timeout, metrics);
        let (news, receiver) = mpsc::channel(NEWS);
        (Self { hall, leader, ready, notes: Arc::new(notes), persister, news }, receiver)
    }

    /// For the elector: see [`Notes`].
    pub fn notes(&self) -> Arc<Notes> {
        self.notes.clone()
    }

    /// For the controller: what is known of a token's use.
    pub fn board(&self) -> Arc<dyn UsageSource> {
        self.hall.clone()
    }

    /// Whether it takes reports: this replica leads, and knows the ApiTokens.
    pub fn is_open(&self) -> bool {
        self.hall.desk.lock().is_some()
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.hall.metrics
    }

    /// Takes a report of a gate whose right to report is proven. Never waits.
    pub fn report(&self, report: Report) -> Result<Receipt, Refusal> {
        self.hall.report(report)
    }

    /// Works whenever this replica leads, until `shutdown`. What is under way then is given up: nothing is settled before it
    /// is persisted, and gates send it again.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut leadership = self.leader.leadership.clone();
        let mut ready = self.ready.clone();
        loop {
            let term = async {
                // On half a list, tokens would be refused as unknown.
                let _ = ready.wait_for(Readiness::is_ready).await;
                leadership.wait_for(|now| now.leading).await.map(|now| now.term).ok()
            };
            let Some(Some(term)) = shutdown.run_until_cancelled(term).await else { return };
            self.hall.open(term, &self.notes.found());
            let mut leadership = leadership.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                _ = leadership.wait_for(|now| !now.leading || now.term != term) => {}
                () = self.work() => {}
            }
            self.hall.close();
            if shutdown.is_cancelled() {
                return;
            }
        }
    }

    /// The work of one term; ends only if a part of it breaks down, and is then begun anew.
    async fn work(&self) {
        let mut jobs = JoinSet::new();
        let mut backlog = VecDeque::<News>::new();
        let mut told = None::<Instant>;
        loop {
            while backlog.len() < NEWS {
                match self.hall.next() {
                    Some(Command::Persist(job)) => drop(jobs.spawn(self.clone().persist(job))),
                    Some(Command::LookAtAll) => backlog.push_back(News::Watched),
                    None => break,
                }
            }
            if told.is_none_or(|told| told.elapsed() >= FIGURES) {
                told = Some(Instant::now());
                self.hall.tell();
            }
            let wake = self.hall.wake();
            tokio::select! {
                biased;
                Some(done) = jobs.join_next() => match done {
                    Ok(Some(news)) => backlog.push_back(news),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(%error, "the ledger broke down and begins anew");
                        return;
                    }
                },
                permit = self.news.reserve(), if !backlog.is_empty() => {
                    let news = backlog.pop_front();
                    // Without a permit there is no controller to tell.
                    if let Some((permit, news)) = permit.ok().zip(news) {
                        permit.send(news);
                    }
                }
                () = self.hall.changed.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn persist(self, job: Job) -> Option<News> {
        let uid = job.claimant.uid.as_str();
        let exists = || self.hall.world.read().token(uid).is_some();
        let (outcome, writes) = self.persister.persist(&job, exists, || self.hall.clock.now()).await;
        let look = self.hall.done(&job, outcome, writes);
        look.then(|| News::Persisted {
            namespace: job.claimant.namespace.clone(),
            name: job.claimant.name.clone(),
        })
    }
}

impl Hall {
    fn now(&self) -> Moment {
        Moment { mono: self.started.elapsed(), wall: self.clock.now() }
    }

    fn open(&self, term: u64, found: &str) {
        tracing::info!(term, "the ledger is open");
        let now = self.now();
        let coverage = Coverage::load(found, now.wall);
        let desk = Desk::new(self.pace, self.budget.budget(), coverage, now);
        *self.desk.lock() = Some((term, desk));
    }

    fn close(&self) {
        let desk = self.desk.lock().take();
        *self.left.lock() = desk.map(|(term, desk)| (term, desk.coverage().store()));
        self.tell();
        tracing::info!("the ledger is closed");
    }

    /// What the leader of this term hands down.
    fn coverage(&self, term: u64) -> Option<String> {
        if let Some((own, desk)) = self.desk.lock().as_ref() {
            return (*own == term).then(|| desk.coverage().store());
        }
        self.left.lock().clone().filter(|(own, _)| *own == term).map(|(_, coverage)| coverage)
    }

    fn report(&self, report: Report) -> Result<Receipt, Refusal> {
        let taken = self.take(report);
        self.metrics.reports.inc([taken.as_ref().map_or_else(|refusal| refusal.category(), |_| "ok")]);
        taken
    }

    fn take(&self, report: Report) -> Result<Receipt, Refusal> {
        if self.desk.lock().is_none() {
            return Err(Refusal::NotLeading);
        }
        let now = self.now();
        let checked = check::check(report, &self.world.read(), now.wall);
        let mut desk = self.desk.lock();
        let (_, desk) = desk.as_mut().ok_or(Refusal::NotLeading)?;
        let checked = checked.inspect_err(|_| desk.turned_away(now.wall))?;
        let gate = checked.gate.clone();
        let gap = desk.coverage().gaps().last().copied();
        let answer = desk.report(checked, now)?;
        if let Some((from, to)) = desk.coverage().gaps().last().filter(|last| gap.as_ref() != Some(last)) {
            tracing::warn!(%from, %to, "nobody watched the use of tokens then: idleness is judged from its end on");
        }
        for refused in &answer.refused {
            self.metrics.refused.inc([refused.as_str()]);
        }
        if let Some(refused) = answer.refused.first() {
            tracing::debug!(%gate, count = answer.refused.len(), first = refused.as_str(), "entries not counted");
        }
        self.changed.notify_one();
        Ok(answer.receipt)
    }

    fn next(&self) -> Option<Command> {
        self.desk.lock().as_mut()?.1.next(&self.world.read(), self.now())
    }

    fn wake(&self) -> Instant {
        let now = self.now().mono;
        let wake = self.desk.lock().as_mut().map_or(now + desk::TICK, |(_, desk)| desk.wake(now));
        self.started + wake
    }

    fn done(&self, job: &Job, outcome: Outcome, writes: u32) -> bool {
        if let Outcome::Written { outdated, .. } = &outcome {
            outdated.iter().for_each(|_| self.metrics.refused.inc([Refused::Backwards.as_str()]));
        }
        let now = self.now();
        self.desk.lock().as_mut().is_some_and(|(_, desk)| desk.done(job, outcome, writes, now))
    }

    /// Tells the metrics.
    fn tell(&self) {
        let now = self.now();
        let (figures, watched) = match self.desk.lock().as_ref() {
            Some((_, desk)) => (desk.figures(), desk.watched(now.wall)),
            None => (desk::Figures::default(), Watched::Settling),
        };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.sets.set(count(figures.sets));
        metrics.tokens.set(count(figures.tokens));
        metrics.gates.set(count(figures.gates));
        metrics.stretch.set(figures.stretch);
        let age = figures.oldest.map(|since| now.mono.saturating_sub(since));
        let age = age.and_then(|age| i64::try_from(age.as_secs()).ok());
        metrics.oldest.set(age.map_or(0, |age| now.wall.as_second() - age));
        metrics.coverage.set(match watched {
            Watched::Since(since) => since.as_second(),
            Watched::Unasked | Watched::Settling | Watched::Nobody => 0,
        });
    }
}
