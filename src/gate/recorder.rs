//! Counts every answer, per core, until somebody takes the counts away.
//!
//! Each thread counts in a stripe of its own, behind a lock that nobody else wants but the drain, which takes a stripe's
//! counts away whole: it costs what was used, not what exists, and holds the lock for a moment. What is counted is
//! drained exactly once, whether or not the credential is still in the index.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::callers::{Addresses, Caller, Callers};
use super::demand::Demand;
use super::metrics::{Dialect, Durations};
use super::record::Record;
use super::verdict::Verdict;
use crate::api::Outcome;
use crate::api::report::{CredentialUse, MAX_SCOPE, MAX_SCOPES, OutcomeCount, ScopeUse};
use crate::domain::token::CredentialId;

/// How many outcomes there are.
pub(super) const OUTCOMES: usize = Outcome::ALL.len();

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
    stripes: Box<[Padded]>,
    addresses: Addresses,
}

/// Alone on its cache lines: neighbours would slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(Mutex<Stripe>);

#[derive(Debug, Default)]
struct Stripe {
    totals: Totals,
    used: HashMap<Key, Box<Usage>, BuildHasherDefault<KeyHasher>>,
}

/// A credential of one ApiToken: an id that changes hands is counted for each hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    id: u64,
    uid: u64,
}

/// Multiplies and folds: the two numbers of a key are random already.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

#[derive(Debug)]
struct Usage {
    record: Arc<Record>,
    id: CredentialId,
    outcomes: [u64; OUTCOMES],
    first: i64,
    last: i64,
    callers: Callers,
    scopes: Vec<(Box<str>, u64)>,
}

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// This thread's number.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    STRIPE.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1));
        }
        own.get()
    })
}

impl Recorder {
    /// With a stripe for each of `threads` that answer; more threads share them.
    pub fn new(threads: usize, addresses: Addresses) -> Self {
        let stripes = threads.clamp(1, 256).next_power_of_two();
        Self { stripes: (0..stripes).map(|_| Padded::default()).collect(), addresses }
    }

    /// How much of addresses is kept.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    fn stripe(&self) -> &Mutex<Stripe> {
        &self.stripes[thread_number() & (self.stripes.len() - 1)].0
    }

    /// Counts one answer. Allocates only for a credential or a caller that was not seen since the last drain.
    pub fn record(
        &self,
        dialect: Dialect,
        verdict: &Verdict,
        demand: &Demand<'_>,
        caller: &Caller<'_>,
        now: i64,
    ) {
        let mut stripe = self.stripe().lock();
        let outcome = verdict.outcome().index() as usize;
        stripe.totals.answers[dialect as usize][outcome] += 1;
        // What concerns no known token is counted in total only: a flood of unknown ids takes no memory.
        let Some(found) = verdict.found() else { return };
        let (record, id) = (found.record(), found.held().id());
        let key = Key { id: id.number(), uid: record.uid_hash() };
        let usage = stripe.used.entry(key).or_insert_with(|| Box::new(Usage::new(record, id)));
        usage.outcomes[outcome] += 1;
        if verdict.is_accepted() {
            let caller = Caller { address: self.addresses.keep(caller.address), ..*caller };
            usage.accepted(demand, &caller, now);
        }
    }

    /// Counts how long an answer took, from the request's last byte to the answer's first.
    pub fn took(&self, dialect: Dialect, duration: Duration) {
        self.stripe().lock().totals.durations[dialect as usize].add(duration);
    }

    /// Takes away what was counted since the last drain, by ApiToken, in no order.
    pub fn drain(&self) -> Vec<Drained> {
        let mut merged: HashMap<Key, Box<Usage>, BuildHasherDefault<KeyHasher>> = HashMap::default();
        for stripe in &self.stripes {
            // Most of the time the same credentials come again: room for them, made while nobody waits for the lock.
            let expected = stripe.0.lock().used.len();
            let fresh = HashMap::with_capacity_and_hasher(expected, BuildHasherDefault::default());
            let taken = std::mem::replace(&mut stripe.0.lock().used, fresh);
            if merged.is_empty() {
                merged = taken;
                continue;
            }
            for (key, usage) in taken {
                match merged.entry(key) {
                    std::collections::hash_map::Entry::Occupied(mut known) => known.get_mut().merge(*usage),
                    std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(usage)),
                }
            }
        }
        let mut tokens: HashMap<u64, Drained> = HashMap::new();
        for (key, usage) in merged {
            let token = tokens.entry(key.uid).or_insert_with(|| Drained {
                uid: usage.record.uid().to_owned(),
                token: usage.record.token().to_owned(),
                credentials: Vec::with_capacity(1),
                scopes: Vec::new(),
            });
            usage.report(token, self.addresses);
        }
        tokens.into_values().collect()
    }

    /// All counts since the start.
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for stripe in &self.stripes {
            let stripe = stripe.0.lock();
            let answers = sum.answers.iter_mut().flatten();
            answers.zip(stripe.totals.answers.iter().flatten()).for_each(|(sum, count)| *sum += count);
            let durations = sum.durations.iter_mut();
            durations.zip(&stripe.totals.durations).for_each(|(sum, counted)| sum.merge(counted));
        }
        sum
    }
}

impl Usage {
    fn new(record: &Arc<Record>, id: CredentialId) -> Self {
        Self {
            record: Arc::clone(record),
            id,
            outcomes: [0; OUTCOMES],
            first: 0,
            last: 0,
            callers: Callers::default(),
            scopes: Vec::new(),
        }
    }

    fn accepted(&mut self, demand: &Demand<'_>, caller: &Caller<'_>, now: i64) {
        (self.first, self.last) = span((self.first, self.last), (now, now));
        self.callers.count(caller, now);
        for scope in demand.scopes() {
            count_scope(&mut self.scopes, scope, 1);
        }
    }

    fn merge(&mut self, other: Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, count)| *sum += count);
        (self.first, self.last) = span((self.first, self.last), (other.first, other.last));
        self.callers.merge(other.callers);
        other.scopes.iter().for_each(|(scope, count)| count_scope(&mut self.scopes, scope, *count));
    }

    fn report(self, token: &mut Drained, addresses: Addresses) {
        let outcomes = Outcome::ALL.iter().zip(self.outcomes).filter(|(_, count)| *count > 0);
        token.credentials.push(CredentialUse {
            credential: self.id.to_string(),
            outcomes: outcomes
                .map(|(outcome, count)| OutcomeCount { outcome: outcome.index(), count })
                .collect(),
            first_used: self.first,
            last_used: self.last,
            callers: self.callers.report(addresses),
        });
        for (scope, count) in self.scopes {
            match token.scopes.iter().position(|known| *known.scope == *scope) {
                Some(at) => token.scopes[at].count += count,
                None if token.scopes.len() < MAX_SCOPES => {
                    token.scopes.push(ScopeUse { scope: scope.into(), count });
                }
                None => {}
            }
        }
    }
}

/// The span of two spans of time; (0, 0) is none.
fn span(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    match (a, b) {
        ((0, 0), other) | (other, (0, 0)) => other,
        _ => (a.0.min(b.0), a.1.max(b.1)),
    }
}

/// Routes demand few scopes; those beyond the limit are not kept.
fn count_scope(scopes: &mut Vec<(Box<str>, u64)>, scope: &str, count: u64) {
    match scopes.iter().position(|(known, _)| **known == *scope) {
        Some(at) => scopes[at].1 += count,
        None if scopes.len() < MAX_SCOPES && scope.len() <= MAX_SCOPE => scopes.push((scope.into(), count)),
        None => {}
    }
}

#[cfg(test)]
mod tests;
