//! What repeats: the same caller uses the same credential for the same once more. Nearly all requests of a busy gate do, so
//! that is counted without a lock, in a cell that only one thread writes: a look at one cache line, and one store.
//!
//! A cell's count only grows. Its [`Holder`], behind the lock of the lane, remembers how much of it was taken away already;
//! so a drain takes the difference while the thread goes on counting, and nothing is lost or counted twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::callers::Who;
use super::record::Record;
use crate::domain::token::CredentialId;

/// A power of two. With four cells each, 65,536 uses that repeat have room, in a megabyte for each thread that answers.
const SETS: usize = 1 << 14;
/// Cells of a set.
const WAYS: usize = 4;

/// The cells of one thread.
#[derive(Debug)]
pub(super) struct Repeats {
    sets: Box<[Set]>,
}

/// A cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Cell; WAYS]);

#[derive(Debug, Default)]
struct Cell {
    /// Whose use of what for what this counts; 0 is a free cell.
    key: AtomicU64,
    /// How often, and in the lower half when last, in Unix seconds.
    seen: AtomicU64,
}

/// The cells in which a use may be counted, and their keys. Looked up before the verdict is known: what comes from far away
/// is there when it is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    set: usize,
    keys: [u64; WAYS],
}

/// What a cell counts.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) record: Record,
    pub(super) id: CredentialId,
    /// The caller, and its hash.
    pub(super) caller: (u64, Arc<Who>),
    pub(super) scopes: SmallVec<[Arc<str>; 2]>,
}

/// The holders of the cells that are taken, in the order in which they were taken.
#[derive(Debug, Default)]
pub(super) struct Holders {
    all: Vec<Held>,
    /// Where the holder of a cell stands.
    by_cell: HashMap<(usize, usize), usize>,
}

#[derive(Debug)]
struct Held {
    holder: Holder,
    cell: (usize, usize),
    /// How much of the cell's count was taken away already.
    settled: u32,
}

/// How often a cell was counted, and when last.
#[derive(Clone, Copy)]
struct Seen {
    count: u32,
    last: u32,
}

impl Cell {
    fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    fn seen(&self) -> Seen {
        let seen = self.seen.load(Ordering::Relaxed);
        Seen { count: (seen >> 32) as u32, last: seen as u32 }
    }

    fn store(&self, seen: Seen) {
        self.seen.store(u64::from(seen.count) << 32 | u64::from(seen.last), Ordering::Relaxed);
    }
}

/// Good until the year 2106.
fn seconds(now: i64) -> u32 {
    now.clamp(0, i64::from(u32::MAX)) as u32
}

impl Default for Repeats {
    fn default() -> Self {
        Self { sets: (0..SETS).map(|_| Set::default()).collect() }
    }
}

/// The methods that take a [`Spot`] are for the thread that the cells belong to, and for no other.
impl Repeats {
    /// Where a use with this hash may be counted.
    pub(super) fn spot(&self, hash: u64) -> Spot {
        let set = (hash >> 32) as usize & (self.sets.len() - 1);
        Spot { set, keys: self.sets[set].0.each_ref().map(Cell::key) }
    }

    /// Counts one more of the use with this key, which is never 0, if it has a cell.
    pub(super) fn again(&self, spot: &Spot, key: u64, now: i64) -> bool {
        let Some(at) = spot.keys.iter().position(|known| *known == key) else { return false };
        let cell = &self.sets[spot.set].0[at];
        let Some(count) = cell.seen().count.checked_add(1) else { return false };
        cell.store(Seen { count, last: seconds(now) });
        true
    }

    /// Gives a use a cell: its own, a free one, or that of one that was not seen since `now`. What the cell has counted is
    /// settled with `take`.
    pub(super) fn admit(
        &self,
        holders: &mut Holders,
        spot: &Spot,
        key: u64,
        now: i64,
        holder: Holder,
        take: impl FnMut(&Holder, u64, i64),
    ) {
        let cells = &self.sets[spot.set].0;
        let find = |key: u64| cells.iter().position(|cell| cell.key() == key);
        let at = find(key).or_else(|| find(0)).or_else(|| {
            let oldest = cells.iter().enumerate().min_by_key(|(_, cell)| cell.seen().last);
            // Uses that are all seen again and again do not take turns in one cell: that would cost more than it saves.
            oldest.filter(|(_, cell)| cell.seen().last < seconds(now)).map(|(at, _)| at)
        });
        let Some(at) = at else { return };
        let (place, cell) = ((spot.set, at), &cells[at]);
        match holders.by_cell.get(&place).and_then(|known| holders.all.get_mut(*known)) {
            Some(held) => {
                held.settle(cell, take);
                (held.holder, held.settled) = (holder, 0);
            }
            None => {
                holders.by_cell.insert(place, holders.all.len());
                holders.all.push(Held { holder, cell: place, settled: 0 });
            }
        }
        cell.store(Seen { count: 0, last: seconds(now) });
        cell.key.store(key, Ordering::Relaxed);
    }

    /// Settles `count` holders from `begin` on with `take`, which is told how often and when last. Returns whether there are
    /// more.
    pub(super) fn settle(
        &self,
        holders: &mut Holders,
        begin: usize,
        count: usize,
        mut take: impl FnMut(&Holder, u64, i64),
    ) -> bool {
        for held in holders.all.iter_mut().skip(begin).take(count) {
            let (set, at) = held.cell;
            held.settle(&self.sets[set].0[at], &mut take);
        }
        begin + count < holders.all.len()
    }
}

impl Held {
    fn settle(&mut self, cell: &Cell, mut take: impl FnMut(&Holder, u64, i64)) {
        let Seen { count, last } = cell.seen();
        if count > self.settled {
            take(&self.holder, u64::from(count - self.settled), i64::from(last));
            self.settled = count;
        }
    }
}

#[cfg(test)]
mod tests;
