//! The next step for one ApiToken, from what was observed. Pure: no clock, client, randomness or log.
//!
//! `plan` is called again after each step with what the step made true, until it says [`Step::Wait`]. It remembers
//! nothing: a crash between two steps is repaired by looking.

mod adoption;
mod holding;
mod standing;
mod using;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;

use self::holding::Holding;
use self::standing::Standing;
use super::delivery::{self, DesiredSecret};
use super::directory::Directory;
use super::lifecycle::{self, End};
use super::ownership::{self, OwnerOrigin, OwnershipRules};
use super::requests;
use super::schedule::{Expiry, Rotation};
use super::status::{Picture, Problem, conclude};
use super::token::{Prefix, Token};
use super::usage::Observation;
use crate::api::meaning::Allowed;
use crate::api::{
    ApiToken, ApiTokenStatus, ConditionType, CredentialState, EndState, LastHandled, Reason, keys,
};

/// What the installation decides for every token.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First part of every token minted here.
    pub prefix: Prefix,
    /// Where owners are found.
    pub ownership: OwnershipRules,
    /// What Secrets may be asked for, beyond what means nothing to others.
    pub allowed: Allowed,
}

/// What is known about the Secret.
#[derive(Clone, Debug)]
pub enum SecretView {
    /// It has not changed since it was verified to hold the active credential.
    Verified {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
    /// Nothing was ever delivered and no Secret of ours is known: assumed absent. A delivery that creates only proves it.
    Unseen,
    /// It must be read before anything is decided.
    Unread,
    /// It was read and does not exist.
    Absent,
    /// It was read, or just written.
    Read(Box<ReadSecret>),
}

/// A Secret as it was read.
#[derive(Clone, Debug)]
pub struct ReadSecret {
    /// The whole object.
    pub secret: Secret,
    /// It is the answer to our own write: where it differs from what was wanted, that is told and not written again, so
    /// that an admission webhook that rewrites it cannot keep us writing.
    pub written: bool,
    /// It is as it answered a recent write of ours, of the credential with this id: to write the same again would be
    /// answered by the same.
    pub answered: Option<String>,
}

/// All that a decision rests on.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The ApiToken with its status.
    pub token: &'a ApiToken,
    /// Its Namespace, if it has been seen.
    pub namespace: Option<&'a ObjectMeta>,
    /// Its Secret.
    pub secret: &'a SecretView,
    /// The plaintext of a `Pending` credential that this process minted and has not yet delivered.
    pub in_hand: Option<&'a Token>,
    /// Why the last attempt to read or write the Secret failed.
    pub refusal: Option<&'a Problem>,
    /// What gates reported.
    pub usage: &'a Observation,
    /// What every ApiToken has published.
    pub world: &'a Directory,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Read the Secret, then plan again.
    ReadSecret,
    /// Mint a credential, enter it in `status` with [`lifecycle::publish`], write that, keep the plaintext in hand, and
    /// plan again.
    Mint {
        /// The status to publish it in.
        status: Box<ApiTokenStatus>,
        /// Why.
        reason: Reason,
        /// When the token ends.
        expiry: Option<Timestamp>,
    },
    /// Write the Secret by server-side apply, then plan again with the answer.
    Deliver {
        /// What it should hold.
        desired: Box<DesiredSecret>,
        /// What must still be so for the write to count.
        precondition: Precondition,
    },
    /// Write the status, then plan again.
    WriteStatus(Box<ApiTokenStatus>),
    /// Nothing to do before `wake`.
    Wait {
        /// When time alone makes something due.
        wake: Option<Timestamp>,
        /// Something that no watch reports keeps us from the declared state: look again soon.
        blocked: Option<Reason>,
    },
}

/// What must be so on the server for a delivery to take effect: a late write of a paused replica changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// No Secret of this name exists.
    Create,
    /// The Secret is exactly the one that was read.
    Unchanged {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

/// Decides the next step.
pub fn plan(now: Timestamp, settings: &Settings, observed: &Observed<'_>) -> Step {
    // Times in the API are whole seconds: a finer clock would find every deadline a little early after a round trip.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Planner::new(now, settings, observed).next()
}

struct Planner<'a> {
    now: Timestamp,
    settings: &'a Settings,
    observed: &'a Observed<'a>,
    created: Timestamp,
    before: ApiTokenStatus,
    draft: ApiTokenStatus,
    rotation: Rotation,
    expiry: Option<Expiry>,
    problem: Option<Problem>,
    owner_origin: Option<OwnerOrigin>,
    compromised: bool,
    standing: Standing,
}

impl<'a> Planner<'a> {
    fn new(now: Timestamp, settings: &'a Settings, observed: &'a Observed<'a>) -> Self {
        let token = observed.token;
        let before = token.status.clone().unwrap_or_default();
        let mut problem = None;
        let rotation = Rotation::parse(token.spec.rotation.as_ref()).unwrap_or_else(|error| {
            problem = Some(Problem::terminal(Reason::RotationInvalid, error.to_string()));
            Rotation::none()
        });
        let created = token.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
        let expiry = Expiry::parse(token.spec.expiry.as_ref(), created).unwrap_or_else(|error| {
            problem = Some(Problem::terminal(Reason::ExpiryInvalid, error.to_string()));
            // What was promised last still holds.
            before.expires_at.as_ref().map(|at| Expiry { at: at.0, warn_from: at.0 })
        });
        let declared = token.spec.owner.as_ref();
        let owner = ownership::resolve(&settings.ownership, declared, &token.metadata, observed.namespace);
        let mut draft = before.clone();
        draft.observed_generation = token.metadata.generation;
        draft.secret_name = Some(token.secret_name().to_owned());
        draft.expires_at = expiry.map(|expiry| Time(expiry.at));
        draft.owner = owner.as_ref().map(|(owner, _)| owner.clone());
        let owner_origin = owner.map(|(_, origin)| origin);
        Self {
            now,
            settings,
            observed,
            created,
            before,
            draft,
            rotation,
            expiry,
            problem,
            owner_origin,
            compromised: false,
            standing: Standing::AsBefore,
        }
    }

    fn next(mut self) -> Step {
        if self.observed.token.metadata.deletion_timestamp.is_some() {
            return self.settle_with(Problem::deleting());
        }
        lifecycle::drop_forged(&mut self.draft);
        self.honour_requests();
        lifecycle::end_overdue(&mut self.draft, self.now);
        self.show_usage();
        self.retire_unused();
        let expiry = self.expires_at();
        lifecycle::follow_expiry(&mut self.draft, expiry, self.now);
        if self.is_over() || self.observed.token.spec.suspend {
            return self.settle(None);
        }
        if let Err(refusal) = delivery::check_meaning(self.observed.token, &self.settings.allowed) {
            return self.settle_with(Problem::terminal(Reason::SecretNotAllowed, refusal.to_string()));
        }
        if let Some(refusal) = self.observed.refusal {
            let refusal = refusal.clone();
            return self.settle_with(refusal);
        }
        if let Some((desired, secret)) = self.swallowed() {
            let secret = secret.clone();
            return self.settle_undelivered(&desired, &secret);
        }
        match self.holding() {
            Holding::Unknown => Step::ReadSecret,
            Holding::Foreign => self.meet_foreign(),
            Holding::Pending(id) => self.confirm(&id, expiry),
            Holding::Orphan(token) => {
                let SecretView::Read(read) = self.observed.secret else { return Step::ReadSecret };
                let issued = self.noted_issue(&read.secret, self.created);
                lifecycle::adopt(&mut self.draft, &token, issued, expiry);
                self.settle(Some(true))
            }
            Holding::Active => {
                self.end_unproven();
                match self.reason_to_rotate() {
                    Some(reason) => self.replace(reason, true),
                    None => self.maintain(),
                }
            }
            Holding::Altered | Holding::Absent => {
                let forged = self.end_forged();
                let reason = self.reason_to_issue(forged);
                self.replace(reason, false)
            }
        }
    }

    /// Ends what the request annotations ask to end. A rotation request is honoured where the credential is minted.
    fn honour_requests(&mut self) {
        let compromised = self.request(keys::COMPROMISED_AT);
        let retire = self.request(keys::RETIRE_NOW_AT);
        let now = self.now;
        if requests::is_compromise_unhandled(self.observed.token) {
            self.compromised = true;
            lifecycle::end_where(&mut self.draft, EndState::Revoked, now, |_| true);
            self.handled_mut().compromised_at = compromised;
        }
        if retire.is_some() && retire != self.handled().retire_now_at {
            lifecycle::end_where(&mut self.draft, End::early(Reason::Requested), now, |credential| {
                credential.state == CredentialState::Retiring
            });
            self.handled_mut().retire_now_at = retire;
        }
        self.forget_pointless_adoption();
    }

    fn request(&self, key: &str) -> Option<String> {
        requests::value(self.observed.token, key)
    }

    fn handled(&self) -> LastHandled {
        self.draft.last_handled.clone().unwrap_or_default()
    }

    fn handled_mut(&mut self) -> &mut LastHandled {
        self.draft.last_handled.get_or_insert_with(LastHandled::default)
    }

    fn expires_at(&self) -> Option<Timestamp> {
        self.expiry.map(|expiry| expiry.at)
    }

    fn is_over(&self) -> bool {
        self.expires_at().is_some_and(|at| at <= self.now)
    }

    /// Delivers the credential at hand, or mints one. `held`: the Secret still holds the active one.
    fn replace(mut self, reason: Reason, held: bool) -> Step {
        // Without a rhythm a credential can still be issued; without knowing its end it must not be.
        if let Some(problem) = self.problem.clone().filter(|problem| problem.reason == Reason::ExpiryInvalid)
        {
            // The Secret can still follow its declaration around the credential that it has.
            return if held { self.maintain() } else { self.settle_holding(problem, held) };
        }
        if let Some((token, credential)) = self.pending_in_hand() {
            let issued_at = credential.issued_at.0;
            return self.deliver(token, issued_at, held);
        }
        // Rendered before anything is minted: a credential that cannot be delivered helps nobody.
        if let Err(error) =
            delivery::desired(self.observed.token, self.draft.owner.as_ref(), &Token::placeholder(), self.now)
        {
            return self.settle_holding(Problem::terminal(Reason::TemplateInvalid, error.to_string()), held);
        }
        let requested = self.request(keys::ROTATE_REQUESTED_AT);
        if requested.is_some() {
            self.handled_mut().rotate_requested_at = requested;
        }
        let expiry = self.expires_at();
        self.draft.next_rotation_time = self.next_rotation().map(Time);
        let status = self.concluded(Some(held), Some(reason));
        Step::Mint { status: Box::new(status), reason, expiry }
    }

    fn deliver(self, token: &Token, issued_at: Timestamp, held: bool) -> Step {
        match delivery::desired(self.observed.token, self.draft.owner.as_ref(), token, issued_at) {
            Ok(desired) => Step::Deliver { desired: Box::new(desired), precondition: self.precondition() },
            Err(error) => {
                self.settle_holding(Problem::terminal(Reason::TemplateInvalid, error.to_string()), held)
            }
        }
    }

    fn precondition(&self) -> Precondition {
        match self.observed.secret {
            SecretView::Verified { uid, resource_version } => {
                Precondition::Unchanged { uid: uid.clone(), resource_version: resource_version.clone() }
            }
            SecretView::Read(read) => Precondition::Unchanged {
                uid: read.secret.metadata.uid.clone().unwrap_or_default(),
                resource_version: read.secret.metadata.resource_version.clone().unwrap_or_default(),
            },
            SecretView::Unseen | SecretView::Unread | SecretView::Absent => Precondition::Create,
        }
    }

    /// A Secret that is as it was delivered was not altered: it is the status that names another credential now, which
    /// nobody was ever given by us. It ends at once; true if there was one.
    fn end_forged(&mut self) -> bool {
        let SecretView::Read(read) = self.observed.secret else { return false };
        let forged =
            self.is_as_delivered(&read.secret) && self.draft.newest(CredentialState::Active).is_some();
        if forged {
            lifecycle::end_where(&mut self.draft, EndState::Revoked, self.now, |credential| {
                credential.state == CredentialState::Active
            });
        }
        forged
    }

    /// The Secret decides which of several active credentials is genuine; before a rotation, or the others would retire
    /// with an overlap.
    fn end_unproven(&mut self) {
        let SecretView::Read(read) = self.observed.secret else { return };
        let Some(held) = delivery::held_token(&read.secret, self.key(), &self.draft.credentials) else {
            return;
        };
        let digest = held.digest();
        lifecycle::end_where(&mut self.draft, EndState::Revoked, self.now, |credential| {
            credential.state == CredentialState::Active && credential.digest != digest
        });
    }

    /// The Secret holds the active credential: see that the rest of it is as declared.
    fn maintain(mut self) -> Step {
        let hash = self.content_hash();
        let drifted = self.draft.delivery.as_ref().is_none_or(|delivery| delivery.content_hash != hash);
        match self.observed.secret {
            SecretView::Read(read) => {
                let Some(held) = delivery::held_token(&read.secret, self.key(), &self.draft.credentials)
                else {
                    return Step::ReadSecret;
                };
                let issued_at =
                    self.draft.newest(CredentialState::Active).map_or(self.now, |active| active.issued_at.0);
                match delivery::desired(self.observed.token, self.draft.owner.as_ref(), &held, issued_at) {
                    Err(error) => self
                        .settle_holding(Problem::terminal(Reason::TemplateInvalid, error.to_string()), true),
                    Ok(desired) => self.follow(read, desired, drifted),
                }
            }
            _ if drifted => Step::ReadSecret,
            _ => {
                self.stands_as_before();
                self.settle(Some(true))
            }
        }
    }

    fn next_rotation(&mut self) -> Option<Timestamp> {
        let active = self.draft.newest(CredentialState::Active)?;
        match self.rotation.due(self.observed.token.uid(), &active.id, active.issued_at.0) {
            Ok(due) => due,
            Err(error) => {
                self.problem.get_or_insert(Problem::terminal(Reason::RotationInvalid, error.to_string()));
                None
            }
        }
    }

    fn settle_with(mut self, problem: Problem) -> Step {
        // The Secret cannot be looked at: it holds what it held, unless that has ended since.
        let lives = self.draft.newest(CredentialState::Active).is_some();
        let held = problem.keeps_delivered() && lives && self.before.is_true(ConditionType::Delivered);
        // A declaration that is not understood stays so, whether the API server answers or not.
        self.next_rotation();
        if held {
            self.stands_as_before();
        }
        let declared = self.problem.take().filter(|_| problem.keeps_ready());
        self.problem = Some(declared.unwrap_or(problem));
        self.settle(Some(held))
    }

    fn settle_holding(mut self, problem: Problem, held: bool) -> Step {
        self.problem = Some(problem);
        self.settle(Some(held))
    }

    /// Writes the status if it says something new; waits otherwise.
    fn settle(mut self, held: Option<bool>) -> Step {
        let next_rotation = self.next_rotation();
        let rests = self.is_over() || self.observed.token.spec.suspend;
        self.draft.next_rotation_time = next_rotation.filter(|_| !rests).map(Time);
        let wake = self.wake();
        let blocked =
            self.problem.as_ref().filter(|problem| problem.look_again()).map(|problem| problem.reason);
        let (before, now) = (std::mem::take(&mut self.before), self.now);
        let mut status = self.concluded(held, None);
        if says_the_same(&before, &status) {
            return Step::Wait { wake, blocked };
        }
        lifecycle::forget_old(&mut status, now);
        Step::WriteStatus(Box::new(status))
    }

    /// The draft with its conditions. `held`: the Secret holds an accepted credential; `minting`: why one is about to
    /// be issued.
    fn concluded(mut self, held: Option<bool>, minting: Option<Reason>) -> ApiTokenStatus {
        self.show_observation();
        let using = self.judge_use();
        let picture = Picture {
            token: self.observed.token,
            held: held.unwrap_or(false),
            in_force: self.is_in_force(),
            minting,
            over: self.is_over(),
            problem: self.problem.as_ref(),
            expiry: self.expiry,
            owner_origin: self.owner_origin,
            using: &using,
            findings: self.findings(),
            now: self.now,
        };
        conclude(&picture, &mut self.draft);
        self.draft
    }

    /// When time alone makes something due: a whole second that is yet to come. Uses are known more finely than plans are
    /// made; a time within the present second would be looked at over and over until the second is over.
    fn wake(&self) -> Option<Timestamp> {
        let deadlines = self
            .draft
            .credentials
            .iter()
            .filter_map(|credential| credential.not_after.as_ref().map(|at| at.0));
        let expiry = self.expiry.into_iter().flat_map(|expiry| [expiry.at, expiry.warn_from]);
        let rotation = self.draft.next_rotation_time.iter().map(|at| at.0);
        let wakes = deadlines.chain(expiry).chain(rotation).chain(self.use_wakes());
        wakes.map(whole_second).filter(|at| *at > self.now).min()
    }
}

/// The first whole second that is not before `at`.
fn whole_second(at: Timestamp) -> Timestamp {
    let second = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

/// Whether writing `after` would tell nobody anything. That the Secret's resourceVersion was verified anew is worth
/// remembering, but not worth a write of its own: the next write carries it.
fn says_the_same(before: &ApiTokenStatus, after: &ApiTokenStatus) -> bool {
    let hash =
        |status: &ApiTokenStatus| status.delivery.as_ref().map(|delivery| delivery.content_hash.clone());
    if hash(before) != hash(after) {
        return false;
    }
    let mut after = ApiTokenStatus { delivery: before.delivery.clone(), ..after.clone() };
    using::without_mere_observation(before, &mut after);
    *before == after
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
