//! Operations on a token's credentials: publish, confirm, supersede, end. Each keeps the lists bounded.
//!
//! ```text
//! Pending ──► Active ──► Retiring ──► ended(Retired)
//!    └► ended(Abandoned)   └────────► ended(Revoked | Expired)
//! ```

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::token::{self, Token};
use crate::api::{
    ApiTokenStatus, Credential, CredentialState, EndState, EndedCredential, MAX_CREDENTIALS, MAX_ENDED,
    Reason,
};

/// How a credential ends, and why, where that is ahead of its deadline.
#[derive(Clone, Copy, Debug)]
pub struct End(EndState, Option<Reason>);

impl End {
    /// A superseded credential ends before its deadline.
    pub fn early(why: Reason) -> Self {
        Self(EndState::Retired, Some(why))
    }
}

impl From<EndState> for End {
    fn from(state: EndState) -> Self {
        Self(state, None)
    }
}

/// Ended credentials are remembered this long.
pub const REMEMBER_ENDED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Publishes a freshly minted credential as `Pending`: from now on gates accept it.
///
/// Earlier `Pending` ones stay until the confirmation: a write of theirs may still be on its way, and whichever reaches
/// the Secret must be acceptable.
pub fn publish(
    status: &mut ApiTokenStatus,
    token: &Token,
    reason: Reason,
    expiry: Option<Timestamp>,
    now: Timestamp,
) {
    while status.credentials.len() >= MAX_CREDENTIALS {
        make_room(status, now);
    }
    status.credentials.push(Credential {
        id: token.id().to_owned(),
        digest: token.digest(),
        state: CredentialState::Pending,
        reason: Some(reason.as_str().to_owned()),
        issued_at: Time(now),
        not_after: expiry.map(Time),
        last_used_at: None,
    });
}

/// Ends what is needed least: the oldest of several undelivered credentials, which nobody holds, else the oldest
/// superseded one. The only undelivered one may be on its way into the Secret at this moment.
fn make_room(status: &mut ApiTokenStatus, now: Timestamp) {
    let count = |state| status.credentials.iter().filter(|credential| credential.state == state).count();
    let several_pending = count(CredentialState::Pending) > 1;
    let oldest = |state: CredentialState| {
        let of_state = status.credentials.iter().filter(|credential| credential.state == state);
        of_state.min_by(|a, b| a.issued_at.cmp(&b.issued_at)).map(|credential| credential.id.clone())
    };
    let abandoned = || oldest(CredentialState::Pending).map(|id| (id, End::from(EndState::Abandoned)));
    let evicted = |id| (id, End::early(Reason::TooManyCredentials));
    let victim = several_pending
        .then(abandoned)
        .flatten()
        .or_else(|| oldest(CredentialState::Retiring).map(evicted))
        .or_else(abandoned)
        .or_else(|| oldest(CredentialState::Active).map(|id| (id, EndState::Revoked.into())));
    match victim {
        Some((id, how)) => end_where(status, how, now, |credential| credential.id == id),
        None => status.credentials.clear(),
    }
}

/// The Secret was seen to hold credential `id`: it becomes `Active`, its predecessor `Retiring` until the overlap is
/// over, and other `Pending` ones can no longer reach the Secret.
pub fn confirm(
    status: &mut ApiTokenStatus,
    id: &str,
    overlap: Duration,
    expiry: Option<Timestamp>,
    now: Timestamp,
) {
    let overlap = SignedDuration::try_from(overlap).unwrap_or(SignedDuration::MAX);
    let deadline = now.checked_add(overlap).unwrap_or(Timestamp::MAX);
    let deadline = expiry.map_or(deadline, |expiry| deadline.min(expiry));
    let mut reason = None;
    for credential in &mut status.credentials {
        if credential.id == id {
            credential.state = CredentialState::Active;
            credential.not_after = expiry.map(Time);
            reason = credential.reason.clone();
        } else if credential.state == CredentialState::Active {
            credential.state = CredentialState::Retiring;
            credential.not_after = Some(Time(deadline));
        }
    }
    end_where(status, EndState::Abandoned, now, |credential| credential.state == CredentialState::Pending);
    end_overdue(status, now);
    status.first_issued_time.get_or_insert(Time(now));
    status.last_rotation_time = Some(Time(now));
    status.last_rotation_reason = reason;
}

/// Enters a credential that the Secret proved to hold into a status that had lost all of them.
pub fn adopt(status: &mut ApiTokenStatus, token: &Token, issued_at: Timestamp, expiry: Option<Timestamp>) {
    status.credentials.push(Credential {
        id: token.id().to_owned(),
        digest: token.digest(),
        state: CredentialState::Active,
        reason: Some(Reason::Adopted.as_str().to_owned()),
        issued_at: Time(issued_at),
        not_after: expiry.map(Time),
        last_used_at: None,
    });
    status.first_issued_time.get_or_insert(Time(issued_at));
    status.last_rotation_time = Some(Time(issued_at));
    status.last_rotation_reason = Some(Reason::Adopted.as_str().to_owned());
}

/// Ends the credentials for which `doomed` holds.
pub fn end_where(
    status: &mut ApiTokenStatus,
    how: impl Into<End>,
    now: Timestamp,
    mut doomed: impl FnMut(&Credential) -> bool,
) {
    let End(state, why) = how.into();
    for credential in status.credentials.extract_if(.., |credential| doomed(credential)) {
        let ended = EndedCredential {
            id: credential.id,
            digest: credential.digest,
            state,
            reason: why.map(|why| why.as_str().to_owned()),
            ended_at: Time(now),
        };
        status.ended.insert(0, ended);
    }
    status.ended.truncate(MAX_ENDED);
}

/// Ends superseded credentials whose overlap is over.
pub fn end_overdue(status: &mut ApiTokenStatus, now: Timestamp) {
    end_where(status, EndState::Retired, now, |credential| {
        credential.state == CredentialState::Retiring
            && credential.not_after.as_ref().is_some_and(|at| at.0 <= now)
    });
}

/// Makes every deadline follow the expiry: those in use end with it, superseded ones not after it. One that is already
/// over stays over, whatever the expiry says now.
pub fn follow_expiry(status: &mut ApiTokenStatus, expiry: Option<Timestamp>, now: Timestamp) {
    end_where(status, EndState::Expired, now, |credential| {
        credential.state != CredentialState::Retiring
            && (credential.not_after.as_ref().is_some_and(|at| at.0 <= now)
                || expiry.is_some_and(|at| at <= now))
    });
    end_where(status, EndState::Expired, now, |_| expiry.is_some_and(|at| at <= now));
    for credential in &mut status.credentials {
        let declared = expiry.map(Time);
        credential.not_after = match credential.state {
            CredentialState::Retiring => credential.not_after.take().into_iter().chain(declared).min(),
            CredentialState::Pending | CredentialState::Active => declared,
        };
    }
}

/// Removes what this operator cannot have written: malformed ids and digests, doubled ids, superseded credentials
/// without an end. True if there was any.
pub fn drop_forged(status: &mut ApiTokenStatus) -> bool {
    let before = status.credentials.len();
    let mut seen = std::collections::BTreeSet::new();
    status.credentials.retain(|credential| {
        let hex = credential.digest.strip_prefix("sha256:").unwrap_or_default();
        credential.id.len() == token::ID_LEN
            && credential.id.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && hex.len() == 64
            && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            && (credential.state != CredentialState::Retiring || credential.not_after.is_some())
            && seen.insert(credential.id.clone())
    });
    status.credentials.len() != before
}

/// Forgets credentials that ended long ago.
pub fn forget_old(status: &mut ApiTokenStatus, now: Timestamp) {
    let memory = SignedDuration::try_from(REMEMBER_ENDED).unwrap_or(SignedDuration::MAX);
    status.ended.retain(|ended| now.duration_since(ended.ended_at.0) <= memory);
}
