//! Tokens end, come back, and rest.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokenward::api::{ConditionType, EndState};

use crate::harness::{is_ready, reason, shared, sole_active};

fn in_seconds(seconds: i64) -> String {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    (now + SignedDuration::from_secs(seconds)).to_string()
}

#[test]
fn it_expires_and_is_revived_with_another_credential() {
    shared("expiry", async |space| {
        // `Expiring` is said in the last tenth only, and a busy machine may take a second or two to say it.
        space.declare("brief", json!({"expiry": {"at": in_seconds(30)}})).await;
        let token = space.ready("brief").await;
        let old = space.holds_active(&token).await;
        assert!(sole_active(&token).not_after.is_some());
        let warned = space.until("brief", "Expiring", |token| {
            token.status.as_ref().is_some_and(|status| status.is_true(ConditionType::Expiring))
        });
        warned.await;

        let message = space.until_stalled("brief", "Expired").await;
        assert!(message.contains("extend spec.expiry"), "{message}");
        let token = space.until_reason("brief", "Expired").await;
        let status = token.status.as_ref().unwrap();
        assert!(status.credentials.is_empty(), "{:?}", status.credentials);
        assert_eq!((status.ended[0].id.as_str(), status.ended[0].state), (old.id(), EndState::Expired));
        assert_eq!(status.health.as_deref(), Some("Expired"));
        assert!(!status.is_true(ConditionType::Ready));
        space.event("brief", "Expired").await;
        let table = space.kubectl(&["get", "apitoken", "brief"]).await.ok();
        assert!(table.contains("Expired") && table.contains("False"), "{table}");

        space.patch("brief", json!({"spec": {"expiry": {"at": in_seconds(7200)}}})).await;
        let token = space.ready("brief").await;
        assert_eq!(reason(&token, ConditionType::Stalled), None);
        assert_eq!(token.status.as_ref().unwrap().last_rotation_reason.as_deref(), Some("Revived"));
        assert_ne!(space.holds_active(&token).await.expose(), old.expose());
    });
}

#[test]
fn an_expiry_in_the_past_issues_nothing() {
    shared("past", async |space| {
        space.declare("late", json!({"expiry": {"at": "2020-01-01T00:00:00Z"}})).await;
        space.until_stalled("late", "Expired").await;
        assert!(space.secrets().get_opt("late").await.unwrap().is_none());
        assert!(space.get("late").await.status.unwrap().credentials.is_empty());
    });
}

#[test]
fn suspended_and_resumed_it_is_the_same_credential() {
    shared("suspend", async |space| {
        space.declare("resting", json!({})).await;
        let token = space.ready("resting").await;
        let held = space.holds_active(&token).await;
        let version = space.secret("resting").await.metadata.resource_version;

        space.patch("resting", json!({"spec": {"suspend": true}})).await;
        space.until_stalled("resting", "Suspended").await;
        let token = space.get("resting").await;
        let status = token.status.as_ref().unwrap();
        assert!(!status.is_true(ConditionType::Ready));
        assert_eq!(status.health.as_deref(), Some("Suspended"));
        assert_eq!(sole_active(&token).digest, held.digest(), "no credential is lost");

        space.patch("resting", json!({"spec": {"suspend": false}})).await;
        let token = space.until("resting", "resumed", is_ready).await;
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        assert_eq!(
            space.secret("resting").await.metadata.resource_version,
            version,
            "nobody wrote the Secret"
        );
        space.event("resting", "Suspended").await;
        let note = space.event("resting", "Resumed").await;
        assert_eq!(note, "Resumed: gates accept the token again");
    });
}
