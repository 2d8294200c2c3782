//! Brings what was counted to the ledger.
//!
//! [`core`] decides; here is the loop around it: it drains the recorder at every flush, keeps one report under way at a time,
//! and follows the ledger from leader to leader.
//!
//! What is lost and when: a gate that is told to stop says everything first, and stays until it is persisted if that takes no
//! longer than its grace. One that dies hard loses what it counted since its last report, one flush; if the leader dies with
//! it, what that leader had not persisted yet.

pub mod core;
mod set;
#[cfg(test)]
mod tests;
mod waiting;

use std::future::{Future, pending};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::core::{Ended, Identity, Reporter};
use super::Gate;
use super::locate::Ledger;
use super::metrics::GateMetrics;
use crate::api::report::{Receipt, Refused, Report};
use crate::domain::ports::Clock;

/// Where no report arrives for so long, the counts of ApiTokens that are gone are dropped: no ledger will ever take them.
const TIDY: Duration = Duration::from_secs(600);
/// How long a report may take until its receipt is there.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a report did not arrive, or its receipt did not.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The Lease does not say in a usable way where the ledger is.
    #[error("the Lease's annotations do not name a ledger")]
    Address(#[source] Cause),
    /// No connection, or one that shows another certificate than the Lease names.
    #[error("the ledger cannot be reached")]
    Unreachable(#[source] Cause),
    /// The gate's own token cannot be read.
    #[error("the token file {path} cannot be read")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The ledger does not know this gate, or does not allow it to report.
    #[error("the ledger does not accept this gate: {0}")]
    Denied(String),
    /// Whoever was asked does not lead.
    #[error("the ledger is not there: {0}")]
    NotLeading(String),
    /// The ledger does not take this report.
    #[error("the ledger refuses the report: {0}")]
    Refused(String),
    /// No receipt in time.
    #[error("no receipt within {}", crate::domain::duration::format(*.0))]
    Timeout(Duration),
}

impl LinkError {
    /// A bounded name for logs and metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Address(_) => "Address",
            Self::Unreachable(_) => "Unreachable",
            Self::TokenFile { .. } => "TokenFile",
            Self::Denied(_) => "Denied",
            Self::NotLeading(_) => "NotLeading",
            Self::Refused(_) => "Refused",
            Self::Timeout(_) => "Timeout",
        }
    }
}

/// The way to one ledger.
pub trait LedgerLink: Send + Sync + 'static {
    /// Brings a report there and its receipt back.
    fn report(&self, report: Report) -> impl Future<Output = Result<Receipt, LinkError>> + Send;
}

/// Makes the way to a ledger.
pub trait Connect: Send + Sync + 'static {
    /// What it makes.
    type Link: LedgerLink;

    /// The way to this ledger. Nothing is sent yet.
    fn connect(&self, ledger: &Ledger) -> Self::Link;
}

/// What a reporter works with.
pub struct Setup {
    /// Whose counts are brought.
    pub gate: Arc<Gate>,
    /// Wall clock: since when the gate has watched.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: GateMetrics,
    /// Who reports.
    pub identity: Identity,
    /// How often the recorder is drained, and a report sent while there is something to say.
    pub flush: Duration,
    /// How long the gate may take to say what is left when it stops.
    pub grace: Duration,
}

/// Reports until `stop` is cancelled, then says what is left, for `grace` at most, and returns. Cancel it only after the
/// last answer was given.
pub async fn run<C: Connect>(
    setup: Setup,
    ledger: watch::Receiver<Option<Ledger>>,
    connect: C,
    stop: CancellationToken,
) {
    let core = Reporter::new(setup.identity.clone(), setup.flush);
    let started = Instant::now();
    let task = Task {
        setup,
        core,
        started,
        since: None,
        link: None,
        under_way: None,
        known: false,
        left: false,
        trouble: None,
        quiet_since: started,
    };
    task.run(ledger, connect, stop).await;
}

type UnderWay = BoxFuture<'static, (bool, Result<Receipt, LinkError>)>;

struct Task<L> {
    setup: Setup,
    core: Reporter,
    started: Instant,
    /// Since when the gate has watched, Unix seconds.
    since: Option<i64>,
    link: Option<Arc<L>>,
    under_way: Option<UnderWay>,
    /// There has been a ledger.
    known: bool,
    /// A report that said goodbye arrived.
    left: bool,
    /// The category of the last error: told once, not at every attempt.
    trouble: Option<&'static str>,
    /// When a report last arrived, or counts of ApiTokens that are gone were last dropped.
    quiet_since: Instant,
}

impl<L: LedgerLink> Task<L> {
    async fn run<C: Connect<Link = L>>(
        mut self,
        mut ledger: watch::Receiver<Option<Ledger>>,
        connect: C,
        stop: CancellationToken,
    ) {
        let mut flushes = interval(self.setup.flush.max(Duration::from_millis(10)));
        flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        ledger.mark_changed();
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = stop.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.setup.grace);
                    self.drain();
                    self.core.leave(self.now());
                }
                () = sleep_until(deadline.unwrap_or(self.started)), if deadline.is_some() => break,
                changed = changed(&mut ledger) => {
                    // One under way to the old ledger is given up: the new one is told everything in any case.
                    self.under_way = None;
                    self.link = changed.map(|ledger| Arc::new(connect.connect(&ledger)));
                    match self.link {
                        Some(_) => {
                            self.known = true;
                            self.core.linked(self.now());
                        }
                        None => self.core.unlinked(),
                    }
                }
                (leaving, result) = arrival(&mut self.under_way) => {
                    self.under_way = None;
                    self.arrived(leaving, result);
                }
                _ = flushes.tick(), if deadline.is_none() => self.drain(),
                () = sleep_until(due.unwrap_or(self.started)), if due.is_some() => self.send(),
            }
            // What was said and is not persisted may still be lost with the leader: it is waited for.
            if self.left && self.under_way.is_none() && self.core.unsettled() == 0 {
                break;
            }
            let unheard = self.since.is_none() || (!self.known && ledger.borrow().is_none());
            if deadline.is_some() && unheard {
                // It has never answered anybody, or nobody has ever wanted to hear of it: there is nothing to wait for.
                debug!("nothing to report, or nobody to report to");
                return;
            }
        }
        let (held, settled) = (self.core.held(), self.core.sums().settled);
        match self.left && self.core.is_said() {
            true if held == 0 => info!(settled, "everything counted is persisted"),
            true => info!(settled, held, "everything counted was reported; not all of it is persisted yet"),
            false => warn!(settled, held, "stopped before everything counted was reported"),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn drain(&mut self) {
        if self.since.is_none() && self.setup.gate.is_open() {
            self.since = Some(self.setup.clock.now().as_second());
        }
        for drained in self.setup.gate.recorder().drain() {
            self.core.count(drained);
        }
        if self.quiet_since.elapsed() >= TIDY {
            self.quiet_since = Instant::now();
            let index = self.setup.gate.index();
            self.core.forget(|uid| index.knows(uid));
        }
        self.show();
    }

    fn show(&self) {
        self.setup.metrics.unsettled.set(i64::try_from(self.core.unsettled()).unwrap_or(i64::MAX));
    }

    /// When to report next. Not before the gate answers: it has nothing to say.
    fn due(&self) -> Option<Instant> {
        self.since?;
        if self.under_way.is_some() { None } else { self.core.due().map(|due| self.started + due) }
    }

    fn send(&mut self) {
        let (Some(link), Some(since)) = (&self.link, self.since) else { return };
        let link = Arc::clone(link);
        let report = self.core.report(self.now(), since);
        debug!(sealed = report.sealed.len(), open = report.open.len(), "reporting");
        self.under_way = Some(Box::pin(async move {
            let leaving = report.leaving;
            let answer = timeout(REPORT_TIMEOUT, link.report(report)).await;
            (leaving, answer.unwrap_or(Err(LinkError::Timeout(REPORT_TIMEOUT))))
        }));
    }

    fn arrived(&mut self, leaving: bool, result: Result<Receipt, LinkError>) {
        let now = self.now();
        match result {
            Ok(receipt) => {
                self.left |= leaving;
                self.quiet_since = Instant::now();
                self.setup.metrics.reports.inc(["Arrived"]);
                if self.trouble.take().is_some() {
                    info!("reports arrive again");
                }
                let Ended { settled, refused } = self.core.receipt(&receipt);
                for reason in &refused {
                    // A newer ledger may know more of them; labels are bounded.
                    let known = Refused::ALL.map(Refused::as_str).into_iter().find(|known| known == reason);
                    self.setup.metrics.refused.inc([known.unwrap_or("Other")]);
                }
                if settled > 0 || !refused.is_empty() {
                    debug!(settled, ?refused, "counts came to their end");
                    self.show();
                }
            }
            Err(error) => {
                self.setup.metrics.reports.inc([error.category()]);
                if self.trouble.replace(error.category()) == Some(error.category()) {
                    debug!(%error, "a report did not arrive; trying again");
                } else {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(%error, cause, "a report did not arrive; counts are kept and sent again");
                }
                self.core.failed(now);
            }
        }
    }
}

/// The next place of the ledger; never, once nobody looks for it any more.
async fn changed(ledger: &mut watch::Receiver<Option<Ledger>>) -> Option<Ledger> {
    match ledger.changed().await {
        Ok(()) => ledger.borrow_and_update().clone(),
        Err(_) => pending().await,
    }
}

async fn arrival(under_way: &mut Option<UnderWay>) -> (bool, Result<Receipt, LinkError>) {
    match under_way {
        Some(under_way) => under_way.await,
        None => pending().await,
    }
}
