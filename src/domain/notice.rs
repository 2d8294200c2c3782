//! What is worth an event: the differences between the status before and after a write. An event is published after the
//! write that it announces, and only for a transition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{ApiTokenStatus, ConditionType, CredentialState, EndState, EndedCredential, Reason};

/// One event to publish about an ApiToken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Why; also the event's reason.
    pub reason: Reason,
    /// Whether somebody should look.
    pub warning: bool,
    /// For people. Never holds a secret.
    pub note: String,
}

/// The events that a change of status from `before` to `after` calls for.
pub fn notices(before: &ApiTokenStatus, after: &ApiTokenStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    pending(before, after, &mut notices);
    activated(before, after, &mut notices);
    ended(before, after, &mut notices);
    stalled(before, after, &mut notices);
    waiting(before, after, &mut notices);
    expiring(before, after, &mut notices);
    redelivered(before, after, &mut notices);
    used(before, after, &mut notices);
    notices
}

/// A mint that the user did not plan is said as soon as it is decided.
fn pending(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let known = |id: &str| before.credentials.iter().any(|credential| credential.id == id);
    let reason = after
        .credentials
        .iter()
        .filter(|credential| credential.state == CredentialState::Pending && !known(&credential.id))
        .find_map(|credential| credential.reason.as_deref().and_then(Reason::parse));
    let secret = after.secret_name.as_deref().unwrap_or_default();
    let note = match reason {
        Some(Reason::SecretLost) => {
            format!("Secret {secret} is gone and its value cannot be restored: issuing a new credential")
        }
        Some(Reason::SecretAltered) => {
            format!("The value in Secret {secret} was changed by somebody else: issuing a new credential")
        }
        Some(Reason::Compromised) => {
            "Declared compromised: every credential issued so far has ended".to_owned()
        }
        _ => return,
    };
    notices.extend(reason.map(|reason| Notice { reason, warning: true, note }));
}

fn activated(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let was_active = |id: &str| {
        before
            .credentials
            .iter()
            .any(|credential| credential.id == id && credential.state == CredentialState::Active)
    };
    let Some(active) = after.newest(CredentialState::Active).filter(|active| !was_active(&active.id)) else {
        return;
    };
    let reason = active.reason.as_deref().and_then(Reason::parse).unwrap_or(Reason::Issued);
    let secret = after.secret_name.as_deref().unwrap_or_default();
    let mut note = format!("Credential {} is in Secret {secret}", active.id);
    let superseded = before.newest(CredentialState::Active).map(|credential| credential.id.as_str());
    let retiring = after.credentials.iter().find(|credential| Some(credential.id.as_str()) == superseded);
    if let Some(retiring) = retiring
        && let Some(until) = &retiring.not_after
    {
        note.push_str(&format!("; its predecessor {} stays valid until {}", retiring.id, until.0));
    }
    notices.push(Notice { reason, warning: false, note });
}

fn ended(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let new: Vec<_> =
        after.ended.iter().filter(|ended| before.ended.iter().all(|was| was.id != ended.id)).collect();
    let ids = |state: EndState| {
        let ids: Vec<&str> =
            new.iter().filter(|ended| ended.state == state).map(|ended| ended.id.as_str()).collect();
        (!ids.is_empty()).then(|| ids.join(", "))
    };
    let requested = |status: &ApiTokenStatus| status.last_handled.clone().unwrap_or_default().retire_now_at;
    let early = |ended: &&&EndedCredential| {
        let was = before.credentials.iter().find(|was| was.id == ended.id);
        let deadline = was.and_then(|was| was.not_after.as_ref());
        ended.state == EndState::Retired && deadline.is_some_and(|at| at.0 > ended.ended_at.0)
    };
    if let Some(ids) = ids(EndState::Retired) {
        let unused = requested(before) == requested(after) && new.iter().any(|ended| early(&ended));
        let (reason, note) = match unused {
            true => {
                (Reason::RetiredUnused, format!("Retired before the deadline, because nobody uses it: {ids}"))
            }
            false => (Reason::Retired, format!("Retired: {ids}")),
        };
        notices.push(Notice { reason, warning: false, note });
    }
    let handled = |status: &ApiTokenStatus| status.last_handled.clone().unwrap_or_default().compromised_at;
    let declared = handled(before) != handled(after);
    match ids(EndState::Revoked) {
        Some(ids) if declared => {
            let note = format!("Declared compromised: no gate accepts {ids} any more");
            notices.push(Notice { reason: Reason::Compromised, warning: true, note });
        }
        Some(ids) => {
            let note = format!("The status held credentials that the Secret never did: revoked {ids}");
            notices.push(Notice { reason: Reason::StatusAltered, warning: true, note });
        }
        None => {}
    }
    if before.credentials.len() > after.credentials.len() + new.len() {
        let note = "The status held credentials that this operator cannot have written: removed".to_owned();
        notices.push(Notice { reason: Reason::StatusAltered, warning: true, note });
    }
}

fn stalled(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let reason = |status: &ApiTokenStatus| {
        let stalled = status.condition(ConditionType::Stalled)?;
        Some((Reason::parse(&stalled.reason)?, stalled.message.clone()))
    };
    match (reason(before), reason(after)) {
        (was, Some((reason, note))) if was.as_ref().map(|(reason, _)| *reason) != Some(reason) => {
            notices.push(Notice { reason, warning: reason != Reason::Suspended, note });
        }
        (Some((was, _)), None) => {
            let note = format!("No longer stalled ({was})");
            notices.push(Notice {
                reason: after.ready_reason().unwrap_or(Reason::Delivered),
                warning: false,
                note,
            });
        }
        _ => {}
    }
}

/// A problem that is tried again by itself, but that somebody may have to solve.
fn waiting(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let reason = |status: &ApiTokenStatus| {
        let reconciling = status.condition(ConditionType::Reconciling)?;
        let reason = Reason::parse(&reconciling.reason)?;
        let work = matches!(reason, Reason::Issuing | Reason::Rotating);
        (!work).then(|| (reason, reconciling.message.clone()))
    };
    if let Some((now, note)) = reason(after)
        && reason(before).is_none_or(|(was, _)| was != now)
    {
        notices.push(Notice { reason: now, warning: true, note });
    }
}

fn expiring(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    if !before.is_true(ConditionType::Expiring)
        && let Some(condition) = after.condition(ConditionType::Expiring)
    {
        notices.push(Notice { reason: Reason::ExpiresSoon, warning: true, note: condition.message.clone() });
    }
}

fn redelivered(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let active =
        |status: &ApiTokenStatus| status.newest(CredentialState::Active).map(|active| active.id.clone());
    // The declared content, not the version: others may touch the Secret too, and that is no news of ours.
    let content =
        |status: &ApiTokenStatus| status.delivery.as_ref().map(|delivery| delivery.content_hash.clone());
    if active(before).is_some()
        && active(before) == active(after)
        && content(before).is_some()
        && content(before) != content(after)
    {
        let note = format!(
            "Secret {} was written anew around the same credential",
            after.secret_name.as_deref().unwrap_or_default()
        );
        notices.push(Notice { reason: Reason::Redelivered, warning: false, note });
    }
}

/// What gates found: idleness and its end, a superseded credential in use, an id that is claimed twice.
fn used(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let mut began = |kind: ConditionType, warning: bool| {
        if let Some(condition) =
            after.condition(kind).filter(|_| after.is_true(kind) && !before.is_true(kind))
            && let Some(reason) = Reason::parse(&condition.reason)
        {
            notices.push(Notice { reason, warning, note: condition.message.clone() });
        }
    };
    began(ConditionType::Idle, false);
    began(ConditionType::SupersededInUse, true);
    began(ConditionType::CredentialClash, true);
    // What workloads notice too is told as what is in the way.
    let in_the_way = |condition: &Condition| condition.reason == Reason::DataMutated.as_str();
    if !after.condition(ConditionType::SecretMutated).is_some_and(in_the_way) {
        began(ConditionType::SecretMutated, true);
    }
    if before.is_true(ConditionType::Idle) && after.is_true(ConditionType::InUse) {
        notices.push(Notice { reason: Reason::InUse, warning: false, note: "Used again".to_owned() });
    }
}
