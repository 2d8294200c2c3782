//! What the desk holds of one token.

use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHasher;
use k8s_openapi::jiff::Timestamp;

use super::super::check::{Set, Use};
use super::super::pace::Pace;
use crate::api::Outcome;
use crate::api::report::{CallerUse, Sealed};
use crate::domain::directory::Claimant;
use crate::domain::usage::Persisted;

/// Sealed sets of one gate for one token: one is usual; a process that restarted leaves one behind.
const MAX_PER_GATE: usize = 4;

/// A sealed set that is not persisted yet.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Who sent it.
    pub gate: Arc<str>,
    /// Which process.
    pub epoch: i64,
    /// The counts.
    pub sealed: Arc<Sealed>,
    /// When it arrived (monotonic).
    pub since: Duration,
}

impl Waiting {
    /// Whether this is the same set.
    pub fn is(&self, other: &Self) -> bool {
        (&self.gate, self.epoch, self.sealed.sequence) == (&other.gate, other.epoch, other.sealed.sequence)
    }
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing waits.
    Idle,
    /// In the queue of those that are to be seen at once, ready at this moment.
    Urgent(Duration),
    /// In the queue of the others, due at this moment.
    Due(Duration),
    /// Being persisted.
    InFlight,
}

/// What became of a sealed set that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It waits.
    Taken,
    /// It waited already.
    Known,
    /// It is persisted already.
    Settled,
    /// A lower sequence than one seen before.
    Backwards,
    /// Too many wait.
    TooMany,
}

/// The last sets of one gate that are persisted: as many as may wait at a time.
#[derive(Debug)]
struct Persistent {
    gate: Arc<str>,
    epoch: i64,
    /// In their order; never empty.
    sequences: Vec<u64>,
}

impl Persistent {
    fn last(&self) -> (i64, u64) {
        (self.epoch, self.sequences.last().copied().unwrap_or(0))
    }
}

/// One token.
#[derive(Debug)]
pub struct Entry {
    /// The ApiToken.
    pub claimant: Claimant,
    /// Sets that wait, in order of (gate, epoch, sequence).
    pub sets: Vec<Waiting>,
    /// Copies of sets that gates have not sealed: one for each gate.
    pub open: Vec<Waiting>,
    /// The last sets of each gate that are persisted.
    settled: Vec<Persistent>,
    /// Last uses as far as they were reported.
    pub live: BTreeMap<String, Timestamp>,
    /// What this leader persisted last.
    pub persisted: Option<Persisted>,
    /// The callers in it, hashed; `None` until this leader has read them.
    callers: Option<HashSet<u64>>,
    /// When a new caller was last shown at once, and the pause before the next may be.
    caller_pace: (Duration, Duration),
    /// When a later use was last heard of.
    used: Option<Duration>,
    /// When anything was last heard of.
    pub heard: Duration,
    /// When it was last persisted.
    pub written: Option<Duration>,
    /// The pause that follows.
    pub pause: Duration,
    /// Since when it waits to be shown at once.
    pub urgent: Option<Duration>,
    /// Failures in a row.
    pub failures: u32,
    /// Not before this, after a failure.
    pub retry: Duration,
    /// Where it stands.
    pub place: Place,
}

impl Entry {
    /// A token that was not heard of before.
    pub fn of(set: &Set, now: Duration) -> Self {
        Self {
            claimant: set.claimant.clone(),
            sets: Vec::new(),
            open: Vec::new(),
            settled: Vec::new(),
            live: BTreeMap::new(),
            persisted: None,
            callers: None,
            caller_pace: (Duration::ZERO, Duration::ZERO),
            used: None,
            heard: now,
            written: None,
            pause: Duration::ZERO,
            urgent: None,
            failures: 0,
            retry: Duration::ZERO,
            place: Place::Idle,
        }
    }

    /// Takes a sealed set in, unless it is known. Uses are noted separately.
    pub fn offer(&mut self, gate: &Arc<str>, epoch: i64, sealed: &Arc<Sealed>, now: Duration) -> Offer {
        let key = (epoch, sealed.sequence);
        match self.settled.iter().find(|settled| settled.gate == *gate) {
            Some(settled) if settled.epoch == epoch && settled.sequences.contains(&sealed.sequence) => {
                return Offer::Settled;
            }
            Some(settled) if settled.last() > key => return Offer::Backwards,
            _ => {}
        }
        let mut own = self.sets.iter().filter(|set| set.gate == *gate);
        match own.clone().map(|set| (set.epoch, set.sealed.sequence)).max() {
            Some(last) if last == key => return Offer::Known,
            Some(last) if last > key => {
                let known = own.any(|set| (set.epoch, set.sealed.sequence) == key);
                return if known { Offer::Known } else { Offer::Backwards };
            }
            _ if own.count() >= MAX_PER_GATE => return Offer::TooMany,
            _ => {}
        }
        self.open.retain(|open| open.gate != *gate || (open.epoch, open.sealed.sequence) > key);
        let set = Waiting { gate: gate.clone(), epoch, sealed: sealed.clone(), since: now };
        self.sets.push(set);
        self.sets.sort_by(|a, b| {
            let key = |set: &Waiting| (set.gate.clone(), set.epoch, set.sealed.sequence);
            key(a).cmp(&key(b))
        });
        Offer::Taken
    }

    /// Keeps the copy of an open set, in place of an older one. One that is sealed or settled already is history.
    pub fn hold(&mut self, copy: Waiting) {
        let key = (copy.epoch, copy.sealed.sequence);
        let sealed = self.sets.iter().map(|set| (&set.gate, (set.epoch, set.sealed.sequence)));
        let settled = self.settled.iter().map(|settled| (&settled.gate, settled.last()));
        if sealed.chain(settled).any(|(gate, known)| *gate == copy.gate && known >= key) {
            return;
        }
        self.open.retain(|open| open.gate != copy.gate);
        self.open.push(copy);
    }

    /// The gate is gone: what it left open waits with the sealed sets.
    pub fn adopt(&mut self, gate: &Arc<str>, now: Duration) {
        for copy in self.open.extract_if(.., |open| open.gate == *gate).collect::<Vec<_>>() {
            self.offer(&copy.gate, copy.epoch, &copy.sealed, now);
        }
    }

    /// These sets are persisted.
    pub fn settle(&mut self, sets: &[Waiting]) {
        for set in sets {
            self.sets.retain(|other| !other.is(set));
            match self.settled.iter_mut().find(|settled| settled.gate == set.gate) {
                Some(settled) if settled.epoch == set.epoch => {
                    settled.sequences.push(set.sealed.sequence);
                    settled.sequences.sort_unstable();
                    let surplus = settled.sequences.len().saturating_sub(MAX_PER_GATE);
                    settled.sequences.drain(..surplus);
                }
                Some(settled) if settled.epoch > set.epoch => {}
                Some(settled) => (settled.epoch, settled.sequences) = (set.epoch, vec![set.sealed.sequence]),
                None => self.settled.push(Persistent {
                    gate: set.gate.clone(),
                    epoch: set.epoch,
                    sequences: vec![set.sealed.sequence],
                }),
            }
        }
    }

    /// Forgets how far gates came that are not there any more.
    pub fn forget_gates(&mut self, there: impl Fn(&str) -> bool) {
        self.settled.retain(|settled| there(&settled.gate));
    }

    /// Notes when credentials were used. Says whether that is to be seen at once: a first use, or one after a long quiet.
    pub fn note(
        &mut self,
        uses: &[Use],
        shown: Option<Timestamp>,
        pace: &Pace,
        now: (Duration, Timestamp),
    ) -> bool {
        let (mono, wall) = now;
        if mono.saturating_sub(self.heard) > pace.interval {
            self.pause = Duration::ZERO;
        }
        self.heard = mono;
        let mut urgent = false;
        for used in uses {
            let known = self.live.get(&used.credential);
            let persisted =
                self.persisted.as_ref().is_some_and(|all| all.credentials.contains_key(&used.credential));
            let waits = self.sets.iter().flat_map(|set| &set.sealed.credentials);
            let mut waits = waits.filter(|waiting| waiting.last_used > 0);
            urgent |=
                !used.shown && !persisted && !waits.any(|waiting| waiting.credential == used.credential);
            if known.is_some_and(|known| *known >= used.at) {
                continue;
            }
            urgent |= match self.used {
                Some(last) => mono.saturating_sub(last) > pace.interval,
                // A new leader knows from the status how long it had been quiet.
                None => shown.is_none_or(|last| wall.duration_since(last).unsigned_abs() > pace.interval),
            };
            self.used = Some(mono);
            self.live.insert(used.credential.clone(), used.at);
        }
        urgent
    }

    /// Whether a set names a caller that is not known, and may be seen at once because of it. Who sends another user agent with
    /// each request must not have the budget to himself, so that becomes rarer as long as it goes on.
    pub fn has_new_caller(&mut self, set: &Set, pace: &Pace, now: Duration) -> bool {
        let Some(known) = &self.callers else { return false };
        let all = set.sealed.credentials.iter();
        // Who holds a credential that is refused is news too; who only sends its id is not.
        let mut all = all.flat_map(|used| {
            let callers = used.callers.iter().chain(&used.refused);
            callers.map(move |caller| (&used.credential, caller))
        });
        let new = all.any(|(credential, caller)| {
            let outcome = Outcome::from_index(caller.outcome).map_or("", Outcome::as_str);
            let CallerUse { address, principal, user_agent, .. } = caller;
            !known.contains(&fingerprint(credential, outcome, address, principal, user_agent))
        });
        let (last, pause) = self.caller_pace;
        let passed = now.saturating_sub(last);
        if !new || passed < pause {
            return false;
        }
        let quiet = passed > pace.interval * 2;
        self.caller_pace = (now, pace.pause_after(if quiet { Duration::ZERO } else { pause }));
        true
    }

    /// Learns which callers are persisted.
    pub fn knows_callers(&mut self, callers: HashSet<u64>) {
        self.callers = Some(callers);
    }

    /// When it should be persisted next, ahead of failures.
    pub fn due(&self, pace: &Pace, now: Duration) -> Duration {
        let pause = if self.pause.is_zero() { pace.first() } else { self.pause };
        (self.written.unwrap_or(now) + pause).max(now)
    }
}

/// Tells callers apart without holding their names.
pub fn fingerprint(credential: &str, outcome: &str, address: &str, principal: &str, user_agent: &str) -> u64 {
    // Without a random key: a replayed simulation must not differ.
    let mut hasher = AHasher::default();
    (credential, outcome, address, principal, user_agent).hash(&mut hasher);
    hasher.finish()
}
