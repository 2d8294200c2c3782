//! What was counted of known credentials since the last drain.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::callers::{Addresses, Callers};
use super::record::Record;
use super::recorder::{Drained, OUTCOMES};
use crate::api::Outcome;
use crate::api::report::{
    CredentialUse, MAX_CALLERS, MAX_REFUSED, MAX_SCOPE, MAX_SCOPES, MAX_UNPROVED, OutcomeCount, ScopeUse,
};
use crate::domain::token::CredentialId;

/// By credential.
#[derive(Debug, Default)]
pub(super) struct Tally(HashMap<Key, Box<Usage>, BuildHasherDefault<KeyHasher>>);

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

/// How one credential was used.
#[derive(Debug)]
pub(super) struct Usage {
    record: Record,
    id: CredentialId,
    outcomes: [u64; OUTCOMES],
    first: i64,
    last: i64,
    pub(super) callers: Callers<MAX_CALLERS>,
    pub(super) refused: Callers<MAX_REFUSED>,
    pub(super) unproved: Callers<MAX_UNPROVED>,
    scopes: Vec<(Arc<str>, u64)>,
}

impl Tally {
    /// With room for so many credentials.
    pub(super) fn with_capacity(credentials: usize) -> Self {
        Self(HashMap::with_capacity_and_hasher(credentials, BuildHasherDefault::default()))
    }

    /// How many credentials were counted.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// That of one credential.
    pub(super) fn usage(&mut self, record: &Record, id: CredentialId) -> &mut Usage {
        let key = Key { id: id.number(), uid: record.uid_hash() };
        self.0.entry(key).or_insert_with(|| Box::new(Usage::new(record.clone(), id)))
    }

    /// Adds what was counted elsewhere.
    pub(super) fn merge(&mut self, other: Self) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (key, usage) in other.0 {
            match self.0.entry(key) {
                Entry::Occupied(mut known) => known.get_mut().merge(*usage),
                Entry::Vacant(free) => drop(free.insert(usage)),
            }
        }
    }

    /// As it is reported, by ApiToken, in no order.
    pub(super) fn report(self, addresses: Addresses) -> Vec<Drained> {
        let mut tokens: HashMap<u64, Drained> = HashMap::new();
        for (key, usage) in self.0 {
            let token = tokens.entry(key.uid).or_insert_with(|| Drained {
                uid: usage.record.uid().to_owned(),
                token: usage.record.token().to_owned(),
                credentials: Vec::with_capacity(1),
                scopes: Vec::new(),
            });
            usage.report(token, addresses);
        }
        tokens.into_values().collect()
    }
}

impl Usage {
    fn new(record: Record, id: CredentialId) -> Self {
        Self {
            record,
            id,
            outcomes: [0; OUTCOMES],
            first: 0,
            last: 0,
            callers: Callers::default(),
            refused: Callers::default(),
            unproved: Callers::default(),
            scopes: Vec::new(),
        }
    }

    /// Counts so many answers of one outcome; `last` is when the last of them was an accepted one.
    pub(super) fn answered(&mut self, outcome: Outcome, times: u64, last: i64) {
        self.outcomes[outcome.index() as usize] += times;
        if outcome == Outcome::Accepted {
            (self.first, self.last) = span((self.first, self.last), (last, last));
        }
    }

    /// Counts a scope that was needed so many times, and returns it as it is kept; those beyond the limit are not, as routes
    /// demand few.
    pub(super) fn needed(
        &mut self,
        scope: &str,
        times: u64,
        keep: impl FnOnce() -> Arc<str>,
    ) -> Option<&Arc<str>> {
        let at = match self.scopes.iter().position(|(known, _)| **known == *scope) {
            Some(at) => at,
            None if self.scopes.len() < MAX_SCOPES && scope.len() <= MAX_SCOPE => {
                self.scopes.push((keep(), 0));
                self.scopes.len() - 1
            }
            None => return None,
        };
        self.scopes[at].1 += times;
        Some(&self.scopes[at].0)
    }

    fn merge(&mut self, other: Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, count)| *sum += count);
        (self.first, self.last) = span((self.first, self.last), (other.first, other.last));
        self.callers.merge(other.callers);
        self.refused.merge(other.refused);
        self.unproved.merge(other.unproved);
        for (scope, times) in &other.scopes {
            self.needed(scope, *times, || scope.clone());
        }
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
            refused: self.refused.report(addresses),
            unproved: self.unproved.report(addresses),
        });
        for (scope, count) in self.scopes {
            match token.scopes.iter().position(|known| *known.scope == *scope) {
                Some(at) => token.scopes[at].count += count,
                None if token.scopes.len() < MAX_SCOPES => {
                    token.scopes.push(ScopeUse { scope: scope.to_string(), count });
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
