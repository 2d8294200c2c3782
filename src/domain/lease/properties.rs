//! Several candidates, one API server, and everything that may go wrong between them.
//!
//! Real time exists only here. Each candidate reads it through a clock of its own, with its own offset and its own
//! speed (up to 10 % off), and a wall clock that jumps. Requests may be lost, delayed for any time, or answered late;
//! candidates may stop for any time. Whatever happens, no two of them may hold a deadline that lies ahead.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    Pass(u64),
    /// The next step of one candidate.
    Run(usize, Fate),
    /// A request of that candidate that was thought lost reaches the server after all.
    Arrive(usize),
    /// The answer on its way reaches the candidate.
    Answer(usize),
    Release(usize),
    EditMetadata,
    WallJump(usize, i64),
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Prompt,
    LateAnswer,
    LostAnswer,
    LostRequest,
    LateRequest,
}

struct Candidate {
    election: Election,
    offset: f64,
    speed: f64,
    wall_offset: i64,
    command: Command,
    in_flight: Vec<Command>,
    answer: Option<Event>,
}

#[derive(Default)]
struct Server {
    lease: Option<Seen>,
    version: u64,
}

impl Server {
    fn store(&mut self, record: Record) -> Event {
        self.version += 1;
        let seen = Seen { version: self.version.to_string(), record };
        self.lease = Some(seen.clone());
        Event::Written(seen)
    }

    fn apply(&mut self, command: &Command) -> Event {
        match (command, &self.lease) {
            (Command::Fetch, lease) => Event::Fetched(lease.clone()),
            (Command::Create(record), None) => self.store(record.clone()),
            (Command::Replace { version, record }, Some(lease)) if lease.version == *version => {
                self.store(record.clone())
            }
            _ => Event::Conflict,
        }
    }
}

struct World {
    real: Duration,
    server: Server,
    candidates: Vec<Candidate>,
}

impl World {
    fn new(clocks: &[(u32, u32)]) -> Self {
        let candidates = clocks.iter().enumerate().map(|(index, (offset, speed))| {
            let second = Duration::from_secs(1);
            let config = Config::new(format!("c{index}"), second * 15, second * 10, second).expect("valid");
            Candidate {
                election: Election::new(config),
                offset: f64::from(*offset),
                speed: f64::from(*speed) / 100.0,
                wall_offset: 0,
                command: Command::Wait(Duration::ZERO),
                in_flight: Vec::new(),
                answer: None,
            }
        });
        Self { real: Duration::ZERO, server: Server::default(), candidates: candidates.collect() }
    }

    fn now(&self, who: usize) -> Moment {
        let candidate = &self.candidates[who];
        let mono = Duration::from_secs_f64(candidate.offset + self.real.as_secs_f64() * candidate.speed);
        let wall = i64::try_from(self.real.as_millis()).expect("short") + candidate.wall_offset;
        Moment { mono, wall: Timestamp::from_millisecond(1_000_000_000_000 + wall).expect("in range") }
    }

    fn feed(&mut self, who: usize, event: Event) {
        let now = self.now(who);
        let candidate = &mut self.candidates[who];
        candidate.command = candidate.election.step(now, event);
    }

    fn run(&mut self, who: usize, fate: Fate) {
        let mono = self.now(who).mono;
        let command = self.candidates[who].command.clone();
        if self.candidates[who].answer.is_some() {
            return;
        }
        match (&command, fate) {
            (Command::Done, _) => {}
            (Command::Wait(until), _) if mono < *until => {}
            (Command::Wait(_), _) => self.feed(who, Event::Tick),
            (_, Fate::Prompt) => {
                let event = self.server.apply(&command);
                self.feed(who, event);
            }
            (_, Fate::LateAnswer) => self.candidates[who].answer = Some(self.server.apply(&command)),
            (_, Fate::LostAnswer) => {
                self.server.apply(&command);
                self.feed(who, Event::Failed);
            }
            (_, Fate::LostRequest) => self.feed(who, Event::Failed),
            (_, Fate::LateRequest) => {
                self.candidates[who].in_flight.push(command);
                self.feed(who, Event::Failed);
            }
        }
    }

    fn act(&mut self, action: &Action) {
        let count = self.candidates.len();
        match *action {
            Action::Pass(millis) => self.real += Duration::from_millis(millis),
            Action::Run(who, fate) => self.run(who % count, fate),
            Action::Arrive(who) => {
                if let Some(command) = self.candidates[who % count].in_flight.pop() {
                    self.server.apply(&command);
                }
            }
            Action::Answer(who) => {
                if let Some(event) = self.candidates[who % count].answer.take() {
                    self.feed(who % count, event);
                }
            }
            Action::Release(who) => {
                // As the loop does it: an answer still on its way is no longer waited for.
                self.candidates[who % count].answer = None;
                self.feed(who % count, Event::Release);
            }
            Action::EditMetadata => {
                self.server.version += 1;
                let version = self.server.version.to_string();
                if let Some(lease) = &mut self.server.lease {
                    lease.version = version;
                }
            }
            Action::WallJump(who, seconds) => self.candidates[who % count].wall_offset = seconds * 1000,
        }
    }

    fn leaders(&self) -> Vec<usize> {
        (0..self.candidates.len())
            .filter(|who| self.candidates[*who].election.leads(self.now(*who).mono))
            .collect()
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Prompt),
        1 => Just(Fate::LateAnswer),
        1 => Just(Fate::LostAnswer),
        1 => Just(Fate::LostRequest),
        1 => Just(Fate::LateRequest),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..2_500_u64).prop_map(Action::Pass),
        2 => (8_000..16_500_u64).prop_map(Action::Pass),
        18 => (0..3_usize, fate()).prop_map(|(who, fate)| Action::Run(who, fate)),
        1 => (0..3_usize).prop_map(Action::Arrive),
        3 => (0..3_usize).prop_map(Action::Answer),
        1 => (0..12_usize).prop_map(|who| if who < 3 { Action::Release(who) } else { Action::EditMetadata }),
        1 => (0..3_usize, -3600..3600_i64).prop_map(|(who, seconds)| Action::WallJump(who, seconds)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn never_two_leaders(
        clocks in proptest::collection::vec((0..100_000_u32, 90..=110_u32), 2..=3),
        actions in proptest::collection::vec(action(), 1..200),
    ) {
        let mut world = World::new(&clocks);
        for (index, action) in actions.iter().enumerate() {
            world.act(action);
            let leaders = world.leaders();
            prop_assert!(leaders.len() <= 1, "{leaders:?} lead after action {index}, {action:?}, at {:?}", world.real);
        }
    }

    #[test]
    fn somebody_leads_once_the_trouble_is_over(
        clocks in proptest::collection::vec((0..100_000_u32, 90..=110_u32), 2..=3),
        actions in proptest::collection::vec(action(), 1..60),
        dead in 0..3_usize,
    ) {
        let mut world = World::new(&clocks);
        for action in actions.iter().filter(|action| !matches!(action, Action::Release(_))) {
            world.act(action);
        }
        // One of them never runs again; the others have a working server from here on.
        let dead = dead % clocks.len();
        for _ in 0..400 {
            world.act(&Action::Pass(100));
            for who in (0..clocks.len()).filter(|who| *who != dead) {
                world.act(&Action::Answer(who));
                world.run(who, Fate::Prompt);
            }
        }
        let leaders = world.leaders();
        prop_assert!(leaders.len() == 1 && leaders[0] != dead, "{leaders:?}, dead is {dead}");
    }
}

/// The world above is only worth something if it meets leaders, hand-overs and takeovers at all.
#[test]
fn the_random_worlds_are_not_idle() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut terms, mut changes) = (0, 0);
    for _ in 0..100 {
        let strategy = proptest::collection::vec(action(), 200);
        let actions = strategy.new_tree(&mut runner).expect("a tree").current();
        let mut world = World::new(&[(0, 100), (5_000, 95), (900, 105)]);
        let mut last = None;
        for action in &actions {
            world.act(action);
            if let Some(leader) = world.leaders().first() {
                changes += i32::from(last.is_some_and(|last| last != *leader));
                last = Some(*leader);
            }
        }
        terms += world.candidates.iter().map(|candidate| candidate.election.term()).sum::<u64>();
    }
    assert!(terms > 200 && changes > 50, "{terms} terms, {changes} changes of leader");
}
