//! The desk under loads of all kinds. Every job is persisted at once unless a test says otherwise.

mod copies;
mod order;

use std::collections::BTreeMap;

use super::super::fixtures::{at, called, checked, credential, report, sealed, show, uid, used, world};
use super::*;
use crate::api::report::{CredentialUse, Report, Sealed};
use crate::platform::budget::Purse;

struct Office {
    desk: Desk,
    world: Directory,
    now: f64,
    reports: u64,
    /// When each token was persisted.
    log: Vec<(usize, f64)>,
    /// What was persisted: number and answers of each set.
    sets: Vec<(u64, u64)>,
    /// When every token was to be looked at.
    looks: Vec<f64>,
    /// Writes that each job takes.
    writes: u32,
    settled: Vec<Settled>,
}

impl Office {
    fn new(tokens: usize) -> Self {
        Self::paced(tokens, Pace::default())
    }

    fn paced(tokens: usize, pace: Pace) -> Self {
        let budget = Budget::new(pace.writes_per_second, at(0.0).mono);
        let mut office = Self {
            desk: Desk::new(pace, Arc::new(Mutex::new(budget)), Coverage::default(), at(0.0)),
            world: world(tokens),
            now: 0.0,
            reports: 0,
            log: Vec::new(),
            sets: Vec::new(),
            looks: Vec::new(),
            writes: 1,
            settled: Vec::new(),
        };
        // The looks that a new leader makes are not what these tests are about.
        office.send("a", vec![]);
        office.desk.turn(&office.world, at(0.0));
        office.desk.look_at_all = false;
        office
    }

    fn send(&mut self, gate: &str, sets: Vec<Sealed>) -> Answer {
        self.send_both(gate, sets, vec![])
    }

    fn send_both(&mut self, gate: &str, sets: Vec<Sealed>, open: Vec<Sealed>) -> Answer {
        self.reports += 1;
        self.deliver(report(gate, self.reports, sets, open))
    }

    fn deliver(&mut self, report: Report) -> Answer {
        let report = checked(&self.world, report, at(self.now));
        let answer = self.desk.report(report, at(self.now)).expect("taken");
        self.settled.extend(answer.receipt.settled.iter().cloned());
        answer
    }

    /// Does what is to be done until `until`.
    fn run(&mut self, until: f64) {
        loop {
            while let Some(command) = self.desk.next(&self.world, at(self.now)) {
                match command {
                    Command::Persist(job) => self.persist(&job),
                    Command::LookAtAll => self.looks.push(self.now),
                }
            }
            let wake = self.desk.wake(at(self.now).mono).as_secs_f64() - 1_000.0;
            assert!(wake > self.now, "asks again at once");
            if wake > until {
                self.now = until;
                return;
            }
            self.now = wake;
        }
    }

    fn persist(&mut self, job: &Job) {
        let token = job.claimant.uid[4..].parse().unwrap();
        self.log.push((token, self.now));
        self.sets.extend(job.sets.iter().map(|set| (set.sealed.sequence, set.sealed.answers())));
        let before = self.desk.known(&job.claimant.uid).1.unwrap_or_default();
        let mut summary = Persisted { requests: before.requests + 1, ..before };
        summary.credentials.extend(job.live.clone());
        let all = job.sets.iter().flat_map(|set| &set.sealed.credentials);
        let callers = all
            .flat_map(|used| used.callers.iter().map(move |caller| (used.credential.clone(), caller.clone())))
            .map(|(id, caller)| {
                fingerprint(&id, "Accepted", &caller.address, &caller.principal, &caller.user_agent)
            });
        let outcome = Outcome::Written { summary, callers: callers.collect(), outdated: vec![] };
        self.desk.done(job, outcome, self.writes, at(self.now));
    }

    /// Times at which a token was persisted, in whole seconds.
    fn times(&self, token: usize) -> Vec<u64> {
        self.log.iter().filter(|(who, _)| *who == token).map(|(_, when)| when.round() as u64).collect()
    }
}

fn one(token: usize, second: f64) -> Vec<CredentialUse> {
    vec![used(&credential(token, 0), 1, second)]
}

#[test]
fn a_busy_token_is_written_ever_less_often() {
    let mut office = Office::new(1);
    // A gate seals the next set when the last one is settled.
    let mut sequence = 1;
    while office.now < 1_500.0 {
        let settled = office.desk.tokens.get(uid(0).as_str()).is_none_or(|entry| entry.sets.is_empty());
        let used = one(0, office.now);
        if settled {
            sequence += 1;
            office.send("a", vec![sealed(0, sequence, used)]);
        } else {
            office.send_both("a", vec![], vec![sealed(0, sequence + 1, used)]);
        }
        let next = office.now + 1.0;
        office.run(next);
    }
    let gaps: Vec<_> = office.times(0).windows(2).map(|pair| pair[1] - pair[0]).collect();
    let expected = [5, 10, 20, 40, 80, 160, 300, 300, 300];
    assert!(
        gaps.len() >= 9 && gaps.iter().zip(expected).all(|(gap, pause)| gap.abs_diff(pause) <= 1),
        "{gaps:?}"
    );
    assert_eq!(office.times(0)[0], 0, "the first use at once");
}

#[test]
fn a_first_use_a_new_credential_a_new_caller_and_a_use_after_a_quiet_are_seen_at_once() {
    let mut office = Office::new(1);
    office.send("a", vec![sealed(0, 1, one(0, 0.0))]);
    office.run(60.0);
    assert_eq!(office.times(0), [0]);
    // The same credential from the same caller: at the token's pace.
    office.send("a", vec![sealed(0, 2, one(0, 60.0))]);
    office.run(61.0);
    office.send("a", vec![sealed(0, 3, one(0, 61.0))]);
    office.run(62.0);
    assert_eq!(office.times(0), [0, 60], "the second one waits");
    // Another credential does not wait, and takes along what waits.
    office.send("b", vec![sealed(0, 1, vec![used(&credential(0, 1), 1, 62.0)])]);
    office.run(63.0);
    assert_eq!(office.times(0), [0, 60, 62]);
    office.send("a", vec![sealed(0, 4, vec![called(&credential(0, 0), 1, 63.0, "10.9.9.9")])]);
    office.run(64.0);
    assert_eq!(office.times(0), [0, 60, 62, 63]);
    office.run(365.0);
    office.send("a", vec![sealed(0, 5, one(0, 365.0))]);
    office.run(366.0);
    assert_eq!(office.times(0).last(), Some(&365), "after five minutes of quiet");
}

#[test]
fn a_first_use_that_travels_ahead_hurries_what_waits_before_it() {
    let mut office = Office::new(1);
    office.send("a", vec![sealed(0, 1, one(0, 0.0))]);
    office.run(1.0);
    office.send("a", vec![sealed(0, 2, one(0, 1.0))]);
    office.run(2.0);
    assert_eq!(office.times(0).len(), 1);
    office.send_both("a", vec![], vec![sealed(0, 3, vec![used(&credential(0, 1), 1, 2.0)])]);
    office.run(3.0);
    assert_eq!(office.times(0), [0, 2]);
}

#[test]
fn who_sends_another_user_agent_each_time_does_not_get_the_budget_to_himself() {
    let mut office = Office::new(1);
    for sequence in 1..3_000_u64 {
        let now = office.now;
        let caller = format!("10.{}.{}.1", sequence / 250, sequence % 250);
        office.send("a", vec![sealed(0, sequence, vec![called(&credential(0, 0), 1, now, &caller)])]);
        let next = now + 1.0;
        office.run(next);
    }
    assert!(office.log.len() < 40, "{} in fifty minutes", office.log.len());
}

#[test]
fn refusals_alone_are_never_urgent() {
    let mut office = Office::new(1);
    let refused = CredentialUse {
        outcomes: vec![crate::api::report::OutcomeCount {
            outcome: crate::api::Outcome::WrongSecret.index(),
            count: 1,
        }],
        credential: credential(0, 0),
        ..CredentialUse::default()
    };
    office.send("a", vec![sealed(0, 1, vec![refused])]);
    office.run(4.0);
    assert!(office.log.is_empty());
    office.run(6.0);
    assert_eq!(office.times(0), [5]);
}

#[test]
fn nothing_is_done_when_nothing_is_used() {
    let mut office = Office::new(50);
    for _ in 0..3_600 {
        office.send("a", vec![]);
        let next = office.now + 1.0;
        office.run(next);
    }
    assert!(office.log.is_empty() && office.looks.is_empty());
}

/// Everybody is used all the time: each gate seals the next set when the last one is settled.
fn crowd(office: &mut Office, tokens: usize, until: f64) {
    let mut sequence = vec![0_u64; tokens];
    while office.now < until {
        let now = office.now;
        let open: Vec<_> = (0..tokens)
            .filter(|token| {
                office.desk.tokens.get(uid(*token).as_str()).is_none_or(|entry| entry.sets.is_empty())
            })
            .collect();
        let sets = open.into_iter().map(|token| {
            sequence[token] += 1;
            sealed(token, sequence[token], one(token, now))
        });
        let sets: Vec<_> = sets.collect();
        office.send("a", sets);
        office.run(now + 5.0);
    }
}

#[test]
fn the_budget_holds_for_any_number_of_tokens_and_all_get_their_share() {
    const TOKENS: usize = 1_500;
    let mut office = Office::new(TOKENS);
    crowd(&mut office, TOKENS, 3_600.0);
    // Two writes each: the TokenUsage, and the status that follows.
    for start in [0.0, 600.0, 1_800.0] {
        let within = office.log.iter().filter(|(_, when)| (start..start + 600.0).contains(when)).count();
        assert!(within * 2 <= 10 * 600 + 20, "{within} in ten minutes from {start}");
        assert!(within * 2 >= 10 * 590, "the budget is used: {within}");
    }
    let counts: Vec<_> = (0..TOKENS).map(|token| office.times(token).len()).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 2, "from {least} to {most} times");
    assert!(office.desk.figures().stretch > 1.0);
}

#[test]
fn a_first_use_goes_before_a_crowd_that_waits() {
    const TOKENS: usize = 1_500;
    let mut office = Office::new(TOKENS + 1);
    crowd(&mut office, TOKENS, 1_200.0);
    let now = office.now;
    office.send("b", vec![sealed(TOKENS, 1, one(TOKENS, now))]);
    office.run(now + 5.0);
    let seen = office.log.iter().find(|(token, _)| *token == TOKENS).expect("seen").1;
    assert!(seen - now < 1.0, "{}", seen - now);
}

#[test]
fn what_a_job_really_takes_is_charged() {
    let mut office = Office::paced(100, Pace { writes_per_second: 1, ..Pace::default() });
    office.writes = 2;
    office.send("a", (0..100).map(|token| sealed(token, 1, one(token, 0.0))).collect());
    office.run(100.0);
    // Three writes each: create, status, and the ApiToken's status.
    let done = office.log.len();
    assert!((33..=36).contains(&done), "{done}");
}

#[test]
fn what_is_not_persisted_is_not_settled_and_what_is_is() {
    let mut office = Office::new(2);
    let set = sealed(0, 1, one(0, 0.0));
    assert!(office.send("a", vec![set.clone()]).receipt.settled.is_empty());
    assert!(office.send("a", vec![set.clone()]).receipt.settled.is_empty());
    office.run(1.0);
    let told = office.send("a", vec![]);
    assert_eq!(told.receipt.settled, [Settled { token: uid(0), sequence: 1, refused: String::new() }]);
    // The receipt got lost.
    let again = office.send("a", vec![set]);
    assert_eq!(again.receipt.settled, told.receipt.settled);
    assert_eq!(office.log.len(), 1);
    let back = office.send("a", vec![sealed(0, 2, one(0, 1.0)), sealed(1, 3, one(1, 1.0))]);
    assert!(back.receipt.settled.is_empty());
    office.run(10.0);
    // Also the receipt of one that was persisted together with a later one may get lost.
    let lower = office.send("a", vec![sealed(0, 1, one(0, 1.0))]);
    let ended = lower.receipt.settled.iter().find(|ended| ended.token == uid(0) && ended.sequence == 1);
    assert!(lower.refused.is_empty() && ended.is_some_and(|ended| ended.refused.is_empty()));
}

#[test]
fn a_failure_keeps_everything_and_others_do_not_wait_behind_it() {
    let mut office = Office::new(2);
    office.send("a", vec![sealed(0, 1, one(0, 0.0)), sealed(1, 2, one(1, 0.0))]);
    let Some(Command::Persist(job)) = office.desk.next(&office.world, at(0.0)) else { panic!("nothing") };
    office.desk.done(&job, Outcome::Failed { everywhere: false }, 0, at(0.0));
    office.run(0.9);
    assert_eq!(office.log.len(), 1, "the other one");
    office.run(3.0);
    assert_eq!(office.log.len(), 2, "tried again after a second");
}

#[test]
fn while_nobody_answers_nobody_is_tried() {
    let mut office = Office::new(100);
    office.send("a", (0..100).map(|token| sealed(token, 1, one(token, 0.0))).collect());
    let mut tries = 0;
    for tick in 0..600 {
        let now = at(f64::from(tick) / 10.0);
        while let Some(command) = office.desk.next(&office.world, now) {
            let Command::Persist(job) = command else { panic!("a look") };
            tries += 1;
            office.desk.done(&job, Outcome::Failed { everywhere: true }, 1, now);
        }
    }
    assert!(tries < 10, "{tries} in a minute");
    office.now = 60.0;
    office.run(300.0);
    assert_eq!(office.log.iter().map(|(token, _)| *token).collect::<BTreeSet<_>>().len(), 100);
}

#[test]
fn an_unknown_token_is_waited_for_and_then_refused() {
    let mut office = Office::new(1);
    let strange = || sealed(7, 1, one(7, 0.0));
    assert!(office.send("a", vec![strange()]).receipt.settled.is_empty());
    office.now = 30.0;
    assert!(office.send("a", vec![strange()]).receipt.settled.is_empty());
    office.now = 61.0;
    let answer = office.send("a", vec![strange()]);
    assert_eq!(answer.receipt.settled[0].refused, "UnknownToken");
    assert_eq!(answer.refused, [Refused::UnknownToken]);
    // A watch that only lagged loses nothing.
    let mut office = Office::new(1);
    office.send("a", vec![strange()]);
    office.world = world(8);
    office.now = 1.0;
    office.send("a", vec![strange()]);
    office.run(2.0);
    assert_eq!(office.times(7), [1]);
}

#[test]
fn an_unknown_credential_costs_only_itself() {
    let mut office = Office::new(1);
    let mut all = one(0, 0.0);
    all.push(used(&credential(9, 9), 1, 0.0));
    let set = sealed(0, 1, all);
    office.send("a", vec![set.clone()]);
    office.run(5.0);
    assert!(office.log.is_empty(), "it may be new");
    office.now = 61.0;
    let refused = office.send("a", vec![set.clone()]).refused;
    assert_eq!(refused, [Refused::UnknownCredential]);
    let Some(Command::Persist(job)) = office.desk.next(&office.world, at(61.0)) else { panic!("nothing") };
    assert_eq!(job.sets[0].sealed.credentials.len(), 1);
    office.persist(&job);
    assert_eq!(office.send("a", vec![]).receipt.settled[0].refused, "");
}

#[test]
fn gates_and_what_they_leave_here_are_bounded() {
    let mut office = Office::new(1);
    let mut refusals = 0;
    for gate in 0..100 {
        let report = checked(&office.world, report(&format!("gate-{gate}"), 1, vec![], vec![]), at(0.0));
        refusals += usize::from(office.desk.report(report, at(0.0)).is_err());
    }
    assert_eq!((office.desk.figures().gates, refusals), (64, 37));
    let mut refused = Vec::new();
    for epoch in 1..20 {
        let mut again = report("gate-1", 1, vec![sealed(0, 1, one(0, 0.0))], vec![]);
        again.epoch += epoch;
        refused.extend(office.deliver(again).refused);
    }
    assert_eq!(office.desk.figures().sets, 4);
    assert!(refused.iter().all(|why| *why == Refused::TooMuch) && refused.len() == 15);
}

#[test]
fn a_report_from_the_past_is_refused() {
    let mut office = Office::new(1);
    let mut send = |epoch: u64, sequence: u64| {
        let mut all = report("z", sequence, vec![], vec![]);
        all.epoch += epoch;
        office.desk.report(checked(&office.world, all, at(0.0)), at(0.0)).err()
    };
    assert_eq!(send(5, 3), None);
    assert_eq!(send(5, 3), None);
    assert_eq!(send(5, 2), Some(Refusal::Outdated));
    assert_eq!(send(4, 9), Some(Refusal::Outdated));
    assert_eq!(send(6, 1), None);
}

#[test]
fn a_gate_that_leaves_is_hurried() {
    let mut office = Office::new(1);
    office.send("a", vec![sealed(0, 1, one(0, 0.0))]);
    office.run(1.0);
    office.send("a", vec![sealed(0, 2, one(0, 1.0))]);
    office.run(2.0);
    assert_eq!(office.times(0), [0]);
    let mut bye = report("a", 99, vec![], vec![]);
    bye.leaving = true;
    office.deliver(bye);
    office.run(3.0);
    assert_eq!(office.times(0), [0, 2]);
}

#[test]
fn a_new_leader_knows_a_first_use_from_a_later_one() {
    let mut office = Office::new(3);
    // The second one was used a minute ago, the third one an hour ago.
    show(&mut office.world, 1, at(-60.0).wall.as_second());
    show(&mut office.world, 2, at(-3_600.0).wall.as_second());
    office.send("a", (0..3).map(|token| sealed(token, 1, one(token, 0.0))).collect());
    office.run(20.0);
    assert_eq!([office.times(0), office.times(1), office.times(2)], [vec![0], vec![5], vec![0]]);
}

#[test]
fn a_change_of_what_silence_means_has_every_token_looked_at_once() {
    let mut office = Office::new(200);
    office.run(50.0);
    assert!(office.looks.is_empty());
    // Nobody reports any more. At first a gate may only be cut off; later it is taken for dead.
    office.run(2_000.0);
    let [first] = office.looks[..] else { panic!("{:?}", office.looks) };
    assert!((600.0..=620.0).contains(&first), "{first}");
}

#[test]
fn uses_leave_news_its_share_of_the_budget() {
    const TOKENS: usize = 400;
    let mut office = Office::new(TOKENS);
    office.send("a", (0..TOKENS).map(|token| sealed(token, 1, one(token, 0.0))).collect());
    let (budget, mut told) = (office.desk.budget.clone(), 0);
    for tick in 1..600 {
        office.run(f64::from(tick) / 10.0);
        let now = at(office.now).mono;
        while budget.lock().when(Purse::News, 1, now) <= now {
            budget.lock().charge(Purse::News, 1, now);
            told += 1;
        }
    }
    let uses = office.log.len() * 2;
    assert!(
        (100..=130).contains(&told) && (450..=520).contains(&uses),
        "{uses} writes of uses, {told} of news"
    );
}

#[test]
fn what_is_shown_and_quiet_is_forgotten() {
    let mut office = Office::new(2);
    office.send("a", vec![sealed(0, 1, one(0, 0.0)), sealed(1, 2, one(1, 0.0))]);
    office.run(1.0);
    show(&mut office.world, 0, at(0.0).wall.as_second());
    while office.now < 1_000.0 {
        office.send("a", vec![]);
        let next = office.now + 30.0;
        office.run(next);
    }
    assert_eq!(office.desk.known(&uid(0)), (BTreeMap::new(), None));
    assert!(office.desk.known(&uid(1)).1.is_some(), "not shown yet");
    // An open set of it that can never be sealed here does not keep it.
    let now = office.now;
    office.send_both("a", vec![], vec![sealed(1, 9, one(1, now))]);
    office.world.remove(&uid(1));
    office.now += 100.0;
    office.send("a", vec![]);
    let next = office.now + 1.0;
    office.run(next);
    assert!(office.desk.known(&uid(1)).1.is_none(), "there is no such token any more");
}
