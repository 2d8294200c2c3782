//! What a verdict becomes for whoever asked: one of three kinds, whatever the protocol.
//!
//! The client learns nothing finer than `invalid_token` and `insufficient_scope` (RFC 6750); the reason stands in the
//! metrics and, for a known token, in its TokenUsage.

use std::fmt::Write as _;

use crate::api::Outcome;
use crate::domain::token::{CredentialId, ID_LEN};
use crate::gate::demand::Demand;
use crate::gate::record::Record;
use crate::gate::verdict::Verdict;

/// Identity header: `namespace/name` of the ApiToken.
pub const TOKEN: &str = "x-tokenward-token";
/// Identity header: the credential id.
pub const CREDENTIAL: &str = "x-tokenward-credential";
/// Identity header: the owner; empty if there is none.
pub const OWNER: &str = "x-tokenward-owner";
/// Identity header: all scopes of the token, separated by spaces; empty if it has none.
pub const SCOPES: &str = "x-tokenward-scopes";

/// Nothing was presented: RFC 6750 wants no error code then.
pub const BEARER: &str = "Bearer realm=\"tokenward\"";
/// Offered first where the route asks for it: nginx passes only the first challenge on, and git and docker know only this.
pub const BASIC: &str = "Basic realm=\"tokenward\"";
/// Anything that is wrong with a credential.
pub const INVALID: &str = "Bearer realm=\"tokenward\", error=\"invalid_token\"";

/// What to answer.
#[derive(Debug)]
pub enum Answer<'a> {
    /// 200: it may pass, as this identity.
    Pass(Identity<'a>),
    /// 401, with these challenges in this order.
    Unauthorized(&'static [&'static str]),
    /// 403: the token lacks a scope; with this challenge.
    Scope(String),
    /// 403 without a challenge: no other credential would help.
    Forbidden,
}

/// Who may pass.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The ApiToken.
    pub record: &'a Record,
    /// The credential that was presented.
    pub credential: CredentialId,
}

impl Identity<'_> {
    /// The credential's text, without an allocation.
    pub fn credential_text(&self) -> Text {
        let mut text = Text { bytes: [0; ID_LEN], length: 0 };
        // A shorter text is not possible; were it, it would be shown as far as it goes.
        let _ = write!(text, "{}", self.credential);
        text
    }
}

/// Text of a credential id.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    bytes: [u8; ID_LEN],
    length: usize,
}

impl Text {
    /// As bytes, all ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The answer to `verdict` on a route that demands `demand`.
pub fn answer<'a>(verdict: &'a Verdict, demand: &Demand<'_>) -> Answer<'a> {
    match (verdict.outcome(), verdict.found()) {
        // The only way through. It takes both: an outcome without a token cannot come to be, and would not pass.
        (Outcome::Accepted, Some(found)) => {
            Answer::Pass(Identity { record: found.record(), credential: found.held().id() })
        }
        // Fails closed: who says nothing is told how to say it.
        (Outcome::Missing, _) if demand.offers_basic() => Answer::Unauthorized(&[BASIC, BEARER]),
        (Outcome::Missing, _) => Answer::Unauthorized(&[BEARER]),
        // Fails closed: a valid token that may not do this.
        (Outcome::MissingScope, _) => Answer::Scope(insufficient(demand)),
        // Fails closed: the operator's side is not in order. A 401 would make clients throw good credentials away.
        (Outcome::Misrouted | Outcome::NotReady | Outcome::Stale | Outcome::Accepted, _) => Answer::Forbidden,
        // Fails closed: one answer for everything that can be wrong with a credential.
        (
            Outcome::Conflicting
            | Outcome::Malformed
            | Outcome::BadChecksum
            | Outcome::ForeignPrefix
            | Outcome::UnknownCredential
            | Outcome::WrongSecret
            | Outcome::Ended
            | Outcome::Overdue
            | Outcome::Suspended
            | Outcome::Compromised
            | Outcome::Expired
            | Outcome::Unreadable
            | Outcome::WrongAudience,
            _,
        ) => Answer::Unauthorized(&[INVALID]),
    }
}

/// The challenge that names the scopes. They are words without quotes and backslashes, or the route would be misrouted.
pub fn insufficient(demand: &Demand<'_>) -> String {
    let mut text = String::with_capacity(128);
    text.push_str("Bearer realm=\"tokenward\", error=\"insufficient_scope\", scope=\"");
    for (index, scope) in demand.scopes().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(scope);
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denial_has_its_answer_and_none_passes() {
        let demand = Demand::from_query("scope=orders:read&scope=orders:write").expect("a demand");
        for outcome in Outcome::ALL {
            let verdict = Verdict::denied(*outcome);
            match (outcome, answer(&verdict, &demand)) {
                (Outcome::Missing, Answer::Unauthorized(challenges)) => assert_eq!(challenges, [BEARER]),
                (Outcome::MissingScope, Answer::Scope(challenge)) => assert_eq!(
                    challenge,
                    "Bearer realm=\"tokenward\", error=\"insufficient_scope\", scope=\"orders:read orders:write\""
                ),
                (
                    Outcome::Misrouted | Outcome::NotReady | Outcome::Stale | Outcome::Accepted,
                    Answer::Forbidden,
                ) => {}
                (_, Answer::Unauthorized(challenges)) => assert_eq!(challenges, [INVALID], "{outcome}"),
                (_, answer) => panic!("{outcome}: {answer:?}"),
            }
        }
        let demand = Demand::from_query("challenge=basic").expect("a demand");
        let verdict = Verdict::denied(Outcome::Missing);
        assert!(matches!(answer(&verdict, &demand), Answer::Unauthorized([BASIC, BEARER])));
    }
}
