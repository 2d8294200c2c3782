//! Since when gates have watched without a gap: nothing is called idle or unused without it.
//!
//! A report covers the time from the gate's `observing_since` to the report: a gate that could not reach the ledger has
//! watched all the same, and delivers what it saw. So the coverage breaks only where no gate's time reaches.
//!
//! It is kept as JSON in an annotation of the Lease, which the leader writes anyway every few seconds: remembering it
//! costs no write of its own.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Silence beyond this is a gap. Gates give a sign of life every few seconds.
pub const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);
/// A gate that has been silent for this long without having said goodbye is taken for dead; before that it may still be
/// serving, and what it has seen is on its way.
pub const GRACE: SignedDuration = SignedDuration::from_mins(10);
/// Most gates that are remembered, and the most that may report.
pub const MAX_GATES: usize = 64;
/// Most gaps that are remembered.
pub const MAX_GAPS: usize = 16;

/// What gates have watched, as far as the ledger knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Coverage {
    /// Watched without a gap since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// And until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// When each gate last reported all it knew.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    gates: BTreeMap<String, Timestamp>,
    /// When a gate that lives was last turned away: what it has seen is not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    turned_away: Option<Timestamp>,
    /// Times that nobody watched, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<(Timestamp, Timestamp)>,
}

/// What may be concluded from silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// No ledger listens: use is not judged at all.
    Unasked,
    /// A gate that may know more has not reported all of it: nothing new is concluded from silence.
    Settling,
    /// No gate reports.
    Nobody,
    /// Watched without a gap since then.
    Since(Timestamp),
}

impl Coverage {
    /// Reads what an earlier leader left. What cannot be read is as good as none.
    pub fn load(text: &str, now: Timestamp) -> Self {
        let mut coverage: Self = serde_json::from_str(text).unwrap_or_default();
        while coverage.gates.len() > MAX_GATES {
            coverage.gates.pop_first();
        }
        let surplus = coverage.gaps.len().saturating_sub(MAX_GAPS);
        coverage.gaps.drain(..surplus);
        // The predecessor's clock may have been ahead of ours: nobody has watched the future, and no gate was heard by us.
        let gaps = coverage.gaps.iter_mut().flat_map(|(from, to)| [from, to]);
        let times =
            [&mut coverage.since, &mut coverage.until, &mut coverage.turned_away].into_iter().flatten();
        times.chain(gaps).for_each(|time| *time = (*time).min(now));
        let before = now.saturating_sub(SignedDuration::from_secs(1)).unwrap_or(now);
        coverage.gates.values_mut().for_each(|last| *last = (*last).min(before));
        coverage
    }

    /// As text for the annotation; below 16 kB, with the longest names.
    pub fn store(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A gate reported all it knew at `now`, and has watched since `observing_since`. False: there are too many gates.
    pub fn reported(&mut self, gate: &str, observing_since: Timestamp, now: Timestamp) -> bool {
        if !self.has_room(gate, now) {
            return false;
        }
        self.gates.insert(gate.to_owned(), now);
        let from = observing_since.min(now);
        match (self.since, self.until) {
            (Some(since), Some(until)) if from.duration_since(until) <= TOLERANCE => {
                self.since = Some(since.min(from));
                self.until = Some(until.max(now));
            }
            (_, was) => {
                if let Some(was) = was {
                    self.gaps.push((was, from));
                    let surplus = self.gaps.len().saturating_sub(MAX_GAPS);
                    self.gaps.drain(..surplus);
                }
                (self.since, self.until) = (Some(from), Some(now));
            }
        }
        true
    }

    /// A gate reported at `now` and has more to say. It is alive, and as good as silent. False: there are too many gates.
    pub fn reported_in_part(&mut self, gate: &str, now: Timestamp) -> bool {
        if !self.has_room(gate, now) {
            return false;
        }
        let silent = now.saturating_sub(TOLERANCE + SignedDuration::from_secs(1)).unwrap_or(now);
        let last = self.gates.entry(gate.to_owned()).or_insert(silent);
        *last = silent.max(*last);
        true
    }

    /// A gate that lives was turned away at `now`: as long as that goes on, silence means nothing.
    pub fn turned_away(&mut self, now: Timestamp) {
        self.turned_away = Some(now);
    }

    /// A gate said goodbye: it has delivered all it knew.
    pub fn left(&mut self, gate: &str) {
        self.gates.remove(gate);
    }

    /// What silence means at `now`. `listening_since`: when this leader began to listen.
    pub fn watched(&self, listening_since: Timestamp, now: Timestamp) -> Watched {
        let (Some(since), Some(until)) = (self.since, self.until) else { return Watched::Nobody };
        if self.turned_away.is_some_and(|at| now.duration_since(at) <= GRACE) {
            return Watched::Settling;
        }
        let silent = |last: &Timestamp| {
            let heard = *last >= listening_since && now.duration_since(*last) <= TOLERANCE;
            !heard && now.duration_since(*last.max(&listening_since)) <= GRACE
        };
        if self.gates.values().any(silent) {
            return Watched::Settling;
        }
        if now.duration_since(until) > TOLERANCE { Watched::Nobody } else { Watched::Since(since) }
    }

    /// Times that nobody watched, newest last.
    pub fn gaps(&self) -> &[(Timestamp, Timestamp)] {
        &self.gaps
    }

    /// Gates that are taken to be alive.
    pub fn gates(&self) -> usize {
        self.gates.len()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.gates.keys().map(String::as_str)
    }

    fn has_room(&mut self, gate: &str, now: Timestamp) -> bool {
        self.gates.retain(|_, last| now.duration_since(*last) <= GRACE);
        self.gates.len() < MAX_GATES || self.gates.contains_key(gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn silence_says_nothing_before_anybody_watched() {
        assert_eq!(Coverage::default().watched(at(0), at(10)), Watched::Nobody);
    }

    #[test]
    fn reports_that_meet_are_one_coverage() {
        let mut coverage = Coverage::default();
        for second in [10, 40, 70] {
            assert!(coverage.reported("a", at(0), at(second)));
        }
        assert_eq!(coverage.watched(at(0), at(75)), Watched::Since(at(0)));
        assert!(coverage.gaps().is_empty());
    }

    #[test]
    fn a_gate_that_was_cut_off_has_watched_all_the_same() {
        let mut coverage = Coverage::default();
        coverage.reported("a", at(0), at(10));
        coverage.reported("a", at(0), at(5_000));
        assert_eq!(coverage.watched(at(0), at(5_001)), Watched::Since(at(0)));
    }

    #[test]
    fn a_gap_is_where_nobody_watched() {
        let mut coverage = Coverage::default();
        coverage.reported("a", at(0), at(10));
        assert_eq!(coverage.watched(at(0), at(200)), Watched::Settling, "it may only be cut off");
        assert_eq!(coverage.watched(at(0), at(1_000)), Watched::Nobody);
        coverage.reported("b", at(2_000), at(2_010));
        assert_eq!(coverage.watched(at(0), at(2_011)), Watched::Since(at(2_000)));
        assert_eq!(coverage.gaps(), [(at(10), at(2_000))]);
    }

    #[test]
    fn a_goodbye_is_no_silence() {
        let mut coverage = Coverage::default();
        coverage.reported("a", at(0), at(10));
        coverage.reported("b", at(0), at(10));
        coverage.left("b");
        coverage.reported("a", at(0), at(200));
        assert_eq!(coverage.watched(at(0), at(210)), Watched::Since(at(0)));
    }

    #[test]
    fn a_new_leader_waits_for_the_gates_it_inherits() {
        let mut old = Coverage::default();
        old.reported("a", at(0), at(100));
        old.reported("b", at(0), at(100));
        let mut new = Coverage::load(&old.store(), at(105));
        assert_eq!(new, old);
        let leads_since = at(105);
        new.reported("a", at(0), at(106));
        assert_eq!(new.watched(leads_since, at(107)), Watched::Settling);
        new.reported("b", at(0), at(108));
        assert_eq!(new.watched(leads_since, at(109)), Watched::Since(at(0)));
    }

    #[test]
    fn a_gate_that_has_more_to_say_is_alive_and_not_heard() {
        let mut coverage = Coverage::default();
        coverage.reported("a", at(0), at(100));
        coverage.reported("b", at(0), at(100));
        // Cut off for a while, then slow for long.
        for second in [400, 700, 1_000, 1_300, 1_600] {
            coverage.reported("a", at(0), at(second));
            assert!(coverage.reported_in_part("b", at(second)));
            assert_eq!(coverage.watched(at(0), at(second)), Watched::Settling);
        }
        coverage.reported("b", at(0), at(1_601));
        assert_eq!(coverage.watched(at(0), at(1_602)), Watched::Since(at(0)));
        assert!(coverage.reported_in_part("b", at(1_610)));
        assert_eq!(coverage.watched(at(0), at(1_611)), Watched::Since(at(0)), "all was said a moment ago");
    }

    #[test]
    fn while_a_gate_is_turned_away_silence_means_nothing() {
        let mut coverage = Coverage::default();
        coverage.reported("a", at(0), at(10));
        coverage.turned_away(at(12));
        coverage = Coverage::load(&coverage.store(), at(13));
        for second in [13, 300, 611, 613] {
            coverage.reported("a", at(0), at(second));
            let expected = if second <= 612 { Watched::Settling } else { Watched::Since(at(0)) };
            assert_eq!(coverage.watched(at(0), at(second)), expected, "{second}");
        }
    }

    #[test]
    fn nobody_has_watched_the_future() {
        let mut ahead = Coverage::default();
        ahead.reported("a", at(800), at(900));
        let mut coverage = Coverage::load(&ahead.store(), at(100));
        for second in [100, 161, 700] {
            assert_eq!(coverage.watched(at(100), at(second)), Watched::Settling, "{second}");
        }
        assert_eq!(coverage.watched(at(100), at(701)), Watched::Nobody);
        coverage.reported("a", at(90), at(150));
        assert_eq!(coverage.watched(at(100), at(150)), Watched::Since(at(90)));
        ahead.turned_away(at(900));
        let coverage = Coverage::load(&ahead.store(), at(100));
        assert_eq!(coverage.watched(at(100), at(701)), Watched::Nobody, "that ends, too");
    }

    #[test]
    fn what_cannot_be_read_counts_as_none_and_everything_is_bounded() {
        assert_eq!(Coverage::load("{\"since\": 7", at(0)), Coverage::default());
        let mut coverage = Coverage::default();
        for gate in 0..MAX_GATES {
            assert!(coverage.reported(&format!("gate-{gate}"), at(0), at(1)));
        }
        assert!(!coverage.reported("one-too-many", at(0), at(1)));
        for round in 0..100 {
            coverage.reported("gate-0", at(round * 1_000), at(round * 1_000));
        }
        assert_eq!(coverage.gaps().len(), MAX_GAPS);
        let names = MAX_GATES * crate::api::report::MAX_GATE;
        assert!(coverage.store().len() + names < 16 * 1024);
    }
}
