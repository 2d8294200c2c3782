//! A gate, a network that loses and repeats, and ledgers that come and go. However they meet: what was counted is persisted
//! exactly once or still held, what is held is bounded, and a first use waits for nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

const TOKENS: [&str; 3] = ["a", "b", "c"];
const CREDENTIALS: [&str; 3] = ["c1", "c2", "c3"];

#[derive(Debug, Clone)]
enum Action {
    Count(usize, usize, u8),
    Refuse(usize, u8),
    Pass(u64),
    /// A report, and what the network does with it.
    Report(Network),
    /// An old report arrives once more; its receipt, if any, is lost.
    Repeat,
    /// The ledger persists what waits of one token.
    Persist(usize),
    /// Another leader: it knows what was persisted and nothing else.
    NewLeader,
    /// The Lease is free.
    NoLeader,
}

#[derive(Debug, Clone, Copy)]
enum Network {
    Delivers,
    LosesReport,
    LosesReceipt,
}

/// What a ledger does with sealed sets, in the least that the protocol asks for.
#[derive(Default)]
struct Ledger {
    /// By token: the last number that is counted in, and answers.
    persisted: HashMap<String, (u64, u64)>,
    waiting: BTreeMap<(String, u64), u64>,
    /// Credentials whose use it has heard of.
    used: BTreeSet<(String, String)>,
}

impl Ledger {
    fn hear(&mut self, report: &Report) -> Receipt {
        let mut receipt = Receipt::default();
        for set in &report.sealed {
            let (last, _) = self.persisted.get(&set.token).copied().unwrap_or_default();
            if set.sequence <= last {
                let done =
                    Settled { token: set.token.clone(), sequence: set.sequence, refused: String::new() };
                receipt.settled.push(done);
            } else {
                let answers = set.credentials.iter().flat_map(|used| &used.outcomes).map(|o| o.count).sum();
                self.waiting.insert((set.token.clone(), set.sequence), answers);
            }
        }
        for set in report.sealed.iter().chain(&report.open) {
            for used in set.credentials.iter().filter(|used| used.last_used > 0) {
                self.used.insert((set.token.clone(), used.credential.clone()));
            }
        }
        // What was persisted since is settled with whatever report comes next: sets are known by their numbers.
        for (token, (last, _)) in &self.persisted {
            receipt.settled.push(Settled { token: token.clone(), sequence: *last, refused: String::new() });
        }
        receipt
    }

    fn persist(&mut self, token: &str) {
        let waiting = std::mem::take(&mut self.waiting);
        for ((name, sequence), answers) in waiting {
            if name != token {
                self.waiting.insert((name, sequence), answers);
                continue;
            }
            let known = self.persisted.entry(name).or_default();
            if sequence > known.0 {
                *known = (sequence, known.1 + answers);
            }
        }
    }

    fn sum(&self) -> u64 {
        self.persisted.values().map(|(_, answers)| answers).sum()
    }
}

fn action() -> impl Strategy<Value = Action> {
    let network = prop_oneof![
        4 => Just(Network::Delivers),
        1 => Just(Network::LosesReport),
        1 => Just(Network::LosesReceipt)
    ];
    prop_oneof![
        6 => (0..TOKENS.len(), 0..CREDENTIALS.len(), 1..20_u8).prop_map(|(t, c, n)| Action::Count(t, c, n)),
        1 => (0..TOKENS.len(), 1..20_u8).prop_map(|(t, n)| Action::Refuse(t, n)),
        2 => (1..40_u64).prop_map(Action::Pass),
        6 => network.prop_map(Action::Report),
        1 => Just(Action::Repeat),
        3 => (0..TOKENS.len()).prop_map(Action::Persist),
        1 => Just(Action::NewLeader),
        1 => Just(Action::NoLeader),
    ]
}

struct World {
    reporter: Reporter,
    ledger: Ledger,
    now: u64,
    counted: u64,
    linked: bool,
    old: Vec<Report>,
    /// Uses that the present ledger has to hear of with the next report that arrives, or the one after a failure.
    fresh: BTreeSet<(String, String)>,
    /// The last report did not arrive: nothing travels ahead with the next one.
    failing: bool,
}

impl World {
    fn new() -> Self {
        Self {
            reporter: reporter(),
            ledger: Ledger::default(),
            now: 0,
            counted: 0,
            linked: true,
            old: vec![],
            fresh: BTreeSet::new(),
            failing: false,
        }
    }

    fn act(&mut self, action: Action) -> Result<(), TestCaseError> {
        match action {
            Action::Count(token, credential, count) => {
                let (token, credential) = (TOKENS[token], CREDENTIALS[credential]);
                let at = i64::try_from(self.now).unwrap_or(0) + 1;
                self.reporter.count(used(token, credential, u64::from(count), at));
                self.counted += u64::from(count);
                let key = (token.to_owned(), credential.to_owned());
                if !self.ledger.used.contains(&key) {
                    self.fresh.insert(key);
                }
            }
            Action::Refuse(token, count) => {
                self.reporter.count(refused(TOKENS[token], "c9", u64::from(count)));
                self.counted += u64::from(count);
            }
            Action::Pass(seconds) => self.now += seconds,
            Action::Report(network) if self.linked => self.report(network)?,
            Action::Report(_) => prop_assert_eq!(self.reporter.due(), None),
            Action::Repeat => {
                if let Some(report) = self.old.first() {
                    self.ledger.hear(report);
                }
            }
            Action::Persist(token) => self.ledger.persist(TOKENS[token]),
            Action::NewLeader => {
                self.ledger.waiting.clear();
                self.ledger.used.clear();
                (self.linked, self.failing) = (true, false);
                self.reporter.linked(second(self.now));
            }
            Action::NoLeader => {
                self.linked = false;
                self.reporter.unlinked();
            }
        }
        Ok(())
    }

    fn report(&mut self, network: Network) -> Result<(), TestCaseError> {
        if !self.fresh.is_empty() {
            let due = self.reporter.due().expect("linked");
            let pace = second(self.now) + second(16);
            prop_assert!(due <= pace, "a first use waits for the pace or a pause, not for a receipt");
        }
        let report = self.reporter.report(second(self.now), 50);
        self.old.push(report.clone());
        match network {
            Network::Delivers => {
                let receipt = self.ledger.hear(&report);
                self.fresh.retain(|fresh| !self.ledger.used.contains(fresh));
                if !std::mem::take(&mut self.failing) {
                    prop_assert!(self.fresh.is_empty(), "{:?} is not in the very next report", self.fresh);
                }
                self.reporter.receipt(&receipt);
            }
            Network::LosesReport => self.fail(),
            Network::LosesReceipt => {
                self.ledger.hear(&report);
                self.fail();
            }
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.failing = true;
        self.reporter.failed(second(self.now));
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let sums = self.reporter.sums();
        prop_assert_eq!(sums.counted, self.counted);
        prop_assert_eq!(sums.settled + self.reporter.held(), self.counted);
        prop_assert!(self.ledger.sum() <= self.counted, "counted twice");
        prop_assert!(self.reporter.unsettled() <= TOKENS.len());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn everything_is_persisted_once_or_still_held(actions in proptest::collection::vec(action(), 1..120)) {
        let mut world = World::new();
        for action in actions {
            world.act(action)?;
            world.check()?;
        }
        // Good days: everything comes to its end.
        world.act(Action::NewLeader)?;
        for _ in 0..8 {
            // Long enough for a receipt that was lost to be asked for anew.
            world.act(Action::Pass(30))?;
            world.act(Action::Report(Network::Delivers))?;
            for token in 0..TOKENS.len() {
                world.act(Action::Persist(token))?;
            }
        }
        prop_assert_eq!(world.ledger.sum(), world.counted);
        prop_assert_eq!((world.reporter.held(), world.reporter.unsettled()), (0, 0));
    }

    #[test]
    fn whoever_leaves_has_said_everything_once_it_arrives(
        actions in proptest::collection::vec(action(), 1..60),
        late in any::<bool>(),
    ) {
        let mut world = World::new();
        for action in actions {
            world.act(action)?;
        }
        world.reporter.leave(second(world.now));
        if !world.linked || late {
            world.act(Action::NewLeader)?;
        }
        while !world.reporter.is_said() {
            world.act(Action::Report(Network::Delivers))?;
            world.check()?;
        }
        // The gate is gone. The leader has all of it.
        for token in 0..TOKENS.len() {
            world.act(Action::Persist(token))?;
        }
        prop_assert_eq!(world.ledger.sum(), world.counted);
    }

    /// Whatever waits, waits in the right queue: nothing is due that is not there, and nothing there is forgotten.
    #[test]
    fn silence_means_that_everything_was_said(actions in proptest::collection::vec(action(), 1..60)) {
        let mut world = World::new();
        for action in actions {
            world.act(action)?;
        }
        world.act(Action::NewLeader)?;
        let mut last = Report::default();
        for _ in 0..3 {
            last = world.reporter.report(second(world.now), 50);
        }
        prop_assert!(said(&last).is_empty());
        world.now += 20;
        let again = world.reporter.report(second(world.now), 50);
        let held: BTreeSet<_> = again.sealed.iter().map(|set| set.token.clone()).collect();
        prop_assert_eq!(held.len(), world.reporter.unsettled());
    }
}
