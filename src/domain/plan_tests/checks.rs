//! The invariants that must hold after every step.

use std::collections::BTreeSet;

use super::World;
use crate::api::*;
use crate::domain::token::Token;

impl World {
    /// I1: while Ready, what the Secret holds is accepted; where a new key is not delivered yet, under the old one.
    pub fn check_ready(&self) {
        if self.is_true(ConditionType::Ready) {
            let data = self.secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
            let accepted = data.values().any(|value| {
                let text = std::str::from_utf8(&value.0).unwrap_or_default();
                Token::parse(text).is_ok_and(|token| self.accepts(&token.digest()))
            });
            assert!(accepted, "I1: Ready, but the Secret's token is not accepted: {:#?}", self.status());
        }
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
        assert!(status.condition(ConditionType::OwnerResolved).is_some());
        let (reconciling, stalled) =
            (status.is_true(ConditionType::Reconciling), status.is_true(ConditionType::Stalled));
        assert!(!(reconciling && stalled), "both Reconciling and Stalled");
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
}
