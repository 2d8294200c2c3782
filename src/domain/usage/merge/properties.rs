//! What must hold for any reports: nothing is lost, nothing is counted twice, and the order of gates does not matter.

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{at, refused_from, sealed, used};
use super::*;

const CREDENTIALS: [&str; 3] = ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"];

/// (gate, what one set holds): credential, count, caller, second of use; a count of refusals.
type Use = (usize, usize, u64, u8, i64, u64);

fn uses() -> impl Strategy<Value = Vec<Use>> {
    vec((0..3_usize, 0..3_usize, 1..50_u64, 0..6_u8, 0..200_000_i64, 0..4_u64), 1..40)
}

/// Sealed sets of each gate, numbered in order.
fn sets(uses: &[Use]) -> Vec<(String, Sealed)> {
    let mut sequence = 0;
    let set = |(gate, credential, count, caller, second, no): &Use| {
        sequence += 1;
        let credential = CREDENTIALS[*credential];
        let mut all = vec![used(credential, *count, &format!("10.0.0.{caller}"), *second, *second)];
        let other = CREDENTIALS.iter().find(|other| **other != credential);
        // Ends with a caller who holds it, or with one who made it up.
        let outcome = if no % 2 == 0 { Outcome::Ended } else { Outcome::WrongSecret };
        let address = format!("10.0.1.{}", caller % 2);
        all.extend(
            other.filter(|_| *no > 0).map(|other| refused_from(other, outcome, *no, &address, *second)),
        );
        (format!("gate-{gate}"), sealed(sequence, all))
    };
    uses.iter().map(set).collect()
}

fn merged<'a>(sets: impl IntoIterator<Item = &'a (String, Sealed)>) -> TokenUsageStatus {
    let mut status = TokenUsageStatus::default();
    for (gate, set) in sets {
        merge(&mut status, gate, 1, set, at(200_000));
    }
    status
}

/// The same but for the order of lists, which follows from the order of arrival where times are equal.
fn sorted(mut status: TokenUsageStatus) -> TokenUsageStatus {
    status.sources.sort_by(|a, b| a.gate.cmp(&b.gate));
    status.credentials.sort_by(|a, b| a.id.cmp(&b.id));
    status.callers.sort_by(|a, b| (&a.credential, &a.address).cmp(&(&b.credential, &b.address)));
    for list in [&mut status.refused, &mut status.unproved] {
        list.sort_by(|a, b| (&a.credential, &a.address).cmp(&(&b.credential, &b.address)));
    }
    status
}

/// Sets of different gates in another order; those of each gate stay in theirs.
fn interleaved(sets: &[(String, Sealed)], turns: &[usize]) -> Vec<(String, Sealed)> {
    let mut lanes: Vec<Vec<_>> = (0..3)
        .map(|gate| sets.iter().rev().filter(|(name, _)| *name == format!("gate-{gate}")).cloned().collect())
        .collect();
    let mut out = Vec::new();
    for turn in turns.iter().cycle().take(sets.len() * 3) {
        out.extend(lanes[*turn].pop());
    }
    lanes.iter_mut().for_each(|lane| out.extend(std::iter::from_fn(|| lane.pop())));
    out
}

proptest! {
    #[test]
    fn what_is_sent_is_counted(uses in uses()) {
        let status = merged(&sets(&uses));
        let accepted: u64 = uses.iter().map(|(_, _, count, ..)| count).sum();
        let denied: u64 = uses.iter().map(|(.., no)| no).sum();
        prop_assert_eq!(status.requests, signed(accepted));
        let outcome = |outcome: &str| status.outcomes.get(outcome).copied().unwrap_or(0);
        prop_assert_eq!(outcome("Ended") + outcome("WrongSecret"), signed(denied));
        prop_assert_eq!(status.refused.iter().map(|known| known.requests).sum::<i64>(), outcome("Ended"));
        prop_assert_eq!(status.unproved.iter().map(|known| known.requests).sum::<i64>(), outcome("WrongSecret"));
        prop_assert_eq!(status.outcomes["Accepted"], status.requests);
        prop_assert_eq!(status.credentials.iter().map(|known| known.requests).sum::<i64>(), status.requests);
        prop_assert_eq!(status.callers.iter().map(|known| known.requests).sum::<i64>(), status.requests);
        let hourly = status.hourly.unwrap();
        prop_assert_eq!(hourly.accepted.iter().sum::<i64>(), status.requests);
        prop_assert_eq!(hourly.refused.iter().sum::<i64>(), signed(denied));
        let last = uses.iter().map(|(_, _, _, _, second, _)| *second).max().unwrap();
        prop_assert_eq!(status.last_used_at, Some(Time(at(last))));
    }

    #[test]
    fn whatever_is_sent_again_is_counted_once(
        uses in uses(),
        again in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
    ) {
        let sets = sets(&uses);
        let mut sent = sets.clone();
        for (what, when) in again {
            // Not before it is sent for the first time.
            let at = what.index(sets.len());
            let first = sent.iter().position(|set| *set == sets[at]).unwrap();
            let place = first + 1 + when.index(sent.len() - first);
            sent.insert(place.min(sent.len()), sets[at].clone());
        }
        prop_assert_eq!(merged(&sent), merged(&sets));
    }

    #[test]
    fn gates_commute(uses in uses(), turns in vec(0..3_usize, 1..9)) {
        let sets = sets(&uses);
        prop_assert_eq!(sorted(merged(&interleaved(&sets, &turns))), sorted(merged(&sets)));
    }

    #[test]
    fn everything_stays_bounded(
        sent in vec((0..200_u32, 0..99_u64, 0..200_u32, 0..2_000_000_i64, 1..=u64::MAX), 1..200)
    ) {
        let mut status = TokenUsageStatus::default();
        for (sequence, (gate, credential, caller, second, count)) in (1..).zip(sent) {
            let (id, from) = (format!("{credential:010}"), caller.to_string());
            let mut used = used(&id, count, &from, second, second);
            used.refused = refused_from(&id, Outcome::Ended, count, &from, second).refused;
            used.unproved = refused_from(&id, Outcome::WrongSecret, count, &from, second).unproved;
            let mut set = sealed(sequence, vec![used]);
            set.scopes = vec![crate::api::report::ScopeUse { scope: caller.to_string(), count }];
            merge(&mut status, &format!("gate-{gate}"), 1, &set, at(2_000_000));
        }
        prop_assert!(status.sources.len() <= MAX_SOURCES);
        prop_assert!(status.credentials.len() <= MAX_CREDENTIAL_USAGES);
        prop_assert!(status.callers.len() <= MAX_CALLERS);
        prop_assert!(status.refused.len() <= MAX_REFUSED_CALLERS);
        prop_assert!(status.unproved.len() <= MAX_UNPROVED_CALLERS);
        prop_assert!(status.scopes.len() <= MAX_SCOPES);
        let hourly = status.hourly.unwrap();
        prop_assert!(hourly.accepted.len() <= MAX_HOURS);
        prop_assert_eq!(hourly.accepted.len(), hourly.refused.len());
        prop_assert!(status.requests >= 0, "saturates instead of wrapping");
    }
}
