//! A seed as a sequence of days: people and weather take turns, then everything calms down and must be in order.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

use super::chance::Chance;
use super::weather::Weather;
use super::{SETTLE, World};
use crate::testkit::apiserver::{Link, When};

/// What kind of story a seed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Thirty days of one replica that does not elect.
    Month,
    /// Three hours of two replicas that do.
    Duel,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Month, Self::Duel];

    /// As it is written in `TOKENWARD_SEED=month:7`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Duel => "duel",
        }
    }

    fn length(self) -> Duration {
        match self {
            Self::Month => Duration::from_secs(30 * 24 * 3600),
            Self::Duel => Duration::from_secs(3 * 3600),
        }
    }

    fn longest_pause(self) -> Duration {
        match self {
            Self::Month => Duration::from_secs(12 * 3600),
            Self::Duel => Duration::from_secs(180),
        }
    }

    fn pods(self) -> &'static [&'static str] {
        match self {
            Self::Month => &["a"],
            Self::Duel => &["a", "b"],
        }
    }
}

/// How a story ended.
pub struct Outcome {
    /// What went wrong, if anything.
    pub result: Result<(), String>,
    /// What happened, a line each.
    pub story: Vec<String>,
    /// Changes that controllers made.
    pub writes: u64,
}

/// Tells the story of one seed. Needs a runtime with paused time.
pub async fn tell(kind: Kind, seed: u64) -> Outcome {
    let mut world = World::new(seed, kind == Kind::Duel);
    let mut teller = Teller { chance: Chance::new(seed, 1), kind, acts: 0, late: false };
    let result = teller.tell(&mut world).await;
    Outcome { result, writes: world.oracle.controller_writes(), story: world.story }
}

struct Teller {
    chance: Chance,
    kind: Kind,
    acts: u64,
    /// The network of this story may deliver writes after their client has given up.
    late: bool,
}

impl Teller {
    async fn tell(&mut self, world: &mut World) -> Result<(), String> {
        self.late = self.chance.percent(50);
        if self.kind == Kind::Duel && !self.late {
            world.oracle.expect_one_leader();
        }
        for pod in self.kind.pods() {
            world.start(pod);
        }
        let end = world.now().saturating_add(self.kind.length()).map_err(|error| error.to_string())?;
        while world.now() < end {
            world.pass(self.chance.time(Duration::ZERO, self.kind.longest_pause())).await;
            match self.chance.below(10) {
                0..=4 => self.people(world).await,
                5 => self.crowd(world).await,
                _ => self.nature(world).await,
            }
            self.revive(world);
            world.check()?;
        }
        self.calm(world).await;
        world.check_converged()?;
        world.check_quiet(Duration::from_secs(3600)).await
    }

    async fn people(&mut self, world: &mut World) {
        self.acts += 1;
        // Request annotations count by their value, so no two may be the same.
        let now = format!(
            "2026-02-{:02}T{:02}:{:02}:00Z",
            1 + self.acts / 1440,
            self.acts / 60 % 24,
            self.acts % 60
        );
        let tokens = world.tokens();
        let line = world.people.act(&mut self.chance, &tokens, &now).await;
        world.tell(line);
        if self.chance.percent(20) {
            let server = world.server.clone();
            world.people.make_way(&tokens, &server).await;
        }
    }

    /// Several things at once, as GitOps tools do them: some fall between the steps of a reconcile.
    async fn crowd(&mut self, world: &mut World) {
        for _ in 0..4 {
            self.people(world).await;
            world.pass(self.chance.time(Duration::ZERO, Duration::from_millis(60))).await;
        }
    }

    async fn nature(&mut self, world: &mut World) {
        let minutes = |from: u64, to: u64| (Duration::from_secs(60 * from), Duration::from_secs(60 * to));
        let pod = *self.chance.pick(self.kind.pods());
        match self.chance.below(12) {
            0..=2 => {
                let all = if self.late { &Weather::ALL[..] } else { &Weather::ALL[2..6] };
                let weather = *self.chance.pick(all);
                world.set_weather(self.chance.below(usize::MAX) as u64, Some(weather));
                // Something must happen while it lasts.
                for _ in 0..3 {
                    self.people(world).await;
                    let (least, most) = minutes(0, 5);
                    world.pass(self.chance.time(least, most)).await;
                }
                world.set_weather(0, None);
            }
            3 => {
                let (least, most) = minutes(1, 40);
                world.tell("the API server goes away");
                world.server.set_down(true);
                world.pass(self.chance.time(least, most)).await;
                world.server.set_down(false);
                world.tell("the API server is back");
            }
            4 => {
                world.tell("history is compacted and every watch dropped");
                world.server.compact();
                world.server.drop_watches();
            }
            5 | 6 => {
                let when = if self.chance.percent(50) { When::Before } else { When::After };
                let n = 1 + self.chance.below(6) as u64;
                world.crash_at_write(pod, n, when);
                self.people(world).await;
            }
            7 => {
                world.kill(pod);
                let (least, most) = minutes(0, 60);
                world.pass(self.chance.time(least, most)).await;
            }
            8 => {
                world.stop(pod).await;
                let (least, most) = minutes(0, 10);
                world.pass(self.chance.time(least, most)).await;
            }
            9 => {
                let Some(client) = world.replica(pod).map(|replica| replica.client.clone()) else { return };
                let link = *self.chance.pick(&[Link::Silent, Link::Refused]);
                world.tell(format!("{client} is cut off ({link:?})"));
                world.server.set_link(&client, link);
                self.people(world).await;
                let (least, most) = minutes(0, 20);
                world.pass(self.chance.time(least, most)).await;
                world.server.set_link(&client, Link::Up);
                world.tell(format!("{client} is back on the network"));
            }
            10 => {
                world.pause(pod, true);
                self.people(world).await;
                let (least, most) = minutes(0, 10);
                world.pass(self.chance.time(least, most)).await;
                world.pause(pod, false);
            }
            _ => {
                let by = SignedDuration::from_mins(*self.chance.pick(&[-60, -7, 5, 60]));
                world.set_clock(pod, by);
                let (least, most) = minutes(0, 180);
                world.pass(self.chance.time(least, most)).await;
                world.set_clock(pod, -by);
            }
        }
    }

    /// Containers that died start again.
    fn revive(&mut self, world: &mut World) {
        world.bury();
        let running = world.running();
        for pod in self.kind.pods().iter().filter(|pod| !running.contains(pod)) {
            world.start(pod);
        }
    }

    async fn calm(&mut self, world: &mut World) {
        world.tell("everything calms down");
        let (tokens, server) = (world.tokens(), world.server.clone());
        world.people.make_way(&tokens, &server).await;
        // A crash that was planned and has not struck yet may strike now.
        for pod in world.running() {
            world.kill(pod);
        }
        self.revive(world);
        world.pass(SETTLE).await;
    }
}
