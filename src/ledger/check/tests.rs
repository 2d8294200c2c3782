//! What is accepted, what is refused for good, what is not taken yet.

use super::super::fixtures::{BASE, at, credential, published, report, sealed, uid, used, world};
use super::*;
use crate::api::report::{OutcomeCount, ScopeUse};

fn judge(set: Sealed) -> Judged {
    let mut all = check(report("a", 1, vec![set], vec![]), &world(2), at(1_000.0).wall).unwrap().sealed;
    all.pop().unwrap()
}

fn good() -> Sealed {
    sealed(0, 1, vec![used(&credential(0, 0), 3, 900.0)])
}

/// What becomes of a good set after this change.
fn changed(change: impl FnOnce(&mut Sealed)) -> String {
    let mut set = good();
    change(&mut set);
    match judge(set) {
        Judged::Good(_) => "good".to_owned(),
        Judged::Never(_, _, why) => why.as_str().to_owned(),
        Judged::NotYet(.., why) => format!("not yet: {}", why.as_str()),
        Judged::Unknown(_, _, why, rest) => format!("{}, rest: {}", why.as_str(), rest.is_some()),
    }
}

#[test]
fn a_sound_set_is_good() {
    let Judged::Good(set) = judge(good()) else { panic!("refused") };
    let at = Timestamp::from_second(BASE + 900).unwrap();
    assert_eq!(set.used, [Use { credential: credential(0, 0), at, shown: false }]);
    assert_eq!((set.claimant.uid, set.shown), (uid(0), None));
}

#[test]
fn garbage_is_told_by_its_kind() {
    const DAY: i64 = 86_400;
    type Change = fn(&mut Sealed);
    let table: [(&str, Change); 26] = [
        ("UnknownToken, rest: false", |set| set.token = "uid-9999".into()),
        ("Malformed", |set| set.token = String::new()),
        ("Malformed", |set| set.token = "x".repeat(65)),
        ("Malformed", |set| set.sequence = 0),
        ("Malformed", |set| set.sequence = u64::MAX),
        ("Malformed", |set| set.credentials.clear()),
        ("Malformed", |set| set.credentials[0].credential = "short".into()),
        ("Malformed", |set| set.credentials.push(set.credentials[0].clone())),
        ("UnknownCredential, rest: false", |set| set.credentials[0].credential = credential(1, 0)),
        ("UnknownCredential, rest: true", |set| set.credentials.push(used(&credential(7, 0), 1, 900.0))),
        ("AbsurdCount", |set| set.credentials[0].outcomes[0].count = 2_000_000_000),
        ("AbsurdCount", |set| {
            set.credentials[0].outcomes[0].count = 600_000_000;
            set.credentials.push(used(&credential(0, 1), 600_000_000, 900.0));
        }),
        ("AbsurdCount", |set| {
            set.credentials[0].callers[0].count = u64::MAX;
        }),
        ("AbsurdCount", |set| set.scopes = vec![ScopeUse { scope: "a".into(), count: u64::MAX }]),
        ("Malformed", |set| set.scopes = vec![ScopeUse { scope: "a".repeat(129), count: 1 }]),
        ("Malformed", |set| set.scopes = vec![ScopeUse { scope: "a".into(), count: 1 }; 33]),
        ("Malformed", |set| {
            let outcome = set.credentials[0].outcomes[0].clone();
            set.credentials[0].outcomes.push(outcome);
        }),
        ("Malformed", |set| set.credentials[0].callers = vec![CallerUse::default(); 17]),
        ("Malformed", |set| set.credentials[0].callers[0].user_agent = "x".repeat(129)),
        ("Malformed", |set| set.credentials[0].callers[0].principal = "x".repeat(201)),
        ("Malformed", |set| set.credentials[0].callers[0].error = 4),
        ("Malformed", |set| (set.credentials[0].first_used, set.credentials[0].last_used) = (0, 0)),
        ("Malformed", |set| set.credentials[0].first_used = BASE + 901),
        ("not yet: InTheFuture", |set| set.credentials[0].last_used = BASE + 1_000 + 301),
        ("InTheFuture", |set| set.credentials[0].last_used = BASE + 1_001 + DAY),
        ("Malformed", |set| {
            set.credentials[0].outcomes[0].outcome = Outcome::Ended.index();
        }),
    ];
    for (index, (expected, change)) in table.into_iter().enumerate() {
        assert_eq!(changed(change), expected, "row {index}");
    }
    assert_eq!(changed(|_| {}), "good");
    // By a clock that is behind, a token may seem to have been used before it was there.
    let before = BASE - 2 * DAY;
    let early =
        |set: &mut Sealed| (set.credentials[0].first_used, set.credentials[0].last_used) = (before, before);
    assert_eq!(changed(early), "good");
    let mut set = good();
    early(&mut set);
    let Judged::Good(set) = judge(set) else { panic!("refused") };
    assert_eq!(set.sealed.credentials[0].last_used, BASE - DAY, "when it was created");
}

#[test]
fn nothing_is_older_than_31_days() {
    let mut old = world(0);
    let claimant = Claimant { created: 0, uid: uid(0), namespace: "shop".into(), name: "old".into() };
    old.apply(&claimant, &[published(0, 0, None)]);
    for (days, expected) in [(30.0, true), (32.0, false)] {
        let set = sealed(0, 1, vec![used(&credential(0, 0), 1, -days * 86_400.0)]);
        let judged = check(report("a", 1, vec![set], vec![]), &old, at(0.0).wall).unwrap();
        assert_eq!(matches!(judged.sealed[0], Judged::Good(_)), expected, "{days} days");
    }
}

#[test]
fn a_caller_of_long_ago_does_not_spoil_the_others() {
    let mut old = world(0);
    let claimant = Claimant { created: 0, uid: uid(0), namespace: "shop".into(), name: "old".into() };
    old.apply(&claimant, &[published(0, 0, None)]);
    let mut counted = used(&credential(0, 0), 9, 900.0);
    let long_ago = BASE - 32 * 86_400;
    counted.first_used = long_ago;
    let gone = CallerUse { count: 4, first_seen: long_ago, last_seen: long_ago, ..CallerUse::default() };
    counted.callers.push(gone);
    let judged = check(report("a", 1, vec![sealed(0, 1, vec![counted])], vec![]), &old, at(1_000.0).wall);
    let Judged::Good(set) = judged.unwrap().sealed.remove(0) else { panic!("refused") };
    let callers = &set.sealed.credentials[0].callers;
    assert_eq!((callers.len(), callers[0].last_seen), (1, BASE + 900));
}

#[test]
fn a_clock_a_little_ahead_counts_as_now() {
    let Judged::Good(set) = judge(sealed(0, 1, vec![used(&credential(0, 0), 1, 1_200.0)])) else {
        panic!("refused")
    };
    let counted = &set.sealed.credentials[0];
    assert_eq!((counted.last_used, counted.callers[0].last_seen), (BASE + 1_000, BASE + 1_000));
}

#[test]
fn an_outcome_of_a_newer_gate_costs_only_itself() {
    let mut set = good();
    set.credentials[0].outcomes.push(OutcomeCount { outcome: 999, count: 5 });
    let Judged::Good(set) = judge(set) else { panic!("refused") };
    assert_eq!((set.unknown_outcomes, set.sealed.credentials[0].outcomes.len()), (1, 1));
}

#[test]
fn one_bad_entry_does_not_spoil_the_others() {
    let bad = Sealed { token: uid(1), sequence: 1, ..Sealed::default() };
    let sets = vec![bad, Sealed { sequence: 2, ..good() }];
    let judged = check(report("a", 1, sets.clone(), sets), &world(2), at(1_000.0).wall).unwrap();
    assert!(matches!(judged.sealed[..], [Judged::Never(..), Judged::Good(_)]));
    assert!(matches!(judged.open[..], [Judged::Never(..), Judged::Good(_)]));
}

#[test]
fn a_report_that_no_sound_gate_sends_is_refused_altogether() {
    let refusal = |change: fn(&mut Report)| {
        let mut all = report("a", 1, vec![good()], vec![]);
        change(&mut all);
        check(all, &world(2), at(1_000.0).wall).err()
    };
    assert_eq!(refusal(|_| {}), None);
    assert!(matches!(refusal(|all| all.gate = String::new()), Some(Refusal::Malformed(_))));
    assert!(matches!(refusal(|all| all.gate = "x".repeat(129)), Some(Refusal::Malformed(_))));
    assert!(matches!(refusal(|all| all.gate = "a\nb".into()), Some(Refusal::Malformed(_))));
    assert!(matches!(refusal(|all| all.epoch = 0), Some(Refusal::Malformed(_))));
    assert!(matches!(refusal(|all| all.sealed = vec![good(); 2_001]), Some(Refusal::Malformed(_))));
    assert!(matches!(refusal(|all| all.open = vec![good(); 2_001]), Some(Refusal::Malformed(_))));
    // It cannot have watched before it started.
    assert!(matches!(refusal(|all| all.observing_since = 0), Some(Refusal::Malformed(_))));
    assert!(matches!(refusal(|all| all.observing_since = BASE - 301), Some(Refusal::Malformed(_))));
    assert_eq!(refusal(|all| all.observing_since = BASE + 2_000), Some(Refusal::ClockAhead));
    assert_eq!(refusal(|all| all.epoch += 2_000_000), Some(Refusal::ClockAhead));
}
