//! What is known of one ApiToken and its Secret, and the checks of each change of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::gate;
use crate::api::{
    ApiToken, ApiTokenStatus, ConditionType, Credential, CredentialState, MAX_CREDENTIALS, MAX_ENDED, Owner,
    Reason, keys,
};
use crate::domain::delivery;
use crate::domain::schedule::{Expiry, Rotation};

/// The whole status as the API server stores it, in bytes.
const MAX_STATUS: usize = 10_000;

/// One ApiToken as the oracles see it.
pub(super) struct Book {
    pub(super) token: ApiToken,
    pub(super) secret: Option<Secret>,
    /// Credentials that may have been minted, counted from causes that are no matter of time.
    causes: usize,
    minted: usize,
    /// Who minted what, by credential id.
    minters: BTreeMap<String, Arc<str>>,
    /// Every digest that a controller published.
    published: BTreeSet<String>,
    /// Digests that have ended.
    ended: BTreeSet<String>,
    /// The Secret was seen to hold the active credential, and nobody has disturbed that since.
    delivered: bool,
    /// The Secret as a controller last wrote it.
    written: Option<Secret>,
    /// Somebody wrote the status, and no controller has put that right yet.
    forged: bool,
    /// How far the clocks of controllers may be off.
    pub(super) skew: SignedDuration,
}

type Verdict = Result<(), String>;

impl Book {
    pub(super) fn new(token: ApiToken, secret: Option<Secret>, skew: SignedDuration) -> Self {
        Self {
            token,
            secret,
            causes: 1,
            minted: 0,
            minters: BTreeMap::new(),
            published: BTreeSet::new(),
            ended: BTreeSet::new(),
            delivered: false,
            written: None,
            forged: false,
            skew,
        }
    }

    /// What has reached its declared end, by the clock of any controller, need not work any more.
    fn lapses(&mut self, at: Timestamp) {
        self.delivered &= !gate::is_over(&self.token, self.latest(at));
    }

    /// The time on the clock that is furthest ahead.
    fn latest(&self, at: Timestamp) -> Timestamp {
        at.saturating_add(self.skew).unwrap_or(Timestamp::MAX)
    }

    /// A cause for a credential that this book cannot see by itself.
    pub(super) fn cause(&mut self) {
        self.causes += 1;
    }

    /// Digest of the token in the Secret, wherever it stands.
    pub(super) fn held(&self) -> Option<String> {
        let secret = self.secret.as_ref()?;
        if !delivery::is_controlled_by(&secret.metadata, self.token.uid()) {
            return None;
        }
        let key = self.token.spec.secret.clone().unwrap_or_default().key().to_owned();
        delivery::held_token(secret, &key, &self.status().credentials).map(|token| token.digest())
    }

    /// Whether gates accept what the Secret holds.
    pub(super) fn works(&self, now: Timestamp) -> bool {
        self.held().is_some_and(|held| gate::accepts(&self.token, &held, now))
    }

    pub(super) fn status(&self) -> ApiTokenStatus {
        self.token.status.clone().unwrap_or_default()
    }

    // ---- People -----------------------------------------------------------------------------------------------------

    /// Somebody changed the ApiToken: which credentials does that call for?
    pub(super) fn edited(&mut self, after: ApiToken, at: Timestamp) {
        self.lapses(at);
        let before = std::mem::replace(&mut self.token, after);
        let asked = |key| {
            let value = self.token.annotation(key);
            value.is_some() && value != before.annotation(key)
        };
        let (rotate, compromise) = (asked(keys::ROTATE_REQUESTED_AT), asked(keys::COMPROMISED_AT));
        let revived = before.spec.expiry != self.token.spec.expiry;
        let forged = before.status != self.token.status;
        self.causes += usize::from(rotate) + usize::from(compromise) + usize::from(revived);
        self.delivered &= !compromise;
        if forged {
            // What was undelivered, and which requests were honoured, may be forgotten with it.
            self.causes += 3;
            self.forged = true;
            self.delivered = false;
        }
    }

    /// Somebody changed the Secret, or it was collected.
    pub(super) fn tampered(&mut self, after: Option<Secret>) {
        let before = self.held();
        self.secret = after;
        if self.held() != before {
            self.causes += 1;
            self.delivered = false;
        }
    }

    // ---- Controllers ------------------------------------------------------------------------------------------------

    /// A controller wrote the status.
    pub(super) fn reported(&mut self, after: ApiToken, by: &Arc<str>, at: Timestamp) -> Verdict {
        self.lapses(at);
        let old = std::mem::replace(&mut self.token, after);
        let (before, after) = (old.status.clone().unwrap_or_default(), self.status());
        only_status_changed(&old, &self.token)?;
        says_something(&before, &after)?;
        is_sound(&after)?;
        if after.observed_generation != self.token.metadata.generation {
            return Err(format!("observedGeneration is {:?}", after.observed_generation));
        }
        self.is_in_force(&after)?;
        self.mints_for_a_cause(&old, &after, by, at)?;
        self.ends_for_good(&before, &after)?;
        if !self.forged {
            self.moves_no_time(&old, &before, &after)?;
        }
        if self.works(at)
            && after.newest(CredentialState::Active).map(|active| &active.digest) == self.held().as_ref()
        {
            self.delivered = true;
            self.forged = false;
        }
        self.still_works(at)
    }

    /// A controller wrote the Secret.
    pub(super) fn delivered(&mut self, after: Secret, at: Timestamp) -> Verdict {
        if let Some(before) = &self.secret
            && !delivery::is_controlled_by(&before.metadata, self.token.uid())
            && !self.may_adopt(before)
        {
            return Err("I4: a Secret was written that the ApiToken does not control".to_owned());
        }
        if !delivery::is_controlled_by(&after.metadata, self.token.uid()) {
            return Err("I4: a Secret was written without the owner reference".to_owned());
        }
        self.written = Some(after.clone());
        self.secret = Some(after);
        let held = self.held().ok_or("a Secret was written without a token")?;
        if !self.forged && !self.published.contains(&held) {
            return Err(format!("I3: {held} is in the Secret and was never published"));
        }
        self.still_works(at)
    }

    /// The one exception of I4: nobody's Secret, of our making by its label, that the ApiToken names by its uid.
    fn may_adopt(&self, secret: &Secret) -> bool {
        let metadata = &secret.metadata;
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(keys::TOKEN));
        let mut owners = metadata.owner_references.iter().flatten();
        owners.all(|owner| owner.controller != Some(true))
            && label.map(String::as_str) == Some(self.token.name())
            && self.token.annotation(keys::ADOPT) == metadata.uid.as_deref()
    }

    /// Digests that the status names, living and ended.
    pub(super) fn digests(&self) -> impl Iterator<Item = String> + use<> {
        let status = self.status();
        let living = status.credentials.into_iter().map(|living| living.digest);
        living.chain(status.ended.into_iter().map(|ended| ended.digest))
    }

    /// I1 and I8: what was delivered goes on to work until its declared end, whatever else happens.
    pub(super) fn still_works(&self, at: Timestamp) -> Verdict {
        if !self.delivered || gate::is_over(&self.token, self.latest(at)) || gate::is_compromised(&self.token)
        {
            return Ok(());
        }
        match self.held() {
            Some(held) if gate::living(&self.token, &held, at).is_some() => Ok(()),
            held => Err(format!("I1: the Secret holds {held:?}, which gates refuse")),
        }
    }

    /// While Ready, what this generation declares is understood, and stands in the Secret as it was last written.
    fn is_in_force(&self, status: &ApiTokenStatus) -> Verdict {
        if !status.is_true(ConditionType::Ready) {
            return Ok(());
        }
        let (token, spec) = (&self.token, &self.token.spec);
        let said = |what: String| {
            format!("Ready, and generation {:?} is not in force: {what}", token.metadata.generation)
        };
        let created = token.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |created| created.0);
        let rotation = Rotation::parse(spec.rotation.as_ref()).map_err(|error| said(error.to_string()))?;
        if let Some(active) = status.newest(CredentialState::Active) {
            let due = rotation.due(token.uid(), &active.id, active.issued_at.0);
            due.map_err(|error| said(error.to_string()))?;
        }
        Expiry::parse(spec.expiry.as_ref(), created).map_err(|error| said(error.to_string()))?;
        // What admission makes of it is told beside.
        let told = status.is_true(ConditionType::SecretMutated);
        let Some(written) = self.written.as_ref().filter(|_| !told) else { return Ok(()) };
        let annotation =
            |key: &str| written.metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
        // The owner may have changed since: that is no part of the generation.
        let owner = annotation(keys::OWNER).map(|name| Owner {
            name,
            contact: annotation(keys::CONTACT),
            source: String::new(),
        });
        let issued = annotation(keys::ISSUED_AT).and_then(|at| at.parse().ok()).unwrap_or(Timestamp::MIN);
        let held =
            delivery::noted_token(written).ok_or_else(|| said("the Secret names no token".to_owned()))?;
        let desired = delivery::desired(token, owner.as_ref(), &held, issued);
        match desired.map_err(|error| said(error.to_string()))?.is_met_by(written) {
            true => Ok(()),
            false => Err(said("the Secret was last written as another one declared it".to_owned())),
        }
    }

    /// I2.
    fn mints_for_a_cause(
        &mut self,
        old: &ApiToken,
        after: &ApiTokenStatus,
        by: &Arc<str>,
        at: Timestamp,
    ) -> Verdict {
        let before = old.status.clone().unwrap_or_default();
        let known = |credential: &&Credential| !before.credentials.iter().any(|c| c.id == credential.id);
        let fresh: Vec<Credential> = after.credentials.iter().filter(known).cloned().collect();
        for credential in fresh {
            let adopted = credential.reason.as_deref() == Some(Reason::Adopted.as_str());
            if adopted {
                self.published.insert(credential.digest);
                continue;
            }
            let pending = |credential: &&Credential| credential.state == CredentialState::Pending;
            let mut undelivered = before.credentials.iter().filter(pending);
            // Its plaintext died with the process that minted it.
            let lost = undelivered.clone().any(|pending| self.minters.get(&pending.id) != Some(by));
            let first = undelivered.next().is_none();
            let due = credential.reason.as_deref() == Some(Reason::Due.as_str());
            let granted = lost || (due && first && self.is_due(old, &before, at));
            self.minted += 1;
            self.causes += usize::from(granted);
            self.minters.insert(credential.id.clone(), by.clone());
            self.published.insert(credential.digest.clone());
            if self.minted > self.causes {
                return Err(format!(
                    "I2: {} credentials for {} causes: {credential:?} after {:?}",
                    self.minted, self.causes, before.credentials
                ));
            }
        }
        Ok(())
    }

    fn is_due(&self, old: &ApiToken, before: &ApiTokenStatus, at: Timestamp) -> bool {
        let Some(active) = before.newest(CredentialState::Active) else { return false };
        let rotation = Rotation::parse(old.spec.rotation.as_ref());
        let due = rotation.and_then(|rotation| rotation.due(old.uid(), &active.id, active.issued_at.0));
        due.ok().flatten().is_some_and(|due| due <= self.latest(at))
    }

    /// What has ended never lives again.
    fn ends_for_good(&mut self, before: &ApiTokenStatus, after: &ApiTokenStatus) -> Verdict {
        let lives = |status: &ApiTokenStatus, digest: &String| {
            status.credentials.iter().any(|credential| credential.digest == *digest)
        };
        let gone = before.credentials.iter().map(|credential| credential.digest.clone());
        self.ended.extend(gone.filter(|digest| !lives(after, digest)));
        match self.ended.iter().find(|digest| lives(after, digest)) {
            Some(digest) if !self.forged => Err(format!("I6: {digest} had ended and lives again")),
            _ => Ok(()),
        }
    }

    /// I6 and I7: no deadline moves away, no rotation moves at all, without a change of the spec.
    fn moves_no_time(&self, old: &ApiToken, before: &ApiTokenStatus, after: &ApiTokenStatus) -> Verdict {
        for credential in &after.credentials {
            let earlier = before.credentials.iter().find(|earlier| earlier.id == credential.id);
            let Some(earlier) = earlier else { continue };
            if earlier.state == CredentialState::Retiring && credential.not_after > earlier.not_after {
                return Err(format!("I6: the deadline of superseded {} moved away", credential.id));
            }
        }
        let active = |status: &ApiTokenStatus| status.newest(CredentialState::Active).map(|a| a.id.clone());
        let same = before.observed_generation == old.metadata.generation && active(before) == active(after);
        match (&before.next_rotation_time, &after.next_rotation_time) {
            (Some(was), Some(is)) if same && was != is => {
                Err(format!("I7: rotation moved: {was:?} to {is:?}"))
            }
            _ => Ok(()),
        }
    }
}

fn only_status_changed(before: &ApiToken, after: &ApiToken) -> Verdict {
    let same = before.spec == after.spec
        && before.metadata.labels == after.metadata.labels
        && before.metadata.annotations == after.metadata.annotations
        && before.metadata.generation == after.metadata.generation;
    if same { Ok(()) } else { Err("a controller changed more of an ApiToken than its status".to_owned()) }
}

/// I5: a write tells something; that the Secret was verified anew is not enough.
fn says_something(before: &ApiTokenStatus, after: &ApiTokenStatus) -> Verdict {
    let mut same = after.clone();
    if let (Some(was), Some(is)) = (&before.delivery, &mut same.delivery)
        && was.content_hash == is.content_hash
    {
        *is = was.clone();
    }
    if same == *before { Err("I5: a status was written that says nothing new".to_owned()) } else { Ok(()) }
}

/// Bounds, list maps without doubled keys, and conditions by kstatus.
fn is_sound(status: &ApiTokenStatus) -> Verdict {
    let size = serde_json::to_vec(status).map_or(usize::MAX, |text| text.len());
    let ids: BTreeSet<_> = status.credentials.iter().map(|credential| &credential.id).collect();
    let types: BTreeSet<_> = status.conditions.iter().map(|condition| &condition.type_).collect();
    let is = |kind| status.is_true(kind);
    let rules = [
        (size < MAX_STATUS, "it is too big"),
        (status.credentials.len() <= MAX_CREDENTIALS, "too many credentials"),
        (status.ended.len() <= MAX_ENDED, "too many ended credentials"),
        (ids.len() == status.credentials.len(), "a credential id stands twice"),
        (types.len() == status.conditions.len(), "a condition stands twice"),
        (status.condition(ConditionType::Ready).is_some(), "no Ready"),
        (status.condition(ConditionType::Delivered).is_some(), "no Delivered"),
        (!is(ConditionType::Ready) || is(ConditionType::Delivered), "Ready and not Delivered"),
        (!(is(ConditionType::Ready) && is(ConditionType::Stalled)), "Ready and Stalled"),
        (
            is(ConditionType::Ready) || is(ConditionType::Stalled) || is(ConditionType::Reconciling),
            "not Ready, and nothing says what comes",
        ),
        (status.condition(ConditionType::OwnerResolved).is_some(), "no OwnerResolved"),
        (!(is(ConditionType::Reconciling) && is(ConditionType::Stalled)), "both Reconciling and Stalled"),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(format!("the status is not sound: {what}: {status:?}")),
        None => Ok(()),
    }
}

/// An object as the server stores it.
pub(super) fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| format!("{error} in {value}"))
}
