//! Who uses a credential: the busiest callers, in bounded memory.
//!
//! Space-Saving (Metwally et al.): when all places are taken, a new caller takes the place of the one seen least and inherits
//! its count as a possible error. Whoever sent more than a 16th of the requests is among them for certain.

use std::net::IpAddr;

use crate::api::report::{CallerUse, MAX_CALLERS};

/// A caller as a request shows it. Texts are already cut to what is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller<'a> {
    /// The address as the proxies saw it.
    pub address: Option<IpAddr>,
    /// mTLS principal; empty if unknown.
    pub principal: &'a str,
    /// User agent; empty if none.
    pub user_agent: &'a str,
}

/// How much of an address is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// All of it.
    #[default]
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Truncated,
    /// Nothing.
    None,
}

impl Addresses {
    /// What is kept of `address`.
    pub fn keep(self, address: Option<IpAddr>) -> Option<IpAddr> {
        match (self, address?) {
            (Self::Full, address) => Some(address),
            (Self::Truncated, IpAddr::V4(address)) => {
                Some(IpAddr::V4((address.to_bits() & (!0 << 8)).into()))
            }
            (Self::Truncated, IpAddr::V6(address)) => {
                Some(IpAddr::V6((address.to_bits() & (!0 << 80)).into()))
            }
            (Self::None, _) => None,
        }
    }

    /// As it is reported: a network names its length.
    pub fn show(self, address: IpAddr) -> String {
        match (self, address) {
            (Self::Truncated, IpAddr::V4(_)) => format!("{address}/24"),
            (Self::Truncated, IpAddr::V6(_)) => format!("{address}/48"),
            _ => address.to_string(),
        }
    }
}

/// The busiest callers of one credential.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    places: Vec<Place>,
    /// The place of the caller before: mostly it calls again.
    latest: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Place {
    address: Option<IpAddr>,
    principal: Box<str>,
    user_agent: Box<str>,
    count: u64,
    error: u64,
    first: i64,
    last: i64,
}

impl Place {
    fn new(caller: &Caller<'_>, inherited: u64, now: i64) -> Self {
        Self {
            address: caller.address,
            principal: caller.principal.into(),
            user_agent: caller.user_agent.into(),
            count: inherited + 1,
            error: inherited,
            first: now,
            last: now,
        }
    }

    fn is(&self, caller: &Caller<'_>) -> bool {
        self.address == caller.address
            && *self.user_agent == *caller.user_agent
            && *self.principal == *caller.principal
    }

    fn saw(&mut self, now: i64) {
        self.count += 1;
        self.first = self.first.min(now);
        self.last = self.last.max(now);
    }
}

impl Callers {
    /// Counts one request. Allocates only for a caller that has no place yet.
    pub fn count(&mut self, caller: &Caller<'_>, now: i64) {
        if let Some(place) = self.places.get_mut(self.latest).filter(|place| place.is(caller)) {
            return place.saw(now);
        }
        self.latest = match self.places.iter().position(|place| place.is(caller)) {
            Some(at) => {
                self.places[at].saw(now);
                at
            }
            None if self.places.len() < MAX_CALLERS => {
                self.places.push(Place::new(caller, 0, now));
                self.places.len() - 1
            }
            None => {
                let least = self.places.iter().enumerate().min_by_key(|(_, place)| place.count);
                let (at, inherited) = least.map_or((0, 0), |(at, place)| (at, place.count));
                self.places[at] = Place::new(caller, inherited, now);
                at
            }
        };
    }

    /// Adds what another core has counted. What one of the two did not keep, it may have seen as often as its least.
    pub fn merge(&mut self, other: Self) {
        let floor = |callers: &Self| match callers.places.len() {
            MAX_CALLERS => callers.places.iter().map(|place| place.count).min().unwrap_or(0),
            _ => 0,
        };
        let (own_floor, other_floor) = (floor(self), floor(&other));
        let known = self.places.len();
        let mut both = [false; MAX_CALLERS];
        for place in other.places {
            let same = |own: &Place| {
                own.address == place.address
                    && own.principal == place.principal
                    && own.user_agent == place.user_agent
            };
            match self.places[..known].iter().position(same) {
                Some(at) => {
                    let own = &mut self.places[at];
                    own.count += place.count;
                    own.error += place.error;
                    own.first = own.first.min(place.first);
                    own.last = own.last.max(place.last);
                    both[at] = true;
                }
                None => self.places.push(Place {
                    count: place.count + own_floor,
                    error: place.error + own_floor,
                    ..place
                }),
            }
        }
        for (own, both) in self.places[..known].iter_mut().zip(both) {
            if !both {
                own.count += other_floor;
                own.error += other_floor;
            }
        }
        self.places.sort_by_key(|place| std::cmp::Reverse(place.count));
        self.places.truncate(MAX_CALLERS);
        self.latest = 0;
    }

    /// As they are reported.
    pub fn report(self, addresses: Addresses) -> Vec<CallerUse> {
        let report = |place: Place| CallerUse {
            address: place.address.map(|address| addresses.show(address)).unwrap_or_default(),
            principal: place.principal.into(),
            user_agent: place.user_agent.into(),
            count: place.count,
            error: place.error,
            first_seen: place.first,
            last_seen: place.last,
        };
        self.places.into_iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests;
