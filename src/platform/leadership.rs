//! Who leads, as the rest of the process knows it: changes of leadership, the fence that every write passes, and what the
//! leader notes on the Lease for others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::keys;

/// What is known about leadership, as last published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Whether this process leads.
    pub leading: bool,
    /// Until when it may act without another renewal; `None` without a limit, or when not leading.
    pub valid_until: Option<Instant>,
    /// Who leads, as far as known; empty if nobody.
    pub holder: String,
    /// Grows each time this process becomes leader. A receiver that was slow sees by it that the leadership it knew
    /// had ended in between.
    pub term: u64,
}

impl Leadership {
    /// The leadership of a process that was told not to elect: unlimited.
    pub fn always() -> Self {
        Self { leading: true, valid_until: None, holder: String::new(), term: 1 }
    }

    /// The leadership of a process that has not been elected.
    pub fn none() -> Self {
        Self { leading: false, valid_until: None, holder: String::new(), term: 0 }
    }
}

/// This process does not lead (any more): the write must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the leader: nothing is written")]
pub struct NotLeading;

impl NotLeading {
    /// A bounded name for metrics and logs.
    pub fn category(self) -> &'static str {
        "NotLeading"
    }
}

/// Asked right before each write. It compares the deadline with the clock itself, so it holds even if the loop that
/// renews, or the task that learns of a loss, does not get to run.
///
/// A write that has passed may still be on its way when the deadline strikes. That is what the time between the renew
/// deadline and the lease duration is for; bound the call by [`Fence::deadline`] where that time is too short.
#[derive(Debug, Clone)]
pub struct Fence {
    epoch: Instant,
    /// Nanoseconds after `epoch`; 0 while not leading, `u64::MAX` without limit.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// Open without limit, for a process that does not elect.
    pub fn always() -> Self {
        Self { epoch: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Closed, for a process that has not been elected. `epoch` is what [`Fence::set`] counts from.
    pub fn closed(epoch: Instant) -> Self {
        Self { epoch, until: Arc::new(AtomicU64::new(0)) }
    }

    /// What it counts from.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Refuses unless this process leads at this moment.
    pub fn check(&self) -> Result<(), NotLeading> {
        match self.until.load(Ordering::Acquire) {
            0 => Err(NotLeading),
            u64::MAX => Ok(()),
            until if self.epoch.elapsed() < Duration::from_nanos(until) => Ok(()),
            _ => Err(NotLeading),
        }
    }

    /// When leadership ends unless it is renewed; `None` without limit, or when not leading.
    pub fn deadline(&self) -> Option<Instant> {
        match self.until.load(Ordering::Acquire) {
            0 | u64::MAX => None,
            until => Some(self.epoch + Duration::from_nanos(until)),
        }
    }

    /// Opens it until so long after its epoch, or closes it. For the elector.
    pub fn set(&self, until: Option<Duration>) {
        let nanos = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX - 1));
        self.until.store(nanos, Ordering::Release);
    }
}

/// What the rest of the process holds of the election.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Changes of leadership.
    pub leadership: watch::Receiver<Leadership>,
    /// The check before each write.
    pub fence: Fence,
    /// Keeps `changed()` pending instead of failing where nothing is elected.
    _sender: Option<Arc<watch::Sender<Leadership>>>,
}

impl Handle {
    /// Of an election.
    pub fn new(leadership: watch::Receiver<Leadership>, fence: Fence) -> Self {
        Self { leadership, fence, _sender: None }
    }

    /// For `--leader-elect=false`: always leading.
    pub fn always() -> Self {
        let (sender, leadership) = watch::channel(Leadership::always());
        Self { leadership, fence: Fence::always(), _sender: Some(Arc::new(sender)) }
    }
}

/// What a leader hands down: asked with the term that it leads or gives up, right before the Lease is written. `None`: it has
/// not read yet what its predecessor left.
pub type Legacy = Box<dyn Fn(u64) -> Option<String> + Send + Sync>;

/// Annotations of the Lease that the leader keeps. The elector writes them with the renewals that it makes anyway, so that
/// they cost no write of their own.
///
/// Two kinds: those that say where this process is found stand there while it leads; one is handed down from leader to leader.
pub struct Notes {
    here: BTreeMap<&'static str, Option<String>>,
    key: &'static str,
    legacy: Legacy,
    found: Mutex<String>,
}

impl Notes {
    /// `here` stands on the Lease while this process leads; a key without a value never does. Under `key` stands what is handed
    /// down.
    pub fn new(here: BTreeMap<&'static str, Option<String>>, key: &'static str, legacy: Legacy) -> Self {
        Self { here, key, legacy, found: Mutex::default() }
    }

    /// What was handed down when the Lease was last seen: at the begin of a term, what the predecessor left.
    pub fn found(&self) -> String {
        self.found.lock().clone()
    }

    /// The Lease was seen with these annotations.
    pub fn saw(&self, annotations: Option<&BTreeMap<String, String>>) {
        let found = annotations.and_then(|annotations| annotations.get(self.key));
        found.map(String::as_str).unwrap_or_default().clone_into(&mut self.found.lock());
    }

    /// Writes them into the annotations of a Lease that is about to be sent. `held`: this process will hold it. `term`: the
    /// term that it leads or gives up; `None` while it only claims the Lease.
    pub fn write(&self, annotations: &mut Option<BTreeMap<String, String>>, held: bool, term: Option<u64>) {
        let annotations = annotations.get_or_insert_default();
        for (key, value) in &self.here {
            // Whoever finds no leader's address looks again; whoever finds an old one would wait for a timeout.
            match value.as_ref().filter(|_| held) {
                Some(value) => drop(annotations.insert((*key).to_owned(), value.clone())),
                None => drop(annotations.remove(*key)),
            }
        }
        if let Some(value) = term.and_then(|term| (self.legacy)(term)) {
            annotations.insert(self.key.to_owned(), value);
        }
    }

    /// Of a process without a ledger: it must not stand where another was found. What was handed down is kept.
    pub fn without_ledger() -> Self {
        let here = BTreeMap::from([(keys::LEDGER_ADDRESS, None), (keys::LEDGER_SHA256, None)]);
        Self::new(here, keys::COVERAGE, Box::new(|_| None))
    }
}
