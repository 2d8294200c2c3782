use super::*;
use crate::gate::callers::Caller;
use crate::gate::fixtures::{living, metadata, minted, object};
use std::collections::BTreeMap;

/// One thread's cells, and what was taken from them.
#[derive(Default)]
struct Lane {
    repeats: Repeats,
    holders: Holders,
    /// By the hash of the caller, which stands for the use: how often, and when last.
    taken: BTreeMap<u64, (u64, i64)>,
}

fn holder(use_: u64) -> Holder {
    let token = minted("twd", 1);
    Holder {
        record: Record::from_json(&metadata("shop", "web", 1), &object(&[living(&token)], &[])),
        id: CredentialId::parse(token.id()).unwrap(),
        caller: (use_, Caller::default().who()),
        scopes: SmallVec::new(),
    }
}

fn add(taken: &mut BTreeMap<u64, (u64, i64)>, holder: &Holder, times: u64, last: i64) {
    let sum = taken.entry(holder.caller.0).or_default();
    *sum = (sum.0 + times, last);
}

impl Lane {
    /// All uses in one set: the upper half of a key says which.
    fn admit(&mut self, key: u64, now: i64) {
        let spot = self.repeats.spot(key);
        self.repeats.admit(&mut self.holders, &spot, key, now, holder(key), |holder, times, last| {
            add(&mut self.taken, holder, times, last);
        });
    }

    fn again(&self, key: u64, now: i64) -> bool {
        self.repeats.again(&self.repeats.spot(key), key, now)
    }

    fn settle(&mut self) -> BTreeMap<u64, (u64, i64)> {
        let mut begin = 0;
        while self.repeats.settle(&mut self.holders, begin, 3, |holder, times, last| {
            add(&mut self.taken, holder, times, last);
        }) {
            begin += 3;
        }
        std::mem::take(&mut self.taken)
    }
}

#[test]
fn what_repeats_is_settled_once() {
    let mut lane = Lane::default();
    assert!(!lane.again(7, 1), "nobody knows it");
    lane.admit(7, 1);
    assert!(lane.settle().is_empty(), "whoever admits counts that use");
    for now in 2..5 {
        assert!(lane.again(7, now));
    }
    assert_eq!(lane.settle(), BTreeMap::from([(7, (3, 4))]));
    assert!(lane.settle().is_empty());
    assert!(lane.again(7, 9));
    assert_eq!(lane.settle(), BTreeMap::from([(7, (1, 9))]));
}

#[test]
fn many_are_settled_a_few_at_a_time() {
    let mut lane = Lane::default();
    let keys: Vec<u64> = (1..=100).map(|number| number << 32).collect();
    for key in &keys {
        lane.admit(*key, 1);
        assert!(lane.again(*key, 2));
    }
    let expected: BTreeMap<_, _> = keys.iter().map(|key| (*key, (1, 2))).collect();
    assert_eq!(lane.settle(), expected);
}

#[test]
fn a_full_set_gives_the_cell_that_was_idle_longest_and_settles_it() {
    let mut lane = Lane::default();
    for key in 1..=4 {
        lane.admit(key, key as i64);
        assert!(lane.again(key, key as i64));
    }
    lane.admit(5, 1);
    assert!(!lane.again(5, 1), "all four are in use at this moment");
    lane.admit(5, 9);
    assert_eq!(lane.taken, BTreeMap::from([(1, (1, 1))]), "what it had counted is not lost");
    assert!(!lane.again(1, 9) && lane.again(5, 9) && lane.again(2, 9));
    assert_eq!(
        lane.settle(),
        BTreeMap::from([(1, (1, 1)), (2, (2, 9)), (3, (1, 3)), (4, (1, 4)), (5, (1, 9))])
    );
}

#[test]
fn a_cell_that_is_full_begins_anew() {
    let mut lane = Lane::default();
    lane.admit(7, 1);
    let most = u64::from(u32::MAX);
    lane.repeats.sets[0].0[0].store(Seen { count: u32::MAX - 1, last: 1 });
    assert!(lane.again(7, 2) && !lane.again(7, 3));
    lane.admit(7, 3);
    assert_eq!(lane.taken, BTreeMap::from([(7, (most, 2))]));
    assert!(lane.again(7, 4));
    assert_eq!(lane.settle(), BTreeMap::from([(7, (most + 1, 4))]));
}

#[test]
fn times_out_of_range_are_the_nearest_in_range() {
    assert_eq!((seconds(-1), seconds(5), seconds(i64::MAX)), (0, 5, u32::MAX));
}
