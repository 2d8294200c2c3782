//! The invariants that must hold after every step.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;

use super::World;
use crate::api::*;
use crate::domain::delivery;
use crate::domain::schedule::{Expiry, Rotation};
use crate::domain::token::Token;

/// What kstatus makes of a status that speaks of the present generation (cli-utils, `pkg/kstatus/status/generic.go`).
pub fn kstatus(status: &ApiTokenStatus) -> &'static str {
    let is = |kind| status.condition(kind).map(|condition| condition.status.as_str());
    match (is(ConditionType::Reconciling), is(ConditionType::Stalled), is(ConditionType::Ready)) {
        (Some("True"), _, _) => "InProgress",
        (_, Some("True"), _) => "Failed",
        (_, _, Some("True")) | (_, _, None) => "Current",
        _ => "InProgress",
    }
}

impl World {
    /// I1: while Delivered, what the Secret holds is accepted; where a new key is not delivered yet, under the old one.
    pub fn check_delivered(&self) {
        if self.is_true(ConditionType::Delivered) {
            let data = self.secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
            let accepted = data.values().any(|value| {
                let text = std::str::from_utf8(&value.0).unwrap_or_default();
                Token::parse(text).is_ok_and(|token| self.accepts(&token.digest()))
            });
            assert!(accepted, "I1: Delivered, but the Secret's token is not accepted: {:#?}", self.status());
        }
    }

    /// While Ready, this generation is in force: all of it is understood, and the Secret was last written under it.
    pub fn check_in_force(&self) {
        let (status, spec) = (self.status(), &self.token.spec);
        let Some(ready) = status.condition(ConditionType::Ready).filter(|ready| ready.status == "True")
        else {
            return;
        };
        let created = self.token.metadata.creation_timestamp.clone().unwrap().0;
        let rotates = Rotation::parse(spec.rotation.as_ref()).is_ok_and(|rotation| {
            let active = status.newest(CredentialState::Active).unwrap();
            rotation.due(self.token.uid(), &active.id, active.issued_at.0).is_ok()
        });
        let in_force = ready.observed_generation == self.token.metadata.generation
            && rotates
            && Expiry::parse(spec.expiry.as_ref(), created).is_ok()
            && self.applied_spec.as_ref() == Some(&spec.secret);
        assert!(in_force, "Ready, and what is declared is not in force: {spec:#?} {status:#?}");
    }

    /// Every list bounded, kstatus never contradicts itself.
    pub fn check_status(&self) {
        let status = self.status();
        assert!(status.credentials.len() <= MAX_CREDENTIALS && status.ended.len() <= MAX_ENDED);
        let ids: BTreeSet<_> = status.credentials.iter().map(|credential| &credential.id).collect();
        assert_eq!(ids.len(), status.credentials.len(), "a list map with doubled keys");
        let types: BTreeSet<_> = status.conditions.iter().map(|condition| &condition.type_).collect();
        assert_eq!(types.len(), status.conditions.len(), "a list map with doubled keys");
        assert!(status.condition(ConditionType::Ready).is_some());
        assert!(status.condition(ConditionType::Delivered).is_some());
        assert!(status.condition(ConditionType::OwnerResolved).is_some());
        let (reconciling, stalled) =
            (status.is_true(ConditionType::Reconciling), status.is_true(ConditionType::Stalled));
        assert!(!(reconciling && stalled), "both Reconciling and Stalled");
        let (ready, delivered) =
            (status.is_true(ConditionType::Ready), status.is_true(ConditionType::Delivered));
        assert!(!(ready && stalled), "Ready and Stalled: {status:#?}");
        assert!(ready || stalled || reconciling, "not Ready, and nothing says what comes: {status:#?}");
        assert!(delivered || !ready, "Ready and not Delivered: {status:#?}");
        assert_eq!(kstatus(&status) == "Current", ready && !reconciling, "{status:#?}");
        assert_eq!(status.observed_generation, self.token.metadata.generation);
    }

    /// I5: looking again writes nothing, before and after a restart.
    pub fn check_quiescent(&mut self) {
        for restart in [false, true] {
            if restart {
                self.restart();
            }
            let before = (self.status_writes, self.secret_writes, self.minted.len());
            let next_rotation = self.status().next_rotation_time;
            let trace = self.reconcile();
            let after = (self.status_writes, self.secret_writes, self.minted.len());
            assert_eq!(before, after, "I5: {trace} (restart: {restart})");
            assert_eq!(next_rotation, self.status().next_rotation_time, "I7");
        }
    }

    pub fn rotation_due(&self) -> bool {
        let status = self.status();
        let Some(active) = status.newest(CredentialState::Active) else { return false };
        let rotation = Rotation::parse(self.token.spec.rotation.as_ref());
        let due =
            rotation.and_then(|rotation| rotation.due(self.token.uid(), &active.id, active.issued_at.0));
        due.ok().flatten().is_some_and(|due| due <= self.now)
    }

    /// I4: it is this ApiToken's, or nobody's and asked for by its uid.
    pub fn may_write(&self, secret: &Secret) -> bool {
        let nobodys = secret.metadata.owner_references.as_deref().unwrap_or_default().is_empty();
        let asked = self.token.annotation(keys::ADOPT) == secret.metadata.uid.as_deref();
        delivery::is_controlled_by(&secret.metadata, self.token.uid()) || (nobodys && asked)
    }
}
