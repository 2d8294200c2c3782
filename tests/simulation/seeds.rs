//! Many seeds, each a story of its own.
//!
//! - `TOKENWARD_SEEDS=5000` tells so many of each kind.
//! - `TOKENWARD_SEED=month:17` tells one of them, aloud: up to ten times, until it fails. A seed decides everything but
//!   one thing: in which order reconciles that wake in the same instant are polled, kube's controller leaves to chance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokenward::testkit::world::story::{Kind, Outcome, tell};

/// Stories of each kind in an ordinary test run. A month takes seconds; `make soak` tells thousands.
fn ordinary(kind: Kind) -> u64 {
    match kind {
        Kind::Month => 60,
        Kind::Duel => 200,
    }
}

/// How often a seed is told again in search of its failure.
const REPLAYS: u32 = 10;
/// Lines of a story that a failure shows.
const LINES: usize = 60;

fn run(kind: Kind, seed: u64) -> Outcome {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(tell(kind, seed))
}

fn show(outcome: &Outcome, lines: usize) -> String {
    let skipped = outcome.story.len().saturating_sub(lines);
    outcome.story[skipped..].join("\n")
}

/// The one seed that was asked for, as `kind:number`.
fn asked() -> Option<(Kind, u64)> {
    let text = std::env::var("TOKENWARD_SEED").ok()?;
    let (kind, seed) = text.split_once(':').expect("TOKENWARD_SEED=kind:number, such as month:17");
    let kind = Kind::ALL.into_iter().find(|k| k.name() == kind).expect("the kinds are month and duel");
    Some((kind, seed.parse().expect("the part of TOKENWARD_SEED behind the colon is a number")))
}

fn tell_all(kind: Kind) {
    if let Some((only, seed)) = asked() {
        if only == kind {
            for attempt in 1..=REPLAYS {
                let outcome = run(kind, seed);
                if attempt == REPLAYS || outcome.result.is_err() {
                    println!("{}\nattempt {attempt}: {:?}", show(&outcome, usize::MAX), outcome.result);
                }
                outcome.result.unwrap();
            }
        }
        return;
    }
    let seeds = std::env::var("TOKENWARD_SEEDS")
        .map_or(ordinary(kind), |text| text.parse().expect("a number of seeds"));
    let (next, writes) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    let failures = std::thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds || failures.len() > 2 {
                    return failures;
                }
                let outcome = run(kind, seed);
                writes.fetch_add(outcome.writes, Ordering::Relaxed);
                if let Err(what) = &outcome.result {
                    let story = show(&outcome, LINES);
                    failures.push(format!("{story}\nTOKENWARD_SEED={}:{seed}: {what}", kind.name()));
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<String>>()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    println!("{seeds} stories ({}), {} writes, {:.1?}", kind.name(), writes.into_inner(), started.elapsed());
}

#[test]
fn months_hold_the_invariants() {
    tell_all(Kind::Month);
}

#[test]
fn duels_of_two_replicas_hold_the_invariants() {
    tell_all(Kind::Duel);
}
