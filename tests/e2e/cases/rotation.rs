//! Rotation: on request, by time, and when a token leaked.

use std::time::Duration;

use serde_json::json;
use tokenward::api::{ConditionType, CredentialState, EndState, keys};

use crate::harness::{credential, shared, sole_active};

#[test]
fn a_requested_rotation_overlaps() {
    shared("requested", async |space| {
        space.declare("asked", json!({"rotation": {"every": "720h", "overlap": "1h"}})).await;
        let before = space.ready("asked").await;
        let old = space.holds_active(&before).await;

        let token = space.rotate("asked").await;
        let new = space.holds_active(&token).await;
        assert_ne!(new.expose(), old.expose());
        let retiring = credential(&token, CredentialState::Retiring).expect("the old one overlaps");
        assert_eq!(retiring.digest, old.digest());
        let status = token.status.as_ref().unwrap();
        let rotated = status.last_rotation_time.as_ref().unwrap().0;
        let left = retiring.not_after.as_ref().unwrap().0.duration_since(rotated);
        assert_eq!(left.unsigned_abs(), Duration::from_secs(3600));
        assert_eq!(status.last_rotation_reason.as_deref(), Some("Requested"));
        space.event("asked", "Requested").await;

        // The superseded one can be ended early.
        space.request("asked", keys::RETIRE_NOW_AT).await;
        let token = space
            .until("asked", "the superseded credential ended", |token| {
                credential(token, CredentialState::Retiring).is_none()
            })
            .await;
        let status = token.status.as_ref().unwrap();
        assert_eq!((status.ended[0].id.as_str(), status.ended[0].state), (old.id(), EndState::Retired));
        assert_eq!(space.holds_active(&token).await.expose(), new.expose());
        space.event("asked", "Retired").await;
    });
}

#[test]
fn a_compromise_ends_everything_at_once() {
    shared("compromised", async |space| {
        space.declare("leaked", json!({"rotation": {"every": "720h", "overlap": "24h"}})).await;
        space.ready("leaked").await;
        let before = space.rotate("leaked").await;
        let leaked = space.holds_active(&before).await;
        let retiring = credential(&before, CredentialState::Retiring).unwrap().id.clone();

        let value = space.request("leaked", keys::COMPROMISED_AT).await;
        let token = space
            .until("leaked", "the compromise was honoured", |token| {
                let status = token.status.as_ref().unwrap();
                status.last_handled.as_ref().and_then(|handled| handled.compromised_at.as_ref())
                    == Some(&value)
                    && status.is_true(ConditionType::Ready)
            })
            .await;
        let status = token.status.as_ref().unwrap();
        assert_eq!(status.credentials.len(), 1, "no overlap: {:?}", status.credentials);
        for id in [leaked.id(), &retiring] {
            let ended = status.ended.iter().find(|ended| ended.id == id).expect("remembered");
            assert_eq!(ended.state, EndState::Revoked);
        }
        assert_ne!(space.holds_active(&token).await.expose(), leaked.expose());
        space.event("leaked", "Compromised").await;
        assert_eq!(space.told("leaked", "Compromised").await, 1, "counted once");
    });
}

#[test]
fn a_minute_passes_and_it_rotates() {
    shared("minute", async |space| {
        space.declare("fast", json!({"rotation": {"every": "1m", "overlap": "20s"}})).await;
        let first = space.ready("fast").await;
        let old = space.holds_active(&first).await;
        let due = first.status.as_ref().unwrap().next_rotation_time.clone().unwrap().0;
        let issued = sole_active(&first).issued_at.0;
        let ahead = due.duration_since(issued).as_secs();
        assert!((54..=60).contains(&ahead), "early by a tenth at most: {ahead} s");

        let token = space.until("fast", "rotated by time", |token| {
            token.status.as_ref().is_some_and(|status| status.last_rotation_reason.as_deref() == Some("Due"))
                && credential(token, CredentialState::Active).is_some()
        });
        let token = token.await;
        let status = token.status.as_ref().unwrap();
        let late = sole_active(&token).issued_at.0.duration_since(due).as_secs();
        println!("every: 1m — issued {late} s after it was due");
        assert!(late >= 0, "never before it is due");
        assert_ne!(space.holds_active(&token).await.expose(), old.expose());
        assert_eq!(credential(&token, CredentialState::Retiring).unwrap().id, old.id());
        assert!(status.next_rotation_time.as_ref().unwrap().0 > due);

        // Its overlap ends by itself too.
        let token = space
            .until("fast", "the overlap ended", |token| {
                credential(token, CredentialState::Retiring).is_none_or(|retiring| retiring.id != old.id())
            })
            .await;
        assert!(token.status.unwrap().ended.iter().any(|ended| ended.id == old.id()));
        space.event("fast", "Due").await;
    });
}
