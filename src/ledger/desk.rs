//! Where reports arrive and writes are decided: what waits, for whom, and which token is persisted next.
//!
//! One desk lasts for one term of leadership. It does no IO and reads no clock. Sealed sets wait here until they are persisted;
//! only then are they settled. A desk that is lost with its process loses nothing that was settled: gates send the rest again.
//!
//! **Pace.** A first use of a token or a credential, a caller that was not seen before, and a use after a long quiet are
//! persisted at once. While a token stays busy, its pauses double up to the interval. All of it spends one budget that counts
//! every write: that of the TokenUsage, and the one of the ApiToken's status that follows from it. When more tokens are
//! active than the budget carries, those that are to be seen at once go first, then whoever has waited longest; so the
//! pauses of all stretch alike.
//!
//! **Gates that die.** Of what a gate has not sealed, a copy waits here too. It counts when the gate's process is known to be
//! gone: another runs under its name, or it has been silent for [`GRACE`] without a goodbye.
//!
//! **Looks.** When it changes what may be concluded from silence, every token needs a look. What those looks find to tell
//! is told within the same budget, from a purse of its own.

mod entry;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use self::entry::{Entry, Offer, Place};
pub use self::entry::{Waiting, fingerprint};
use super::check::{Checked, Judged, Refusal, Set};
use super::pace::Pace;
use crate::api::report::{Receipt, Refused, Settled};
use crate::domain::coverage::{Coverage, GRACE, Watched};
use crate::domain::directory::{Claimant, Directory};
use crate::domain::lease::Moment;
use crate::domain::token::CredentialId;
use crate::domain::usage::Persisted;
use crate::platform::budget::Budget;

/// Tokens that are persisted at the same time.
pub const IN_FLIGHT: usize = 8;
/// How long a token or credential that this process does not know is waited for: its watch may lag behind the gate's.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// How long a set that was not taken is remembered: longer than a gate waits before it sends it again.
const REMEMBER: Duration = Duration::from_secs(2_000);
/// Sets that were not taken and are remembered; of others it is not known for how long they have waited.
const MAX_PASSED_OVER: usize = 4_096;
/// Receipts that wait for one gate; beyond that it learns of them by sending the set again.
const MAX_RECEIPTS: usize = 20_000;
/// Receipts in one answer, besides those of the sets that were sent.
const RECEIPTS: usize = 2_000;
/// How often the desk looks at the time by itself.
pub const TICK: Duration = Duration::from_secs(15);

/// What to do next.
#[derive(Debug)]
pub enum Command {
    /// Persist what waits for a token, then say [`Desk::done`].
    Persist(Job),
    /// Look at every ApiToken: what silence means has changed.
    LookAtAll,
}

/// What waits for one token.
#[derive(Clone, Debug)]
pub struct Job {
    /// The ApiToken.
    pub claimant: Claimant,
    /// Sealed sets, in order of (gate, epoch, sequence).
    pub sets: Vec<Waiting>,
    /// Last uses that were reported, sealed or not.
    pub live: BTreeMap<String, Timestamp>,
    urgent: Option<Duration>,
}

/// How a [`Job`] ended.
#[derive(Debug)]
pub enum Outcome {
    /// It is persisted.
    Written {
        /// What stands in the TokenUsage now.
        summary: Persisted,
        /// The callers in it, as [`fingerprint`]s.
        callers: HashSet<u64>,
        /// Sets that are not in it: of a process that came before another one of the same name.
        outdated: Vec<Waiting>,
    },
    /// There is no such ApiToken any more.
    Gone,
    /// Not this time. `everywhere`: the API server does not answer, so it is no use to try another token.
    Failed {
        /// Whether all tokens are concerned.
        everywhere: bool,
    },
}

/// The answer to a report, and what was not counted.
#[derive(Debug, Default)]
pub struct Answer {
    /// To the gate.
    pub receipt: Receipt,
    /// For the metrics.
    pub refused: Vec<Refused>,
}

/// A sealed set: gate, uid of the token, number.
type Key = (Arc<str>, String, u64);

/// What became of a sealed set in a report.
enum Taken {
    /// It waits to be persisted.
    Waits,
    /// It came to its end.
    Settled(Settled),
    /// It is not taken this time; the gate sends it again.
    Not,
}

#[derive(Debug, Default)]
struct Gate {
    epoch: i64,
    sequence: u64,
    leaving: bool,
    /// When it was last heard.
    heard: Duration,
    receipts: Vec<Settled>,
}

/// What there is to tell about a desk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Sealed sets that wait.
    pub sets: usize,
    /// Since when the oldest of them has waited (monotonic).
    pub oldest: Option<Duration>,
    /// Gates that are taken to be alive.
    pub gates: usize,
    /// Tokens that wait to be persisted.
    pub tokens: usize,
    /// How much longer than its pace the last busy tokens had to wait.
    pub stretch: f64,
}

/// The desk of one term.
#[derive(Debug)]
pub struct Desk {
    pace: Pace,
    budget: Arc<Mutex<Budget>>,
    coverage: Coverage,
    listening_since: Timestamp,
    gates: BTreeMap<Arc<str>, Gate>,
    tokens: BTreeMap<Arc<str>, Entry>,
    urgent: BTreeSet<(Duration, Arc<str>)>,
    due: BTreeSet<(Duration, Arc<str>)>,
    in_flight: usize,
    /// Every token needs a look.
    look_at_all: bool,
    announced: Option<Watched>,
    /// Sets that were not taken: when they were first and last seen.
    passed_over: BTreeMap<Key, (Duration, Duration)>,
    stretch: f64,
    brake: Option<(Duration, Duration)>,
    swept: Duration,
}

impl Desk {
    /// A desk that opens at `now`, with the coverage that the predecessor left. `budget` goes by the monotonic time of `now`.
    pub fn new(pace: Pace, budget: Arc<Mutex<Budget>>, coverage: Coverage, now: Moment) -> Self {
        Self {
            pace,
            budget,
            coverage,
            listening_since: now.wall,
            gates: BTreeMap::new(),
            tokens: BTreeMap::new(),
            urgent: BTreeSet::new(),
            due: BTreeSet::new(),
            in_flight: 0,
            look_at_all: false,
            announced: None,
            passed_over: BTreeMap::new(),
            stretch: 1.0,
            brake: None,
            swept: now.mono,
        }
    }

    /// Takes a report in and answers it.
    pub fn report(&mut self, report: Checked, now: Moment) -> Result<Answer, Refusal> {
        let known = self.gates.get(&report.gate).map(|gate| (gate.epoch, gate.sequence));
        if known.is_some_and(|known| (report.epoch, report.sequence) < known) {
            if known.is_some_and(|(epoch, _)| report.epoch < epoch) {
                // Two that live may share the name. A late report of the same process says nothing that is not known.
                self.turned_away(now.wall);
            }
            return Err(Refusal::Outdated);
        }
        let room = match report.more {
            true => self.coverage.reported_in_part(&report.gate, now.wall),
            false => self.coverage.reported(&report.gate, report.observing_since, now.wall),
        };
        if !room {
            self.turned_away(now.wall);
            return Err(Refusal::TooManyGates);
        }
        if known.is_some_and(|(epoch, _)| epoch < report.epoch) {
            self.adopt(&report.gate, report.epoch, now.mono);
            // Nobody sends them again.
            self.passed_over.retain(|(gate, ..), _| *gate != report.gate);
        }
        let gate = self.gates.entry(report.gate.clone()).or_default();
        gate.heard = now.mono;
        if gate.epoch != report.epoch {
            *gate = Gate { epoch: report.epoch, heard: now.mono, ..Gate::default() };
        }
        gate.sequence = report.sequence;
        let goodbye = report.leaving && !gate.leaving;
        gate.leaving = report.leaving;
        let hurries = goodbye || report.leaving && !report.sealed.is_empty();
        let queued = gate.receipts.len().min(RECEIPTS);
        let mut answer = Answer::default();
        answer.receipt.settled = gate.receipts.drain(..queued).collect();
        for judged in report.sealed {
            let key = (report.gate.clone(), judged.token().to_owned(), judged.sequence());
            match self.judged(&key, report.epoch, judged, &mut answer.refused, now) {
                Taken::Waits => drop(self.passed_over.remove(&key)),
                Taken::Settled(settled) => {
                    self.passed_over.remove(&key);
                    answer.receipt.settled.push(settled);
                }
                Taken::Not => self.pass_over(key, now.mono),
            }
        }
        for judged in report.open {
            // One that cannot be counted is said so once it is sealed.
            self.believe(&judged, now);
            if let Judged::Good(set) = judged {
                self.hold(&report.gate, report.epoch, set, now.mono);
            }
        }
        if report.leaving && !report.more {
            self.coverage.left(&report.gate);
        }
        if hurries {
            self.hurry(&report.gate, now);
        }
        Ok(answer)
    }

    /// A gate that lives was turned away, whatever it had to say.
    pub fn turned_away(&mut self, now: Timestamp) {
        self.coverage.turned_away(now);
    }

    /// Takes in one sealed set.
    fn judged(
        &mut self,
        key: &Key,
        epoch: i64,
        judged: Judged,
        refused: &mut Vec<Refused>,
        now: Moment,
    ) -> Taken {
        let (gate, token, sequence) = key;
        // What is unknown may be new.
        let since = self.passed_over.get(key).map_or(now.mono, |(first, _)| *first);
        let early = matches!(judged, Judged::Unknown(..)) && now.mono.saturating_sub(since) < UNKNOWN_FOR;
        if early || self.overtakes(key) {
            self.believe(&judged, now);
            return Taken::Not;
        }
        let settled = |why: Refused| {
            Taken::Settled(Settled {
                token: token.clone(),
                sequence: *sequence,
                refused: why.as_str().to_owned(),
            })
        };
        match judged {
            Judged::Good(set) => self.take(gate, epoch, set, refused, now),
            Judged::NotYet(.., why) => {
                refused.push(why);
                Taken::Not
            }
            Judged::Never(.., why) => {
                refused.push(why);
                settled(why)
            }
            Judged::Unknown(.., why, rest) => {
                refused.push(why);
                match rest {
                    Some(set) => self.take(gate, epoch, set, refused, now),
                    None => settled(why),
                }
            }
        }
    }

    /// Remembers a set that is not taken this time.
    fn pass_over(&mut self, key: Key, now: Duration) {
        if let Some((_, last)) = self.passed_over.get_mut(&key) {
            *last = now;
        } else if self.passed_over.len() < MAX_PASSED_OVER {
            self.passed_over.insert(key, (now, now));
        }
    }

    fn take(
        &mut self,
        gate: &Arc<str>,
        epoch: i64,
        set: Set,
        refused: &mut Vec<Refused>,
        now: Moment,
    ) -> Taken {
        let (uid, entry) = entry_of(&mut self.tokens, &set, now.mono);
        let soon = entry.note(&set.used, set.shown, &self.pace, (now.mono, now.wall));
        let settled = |why: &str| {
            Taken::Settled(Settled {
                token: set.claimant.uid.clone(),
                sequence: set.sealed.sequence,
                refused: why.to_owned(),
            })
        };
        match entry.offer(gate, epoch, &set.sealed, now.mono) {
            Offer::Taken => {}
            Offer::Known => return Taken::Waits,
            Offer::Settled => return settled(""),
            Offer::Backwards => {
                refused.push(Refused::Backwards);
                return settled(Refused::Backwards.as_str());
            }
            Offer::TooMany => {
                refused.push(Refused::TooMuch);
                if soon {
                    self.hasten(&uid, now.mono);
                }
                return Taken::Not;
            }
        }
        refused.extend(std::iter::repeat_n(Refused::UnknownOutcome, set.unknown_outcomes));
        match soon || entry.has_new_caller(&set, &self.pace, now.mono) {
            true => self.hasten(&uid, now.mono),
            false => self.queue(&uid, now.mono),
        }
        Taken::Waits
    }

    /// When credentials were used is believed before a set is counted, and hurries the counts that it waits for.
    fn believe(&mut self, judged: &Judged, now: Moment) {
        let (Judged::Good(set) | Judged::Unknown(.., Some(set))) = judged else { return };
        let (uid, entry) = entry_of(&mut self.tokens, set, now.mono);
        if entry.note(&set.used, set.shown, &self.pace, (now.mono, now.wall)) {
            self.hasten(&uid, now.mono);
        }
    }

    /// What waits for a token, or comes next, is to be seen at once.
    fn hasten(&mut self, uid: &Arc<str>, now: Duration) {
        if let Some(entry) = self.tokens.get_mut(uid) {
            entry.urgent.get_or_insert(now);
            self.queue(uid, now);
        }
    }

    /// Keeps the copy of an open set, unless it has no number, or would overtake a set that is not taken yet.
    fn hold(&mut self, gate: &Arc<str>, epoch: i64, set: Set, now: Duration) {
        let key = (gate.clone(), set.claimant.uid.clone(), set.sealed.sequence);
        if key.2 == 0 || self.overtakes(&key) {
            return;
        }
        let (_, entry) = entry_of(&mut self.tokens, &set, now);
        entry.hold(Waiting { gate: gate.clone(), epoch, sealed: set.sealed, since: now });
    }

    /// Whether an earlier set of this gate and token is not taken yet. What is counted in is known by the highest number.
    fn overtakes(&self, key: &Key) -> bool {
        let first = (key.0.clone(), key.1.clone(), 0);
        self.passed_over.range(first..key.clone()).next().is_some()
    }

    /// The process of a gate that ran before this epoch is gone: what it left open counts.
    fn adopt(&mut self, gate: &Arc<str>, before: i64, now: Duration) {
        let left = |entry: &Entry| entry.open.iter().any(|open| open.gate == *gate && open.epoch < before);
        let uids: Vec<_> =
            self.tokens.iter().filter(|(_, entry)| left(entry)).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            if let Some(entry) = self.tokens.get_mut(&uid) {
                entry.adopt(gate, now);
            }
            self.queue(&uid, now);
        }
    }

    /// Notices what time alone changes: what silence means, and what need not be remembered any more.
    fn turn(&mut self, world: &Directory, now: Moment) {
        let watched = self.watched(now.wall);
        if watched != Watched::Settling && self.announced.as_ref() != Some(&watched) {
            self.look_at_all = true;
            self.announced = Some(watched);
        }
        if now.mono.saturating_sub(self.swept) >= UNKNOWN_FOR {
            self.swept = now.mono;
            self.sweep(world, now);
        }
    }

    fn sweep(&mut self, world: &Directory, now: Moment) {
        let there: BTreeSet<_> = self.coverage.names().map(str::to_owned).collect();
        let mut ended = Vec::new();
        // By this process's own clock as well: were the other one set, a gate that dies then would leave its copies for ever.
        self.gates.retain(|name, gate| {
            let quiet_for = now.mono.saturating_sub(gate.heard);
            let silent = quiet_for > GRACE.unsigned_abs();
            let done = gate.leaving && gate.receipts.is_empty() && quiet_for >= UNKNOWN_FOR;
            let stays = there.contains(name.as_ref()) || !silent && !done;
            if silent || !stays {
                ended.push(name.clone());
            }
            stays
        });
        // Also of one that left, what it could not bring any more.
        ended.iter().for_each(|gate| self.adopt(gate, i64::MAX, now.mono));
        self.passed_over.retain(|(gate, ..), (_, last)| {
            self.gates.contains_key(gate) && now.mono.saturating_sub(*last) < REMEMBER
        });
        let long = (self.pace.interval * 2).max(GRACE.unsigned_abs());
        self.tokens.retain(|uid, entry| {
            entry.forget_gates(|gate| there.contains(gate));
            let waits = entry.place != Place::Idle || !entry.sets.is_empty();
            let Some((_, known)) = world.token(uid) else { return waits };
            let named = |id: &str| {
                let id = CredentialId::parse(id)?;
                known.iter().find(|credential| credential.id == id)
            };
            entry.live.retain(|id, _| named(id).is_some());
            if waits || !entry.open.is_empty() {
                return true;
            }
            let shown = entry.live.iter().all(|(id, at)| {
                named(id).and_then(|known| known.shown).is_some_and(|shown| shown >= at.as_second())
            });
            !shown || now.mono.saturating_sub(entry.heard) <= long
        });
    }

    /// What may be concluded from silence.
    pub fn watched(&self, now: Timestamp) -> Watched {
        self.coverage.watched(self.listening_since, now)
    }

    /// Since when gates have watched.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// What is known of a token: last uses, and what was persisted.
    pub fn known(&self, uid: &str) -> (BTreeMap<String, Timestamp>, Option<Persisted>) {
        self.tokens.get(uid).map(|entry| (entry.live.clone(), entry.persisted.clone())).unwrap_or_default()
    }

    /// What there is to tell.
    pub fn figures(&self) -> Figures {
        let sets = || self.tokens.values().flat_map(|entry| &entry.sets);
        Figures {
            sets: sets().count(),
            oldest: sets().map(|set| set.since).min(),
            gates: self.coverage.gates(),
            tokens: self.urgent.len() + self.due.len() + self.in_flight,
            stretch: self.stretch,
        }
    }
}

/// What is held of the token that a set is about, which may be the first word of it.
fn entry_of<'a>(
    tokens: &'a mut BTreeMap<Arc<str>, Entry>,
    set: &Set,
    now: Duration,
) -> (Arc<str>, &'a mut Entry) {
    let uid: Arc<str> = set.claimant.uid.as_str().into();
    let entry = tokens.entry(uid.clone()).or_insert_with(|| Entry::of(set, now));
    (uid, entry)
}
