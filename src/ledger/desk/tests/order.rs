//! In which order sets are taken, and whose report says enough to conclude something from silence.

use super::*;

fn counted(sequence: u64, count: u64, second: f64) -> Sealed {
    sealed(0, sequence, vec![used(&credential(0, 0), count, second)])
}

#[test]
fn no_set_overtakes_one_that_is_not_taken_yet() {
    let mut office = Office::new(1);
    office.now = 2.0;
    // By the gate's clock, which is ahead, the first one lies in the future.
    let early = counted(5, 1, 400.0);
    assert_eq!(office.send("a", vec![early.clone(), counted(9, 2, 1.0)]).refused, [Refused::InTheFuture]);
    office.send("a", vec![counted(9, 2, 1.0)]);
    office.run(30.0);
    assert!(office.sets.is_empty(), "{:?}", office.sets);
    let known = office.desk.known(&uid(0)).0;
    assert_eq!(known[&credential(0, 0)], at(1.0).wall, "but when it was used is believed");
    // Nor does a third one, before the second was sent again.
    office.now = 200.0;
    office.send("a", vec![early]);
    office.send("a", vec![counted(12, 4, 2.0)]);
    office.send("a", vec![counted(9, 2, 1.0), counted(12, 4, 2.0)]);
    office.run(1_000.0);
    assert_eq!(office.sets, [(5, 1), (9, 2), (12, 4)]);
    assert!(office.settled.iter().all(|ended| ended.refused.is_empty()));
}

#[test]
fn what_a_process_did_not_bring_does_not_hold_up_the_next_one() {
    let mut office = Office::new(1);
    office.send("a", vec![counted(5, 1, 400.0)]);
    let next = report("a", 1, vec![counted(7, 2, 1.0)], vec![]);
    office.deliver(Report { epoch: next.epoch + 1, ..next });
    office.run(30.0);
    assert_eq!(office.sets, [(7, 2)]);
}

#[test]
fn a_copy_is_not_kept_before_what_came_earlier_is_taken_nor_without_a_number() {
    let mut office = Office::new(1);
    office.send("a", vec![counted(1, 1, 0.0)]);
    office.run(1.0);
    // The gate dies with a set that lies in the future, and with what it counted after that.
    office.send_both("a", vec![counted(5, 2, 400.0)], vec![counted(9, 4, 1.0)]);
    office.send_both("a", vec![], vec![counted(0, 8, 1.0)]);
    office.run(2_000.0);
    assert_eq!(office.sets, [(1, 1)]);
    assert_eq!(office.desk.known(&uid(0)).0[&credential(0, 0)], at(1.0).wall, "when it was used is believed");
}

#[test]
fn what_a_gate_that_left_could_not_bring_is_taken_from_its_copy() {
    let mut office = Office::new(1);
    office.send("a", vec![counted(1, 1, 0.0)]);
    office.run(1.0);
    office.send_both("b", vec![], vec![counted(1, 2, 1.0)]);
    let mut bye = report("b", 99, vec![], vec![]);
    bye.leaving = true;
    office.deliver(bye);
    office.run(30.0);
    assert_eq!(office.sets, [(1, 1)], "it may say more");
    while office.now < 600.0 {
        let next = office.now + 50.0;
        office.run(next);
        office.send("a", vec![]);
    }
    assert_eq!(office.sets, [(1, 1), (1, 2)]);
}

#[test]
fn receipts_reach_a_gate_that_waits_for_them_before_it_goes() {
    let mut office = Office::new(1);
    office.send("a", vec![counted(1, 1, 0.0)]);
    office.run(1.0);
    office.send("b", vec![counted(1, 2, 1.0)]);
    let Some(Command::Persist(job)) = office.desk.next(&office.world, at(300.0)) else { panic!("nothing") };
    let bye = |sequence: u64| Report { leaving: true, ..report("b", sequence, vec![], vec![]) };
    for (second, sequence) in [(300.0, 100), (400.0, 101)] {
        office.now = second;
        assert!(office.deliver(bye(sequence)).receipt.settled.is_empty());
    }
    // The desk looks around between two of its reports.
    assert!(office.desk.next(&office.world, at(420.0)).is_none());
    office.persist(&job);
    assert_eq!(office.deliver(bye(102)).receipt.settled.len(), 1);
}

#[test]
fn only_what_is_persisted_is_called_so() {
    let mut office = Office::new(1);
    office.send("a", vec![counted(9, 1, 0.0)]);
    office.run(1.0);
    let told = |answer: Answer| {
        let ended = answer.receipt.settled.into_iter().map(|ended| (ended.sequence, ended.refused));
        ended.collect::<BTreeMap<_, _>>()
    };
    let answer = told(office.send("a", vec![counted(5, 1, 0.0), counted(9, 1, 0.0)]));
    assert_eq!((answer[&5].as_str(), answer[&9].as_str()), ("Backwards", ""));
}

#[test]
fn a_first_use_that_is_being_shown_already_hurries_nothing_more() {
    let mut office = Office::new(1);
    office.send("a", vec![counted(1, 1, 0.0)]);
    let Some(Command::Persist(job)) = office.desk.next(&office.world, at(0.0)) else { panic!("nothing") };
    office.send_both("a", vec![], vec![counted(2, 1, 0.0)]);
    office.persist(&job);
    office.now = 1.0;
    office.send("a", vec![counted(2, 1, 1.0)]);
    office.run(4.0);
    assert_eq!(office.times(0), [0]);
    office.run(6.0);
    assert_eq!(office.times(0), [0, 5]);
}

#[test]
fn a_set_of_an_older_process_is_refused_and_not_called_persisted() {
    let mut office = Office::new(1);
    office.send("a", vec![counted(1, 1, 0.0), counted(2, 1, 0.0)]);
    let Some(Command::Persist(job)) = office.desk.next(&office.world, at(0.0)) else { panic!("nothing") };
    let outdated = vec![job.sets[0].clone()];
    let outcome = Outcome::Written { summary: Persisted::default(), callers: HashSet::new(), outdated };
    office.desk.done(&job, outcome, 1, at(0.0));
    let settled = office.send("a", vec![]).receipt.settled;
    let told: Vec<_> = settled.iter().map(|ended| (ended.sequence, ended.refused.as_str())).collect();
    assert_eq!(told, [(2, ""), (1, "Backwards")]);
}

#[test]
fn silence_means_nothing_before_a_gate_has_said_all_it_knows() {
    let mut office = Office::new(1);
    let watched = |office: &Office| office.desk.watched(at(office.now).wall);
    let since = Watched::Since(at(0.0).wall);
    assert_eq!(watched(&office), since);
    // Cut off for a while, then with more to say than fits.
    office.now = 300.0;
    for more in [true, true, false] {
        office.reports += 1;
        let report = Report { more, ..report("a", office.reports, vec![], vec![]) };
        office.deliver(report);
        assert_eq!(watched(&office) == since, !more);
    }
}

#[test]
fn silence_means_nothing_while_a_gate_that_lives_is_turned_away() {
    let mut office = Office::new(1);
    let since = Watched::Since(at(0.0).wall);
    let outcome = |office: &mut Office, epoch: u64, sequence: u64| {
        let mut late = report("a", sequence, vec![], vec![]);
        late.epoch -= epoch;
        let late = checked(&office.world, late, at(office.now));
        assert_eq!(office.desk.report(late, at(office.now)).err(), Some(Refusal::Outdated));
        office.desk.watched(at(office.now).wall)
    };
    office.send("a", vec![]);
    assert_eq!(outcome(&mut office, 0, 1), since, "only late");
    assert_eq!(outcome(&mut office, 1, 9), Watched::Settling, "another one under the same name");
    office.now = GRACE.as_secs_f64() + 1.0;
    office.send("a", vec![]);
    assert_eq!(office.desk.watched(at(office.now).wall), since, "it gave up");
    for gate in 0..64 {
        let report =
            checked(&office.world, report(&format!("gate-{gate}"), 1, vec![], vec![]), at(office.now));
        let refused = office.desk.report(report, at(office.now)).is_err();
        let settling = office.desk.watched(at(office.now).wall) == Watched::Settling;
        assert_eq!((refused, settling), (gate == 63, gate == 63), "gate-{gate}");
    }
}

#[test]
fn credentials_that_are_gone_are_forgotten_with_their_uses() {
    let mut office = Office::new(1);
    office.send(
        "a",
        vec![sealed(0, 1, vec![used(&credential(0, 0), 1, 0.0), used(&credential(0, 1), 1, 0.0)])],
    );
    office.run(1.0);
    assert_eq!(office.desk.known(&uid(0)).0.len(), 2);
    let (claimant, ids) = office.world.token(&uid(0)).map(|(who, ids)| (who.clone(), ids.to_vec())).unwrap();
    office.world.apply(&claimant, &ids[1..]);
    office.now += 100.0;
    office.send("a", vec![]);
    let next = office.now + 1.0;
    office.run(next);
    assert_eq!(office.desk.known(&uid(0)).0.keys().collect::<Vec<_>>(), [&credential(0, 1)]);
}
