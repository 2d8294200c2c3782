//! Golden cases of the merge, and the counts that its property tests share.

use super::*;
use crate::api::report::{OutcomeCount, ScopeUse};

/// A moment at the begin of an hour.
pub(super) const BASE: i64 = 1_767_225_600;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(BASE + second).unwrap()
}

/// Accepted requests of one caller, from second to second after [`BASE`].
pub(super) fn used(credential: &str, count: u64, caller: &str, first: i64, last: i64) -> CredentialUse {
    CredentialUse {
        credential: credential.to_owned(),
        outcomes: vec![OutcomeCount { outcome: Outcome::Accepted.index(), count }],
        first_used: BASE + first,
        last_used: BASE + last,
        callers: vec![CallerUse {
            address: caller.to_owned(),
            user_agent: "curl/8".to_owned(),
            count,
            first_seen: BASE + first,
            last_seen: BASE + last,
            ..CallerUse::default()
        }],
        ..CredentialUse::default()
    }
}

pub(super) fn refused(credential: &str, outcome: Outcome, count: u64) -> CredentialUse {
    CredentialUse {
        credential: credential.to_owned(),
        outcomes: vec![OutcomeCount { outcome: outcome.index(), count }],
        ..CredentialUse::default()
    }
}

/// The same, by callers who hold the credential, or do not prove to.
pub(super) fn refused_from(
    credential: &str,
    outcome: Outcome,
    count: u64,
    caller: &str,
    at: i64,
) -> CredentialUse {
    let callers = vec![CallerUse {
        address: caller.to_owned(),
        user_agent: "curl/8".to_owned(),
        count,
        first_seen: BASE + at,
        last_seen: BASE + at,
        outcome: outcome.index(),
        ..CallerUse::default()
    }];
    let used = refused(credential, outcome, count);
    match outcome.is_proved_refusal() {
        true => CredentialUse { refused: callers, ..used },
        false => CredentialUse { unproved: callers, ..used },
    }
}

pub(super) fn sealed(sequence: u64, credentials: Vec<CredentialUse>) -> Sealed {
    Sealed { token: "uid".to_owned(), sequence, credentials, scopes: Vec::new() }
}

#[test]
fn counts_times_callers_scopes_and_outcomes_come_in() {
    let mut status = TokenUsageStatus::default();
    let mut set =
        sealed(1, vec![used("aaaaaaaaaa", 3, "10.0.0.1", 5, 9), refused("bbbbbbbbbb", Outcome::Ended, 2)]);
    set.scopes = vec![ScopeUse { scope: "orders:read".into(), count: 3 }];
    assert_eq!(merge(&mut status, "gate-a", 7, &set, at(10)), Merged::Counted);
    assert_eq!(status.requests, 3);
    assert_eq!(status.outcomes, [("Accepted".to_owned(), 3), ("Ended".to_owned(), 2)].into());
    assert_eq!((status.first_used_at, status.last_used_at), (Some(Time(at(5))), Some(Time(at(9)))));
    assert_eq!(status.credentials.len(), 1, "what was only refused is not in use");
    assert_eq!((status.callers[0].address.as_str(), status.callers[0].requests), ("10.0.0.1", 3));
    assert_eq!((status.scopes[0].requests, status.scopes[0].last_used_at.clone()), (3, Some(Time(at(9)))));
    let hourly = status.hourly.unwrap();
    assert_eq!((hourly.from.0, hourly.accepted, hourly.refused), (at(0), vec![3], vec![2]));
    assert_eq!((status.sources[0].epoch, status.sources[0].sequence), (7, 1));
}

#[test]
fn a_set_counts_once_and_a_new_process_counts_anew() {
    let mut status = TokenUsageStatus::default();
    let set = |sequence| sealed(sequence, vec![used("aaaaaaaaaa", 1, "10.0.0.1", 5, 9)]);
    assert_eq!(merge(&mut status, "a", 7, &set(3), at(10)), Merged::Counted);
    let before = status.clone();
    for (epoch, sequence, expected) in
        [(7, 3, Merged::Known), (7, 2, Merged::Known), (6, 99, Merged::Outdated)]
    {
        assert_eq!(merge(&mut status, "a", epoch, &set(sequence), at(11)), expected);
    }
    assert_eq!(status, before, "not even a time moves");
    assert_eq!(merge(&mut status, "a", 8, &set(1), at(12)), Merged::Counted);
    assert_eq!(merge(&mut status, "b", 7, &set(3), at(12)), Merged::Counted);
    assert_eq!(status.requests, 3);
}

#[test]
fn a_report_that_was_just_counted_is_remembered_whatever_the_clocks_say() {
    let mut status = TokenUsageStatus::default();
    let set = sealed(1, vec![used("aaaaaaaaaa", 1, "10.0.0.1", 5, 9)]);
    for gate in 0..MAX_SOURCES {
        merge(&mut status, &format!("gone-{gate}"), 1, &set, at(5_000));
    }
    // This leader's clock is behind that of its predecessor.
    assert_eq!(merge(&mut status, "here", 1, &set, at(10)), Merged::Counted);
    assert_eq!(merge(&mut status, "here", 1, &set, at(11)), Merged::Known);
    assert_eq!(status.sources.len(), MAX_SOURCES);
}

#[test]
fn hours_slide_and_earlier_ones_may_come_late() {
    const HOURS: i64 = MAX_HOURS as i64;
    let mut status = TokenUsageStatus::default();
    let mut sequence = 0;
    let mut use_at = |status: &mut TokenUsageStatus, hour: i64| {
        sequence += 1;
        let second = hour * HOUR + 5;
        let set = sealed(sequence, vec![used("aaaaaaaaaa", 1, "10.0.0.1", second, second)]);
        merge(status, "a", 1, &set, at(second + 1));
    };
    let row = |status: &TokenUsageStatus| {
        let hourly = status.hourly.clone().unwrap();
        ((hourly.from.0.as_second() - BASE) / HOUR, hourly.accepted)
    };
    use_at(&mut status, 3);
    use_at(&mut status, 1);
    use_at(&mut status, 4);
    assert_eq!(row(&status), (1, vec![1, 0, 1, 1]));
    use_at(&mut status, 2);
    assert_eq!(row(&status), (1, vec![1, 1, 1, 1]));
    use_at(&mut status, HOURS + 1);
    let (from, accepted) = row(&status);
    assert_eq!((from, accepted.len(), accepted.iter().sum::<i64>()), (2, MAX_HOURS, 4));
    use_at(&mut status, 1);
    assert_eq!(row(&status).1.iter().sum::<i64>(), 4, "too early for the window");
    use_at(&mut status, 10 * HOURS);
    assert_eq!(row(&status), (10 * HOURS, vec![1]), "a new week");
    assert_eq!(status.requests, 7, "the total forgets nothing");
}

#[test]
fn what_travels_ahead_moves_times_only_where_something_is_counted() {
    let mut status = TokenUsageStatus::default();
    touch(&mut status, "aaaaaaaaaa", at(20));
    assert_eq!(status, TokenUsageStatus::default());
    merge(&mut status, "a", 1, &sealed(1, vec![used("aaaaaaaaaa", 1, "10.0.0.1", 5, 9)]), at(10));
    touch(&mut status, "aaaaaaaaaa", at(20));
    touch(&mut status, "aaaaaaaaaa", at(15));
    assert_eq!(status.credentials[0].last_used_at, Some(Time(at(20))));
    assert_eq!((status.last_used_at, status.requests), (Some(Time(at(20))), 1));
}

#[test]
fn the_summary_names_who_called_last() {
    let mut status = TokenUsageStatus::default();
    for (sequence, caller) in (1..).zip(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]) {
        let second = i64::try_from(sequence).unwrap();
        merge(
            &mut status,
            "a",
            1,
            &sealed(sequence, vec![used("aaaaaaaaaa", 2, caller, second, second)]),
            at(10),
        );
    }
    let summary = Persisted::of(&status);
    assert_eq!((summary.requests, summary.callers, summary.last_used), (8, 4, Some(at(4))));
    assert_eq!(summary.credentials["aaaaaaaaaa"], at(4));
    assert_eq!(
        summary.described["aaaaaaaaaa"],
        ["10.0.0.4 (curl/8)", "10.0.0.3 (curl/8)", "10.0.0.2 (curl/8)"]
    );
}

#[test]
fn who_was_refused_is_kept_apart_from_who_was_accepted() {
    let mut status = TokenUsageStatus::default();
    for (sequence, at_second) in [(1, 5), (2, 9)] {
        let set = sealed(
            sequence,
            vec![
                refused_from("bbbbbbbbbb", Outcome::Ended, 2, "10.0.0.9", at_second),
                refused_from("aaaaaaaaaa", Outcome::WrongSecret, 7, "10.0.0.66", at_second),
            ],
        );
        merge(&mut status, "gate-a", 1, &set, at(10));
    }
    let other = sealed(1, vec![refused_from("bbbbbbbbbb", Outcome::Overdue, 1, "10.0.0.9", 10)]);
    merge(&mut status, "gate-b", 1, &other, at(10));
    let shown: Vec<_> = status
        .refused
        .iter()
        .map(|who| {
            (
                who.outcome.as_str(),
                who.address.as_str(),
                who.requests,
                who.first_seen_at.0,
                who.last_seen_at.0,
            )
        })
        .collect();
    assert_eq!(shown, [("Overdue", "10.0.0.9", 1, at(10), at(10)), ("Ended", "10.0.0.9", 4, at(5), at(9))]);
    assert_eq!(status.refused[1].credential, "bbbbbbbbbb");
    assert_eq!((status.unproved.len(), status.unproved[0].requests), (1, 14));
    assert!(status.callers.is_empty() && status.credentials.is_empty());
}

#[test]
fn whoever_sends_an_id_takes_nobodys_place() {
    let mut status = TokenUsageStatus::default();
    let proved = refused_from("bbbbbbbbbb", Outcome::Ended, 3, "10.0.0.9", 1);
    merge(&mut status, "gate-a", 1, &sealed(1, vec![proved, used("aaaaaaaaaa", 1, "10.0.0.1", 1, 1)]), at(1));
    for n in 2..200_u64 {
        let flood =
            refused_from("aaaaaaaaaa", Outcome::WrongSecret, 9, &format!("172.16.0.{n}"), 1 + n as i64);
        merge(&mut status, "gate-a", 1, &sealed(n, vec![flood]), at(300));
    }
    assert_eq!(status.unproved.len(), MAX_UNPROVED_CALLERS);
    assert_eq!((status.refused.len(), status.refused[0].requests), (1, 3));
    assert_eq!(status.callers.len(), 1);
}
