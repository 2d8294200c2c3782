//! Who leads: the decisions of leader election over a Lease, without a client, a clock or a task.
//!
//! The rules are those of Kubernetes' own client library, judged by *locally observed, monotonic* time only:
//!
//! - A candidate takes a held Lease over only after it has seen the same record, unchanged, for the duration that
//!   the record states. Wall-clock times in the record are written for people and never compared, so no clock step
//!   and no clock difference between machines elects two leaders.
//! - Every write is a compare-and-swap on `resourceVersion` (or a create).
//! - A leader may act until `renew deadline` after it *sent* its last successful write, never counted from the answer.
//!   The record reached the server after it was sent, so a rival starts to count later than we do and counts
//!   longer: `duration - renew deadline` is what remains for clocks that run at different speeds and for writes
//!   that are still on their way.
//! - On shutdown the Lease is released (no holder, one second), so that a standby may lead at its next look.
//!
//! What this cannot defend against: somebody with write access deleting or forging the Lease while it is held, and two
//! processes that were given one identity. The first is softened (a candidate that has seen a holder waits the
//! duration out, even if the Lease vanishes), the second is why the default identity ends in random characters.
//!
//! [`Election::step`] takes one [`Event`] and returns the one [`Command`] to carry out next.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::duration;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// The longest lease duration that can be configured, and the longest one believed when a record states it: a
/// forged record can delay a takeover by an hour, not for ever.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(3600);

/// How often a release is attempted before the Lease is left to run out.
const RELEASE_ATTEMPTS: u32 = 3;

/// The times of an election and the name of this candidate. Made by [`Config::new`] only, so it is always coherent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    identity: String,
    duration: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

/// Why the settings of an election are refused. Every message names the flag to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An empty identity means "released" in a Lease.
    #[error("--identity must not be empty: it is the holder's name in the Lease")]
    NoIdentity,
    /// The Lease states its duration in whole seconds.
    #[error("--lease-duration {} must be a whole number of seconds between 1s and 1h", duration::format(*.0))]
    Duration(Duration),
    /// The deadline must leave room before others take over.
    #[error("--lease-renew-deadline {} must be shorter than --lease-duration {}",
        duration::format(*.deadline), duration::format(*.duration))]
    Deadline {
        /// The renew deadline given.
        deadline: Duration,
        /// The lease duration given.
        duration: Duration,
    },
    /// The deadline must leave room for a second attempt.
    #[error("--lease-retry-period {} times 1.2 must be shorter than --lease-renew-deadline {}",
        duration::format(*.retry), duration::format(*.deadline))]
    Retry {
        /// The retry period given.
        retry: Duration,
        /// The renew deadline given.
        deadline: Duration,
    },
    /// Asking without pause would flood the API server.
    #[error("--lease-retry-period {} must be at least 100ms", duration::format(*.0))]
    RetryTooShort(Duration),
}

impl Config {
    /// Checks that `duration > renew_deadline > 1.2 * retry`, that the duration fits the Lease's field, and that there
    /// is an identity.
    pub fn new(
        identity: impl Into<String>,
        duration: Duration,
        renew_deadline: Duration,
        retry: Duration,
    ) -> Result<Self, ConfigError> {
        let identity = identity.into();
        if identity.is_empty() {
            return Err(ConfigError::NoIdentity);
        }
        if duration.subsec_nanos() != 0 || duration.is_zero() || duration > MAX_LEASE_DURATION {
            return Err(ConfigError::Duration(duration));
        }
        if renew_deadline >= duration {
            return Err(ConfigError::Deadline { deadline: renew_deadline, duration });
        }
        if retry.saturating_mul(6) / 5 >= renew_deadline {
            return Err(ConfigError::Retry { retry, deadline: renew_deadline });
        }
        if retry < Duration::from_millis(100) {
            return Err(ConfigError::RetryTooShort(retry));
        }
        Ok(Self { identity, duration, renew_deadline, retry })
    }

    /// This candidate's name in the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// How long one call may take, so that a hanging one leaves time for others before the renew deadline.
    pub fn call_timeout(&self) -> Duration {
        self.renew_deadline / 4
    }

    /// How often a leader renews: every second retry period (2 s of the default 10 s deadline), and at least three times
    /// within the deadline. Standbys look every retry period, because that bounds how long a hand-over takes.
    fn renew_every(&self) -> Duration {
        (self.retry * 2).min(self.renew_deadline / 3)
    }

    fn duration_seconds(&self) -> i32 {
        i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)
    }
}

/// The fields of a Lease that an election reads and writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Who leads; empty when the Lease was released.
    pub holder: String,
    /// How long rivals have to see the record unchanged before they may take over.
    pub duration_seconds: Option<i32>,
    /// When the present holder became it, by its own clock. For people.
    pub acquired: Option<Timestamp>,
    /// When it last said so, by its own clock. For people, and what makes two renewals differ.
    pub renewed: Option<Timestamp>,
    /// How often the holder changed.
    pub transitions: i32,
}

/// A Lease as the API server answered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `metadata.resourceVersion`, to swap against.
    pub version: String,
    /// What it says.
    pub record: Record,
}

/// Now, on both clocks. The monotonic one decides, the wall clock is only written down.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic time since any fixed moment of this process.
    pub mono: Duration,
    /// Wall-clock time.
    pub wall: Timestamp,
}

/// What happened since the last command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The wait is over (or nothing happened yet: the first event of all).
    Tick,
    /// The answer to [`Command::Fetch`]; `None` if there is no Lease.
    Fetched(Option<Seen>),
    /// The API server confirmed the write and answered with what it stored.
    Written(Seen),
    /// The write was refused because the Lease is not what we thought: nothing was written.
    Conflict,
    /// No answer, or one that says nothing about whether the call had effect.
    Failed,
    /// The process is leaving: give the Lease back. The guarded work has already stopped.
    Release,
}

/// What to do next. Exactly one event answers each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Do nothing until then (monotonic), then [`Event::Tick`].
    Wait(Duration),
    /// Read the Lease.
    Fetch,
    /// Create the Lease.
    Create(Record),
    /// Replace these fields of the Lease, provided that it still has this version; keep everything else in it.
    Replace {
        /// The `resourceVersion` to swap against.
        version: String,
        /// What to write.
        record: Record,
    },
    /// Released, or nothing to release: there is nothing left to do.
    Done,
}

#[derive(Debug, Clone)]
struct Sighting {
    record: Record,
    /// When, on our clock, this record was first seen. It is never moved by seeing the same record again.
    since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// A write that would make or keep us leader, and the moment it was sent.
    Claim {
        sent: Duration,
        optimistic: bool,
    },
    Release,
}

/// One candidate in an election.
#[derive(Debug, Clone)]
pub struct Election {
    config: Config,
    sighting: Option<Sighting>,
    /// The version to swap against; `None` after any answer that leaves it in doubt.
    version: Option<String>,
    pending: Pending,
    valid_until: Option<Duration>,
    term: u64,
    /// Attempts left, once releasing.
    releasing: Option<u32>,
}

impl Election {
    /// A candidate that has seen nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            sighting: None,
            version: None,
            pending: Pending::Nothing,
            valid_until: None,
            term: 0,
            releasing: None,
        }
    }

    /// The settings it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Until when (monotonic) this process may act as leader. Every write must be refused from that moment on. A
    /// deadline in the past means that leadership has lapsed.
    pub fn valid_until(&self) -> Option<Duration> {
        self.valid_until
    }

    /// Whether this process may act as leader at `mono`.
    pub fn leads(&self, mono: Duration) -> bool {
        self.valid_until.is_some_and(|until| mono < until)
    }

    /// Counts the times this process became leader. Two readings with the same term were not interrupted.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The holder last seen, or empty.
    pub fn holder(&self) -> &str {
        self.sighting.as_ref().map_or("", |sighting| &sighting.record.holder)
    }

    /// Takes in what happened and says what to do next.
    pub fn step(&mut self, now: Moment, event: Event) -> Command {
        let pending = std::mem::replace(&mut self.pending, Pending::Nothing);
        match event {
            Event::Release => {
                // The fence closes before anything is sent. A claim that may still be on its way leaves the version
                // in doubt, and then the Lease is read again first.
                self.valid_until = None;
                if pending != Pending::Nothing {
                    self.version = None;
                }
                self.releasing.get_or_insert(RELEASE_ATTEMPTS);
                let claimed = pending != Pending::Nothing || self.holder() == self.config.identity;
                if claimed { self.release(now) } else { Command::Done }
            }
            Event::Tick => match (self.releasing, self.leads(now.mono), &self.version) {
                (Some(_), ..) => self.release(now),
                (None, true, Some(_)) => self.claim(now, true),
                _ => Command::Fetch,
            },
            Event::Fetched(seen) => self.fetched(now, seen),
            Event::Written(seen) => self.written(now, pending, seen),
            Event::Conflict => {
                self.version = None;
                match pending {
                    _ if self.releasing.is_some() => self.release(now),
                    // Somebody touched the Lease's metadata since our last renewal: look at once.
                    Pending::Claim { optimistic: true, .. } => Command::Fetch,
                    _ => Command::Wait(now.mono + self.config.retry),
                }
            }
            Event::Failed => {
                self.version = None;
                match self.releasing {
                    Some(0) => Command::Done,
                    Some(_) => Command::Wait(now.mono + self.config.retry / 5),
                    None => Command::Wait(now.mono + self.config.retry),
                }
            }
        }
    }

    fn fetched(&mut self, now: Moment, seen: Option<Seen>) -> Command {
        match seen {
            Some(seen) => {
                self.version = Some(seen.version);
                if self.sighting.as_ref().is_none_or(|sighting| sighting.record != seen.record) {
                    self.sighting = Some(Sighting { record: seen.record, since: now.mono });
                }
            }
            // What was seen of a vanished Lease still counts: its holder may believe in it.
            None => self.version = None,
        }
        if self.releasing.is_some() {
            return match self.version.is_some() && self.holder() == self.config.identity {
                true => self.release(now),
                false => Command::Done,
            };
        }
        let Some(Sighting { record, since }) = &self.sighting else {
            return self.claim(now, false);
        };
        if record.holder.is_empty() || record.holder == self.config.identity {
            return self.claim(now, false);
        }
        // Somebody else is written there: whatever our last renewal promised, it is over.
        self.valid_until = None;
        let stated = match record.duration_seconds.map(u64::try_from) {
            Some(Ok(seconds)) if seconds > 0 => Duration::from_secs(seconds).min(MAX_LEASE_DURATION),
            _ => self.config.duration,
        };
        let free_at = *since + stated;
        if now.mono >= free_at {
            self.claim(now, false)
        } else {
            Command::Wait(free_at.min(now.mono + self.config.retry))
        }
    }

    fn written(&mut self, now: Moment, pending: Pending, seen: Seen) -> Command {
        let ours = seen.record.holder == self.config.identity;
        self.version = Some(seen.version);
        self.sighting = Some(Sighting { record: seen.record, since: now.mono });
        match pending {
            Pending::Release => Command::Done,
            _ if self.releasing.is_some() => self.release(now),
            Pending::Claim { sent, .. } if ours => {
                let until = sent + self.config.renew_deadline;
                if now.mono < until {
                    if !self.leads(now.mono) {
                        self.term += 1;
                    }
                    self.valid_until = Some(until);
                }
                Command::Wait(sent + self.config.renew_every())
            }
            // An admission plugin rewrote the holder, or an answer came that nobody asked for: not ours to act on.
            Pending::Claim { .. } | Pending::Nothing => {
                self.valid_until = None;
                Command::Wait(now.mono + self.config.retry)
            }
        }
    }

    /// Writes ourselves into the Lease, as its holder already or as its new one.
    fn claim(&mut self, now: Moment, optimistic: bool) -> Command {
        let last = self.sighting.as_ref().map(|sighting| &sighting.record);
        let mut record = Record {
            holder: self.config.identity.clone(),
            duration_seconds: Some(self.config.duration_seconds()),
            acquired: Some(now.wall),
            renewed: Some(now.wall),
            transitions: 0,
        };
        if let Some(last) = last {
            if last.holder == self.config.identity {
                record.acquired = last.acquired.or(Some(now.wall));
                record.transitions = last.transitions;
            } else {
                record.transitions = last.transitions.saturating_add(1);
            }
            // A renewal has to differ from the one before, or rivals would see an unchanged record and take over; a
            // wall clock that stands still, or that was set back to the very microsecond, must not bring that about.
            if last.renewed.is_some_and(|renewed| renewed.as_microsecond() == now.wall.as_microsecond()) {
                record.renewed = Timestamp::from_microsecond(now.wall.as_microsecond() + 1).ok();
            }
        }
        self.pending = Pending::Claim { sent: now.mono, optimistic };
        match self.version.take() {
            Some(version) => Command::Replace { version, record },
            None => Command::Create(record),
        }
    }

    /// One more attempt to give the Lease back: by swap where its version is known, else by looking first.
    fn release(&mut self, now: Moment) -> Command {
        let left = self.releasing.unwrap_or(0);
        if left == 0 {
            return Command::Done;
        }
        let Some(version) = self.version.take() else {
            self.releasing = Some(left - 1);
            return Command::Fetch;
        };
        self.pending = Pending::Release;
        Command::Replace {
            version,
            record: Record {
                holder: String::new(),
                duration_seconds: Some(1),
                acquired: Some(now.wall),
                renewed: Some(now.wall),
                transitions: self.sighting.as_ref().map_or(0, |sighting| sighting.record.transitions),
            },
        }
    }
}
