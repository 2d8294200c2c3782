//! Which ApiTokens wait for a look, and whose turn it is. A queue is told what happens and what time it is; it does no IO.
//!
//! It holds by construction that looks cannot feed themselves:
//!
//! - A token waits once, however much happens to it, and one look at a time is under way at it. So nothing here can
//!   overflow, and nothing that is said is ever answered with "look at all".
//! - A sweep over all tokens is a list that only gets shorter. Calls for another one meanwhile make one more, after it.
//! - A look makes no other look, but for the time that it names itself.
//!
//! What happened to one token goes first; then what is due, those that have news to tell while that is affordable, and the
//! sweep, in turns. Every [`SHARE`]th turn belongs to those that wait behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::kept::Kept;
use crate::platform::budget::Purse;

/// So many turns of those that go first, then one of those behind.
const SHARE: u32 = 8;
/// Looks that came too early and have been paid for.
const MAX_KEPT: usize = 16;
/// Namespaces that may wait to be swept; beyond that all are.
const MAX_NAMESPACES: usize = 64;

/// Namespace and name of an ApiToken.
pub type Name = Arc<(Box<str>, Box<str>)>;

/// The name of a token.
pub fn name(namespace: &str, name: &str) -> Name {
    Arc::new((namespace.into(), name.into()))
}

/// Why a token waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Something happened to it.
    Asked,
    /// The time has come that a look named.
    Due,
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whom to look at.
    pub token: Name,
    /// Who has paid for telling news of it, if anybody.
    pub paid: Option<Purse>,
    /// It is to be paid for now.
    pub is_charged: bool,
}

/// Who waits behind, in turns.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Due,
    Line,
    Sweep,
}

/// What is known of a token that waits, is being looked at, or has a time.
#[derive(Debug, Default)]
struct Entry {
    waits: Option<(Lane, u64)>,
    runs: bool,
    /// Something happened during the look.
    again: bool,
    timer: Option<Instant>,
    /// Where it stands in the line of those that have news to tell.
    line: Option<u64>,
    /// Who has paid for its next look already.
    paid: Option<Purse>,
    /// That look was made before, too early.
    kept: bool,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.waits.is_none() && !self.runs && self.timer.is_none() && self.line.is_none()
    }
}

/// What a sweep is to cover.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Namespaces(BTreeSet<String>),
    All,
}

/// The queue of one scope.
#[derive(Debug)]
pub struct Queue {
    entries: HashMap<Name, Entry>,
    asked: BTreeMap<u64, Name>,
    due: BTreeMap<u64, Name>,
    /// Those that have news to tell, which waits for the budget.
    line: BTreeMap<u64, Name>,
    timers: BTreeSet<(Instant, Name)>,
    /// The rest of the sweep that is under way.
    sweep: Vec<Arc<Kept>>,
    wanted: Option<Wanted>,
    arrivals: u64,
    /// Tokens whose payment is kept.
    kept: usize,
    /// Turns in a row of those that go first.
    turns: u32,
    behind: [Behind; 3],
}

impl Default for Queue {
    /// Every token wants a look.
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            asked: BTreeMap::new(),
            due: BTreeMap::new(),
            line: BTreeMap::new(),
            timers: BTreeSet::new(),
            sweep: Vec::new(),
            wanted: Some(Wanted::All),
            arrivals: 0,
            kept: 0,
            turns: 0,
            behind: [Behind::Due, Behind::Line, Behind::Sweep],
        }
    }
}

impl Queue {
    /// Something happened to this token.
    pub fn ask(&mut self, token: Name) {
        self.enter(token, Lane::Asked);
    }

    /// The ledger has persisted uses of this token, and set a write aside for showing them. False if one was set aside before:
    /// then this one is not needed.
    pub fn ask_reserved(&mut self, token: Name) -> bool {
        let paid = &mut self.entries.entry(token.clone()).or_default().paid;
        let is_first = paid.is_none();
        paid.get_or_insert(Purse::Uses);
        self.enter(token, Lane::Asked);
        is_first
    }

    /// This token, which is being looked at, could not use what was paid: its next look may. Returns what is to be given back.
    /// Few are kept: while the watch is silent the budget refills, and they would all write at once when it speaks.
    pub fn keep(&mut self, token: &Name, purse: Purse) -> Option<Purse> {
        match self.entries.get_mut(token) {
            Some(entry) if entry.paid.is_none() && self.kept < MAX_KEPT => {
                (entry.paid, entry.kept) = (Some(purse), true);
                self.kept += 1;
                None
            }
            _ => Some(purse),
        }
    }

    /// What was paid for looks that are not made.
    pub fn unused(&self) -> impl Iterator<Item = Purse> {
        self.entries.values().filter_map(|entry| entry.paid)
    }

    /// This token, which is being looked at, has news to tell.
    pub fn line_up(&mut self, token: &Name) {
        let Some(entry) = self.entries.get_mut(token).filter(|entry| entry.line.is_none()) else { return };
        self.arrivals += 1;
        entry.line = Some(self.arrivals);
        self.line.insert(self.arrivals, token.clone());
    }

    /// Something happened that may concern every token.
    pub fn sweep(&mut self) {
        self.wanted = Some(Wanted::All);
    }

    /// Something happened that may concern every token of this namespace.
    pub fn sweep_namespace(&mut self, namespace: &str) {
        match &mut self.wanted {
            Some(Wanted::All) => {}
            Some(Wanted::Namespaces(names)) if names.len() >= MAX_NAMESPACES => self.sweep(),
            Some(Wanted::Namespaces(names)) => drop(names.insert(namespace.to_owned())),
            None => self.wanted = Some(Wanted::Namespaces([namespace.to_owned()].into())),
        }
    }

    /// The token to look at now; say [`Queue::done`] after that. `store` is asked for all tokens when a sweep begins;
    /// `affordable`: the budget has room for one more to tell its news.
    pub fn next(
        &mut self,
        now: Instant,
        affordable: bool,
        store: impl Fn() -> Vec<Arc<Kept>>,
    ) -> Option<Turn> {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, token)) = self.timers.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&token) {
                entry.timer = None;
            }
            self.enter(token, Lane::Due);
        }
        let mut behind = self.turns >= SHARE;
        for _ in 0..2 {
            let turn = if behind {
                self.turns = 0;
                self.take_behind(affordable, &store)
            } else {
                self.asked.pop_first().map(|(_, token)| (token, None))
            };
            if let Some((token, paid)) = turn {
                self.turns += u32::from(!behind);
                let before = self.start(&token);
                let is_charged = before.is_none() && paid.is_some();
                return Some(Turn { paid: before.or(paid), is_charged, token });
            }
            behind = !behind;
        }
        None
    }

    fn take_behind(
        &mut self,
        affordable: bool,
        store: &impl Fn() -> Vec<Arc<Kept>>,
    ) -> Option<(Name, Option<Purse>)> {
        for _ in 0..self.behind.len() {
            let whose = self.behind[0];
            self.behind.rotate_left(1);
            let turn = match whose {
                Behind::Due => self.due.pop_first().map(|(_, token)| (token, None)),
                Behind::Line if affordable => self.first_in_line().map(|token| (token, Some(Purse::News))),
                Behind::Line => None,
                Behind::Sweep => self.swept(store).map(|token| (token, None)),
            };
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// The first in line that is not being looked at just now.
    fn first_in_line(&mut self) -> Option<Name> {
        let entries = &self.entries;
        let runs = |token: &Name| entries.get(token).is_some_and(|entry| entry.runs);
        let place = self.line.iter().find(|(_, token)| !runs(token)).map(|(place, _)| *place)?;
        let token = self.line.remove(&place)?;
        if let Some(entry) = self.entries.get_mut(&token) {
            entry.line = None;
            // It has its look with this.
            match entry.waits.take() {
                Some((Lane::Asked, place)) => drop(self.asked.remove(&place)),
                Some((Lane::Due, place)) => drop(self.due.remove(&place)),
                None => {}
            }
        }
        Some(token)
    }

    /// The look at `token` has ended. Without anything happening before, it wants the next one at `next`.
    pub fn done(&mut self, token: &Name, next: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        entry.runs = false;
        entry.timer = next;
        if let Some(at) = next {
            self.timers.insert((at, token.clone()));
        }
        if std::mem::take(&mut entry.again) {
            self.enter(token.clone(), Lane::Asked);
        } else if entry.is_idle() {
            self.entries.remove(token);
        }
    }

    /// When [`Queue::next`] has something to say, if nothing happens before.
    pub fn wake(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Tokens whose news waits for the budget.
    pub fn in_line(&self) -> usize {
        self.line.len()
    }

    /// Whether one of them could be looked at now, had it paid.
    pub fn has_idle_in_line(&self) -> bool {
        self.line.values().any(|token| self.entries.get(token).is_none_or(|entry| !entry.runs))
    }

    /// Tokens that wait for a look.
    pub fn depth(&self) -> usize {
        self.asked.len() + self.due.len() + self.sweep.len()
    }

    fn enter(&mut self, token: Name, lane: Lane) {
        let entry = self.entries.entry(token.clone()).or_default();
        if entry.runs {
            entry.again = true;
            return;
        }
        match (entry.waits, lane) {
            (Some((Lane::Due, place)), Lane::Asked) => drop(self.due.remove(&place)),
            (Some(_), _) => return,
            (None, _) => {}
        }
        self.arrivals += 1;
        entry.waits = Some((lane, self.arrivals));
        let queue = match lane {
            Lane::Asked => &mut self.asked,
            Lane::Due => &mut self.due,
        };
        queue.insert(self.arrivals, token);
    }

    /// The next of the sweep, or of another one that is wanted.
    fn swept(&mut self, store: impl Fn() -> Vec<Arc<Kept>>) -> Option<Name> {
        if self.sweep.is_empty()
            && let Some(wanted) = self.wanted.take()
        {
            self.sweep = store();
            if let Wanted::Namespaces(names) = wanted {
                self.sweep.retain(|token| names.contains(token.namespace()));
            }
        }
        while let Some(token) = self.sweep.pop() {
            let token = name(token.namespace(), token.name());
            match self.entries.get_mut(&token) {
                Some(entry) if entry.runs => entry.again = true,
                Some(entry) if entry.waits.is_some() => {}
                _ => return Some(token),
            }
        }
        // Gives the memory back.
        self.sweep = Vec::new();
        None
    }

    fn start(&mut self, token: &Name) -> Option<Purse> {
        let entry = self.entries.entry(token.clone()).or_default();
        entry.runs = true;
        entry.waits = None;
        if let Some(at) = entry.timer.take() {
            self.timers.remove(&(at, token.clone()));
        }
        self.kept -= usize::from(std::mem::take(&mut entry.kept));
        entry.paid.take()
    }
}

#[cfg(test)]
mod tests;
