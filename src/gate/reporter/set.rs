//! Counts of one token, merged.

use std::cmp::Reverse;

use crate::api::report::{
    CallerUse, CredentialUse, MAX_CALLERS, MAX_COUNT, MAX_REFUSED, MAX_SCOPES, MAX_UNPROVED, OutcomeCount,
    ScopeUse, Sealed,
};

/// Most credentials in one set. A token has fewer at any time; only while the ledger is away for long do more come together.
pub(super) const MAX_CREDENTIALS: usize = 32;

/// Counts that can still grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Set {
    credentials: Vec<CredentialUse>,
    scopes: Vec<ScopeUse>,
}

impl Set {
    /// Adds counts. Returns how many answers were forgotten for want of room.
    pub(super) fn add(&mut self, mut credentials: Vec<CredentialUse>, mut scopes: Vec<ScopeUse>) -> u64 {
        if self.credentials.is_empty() && self.scopes.is_empty() {
            // Room to grow, for each of very many tokens, would be most of what they take.
            for used in &mut credentials {
                used.outcomes.shrink_to_fit();
                lists(used).into_iter().for_each(|(list, _)| list.shrink_to_fit());
            }
            credentials.shrink_to_fit();
            scopes.shrink_to_fit();
            (self.credentials, self.scopes) = (credentials, scopes);
            return self.forget();
        }
        for used in credentials {
            match self.credentials.iter_mut().find(|known| known.credential == used.credential) {
                Some(known) => merge(known, used),
                None => self.credentials.push(used),
            }
        }
        for used in scopes {
            match self.scopes.iter().position(|known| known.scope == used.scope) {
                Some(at) => self.scopes[at].count = self.scopes[at].count.saturating_add(used.count),
                None if self.scopes.len() < MAX_SCOPES => self.scopes.push(used),
                None => {}
            }
        }
        self.forget()
    }

    /// Those that were used last stay.
    fn forget(&mut self) -> u64 {
        if self.credentials.len() <= MAX_CREDENTIALS {
            return 0;
        }
        self.credentials.sort_by_key(|used| Reverse(used.last_used));
        self.credentials.drain(MAX_CREDENTIALS..).map(|used| used.answers()).sum()
    }

    /// Answers of all credentials.
    pub(super) fn total(&self) -> u64 {
        CredentialUse::answers_of_all(&self.credentials)
    }

    /// Under a number, and what is above [`MAX_COUNT`] and has to wait for the next.
    pub(super) fn seal(mut self, token: &str, sequence: u64) -> (Sealed, Option<Self>) {
        let rest = if self.total() > MAX_COUNT { Some(self.split()) } else { None };
        let Self { credentials, scopes } = self;
        (Sealed { token: token.to_owned(), sequence, credentials, scopes }, rest)
    }

    /// Keeps [`MAX_COUNT`] answers and returns the rest. Which caller or scope goes with which answer is not known; both
    /// sides keep the times.
    fn split(&mut self) -> Self {
        let mut rest = self.clone();
        let mut left = MAX_COUNT;
        for (kept, rest) in self.credentials.iter_mut().zip(&mut rest.credentials) {
            for (kept, rest) in kept.outcomes.iter_mut().zip(&mut rest.outcomes) {
                take(&mut kept.count, &mut rest.count, &mut left);
            }
            for ((kept, _), (rest, _)) in lists(kept).into_iter().zip(lists(rest)) {
                for (kept, rest) in kept.iter_mut().zip(rest) {
                    take(&mut kept.count, &mut rest.count, &mut MAX_COUNT.clone());
                    kept.error = kept.error.min(kept.count);
                    rest.error = (rest.error - kept.error).min(rest.count);
                }
            }
        }
        for (kept, rest) in self.scopes.iter_mut().zip(&mut rest.scopes) {
            take(&mut kept.count, &mut rest.count, &mut MAX_COUNT.clone());
        }
        self.tidy();
        rest.tidy();
        rest
    }

    /// Without what counts nothing: a credential that was not accepted in this part has no times and no callers.
    fn tidy(&mut self) {
        let accepted = crate::api::Outcome::Accepted.index();
        for used in &mut self.credentials {
            used.outcomes.retain(|counted| counted.count > 0);
            lists(used).into_iter().for_each(|(list, _)| list.retain(|caller| caller.count > 0));
            if !used.outcomes.iter().any(|counted| counted.outcome == accepted) {
                (used.first_used, used.last_used) = (0, 0);
                used.callers.clear();
            }
        }
        self.credentials.retain(|used| !used.outcomes.is_empty());
        self.scopes.retain(|scope| scope.count > 0);
    }
}

/// Leaves as much as may be kept, and moves the rest over.
fn take(kept: &mut u64, rest: &mut u64, left: &mut u64) {
    let all = *kept;
    *kept = all.min(*left);
    *rest = all - *kept;
    *left -= *kept;
}

fn merge(known: &mut CredentialUse, mut other: CredentialUse) {
    for OutcomeCount { outcome, count } in std::mem::take(&mut other.outcomes) {
        match known.outcomes.iter_mut().find(|known| known.outcome == outcome) {
            Some(known) => known.count = known.count.saturating_add(count),
            None => known.outcomes.push(OutcomeCount { outcome, count }),
        }
    }
    if other.last_used != 0 {
        known.first_used =
            if known.first_used == 0 { other.first_used } else { known.first_used.min(other.first_used) };
        known.last_used = known.last_used.max(other.last_used);
    }
    for ((known, most), (other, _)) in lists(known).into_iter().zip(lists(&mut other)) {
        merge_callers(known, std::mem::take(other), most);
    }
}

/// The lists of callers, and how many each may hold.
fn lists(used: &mut CredentialUse) -> [(&mut Vec<CallerUse>, usize); 3] {
    let CredentialUse { callers, refused, unproved, .. } = used;
    [(callers, MAX_CALLERS), (refused, MAX_REFUSED), (unproved, MAX_UNPROVED)]
}

/// Space-Saving summaries merge: a caller that one of the two did not keep may have been seen there as often as the least
/// that it kept. The busiest stay.
fn merge_callers(known: &mut Vec<CallerUse>, other: Vec<CallerUse>, most: usize) {
    let (known_floor, other_floor) = (floor(known, most), floor(&other, most));
    let before = known.len();
    let mut in_both = vec![false; before];
    for caller in other {
        match known[..before].iter().position(|own| is_same(own, &caller)) {
            Some(at) => {
                let own = &mut known[at];
                own.count = own.count.saturating_add(caller.count);
                own.error = own.error.saturating_add(caller.error);
                own.first_seen = own.first_seen.min(caller.first_seen);
                own.last_seen = own.last_seen.max(caller.last_seen);
                in_both[at] = true;
            }
            None => known.push(CallerUse {
                count: caller.count.saturating_add(known_floor),
                error: caller.error.saturating_add(known_floor),
                ..caller
            }),
        }
    }
    for (own, _) in known.iter_mut().zip(in_both).filter(|(_, in_both)| !in_both) {
        own.count = own.count.saturating_add(other_floor);
        own.error = own.error.saturating_add(other_floor);
    }
    if known.len() > most {
        known.sort_by_key(|caller| Reverse((caller.count, caller.last_seen)));
        known.truncate(most);
    }
}

fn is_same(one: &CallerUse, other: &CallerUse) -> bool {
    one.outcome == other.outcome
        && one.address == other.address
        && one.user_agent == other.user_agent
        && one.principal == other.principal
}

/// How often a caller may have been seen that was not kept.
fn floor(callers: &[CallerUse], most: usize) -> u64 {
    if callers.len() < most { 0 } else { callers.iter().map(|caller| caller.count).min().unwrap_or(0) }
}
