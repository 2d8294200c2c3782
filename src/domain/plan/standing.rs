//! Whether what stands in the Secret is what was written there.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use super::{Planner, ReadSecret, SecretView, Step};
use crate::api::{ConditionType, Credential, CredentialState, Reason};
use crate::domain::conditions::{Statement, Truth};
use crate::domain::delivery::{self, DesiredSecret};
use crate::domain::lifecycle;
use crate::domain::mutation::{self, Mutation};
use crate::domain::status::Problem;
use crate::domain::token::Token;

/// What is known of it.
pub(super) enum Standing {
    /// Nothing new: what was said before is said again.
    AsBefore,
    /// It was compared.
    Compared(Option<Mutated>),
}

/// It is not.
pub(super) struct Mutated {
    reason: Reason,
    message: String,
}

impl Planner<'_> {
    /// The Secret is as it was verified last: nobody has touched it since, and what is declared is the same.
    pub(super) fn is_as_delivered(&self, secret: &Secret) -> bool {
        let meta = &secret.metadata;
        self.before.delivery.as_ref().is_some_and(|delivery| {
            meta.uid.as_ref() == Some(&delivery.uid)
                && meta.resource_version.as_ref() == Some(&delivery.resource_version)
        })
    }

    /// Notes what the API server made of a write of ours.
    pub(super) fn compare(&mut self, mutations: &[Mutation], secret: &Secret) {
        let mutated = (!mutations.is_empty()).then(|| Mutated {
            reason: mutation::reason(mutations),
            message: mutation::message(
                self.observed.token.secret_name(),
                mutations,
                mutation::is_watched(secret),
            ),
        });
        self.standing = Standing::Compared(mutated);
    }

    /// The token itself is not where workloads look for it, and to write it again at once would change nothing. It is
    /// written again later: nothing tells when the webhook is mended.
    pub(super) fn settle_undelivered(mut self, desired: &DesiredSecret, secret: &Secret) -> Step {
        self.compare(&mutation::mutations(desired, secret), secret);
        let Standing::Compared(Some(mutated)) = &self.standing else { return self.settle(Some(false)) };
        let problem = Problem::passing(Reason::DataMutated, mutated.message.clone());
        self.settle_holding(problem, false)
    }

    /// Around one credential.
    pub(super) fn desired_around(&self, token: &Token, credential: &Credential) -> Option<DesiredSecret> {
        let owner = self.draft.owner.as_ref();
        delivery::desired(self.observed.token, owner, token, credential.issued_at.0).ok()
    }

    /// The Secret that answered our write, or one that has not changed since it did, where it does not hold the undelivered
    /// credential that was written: what should stand in it.
    pub(super) fn swallowed(&self) -> Option<(DesiredSecret, &Secret)> {
        let SecretView::Read(read) = self.observed.secret else { return None };
        // Without a known end nothing is issued, whatever is in hand.
        if self.problem.as_ref().is_some_and(|problem| problem.reason == Reason::ExpiryInvalid) {
            return None;
        }
        let (token, credential) = self.pending_in_hand()?;
        let stands = delivery::holds_under(&read.secret, self.key(), &credential.digest);
        (read.answered.as_ref() == Some(&credential.id) && !stands).then_some(())?;
        Some((self.desired_around(token, credential)?, &read.secret))
    }

    /// The Secret holds an undelivered credential. It is in force once workloads find it under its key.
    pub(super) fn confirm(mut self, id: &str, expiry: Option<Timestamp>) -> Step {
        let SecretView::Read(read) = self.observed.secret else { return Step::ReadSecret };
        let credentials = &self.draft.credentials;
        let credential = credentials.iter().find(|credential| credential.id == *id);
        let held = delivery::held_token(&read.secret, self.key(), credentials);
        let Some((held, credential)) = held.zip(credential) else { return Step::ReadSecret };
        let issued_at = credential.issued_at.0;
        let stands = delivery::holds_under(&read.secret, self.key(), &credential.digest);
        let desired = self.desired_around(&held, credential);
        // A Secret that an earlier process wrote may hold an earlier declaration: it is not noted as delivered.
        let as_declared = match desired {
            Some(desired) if !stands && (read.written || read.answered.as_deref() == Some(id)) => {
                return self.settle_undelivered(&desired, &read.secret);
            }
            _ if !stands => return self.deliver(&held, issued_at, false),
            Some(desired) => {
                let mutations = mutation::mutations(&desired, &read.secret);
                let as_declared = read.written || mutations.is_empty();
                if as_declared {
                    self.compare(&mutations, &read.secret);
                }
                as_declared
            }
            // What does not render is not delivered.
            None => false,
        };
        lifecycle::confirm(&mut self.draft, id, self.rotation.overlap, expiry, self.now);
        if as_declared {
            self.note_delivery();
        }
        self.problem = self.problem.take().or(self.mutation_problem());
        self.settle(Some(true))
    }

    /// Has the Secret as declared, unless our own write was already answered by what stands there.
    pub(super) fn follow(mut self, read: &ReadSecret, desired: DesiredSecret, drifted: bool) -> Step {
        let mutations = mutation::mutations(&desired, &read.secret);
        let stands = self.active_stands(&read.secret);
        let answered = read.answered.as_deref() == Some(desired.credential());
        let same = !drifted && (self.is_as_delivered(&read.secret) || (answered && !stands));
        if !read.written && !same && (drifted || !mutations.is_empty()) {
            return Step::Deliver { desired: Box::new(desired), precondition: self.precondition() };
        }
        if !stands {
            return self.settle_undelivered(&desired, &read.secret);
        }
        self.compare(&mutations, &read.secret);
        self.note_delivery();
        self.problem = self.problem.take().or(self.mutation_problem());
        self.settle(Some(true))
    }

    /// Says again what was said before, where nothing new is known.
    pub(super) fn stands_as_before(&mut self) {
        self.problem = self.problem.take().or(self.said_mutated().and_then(|said| said.problem()));
    }

    /// What keeps the declared state from being reached, if workloads would notice.
    pub(super) fn mutation_problem(&self) -> Option<Problem> {
        match &self.standing {
            Standing::Compared(mutated) => mutated.as_ref().and_then(Mutated::problem),
            Standing::AsBefore => None,
        }
    }

    fn said_mutated(&self) -> Option<Mutated> {
        let said = self.draft.condition(ConditionType::SecretMutated).filter(|said| said.status == "True")?;
        Some(Mutated { reason: Reason::parse(&said.reason)?, message: said.message.clone() })
    }

    /// The condition that is present while what stands differs.
    pub(super) fn mutated(&self) -> Option<Statement> {
        let said;
        let mutated = match &self.standing {
            Standing::Compared(mutated) => mutated.as_ref(),
            Standing::AsBefore => {
                said = self.said_mutated();
                said.as_ref()
            }
        };
        mutated.map(|mutated| Statement {
            kind: ConditionType::SecretMutated,
            status: Truth::True,
            reason: mutated.reason,
            message: mutated.message.clone(),
        })
    }

    /// The one active credential stands under its key.
    pub(super) fn active_stands(&self, secret: &Secret) -> bool {
        let active = self.draft.newest(CredentialState::Active);
        active.is_some_and(|active| delivery::holds_under(secret, self.key(), &active.digest))
    }
}

impl Mutated {
    fn problem(&self) -> Option<Problem> {
        (self.reason == Reason::DataMutated)
            .then(|| Problem::terminal(Reason::DataMutated, self.message.clone()))
    }
}
