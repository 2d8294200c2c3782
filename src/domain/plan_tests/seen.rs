//! What can be seen of a world.

use k8s_openapi::jiff::Timestamp;

use super::World;
use crate::api::*;
use crate::domain::requests;
use crate::domain::schedule::Expiry;
use crate::domain::token::Token;

impl World {
    pub fn status(&self) -> ApiTokenStatus {
        self.token.status.clone().unwrap_or_default()
    }

    pub fn is_true(&self, kind: ConditionType) -> bool {
        self.status().is_true(kind)
    }

    /// Status and reason of a condition, as `True Delivered`; empty if it is not there.
    pub fn says(&self, kind: ConditionType) -> String {
        let status = self.status();
        status
            .condition(kind)
            .map_or(String::new(), |condition| format!("{} {}", condition.status, condition.reason))
    }

    pub fn health(&self) -> String {
        self.status().health.unwrap_or_default()
    }

    pub fn in_state(&self, state: CredentialState) -> Vec<Credential> {
        self.status().credentials.into_iter().filter(|credential| credential.state == state).collect()
    }

    /// The one active credential.
    pub fn active(&self) -> Credential {
        let active = self.in_state(CredentialState::Active);
        assert_eq!(active.len(), 1, "{active:?}");
        active[0].clone()
    }

    /// Id and fate of the ended credentials, newest first.
    pub fn ended(&self) -> Vec<(String, EndState)> {
        self.status().ended.into_iter().map(|ended| (ended.id, ended.state)).collect()
    }

    pub fn key(&self) -> String {
        self.token.spec.secret.clone().unwrap_or_default().key().to_owned()
    }

    pub fn value(&self, key: &str) -> Option<String> {
        let data = self.secret.as_ref()?.data.as_ref()?;
        data.get(key).map(|value| String::from_utf8(value.0.clone()).unwrap())
    }

    /// Digest of the token under the declared key.
    pub fn held(&self) -> Option<String> {
        self.value(&self.key()).and_then(|text| Token::parse(&text).ok()).map(|token| token.digest())
    }

    /// A gate, written independently of the plan: the object and a clock are all that it has.
    pub fn accepts(&self, digest: &str) -> bool {
        let (token, status) = (&self.token, self.status());
        !token.spec.suspend
            && !requests::is_compromise_unhandled(token)
            && self.expires_at().is_none_or(|expires_at| self.now < expires_at)
            && status.credentials.iter().any(|credential| {
                credential.digest == digest
                    && credential.not_after.as_ref().is_none_or(|not_after| self.now < not_after.0)
            })
    }

    /// The end that is declared, if it can be understood.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let created = self.token.metadata.creation_timestamp.clone().unwrap().0;
        Expiry::parse(self.token.spec.expiry.as_ref(), created).ok().flatten().map(|expiry| expiry.at)
    }
}
