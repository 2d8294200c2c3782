//! Sealed counts into a TokenUsage.

use std::cmp::Reverse;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Persisted;
use crate::api::report::{CallerUse, CredentialUse, Sealed};
use crate::api::{
    CallerUsage, CredentialUsage, HourlyUsage, MAX_CALLERS, MAX_CREDENTIAL_USAGES, MAX_HOURS,
    MAX_REFUSED_CALLERS, MAX_SCOPES, MAX_SOURCES, MAX_UNPROVED_CALLERS, Outcome, RefusedUsage, ScopeUsage,
    Source, TokenUsageStatus,
};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// What became of a sealed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It is counted in.
    Counted,
    /// It was counted in before.
    Known,
    /// It is of a process that ran under this name before the one that is counted in already, or whose clock was behind. Whether
    /// it was counted in is not known any more, so it is not.
    Outdated,
}

const HOUR: i64 = 3_600;

/// Counts a sealed set in, at `now`, unless it was counted in before.
pub fn merge(
    status: &mut TokenUsageStatus,
    gate: &str,
    epoch: i64,
    sealed: &Sealed,
    now: Timestamp,
) -> Merged {
    let sequence = i64::try_from(sealed.sequence).unwrap_or(i64::MAX);
    match status.sources.iter_mut().find(|source| source.gate == gate) {
        Some(source) if source.epoch > epoch => return Merged::Outdated,
        Some(source) if (source.epoch, source.sequence) >= (epoch, sequence) => return Merged::Known,
        Some(source) => {
            (source.epoch, source.sequence, source.reported_at) = (epoch, sequence, Some(Time(now)));
        }
        None => status.sources.push(Source {
            gate: gate.to_owned(),
            epoch,
            sequence,
            reported_at: Some(Time(now)),
        }),
    }
    // Never this one, whatever the clocks say: it would be counted again.
    keep(&mut status.sources, MAX_SOURCES, |source| (source.gate == gate, source.reported_at.clone()));

    let (mut accepted, mut refused) = (0, 0);
    for credential in &sealed.credentials {
        let (yes, no) = count_outcomes(status, credential);
        accepted += yes;
        refused += no;
        count_credential(status, credential, yes);
        credential.callers.iter().for_each(|caller| count_caller(status, &credential.credential, caller));
        for (list, callers) in
            [(&mut status.refused, &credential.refused), (&mut status.unproved, &credential.unproved)]
        {
            callers.iter().for_each(|caller| count_refused(list, &credential.credential, caller));
        }
    }
    keep(&mut status.credentials, MAX_CREDENTIAL_USAGES, |credential| credential.last_used_at.clone());
    keep(&mut status.callers, MAX_CALLERS, |caller| Some(caller.last_seen_at.clone()));
    keep(&mut status.refused, MAX_REFUSED_CALLERS, |caller| caller.last_seen_at.clone());
    keep(&mut status.unproved, MAX_UNPROVED_CALLERS, |caller| caller.last_seen_at.clone());

    let last = status.last_used_at.as_ref().map(|at| at.0);
    for scope in &sealed.scopes {
        let known = status.scopes.iter_mut().position(|known| known.scope == scope.scope);
        let at = known.unwrap_or_else(|| {
            status.scopes.push(ScopeUsage { scope: scope.scope.clone(), ..ScopeUsage::default() });
            status.scopes.len() - 1
        });
        let known = &mut status.scopes[at];
        known.requests = known.requests.saturating_add(signed(scope.count));
        let used = sealed.credentials.iter().filter_map(|credential| time(credential.last_used)).max();
        known.last_used_at = known.last_used_at.take().max(used.or(last).map(Time));
    }
    keep(&mut status.scopes, MAX_SCOPES, |scope| scope.last_used_at.clone());

    let when =
        sealed.credentials.iter().filter_map(|credential| time(credential.last_used)).max().unwrap_or(now);
    count_hour(status, when.min(now), accepted, refused);
    Merged::Counted
}

/// Notes that a credential was used later than its counts say: what travels ahead of them. Only where it is counted already;
/// nothing is first seen this way.
pub fn touch(status: &mut TokenUsageStatus, credential: &str, at: Timestamp) {
    if let Some(known) = status.credentials.iter_mut().find(|known| known.id == credential) {
        latest(&mut known.last_used_at, &Time(at));
        latest(&mut status.last_used_at, &Time(at));
    }
}

fn count_outcomes(status: &mut TokenUsageStatus, credential: &CredentialUse) -> (i64, i64) {
    let (mut accepted, mut refused) = (0_i64, 0_i64);
    for counted in &credential.outcomes {
        let Some(outcome) = Outcome::from_index(counted.outcome) else { continue };
        let count = signed(counted.count);
        let sum = status.outcomes.entry(outcome.as_str().to_owned()).or_default();
        *sum = sum.saturating_add(count);
        let side = if outcome == Outcome::Accepted { &mut accepted } else { &mut refused };
        *side = side.saturating_add(count);
    }
    status.requests = status.requests.saturating_add(accepted);
    (accepted, refused)
}

fn count_credential(status: &mut TokenUsageStatus, counted: &CredentialUse, accepted: i64) {
    let (Some(first), Some(last)) = (time(counted.first_used), time(counted.last_used)) else { return };
    let (first, last) = (Time(first), Time(last));
    earliest(&mut status.first_used_at, &first);
    latest(&mut status.last_used_at, &last);
    let at =
        status.credentials.iter().position(|known| known.id == counted.credential).unwrap_or_else(|| {
            status
                .credentials
                .push(CredentialUsage { id: counted.credential.clone(), ..CredentialUsage::default() });
            status.credentials.len() - 1
        });
    let known = &mut status.credentials[at];
    known.requests = known.requests.saturating_add(accepted);
    earliest(&mut known.first_used_at, &first);
    latest(&mut known.last_used_at, &last);
}

fn count_caller(status: &mut TokenUsageStatus, credential: &str, counted: &CallerUse) {
    let (Some(first), Some(last)) = (time(counted.first_seen), time(counted.last_seen)) else { return };
    let known = status.callers.iter_mut().find(|known| {
        known.credential == credential
            && known.address == counted.address
            && known.principal == counted.principal
            && known.user_agent == counted.user_agent
    });
    match known {
        Some(known) => {
            known.requests = known.requests.saturating_add(signed(counted.count));
            known.error = known.error.saturating_add(signed(counted.error));
            known.first_seen_at.0 = known.first_seen_at.0.min(first);
            known.last_seen_at.0 = known.last_seen_at.0.max(last);
        }
        None => status.callers.push(CallerUsage {
            credential: credential.to_owned(),
            address: counted.address.clone(),
            principal: counted.principal.clone(),
            user_agent: counted.user_agent.clone(),
            requests: signed(counted.count),
            error: signed(counted.error),
            first_seen_at: Time(first),
            last_seen_at: Time(last),
        }),
    }
}

fn count_refused(list: &mut Vec<RefusedUsage>, credential: &str, counted: &CallerUse) {
    let (Some(first), Some(last)) = (time(counted.first_seen), time(counted.last_seen)) else { return };
    let Some(outcome) = Outcome::from_index(counted.outcome).map(Outcome::as_str) else { return };
    let known = list.iter_mut().find(|known| {
        known.credential == credential
            && known.outcome == outcome
            && known.address == counted.address
            && known.principal == counted.principal
            && known.user_agent == counted.user_agent
    });
    match known {
        Some(known) => {
            known.requests = known.requests.saturating_add(signed(counted.count));
            known.error = known.error.saturating_add(signed(counted.error));
            known.first_seen_at.0 = known.first_seen_at.0.min(first);
            known.last_seen_at.0 = known.last_seen_at.0.max(last);
        }
        None => list.push(RefusedUsage {
            credential: credential.to_owned(),
            outcome: outcome.to_owned(),
            address: counted.address.clone(),
            principal: counted.principal.clone(),
            user_agent: counted.user_agent.clone(),
            requests: signed(counted.count),
            error: signed(counted.error),
            first_seen_at: Time(first),
            last_seen_at: Time(last),
        }),
    }
}

fn count_hour(status: &mut TokenUsageStatus, when: Timestamp, accepted: i64, refused: i64) {
    let hour = when.as_second().div_euclid(HOUR) * HOUR;
    let Ok(start) = Timestamp::from_second(hour) else { return };
    let hourly = status.hourly.get_or_insert_with(|| HourlyUsage {
        from: Time(start),
        accepted: Vec::new(),
        refused: Vec::new(),
    });
    let mut at = (hour - hourly.from.0.as_second()).div_euclid(HOUR);
    if at < 0 {
        // Another gate's report of an earlier hour came later.
        let missing = usize::try_from(-at).unwrap_or(usize::MAX);
        if hourly.accepted.len().saturating_add(missing) > MAX_HOURS {
            return;
        }
        for row in [&mut hourly.accepted, &mut hourly.refused] {
            row.splice(0..0, std::iter::repeat_n(0, missing));
        }
        (hourly.from, at) = (Time(start), 0);
    }
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    // After a pause of a week nothing that is kept is left.
    if at >= hourly.accepted.len().saturating_add(MAX_HOURS) {
        *hourly = HourlyUsage { from: Time(start), accepted: vec![accepted], refused: vec![refused] };
        return;
    }
    for (row, count) in [(&mut hourly.accepted, accepted), (&mut hourly.refused, refused)] {
        if row.len() <= at {
            row.resize(at + 1, 0);
        }
        row[at] = row[at].saturating_add(count);
    }
    let surplus = hourly.accepted.len().saturating_sub(MAX_HOURS);
    hourly.accepted.drain(..surplus);
    hourly.refused.drain(..surplus.min(hourly.refused.len()));
    let moved = SignedDuration::from_hours(i64::try_from(surplus).unwrap_or(0));
    hourly.from.0 = hourly.from.0.saturating_add(moved).unwrap_or(start);
}

/// Keeps the `most` latest, latest first.
fn keep<T, K: Ord>(list: &mut Vec<T>, most: usize, when: impl Fn(&T) -> K) {
    list.sort_by_key(|item| Reverse(when(item)));
    list.truncate(most);
}

fn earliest(known: &mut Option<Time>, other: &Time) {
    *known = known.take().into_iter().chain([other.clone()]).min();
}

fn latest(known: &mut Option<Time>, other: &Time) {
    *known = known.take().max(Some(other.clone()));
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A time as it travels; 0 means none.
fn time(second: i64) -> Option<Timestamp> {
    (second > 0).then(|| Timestamp::from_second(second).ok()).flatten()
}

impl Persisted {
    /// Callers of one credential that are described.
    const DESCRIBED: usize = 3;

    /// The summary of what was persisted.
    pub fn of(status: &TokenUsageStatus) -> Self {
        let mut distinct: Vec<_> =
            status.callers.iter().map(|c| (&c.address, &c.principal, &c.user_agent)).collect();
        distinct.sort();
        distinct.dedup();
        let mut summary = Self {
            requests: status.requests,
            callers: i32::try_from(distinct.len()).unwrap_or(i32::MAX),
            last_used: status.last_used_at.as_ref().map(|at| at.0),
            ..Self::default()
        };
        for credential in &status.credentials {
            if let Some(last) = &credential.last_used_at {
                summary.credentials.insert(credential.id.clone(), last.0);
            }
        }
        for caller in &status.callers {
            let described = summary.described.entry(caller.credential.clone()).or_default();
            if described.len() < Self::DESCRIBED {
                described.push(describe(caller));
            }
        }
        summary
    }
}

/// A caller for people: whatever of principal, address and user agent is known.
fn describe(caller: &CallerUsage) -> String {
    let known = [&caller.principal, &caller.address].into_iter().filter(|part| !part.is_empty());
    let mut text = known.cloned().collect::<Vec<_>>().join(" at ");
    if !caller.user_agent.is_empty() {
        text.push_str(&format!("{}({})", if text.is_empty() { "" } else { " " }, caller.user_agent));
    }
    if text.is_empty() { "an unnamed caller".to_owned() } else { text }
}
