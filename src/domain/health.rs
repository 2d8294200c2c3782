//! Health from use: in use, never used, idle — or unknown, with the reason. Silence means something only where gates have
//! watched; that a token was used is known from one report, whatever nobody watched.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::conditions::Truth;
use super::coverage::Watched;
use crate::api::{Health, Reason};

/// What is known about the use of one token.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What may be concluded from silence.
    pub watched: &'a Watched,
    /// Since when it can be used: its first credential was in the Secret.
    pub issued: Timestamp,
    /// When gates last accepted it.
    pub last_used: Option<Timestamp>,
    /// `spec.idle.after`.
    pub idle_after: Option<Duration>,
}

/// What is said about use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing: no ledger listens, or the token has ended.
    Unjudged,
    /// What was said last: a gate that may know more has not reported yet.
    AsBefore,
    /// This.
    Judged(Judgement),
}

/// A verdict on use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Status of the condition `InUse`.
    pub in_use: Truth,
    /// Its reason, and that of `Idle`.
    pub reason: Reason,
    /// For people. It moves only with the judgement: a time that passes is no news.
    pub message: String,
    /// Whether the token is idle.
    pub idle: bool,
    /// When time alone may change this.
    pub wake: Option<Timestamp>,
}

/// Judges the use of a token at `now`.
pub fn judge(facts: &Facts<'_>, now: Timestamp) -> Use {
    let after = |from: Timestamp| facts.idle_after.and_then(|after| later(from, after));
    let is_past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    let said = |in_use, reason, message: String, wake: Option<Timestamp>| {
        let idle = in_use == Truth::False && (reason == Reason::Idle || is_past(after(facts.issued)));
        Use::Judged(Judgement { in_use, reason, message, idle, wake: wake.filter(|at| *at > now) })
    };
    if *facts.watched == Watched::Unasked {
        return Use::Unjudged;
    }
    let idle_from = facts.last_used.and_then(after);
    if facts.last_used.is_some() && !is_past(idle_from) {
        let message = "Gates accepted it lately: status.usage says when".to_owned();
        return said(Truth::True, Reason::InUse, message, idle_from);
    }
    let since = match facts.watched {
        Watched::Unasked | Watched::Settling => return Use::AsBefore,
        Watched::Nobody => {
            let message = "No gate reports, so nobody can say whether it is used".to_owned();
            return said(Truth::Unknown, Reason::NoGate, message, None);
        }
        Watched::Since(since) => *since,
    };
    let watched_from = since.max(facts.issued);
    match facts.last_used {
        None if since <= facts.issued => {
            let message = "No gate has accepted it since it was issued".to_owned();
            said(Truth::False, Reason::NeverUsed, message, after(facts.issued))
        }
        last if is_past(after(watched_from)) => {
            let last =
                last.map_or(format!("watched since {watched_from}"), |last| format!("last used at {last}"));
            said(Truth::False, Reason::Idle, format!("Not used for spec.idle.after ({last})"), None)
        }
        _ => {
            let message = format!("Watched without a gap only since {watched_from}: too short to say");
            said(Truth::Unknown, Reason::NotObserved, message, after(watched_from))
        }
    }
}

/// The word of health that goes with a reason of `InUse`.
pub fn word(reason: Reason) -> Health {
    match reason {
        Reason::InUse => Health::InUse,
        Reason::NeverUsed => Health::NeverUsed,
        Reason::Idle => Health::Idle,
        _ => Health::Unknown,
    }
}

fn later(from: Timestamp, by: Duration) -> Option<Timestamp> {
    from.checked_add(SignedDuration::try_from(by).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Reason and idleness of a token issued at 0, judged at `now`.
    fn judged(
        watched: Watched,
        last_used: Option<i64>,
        idle_days: Option<u64>,
        now: i64,
    ) -> (Reason, bool, Option<i64>) {
        let facts = Facts {
            watched: &watched,
            issued: at(0),
            last_used: last_used.map(at),
            idle_after: idle_days.map(|days| Duration::from_secs(days * 86_400)),
        };
        match judge(&facts, at(now)) {
            Use::Judged(judgement) => {
                assert_eq!(judgement.in_use == Truth::True, judgement.reason == Reason::InUse);
                let wake = judgement.wake.map(|wake| wake.as_second() - at(0).as_second());
                (judgement.reason, judgement.idle, wake)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn use_is_known_whatever_nobody_watched() {
        for watched in [Watched::Nobody, Watched::Settling, Watched::Since(at(0)), Watched::Since(at(DAY))] {
            assert_eq!(judged(watched.clone(), Some(5), None, 9 * DAY), (Reason::InUse, false, None));
            assert_eq!(judged(watched, Some(5), Some(1), DAY), (Reason::InUse, false, Some(DAY + 5)));
        }
    }

    #[test]
    fn silence_under_watch_is_never_used_then_idle() {
        let watched = || Watched::Since(at(-10));
        assert_eq!(judged(watched(), None, None, 300 * DAY), (Reason::NeverUsed, false, None));
        assert_eq!(judged(watched(), None, Some(7), 6 * DAY), (Reason::NeverUsed, false, Some(7 * DAY)));
        assert_eq!(judged(watched(), None, Some(7), 7 * DAY), (Reason::NeverUsed, true, None));
        assert_eq!(judged(watched(), Some(DAY), Some(7), 8 * DAY), (Reason::Idle, true, None));
    }

    #[test]
    fn a_gap_makes_silence_mean_nothing_until_it_is_long_past() {
        let since = Watched::Since(at(5 * DAY));
        assert_eq!(
            judged(since.clone(), Some(DAY), Some(7), 9 * DAY),
            (Reason::NotObserved, false, Some(12 * DAY))
        );
        assert_eq!(judged(since.clone(), Some(DAY), Some(7), 12 * DAY), (Reason::Idle, true, None));
        assert_eq!(
            judged(since.clone(), None, Some(7), 9 * DAY),
            (Reason::NotObserved, false, Some(12 * DAY))
        );
        assert_eq!(judged(since, None, None, 900 * DAY), (Reason::NotObserved, false, None));
        assert_eq!(judged(Watched::Nobody, Some(0), Some(7), 9 * DAY), (Reason::NoGate, false, None));
    }

    #[test]
    fn nothing_new_is_said_before_every_gate_has_reported() {
        let facts = |watched| Facts { watched, issued: at(0), last_used: None, idle_after: None };
        assert_eq!(judge(&facts(&Watched::Settling), at(5)), Use::AsBefore);
        assert_eq!(judge(&facts(&Watched::Unasked), at(5)), Use::Unjudged);
    }
}
