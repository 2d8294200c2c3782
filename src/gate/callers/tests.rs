use super::*;
use crate::api::report::MAX_CALLERS;
use proptest::prelude::*;
use std::collections::HashMap;

type Busiest = Callers<MAX_CALLERS>;

const AGENTS: [&str; 40] = {
    let mut agents = [""; 40];
    let digits = "0123456789012345678901234567890123456789";
    let mut at = 0;
    while at < 40 {
        agents[at] = digits.split_at(at).0;
        at += 1;
    }
    agents
};

fn caller(number: usize) -> Caller<'static> {
    Caller { address: Some([10, 0, 0, 1].into()), principal: "", user_agent: AGENTS[number] }
}

fn number(counted: &CallerUse) -> usize {
    counted.user_agent.len()
}

fn count(callers: &mut Busiest, caller: &Caller<'_>, now: i64) {
    callers.count(caller.hash(), Outcome::Accepted, 1, now, || caller.who());
}

fn counted(numbers: &[usize]) -> Busiest {
    let mut callers = Busiest::default();
    numbers.iter().zip(1..).for_each(|(number, now)| count(&mut callers, &caller(*number), now));
    callers
}

#[test]
fn few_callers_are_counted_exactly() {
    let report = counted(&[1, 2, 1, 1, 2, 3]).report(Addresses::Full);
    let shown: Vec<_> =
        report.iter().map(|c| (number(c), c.count, c.error, c.first_seen, c.last_seen)).collect();
    assert_eq!(shown, [(1, 3, 0, 1, 4), (2, 2, 0, 2, 5), (3, 1, 0, 6, 6)]);
    assert_eq!(report[0].address, "10.0.0.1");
}

#[test]
fn each_part_tells_callers_apart() {
    let mut callers = Busiest::default();
    let one = Caller { address: Some([10, 0, 0, 1].into()), principal: "p", user_agent: "a" };
    count(&mut callers, &one, 1);
    count(&mut callers, &Caller { address: Some([10, 0, 0, 2].into()), ..one }, 1);
    count(&mut callers, &Caller { address: None, ..one }, 1);
    count(&mut callers, &Caller { principal: "q", ..one }, 1);
    count(&mut callers, &Caller { user_agent: "b", ..one }, 1);
    assert_eq!(callers.report(Addresses::Full).len(), 5);
}

#[test]
fn addresses_are_kept_as_far_as_wanted() {
    for (addresses, address, expected) in [
        (Addresses::Full, "203.0.113.77", "203.0.113.77"),
        (Addresses::Truncated, "203.0.113.77", "203.0.113.0/24"),
        (Addresses::None, "203.0.113.77", ""),
        (Addresses::Full, "2001:db8:1:2::3", "2001:db8:1:2::3"),
        (Addresses::Truncated, "2001:db8:1:2::3", "2001:db8:1::/48"),
        (Addresses::None, "2001:db8:1:2::3", ""),
    ] {
        let kept = addresses.keep(address.parse().ok());
        assert_eq!(kept.map(|kept| addresses.show(kept)).unwrap_or_default(), expected);
    }
    assert_eq!(Addresses::Full.keep(None), None);
}

/// Checks what Space-Saving promises about `found`, given what was really sent.
fn keeps_its_promises(found: &[CallerUse], sent: &[usize]) -> Result<(), TestCaseError> {
    let mut truth: HashMap<usize, u64> = HashMap::new();
    sent.iter().for_each(|number| *truth.entry(*number).or_default() += 1);
    prop_assert!(found.len() <= MAX_CALLERS);
    for caller in found {
        let really = truth.get(&number(caller)).copied().unwrap_or(0);
        prop_assert!(caller.count >= really, "{} counted, {really} sent", caller.count);
        prop_assert!(caller.count - caller.error <= really);
    }
    for (sender, really) in truth {
        if really > sent.len() as u64 / MAX_CALLERS as u64 {
            prop_assert!(found.iter().any(|caller| number(caller) == sender), "{sender} is not there");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_busiest_are_among_them(sent in prop::collection::vec(
        prop_oneof![3 => 0..3_usize, 2 => 0..40_usize], 0..400,
    )) {
        keeps_its_promises(&counted(&sent).report(Addresses::Full), &sent)?;
    }

    #[test]
    fn merged_from_several_cores_too(parts in prop::collection::vec(
        prop::collection::vec(prop_oneof![3 => 0..3_usize, 2 => 0..40_usize], 0..200), 1..5,
    )) {
        let mut all = Busiest::default();
        parts.iter().for_each(|part| all.merge(counted(part)));
        keeps_its_promises(&all.report(Addresses::Full), &parts.concat())?;
    }
}
