mod drive;
mod properties;

use std::time::Duration;

use super::core::*;
use super::set::MAX_CREDENTIALS;
use crate::api::Outcome;
use crate::api::report::{
    CallerUse, CredentialUse, MAX_CALLERS, MAX_COUNT, MAX_ENTRIES, OutcomeCount, Receipt, Report, ScopeUse,
    Sealed, Settled,
};
use crate::gate::recorder::Drained;

const FLUSH: Duration = Duration::from_secs(1);

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn reporter() -> Reporter {
    let mut reporter = Reporter::new(Identity { gate: "gate-a".into(), epoch: 7 }, FLUSH);
    reporter.linked(Duration::ZERO);
    reporter
}

/// A token's accepted requests at a time, Unix seconds.
fn used(token: &str, credential: &str, count: u64, at: i64) -> Drained {
    let caller = CallerUse {
        address: "10.0.0.1".into(),
        count,
        first_seen: at,
        last_seen: at,
        ..CallerUse::default()
    };
    Drained {
        uid: token.into(),
        token: format!("shop/{token}"),
        credentials: vec![CredentialUse {
            credential: credential.into(),
            outcomes: vec![OutcomeCount { outcome: Outcome::Accepted.index(), count }],
            first_used: at,
            last_used: at,
            callers: vec![caller],
            ..CredentialUse::default()
        }],
        scopes: vec![ScopeUse { scope: "read".into(), count }],
    }
}

fn refused(token: &str, credential: &str, count: u64) -> Drained {
    let outcomes = vec![OutcomeCount { outcome: Outcome::Ended.index(), count }];
    let denied = CredentialUse { credential: credential.into(), outcomes, ..CredentialUse::default() };
    Drained { uid: token.into(), token: token.into(), credentials: vec![denied], scopes: vec![] }
}

fn settled(token: &str, sequence: u64) -> Receipt {
    Receipt { settled: vec![Settled { token: token.into(), sequence, refused: String::new() }] }
}

/// A set in short: `token#number=answers`.
fn short(set: &Sealed) -> String {
    let answers: u64 = set.credentials.iter().flat_map(|used| &used.outcomes).map(|o| o.count).sum();
    format!("{}#{}={answers}", set.token, set.sequence)
}

/// The sealed sets of a report.
fn said(report: &Report) -> Vec<String> {
    report.sealed.iter().map(short).collect()
}

/// Its copies of open sets.
fn copies(report: &Report) -> Vec<String> {
    report.open.iter().map(short).collect()
}

#[test]
fn a_first_use_is_sealed_at_once_and_later_ones_wait_for_the_receipt() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 3, 100));
    let report = reporter.report(second(1), 50);
    assert_eq!(said(&report), ["a#1=3"]);
    assert_eq!((report.sequence, report.epoch, report.observing_since, &*report.gate), (1, 7, 50, "gate-a"));
    reporter.count(used("a", "c1", 4, 101));
    reporter.count(used("a", "c1", 5, 102));
    assert_eq!(reporter.due(), Some(second(2)), "a copy of what is open goes with the next flush");
    assert_eq!(reporter.receipt(&settled("a", 1)), Ended { settled: 1, refused: vec![] });
    assert_eq!(reporter.due(), Some(second(2)), "what waited is sealed now");
    assert_eq!(said(&reporter.report(second(4), 50)), ["a#2=9"]);
    let sums = Sums { counted: 12, settled: 3, ..Sums::default() };
    assert_eq!((reporter.sums(), reporter.held(), reporter.unsettled()), (sums, 9, 1));
    reporter.receipt(&settled("a", 2));
    assert_eq!((reporter.held(), reporter.unsettled()), (0, 0));
}

#[test]
fn a_credential_that_was_not_used_before_is_in_the_very_next_report() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 1, 100));
    reporter.report(second(1), 50);
    // Refusals of another one are no use, and in no hurry.
    reporter.count(refused("a", "c2", 1));
    assert_eq!(reporter.due(), Some(second(2)));
    reporter.count(used("a", "c2", 1, 102));
    assert_eq!(reporter.due(), Some(second(2)));
    let copy = reporter.report(second(2), 50).open.remove(0);
    let times: Vec<_> = copy.credentials.iter().map(|used| (&*used.credential, used.last_used)).collect();
    assert_eq!(times, [("c2", 102)]);
}

#[test]
fn with_nothing_to_say_there_is_a_sign_of_life() {
    let mut reporter = reporter();
    let first = reporter.due().expect("at once");
    assert!(first < second(1), "{first:?}");
    assert!(said(&reporter.report(second(1), 50)).is_empty());
    assert_eq!(reporter.due(), Some(second(11)));
    reporter.unlinked();
    assert_eq!(reporter.due(), None, "nobody is there");
}

#[test]
fn what_did_not_arrive_and_what_a_new_leader_does_not_know_is_sent_again() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 3, 100));
    reporter.count(used("b", "c2", 1, 100));
    assert_eq!(said(&reporter.report(second(1), 50)), ["a#1=3", "b#2=1"]);
    reporter.count(used("a", "c1", 4, 101));
    reporter.failed(second(2));
    assert!(reporter.due().is_some_and(|due| due > second(2) && due <= second(3)));
    assert_eq!(said(&reporter.report(second(3), 50)), ["a#1=3", "b#2=1"]);
    reporter.receipt(&settled("b", 2));
    reporter.linked(second(4));
    let report = reporter.report(second(5), 50);
    assert_eq!((said(&report), copies(&report)), (vec!["a#1=3".into()], vec!["a#3=4".into()]));
    let report = reporter.report(second(6), 50);
    assert!(said(&report).is_empty() && copies(&report).is_empty(), "once to each");
}

#[test]
fn what_is_not_settled_is_sent_again_ever_more_rarely() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 1, 100));
    let mut sent = Vec::new();
    for now in 0..3_000 {
        if !said(&reporter.report(second(now), 50)).is_empty() {
            sent.push(now);
        }
    }
    assert_eq!(sent, [0, 20, 80, 260, 800, 1_700, 2_600]);
}

#[test]
fn receipts_of_the_past_settle_nothing() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 3, 100));
    reporter.report(second(1), 50);
    assert_eq!(reporter.receipt(&settled("a", 9)), Ended::default());
    assert_eq!(reporter.receipt(&settled("z", 1)), Ended::default());
    reporter.count(used("a", "c1", 4, 100));
    reporter.receipt(&settled("a", 1));
    assert_eq!(reporter.receipt(&settled("a", 1)), Ended::default(), "the open set is another");
    assert_eq!(reporter.held(), 4);
}

#[test]
fn what_the_ledger_refuses_for_good_is_counted_and_dropped() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 3, 100));
    reporter.report(second(1), 50);
    let refused = Settled { token: "a".into(), sequence: 1, refused: "UnknownToken".into() };
    let ended = reporter.receipt(&Receipt { settled: vec![refused] });
    assert_eq!(ended, Ended { settled: 0, refused: vec!["UnknownToken".into()] });
    let sums = Sums { counted: 3, refused: 3, ..Sums::default() };
    assert_eq!((reporter.sums(), reporter.unsettled()), (sums, 0));
}

#[test]
fn failures_make_attempts_rare_and_names_spread_them() {
    let pauses = |name: &str| -> Vec<u128> {
        let mut reporter = Reporter::new(Identity { gate: name.into(), epoch: 1 }, FLUSH);
        reporter.linked(Duration::ZERO);
        (0..8)
            .map(|_| {
                reporter.report(second(100), 50);
                reporter.failed(second(100));
                (reporter.due().expect("linked") - second(100)).as_millis()
            })
            .collect()
    };
    let all = pauses("gate-a");
    for (pause, most) in all.iter().zip([500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]) {
        assert!((most * 3 / 4..=most).contains(pause), "{pause} of {most}");
    }
    assert_eq!(all, pauses("gate-a"), "without chance");
    assert_ne!(all, pauses("gate-b"));
}

#[test]
fn reports_are_bounded_and_the_rest_follows_at_once() {
    let mut reporter = reporter();
    for token in 0..MAX_ENTRIES + 5 {
        reporter.count(used(&format!("token-{token:05}"), "c1", 1, 100));
    }
    assert_eq!(reporter.report(second(1), 50).sealed.len(), MAX_ENTRIES);
    assert_eq!(reporter.due(), Some(second(1)));
    assert_eq!(reporter.report(second(1), 50).sealed.len(), 5);
    assert_eq!(reporter.due(), Some(second(11)));

    // Entries that are long fill it sooner.
    let mut reporter = Reporter::new(Identity { gate: "gate-a".into(), epoch: 7 }, FLUSH);
    reporter.linked(Duration::ZERO);
    for token in 0..20 {
        let mut long = used(&format!("token-{token}"), "c1", 1, 100);
        long.credentials[0].callers[0].user_agent = "x".repeat(MAX_BYTES / 8);
        reporter.count(long);
    }
    let sizes: Vec<_> = (0..3).map(|_| reporter.report(second(1), 50).sealed.len()).collect();
    assert_eq!(sizes, [7, 7, 6]);
}

#[test]
fn copies_are_bounded_too() {
    let mut reporter = reporter();
    let tokens = MAX_ENTRIES + 5;
    for token in 0..tokens {
        reporter.count(used(&format!("token-{token:05}"), "c1", 1, 100));
    }
    while !reporter.report(second(1), 50).sealed.is_empty() {}
    for token in 0..tokens {
        reporter.count(used(&format!("token-{token:05}"), "c2", 1, 102));
    }
    let told: Vec<_> = (0..3).map(|_| reporter.report(second(2), 50).open.len()).collect();
    assert_eq!(told, [MAX_ENTRIES, 5, 0]);
}

#[test]
fn a_ledger_that_is_away_for_days_costs_two_sets_a_token() {
    let mut reporter = reporter();
    for second_number in 0..2_000 {
        let mut drained = used("a", "c1", 7, 100 + i64::from(second_number));
        drained.credentials[0].callers[0].address =
            format!("10.0.{}.{}", second_number / 256, second_number % 256);
        drained.scopes[0].scope = format!("scope-{second_number}");
        reporter.count(drained);
    }
    reporter.receipt(&settled("a", 1));
    let report = reporter.report(second(1), 50);
    let [set] = &report.sealed[..] else { panic!("one set: {report:?}") };
    let [used] = &set.credentials[..] else { panic!("one credential: {set:?}") };
    assert_eq!(used.callers.len(), MAX_CALLERS);
    assert_eq!(set.scopes.len(), crate::api::report::MAX_SCOPES);
    assert_eq!((used.outcomes[0].count, used.first_used, used.last_used), (1_999 * 7, 101, 2_099));
    let most = used.callers.iter().map(|caller| caller.error).max().unwrap_or(0);
    assert!(most <= 1_999 * 7 / 16, "the error is bounded: {most}");
}

#[test]
fn more_credentials_than_a_token_has_are_not_kept_and_that_is_counted() {
    let mut reporter = reporter();
    reporter.count(used("a", "first", 1, 1));
    for credential in 0..40 {
        reporter.count(used("a", &format!("c{credential}"), 1, 100 + credential));
    }
    reporter.receipt(&settled("a", 1));
    let report = reporter.report(second(1), 50);
    let kept = &report.sealed[0].credentials;
    assert_eq!(kept.len(), MAX_CREDENTIALS);
    assert!(kept.iter().all(|used| used.last_used >= 108), "the latest");
    assert_eq!(reporter.sums(), Sums { counted: 41, settled: 1, refused: 0, forgotten: 8 });
}

#[test]
fn a_number_that_the_ledger_would_not_believe_is_sealed_in_parts() {
    let mut reporter = reporter();
    let all = MAX_COUNT * 2 + 5;
    reporter.count(used("a", "c1", all, 100));
    let mut counts = Vec::new();
    for sequence in 1..=3 {
        let report = reporter.report(second(1), 50);
        let set = &report.sealed[0];
        assert_eq!(set.sequence, sequence);
        let part = &set.credentials[0];
        assert_eq!((part.first_used, part.last_used), (100, 100));
        assert!(part.callers[0].count <= MAX_COUNT && part.callers[0].error <= part.callers[0].count);
        counts.push((part.outcomes[0].count, part.callers[0].count, set.scopes[0].count));
        reporter.receipt(&settled("a", sequence));
    }
    assert_eq!(counts, [(MAX_COUNT, MAX_COUNT, MAX_COUNT), (MAX_COUNT, MAX_COUNT, MAX_COUNT), (5, 5, 5)]);
    assert_eq!((reporter.sums().settled, reporter.unsettled()), (all, 0));
}

#[test]
fn whoever_leaves_seals_everything_and_says_so() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 3, 100));
    reporter.report(second(1), 50);
    reporter.count(used("a", "c1", 4, 101));
    reporter.count(used("b", "c2", 1, 101));
    assert!(!reporter.is_said());
    reporter.leave(second(3));
    assert_eq!(reporter.due(), Some(second(3)).min(reporter.due()), "at once");
    let report = reporter.report(second(3), 50);
    assert!(report.leaving);
    assert_eq!(said(&report), ["a#1=3", "b#2=1", "a#3=4"]);
    assert!(reporter.is_said());
    // Whoever did not take it this time is asked again, as long as there is somebody to ask.
    assert_eq!(said(&reporter.report(second(4), 50)).len(), 3);
    // A leader that takes over in this moment gets all of it.
    reporter.linked(second(3));
    assert!(!reporter.is_said());
    assert_eq!(said(&reporter.report(second(5), 50)), ["a#1=3", "b#2=1", "a#3=4"]);
    for (token, sequence) in [("a", 1), ("a", 3), ("b", 2)] {
        reporter.receipt(&settled(token, sequence));
    }
    assert_eq!((reporter.held(), reporter.unsettled()), (0, 0));
}

#[test]
fn a_report_says_whether_there_is_more_than_it_holds() {
    let mut reporter = reporter();
    for token in 0..MAX_ENTRIES + 1 {
        reporter.count(used(&format!("token-{token:05}"), "c1", 1, 100));
    }
    assert!(reporter.report(second(1), 50).more);
    assert!(!reporter.report(second(1), 50).more);
    // After a failure nothing travels ahead with the next one.
    reporter.count(used("token-00000", "c2", 1, 101));
    reporter.failed(second(2));
    reporter.report(second(3), 50);
    let last = reporter.report(second(3), 50);
    assert!(last.more && last.open.is_empty());
    reporter.receipt(&Receipt::default());
    let next = reporter.report(second(4), 50);
    assert!(!next.more && next.open.len() == 1);
}

#[test]
fn where_too_many_sets_wait_a_copy_is_to_be_believed_and_not_kept() {
    let mut reporter = reporter();
    let mut sent = Vec::new();
    for round in 1..=6 {
        reporter.count(used("a", "c1", round, 100));
        sent.extend(copies(&reporter.report(second(round * 100), 50)));
        reporter.failed(second(round * 100));
        reporter.report(second(round * 100 + 20), 50);
        reporter.receipt(&Receipt::default());
    }
    assert_eq!(sent, ["a#2=2", "a#3=3", "a#4=4", "a#0=5", "a#0=11"]);
    reporter.report(second(700), 50);
    reporter.receipt(&settled("a", 1));
    let report = reporter.report(second(800), 50);
    assert_eq!((copies(&report), report.more), (vec!["a#5=11".into()], false));
}

#[test]
fn none_is_kept_from_being_copied_by_those_that_change_all_the_time() {
    let mut reporter = reporter();
    let all = MAX_ENTRIES + 5;
    let count = |reporter: &mut Reporter, at: i64| {
        for token in 0..all {
            reporter.count(used(&format!("token-{token:05}"), "c1", 1, at));
        }
    };
    count(&mut reporter, 100);
    while !reporter.report(second(1), 50).sealed.is_empty() {}
    let mut copied = std::collections::BTreeSet::new();
    for round in 0..2 {
        count(&mut reporter, 101 + round);
        let report = reporter.report(second(2), 50);
        assert!(report.more);
        copied.extend(report.open.into_iter().map(|set| set.token));
    }
    assert_eq!(copied.len(), all);
}

#[test]
fn counts_of_apitokens_that_are_gone_are_dropped_and_nothing_else() {
    let mut reporter = reporter();
    for token in ["a", "b"] {
        reporter.count(used(token, "c1", 3, 100));
    }
    reporter.report(second(1), 50);
    for token in ["a", "b"] {
        reporter.count(used(token, "c1", 4, 100));
    }
    reporter.unlinked();
    reporter.forget(|uid| uid == "b");
    let sums = Sums { counted: 14, forgotten: 7, ..Sums::default() };
    assert_eq!((reporter.sums(), reporter.held(), reporter.unsettled()), (sums, 7, 1));
    reporter.linked(second(2));
    assert_eq!(said(&reporter.report(second(3), 50)), ["b#2=3"]);
    reporter.receipt(&settled("b", 2));
    assert_eq!(said(&reporter.report(second(4), 50)).len(), 1);
}

#[test]
fn what_is_open_travels_ahead_and_is_sealed_as_it_is_once_nobody_knows_what_arrived() {
    let mut reporter = reporter();
    reporter.count(used("a", "c1", 1, 100));
    reporter.report(second(1), 50);
    reporter.receipt(&Receipt::default());
    reporter.count(used("a", "c1", 2, 101));
    assert_eq!(copies(&reporter.report(second(2), 50)), ["a#2=2"]);
    reporter.receipt(&Receipt::default());
    assert!(copies(&reporter.report(second(3), 50)).is_empty(), "nothing new");
    reporter.receipt(&Receipt::default());
    reporter.count(used("a", "c1", 3, 103));
    assert_eq!(copies(&reporter.report(second(4), 50)), ["a#2=5"], "the whole set, under the same number");
    reporter.failed(second(5));
    for round in 6..20 {
        reporter.count(used("a", "c1", 1, 105));
        let report = reporter.report(second(round), 50);
        assert!(copies(&report).is_empty());
        assert_eq!(said(&report), ["a#1=1", "a#2=5"]);
        reporter.failed(second(round));
    }
    reporter.report(second(40), 50);
    reporter.receipt(&settled("a", 1));
    assert_eq!(copies(&reporter.report(second(41), 50)), ["a#3=14"]);
    assert_eq!(reporter.held(), 19);
}
