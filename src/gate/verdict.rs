//! May this bearer do this here? Pure: the clock is an argument.
//!
//! Every path that does not say `Accepted` denies, so a mistake in this file fails closed.

use k8s_openapi::jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use super::demand::Demand;
use super::index::{Found, Index, Look};
use super::record::Standing;
use crate::api::Outcome;
use crate::domain::token::{CredentialId, ParseError, Prefix, Presented};

/// The answer, and what is known of the token that was presented.
#[derive(Debug)]
pub struct Verdict {
    outcome: Outcome,
    found: Option<Found>,
}

impl Verdict {
    /// A denial before any token is known. `Accepted` is none, and becomes `Misrouted`.
    pub fn denied(outcome: Outcome) -> Self {
        // Fails closed: whoever asks for a denial gets one.
        let outcome = if outcome == Outcome::Accepted { Outcome::Misrouted } else { outcome };
        Self { outcome, found: None }
    }

    /// The answer and its reason.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether it may pass.
    pub fn is_accepted(&self) -> bool {
        self.outcome == Outcome::Accepted
    }

    /// The credential that was presented, whatever the answer, or where its secret is wrong, the one of the best claim to the
    /// id. Only an accepted one was proved to be the bearer's.
    pub fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }
}

/// What the digest is compared with when the id is unknown: no token has it.
const NOBODY: [u8; 32] = [0; 32];

/// A token of this installation, by its form, and the search for what is known of it.
pub(super) struct Claim<'a> {
    presented: Presented<'a>,
    look: Option<Look>,
}

impl<'a> Claim<'a> {
    /// Reads `credential`. The index is asked before the checksum is computed: what it knows comes from memory meanwhile.
    pub(super) fn read(index: &Index, prefix: &Prefix, credential: &'a str) -> Result<Self, Outcome> {
        let look = Presented::id_of(credential).map(|id| index.look(id));
        let presented = match Presented::parse(credential) {
            Ok(presented) => presented,
            // Fails closed: not a token.
            Err(ParseError::Malformed) => return Err(Outcome::Malformed),
            // Fails closed: a typo or a look-alike.
            Err(ParseError::Checksum) => return Err(Outcome::BadChecksum),
        };
        // Fails closed: a token of another installation.
        if presented.prefix() == prefix.as_str() {
            Ok(Self { presented, look })
        } else {
            Err(Outcome::ForeignPrefix)
        }
    }

    pub(super) fn id(&self) -> CredentialId {
        self.presented.id()
    }
}

/// Judges a token against what the route demands.
pub(super) fn judge(claim: Claim<'_>, demand: &Demand<'_>, now: Timestamp) -> Verdict {
    let Claim { presented, look } = claim;
    let found = look.and_then(Look::find);
    // Hashed and compared also for an unknown id, so that the time does not tell which ids exist.
    let digest = presented.digest();
    let expected = found.as_ref().map_or(&NOBODY, |found| found.held().digest());
    let mut proved = bool::from(digest.ct_eq(expected));
    let Some(mut found) = found else {
        // Fails closed: nobody's.
        return Verdict::denied(Outcome::UnknownCredential);
    };
    if !proved {
        // The id may be another's as well; the digest says whose it is.
        found = found.or_other(&digest);
        proved = bool::from(digest.ct_eq(found.held().digest()));
    }
    let outcome = outcome(&found, proved, demand, now.as_second());
    Verdict { outcome, found: Some(found) }
}

fn outcome(found: &Found, proved: bool, demand: &Demand<'_>, now: i64) -> Outcome {
    let (record, held) = (found.record(), found.held());
    // Fails closed: what the ApiToken says is not known, its digests included.
    if record.is_tombstone() || held.standing() == Standing::Unreadable {
        return Outcome::Unreadable;
    }
    // Fails closed: the id is public, the secret is what proves.
    if !proved {
        return Outcome::WrongSecret;
    }
    // Fails closed: retired, revoked, expired or abandoned; or its ApiToken is deleted and only waits for finalizers.
    if held.standing() != Standing::Living || record.is_deleted() {
        return Outcome::Ended;
    }
    // Fails closed: its deadline has passed by our own clock, whether or not a controller runs.
    if held.is_overdue(now) {
        return Outcome::Overdue;
    }
    // Fails closed: refused until `spec.suspend` is false again.
    if record.is_suspended() {
        return Outcome::Suspended;
    }
    // Fails closed: everything issued so far is refused until the controller has replaced it.
    if record.is_compromised() {
        return Outcome::Compromised;
    }
    // Fails closed: `spec.expiry` has passed by our own clock.
    if record.is_expired(now) {
        return Outcome::Expired;
    }
    // Fails closed: meant for other APIs.
    if !demand.audiences().all(|audience| record.is_for(audience)) {
        return Outcome::WrongAudience;
    }
    // Fails closed: may not do this.
    if !demand.scopes().all(|scope| record.has_scope(scope)) {
        return Outcome::MissingScope;
    }
    // The only way through.
    Outcome::Accepted
}

#[cfg(test)]
mod tests;
