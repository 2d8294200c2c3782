//! Who uses a credential: the busiest callers, in bounded memory.
//!
//! Space-Saving (Metwally et al.): when all places are taken, a new caller takes the place of the one seen least and inherits
//! its count as a possible error. Whoever sent more than a 16th of the requests is among them for certain.

use std::hash::{BuildHasher as _, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ahash::RandomState;

use crate::api::Outcome;
use crate::api::report::CallerUse;

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

/// A caller as it is kept.
#[derive(Debug, PartialEq)]
pub(super) struct Who {
    address: Option<IpAddr>,
    principal: Box<str>,
    user_agent: Box<str>,
}

impl Caller<'_> {
    /// All that tells callers apart, with as much of the address as is kept.
    pub(super) fn feed(&self, address: Option<IpAddr>, hasher: &mut impl Hasher) {
        let lengths = (self.principal.len() as u64) << 48 | (self.user_agent.len() as u64) << 32;
        match address {
            // Of a text's length, no bit is beyond the tenth.
            Some(IpAddr::V4(address)) => hasher.write_u64(lengths | 1 << 63 | u64::from(address.to_bits())),
            Some(IpAddr::V6(address)) => {
                hasher.write_u64(lengths);
                hasher.write_u128(address.to_bits());
            }
            None => hasher.write_u64(lengths),
        }
        hasher.write(self.principal.as_bytes());
        hasher.write(self.user_agent.as_bytes());
    }

    /// To tell callers apart by. Nobody can foresee it, and so nobody can choose two callers with the same.
    pub(super) fn hash(&self) -> u64 {
        static RANDOM: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = RANDOM.build_hasher();
        self.feed(self.address, &mut hasher);
        hasher.finish()
    }

    pub(super) fn who(&self) -> Arc<Who> {
        Arc::new(Who {
            address: self.address,
            principal: self.principal.into(),
            user_agent: self.user_agent.into(),
        })
    }
}

/// The `MOST` busiest callers of one credential.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers<const MOST: usize> {
    places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq)]
struct Place {
    /// [`Caller::hash`].
    hash: u64,
    outcome: Outcome,
    who: Arc<Who>,
    count: u64,
    error: u64,
    first: i64,
    last: i64,
}

impl<const MOST: usize> Callers<MOST> {
    /// Counts so many requests of the caller with this hash that had this outcome, the last of them at `last`. `who` is asked for one that has no
    /// place yet. Returns whether it had one, and who it is.
    pub(super) fn count(
        &mut self,
        hash: u64,
        outcome: Outcome,
        times: u64,
        last: i64,
        who: impl FnOnce() -> Arc<Who>,
    ) -> (bool, &Arc<Who>) {
        let new = |inherited| Place {
            hash,
            outcome,
            who: who(),
            count: inherited + times,
            error: inherited,
            first: last,
            last,
        };
        let known = self.places.iter().position(|place| place.hash == hash && place.outcome == outcome);
        let at = match known {
            Some(at) => {
                let place = &mut self.places[at];
                place.count += times;
                (place.first, place.last) = (place.first.min(last), place.last.max(last));
                at
            }
            None if self.places.len() < MOST => {
                self.places.push(new(0));
                self.places.len() - 1
            }
            None => {
                let least = self.places.iter().enumerate().min_by_key(|(_, place)| place.count);
                let (at, inherited) = least.map_or((0, 0), |(at, place)| (at, place.count));
                self.places[at] = new(inherited);
                at
            }
        };
        (known.is_some(), &self.places[at].who)
    }

    /// Adds what another core has counted. What one of the two did not keep, it may have seen as often as its least.
    pub(super) fn merge(&mut self, other: Self) {
        let floor = |callers: &Self| match callers.places.len() < MOST {
            true => 0,
            false => callers.places.iter().map(|place| place.count).min().unwrap_or(0),
        };
        let (own_floor, other_floor) = (floor(self), floor(&other));
        let known = self.places.len();
        let mut both = [false; MOST];
        for place in other.places {
            match self.places[..known].iter().position(|own| own.is_of(&place)) {
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
        self.places.truncate(MOST);
    }

    /// As they are reported.
    pub(super) fn report(self, addresses: Addresses) -> Vec<CallerUse> {
        let report = |place: Place| CallerUse {
            address: place.who.address.map(|address| addresses.show(address)).unwrap_or_default(),
            principal: place.who.principal.to_string(),
            user_agent: place.who.user_agent.to_string(),
            count: place.count,
            error: place.error,
            first_seen: place.first,
            last_seen: place.last,
            outcome: place.outcome.index(),
        };
        self.places.into_iter().map(report).collect()
    }
}

impl Place {
    fn is_of(&self, other: &Self) -> bool {
        self.hash == other.hash && self.outcome == other.outcome
    }
}

#[cfg(test)]
mod tests;
