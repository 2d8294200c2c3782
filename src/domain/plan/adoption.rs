//! Taking a Secret over that nobody controls, with the credential that it holds, because the ApiToken asks for it: what a
//! backup brings back, and what is left after a deletion that orphans, belongs to nobody.
//!
//! It is the one way to accept a value that this operator did not mint, so it asks for a Secret that is ours in every other
//! respect, and happens once: whoever may write Secrets only must find no door that a request of long ago left open.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::standing::Standing;
use super::{Planner, SecretView, Step};
use crate::api::{CredentialState, Reason, keys};
use crate::domain::status::Problem;
use crate::domain::token::Token;
use crate::domain::{delivery, lifecycle};

/// No token of ours is older: 2020-01-01.
const OLDEST: Timestamp = Timestamp::constant(1_577_836_800, 0);

/// Why a Secret is not taken over; reads after "because".
type Refusal = &'static str;

const ASTRAY: Refusal = "tokenward.dev/adopt does not hold the uid of this Secret";

impl Planner<'_> {
    /// A request for the Secret that it has already is done, also if somebody takes that away and changes it later.
    pub(super) fn forget_pointless_adoption(&mut self) {
        let asked = self.request(keys::ADOPT);
        let own = self.draft.delivery.as_ref().map(|delivery| delivery.uid.as_str());
        if asked.is_some() && asked.as_deref() == own && asked != self.handled().adopt {
            self.handled_mut().adopt = asked;
        }
    }

    /// A Secret of the declared name that this ApiToken does not control: taken over if that is asked for and may be, else left
    /// alone.
    pub(super) fn meet_foreign(mut self) -> Step {
        let SecretView::Read(read) = self.observed.secret else { return Step::ReadSecret };
        self.standing = Standing::Compared(None);
        if read.answered.is_some() {
            let message = format!(
                "An admission webhook or policy removes metadata.ownerReferences of Secret {} as it is written, so nobody \
                 controls it and it is left alone: exempt it there, then delete it",
                self.observed.token.secret_name()
            );
            return self.settle_with(Problem::terminal(Reason::SecretConflict, message));
        }
        let uid = read.secret.metadata.uid.as_deref().unwrap_or_default();
        let request = self.request(keys::ADOPT);
        let asked = request.as_deref() == Some(uid);
        // One that was honoured may go on standing there.
        let astray = request.is_some() && !asked && request != self.handled().adopt;
        match self.strays_token(&read.secret) {
            Ok(token) if self.was_adopted(uid) && !self.is_current(&token) => {
                self.leave_alone("", "its token was changed since it was taken over")
            }
            Ok(token) if asked => self.take_over(&token, &read.secret),
            Ok(_) => {
                let token = self.observed.token;
                let offer = format!(
                    "it holds a token that no other ApiToken has published. To go on with it: kubectl annotate --namespace {} \
                     --overwrite apitoken {} {}={uid}. Otherwise ",
                    token.namespace(),
                    token.name(),
                    keys::ADOPT
                );
                self.leave_alone(&offer, if astray { ASTRAY } else { "" })
            }
            Err(refusal) => {
                // Nobody may have asked; but one that looks like ours may be from a backup.
                let tells = asked || astray || self.is_labelled(&read.secret);
                self.leave_alone("", if tells { refusal } else { "" })
            }
        }
    }

    fn leave_alone(self, offer: &str, refusal: Refusal) -> Step {
        let name = self.observed.token.secret_name();
        let because = match refusal {
            "" => String::new(),
            refusal => format!("it is not taken over, because {refusal}: "),
        };
        let message = format!(
            "Secret {name} exists and is not controlled by this ApiToken, so it is left alone: {because}{offer}delete it, or \
             declare another ApiToken, with another spec.secret.name"
        );
        self.settle_with(Problem::terminal(Reason::SecretConflict, message))
    }

    /// The token of a Secret that might be taken over.
    fn strays_token(&self, secret: &Secret) -> Result<Token, Refusal> {
        let token = self.observed.token;
        let meta = &secret.metadata;
        let references = meta.owner_references.as_deref().unwrap_or_default();
        let declared = token.spec.secret.clone().unwrap_or_default();
        let refuse = |refused: bool, why| if refused { Err(why) } else { Ok(()) };
        refuse(
            references.iter().any(|reference| reference.controller == Some(true)),
            "another object controls the Secret",
        )?;
        refuse(meta.deletion_timestamp.is_some(), "the Secret is being deleted")?;
        refuse(
            !self.is_labelled(secret),
            "the Secret does not carry the label tokenward.dev/token with the name of this ApiToken",
        )?;
        refuse(secret.type_.as_deref() != Some(declared.secret_type()), "the Secret is of another type")?;
        let held = delivery::token_under(secret, declared.key());
        let held = held.filter(|held| held.prefix() == self.settings.prefix.as_str());
        let held = held.ok_or("the Secret holds no token of this installation under its key")?;
        let digest = held.digest();
        let living = self.draft.credentials.iter().find(|living| living.id == held.id());
        let state = living.filter(|living| living.digest == digest).map(|living| living.state);
        refuse(
            self.draft.ended.iter().any(|ended| ended.id == held.id() || ended.digest == digest),
            "its credential has ended",
        )?;
        refuse(
            living.is_some() && (state.is_none() || state == Some(CredentialState::Retiring)),
            "its credential is superseded",
        )?;
        refuse(
            self.observed.world.is_anothers(token.uid(), &digest),
            "another ApiToken has published its credential",
        )?;
        refuse(
            state.is_none() && self.request(keys::COMPROMISED_AT).is_some(),
            "the token was declared compromised, and the annotation tokenward.dev/compromised-at is still there",
        )?;
        Ok(held)
    }

    /// Whether its label says that it was written for this ApiToken.
    fn is_labelled(&self, secret: &Secret) -> bool {
        let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(keys::TOKEN));
        label.map(String::as_str) == Some(self.observed.token.name())
    }

    /// Whether the status has it as what is, or should be, in the Secret.
    fn is_current(&self, token: &Token) -> bool {
        let digest = token.digest();
        let current = [CredentialState::Active, CredentialState::Pending];
        self.draft.credentials.iter().any(|c| c.digest == digest && current.contains(&c.state))
    }

    fn was_adopted(&self, uid: &str) -> bool {
        self.handled().adopt.as_deref() == Some(uid)
    }

    /// Publishes the credential first, then claims the Secret: whoever sees the owner reference may rely on the digest.
    fn take_over(mut self, token: &Token, secret: &Secret) -> Step {
        let issued = self.noted_issue(secret, OLDEST);
        if self.is_current(token) {
            return self.deliver(token, issued, false);
        }
        // Without knowing its end nothing is accepted, as nothing is minted.
        if let Some(problem) = self.problem.clone().filter(|problem| problem.reason == Reason::ExpiryInvalid)
        {
            return self.settle_with(problem);
        }
        // Tried out before anything is published that could not be delivered.
        if let Err(error) = delivery::desired(self.observed.token, self.draft.owner.as_ref(), token, issued) {
            return self.settle_with(Problem::terminal(Reason::TemplateInvalid, error.to_string()));
        }
        let (expiry, now) = (self.expires_at(), self.now);
        lifecycle::publish(&mut self.draft, token, Reason::Adopted, expiry, now);
        if let Some(adopted) = self.draft.credentials.last_mut() {
            adopted.issued_at = Time(issued);
        }
        self.handled_mut().adopt.clone_from(&secret.metadata.uid);
        Step::WriteStatus(Box::new(self.concluded(Some(false), Some(Reason::Adopted))))
    }

    /// When a Secret's token was issued, as far as its annotation can be believed: not before `from`, and not in the future.
    pub(super) fn noted_issue(&self, secret: &Secret, from: Timestamp) -> Timestamp {
        let noted = delivery::noted_issue(secret);
        noted.filter(|issued| (from..=self.now).contains(issued)).unwrap_or(self.now)
    }
}
