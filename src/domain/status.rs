//! What the status says: conditions by the Kubernetes API conventions and kstatus, and the one word of health.
//!
//! `Ready`, `Delivered` and `OwnerResolved` are always present, `InUse` while a ledger listens; the others only while they are
//! true, so that kstatus, Flux and Argo CD read every state without special knowledge. `Ready` speaks of what is declared: it
//! is in force. `Delivered` speaks of the Secret: it holds a credential that gates accept. A declaration that cannot be carried
//! out takes `Ready` away, and leaves `Delivered`.

use k8s_openapi::jiff::Timestamp;

use super::conditions::{self, Statement, Truth};
use super::health::{self, Use};
use super::ownership::OwnerOrigin;
use super::schedule::Expiry;
use crate::api::{ApiToken, ApiTokenStatus, ConditionType, CredentialState, Health, Reason};

/// Something that keeps the declared state from being reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub reason: Reason,
    /// For people: what was found and what to do about it.
    pub message: String,
    terminal: bool,
}

impl Problem {
    /// Nothing will change without the user: `Stalled`.
    pub fn terminal(reason: Reason, message: String) -> Self {
        Self { reason, message, terminal: true }
    }

    /// Deleted, and kept by finalizers: gates refuse it, and nothing is done about it any more.
    pub fn deleting() -> Self {
        let message = "The ApiToken is being deleted: gates refuse every credential, and it is gone once nothing stands in \
                       metadata.finalizers any more";
        Self::terminal(Reason::Deleting, message.to_owned())
    }

    /// Tried again by itself: `Reconciling`.
    pub fn passing(reason: Reason, message: String) -> Self {
        Self { reason, message, terminal: false }
    }

    /// Whether a Secret that held an accepted credential still does.
    pub fn keeps_delivered(&self) -> bool {
        !matches!(self.reason, Reason::SecretConflict | Reason::Deleting)
    }

    /// Whether what is declared may be in force all the same: an API server that does not answer says nothing about it.
    pub fn keeps_ready(&self) -> bool {
        self.reason == Reason::ApiUnavailable
    }

    /// Whether its end is reported by no watch, so that one must look.
    pub fn look_again(&self) -> bool {
        !self.terminal || matches!(self.reason, Reason::SecretConflict | Reason::SecretRejected)
    }
}

/// All that the conditions and the health are made from.
pub struct Picture<'a> {
    /// The ApiToken.
    pub token: &'a ApiToken,
    /// The Secret holds a credential that gates accept.
    pub held: bool,
    /// What this generation declares of the Secret stands in it.
    pub in_force: bool,
    /// A credential is being issued, and why.
    pub minting: Option<Reason>,
    /// The expiry has passed.
    pub over: bool,
    /// What is in the way.
    pub problem: Option<&'a Problem>,
    /// When the token ends.
    pub expiry: Option<Expiry>,
    /// Where the owner was found.
    pub owner_origin: Option<OwnerOrigin>,
    /// What is said about use.
    pub using: &'a Use,
    /// What else was found: conditions that are present while they are true.
    pub findings: Vec<Statement>,
    /// The current time.
    pub now: Timestamp,
}

/// Writes conditions and health into `draft`.
pub fn conclude(picture: &Picture<'_>, draft: &mut ApiTokenStatus) {
    let suspended = picture.token.spec.suspend && !picture.over;
    let usable = picture.held && !picture.over && !suspended;
    let ready = usable && picture.in_force && picture.problem.is_none_or(Problem::keeps_ready);
    let expiring = picture
        .expiry
        .filter(|expiry| !picture.over && picture.now >= expiry.warn_from && expiry.warn_from < expiry.at);

    let mut statements = vec![
        self::ready(picture, ready, usable, suspended, draft),
        delivered(picture, usable, suspended, draft),
    ];
    statements.extend(stalled_or_reconciling(picture, usable, suspended));
    statements.push(owner(picture, draft));
    if let Some(expiry) = expiring {
        statements.push(Statement {
            kind: ConditionType::Expiring,
            status: Truth::True,
            reason: Reason::ExpiresSoon,
            message: format!("The token ends at {}: extend spec.expiry to keep it", expiry.at),
        });
    }
    statements.extend(used(picture, draft));
    statements.extend(picture.findings.iter().cloned());
    draft.conditions =
        conditions::conclude(&draft.conditions, &statements, picture.token.metadata.generation, picture.now);
    let health = if picture.over {
        Health::Expired
    } else if suspended {
        Health::Suspended
    } else if picture.problem.is_some() {
        Health::Blocked
    } else if picture.minting.is_some() {
        if usable { Health::Rotating } else { Health::Issuing }
    } else if expiring.is_some() {
        Health::Expiring
    } else {
        used_word(draft).unwrap_or(Health::Healthy)
    };
    draft.health = Some(health.as_str().to_owned());
}

/// `InUse` and `Idle`.
fn used(picture: &Picture<'_>, before: &ApiTokenStatus) -> Vec<Statement> {
    let judgement = match picture.using {
        Use::Unjudged => return Vec::new(),
        Use::Judged(judgement) => judgement,
        Use::AsBefore => {
            let kinds = [ConditionType::InUse, ConditionType::Idle];
            return kinds.into_iter().filter_map(|kind| said_before(before, kind)).collect();
        }
    };
    let statement = |kind, status| Statement {
        kind,
        status,
        reason: judgement.reason,
        message: judgement.message.clone(),
    };
    let idle = judgement.idle.then(|| statement(ConditionType::Idle, Truth::True));
    [statement(ConditionType::InUse, judgement.in_use)].into_iter().chain(idle).collect()
}

fn said_before(before: &ApiTokenStatus, kind: ConditionType) -> Option<Statement> {
    let said = before.condition(kind)?;
    let status = [Truth::True, Truth::False].into_iter().find(|truth| truth.as_str() == said.status);
    Some(Statement {
        kind,
        status: status.unwrap_or(Truth::Unknown),
        reason: Reason::parse(&said.reason)?,
        message: said.message.clone(),
    })
}

fn used_word(concluded: &ApiTokenStatus) -> Option<Health> {
    let said = concluded.condition(ConditionType::InUse)?;
    Reason::parse(&said.reason).map(health::word)
}

fn expired_message(picture: &Picture<'_>) -> String {
    let at = picture.expiry.map(|expiry| expiry.at.to_string()).unwrap_or_default();
    format!("The token ended at {at}: extend spec.expiry to issue a new credential, or delete the ApiToken")
}

const SUSPENDED: &str = "Gates refuse the token while spec.suspend is true; no credential is lost";

fn ready(
    picture: &Picture<'_>,
    ready: bool,
    usable: bool,
    suspended: bool,
    draft: &ApiTokenStatus,
) -> Statement {
    let (reason, message) = match (picture.problem, resting(picture, suspended)) {
        (_, Some(said)) => said,
        _ if ready => (Reason::Delivered, format!("What is declared is in force: {}", holds(picture, draft))),
        (Some(problem), _) => (problem.reason, problem.message.clone()),
        _ if usable => (Reason::Delivering, delivering(picture)),
        _ => issuing(picture),
    };
    Statement { kind: ConditionType::Ready, status: ready.into(), reason, message }
}

fn delivered(picture: &Picture<'_>, usable: bool, suspended: bool, draft: &ApiTokenStatus) -> Statement {
    let (reason, message) = match (picture.problem, resting(picture, suspended)) {
        (_, Some(said)) => said,
        _ if usable => (Reason::Delivered, holds(picture, draft)),
        // What to do about it stands beside, in `Ready`.
        (Some(problem), _) => {
            let secret = picture.token.secret_name();
            (problem.reason, format!("Secret {secret} holds no credential of this token that gates accept"))
        }
        _ => issuing(picture),
    };
    Statement { kind: ConditionType::Delivered, status: usable.into(), reason, message }
}

/// Gates refuse every credential, as is declared.
fn resting(picture: &Picture<'_>, suspended: bool) -> Option<(Reason, String)> {
    if picture.over {
        return Some((Reason::Expired, expired_message(picture)));
    }
    suspended.then(|| (Reason::Suspended, SUSPENDED.to_owned()))
}

fn holds(picture: &Picture<'_>, draft: &ApiTokenStatus) -> String {
    let id = draft.newest(CredentialState::Active).map_or("", |active| active.id.as_str());
    format!("Secret {} holds credential {id}", picture.token.secret_name())
}

fn delivering(picture: &Picture<'_>) -> String {
    format!("What is declared of Secret {} is on its way into it", picture.token.secret_name())
}

fn issuing(picture: &Picture<'_>) -> (Reason, String) {
    let reason = match picture.minting {
        Some(why @ (Reason::SecretLost | Reason::SecretAltered | Reason::Compromised)) => why,
        _ => Reason::Issuing,
    };
    let secret = picture.token.secret_name();
    let message = match picture.minting {
        Some(Reason::Adopted) => format!("The credential that Secret {secret} holds is being taken over"),
        _ => format!("A new credential is on its way into Secret {secret}"),
    };
    (reason, message)
}

fn stalled_or_reconciling(picture: &Picture<'_>, usable: bool, suspended: bool) -> Option<Statement> {
    let stalled =
        |reason, message| Statement { kind: ConditionType::Stalled, status: Truth::True, reason, message };
    let reconciling = |reason, message| Statement {
        kind: ConditionType::Reconciling,
        status: Truth::True,
        reason,
        message,
    };
    if let Some((reason, message)) = resting(picture, suspended) {
        return Some(stalled(reason, message));
    }
    if let Some(problem) = picture.problem {
        let say = if problem.terminal { stalled } else { reconciling };
        return Some(say(problem.reason, problem.message.clone()));
    }
    let minting = picture.minting.map(|why| {
        let reason = if usable { Reason::Rotating } else { Reason::Issuing };
        reconciling(
            reason,
            match why {
                Reason::Adopted => "Taking a credential over".to_owned(),
                why => format!("Issuing a credential ({why})"),
            },
        )
    });
    minting.or_else(|| (!picture.in_force).then(|| reconciling(Reason::Delivering, delivering(picture))))
}

fn owner(picture: &Picture<'_>, draft: &ApiTokenStatus) -> Statement {
    let (reason, message) = match (picture.owner_origin, &draft.owner) {
        (Some(origin), Some(owner)) => {
            let reason = match origin {
                OwnerOrigin::Token => Reason::FoundOnToken,
                OwnerOrigin::Namespace => Reason::FoundOnNamespace,
                OwnerOrigin::Default => Reason::DefaultOwner,
            };
            (reason, format!("{} ({})", owner.name, owner.source))
        }
        _ => (
            Reason::NoOwner,
            "Nobody answers for this token: write spec.owner, or label it or its Namespace with an owner"
                .to_owned(),
        ),
    };
    let status = picture.owner_origin.is_some().into();
    Statement { kind: ConditionType::OwnerResolved, status, reason, message }
}
