//! What networks, servers and clocks do to the operator. People's own requests are spared.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::chance::Chance;
use super::oracle::Oracle;
use super::replica::PREFIX;
use crate::testkit::apiserver::{Fault, Faults, RequestInfo, Verb};

/// How bad it is for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// A few requests in a hundred fail, in every way there is.
    Showers,
    /// A third do.
    Storm,
    /// Every write is answered with 409.
    Conflicts,
    /// Every second request is answered with 429 and a `Retry-After`.
    Throttled,
    /// Every answer takes seconds.
    Slow,
    /// Every second write has its effect, and its answer is lost.
    LostAnswers,
    /// Writes arrive long after the client has given up on them.
    Late,
}

impl Weather {
    /// All of it.
    pub const ALL: [Self; 7] = [
        Self::Showers,
        Self::Storm,
        Self::Conflicts,
        Self::Throttled,
        Self::Slow,
        Self::LostAnswers,
        Self::Late,
    ];

    fn strikes(self, request: &RequestInfo, chance: &mut Chance) -> Fault {
        let code = |code| Fault::Status { code, retry_after: None };
        let write = request.verb.is_write();
        match self {
            Self::Showers if chance.percent(4) => anything(request, chance),
            Self::Storm if chance.percent(33) => anything(request, chance),
            Self::Conflicts if write => code(409),
            Self::Throttled if chance.percent(50) => Fault::Status { code: 429, retry_after: Some(1) },
            Self::Slow => Fault::Delay(chance.time(Duration::from_secs(1), Duration::from_secs(8))),
            Self::LostAnswers if write && chance.percent(50) => Fault::FailAfter,
            Self::Late if write && chance.percent(50) => {
                Fault::Late(chance.time(Duration::from_secs(11), Duration::from_secs(90)))
            }
            _ => Fault::None,
        }
    }
}

/// The network between the operator and the server: what the weather spares takes a few milliseconds.
pub struct Network {
    seed: u64,
    weather: Option<Weather>,
    oracle: Oracle,
    state: Mutex<(Chance, BTreeMap<String, u64>)>,
}

impl Network {
    /// A network in this weather; without any, it is sound. The oracle sees what arrives.
    #[must_use]
    pub fn new(seed: u64, weather: Option<Weather>, oracle: Oracle) -> Self {
        Self { seed, weather, oracle, state: Mutex::new((Chance::new(seed, 2), BTreeMap::new())) }
    }

    /// Depends on the object and on how often it was asked about, not on what else is under way: in which order kube's
    /// controller polls reconciles that wake in the same instant is left to chance, and is not to spread from there.
    fn latency(&self, request: &RequestInfo, counts: &mut BTreeMap<String, u64>) -> Duration {
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        let mut key = format!("{} {}", request.resource, name(&request.namespace));
        // The names of events hold the time of the machine.
        if request.resource != "events" {
            key += &name(&request.name);
        }
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        let digest = Sha256::digest(format!("{} {key} {count}", self.seed));
        Duration::from_millis(1 + u64::from(digest[0]) / 8)
    }
}

impl Faults for Network {
    fn decide(&self, request: &RequestInfo) -> Fault {
        if !request.client.starts_with(PREFIX) {
            return Fault::None;
        }
        self.oracle.asked(request);
        let (chance, counts) = &mut *self.state.lock();
        match self.weather.map_or(Fault::None, |weather| weather.strikes(request, chance)) {
            // On the way back: a process that stands still has sent what it has sent.
            Fault::None if request.verb != Verb::Watch => Fault::DelayAfter(self.latency(request, counts)),
            fault => fault,
        }
    }
}

fn anything(request: &RequestInfo, chance: &mut Chance) -> Fault {
    let (short, long) = (Duration::from_millis(10), Duration::from_secs(30));
    if request.verb == Verb::Watch {
        return Fault::DropWatch(chance.time(short, Duration::from_secs(600)));
    }
    match chance.below(9) {
        0 => Fault::Status { code: *chance.pick(&[409, 429, 500, 503, 504]), retry_after: None },
        1 => Fault::FailBefore,
        2 => Fault::FailAfter,
        3 => Fault::Delay(chance.time(short, long)),
        4 => Fault::Late(chance.time(short, long)),
        5 => Fault::DelayAfter(chance.time(short, long)),
        6 => Fault::Hang,
        7 => Fault::HangAfter,
        _ => Fault::Status { code: 500, retry_after: None },
    }
}
