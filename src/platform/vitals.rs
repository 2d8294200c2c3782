//! What a process shows of itself to a thread that watches it: that its work comes round, that it gets on, and what keeps
//! a worker busy.
//!
//! Time here is the machine's: a simulation in virtual time shows the same, and nobody looks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

/// How often work that is alive says so.
const BEAT: Duration = Duration::from_secs(1);

/// The signs of life of one process.
#[derive(Debug)]
pub struct Vitals {
    epoch: Instant,
    /// How often the work came round.
    beats: AtomicU64,
    /// How often something got on.
    steps: AtomicU64,
    /// Pieces of work by number. As many as run at once.
    pieces: Mutex<BTreeMap<u64, Arc<Piece>>>,
    numbers: AtomicU64,
    stalled: OnceLock<String>,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            beats: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            pieces: Mutex::default(),
            numbers: AtomicU64::new(0),
            stalled: OnceLock::new(),
        }
    }
}

/// One piece of work, as the watch sees it.
#[derive(Debug)]
struct Piece {
    /// What it is about.
    namespace: String,
    name: String,
    /// Nanoseconds after the epoch since when it has kept a worker; 0 while it keeps none.
    since: AtomicU64,
    told: AtomicBool,
}

/// A piece of work that has kept a worker for too long.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// For how long.
    pub by: Duration,
}

impl Vitals {
    /// Runs `work`, and beats for as long as whoever runs it comes round: not while `work`, or anything else of the same
    /// task, keeps its worker, nor while no worker is left.
    pub async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // First: work without end must not hide that it comes round.
                biased;
                _ = beats.tick() => drop(self.beats.fetch_add(1, Ordering::Relaxed)),
                done = &mut work => return done,
            }
        }
    }

    /// Something got on: it began, was woken by what it waited for, or ended.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Watches a piece of work that is about one object.
    pub fn watched<F: Future>(self: &Arc<Self>, namespace: &str, name: &str, work: F) -> Watched<F> {
        let piece = Arc::new(Piece {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            since: AtomicU64::new(0),
            told: AtomicBool::new(false),
        });
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.pieces.lock().insert(number, piece.clone());
        Watched { vitals: self.clone(), number, piece, work: Box::pin(work) }
    }

    /// Beats and steps so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.beats.load(Ordering::Relaxed), self.steps.load(Ordering::Relaxed))
    }

    /// What has kept a worker for `limit`, each once.
    pub fn held(&self, limit: Duration) -> Vec<Held> {
        let now = self.now();
        let pieces = self.pieces.lock();
        let by = |piece: &Piece| match piece.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_nanos(now.saturating_sub(since)),
        };
        pieces
            .values()
            .filter(|piece| by(piece) >= limit && !piece.told.swap(true, Ordering::Relaxed))
            .map(|piece| Held { namespace: piece.namespace.clone(), name: piece.name.clone(), by: by(piece) })
            .collect()
    }

    /// The process hangs: said once, and for good.
    pub fn stall(&self, why: String) {
        let _ = self.stalled.set(why);
    }

    /// Why the process hangs, if it does.
    pub fn stalled(&self) -> Option<&str> {
        self.stalled.get().map(String::as_str)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

/// Work that is watched for as long as it lives.
pub struct Watched<F> {
    vitals: Arc<Vitals>,
    number: u64,
    piece: Arc<Piece>,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.vitals.step();
        self.piece.since.store(self.vitals.now(), Ordering::Relaxed);
        let polled = self.work.as_mut().poll(context);
        self.piece.since.store(0, Ordering::Relaxed);
        self.vitals.step();
        polled
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.vitals.pieces.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_comes_round_beats_and_work_that_keeps_its_worker_does_not() {
        let vitals = Vitals::default();
        vitals.beating(tokio::time::sleep(Duration::from_secs(10))).await;
        let (beats, steps) = vitals.counts();
        assert!((10..=11).contains(&beats) && steps == 0, "{beats} {steps}");
        // Ready at once whenever it is asked, for a long time.
        let mut turns = 0;
        let busy = std::future::poll_fn(|context| {
            turns += 1;
            context.waker().wake_by_ref();
            if turns < 100 { Poll::Pending } else { Poll::Ready(()) }
        });
        vitals.beating(busy).await;
        assert_eq!(vitals.counts().0, beats + 1);
    }

    #[test]
    fn what_keeps_a_worker_is_named_once_and_what_waits_is_not() {
        let vitals = Arc::new(Vitals::default());
        let looks = vitals.clone();
        let keeps = vitals.watched(
            "shop",
            "orders",
            std::future::poll_fn(move |_| {
                std::thread::sleep(Duration::from_millis(5));
                let held = looks.held(Duration::from_millis(1));
                assert_eq!((held.len(), &*held[0].namespace, &*held[0].name), (1, "shop", "orders"));
                assert_eq!(looks.held(Duration::from_millis(1)), []);
                assert_eq!(looks.held(Duration::from_secs(60)), []);
                Poll::Ready(())
            }),
        );
        let waits = vitals.watched("shop", "waits", std::future::pending::<()>());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Box::pin(waits).as_mut().poll(&mut context).is_pending());
        assert!(Box::pin(keeps).as_mut().poll(&mut context).is_ready());
        assert_eq!((vitals.counts(), vitals.pieces.lock().len()), ((0, 4), 0));
    }
}
