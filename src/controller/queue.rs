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
    /// The ledger has set a write aside for it.
    reserved: bool,
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

    /// The ledger has persisted uses of this token, and set a write aside for showing them.
    pub fn ask_reserved(&mut self, token: Name) {
        self.entries.entry(token.clone()).or_default().reserved = true;
        self.enter(token, Lane::Asked);
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
                let reserved = self.start(&token);
                return Some(Turn { paid: reserved.or(paid), token });
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
        std::mem::take(&mut entry.reserved).then_some(Purse::Uses)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::api::ObjectMeta;
    use proptest::prelude::*;

    use super::*;

    fn kept(number: usize) -> Arc<Kept> {
        let metadata = ObjectMeta {
            namespace: Some(format!("n{}", number % 3)),
            name: Some(format!("t{number}")),
            ..ObjectMeta::default()
        };
        Arc::new(Kept::gone(&metadata))
    }

    fn called(number: usize) -> Name {
        name(&format!("n{}", number % 3), &format!("t{number}"))
    }

    fn store(tokens: usize) -> impl Fn() -> Vec<Arc<Kept>> {
        move || (0..tokens).map(kept).collect()
    }

    /// Whose turn it is while nobody can afford news.
    fn looked(queue: &mut Queue, now: Instant, store: impl Fn() -> Vec<Arc<Kept>>) -> Option<Name> {
        queue.next(now, false, store).map(|turn| turn.token)
    }

    /// A queue whose first sweep is over.
    fn swept(tokens: usize, now: Instant) -> Queue {
        let mut queue = Queue::default();
        while let Some(token) = looked(&mut queue, now, store(tokens)) {
            queue.done(&token, None);
        }
        queue
    }

    #[test]
    fn a_new_queue_looks_at_every_token_once() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut seen = BTreeSet::new();
        while let Some(token) = looked(&mut queue, now, store(50)) {
            assert!(seen.insert(token.clone()), "twice");
            queue.done(&token, None);
        }
        assert_eq!((seen.len(), queue.depth(), queue.entries.len()), (50, 0, 0));
    }

    #[test]
    fn what_happened_goes_ahead_of_a_sweep_which_still_gets_its_share() {
        let now = Instant::now();
        let mut queue = swept(0, now);
        queue.sweep();
        let mut order = Vec::new();
        for turn in 0..40 {
            // Something happens all the time.
            queue.ask(name("other", &format!("o{turn}")));
            let token = looked(&mut queue, now, store(100)).expect("one waits");
            order.push(&*token.0 == "other");
            queue.done(&token, None);
        }
        assert!(order[0]);
        assert_eq!(order.iter().filter(|asked| !**asked).count(), 4, "every ninth turn: {order:?}");
    }

    #[test]
    fn calls_for_a_sweep_during_a_sweep_make_one_more() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut looks = 0;
        while let Some(token) = looked(&mut queue, now, store(100)) {
            looks += 1;
            if looks <= 100 {
                for _ in 0..5_000 {
                    queue.sweep();
                    queue.sweep_namespace("n1");
                }
            }
            queue.done(&token, None);
        }
        assert_eq!(looks, 200);
        queue.sweep_namespace("n1");
        let mut looks = 0;
        while let Some(token) = looked(&mut queue, now, store(100)) {
            assert_eq!(&*token.0, "n1");
            looks += 1;
            queue.done(&token, None);
        }
        assert_eq!(looks, 33);
        (0..1_000).for_each(|number| queue.sweep_namespace(&format!("m{number}")));
        assert_eq!(queue.wanted, Some(Wanted::All), "as many namespaces as there may be");
    }

    #[test]
    fn what_happens_during_a_look_calls_for_one_more() {
        let now = Instant::now();
        let mut queue = swept(1, now);
        queue.ask(called(0));
        let token = looked(&mut queue, now, store(1)).expect("it waits");
        for _ in 0..10 {
            queue.ask(called(0));
        }
        assert_eq!(looked(&mut queue, now, store(1)), None, "one look at a time");
        queue.done(&token, None);
        assert_eq!(looked(&mut queue, now, store(1)), Some(called(0)));
        queue.done(&token, None);
        assert_eq!(looked(&mut queue, now, store(1)), None);
    }

    #[test]
    fn a_time_that_a_look_names_is_kept_and_a_later_look_replaces_it() {
        let now = Instant::now();
        let mut queue = swept(1, now);
        let at = |second| now + Duration::from_secs(second);
        queue.ask(called(0));
        let token = looked(&mut queue, now, store(1)).expect("it waits");
        queue.done(&token, Some(at(10)));
        assert_eq!((queue.wake(), looked(&mut queue, at(9), store(1))), (Some(at(10)), None));
        queue.ask(called(0));
        looked(&mut queue, at(9), store(1)).expect("asked");
        queue.done(&token, Some(at(20)));
        assert_eq!((looked(&mut queue, at(10), store(1)), queue.wake()), (None, Some(at(20))));
        assert_eq!(looked(&mut queue, at(20), store(1)), Some(called(0)));
        queue.done(&token, None);
        assert!(queue.entries.is_empty() && queue.timers.is_empty());
    }

    #[test]
    fn news_waits_for_the_budget_once_and_what_happens_does_not_wait_for_news() {
        let now = Instant::now();
        let mut queue = Queue::default();
        while let Some(turn) = queue.next(now, false, store(100)) {
            assert_eq!(turn.paid, None);
            queue.line_up(&turn.token);
            queue.line_up(&turn.token);
            queue.done(&turn.token, None);
        }
        assert_eq!((queue.in_line(), queue.depth(), queue.wake()), (100, 0, None));
        queue.ask(called(7));
        assert_eq!(looked(&mut queue, now, store(100)), Some(called(7)), "it keeps its place in line");
        let first = queue.next(now, true, store(100)).expect("the first in line");
        assert_eq!(first.paid, Some(Purse::News));
        queue.done(&called(7), None);
        queue.done(&first.token, None);
        let mut told = vec![first.token];
        while let Some(turn) = queue.next(now, true, store(100)) {
            assert_eq!(turn.paid, Some(Purse::News));
            queue.done(&turn.token, None);
            told.push(turn.token);
        }
        let each: BTreeSet<_> = told.iter().collect();
        assert_eq!((told.len(), each.len(), queue.in_line(), queue.entries.len()), (100, 100, 0, 0));
    }

    #[test]
    fn a_write_that_the_ledger_set_aside_is_for_the_next_look() {
        let now = Instant::now();
        let mut queue = swept(1, now);
        queue.ask(called(0));
        let token = looked(&mut queue, now, store(1)).expect("it waits");
        queue.ask_reserved(called(0));
        queue.done(&token, None);
        let turn = queue.next(now, false, store(1)).expect("once more");
        assert_eq!(turn.paid, Some(Purse::Uses));
        queue.done(&token, None);
        assert!(queue.entries.is_empty());
    }

    proptest! {
        /// Whatever happens: nobody waits twice, nobody is forgotten, and there are no more looks than reasons for one.
        #[test]
        fn looks_are_bounded_by_what_happens(acts in proptest::collection::vec((0_u8..8, 0_usize..12), 1..300)) {
            const TOKENS: usize = 12;
            let mut now = Instant::now();
            let mut queue = Queue::default();
            let mut running: Vec<Name> = Vec::new();
            // Reasons: one for each token in a sweep, one for what happens to one, one for each time that a look named.
            let (mut looks, mut reasons) = (0, TOKENS);
            for (act, number) in acts {
                match act {
                    0 => { queue.ask(called(number)); reasons += 1; }
                    1 => { queue.sweep(); reasons += TOKENS; }
                    2 => { queue.sweep_namespace(&format!("n{}", number % 3)); reasons += TOKENS; }
                    3 => now += Duration::from_secs(1),
                    5 => if let Some(token) = running.first() { queue.line_up(token); reasons += 1; },
                    6 => { queue.ask_reserved(called(number)); reasons += 1; }
                    4 => if !running.is_empty() {
                        let token = running.swap_remove(number % running.len());
                        let next = (number % 2 == 0).then(|| now + Duration::from_secs(2));
                        reasons += usize::from(next.is_some());
                        queue.done(&token, next);
                    },
                    _ => if let Some(Turn { token, .. }) = queue.next(now, number % 3 == 0, store(TOKENS)) {
                        prop_assert!(!running.contains(&token), "two looks at once");
                        looks += 1;
                        running.push(token);
                    },
                }
                prop_assert!(queue.depth() <= 2 * TOKENS && queue.entries.len() <= TOKENS);
                prop_assert!(queue.timers.len() <= TOKENS && queue.in_line() <= TOKENS);
            }
            let mut rest = 0;
            loop {
                running.drain(..).for_each(|token| queue.done(&token, None));
                while let Some(Turn { token, .. }) = queue.next(now, true, store(TOKENS)) {
                    running.push(token);
                    rest += 1;
                }
                if running.is_empty() { break; }
                prop_assert!(rest <= 5 * TOKENS, "it does not come to rest");
            }
            prop_assert!(looks + rest <= reasons, "{looks} and {rest} looks for {reasons} reasons");
            prop_assert_eq!((queue.depth(), queue.in_line()), (0, 0));
        }
    }
}
