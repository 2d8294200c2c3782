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

#[test]
fn what_came_too_early_is_not_looked_at_at_once_and_pays_once() {
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(5));
    let mut queue = swept(1, now);
    queue.ask(called(0));
    let token = looked(&mut queue, now, store(1)).expect("it waits");
    queue.line_up(&token);
    queue.done(&token, None);
    let turn = queue.next(now, true, store(1)).expect("it is affordable");
    assert_eq!((turn.paid, turn.is_charged), (Some(Purse::News), true));
    // The watch lags behind what was written last.
    assert_eq!(queue.keep(&token, Purse::News), None);
    queue.done(&token, Some(later));
    assert_eq!(queue.next(now, true, store(1)), None, "a loop until the watch catches up");
    assert!(!queue.ask_reserved(called(0)), "one is enough");
    let turn = queue.next(now, true, store(1)).expect("the watch has caught up");
    assert_eq!((turn.paid, turn.is_charged), (Some(Purse::News), false));
    assert_eq!(queue.keep(&token, Purse::News), None);
    assert_eq!(queue.keep(&token, Purse::Uses), Some(Purse::Uses), "given back");
    queue.done(&token, Some(later));
    assert_eq!(queue.next(later, false, store(1)).expect("in any case").paid, Some(Purse::News));
    queue.done(&token, None);
    assert!(queue.entries.is_empty());
}

#[test]
fn few_payments_are_kept_while_the_watch_is_silent() {
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(5));
    let mut queue = swept(100, now);
    let mut kept = 0;
    for number in 0..100 {
        queue.ask(called(number));
        let token = looked(&mut queue, now, store(100)).expect("it waits");
        kept += usize::from(queue.keep(&token, Purse::News).is_none());
        queue.done(&token, Some(later));
    }
    assert_eq!((kept, queue.unused().count()), (MAX_KEPT, MAX_KEPT));
    while let Some(token) = looked(&mut queue, later, store(100)) {
        queue.done(&token, None);
    }
    assert_eq!((queue.kept, queue.unused().count()), (0, 0));
}

proptest! {
    /// Whatever happens: nobody waits twice, nobody is forgotten, and there are no more looks than reasons for one.
    #[test]
    fn looks_are_bounded_by_what_happens(acts in proptest::collection::vec((0_u8..9, 0_usize..12), 1..300)) {
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
                7 => if let Some(token) = running.first() {
                    let back = queue.keep(token, Purse::News);
                    prop_assert!(back.is_some() || queue.unused().count() > 0);
                },
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
