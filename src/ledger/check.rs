//! Judges what a gate reports, entry by entry: one bad entry never spoils the others.
//!
//! Three ways to say no. *For good*: it can never be accepted, so the gate may forget it. *Not yet*: a clock is wrong, or this
//! process has not heard of the token; the gate keeps it and sends it again. *Altogether*: the report as a whole says
//! something that no sound gate says.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::api::Outcome;
use crate::api::report::{
    CallerUse, CredentialUse, MAX_CALLERS, MAX_COUNT, MAX_ENTRIES, MAX_GATE, MAX_PRINCIPAL, MAX_REFUSED,
    MAX_SCOPE, MAX_SCOPES, MAX_UNPROVED, MAX_USER_AGENT, Refused, Report, Sealed,
};
use crate::domain::directory::{Claimant, Directory, Published};
use crate::domain::token::CredentialId;

#[cfg(test)]
mod tests;

/// Most bytes of an address.
const MAX_ADDRESS: usize = 64;
/// Most bytes of a uid.
const MAX_UID: usize = 64;
/// Clocks may differ by so many seconds.
pub const TOLERANCE: i64 = 300;
/// A time that is so many seconds ahead will not come true while the gate runs.
const HOPELESS: i64 = 86_400;
/// A use that is older than this is not counted any more.
const OLDEST: i64 = 31 * 86_400;

/// Why a whole report is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This process does not lead, or has not read its lists yet. The gate looks for the leader again.
    #[error("this replica does not lead")]
    NotLeading,
    /// More gates than the ledger keeps account of.
    #[error("more than {} gates report", crate::domain::coverage::MAX_GATES)]
    TooManyGates,
    /// A name, a list or a time that no sound gate sends.
    #[error("malformed report: {0}")]
    Malformed(&'static str),
    /// The gate's clock is far ahead of the ledger's.
    #[error("the gate's clock is more than five minutes ahead of the ledger's")]
    ClockAhead,
    /// A later report, or another process under the same name, was heard before.
    #[error(
        "a later report was heard under this name: each gate needs a name of its own, and a clock that goes on"
    )]
    Outdated,
}

impl Refusal {
    /// A bounded name for logs and metrics.
    pub fn category(self) -> &'static str {
        match self {
            Self::NotLeading => "NotLeading",
            Self::TooManyGates => "TooManyGates",
            Self::Malformed(_) => "Malformed",
            Self::ClockAhead => "ClockAhead",
            Self::Outdated => "Outdated",
        }
    }
}

/// A report whose entries are judged.
#[derive(Debug)]
pub struct Checked {
    /// The gate's name.
    pub gate: Arc<str>,
    /// Its process.
    pub epoch: i64,
    /// Its report.
    pub sequence: u64,
    /// Since when it has watched.
    pub observing_since: Timestamp,
    /// It says goodbye.
    pub leaving: bool,
    /// It has more to say.
    pub more: bool,
    /// Sealed sets, in order of sequence.
    pub sealed: Vec<Judged>,
    /// Open sets: they count if the gate dies.
    pub open: Vec<Judged>,
}

/// What is to become of a sealed set.
#[derive(Debug)]
pub enum Judged {
    /// Counted.
    Good(Set),
    /// Refused for good.
    Never(String, u64, Refused),
    /// Not taken this time.
    NotYet(String, u64, Refused),
    /// This process has not heard of the token, or of one of its credentials. Its watch may lag behind the gate's, so that is
    /// said for good only after a while; of the set, what is left then is counted.
    Unknown(String, u64, Refused, Option<Set>),
}

impl Judged {
    /// uid of the ApiToken that it says it is about.
    pub fn token(&self) -> &str {
        match self {
            Self::Good(set) => &set.claimant.uid,
            Self::Never(token, ..) | Self::NotYet(token, ..) | Self::Unknown(token, ..) => token,
        }
    }

    /// Its number.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Good(set) => set.sealed.sequence,
            Self::Never(_, sequence, ..) | Self::NotYet(_, sequence, _) | Self::Unknown(_, sequence, ..) => {
                *sequence
            }
        }
    }
}

/// A sealed set that may be counted.
#[derive(Debug, Clone)]
pub struct Set {
    /// Whose it is.
    pub claimant: Claimant,
    /// The counts.
    pub sealed: Arc<Sealed>,
    /// Times of last use.
    pub used: Vec<Use>,
    /// Outcomes that were left out.
    pub unknown_outcomes: usize,
    /// When the token was last used as far as its status says so.
    pub shown: Option<Timestamp>,
}

/// A credential was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The credential id.
    pub credential: String,
    /// The last time.
    pub at: Timestamp,
    /// Whether the ApiToken's status names any use of it.
    pub shown: bool,
}

/// Judges a report at `now` by the ApiTokens that there are.
pub fn check(report: Report, world: &Directory, now: Timestamp) -> Result<Checked, Refusal> {
    let now_s = now.as_second();
    if report.gate.is_empty() || report.gate.len() > MAX_GATE || report.gate.chars().any(char::is_control) {
        return Err(Refusal::Malformed("the gate's name"));
    }
    if report.sealed.len().max(report.open.len()) > MAX_ENTRIES {
        return Err(Refusal::Malformed("too many entries"));
    }
    let epoch = i64::try_from(report.epoch).ok().filter(|epoch| *epoch > 0);
    let epoch = epoch.ok_or(Refusal::Malformed("the epoch"))?;
    if epoch / 1000 > now_s + TOLERANCE || report.observing_since > now_s + TOLERANCE {
        return Err(Refusal::ClockAhead);
    }
    // Nobody has watched since before it started: coverage that nobody had must not be claimed.
    let since = Some(report.observing_since).filter(|since| *since >= epoch / 1000 - TOLERANCE && *since > 0);
    let observing_since = since.and_then(|since| Timestamp::from_second(since).ok());
    let observing_since = observing_since.ok_or(Refusal::Malformed("observing_since"))?;

    let judge = Judge { world, now: now_s };
    let mut sealed = report.sealed;
    sealed.sort_by_key(|set| set.sequence);
    let sealed = sealed.into_iter().map(|set| judge.set(set, 1)).collect();
    let open = report.open.into_iter().map(|set| judge.set(set, 0)).collect();
    Ok(Checked {
        gate: report.gate.into(),
        epoch,
        sequence: report.sequence,
        observing_since,
        leaving: report.leaving,
        more: report.more,
        sealed,
        open,
    })
}

struct Judge<'a> {
    world: &'a Directory,
    now: i64,
}

impl Judge<'_> {
    /// A set whose number is `first` at least.
    fn set(&self, mut set: Sealed, first: u64) -> Judged {
        let (token, sequence) = (set.token.clone(), set.sequence);
        let Some((claimant, known)) = self.world.token(&token) else {
            return match token.is_empty() || token.len() > MAX_UID {
                true => Judged::Never(String::new(), sequence, Refused::Malformed),
                false => Judged::Unknown(token, sequence, Refused::UnknownToken, None),
            };
        };
        if !(first..=u64::try_from(i64::MAX).unwrap_or(u64::MAX)).contains(&sequence) {
            return Judged::Never(token, sequence, Refused::Malformed);
        }
        match self.judge(&mut set, claimant) {
            Ok(()) => {}
            Err(Refused::InTheFuture) if !self.is_hopeless(&set) => {
                return Judged::NotYet(token, sequence, Refused::InTheFuture);
            }
            Err(refused) => return Judged::Never(token, sequence, refused),
        }
        let unknown_outcomes = self.strip(&mut set);
        let all = set.credentials.len();
        set.credentials
            .retain(|used| CredentialId::parse(&used.credential).is_some_and(|id| names(known, id)));
        let complete = set.credentials.len() == all;
        let shown = known.iter().filter_map(|credential| credential.shown).max();
        let shown = shown.and_then(|last| Timestamp::from_second(last).ok());
        let used = set.credentials.iter().filter(|used| used.last_used > 0);
        let used = used.filter_map(|used| self.used(&token, &used.credential, used.last_used)).collect();
        let rest = (!set.credentials.is_empty()).then(|| Set {
            claimant: claimant.clone(),
            sealed: Arc::new(set),
            used,
            unknown_outcomes,
            shown,
        });
        match (complete, rest) {
            (true, Some(set)) => Judged::Good(set),
            (_, rest) => Judged::Unknown(token, sequence, Refused::UnknownCredential, rest),
        }
    }

    /// Everything but whether the credentials are known.
    fn judge(&self, set: &mut Sealed, claimant: &Claimant) -> Result<(), Refused> {
        let mut ids = BTreeSet::new();
        if set.credentials.is_empty() || set.scopes.len() > MAX_SCOPES {
            return Err(Refused::Malformed);
        }
        let mut sum = 0_u64;
        for scope in &set.scopes {
            if scope.scope.is_empty() || scope.scope.len() > MAX_SCOPE {
                return Err(Refused::Malformed);
            }
            if scope.count > MAX_COUNT {
                return Err(Refused::AbsurdCount);
            }
        }
        for used in &mut set.credentials {
            if CredentialId::parse(&used.credential).is_none() || !ids.insert(used.credential.clone()) {
                return Err(Refused::Malformed);
            }
            sum = sum.saturating_add(self.credential(used, claimant)?);
        }
        if sum > MAX_COUNT { Err(Refused::AbsurdCount) } else { Ok(()) }
    }

    /// Judges the use of one credential; returns how many answers it counts.
    fn credential(&self, used: &mut CredentialUse, claimant: &Claimant) -> Result<u64, Refused> {
        let (mut sum, mut accepted, mut seen) = (0_u64, false, BTreeSet::new());
        for outcome in &used.outcomes {
            if !seen.insert(outcome.outcome) {
                return Err(Refused::Malformed);
            }
            accepted |= outcome.outcome == Outcome::Accepted.index() && outcome.count > 0;
            sum = sum.saturating_add(outcome.count);
        }
        if used.callers.len() > MAX_CALLERS
            || used.refused.len() > MAX_REFUSED
            || used.unproved.len() > MAX_UNPROVED
        {
            return Err(Refused::Malformed);
        }
        // What a newer gate refused for; and nobody who proved nothing stands among those who did.
        let outcome = |caller: &CallerUse| Outcome::from_index(caller.outcome);
        used.refused.retain(|caller| outcome(caller).is_some_and(Outcome::is_proved_refusal));
        used.unproved.retain(|caller| {
            outcome(caller).is_some_and(|known| known != Outcome::Accepted && !known.is_proved_refusal())
        });
        if accepted {
            (used.first_used, used.last_used) = self.times(used.first_used, used.last_used, claimant)?;
            if used.last_used < self.now - OLDEST {
                return Err(Refused::TooOld);
            }
        } else if used.first_used != 0 || used.last_used != 0 || !used.callers.is_empty() {
            return Err(Refused::Malformed);
        }
        for callers in [&mut used.callers, &mut used.refused, &mut used.unproved] {
            callers.iter_mut().try_for_each(|caller| self.caller(caller, claimant))?;
            // One that did not come again for so long does not spoil the others.
            callers.retain(|caller| caller.last_seen >= self.now - OLDEST);
        }
        Ok(sum)
    }

    fn caller(&self, caller: &mut CallerUse, claimant: &Claimant) -> Result<(), Refused> {
        if caller.address.len() > MAX_ADDRESS
            || caller.principal.len() > MAX_PRINCIPAL
            || caller.user_agent.len() > MAX_USER_AGENT
            || caller.error > caller.count
        {
            return Err(Refused::Malformed);
        }
        if caller.count > MAX_COUNT {
            return Err(Refused::AbsurdCount);
        }
        (caller.first_seen, caller.last_seen) = self.times(caller.first_seen, caller.last_seen, claimant)?;
        Ok(())
    }

    /// Judges a span of time. What lies a little ahead counts as now: a later leader's clock must not find it in the future.
    /// What lies before the ApiToken was there, by a gate's clock that is behind, counts as its first moment.
    fn times(&self, first: i64, last: i64, claimant: &Claimant) -> Result<(i64, i64), Refused> {
        if first <= 0 || last < first {
            return Err(Refused::Malformed);
        }
        if last > self.now + TOLERANCE {
            return Err(Refused::InTheFuture);
        }
        Ok((first.max(claimant.created).min(self.now), last.max(claimant.created).min(self.now)))
    }

    fn is_hopeless(&self, set: &Sealed) -> bool {
        let limit = self.now + HOPELESS;
        let late = |used: &CredentialUse| {
            let mut callers = used.callers.iter().chain(&used.refused).chain(&used.unproved);
            used.last_used > limit || callers.any(|caller| caller.last_seen > limit)
        };
        set.credentials.iter().any(late)
    }

    /// Takes out the outcomes that this version does not know: those of a newer gate.
    fn strip(&self, set: &mut Sealed) -> usize {
        let mut unknown = 0;
        for used in &mut set.credentials {
            let all = used.outcomes.len();
            used.outcomes.retain(|outcome| Outcome::from_index(outcome.outcome).is_some());
            unknown += all - used.outcomes.len();
        }
        unknown
    }

    fn used(&self, token: &str, credential: &str, last: i64) -> Option<Use> {
        let shown = CredentialId::parse(credential).and_then(|id| self.world.shown(token, id)).is_some();
        let at = Timestamp::from_second(last).ok()?;
        Some(Use { credential: credential.to_owned(), at, shown })
    }
}

fn names(known: &[Published], id: CredentialId) -> bool {
    known.iter().any(|credential| credential.id == id)
}
