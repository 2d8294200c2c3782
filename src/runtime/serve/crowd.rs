//! Connections that have not sent a request yet.
//!
//! They cost nothing to open, so that whoever wants to can take every place there is and keep it for the time a head may take. So
//! they hold theirs only until somebody else needs it: the oldest goes first. A proxy sends its request as it connects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All of one listener. Its size is that of the listener's places.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

impl Crowd {
    /// One more.
    pub fn enter(self: &Arc<Self>) -> Newcomer {
        let mut inner = self.0.lock();
        let (number, out) = (inner.next, CancellationToken::new());
        inner.next += 1;
        inner.waiting.insert(number, out.clone());
        Newcomer { crowd: self.clone(), number, out, settled: AtomicBool::new(false) }
    }

    /// Has the oldest go, if there is one.
    pub fn push_out(&self) -> bool {
        let oldest = self.0.lock().waiting.pop_first();
        oldest.is_some_and(|(_, out)| {
            out.cancel();
            true
        })
    }
}

/// One that came, until it is dropped.
#[derive(Debug)]
pub struct Newcomer {
    crowd: Arc<Crowd>,
    number: u64,
    out: CancellationToken,
    settled: AtomicBool,
}

impl Newcomer {
    /// It has sent a request: nobody pushes it out any more.
    pub fn settle(&self) {
        // Once for each request, so without the lock where that was done before.
        if !self.settled.load(Ordering::Relaxed) && !self.settled.swap(true, Ordering::Relaxed) {
            self.crowd.0.lock().waiting.remove(&self.number);
        }
    }

    /// Ready when it has to go.
    pub async fn pushed_out(&self) {
        self.out.cancelled().await;
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn the_oldest_that_has_sent_nothing_goes_first() {
        let crowd = Arc::new(Crowd::default());
        let [first, second, third] = [(); 3].map(|()| crowd.enter());
        let gone = |newcomer: &Newcomer| newcomer.pushed_out().now_or_never().is_some();
        first.settle();
        assert!(crowd.push_out());
        assert_eq!([gone(&first), gone(&second), gone(&third)], [false, true, false]);
        drop(third);
        assert!(!crowd.push_out(), "nobody is left who could go");
        drop((first, second));
        assert!(crowd.0.lock().waiting.is_empty());
    }
}
