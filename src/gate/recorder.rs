//! Counts every answer, per thread, until somebody takes the counts away.
//!
//! Each thread that answers has a lane of its own. What repeats is counted there without a lock ([`super::repeats`]); the
//! rest behind a lock that nobody else wants but the drain, which holds it for a moment at a time. A drain costs what was used
//! since the last one, and a look at each use that has ever repeated. What is counted is drained exactly once, whether or not
//! the credential is still in the index.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;
use thread_local::ThreadLocal;

use super::callers::{Addresses, Caller, Callers};
use super::counter::Counter;
use super::demand::Demand;
use super::index::Found;
use super::metrics::{Dialect, DurationCounters, Durations};
use super::repeats::{Holder, Holders, Repeats, Spot};
use super::tally::Tally;
use super::verdict::Verdict;
use crate::api::Outcome;
use crate::api::report::{CallerUse, CredentialUse, ScopeUse};
use crate::domain::token::CredentialId;

/// How many outcomes there are.
pub(super) const OUTCOMES: usize = Outcome::ALL.len();

/// Callers that are noted between two drains of a lane for credentials that they did not prove to hold. Anybody can send the
/// ids of all tokens from many addresses: beyond this, such requests are counted, and no more.
const UNPROVED_BETWEEN_DRAINS: usize = 1_024;
/// Callers that are kept of credentials that nobody knows.
const STRANGERS: usize = 16;

/// How many holders are settled while a lane's lock is held.
const AT_ONCE: usize = 128;

/// What was counted for one ApiToken since the last drain.
#[derive(Clone, Debug, PartialEq)]
pub struct Drained {
    /// `metadata.uid`.
    pub uid: String,
    /// `namespace/name`.
    pub token: String,
    /// By credential.
    pub credentials: Vec<CredentialUse>,
    /// Scopes that accepted requests needed.
    pub scopes: Vec<ScopeUse>,
}

/// Who sent tokens of our form whose credential nobody knows: of ApiTokens that were deleted long ago, or made up.
#[derive(Clone, Debug, PartialEq)]
pub struct Strangers {
    /// The busiest.
    pub callers: Vec<CallerUse>,
    /// The id of the last token; not secret.
    pub credential: CredentialId,
}

/// Counts of all answers since the start, for the metrics.
#[derive(Clone, Debug)]
pub struct Totals {
    /// By dialect, then by outcome, in the order of their `ALL`.
    pub answers: [[u64; OUTCOMES]; Dialect::ALL.len()],
    /// By dialect.
    pub durations: [Durations; Dialect::ALL.len()],
}

impl Default for Totals {
    fn default() -> Self {
        Self { answers: [[0; OUTCOMES]; Dialect::ALL.len()], durations: Default::default() }
    }
}

/// Counts every answer. See the module.
#[derive(Debug)]
pub struct Recorder {
    lanes: ThreadLocal<Lane>,
    addresses: Addresses,
    /// Nobody knows its keys: two uses never have the same hash, and nobody can choose two that have.
    random: RandomState,
}

/// Where a use is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    lane: &'a Lane,
    id: CredentialId,
    /// Of the credential id, the caller and the scopes.
    hash: u64,
    spot: Spot,
}

/// What one thread counts. A thread that ends leaves its lane, and what is in it, to the next. Alone on its cache lines:
/// neighbours would slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    answers: [[Counter; OUTCOMES]; Dialect::ALL.len()],
    durations: [DurationCounters; Dialect::ALL.len()],
    repeats: Repeats,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    tally: Tally,
    holders: Holders,
    /// Callers that were noted since the last drain without a proof.
    unproved: usize,
    strangers: Callers<STRANGERS>,
    stranger: Option<(i64, CredentialId)>,
}

impl Recorder {
    /// With nothing counted.
    pub fn new(addresses: Addresses) -> Self {
        Self { lanes: ThreadLocal::new(), addresses, random: RandomState::new() }
    }

    /// Where the use of a credential will be counted, whatever the verdict. To be asked for before it.
    pub(super) fn place(&self, id: CredentialId, demand: &Demand<'_>, caller: &Caller<'_>) -> Place<'_> {
        let mut hasher = self.random.build_hasher();
        caller.feed(self.addresses.keep(caller.address), &mut hasher);
        for scope in demand.scopes() {
            hasher.write(scope.as_bytes());
        }
        // An id is random already: to multiply spreads it over all bits.
        let hash = hasher.finish() ^ id.number().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let lane = self.lanes.get_or_default();
        Place { lane, id, hash, spot: lane.repeats.spot(hash) }
    }

    /// Counts one answer about a request without a credential, or with one that is no token.
    pub(super) fn refused(&self, dialect: Dialect, outcome: Outcome) {
        self.lanes.get_or_default().count(dialect, outcome);
    }

    /// Counts one answer. Allocates only for a credential or a caller that was not seen since the last drain, and when a use
    /// begins to repeat.
    pub(super) fn record(
        &self,
        dialect: Dialect,
        place: &Place<'_>,
        verdict: &Verdict,
        demand: &Demand<'_>,
        caller: &Caller<'_>,
        now: i64,
    ) {
        let Place { lane, hash, spot, .. } = place;
        let outcome = verdict.outcome();
        lane.count(dialect, outcome);
        let Some(found) = verdict.found() else {
            // What concerns no known token is counted in total: a flood of unknown ids takes no memory.
            if outcome == Outcome::UnknownCredential {
                lane.book.lock().strange(place.id, &self.kept(caller), now);
            }
            return;
        };
        if !verdict.is_accepted() {
            lane.book.lock().refuse(found, outcome, &self.kept(caller), now);
            return;
        }
        // An id that changes hands is counted for each hand.
        let key = (hash ^ found.record().uid_hash()).max(1);
        if !lane.repeats.again(spot, key, now) {
            lane.accepted(spot, key, found, demand, &self.kept(caller), now);
        }
    }

    fn kept<'a>(&self, caller: &Caller<'a>) -> Caller<'a> {
        Caller { address: self.addresses.keep(caller.address), ..*caller }
    }

    /// Counts how long an answer took, from the request's last byte to the answer's first.
    pub fn took(&self, dialect: Dialect, duration: Duration) {
        self.lanes.get_or_default().durations[dialect as usize].add(duration);
    }

    /// Takes away what was counted since the last drain, by ApiToken, in no order.
    pub fn drain(&self) -> Vec<Drained> {
        let mut all = Tally::default();
        for lane in &self.lanes {
            lane.drain_into(&mut all);
        }
        all.report(self.addresses)
    }

    /// Takes away who sent tokens that nobody knows since this was last asked.
    pub fn strangers(&self) -> Option<Strangers> {
        let (mut all, mut last) = (Callers::default(), None);
        for lane in &self.lanes {
            let mut book = lane.book.lock();
            all.merge(std::mem::take(&mut book.strangers));
            last = last.max(book.stranger.take());
        }
        let (_, credential) = last?;
        Some(Strangers { callers: all.report(self.addresses), credential })
    }

    /// All counts since the start.
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for lane in &self.lanes {
            let answers = sum.answers.iter_mut().flatten();
            answers.zip(lane.answers.iter().flatten()).for_each(|(sum, count)| *sum += count.get());
            sum.durations.iter_mut().zip(&lane.durations).for_each(|(sum, counted)| counted.add_to(sum));
        }
        sum
    }
}

impl Lane {
    fn count(&self, dialect: Dialect, outcome: Outcome) {
        self.answers[dialect as usize][outcome.index() as usize].add(1);
    }

    /// Counts an accepted use that has no cell. What comes twice between two drains gets one.
    fn accepted(
        &self,
        spot: &Spot,
        key: u64,
        found: &Found,
        demand: &Demand<'_>,
        caller: &Caller<'_>,
        now: i64,
    ) {
        let mut book = self.book.lock();
        let Book { tally, holders, .. } = &mut *book;
        let (record, id) = (found.record(), found.held().id());
        let usage = tally.usage(record, id);
        usage.answered(Outcome::Accepted, 1, now);
        let mut scopes = SmallVec::new();
        for scope in demand.scopes() {
            scopes.extend(usage.needed(scope, 1, || scope.into()).cloned());
        }
        let hash = caller.hash();
        let (known, who) = usage.callers.count(hash, Outcome::Accepted, 1, now, || caller.who());
        if known {
            let holder = Holder { record: record.clone(), id, caller: (hash, who.clone()), scopes };
            self.repeats.admit(holders, spot, key, now, holder, |holder, times, last| {
                add(tally, holder, times, last);
            });
        }
    }

    fn drain_into(&self, all: &mut Tally) {
        // Most of the time the same credentials come again: room for them, made while nobody waits for the lock.
        let expected = self.book.lock().tally.len();
        let fresh = Tally::with_capacity(expected);
        let taken = {
            let mut book = self.book.lock();
            book.unproved = 0;
            std::mem::replace(&mut book.tally, fresh)
        };
        all.merge(taken);
        let mut begin = 0;
        while self.repeats.settle(&mut self.book.lock().holders, begin, AT_ONCE, |holder, times, last| {
            add(all, holder, times, last);
        }) {
            begin += AT_ONCE;
        }
    }
}

impl Book {
    /// Counts a refusal, and who was refused. Whoever holds the credential does not lose their place to those who only know
    /// its id.
    fn refuse(&mut self, found: &Found, outcome: Outcome, caller: &Caller<'_>, now: i64) {
        let usage = self.tally.usage(found.record(), found.held().id());
        usage.answered(outcome, 1, now);
        if outcome.is_proved_refusal() {
            usage.refused.count(caller.hash(), outcome, 1, now, || caller.who());
        } else if self.unproved < UNPROVED_BETWEEN_DRAINS {
            let (known, _) = usage.unproved.count(caller.hash(), outcome, 1, now, || caller.who());
            self.unproved += usize::from(!known);
        }
    }

    /// Notes who sent a token that nobody knows.
    fn strange(&mut self, id: CredentialId, caller: &Caller<'_>, now: i64) {
        self.strangers.count(caller.hash(), Outcome::UnknownCredential, 1, now, || caller.who());
        self.stranger = Some((now, id));
    }
}

/// Adds what a cell has counted.
fn add(tally: &mut Tally, holder: &Holder, times: u64, last: i64) {
    let usage = tally.usage(&holder.record, holder.id);
    usage.answered(Outcome::Accepted, times, last);
    let (hash, who) = &holder.caller;
    usage.callers.count(*hash, Outcome::Accepted, times, last, || who.clone());
    for scope in &holder.scopes {
        usage.needed(scope, times, || scope.clone());
    }
}

#[cfg(test)]
mod tests;
