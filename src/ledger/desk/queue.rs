//! Whose turn it is.

use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, Place};
use super::{Command, Desk, IN_FLIGHT, Job, MAX_RECEIPTS, Outcome, TICK, Waiting};
use crate::api::report::{Refused, Settled};
use crate::domain::directory::Directory;
use crate::domain::lease::Moment;
use crate::platform::budget::Purse;

/// What persisting one token takes at least: the TokenUsage, and the ApiToken's status after it.
const COST: u32 = 2;
/// Longest pause after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(120);
/// Longest pause for everybody while the API server does not answer.
const MAX_BRAKE: Duration = Duration::from_secs(15);

impl Desk {
    /// A gate is leaving: what it left here is persisted as soon as the budget has room.
    pub(super) fn hurry(&mut self, gate: &Arc<str>, now: Moment) {
        let of_gate = |entry: &Entry| entry.sets.iter().any(|set| set.gate == *gate);
        let uids: Vec<_> =
            self.tokens.iter().filter(|(_, entry)| of_gate(entry)).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            let Some(entry) = self.tokens.get_mut(&uid) else { continue };
            if let Place::Due(at) = entry.place {
                self.due.remove(&(at, uid.clone()));
                let at = at.min(now.mono.max(entry.retry));
                entry.place = Place::Due(at);
                self.due.insert((at, uid));
            }
        }
    }

    /// Puts a token in the queue where it belongs.
    pub(super) fn queue(&mut self, uid: &Arc<str>, now: Duration) {
        let Some(entry) = self.tokens.get_mut(uid) else { return };
        let place = match (entry.place, entry.urgent) {
            (Place::InFlight, _) => return,
            _ if entry.sets.is_empty() => Place::Idle,
            (_, Some(since)) => Place::Urgent(since.max(entry.retry)),
            // Where it waits already it keeps its place.
            (Place::Due(at), None) => Place::Due(at.max(entry.retry)),
            (_, None) => Place::Due(entry.due(&self.pace, now).max(entry.retry)),
        };
        let was = std::mem::replace(&mut entry.place, place);
        match was {
            Place::Urgent(at) => drop(self.urgent.remove(&(at, uid.clone()))),
            Place::Due(at) => drop(self.due.remove(&(at, uid.clone()))),
            Place::Idle | Place::InFlight => {}
        }
        match place {
            Place::Urgent(at) => drop(self.urgent.insert((at, uid.clone()))),
            Place::Due(at) => drop(self.due.insert((at, uid.clone()))),
            Place::Idle | Place::InFlight => {}
        }
    }

    /// What to do now; `None`: nothing before [`Desk::wake`].
    pub fn next(&mut self, world: &Directory, now: Moment) -> Option<Command> {
        self.turn(world, now);
        if std::mem::take(&mut self.look_at_all) {
            return Some(Command::LookAtAll);
        }
        if self.braked(now.mono).is_some() {
            return None;
        }
        let job = self.first(now.mono).filter(|(at, _)| *at <= now.mono && self.in_flight < IN_FLIGHT);
        let (_, uid) = job?;
        if self.when(COST, now.mono) > now.mono {
            return None;
        }
        self.charge(i64::from(COST), now.mono);
        self.start(&uid, now.mono).map(Command::Persist)
    }

    /// The token whose turn it is, and when. One that failed stands at the time of its next attempt: nobody waits behind it.
    fn first(&self, now: Duration) -> Option<(Duration, Arc<str>)> {
        let urgent = self.urgent.first();
        let ready = urgent.filter(|(at, _)| *at <= now);
        ready.or_else(|| urgent.into_iter().chain(self.due.first()).min()).cloned()
    }

    fn start(&mut self, uid: &Arc<str>, now: Duration) -> Option<Job> {
        let entry = self.tokens.get_mut(uid)?;
        match entry.place {
            Place::Urgent(at) => drop(self.urgent.remove(&(at, uid.clone()))),
            Place::Due(at) => {
                self.due.remove(&(at, uid.clone()));
                if let Some(written) = entry.written.filter(|_| !entry.pause.is_zero()) {
                    let waited = now.saturating_sub(written).as_secs_f64() / entry.pause.as_secs_f64();
                    // Some ten tokens shape it.
                    self.stretch += (waited.max(1.0) - self.stretch) / 8.0;
                }
            }
            Place::Idle | Place::InFlight => {}
        }
        entry.place = Place::InFlight;
        self.in_flight += 1;
        Some(Job {
            claimant: entry.claimant.clone(),
            sets: entry.sets.clone(),
            live: entry.live.clone(),
            urgent: entry.urgent.take(),
        })
    }

    /// A job has ended after so many writes. Returns whether the ApiToken needs a look.
    pub fn done(&mut self, job: &Job, outcome: Outcome, writes: u32, now: Moment) -> bool {
        let uid: Arc<str> = job.claimant.uid.as_str().into();
        self.in_flight = self.in_flight.saturating_sub(1);
        // One write was reserved for the ApiToken's status.
        self.charge(i64::from(writes) - i64::from(COST - 1), now.mono);
        let Some(entry) = self.tokens.get_mut(&uid) else { return false };
        entry.place = Place::Idle;
        let look = match outcome {
            Outcome::Written { summary, callers, outdated } => {
                self.brake = None;
                entry.settle(&job.sets);
                entry.knows_callers(callers);
                let changed = entry.persisted.as_ref() != Some(&summary);
                entry.persisted = Some(summary);
                entry.written = Some(now.mono);
                entry.pause = self.pace.pause_after(entry.pause);
                (entry.failures, entry.retry) = (0, Duration::ZERO);
                let (refused, settled): (Vec<_>, Vec<_>) =
                    job.sets.iter().cloned().partition(|set| outdated.iter().any(|other| other.is(set)));
                self.receipts(&settled, "");
                self.receipts(&refused, Refused::Backwards.as_str());
                changed
            }
            Outcome::Gone => {
                let left = std::mem::take(&mut entry.sets);
                self.tokens.remove(&uid);
                self.receipts(&left, Refused::UnknownToken.as_str());
                false
            }
            Outcome::Failed { everywhere } => {
                entry.failures = entry.failures.saturating_add(1);
                let pause = Duration::from_secs(1 << entry.failures.saturating_sub(1).min(7));
                entry.retry = now.mono + pause.min(MAX_BACKOFF);
                entry.urgent = job.urgent.or(entry.urgent);
                if everywhere {
                    self.brake(now.mono);
                }
                false
            }
        };
        if !look {
            // No status follows from it.
            self.charge(-1, now.mono);
        }
        self.queue(&uid, now.mono);
        look
    }

    fn when(&self, writes: u32, now: Duration) -> Duration {
        self.budget.lock().when(Purse::Uses, writes, now)
    }

    fn charge(&self, writes: i64, now: Duration) {
        self.budget.lock().charge(Purse::Uses, writes, now);
    }

    fn receipts(&mut self, sets: &[Waiting], refused: &str) {
        for set in sets {
            let gate = self.gates.get_mut(&set.gate).filter(|gate| gate.epoch == set.epoch);
            let Some(gate) = gate.filter(|gate| gate.receipts.len() < MAX_RECEIPTS) else { continue };
            gate.receipts.push(Settled {
                token: set.sealed.token.clone(),
                sequence: set.sealed.sequence,
                refused: refused.to_owned(),
            });
        }
    }

    fn brake(&mut self, now: Duration) {
        let pause = self.brake.map_or(Duration::from_secs(1), |(_, pause)| (pause * 2).min(MAX_BRAKE));
        // Those that were under way together fail together: that counts once.
        if self.brake.is_none_or(|(until, _)| until <= now) {
            self.brake = Some((now + pause, pause));
        }
    }

    fn braked(&self, now: Duration) -> Option<Duration> {
        self.brake.map(|(until, _)| until).filter(|until| *until > now)
    }

    /// When [`Desk::next`] should be asked again, if nothing happens before.
    pub fn wake(&mut self, now: Duration) -> Duration {
        let tick = now + TICK;
        let mut next = tick;
        if let Some((at, _)) = self.first(now).filter(|_| self.in_flight < IN_FLIGHT) {
            next = next.min(at.max(self.when(COST, now)));
        }
        // Timers tick in milliseconds and may fire early by one.
        next.max(self.braked(now).unwrap_or(now)).min(tick) + Duration::from_millis(1)
    }
}
