//! The gate: may this bearer do this here? Answered from memory, for proxies; every use is counted.
//!
//! The feed writes the [`index`], the dialects ask [`Gate::check`], the reporter takes away what the [`recorder`] counted.

pub mod callers;
mod counter;
pub mod demand;
pub mod dialect;
pub mod extract;
pub mod feed;
pub mod index;
pub mod link;
pub mod locate;
pub mod metrics;
pub mod record;
pub mod recorder;
mod repeats;
pub mod reporter;
pub mod strangers;
mod tally;
pub mod verdict;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use self::callers::{Addresses, Caller};
use self::demand::Demand;
use self::index::Index;
use self::metrics::Dialect;
use self::recorder::Recorder;
use self::verdict::{Claim, Verdict, judge};
use crate::api::Outcome;
use crate::domain::token::Prefix;

/// How a gate is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The installation's token prefix.
    pub prefix: Prefix,
    /// Deny everything when the API server was not heard for so long; never if `None`.
    pub deny_when_stale_for: Option<Duration>,
    /// How much of callers' addresses is kept.
    pub addresses: Addresses,
}

/// Never heard from the API server.
const NEVER: i64 = i64::MIN;

/// What a gate knows and counts.
#[derive(Debug)]
pub struct Gate {
    index: Arc<Index>,
    recorder: Recorder,
    prefix: Prefix,
    stale_after: Option<u64>,
    open: AtomicBool,
    heard: AtomicI64,
}

impl Gate {
    /// A closed gate with nothing in it.
    pub fn new(settings: Settings) -> Self {
        Self {
            index: Arc::default(),
            recorder: Recorder::new(settings.addresses),
            prefix: settings.prefix,
            stale_after: settings.deny_when_stale_for.map(|limit| limit.as_secs()),
            open: AtomicBool::new(false),
            heard: AtomicI64::new(NEVER),
        }
    }

    /// What is known: for the feed's [`index::Writer`]s, and for figures.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// What is counted: for the reporter and the metrics.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The first full list of every watch is in: from now on answers are given. It never closes again by itself.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether answers are given.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The API server was heard from at this moment, on every watch at least once since. The last word counts, also if a
    /// clock that was set back makes it the smaller one.
    pub fn heard(&self, now: Timestamp) {
        self.heard.store(now.as_second(), Ordering::Relaxed);
    }

    /// When the API server was last heard from, Unix seconds.
    pub fn last_heard(&self) -> Option<i64> {
        Some(self.heard.load(Ordering::Relaxed)).filter(|heard| *heard != NEVER)
    }

    /// Judges one request and counts the answer. `credential` is what was extracted, or why nothing could be.
    pub fn check(
        &self,
        dialect: Dialect,
        credential: Result<&str, Outcome>,
        demand: &Demand<'_>,
        caller: &Caller<'_>,
        now: Timestamp,
    ) -> Verdict {
        match self.claim(credential, now) {
            Ok(claim) => {
                let place = self.recorder.place(claim.id(), demand, caller);
                let verdict = judge(claim, demand, now);
                self.recorder.record(dialect, &place, &verdict, demand, caller, now.as_second());
                verdict
            }
            Err(outcome) => {
                let verdict = Verdict::denied(outcome);
                self.recorder.refused(dialect, verdict.outcome());
                verdict
            }
        }
    }

    /// Denies and counts a request that cannot be judged, such as one to a route whose demand makes no sense.
    pub fn refuse(&self, dialect: Dialect, outcome: Outcome, now: Timestamp) -> Verdict {
        self.check(dialect, Err(outcome), &Demand::none(), &Caller::default(), now)
    }

    /// Judges without counting.
    pub fn judge(&self, credential: Result<&str, Outcome>, demand: &Demand<'_>, now: Timestamp) -> Verdict {
        match self.claim(credential, now) {
            Ok(claim) => judge(claim, demand, now),
            Err(outcome) => Verdict::denied(outcome),
        }
    }

    /// What there is to be judged, or why there is nothing.
    fn claim<'a>(&self, credential: Result<&'a str, Outcome>, now: Timestamp) -> Result<Claim<'a>, Outcome> {
        if !self.is_open() {
            // Fails closed: what is not loaded cannot be known to be revoked or not.
            return Err(Outcome::NotReady);
        }
        if self.is_stale(now) {
            // Fails closed, because the operator asked for it: a revocation may have been missed.
            return Err(Outcome::Stale);
        }
        // Fails closed: nothing was presented that could be judged.
        Claim::read(&self.index, &self.prefix, credential?)
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        let Some(limit) = self.stale_after else { return false };
        // Never heard is as stale as can be. Heard in the future means that the clock was set back: nobody knows how old
        // that is, until the next word from the API server tells.
        self.last_heard().is_none_or(|heard| now.as_second().abs_diff(heard) > limit)
    }
}

#[cfg(test)]
mod fixtures;
