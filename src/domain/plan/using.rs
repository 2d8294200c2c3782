//! What use has to do with a plan: the summary that is shown, superseded credentials that nobody uses any more or that
//! are still used.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Planner;
use crate::api::{
    ApiTokenStatus, ConditionType, Credential, CredentialState, Reason, RetireWhen, UsageSummary,
};
use crate::domain::conditions::{Statement, Truth};
use crate::domain::coverage::Watched;
use crate::domain::health::{self, Facts, Judgement, Use};
use crate::domain::lifecycle::{self, End};
use crate::domain::{duration, requests};

/// While gates are waited for, what may be due is looked at again after this.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(1);
/// A superseded credential in use is told of this long before its deadline, or a quarter of the overlap if that is shorter.
const MAX_NOTICE: SignedDuration = SignedDuration::from_hours(24);

impl Planner<'_> {
    /// Enters the summary that was persisted last. What was used since is persisted under a budget, and shown then.
    pub(super) fn show_usage(&mut self) {
        let usage = self.observed.usage;
        let Some(persisted) = &usage.persisted else { return };
        let shown = self.draft.usage.get_or_insert_default();
        shown.last_used_at = shown.last_used_at.take().max(persisted.last_used.map(Time));
        shown.requests = Some(persisted.requests);
        shown.callers = Some(persisted.callers);
        for credential in &mut self.draft.credentials {
            let last = persisted.credentials.get(&credential.id).copied().map(Time);
            credential.last_used_at = credential.last_used_at.take().max(last);
        }
    }

    /// Enters since when gates have watched the token.
    pub(super) fn show_observation(&mut self) {
        if let (Watched::Since(since), Some(issued)) = (&self.observed.usage.watched, self.first_issued()) {
            self.draft.usage.get_or_insert_default().observed_since = Some(Time((*since).max(issued)));
        }
    }

    /// Since when the token can be used at all: its first credential was in the Secret. `None` before that.
    fn first_issued(&self) -> Option<Timestamp> {
        self.draft.last_rotation_time.as_ref()?;
        // In a status of an earlier version it is not noted.
        Some(self.draft.first_issued_time.as_ref().map_or(self.created, |first| first.0.max(self.created)))
    }

    /// When gates last accepted this credential, as far as anybody knows.
    fn last_used(&self, credential: &Credential) -> Option<Timestamp> {
        let live = self.observed.usage.last_used.get(&credential.id).copied();
        credential.last_used_at.as_ref().map(|at| at.0).max(live)
    }

    pub(super) fn judge_use(&self) -> Use {
        self.judge_use_by(&self.observed.usage.watched)
    }

    fn judge_use_by(&self, watched: &Watched) -> Use {
        // Nobody can use what was never issued: that it is not used says nothing, and is no idleness.
        let Some(issued) = self.first_issued().filter(|_| !self.is_over()) else { return Use::Unjudged };
        let usage = self.observed.usage;
        let shown = self.draft.usage.as_ref().and_then(|shown| shown.last_used_at.as_ref()).map(|at| at.0);
        let idle = self.observed.token.spec.idle.as_ref();
        let facts = Facts {
            watched,
            issued,
            last_used: usage.last_used.values().copied().max().max(shown),
            idle_after: idle.and_then(|idle| duration::parse(&idle.after).ok()),
        };
        match health::judge(&facts, self.now) {
            // Nobody can use it meanwhile: that it is not used says nothing.
            Use::Judged(_) if self.observed.token.spec.suspend => Use::AsBefore,
            used => used,
        }
    }

    /// Since when a superseded credential has not been used; not before it was superseded.
    fn unused_since(&self, credential: &Credential) -> Timestamp {
        let superseded = self.draft.last_rotation_time.as_ref().map_or(self.now, |at| at.0);
        self.last_used(credential).map_or(superseded, |last| last.max(superseded))
    }

    fn settle_time(&self) -> SignedDuration {
        SignedDuration::try_from(self.rotation.settle).unwrap_or(SignedDuration::MAX)
    }

    /// When each superseded credential may be retired for want of use.
    fn retirements(&self, watched: &Watched) -> Vec<(String, Timestamp)> {
        let Watched::Since(since) = *watched else { return Vec::new() };
        if self.rotation.retire != RetireWhen::WhenUnused {
            return Vec::new();
        }
        let superseded = self.draft.credentials.iter().filter(|c| c.state == CredentialState::Retiring);
        superseded
            .filter_map(|credential| {
                let from = self.unused_since(credential).max(since);
                Some((credential.id.clone(), from.checked_add(self.settle_time()).ok()?))
            })
            .collect()
    }

    /// Ends superseded credentials that gates have watched unused for long enough.
    pub(super) fn retire_unused(&mut self) {
        let now = self.now;
        let all = self.retirements(&self.observed.usage.watched);
        let unused: Vec<_> = all.into_iter().filter(|(_, at)| *at <= now).collect();
        lifecycle::end_where(&mut self.draft, End::early(Reason::RetiredUnused), now, |credential| {
            unused.iter().any(|(id, _)| *id == credential.id)
        });
    }

    fn warns_from(&self, credential: &Credential) -> Option<Timestamp> {
        let overlap = SignedDuration::try_from(self.rotation.overlap).unwrap_or(SignedDuration::MAX);
        credential.not_after.as_ref()?.0.checked_sub((overlap / 4).min(MAX_NOTICE)).ok()
    }

    /// Superseded credentials near their deadline that were used within the settle time.
    fn still_used(&self) -> Vec<&Credential> {
        let superseded = self.draft.last_rotation_time.as_ref().map_or(Timestamp::MAX, |at| at.0);
        let is_used = |credential: &&Credential| {
            credential.state == CredentialState::Retiring
                && self.warns_from(credential).is_some_and(|from| from <= self.now)
                && self.last_used(credential).is_some_and(|last| {
                    last > superseded && self.now.duration_since(last) < self.settle_time()
                })
        };
        self.draft.credentials.iter().filter(is_used).collect()
    }

    /// Conditions that are present while they are true.
    pub(super) fn findings(&self) -> Vec<Statement> {
        let found = |kind, reason, message| Statement { kind, status: Truth::True, reason, message };
        let ignored = requests::ignored(self.observed.token, &self.settings.ownership);
        let ignored = ignored
            .map(|message| found(ConditionType::UnknownAnnotation, Reason::UnknownAnnotation, message));
        let mut findings: Vec<_> = ignored.into_iter().collect();
        if self.is_over() {
            return findings;
        }
        let used: Vec<String> =
            self.still_used().iter().map(|credential| self.still_used_message(credential)).collect();
        if !used.is_empty() {
            let message = used.join("; ");
            findings.push(found(ConditionType::SupersededInUse, Reason::SupersededInUse, message));
        }
        findings.extend(self.mutated());
        findings
    }

    fn still_used_message(&self, credential: &Credential) -> String {
        let described = self.observed.usage.persisted.as_ref().and_then(|p| p.described.get(&credential.id));
        let callers = described.map(|callers| callers.join(", ")).unwrap_or_default();
        let by = if callers.is_empty() { String::new() } else { format!(" by {callers}") };
        let until = credential.not_after.as_ref().map(|at| at.0.to_string()).unwrap_or_default();
        format!(
            "Superseded credential {} ends at {until} and is still used{by}: have them read the Secret again",
            credential.id
        )
    }

    /// When use, or the lack of it, makes something due.
    pub(super) fn use_wakes(&self) -> Vec<Timestamp> {
        // Nothing is concluded while gates are waited for. What would be, had they watched, is looked at again soon.
        let settling = self.observed.usage.watched == Watched::Settling;
        let watched = match settling {
            true => Watched::Since(Timestamp::UNIX_EPOCH),
            false => self.observed.usage.watched.clone(),
        };
        let judged = match self.judge_use_by(&watched) {
            Use::Judged(judgement) if settling && !self.said_before(&judgement) => Some(self.now),
            Use::Judged(judgement) => judgement.wake,
            _ => None,
        };
        let retirements = self.retirements(&watched).into_iter().map(|(_, at)| at);
        let not_before = match settling {
            true => self.now.checked_add(LOOK_AGAIN).unwrap_or(self.now),
            false => self.now,
        };
        let due = judged.into_iter().chain(retirements).map(|at| at.max(not_before));
        let warnings = self.draft.credentials.iter().filter(|credential| {
            credential.state == CredentialState::Retiring && self.observed.usage.watched != Watched::Unasked
        });
        let warnings = warnings.filter_map(|credential| self.warns_from(credential));
        let calm = self
            .still_used()
            .into_iter()
            .filter_map(|credential| self.last_used(credential)?.checked_add(self.settle_time()).ok());
        due.chain(warnings).chain(calm).collect()
    }

    fn said_before(&self, judgement: &Judgement) -> bool {
        let said = self.before.condition(ConditionType::InUse).map(|said| said.reason.as_str());
        said == Some(judgement.reason.as_str()) && self.before.is_true(ConditionType::Idle) == judgement.idle
    }
}

/// The status with nothing in its summary of use that differs from `before` by the time of observation alone: since when
/// gates watch is worth knowing, and not worth a write for every token whenever one starts.
pub(super) fn without_mere_observation(before: &ApiTokenStatus, after: &mut ApiTokenStatus) {
    let shown = |status: &ApiTokenStatus| UsageSummary {
        observed_since: None,
        ..status.usage.clone().unwrap_or_default()
    };
    if shown(before) == shown(after) {
        after.usage.clone_from(&before.usage);
    }
}
