//! The decisions of a [`Reporter`]: what is sealed, what goes into the next report, when it is due, what a receipt settles.
//!
//! Times are those of a monotonic clock, counted from any moment. Of each token there is a sealed set, sent until it is
//! settled, and an open set, which takes in whatever is counted meanwhile, and of which the ledger holds a copy as it stood at
//! the last flush: a gate that dies loses one flush. Once a report fails, nobody knows which copy the ledger holds, so what is
//! open is sealed as it is. So however long the ledger is away, a gate holds at most a handful of sets for each token that
//! was used, each of at most 16 callers for a credential, and nothing is lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use super::set::Set;
use super::waiting::Waiting;
use crate::api::report::{CredentialUse, MAX_ENTRIES, Receipt, Report, Sealed};
use crate::gate::recorder::Drained;

/// Most bytes of the entries of one report: well below what gRPC servers take.
pub const MAX_BYTES: usize = 1 << 20;
/// With nothing to say, a sign of life is due after this.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between attempts.
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// A set that arrived and was not settled is sent again after this, then ever more rarely: the ledger may have been
/// unable to take it, for instance because it had not heard of the token yet.
const FIRST_AGAIN: Duration = Duration::from_secs(20);
/// The longest time after which it is sent again.
const LAST_AGAIN: Duration = Duration::from_secs(900);

/// Sealed sets of one token that wait. With so many, what is open is not sealed before a receipt, so the ledger must not keep
/// a copy of it: it is sent without a number, only to be believed.
const MAX_SEALED: usize = 4;

/// Who reports.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The gate's name.
    pub gate: String,
    /// When the process started, Unix milliseconds.
    pub epoch: u64,
}

/// What became of everything that was ever counted, in answers. `counted = settled + refused + forgotten + held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Taken from the recorder.
    pub counted: u64,
    /// Persisted by the ledger.
    pub settled: u64,
    /// Refused by it for good.
    pub refused: u64,
    /// Dropped: more credentials of one token than are kept, or of ApiTokens that are gone.
    pub forgotten: u64,
}

/// Sealed sets that came to their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many are persisted.
    pub settled: u64,
    /// Why others were refused, one word each.
    pub refused: Vec<String>,
}

/// What a gate still has to say. See the module.
#[derive(Debug)]
pub struct Reporter {
    identity: Identity,
    flush: Duration,
    /// The last report's number.
    sequence: u64,
    /// The last sealed set's number.
    seals: u64,
    tokens: HashMap<Arc<str>, Entry>,
    /// Sealed sets that this link was not sent, by number.
    unsent: BTreeMap<u64, Arc<str>>,
    /// Sealed sets that it was sent, by when they are sent again.
    again: BTreeMap<(Duration, u64), Arc<str>>,
    /// Tokens whose open set is not as this link was last sent it, in the order in which they changed.
    changed: BTreeMap<u64, Arc<str>>,
    /// The last change's number.
    changes: u64,
    sums: Sums,
    linked: bool,
    leaving: bool,
    failures: u32,
    /// No attempt before this.
    not_before: Duration,
    last_sent: Option<Duration>,
    /// The last report was full.
    full: bool,
}

#[derive(Debug, Default)]
struct Entry {
    /// In order of their numbers. One, usually: see [`MAX_SEALED`].
    sealed: Vec<Waiting>,
    /// Boxed: where a token is used once, there is none.
    open: Option<Box<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    set: Set,
    /// What it will be sealed with, once a copy of it was sent.
    number: Option<u64>,
    /// Its place among those that changed.
    changed: Option<u64>,
}

impl Entry {
    /// Answers in all its sets.
    fn held(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.set.total());
        self.sealed.iter().map(|waiting| waiting.answers).fold(open, u64::saturating_add)
    }
}

impl Reporter {
    /// One that has counted nothing. At most one report within each `flush`, unless there is more than fits in one.
    pub fn new(identity: Identity, flush: Duration) -> Self {
        Self {
            identity,
            flush,
            sequence: 0,
            seals: 0,
            tokens: HashMap::new(),
            unsent: BTreeMap::new(),
            again: BTreeMap::new(),
            changed: BTreeMap::new(),
            changes: 0,
            sums: Sums::default(),
            linked: false,
            leaving: false,
            failures: 0,
            not_before: Duration::ZERO,
            last_sent: None,
            full: false,
        }
    }

    /// Takes in what was counted.
    pub fn count(&mut self, drained: Drained) {
        let answers = CredentialUse::answers_of_all(&drained.credentials);
        if answers == 0 {
            return;
        }
        self.sums.counted = self.sums.counted.saturating_add(answers);
        let uid: Arc<str> = drained.uid.into();
        let entry = self.tokens.entry(Arc::clone(&uid)).or_default();
        let open = entry.open.get_or_insert_default();
        let forgotten = open.set.add(drained.credentials, drained.scopes);
        self.sums.forgotten = self.sums.forgotten.saturating_add(forgotten);
        if entry.sealed.is_empty() || self.leaving {
            self.seal(&uid);
        } else {
            self.mark(&uid);
        }
    }

    /// The open set of a token is to be copied.
    fn mark(&mut self, uid: &Arc<str>) {
        let open = self.tokens.get_mut(uid).and_then(|entry| entry.open.as_deref_mut());
        if let Some(open) = open.filter(|open| open.changed.is_none()) {
            self.changes += 1;
            open.changed = Some(self.changes);
            self.changed.insert(self.changes, Arc::clone(uid));
        }
    }

    /// Closes the open set of a token under a number.
    fn seal(&mut self, uid: &Arc<str>) {
        let Some(entry) = self.tokens.get_mut(uid) else { return };
        let Some(open) = entry.open.take().map(|open| *open) else { return };
        if let Some(place) = open.changed {
            self.changed.remove(&place);
        }
        let number = open.number.unwrap_or_else(|| {
            self.seals += 1;
            self.seals
        });
        let (set, rest) = open.set.seal(uid, number);
        self.unsent.insert(set.sequence, Arc::clone(uid));
        // One is the rule, and a vector that grows by itself begins with four.
        entry.sealed.reserve_exact(1);
        entry.sealed.push(Waiting::new(&set));
        entry.open = rest.map(|set| Box::new(Open { set, ..Open::default() }));
        self.mark(uid);
    }

    /// There is a ledger to report to, another than before. It is told everything.
    pub fn linked(&mut self, now: Duration) {
        self.linked = true;
        self.failures = 0;
        // A new leader must not hear from all gates in one moment.
        self.not_before = now + FIRST_PAUSE.mul_f64(self.fraction());
        self.start_over();
    }

    /// There is none.
    pub fn unlinked(&mut self) {
        self.linked = false;
    }

    /// A report did not arrive, or its receipt did not. Nobody knows what arrived: everything is sent again.
    pub fn failed(&mut self, now: Duration) {
        let copied = |entry: &Entry| {
            entry.sealed.len() < MAX_SEALED && entry.open.as_ref().is_some_and(|open| open.number.is_some())
        };
        let copied: Vec<_> =
            self.tokens.iter().filter(|(_, entry)| copied(entry)).map(|(uid, _)| Arc::clone(uid)).collect();
        copied.iter().for_each(|uid| self.seal(uid));
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(8)).min(LAST_PAUSE);
        // Spread by name, never longer than said.
        self.not_before = now + pause.mul_f64(1.0 - self.fraction() / 4.0);
        // Also a sign of life that did not arrive is due again.
        self.last_sent = None;
        self.start_over();
    }

    fn start_over(&mut self) {
        self.unsent.clear();
        self.again.clear();
        self.changed.clear();
        let mut marked = Vec::new();
        for (uid, entry) in &mut self.tokens {
            for waiting in &mut entry.sealed {
                (waiting.again, waiting.sent) = (None, 0);
                self.unsent.insert(waiting.sequence, Arc::clone(uid));
            }
            if let Some(open) = &mut entry.open {
                open.changed = None;
                marked.push(Arc::clone(uid));
            }
        }
        // In the order of their uids: numbers are given in the order in which copies are made.
        marked.sort_unstable();
        marked.iter().for_each(|uid| self.mark(uid));
    }

    /// The gate stops: what is open is sealed too, behind what is sealed already, so that nothing waits for a receipt that
    /// nobody is there to read.
    pub fn leave(&mut self, now: Duration) {
        self.leaving = true;
        self.not_before = self.not_before.min(now);
        let open: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, entry)| entry.open.is_some())
            .map(|(uid, _)| Arc::clone(uid))
            .collect();
        for uid in &open {
            // More than once only where there is more than one set may hold.
            while self.tokens.get(uid).is_some_and(|entry| entry.open.is_some()) {
                self.seal(uid);
            }
        }
        self.last_sent = None;
        self.start_over();
    }

    /// When the next report is due; `None` while there is no ledger. Not to be asked while one is under way.
    pub fn due(&self) -> Option<Duration> {
        if !self.linked {
            return None;
        }
        let Some(last) = self.last_sent else { return Some(self.not_before) };
        let news = [
            (!self.unsent.is_empty()).then_some(Duration::ZERO),
            self.again.first_key_value().map(|((due, _), _)| *due),
            (self.failures == 0 && !self.changed.is_empty()).then_some(Duration::ZERO),
        ];
        let pace = if self.full || self.leaving { Duration::ZERO } else { self.flush };
        let news = news.into_iter().flatten().min().map(|due| due.max(last + pace));
        let silence = if self.leaving { self.flush } else { SIGN_OF_LIFE.max(self.flush) };
        let sign_of_life = last + silence;
        Some(news.unwrap_or(sign_of_life).min(sign_of_life).max(self.not_before))
    }

    /// The next report.
    pub fn report(&mut self, now: Duration, observing_since: i64) -> Report {
        self.sequence += 1;
        self.last_sent = Some(now);
        while let Some(first) = self.again.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, sequence), uid) = first.remove_entry();
            self.unsent.insert(sequence, uid);
        }
        let mut room = MAX_BYTES;
        let sealed = self.next_sealed(now, &mut room);
        let open = self.next_open(&mut room);
        self.full = !self.unsent.is_empty() || self.failures == 0 && !self.changed.is_empty();
        Report {
            gate: self.identity.gate.clone(),
            epoch: self.identity.epoch,
            sequence: self.sequence,
            observing_since,
            leaving: self.leaving,
            sealed,
            open,
            more: !self.unsent.is_empty() || !self.changed.is_empty(),
        }
    }

    fn next_sealed(&mut self, now: Duration, room: &mut usize) -> Vec<Sealed> {
        let mut sealed = Vec::new();
        while sealed.len() < MAX_ENTRIES {
            let Some(next) = self.unsent.first_entry() else { break };
            let (sequence, entry) = (*next.key(), self.tokens.get_mut(next.get()));
            let waiting =
                entry.and_then(|entry| entry.sealed.iter_mut().find(|waiting| waiting.sequence == sequence));
            let Some(waiting) = waiting else {
                next.remove();
                continue;
            };
            // The first one goes in any case: a set is far smaller than what a server takes.
            let bytes = waiting.bytes();
            if bytes > *room && !sealed.is_empty() {
                break;
            }
            *room = room.saturating_sub(bytes);
            let pause = match self.leaving {
                // Nobody is here to send it later.
                true => self.flush,
                false => FIRST_AGAIN.saturating_mul(3_u32.saturating_pow(waiting.sent)).min(LAST_AGAIN),
            };
            waiting.sent = waiting.sent.saturating_add(1);
            waiting.again = Some(now + pause);
            sealed.extend(waiting.set());
            let uid = next.remove();
            self.again.insert((now + pause, sequence), uid);
        }
        sealed
    }

    /// Copies of open sets. While reports fail, none: each would have to be sealed.
    fn next_open(&mut self, room: &mut usize) -> Vec<Sealed> {
        let mut copies: Vec<Sealed> = Vec::new();
        while self.failures == 0 && copies.len() < MAX_ENTRIES {
            let Some((_, uid)) = self.changed.first_key_value() else { break };
            let uid = Arc::clone(uid);
            let entry = self.tokens.get_mut(&uid);
            let crowded = entry.as_ref().is_some_and(|entry| entry.sealed.len() >= MAX_SEALED);
            if let Some(open) = entry.and_then(|entry| entry.open.as_deref_mut()) {
                let number = match open.number {
                    Some(number) => number,
                    None if crowded => 0,
                    None => {
                        self.seals += 1;
                        *open.number.insert(self.seals)
                    }
                };
                let (copy, _) = open.set.clone().seal(&uid, number);
                let bytes = copy.encoded_len();
                if bytes > *room && !copies.is_empty() {
                    break;
                }
                *room = room.saturating_sub(bytes);
                copies.push(copy);
                open.changed = None;
            }
            self.changed.pop_first();
        }
        copies
    }

    /// What the ledger says to a report that arrived. Sets of other numbers than those that wait are of the past.
    pub fn receipt(&mut self, receipt: &Receipt) -> Ended {
        self.failures = 0;
        let mut ended = Ended::default();
        for settled in &receipt.settled {
            let Some((uid, _)) = self.tokens.get_key_value(settled.token.as_str()) else { continue };
            let uid = Arc::clone(uid);
            let Some(entry) = self.tokens.get_mut(&uid) else { continue };
            let at = entry.sealed.iter().position(|waiting| waiting.sequence == settled.sequence);
            let Some(at) = at else { continue };
            let waiting = entry.sealed.remove(at);
            self.unsent.remove(&settled.sequence);
            if let Some(again) = waiting.again {
                self.again.remove(&(again, settled.sequence));
            }
            let answers = waiting.answers;
            let sum = if settled.refused.is_empty() {
                ended.settled += 1;
                &mut self.sums.settled
            } else {
                ended.refused.push(settled.refused.clone());
                &mut self.sums.refused
            };
            *sum = sum.saturating_add(answers);
            match (entry.sealed.is_empty(), &entry.open) {
                (true, Some(_)) => self.seal(&uid),
                (true, None) => drop(self.tokens.remove(&uid)),
                // A copy was sent that could not be kept: see [`MAX_SEALED`].
                (false, Some(open)) if open.number.is_none() => self.mark(&uid),
                (false, _) => {}
            }
        }
        ended
    }

    /// Drops what is counted of tokens that nobody knows any more. Not while a ledger listens: it refuses them itself.
    pub fn forget(&mut self, known: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.tokens.keys().filter(|uid| !known(uid)).cloned().collect();
        for uid in gone {
            let Some(entry) = self.tokens.remove(&uid) else { continue };
            self.sums.forgotten = self.sums.forgotten.saturating_add(entry.held());
            for waiting in &entry.sealed {
                self.unsent.remove(&waiting.sequence);
                if let Some(again) = waiting.again {
                    self.again.remove(&(again, waiting.sequence));
                }
            }
            if let Some(place) = entry.open.and_then(|open| open.changed) {
                self.changed.remove(&place);
            }
        }
    }

    /// Whether everything that is known has been said to this ledger, and none of it failed to arrive.
    pub fn is_said(&self) -> bool {
        self.unsent.is_empty() && self.tokens.values().all(|entry| entry.open.is_none())
    }

    /// How many tokens have counts that are not settled.
    pub fn unsettled(&self) -> usize {
        self.tokens.len()
    }

    /// What became of everything so far.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// Answers that are held: sealed or open.
    pub fn held(&self) -> u64 {
        self.tokens.values().map(Entry::held).fold(0, u64::saturating_add)
    }

    /// Between 0 and 1, by the gate's name and how often it failed: gates spread out without chance.
    fn fraction(&self) -> f64 {
        let mut hash = crc32fast::Hasher::new();
        hash.update(self.identity.gate.as_bytes());
        hash.update(&self.failures.to_le_bytes());
        f64::from(hash.finalize()) / f64::from(u32::MAX)
    }
}
