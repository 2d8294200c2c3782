//! Copies of what gates have not sealed: they count once the process that could still seal them is gone, and only once.

use super::*;

/// What a gate's process says in one report.
fn say(office: &mut Office, restarts: u64, sets: Vec<Sealed>, open: Vec<Sealed>) -> Answer {
    office.reports += 1;
    let said = report("a", office.reports, sets, open);
    office.deliver(Report { epoch: said.epoch + restarts, ..said })
}

/// So many answers of the first token.
fn counted(sequence: u64, count: u64, second: f64) -> Sealed {
    sealed(0, sequence, vec![used(&credential(0, 0), count, second)])
}

/// An office where the first set is persisted, and a copy of the second, of 5 answers, has arrived.
fn with_a_copy() -> Office {
    let mut office = Office::new(1);
    say(&mut office, 0, vec![counted(1, 1, 0.0)], vec![]);
    office.run(20.0);
    say(&mut office, 0, vec![], vec![counted(2, 5, 20.0)]);
    office.run(21.0);
    assert_eq!(office.sets, [(1, 1)]);
    office
}

/// Beyond what a silent gate is waited for, and beyond every pause.
const LONG: f64 = 2_000.0;

#[test]
fn the_copy_of_a_living_gate_counts_nothing() {
    let mut office = with_a_copy();
    while office.now < LONG {
        let next = office.now + 60.0;
        office.run(next);
        say(&mut office, 0, vec![], vec![]);
    }
    assert_eq!(office.sets, [(1, 1)]);
}

#[test]
fn the_last_copy_of_a_gate_that_fell_silent_counts_once() {
    let mut office = with_a_copy();
    say(&mut office, 0, vec![], vec![counted(2, 8, 21.0)]);
    office.run(21.0 + GRACE.as_secs_f64());
    assert_eq!(office.sets, [(1, 1)], "it may only be slow");
    office.run(LONG);
    assert_eq!(office.sets, [(1, 1), (2, 8)]);
}

#[test]
fn what_a_process_left_open_counts_when_the_next_one_reports() {
    let mut office = with_a_copy();
    say(&mut office, 1, vec![], vec![]);
    office.run(60.0);
    assert_eq!(office.sets, [(1, 1), (2, 5)]);
    // The new process numbers from one again.
    say(&mut office, 1, vec![counted(1, 3, 60.0)], vec![]);
    office.run(LONG);
    assert_eq!(office.sets, [(1, 1), (2, 5), (1, 3)]);
}

#[test]
fn a_sealed_set_takes_the_place_of_its_copy() {
    let mut office = with_a_copy();
    let copies = |office: &Office| office.desk.tokens[uid(0).as_str()].open.len();
    assert_eq!(copies(&office), 1);
    say(&mut office, 0, vec![counted(2, 9, 22.0)], vec![]);
    assert_eq!(copies(&office), 0);
    // One that was late comes behind the set it became, before and after that is persisted.
    say(&mut office, 0, vec![], vec![counted(2, 5, 20.0)]);
    assert_eq!(copies(&office), 0);
    office.run(300.0);
    say(&mut office, 0, vec![], vec![counted(2, 5, 20.0)]);
    assert_eq!(copies(&office), 0);
    office.run(LONG);
    assert_eq!(office.sets, [(1, 1), (2, 9)]);
}

#[test]
fn a_gate_that_was_taken_for_dead_counts_nothing_twice() {
    let mut office = with_a_copy();
    office.run(LONG);
    assert_eq!(office.sets, [(1, 1), (2, 5)]);
    let answer = say(&mut office, 0, vec![counted(2, 6, 22.0)], vec![]);
    let settled = |end: &Settled| end.sequence == 2 && end.refused.is_empty();
    let ended = answer.receipt.settled;
    assert!(!ended.is_empty() && ended.iter().all(settled), "the gate need not keep it: {ended:?}");
    say(&mut office, 0, vec![counted(3, 7, LONG)], vec![]);
    office.run(2.0 * LONG);
    assert_eq!(office.sets, [(1, 1), (2, 5), (3, 7)]);
}
