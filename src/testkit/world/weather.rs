//! What networks, servers and clocks do to the operator. People's own requests are spared.

use std::time::Duration;

use parking_lot::Mutex;

use super::chance::Chance;
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

    /// The same, for a server.
    #[must_use]
    pub fn faults(self, seed: u64) -> impl Faults {
        let chance = Mutex::new(Chance::new(seed, 2));
        move |request: &RequestInfo| {
            if request.client.starts_with(PREFIX) { self.strikes(request, &mut chance.lock()) } else { Fault::None }
        }
    }

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
