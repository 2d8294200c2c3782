//! What is worth an event: the differences between the status before and after a write. An event is published after the
//! write that it announces, and only for a transition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::requests;
use crate::api::{
    ApiTokenStatus, ConditionType, Credential, CredentialState, EndState, EndedCredential, MAX_CREDENTIALS,
    Reason, keys,
};

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
    used_up(before, after, &mut notices);
    problems(before, after, &mut notices);
    expiring(before, after, &mut notices);
    redelivered(before, after, &mut notices);
    used(before, after, &mut notices);
    notices
}

fn normal(reason: Reason, note: String) -> Notice {
    Notice { reason, warning: false, note }
}

fn warning(reason: Reason, note: String) -> Notice {
    Notice { reason, warning: true, note }
}

/// A mint that the user did not plan is said as soon as it is decided. A compromise is said with what it ends.
fn pending(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let known = |id: &str| before.credentials.iter().any(|credential| credential.id == id);
    let reason = after
        .credentials
        .iter()
        .filter(|credential| credential.state == CredentialState::Pending && !known(&credential.id))
        .find_map(|credential| credential.reason.as_deref().and_then(Reason::parse));
    let secret = after.secret_name.as_deref().unwrap_or_default();
    match reason {
        Some(reason @ Reason::SecretLost) => notices.push(warning(
            reason,
            format!("Secret {secret} is gone and its value cannot be restored: issuing a new credential"),
        )),
        Some(reason @ Reason::SecretAltered) => notices.push(warning(
            reason,
            format!("The value in Secret {secret} was changed by somebody else: issuing a new credential"),
        )),
        _ => {}
    }
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
    let secret = after.secret_name.as_deref().unwrap_or_default();
    let reason = match active.reason.as_deref().and_then(Reason::parse) {
        // Its cause has had an event of its own: one thing is told under one reason once.
        Some(Reason::SecretLost | Reason::SecretAltered | Reason::Compromised | Reason::StatusAltered) => {
            Reason::Delivered
        }
        Some(Reason::Adopted) => {
            let note = format!(
                "Credential {}, which Secret {secret} holds, was entered as it is, and none was issued",
                active.id
            );
            return notices.push(normal(Reason::Adopted, note));
        }
        reason => reason.unwrap_or(Reason::Issued),
    };
    let mut note = format!("Credential {} is in Secret {secret}", active.id);
    let superseded = before.newest(CredentialState::Active).map(|credential| credential.id.as_str());
    let retiring = after.credentials.iter().find(|credential| Some(credential.id.as_str()) == superseded);
    if let Some(retiring) = retiring
        && let Some(until) = &retiring.not_after
    {
        note.push_str(&format!("; its predecessor {} stays valid until {}", retiring.id, until.0));
    }
    notices.push(normal(reason, note));
}

fn ended(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let new: Vec<_> =
        after.ended.iter().filter(|ended| before.ended.iter().all(|was| was.id != ended.id)).collect();
    let ids = |state: EndState, why: Option<Reason>| {
        let so = |ended: &&&EndedCredential| {
            ended.state == state && ended.reason.as_deref() == why.map(Reason::as_str)
        };
        let ids: Vec<&str> = new.iter().filter(so).map(|ended| ended.id.as_str()).collect();
        (!ids.is_empty()).then(|| ids.join(", "))
    };
    if let Some(ids) = ids(EndState::Retired, None) {
        notices.push(normal(Reason::Retired, format!("Retired at the end of the overlap: {ids}")));
    }
    if let Some(ids) = ids(EndState::Retired, Some(Reason::Requested)) {
        notices.push(normal(
            Reason::Retired,
            format!("Retired on request, before the end of the overlap: {ids}"),
        ));
    }
    if let Some(ids) = ids(EndState::Retired, Some(Reason::RetiredUnused)) {
        let note = format!("Retired before the end of the overlap, because nobody uses it: {ids}");
        notices.push(normal(Reason::RetiredUnused, note));
    }
    if let Some(ids) = ids(EndState::Retired, Some(Reason::TooManyCredentials)) {
        let note = format!(
            "Retired before the end of the overlap, used or not, because at most {MAX_CREDENTIALS} credentials live at \
             once: {ids}. Rotate less often, or shorten spec.rotation.overlap"
        );
        notices.push(warning(Reason::TooManyCredentials, note));
    }
    let handled = |status: &ApiTokenStatus| status.last_handled.clone().unwrap_or_default().compromised_at;
    let declared = handled(before) != handled(after);
    match ids(EndState::Revoked, None) {
        Some(ids) if declared => {
            let note = format!("Declared compromised: no gate accepts {ids} any more");
            notices.push(warning(Reason::Compromised, note));
        }
        Some(ids) => {
            let note = format!("The status held credentials that the Secret never did: revoked {ids}");
            notices.push(warning(Reason::StatusAltered, note));
        }
        // The status had lost what it could have ended.
        None if declared && after.credentials.iter().any(is_for_compromise) => {
            let note = "Declared compromised: no gate accepts what was issued before".to_owned();
            notices.push(warning(Reason::Compromised, note));
        }
        None => {}
    }
    if before.credentials.len() > after.credentials.len() + new.len() {
        let note = "The status held credentials that this operator cannot have written: removed".to_owned();
        notices.push(warning(Reason::StatusAltered, note));
    }
}

fn is_for_compromise(credential: &Credential) -> bool {
    credential.reason.as_deref() == Some(Reason::Compromised.as_str())
}

/// A request that was honoured, and whose value will pass for the old one when it is written again.
fn used_up(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let handled = |status: &ApiTokenStatus| {
        let handled = status.last_handled.clone().unwrap_or_default();
        [handled.rotate_requested_at, handled.retire_now_at, handled.compromised_at]
    };
    for ((key, was), now) in keys::REQUESTS.into_iter().zip(handled(before)).zip(handled(after)) {
        let Some(value) =
            now.filter(|value| was.as_ref() != Some(value) && requests::is_soon_repeated(value))
        else {
            continue;
        };
        let note = format!(
            "{key} was honoured, and its value \"{}\" is used up: the same value asks for nothing again. Write the current \
             time, so that the next request has another",
            requests::repeated(&value)
        );
        notices.push(normal(Reason::ValueUsedUp, note));
    }
}

/// Obstacles: those that end only with the user's help, and those that are tried again but may need it, too.
fn problems(before: &ApiTokenStatus, after: &ApiTokenStatus, notices: &mut Vec<Notice>) {
    let said = |status: &ApiTokenStatus, kind: ConditionType| {
        let condition = status.condition(kind)?;
        Some((Reason::parse(&condition.reason)?, condition.message.clone()))
    };
    let problem = |status: &ApiTokenStatus| {
        let waiting = || {
            let work = [Reason::Issuing, Reason::Rotating, Reason::Delivering];
            said(status, ConditionType::Reconciling).filter(|(reason, _)| !work.contains(reason))
        };
        said(status, ConditionType::Stalled).or_else(waiting)
    };
    let was = problem(before).map(|(reason, _)| reason);
    let is = problem(after);
    let now = is.as_ref().map(|(reason, _)| *reason);
    if was == now {
        return;
    }
    let ready = || said(after, ConditionType::Ready).unwrap_or((Reason::Delivered, String::new()));
    match was {
        Some(Reason::Suspended) if now != Some(Reason::Expired) => {
            let note = match after.is_true(ConditionType::Delivered) {
                true => "Resumed: gates accept the token again".to_owned(),
                false => format!("Resumed. {}", ready().1),
            };
            notices.push(normal(Reason::Resumed, note));
        }
        // What follows, a new credential, is told by itself.
        Some(Reason::Suspended | Reason::Expired) | None => {}
        Some(was) if now.is_none() => {
            let (reason, message) = ready();
            notices.push(normal(reason, format!("No longer {was}. {message}")));
        }
        Some(_) => {}
    }
    if let Some((reason, note)) = is {
        notices.push(Notice {
            reason,
            warning: !matches!(reason, Reason::Suspended | Reason::Deleting),
            note,
        });
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

/// What gates found: idleness and its end, a superseded credential in use.
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
    // What workloads notice too is told as what is in the way.
    let in_the_way = |condition: &Condition| condition.reason == Reason::DataMutated.as_str();
    if !after.condition(ConditionType::SecretMutated).is_some_and(in_the_way) {
        began(ConditionType::SecretMutated, true);
    }
    let ignored = |status: &ApiTokenStatus| {
        status.condition(ConditionType::UnknownAnnotation).map(|condition| condition.message.clone())
    };
    if let Some(note) = ignored(after).filter(|note| ignored(before).as_ref() != Some(note)) {
        notices.push(warning(Reason::UnknownAnnotation, note));
    }
    if before.is_true(ConditionType::Idle) && after.is_true(ConditionType::InUse) {
        notices.push(Notice {
            reason: Reason::InUse,
            warning: false,
            note: "Used again after it had been idle".to_owned(),
        });
    }
}
