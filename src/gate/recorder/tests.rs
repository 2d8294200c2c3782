use super::*;
use crate::api::report::{MAX_SCOPES, OutcomeCount};
use crate::gate::Gate;
use crate::gate::fixtures::{
    at, ended, gate, gate_keeping, living, metadata, minted, object, with_secret_of,
};
use crate::gate::index::Writer;
use crate::gate::record::Record;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

const NOW: &str = "2026-06-01T00:00:00Z";

fn record(name: &str, version: u64, credentials: &[u64]) -> Record {
    let living: Vec<_> = credentials.iter().map(|number| living(&minted("twd", *number))).collect();
    Record::from_json(&metadata("shop", name, version), &object(&living, &[]))
}

fn caller(last: u8) -> Caller<'static> {
    Caller { address: Some([10, 0, 0, last].into()), principal: "spiffe://web", user_agent: "curl/8" }
}

fn ask(gate: &Gate, number: u64, query: &str, from: &Caller<'_>, now: &str) -> Outcome {
    let demand = Demand::from_query(query).unwrap();
    gate.check(Dialect::Nginx, Ok(minted("twd", number).expose()), &demand, from, at(now)).outcome()
}

fn outcomes(credential: &CredentialUse) -> BTreeMap<&'static str, u64> {
    let word = |count: &OutcomeCount| Outcome::from_index(count.outcome).unwrap().as_str();
    credential.outcomes.iter().map(|count| (word(count), count.count)).collect()
}

#[test]
fn uses_are_counted_by_token_credential_outcome_caller_and_scope() {
    let gate = gate(vec![record("web", 1, &[1, 2])]);
    let later = "2026-06-01T00:00:09Z";
    ask(&gate, 1, "scope=orders:read", &caller(1), NOW);
    ask(&gate, 1, "scope=orders:read&scope=orders:write", &caller(1), later);
    ask(&gate, 1, "audience=billing", &caller(7), later);
    ask(&gate, 2, "scope=orders:read", &caller(2), later);
    ask(&gate, 3, "", &caller(1), NOW);
    let mut drained = gate.recorder().drain();
    assert_eq!(drained.len(), 1);
    let mut token = drained.pop().unwrap();
    assert_eq!((token.uid.as_str(), token.token.as_str()), ("uid-web", "shop/web"));
    token.scopes.sort_by(|a, b| a.scope.cmp(&b.scope));
    let scopes: Vec<_> = token.scopes.iter().map(|scope| (scope.scope.as_str(), scope.count)).collect();
    assert_eq!(scopes, [("orders:read", 3), ("orders:write", 1)]);
    assert_eq!(token.credentials.len(), 2);
    let one = token.credentials.iter().find(|used| used.credential == minted("twd", 1).id()).unwrap();
    assert_eq!(outcomes(one), BTreeMap::from([("Accepted", 2), ("WrongAudience", 1)]));
    assert_eq!((one.first_used, one.last_used), (at(NOW).as_second(), at(later).as_second()));
    assert_eq!(one.callers.len(), 1, "who was refused is no caller");
    assert_eq!((one.callers[0].address.as_str(), one.callers[0].count), ("10.0.0.1", 2));
    assert_eq!(
        (one.callers[0].principal.as_str(), one.callers[0].user_agent.as_str()),
        ("spiffe://web", "curl/8")
    );
    assert!(gate.recorder().drain().is_empty(), "counted once");
}

#[test]
fn denials_of_unknown_tokens_are_counted_in_total_and_their_callers_told_once() {
    let gate = gate(vec![]);
    for number in 0..100 {
        ask(&gate, number, "", &caller(1), NOW);
    }
    gate.refuse(Dialect::Caddy, Outcome::Misrouted, at(NOW));
    assert!(gate.recorder().drain().is_empty(), "a flood of unknown ids takes no memory");
    let strangers = gate.recorder().strangers().unwrap();
    assert_eq!(strangers.credential.to_string(), minted("twd", 99).id());
    assert_eq!((strangers.callers.len(), strangers.callers[0].count), (1, 100));
    assert_eq!(strangers.callers[0].outcome, Outcome::UnknownCredential.index());
    assert_eq!(gate.recorder().strangers(), None, "told once");
    let totals = gate.recorder().totals();
    assert_eq!(totals.answers[Dialect::Nginx as usize][Outcome::UnknownCredential.index() as usize], 100);
    assert_eq!(totals.answers[Dialect::Caddy as usize][Outcome::Misrouted.index() as usize], 1);
    assert_eq!(totals.answers.iter().flatten().sum::<u64>(), 101);
}

#[test]
fn a_credential_that_was_only_refused_has_no_last_use() {
    let gate = gate(vec![record("web", 1, &[1])]);
    ask(&gate, 1, "audience=billing", &caller(1), NOW);
    let used = &gate.recorder().drain()[0].credentials[0];
    assert_eq!((used.first_used, used.last_used, used.callers.len()), (0, 0, 0));
    let [who] = &used.refused[..] else { panic!("{used:?}") };
    assert_eq!((who.address.as_str(), who.user_agent.as_str(), who.count), ("10.0.0.1", "curl/8", 1));
    assert_eq!((who.first_seen, who.last_seen), (at(NOW).as_second(), at(NOW).as_second()));
    assert_eq!(who.outcome, Outcome::WrongAudience.index());
}

/// The id of credential `number` with a secret that somebody made up.
fn made_up(number: u64) -> String {
    with_secret_of(&minted("twd", number), &minted("twd", number + 1_000_000))
}

#[test]
fn who_only_knows_an_id_takes_nobodys_place() {
    let object = object(&[living(&minted("twd", 1))], &[ended(&minted("twd", 2))]);
    let gate = gate(vec![Record::from_json(&metadata("shop", "web", 1), &object)]);
    for _ in 0..3 {
        assert_eq!(ask(&gate, 2, "", &caller(9), NOW), Outcome::Ended);
    }
    assert_eq!(ask(&gate, 1, "", &caller(8), NOW), Outcome::Accepted);
    let flood = [made_up(1), made_up(2)];
    for n in 0..20_000_u32 {
        let from = Caller { address: Some(n.to_be_bytes().into()), principal: "", user_agent: "flood" };
        let token = &flood[(n % 2) as usize];
        let verdict = gate.check(Dialect::Nginx, Ok(token), &Demand::none(), &from, at(NOW));
        assert_eq!(verdict.outcome(), Outcome::WrongSecret);
    }
    let drained = gate.recorder().drain().pop().unwrap();
    assert_eq!(drained.credentials.len(), 2);
    for used in &drained.credentials {
        assert_eq!(used.unproved.len(), 4, "few are kept of what anybody can send");
        assert_eq!(outcomes(used)["WrongSecret"], 10_000, "and all are counted");
    }
    let of =
        |number: u64| drained.credentials.iter().find(|used| used.credential == minted("twd", number).id());
    let revoked = &of(2).unwrap().refused;
    assert_eq!((revoked.len(), revoked[0].address.as_str()), (1, "10.0.0.9"));
    assert_eq!((revoked[0].count, revoked[0].error), (3, 0));
    assert_eq!(of(1).unwrap().callers[0].address, "10.0.0.8");
}

#[test]
fn a_flood_over_all_ids_notes_a_bounded_number_of_callers() {
    let records = (0..2_000).map(|n| record(&format!("t{n}"), 1, &[n])).collect();
    let gate = gate(records);
    for n in 0..2_000 {
        gate.check(Dialect::Nginx, Ok(&made_up(n)), &Demand::none(), &caller(1), at(NOW));
    }
    let noted = |drained: Vec<Drained>| -> usize {
        drained.iter().flat_map(|token| &token.credentials).map(|used| used.unproved.len()).sum()
    };
    assert_eq!(noted(gate.recorder().drain()), UNPROVED_BETWEEN_DRAINS);
    gate.check(Dialect::Nginx, Ok(&made_up(0)), &Demand::none(), &caller(1), at(NOW));
    assert_eq!(noted(gate.recorder().drain()), 1, "after a drain there is room again");
}

#[test]
fn addresses_of_the_refused_are_kept_as_far_as_wanted() {
    for (addresses, shown) in
        [(Addresses::Full, "10.0.0.7"), (Addresses::Truncated, "10.0.0.0/24"), (Addresses::None, "")]
    {
        let gate = gate_keeping(addresses, vec![record("web", 1, &[1])]);
        ask(&gate, 1, "audience=billing", &caller(7), NOW);
        ask(&gate, 5, "", &caller(7), NOW);
        let drained = gate.recorder().drain();
        assert_eq!(drained[0].credentials[0].refused[0].address, shown);
        assert_eq!(gate.recorder().strangers().unwrap().callers[0].address, shown);
    }
}

#[test]
fn what_left_the_index_is_still_drained() {
    let gate = gate(vec![record("web", 1, &[1])]);
    let mut writer = Writer::new(gate.index(), None);
    ask(&gate, 1, "", &caller(1), NOW);
    writer.delete(&metadata("shop", "web", 2));
    // The same id in another ApiToken's hands counts for that one.
    writer.apply(record("other", 3, &[1]));
    ask(&gate, 1, "", &caller(1), NOW);
    ask(&gate, 1, "", &caller(1), NOW);
    let mut drained = gate.recorder().drain();
    drained.sort_by(|a, b| a.uid.cmp(&b.uid));
    let counts: Vec<_> =
        drained.iter().map(|token| (token.uid.as_str(), token.credentials[0].outcomes[0].count)).collect();
    assert_eq!(counts, [("uid-other", 2), ("uid-web", 1)]);
}

#[test]
fn scopes_are_bounded() {
    let scopes: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
    let mut object = object(&[living(&minted("twd", 1))], &[]);
    object["spec"]["scopes"] = serde_json::json!(scopes);
    let gate = gate(vec![Record::from_json(&metadata("shop", "web", 1), &object)]);
    for scope in &scopes {
        assert_eq!(ask(&gate, 1, &format!("scope={scope}"), &caller(1), NOW), Outcome::Accepted);
    }
    assert_eq!(gate.recorder().drain()[0].scopes.len(), MAX_SCOPES);
}

#[test]
fn no_count_is_lost_or_doubled_while_threads_answer_and_others_drain() {
    const ASKERS: u64 = 4;
    const EACH: u64 = 20_000;
    let gate = gate(vec![record("web", 1, &[1, 2]), record("api", 2, &[3])]);
    let (begin, done) = (Barrier::new(ASKERS as usize + 2), AtomicBool::new(false));
    let mut sums: BTreeMap<(String, String, &'static str), u64> = BTreeMap::new();
    let mut scopes: BTreeMap<String, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|asker| {
                let (gate, begin) = (&gate, &begin);
                scope.spawn(move || {
                    let tokens = [1, 2, 3].map(|number| minted("twd", number));
                    let demands = ["scope=orders:read", "audience=billing"]
                        .map(|query| Demand::from_query(query).unwrap());
                    begin.wait();
                    for turn in 0..EACH {
                        let (token, demand) =
                            (&tokens[(turn % 3) as usize], &demands[usize::from(turn % 5 == 0)]);
                        let from = caller((turn % 20) as u8 + asker as u8);
                        gate.check(Dialect::EnvoyGrpc, Ok(token.expose()), demand, &from, at(NOW));
                    }
                })
            })
            .collect();
        // Meanwhile the one that is asked for most comes and goes.
        let changer = scope.spawn(|| {
            begin.wait();
            let mut writer = Writer::new(gate.index(), None);
            let mut version = 10;
            while !done.load(Ordering::Relaxed) {
                let credentials: &[u64] = if version % 2 == 0 { &[1, 2] } else { &[2] };
                writer.apply(record("web", version, credentials));
                version += 1;
            }
        });
        begin.wait();
        let mut finished = false;
        loop {
            for token in gate.recorder().drain() {
                for used in &token.credentials {
                    let key = |word| (token.uid.clone(), used.credential.clone(), word);
                    outcomes(used).into_iter().for_each(|(word, n)| *sums.entry(key(word)).or_default() += n);
                    let accepted = outcomes(used).get("Accepted").copied().unwrap_or(0);
                    let least: u64 = used.callers.iter().map(|caller| caller.count - caller.error).sum();
                    let most: u64 = used.callers.iter().map(|caller| caller.count).sum();
                    assert!(least <= accepted && (used.callers.len() == 16 || most == accepted));
                }
                token.scopes.iter().for_each(|used| {
                    *scopes.entry(used.scope.clone()).or_default() += used.count;
                });
            }
            if finished {
                break;
            }
            finished = askers.iter().all(|asker| asker.is_finished());
        }
        done.store(true, Ordering::Relaxed);
        changer.join().unwrap();
    });
    let totals = gate.recorder().totals().answers[Dialect::EnvoyGrpc as usize];
    assert_eq!(totals.iter().sum::<u64>(), ASKERS * EACH);
    let unknown = totals[Outcome::UnknownCredential.index() as usize];
    assert_eq!(sums.values().sum::<u64>() + unknown, ASKERS * EACH);
    for outcome in [Outcome::Accepted, Outcome::WrongAudience] {
        let drained = sums.iter().filter(|((_, _, word), _)| *word == outcome.as_str()).map(|(_, n)| n);
        assert_eq!(drained.sum::<u64>(), totals[outcome.index() as usize], "{outcome}");
    }
    assert_eq!(scopes["orders:read"], totals[Outcome::Accepted.index() as usize]);
}

#[test]
fn what_repeats_is_counted_like_what_does_not() {
    let gate = gate((0..200).map(|n| record(&format!("t{n}"), n + 1, &[n])).collect());
    let time = |second: u64| format!("2026-06-01T00:00:{second:02}Z");
    // Runs of one caller and scope, broken by another caller, other scopes, a denial and other credentials.
    for turn in 0..60_u64 {
        for number in [7, turn] {
            let scope =
                ["scope=orders:read", "scope=orders:read&scope=orders:write"][(turn / 7 % 2) as usize];
            ask(&gate, number, scope, &caller((turn / 5 % 3) as u8), &time(turn));
        }
        if turn % 11 == 0 {
            ask(&gate, 7, "audience=billing", &caller(1), &time(turn));
        }
    }
    let drained = gate.recorder().drain();
    let token = drained.iter().find(|token| token.uid == "uid-t7").unwrap();
    let used = &token.credentials[0];
    assert_eq!(outcomes(used), BTreeMap::from([("Accepted", 61), ("WrongAudience", 6)]));
    let callers: BTreeMap<_, _> =
        used.callers.iter().map(|c| (c.address.as_str(), (c.count, c.error))).collect();
    assert_eq!(
        callers,
        BTreeMap::from([("10.0.0.0", (20, 0)), ("10.0.0.1", (21, 0)), ("10.0.0.2", (20, 0))])
    );
    let seconds: Vec<_> = [used.first_used, used.last_used].map(|at_| at_ - at(NOW).as_second()).to_vec();
    assert_eq!(seconds, [0, 59]);
    let scopes: BTreeMap<_, _> = token.scopes.iter().map(|used| (used.scope.as_str(), used.count)).collect();
    let write = (0..60).filter(|turn| turn / 7 % 2 == 1).count() as u64 + 1;
    assert_eq!(scopes, BTreeMap::from([("orders:read", 61), ("orders:write", write)]));
    let last_caller = used.callers.iter().find(|c| c.address == "10.0.0.2").unwrap();
    assert_eq!(last_caller.last_seen - at(NOW).as_second(), 59);
    assert_eq!(drained.len(), 60, "the table grew on its way");
}

/// What repeats is counted elsewhere than what does not; over many drains neither is lost.
#[test]
fn what_goes_on_repeating_is_drained_each_time() {
    let gate = gate(vec![record("web", 1, &[1])]);
    let count = |times: u64, second: u64| {
        for _ in 0..times {
            ask(&gate, 1, "scope=orders:read", &caller(1), &format!("2026-06-01T00:00:{second:02}Z"));
        }
        let mut drained = gate.recorder().drain().pop()?;
        let used = drained.credentials.pop()?;
        let from = &used.callers[0];
        assert_eq!((from.address.as_str(), from.principal.as_str()), ("10.0.0.1", "spiffe://web"));
        assert_eq!((from.count, from.error, from.last_seen), (times, 0, used.last_used));
        assert_eq!((drained.scopes[0].scope.as_str(), drained.scopes[0].count), ("orders:read", times));
        Some((outcomes(&used)["Accepted"], used.last_used - at(NOW).as_second()))
    };
    assert_eq!(count(5, 1), Some((5, 1)));
    assert_eq!(count(0, 2), None);
    assert_eq!(count(1, 3), Some((1, 3)));
    assert_eq!(count(1_000, 4), Some((1_000, 4)));
    // The ApiToken says something new, and goes on being the same.
    Writer::new(gate.index(), None).apply(record("web", 2, &[1, 2]));
    assert_eq!(count(3, 5), Some((3, 5)));
}

#[test]
fn durations_are_summed_over_threads() {
    let recorder = Recorder::new(Addresses::Full);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| recorder.took(Dialect::Nginx, Duration::from_micros(7)));
        }
    });
    let (counters, mut expected) = (DurationCounters::default(), Durations::default());
    (0..4).for_each(|_| counters.add(Duration::from_micros(7)));
    counters.add_to(&mut expected);
    assert_eq!(recorder.totals().durations[Dialect::Nginx as usize], expected);
}
