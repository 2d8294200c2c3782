//! What the Secret holds, as far as can be told, why that calls for a credential, and whether it is as declared.

use k8s_openapi::api::core::v1::Secret;

use super::{Planner, SecretView};
use crate::api::{
    ConditionType, Credential, CredentialState, DEFAULT_SECRET_KEY, Delivery, EndState, Reason, keys,
};
use crate::domain::delivery;
use crate::domain::token::Token;

/// How far the Secret can be trusted to hold an accepted credential.
pub(super) enum Holding {
    /// It holds the active credential.
    Active,
    /// It holds a credential that is still `Pending`.
    Pending(String),
    /// It holds the credential that stood in the status before that lost all of them.
    Orphan(Token),
    /// It exists and holds none of ours.
    Altered,
    /// It does not exist.
    Absent,
    /// A Secret of this name exists that this ApiToken does not control.
    Foreign,
    /// It must be read first.
    Unknown,
}

impl<'a> Planner<'a> {
    pub(super) fn holding(&self) -> Holding {
        let active = self.draft.newest(CredentialState::Active);
        let actives = self.draft.credentials.iter().filter(|c| c.state == CredentialState::Active).count();
        match self.observed.secret {
            // What is compromised ends now, whatever the Secret holds; it is read before the successor is delivered.
            SecretView::Unread if self.compromised => Holding::Altered,
            SecretView::Unread => Holding::Unknown,
            // An active credential was in the Secret once: that no Secret of ours is known does not prove it gone.
            SecretView::Unseen if active.is_some() => Holding::Unknown,
            SecretView::Unseen | SecretView::Absent => Holding::Absent,
            SecretView::Verified { .. } => {
                // Whether an undelivered credential reached the Secret after all, and which of two active ones it
                // holds, only the Secret can tell.
                let undelivered = self.pending_in_hand().is_none() && self.oldest_pending().is_some();
                match active {
                    Some(_) if actives == 1 && !undelivered => Holding::Active,
                    None if self.compromised || self.pending_in_hand().is_some() => Holding::Altered,
                    _ => Holding::Unknown,
                }
            }
            SecretView::Read(read) => self.holding_of(&read.secret),
        }
    }

    pub(super) fn holding_of(&self, secret: &Secret) -> Holding {
        let token = self.observed.token;
        if !delivery::is_controlled_by(&secret.metadata, token.uid()) {
            return Holding::Foreign;
        }
        let held = delivery::held_token(secret, self.key(), &self.draft.credentials);
        let digest = held.map(|held| held.digest()).unwrap_or_default();
        let known = self.draft.credentials.iter().find(|credential| credential.digest == digest);
        match known.map(|credential| (credential.state, &credential.id)) {
            Some((CredentialState::Active, _)) => Holding::Active,
            Some((CredentialState::Pending, id)) => Holding::Pending(id.clone()),
            Some((CredentialState::Retiring, _)) => Holding::Altered,
            None => self.orphan(secret).map_or(Holding::Altered, Holding::Orphan),
        }
    }

    /// The token in the Secret, where the status has no trace of a credential, and this process has seen that it was the
    /// current one until that vanished. A status that says nothing proves nothing by itself: one that was never issued looks the same, and
    /// whoever may write Secrets can put there what they like.
    fn orphan(&self, secret: &Secret) -> Option<Token> {
        let (uid, world) = (self.observed.token.uid(), self.observed.world);
        // That one was ever confirmed, or that a compromise was honoured, tells that what the Secret holds has ended.
        let wiped = self.draft.credentials.is_empty()
            && self.draft.ended.is_empty()
            && self.draft.last_rotation_time.is_none()
            && self.handled().compromised_at.is_none();
        let was_ours = |token: &Token| {
            let digest = token.digest();
            token.prefix() == self.settings.prefix.as_str()
                && world.has_lost(uid, &digest)
                && !world.is_anothers(uid, &digest)
        };
        wiped.then(|| delivery::tokens(secret).find(was_ours)).flatten()
    }

    pub(super) fn key(&self) -> &str {
        self.observed.token.spec.secret.as_ref().map_or(DEFAULT_SECRET_KEY, |secret| secret.key())
    }

    /// Why the active credential, well in its Secret, should be replaced now.
    pub(super) fn reason_to_rotate(&mut self) -> Option<Reason> {
        if let Some(pending) = self.oldest_pending() {
            return Some(issue_reason(&pending));
        }
        let requested = self.request(keys::ROTATE_REQUESTED_AT);
        if requested.is_some() && requested != self.handled().rotate_requested_at {
            return Some(Reason::Requested);
        }
        self.next_rotation().filter(|due| *due <= self.now).map(|_| Reason::Due)
    }

    /// Why a credential is needed where the Secret holds none. `forged`: what the status called active never was.
    pub(super) fn reason_to_issue(&self, forged: bool) -> Reason {
        let was_held = self.draft.newest(CredentialState::Active).is_some();
        let missing = matches!(self.observed.secret, SecretView::Absent | SecretView::Unseen);
        if let Some(pending) = self.oldest_pending() {
            return issue_reason(&pending);
        }
        match self.draft.ended.first().map(|ended| ended.state) {
            _ if self.compromised && !matches!(self.observed.secret, SecretView::Unseen) => {
                Reason::Compromised
            }
            _ if forged => Reason::StatusAltered,
            _ if was_held && missing => Reason::SecretLost,
            _ if was_held => Reason::SecretAltered,
            Some(EndState::Expired) => Reason::Revived,
            Some(EndState::Revoked) if self.handled().compromised_at.is_some() => Reason::Compromised,
            Some(EndState::Revoked) => Reason::StatusAltered,
            // What expired may be forgotten by now.
            None if self.before.ready_reason() == Some(Reason::Expired) => Reason::Revived,
            _ => Reason::Issued,
        }
    }

    pub(super) fn oldest_pending(&self) -> Option<Credential> {
        let pending =
            self.draft.credentials.iter().filter(|credential| credential.state == CredentialState::Pending);
        pending.min_by(|a, b| a.issued_at.cmp(&b.issued_at)).cloned()
    }

    /// The plaintext at hand, as long as its credential is still to be delivered.
    pub(super) fn pending_in_hand(&self) -> Option<(&'a Token, &Credential)> {
        let token = self.observed.in_hand?;
        let digest = token.digest();
        let wanted = |credential: &&Credential| {
            credential.digest == digest && credential.state == CredentialState::Pending
        };
        self.draft.credentials.iter().find(wanted).map(|credential| (token, credential))
    }

    pub(super) fn content_hash(&self) -> String {
        let active = self.draft.newest(CredentialState::Active);
        delivery::content_hash(self.observed.token, self.draft.owner.as_ref(), active)
    }

    /// Whether what this generation declares of the Secret stands in it, or was found to before.
    pub(super) fn is_in_force(&self) -> bool {
        let found = self.before.condition(ConditionType::Ready).is_some_and(|ready| {
            ready.status == "True" && ready.observed_generation == self.observed.token.metadata.generation
        });
        let delivery = self.draft.delivery.as_ref();
        found || delivery.is_some_and(|delivery| delivery.content_hash == self.content_hash())
    }

    /// Enters the Secret that was just read or written as the verified one.
    pub(super) fn note_delivery(&mut self) {
        if let SecretView::Read(read) = self.observed.secret {
            let meta = &read.secret.metadata;
            self.draft.delivery = Some(Delivery {
                uid: meta.uid.clone().unwrap_or_default(),
                resource_version: meta.resource_version.clone().unwrap_or_default(),
                content_hash: self.content_hash(),
            });
        }
    }
}

/// Why an undelivered credential was minted.
fn issue_reason(pending: &Credential) -> Reason {
    let minted_for = pending.reason.as_deref().and_then(Reason::parse);
    // What was to be adopted is no longer there: its successor is the first one.
    minted_for.filter(|reason| *reason != Reason::Adopted).unwrap_or(Reason::Issued)
}
