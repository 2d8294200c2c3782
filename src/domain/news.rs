//! Which steps nobody waits for. A status is read by people who asked for something, and it tells those who did not ask how
//! their token fares. The second may wait: when something is to be told about every token, it is told at a pace that
//! leaves the API server to those who wait.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use super::plan::{SecretView, Step};
use super::requests;
use crate::api::{ApiToken, ApiTokenStatus, ConditionType, Credential, CredentialState, Reason, keys};

/// Whether this step, were it the first for `token`, only tells news, or follows a declaration that somebody else changed:
/// an operator that lays the Secret out anew, a default, the owner of a Namespace.
pub fn is_news(token: &ApiToken, secret: &SecretView, step: &Step) -> bool {
    let before = token.status.clone().unwrap_or_default();
    match step {
        Step::WriteStatus(after) => !somebody_waits(&before, after) && !asks_in_vain(token, &before, after),
        // Nobody touched the Secret, nobody edited the ApiToken, and what was delivered works. Where the status leaves open which
        // credential the Secret holds, a rotation may be unfinished, or a forged one be accepted.
        Step::ReadSecret => {
            let mut states = before.credentials.iter().map(|credential| credential.state);
            let settled = states.clone().filter(|state| *state == CredentialState::Active).count() == 1
                && states.all(|state| state != CredentialState::Pending);
            settled
                && matches!(secret, SecretView::Verified { .. })
                && before.observed_generation == token.metadata.generation
                && [ConditionType::Delivered, ConditionType::Ready].iter().any(|kind| before.is_true(*kind))
        }
        Step::Mint { .. } | Step::Deliver { .. } | Step::Wait { .. } => false,
    }
}

/// Conditions that tools and pipelines wait for.
const AWAITED: [ConditionType; 4] = [
    ConditionType::Ready,
    ConditionType::Reconciling,
    ConditionType::Stalled,
    // Whoever mistyped an annotation looks for what it did.
    ConditionType::UnknownAnnotation,
];

/// Whether `after` answers somebody who edited the ApiToken or asked for something, or says what has become of a
/// credential.
fn somebody_waits(before: &ApiTokenStatus, after: &ApiTokenStatus) -> bool {
    let truth = |status: &ApiTokenStatus| {
        AWAITED.map(|kind| status.condition(kind).map(|condition| condition.status.clone()))
    };
    // Always there: where it is missing, an earlier version wrote the status, and that of every token.
    let delivered =
        |status: &ApiTokenStatus| status.condition(ConditionType::Delivered).map(|said| said.status.clone());
    let redelivered = delivered(before).is_some_and(|was| delivered(after) != Some(was));
    let credentials = |status: &ApiTokenStatus| -> Vec<Credential> {
        let used = |credential: &Credential| Credential { last_used_at: None, ..credential.clone() };
        status.credentials.iter().map(used).collect()
    };
    let ended = |status: &ApiTokenStatus| -> BTreeSet<String> {
        status.ended.iter().map(|ended| ended.id.clone()).collect()
    };
    before.observed_generation != after.observed_generation
        || before.last_handled != after.last_handled
        || before.secret_name != after.secret_name
        || before.expires_at != after.expires_at
        || redelivered
        || truth(before) != truth(after)
        || credentials(before) != credentials(after)
        || !ended(after).is_subset(&ended(before))
}

/// Whether `after` says something else to whoever annotated the ApiToken with what cannot be honoured: a wrong uid, or one more
/// mistyped key. Such an edit changes no generation.
fn asks_in_vain(token: &ApiToken, before: &ApiTokenStatus, after: &ApiTokenStatus) -> bool {
    // What is found; not our own words of what to write instead, which an upgrade changes for all.
    let found = |status: &ApiTokenStatus, kind: ConditionType| {
        let message = status.condition(kind).map(|condition| condition.message.clone());
        message.map(|message| message.split(". ").next().unwrap_or_default().to_owned())
    };
    let differs = |kind: ConditionType| found(before, kind) != found(after, kind);
    let ready = after.condition(ConditionType::Ready).and_then(|ready| Reason::parse(&ready.reason));
    let handled = before.last_handled.as_ref().and_then(|handled| handled.adopt.clone());
    let asked = requests::value(token, keys::ADOPT);
    differs(ConditionType::UnknownAnnotation)
        || (ready == Some(Reason::SecretConflict)
            && asked.is_some()
            && asked != handled
            && differs(ConditionType::Ready))
}

/// The next time that the status itself names: what waits with news must not sleep through it.
pub fn next_deadline(token: &ApiToken, now: Timestamp) -> Option<Timestamp> {
    let status = token.status.as_ref()?;
    let ends = status.credentials.iter().filter_map(|credential| credential.not_after.as_ref());
    let times = ends.chain(&status.next_rotation_time).chain(&status.expires_at).map(|at| at.0);
    times.filter(|at| *at > now).min()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use serde_json::json;

    use super::*;
    use crate::api::LastHandled;

    fn token(states: &[&str]) -> ApiToken {
        let at = "2026-01-01T00:00:00Z";
        let credential = |(number, state): (usize, &&str)| json!({"id": format!("{number:010}"), "digest": "sha256:x", "state": state, "issuedAt": at});
        let credentials: Vec<_> = states.iter().enumerate().map(credential).collect();
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "Delivered", "message": "", "lastTransitionTime": at
        });
        serde_json::from_value(json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
            "metadata": {"name": "t", "generation": 1}, "spec": {},
            "status": {"observedGeneration": 1, "credentials": credentials, "conditions": [ready]}
        }))
        .unwrap()
    }

    #[test]
    fn who_annotates_in_vain_is_answered_and_who_annotates_nothing_waits() {
        let mut token = token(&["Active"]);
        let before = token.status.clone().unwrap();
        let said = |kind: &str, message: &str| {
            let mut after = before.clone();
            let ready = after.conditions[0].clone();
            after.conditions.retain(|condition| condition.type_ != kind);
            let (type_, message) = (kind.to_owned(), message.to_owned());
            after.conditions.push(Condition { type_, message, ..ready });
            Step::WriteStatus(Box::new(after))
        };
        let is = |token: &ApiToken, step: &Step| is_news(token, &SecretView::Unseen, step);
        assert!(is(&token, &said("Ready", "another word")));
        let Step::WriteStatus(mut broken) = said("Ready", "not in force") else { unreachable!() };
        broken.conditions[0].status = "False".into();
        assert!(!is(&token, &Step::WriteStatus(broken)), "a pipeline waits for Ready");
        let mut known = token.clone();
        token.metadata.annotations = Some([(keys::ADOPT.to_owned(), "no uid".to_owned())].into());
        assert!(is(&token, &said("Ready", "it is not taken over")), "it has a Secret of its own");
        let conflict = |message: &str| {
            let Step::WriteStatus(mut after) = said("Ready", message) else { unreachable!() };
            after.conditions.iter_mut().for_each(|condition| condition.reason = "SecretConflict".into());
            Step::WriteStatus(after)
        };
        assert!(!is(&token, &conflict("it is not taken over")));
        let handled = LastHandled { adopt: Some("no uid".into()), ..LastHandled::default() };
        token.status.as_mut().unwrap().last_handled = Some(handled.clone());
        let Step::WriteStatus(mut after) = conflict("another word") else { unreachable!() };
        after.last_handled = Some(handled);
        assert!(is(&token, &Step::WriteStatus(after)), "a request of long ago");

        let unknown = |message: &str| {
            let Step::WriteStatus(after) = said("UnknownAnnotation", message) else { unreachable!() };
            after
        };
        known.status = Some(*unknown("one key. Write this"));
        assert!(!is(&known, &Step::WriteStatus(unknown("two keys. Write this"))), "a second mistyped key");
        assert!(is(&known, &Step::WriteStatus(unknown("one key. Write that"))), "after an upgrade");
    }

    #[test]
    fn a_read_that_may_end_a_rotation_or_find_a_forgery_is_no_news() {
        let view = SecretView::Verified { uid: "u".into(), resource_version: "1".into() };
        let is = |states: &[&str]| is_news(&token(states), &view, &Step::ReadSecret);
        assert!(is(&["Active"]) && is(&["Active", "Retiring"]));
        assert!(!is(&["Active", "Pending"]), "an unfinished rotation");
        assert!(!is(&["Active", "Active"]) && !is(&[]), "which of them is genuine");
    }
}
