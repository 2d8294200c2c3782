//! Conditions that move only when something changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::api::{ConditionType, Reason};

/// Most bytes of a condition's message that are kept; the API allows 32,768 characters, but `Ready` and `Stalled` may say
/// the same, and the whole status has to stay below 10 kB.
const MAX_MESSAGE: usize = 640;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

impl Truth {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What a condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which condition.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: Truth,
    /// Why.
    pub reason: Reason,
    /// For people: what was found and what to do about it.
    pub message: String,
}

/// The conditions that say exactly `statements`, in their order. Conditions of types that are not ours are kept.
/// `lastTransitionTime` moves only when `status` does.
pub fn conclude(
    before: &[Condition],
    statements: &[Statement],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let foreign = before
        .iter()
        .filter(|condition| ConditionType::ALL.iter().all(|kind| kind.as_str() != condition.type_))
        .cloned();
    let ours = statements.iter().map(|statement| {
        let status = statement.status.as_str();
        let unmoved = before.iter().find(|was| was.type_ == statement.kind.as_str() && was.status == status);
        Condition {
            type_: statement.kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: statement.reason.as_str().to_owned(),
            message: truncated(&statement.message),
            observed_generation: generation,
            last_transition_time: unmoved.map_or(Time(now), |was| was.last_transition_time.clone()),
        }
    });
    ours.chain(foreign).collect()
}

fn truncated(message: &str) -> String {
    message[..message.floor_char_boundary(MAX_MESSAGE)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: bool, message: &str) -> Statement {
        Statement {
            kind: ConditionType::Ready,
            status: status.into(),
            reason: Reason::Delivered,
            message: message.into(),
        }
    }

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let first = conclude(&[], &[ready(true, "a")], Some(1), at(10));
        let same = conclude(&first, &[ready(true, "b")], Some(2), at(20));
        assert_eq!(same[0].last_transition_time, Time(at(10)));
        assert_eq!((same[0].message.as_str(), same[0].observed_generation), ("b", Some(2)));
        let flipped = conclude(&same, &[ready(false, "b")], Some(2), at(30));
        assert_eq!(flipped[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn unsaid_conditions_go_and_foreign_ones_stay() {
        let mut before = conclude(
            &[],
            &[Statement {
                kind: ConditionType::Stalled,
                status: Truth::True,
                reason: Reason::Expired,
                message: String::new(),
            }],
            None,
            at(1),
        );
        before.push(Condition { type_: "example.com/Audited".into(), ..before[0].clone() });
        let after = conclude(&before, &[ready(true, "")], None, at(2));
        let types: Vec<_> = after.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "example.com/Audited"]);
    }
}
