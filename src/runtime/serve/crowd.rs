//! The connections of a listener, and which of them goes when there is no place left.
//!
//! A connection costs nothing to open, so that whoever wants to can take every place there is and keep it for the time a head may
//! take, or, with one request, for the time a connection may idle. So they hold theirs only until somebody else needs it: first
//! the oldest that has sent nothing for a second, then the one that has idled longest, then who has just come. A proxy sends its
//! request as it connects, and connects again where an idle connection was closed. Who has sent a request leaves in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Who came, or was answered, less long ago stays as long as another can go: a proxy may be about to send the next one. So often
/// the idle are looked for, too.
pub const IDLE: Duration = Duration::from_secs(1);
/// So many idle ones are found in one search, which looks at all.
const FOUND: usize = 1_024;

/// All of one listener. Its size is that of the listener's places.
#[derive(Debug)]
pub struct Crowd {
    epoch: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    waiting: BTreeMap<u64, Arc<Guest>>,
    settled: HashMap<u64, Arc<Guest>>,
    /// Found idle: since when, in milliseconds, and who; the longest last.
    idle: Vec<(u64, u64)>,
    searched: Option<Instant>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { epoch: Instant::now(), inner: Mutex::default() }
    }
}

impl Crowd {
    /// One more.
    pub fn enter(self: &Arc<Self>) -> Newcomer {
        let guest = Arc::new(Guest { since: self.now().into(), ..Guest::default() });
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        inner.waiting.insert(number, guest.clone());
        Newcomer { crowd: self.clone(), number, guest, settled: AtomicBool::new(false) }
    }

    /// Has the one go that is missed least, if anybody can.
    pub fn push_out(&self) -> bool {
        let now = self.now();
        let mut inner = self.inner.lock();
        let oldest = inner.waiting.first_key_value();
        let guest = match oldest.is_some_and(|(_, oldest)| is_long(oldest.since.load(Ordering::Relaxed), now))
        {
            true => None,
            false => inner.longest_idle(now),
        };
        let guest = guest.or_else(|| inner.waiting.pop_first().map(|(_, guest)| guest));
        guest.is_some_and(|guest| {
            guest.out.cancel();
            true
        })
    }

    /// Milliseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether it is [`IDLE`] from `since` to `now`, both in milliseconds.
fn is_long(since: u64, now: u64) -> bool {
    u128::from(now.saturating_sub(since)) >= IDLE.as_millis()
}

impl Inner {
    fn longest_idle(&mut self, now: u64) -> Option<Arc<Guest>> {
        if self.idle.is_empty() && self.searched.is_none_or(|at| at.elapsed() >= IDLE) {
            self.searched = Some(Instant::now());
            let since = |(number, guest): (&u64, &Arc<Guest>)| guest.idle().map(|since| (since, *number));
            let mut idle: Vec<_> =
                self.settled.iter().filter_map(since).filter(|(since, _)| is_long(*since, now)).collect();
            idle.sort_unstable();
            idle.truncate(FOUND);
            idle.reverse();
            self.idle = idle;
        }
        while let Some((since, number)) = self.idle.pop() {
            if self.settled.get(&number).is_some_and(|guest| guest.idle() == Some(since)) {
                return self.settled.remove(&number);
            }
        }
        None
    }
}

/// One connection, as far as the crowd is concerned.
#[derive(Debug, Default)]
struct Guest {
    out: CancellationToken,
    requests: AtomicU32,
    /// When it came, or its last request was answered, in milliseconds.
    since: AtomicU64,
}

impl Guest {
    fn idle(&self) -> Option<u64> {
        (self.requests.load(Ordering::Acquire) == 0).then(|| self.since.load(Ordering::Relaxed))
    }
}

/// One that came, until it is dropped.
#[derive(Debug)]
pub struct Newcomer {
    crowd: Arc<Crowd>,
    number: u64,
    guest: Arc<Guest>,
    settled: AtomicBool,
}

impl Newcomer {
    /// It has sent a request, which is under way until the answer is dropped.
    pub fn request(self: &Arc<Self>) -> Busy {
        self.guest.requests.fetch_add(1, Ordering::Relaxed);
        // Once for each request, so without the lock where that was done before.
        if !self.settled.load(Ordering::Relaxed) && !self.settled.swap(true, Ordering::Relaxed) {
            let mut inner = self.crowd.inner.lock();
            if let Some(guest) = inner.waiting.remove(&self.number) {
                inner.settled.insert(self.number, guest);
            }
        }
        Busy(self.clone())
    }

    /// Whether it has sent a request.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Ready when it has to go.
    pub async fn pushed_out(&self) {
        self.guest.out.cancelled().await;
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut inner = self.crowd.inner.lock();
        inner.waiting.remove(&self.number);
        inner.settled.remove(&self.number);
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Busy(Arc<Newcomer>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.guest.since.store(self.0.crowd.now(), Ordering::Relaxed);
        self.0.guest.requests.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use tokio::time::advance;

    fn gone(newcomer: &Newcomer) -> bool {
        newcomer.pushed_out().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_that_has_sent_nothing_goes_first() {
        let crowd = Arc::new(Crowd::default());
        let [first, second, third] = [(); 3].map(|()| Arc::new(crowd.enter()));
        advance(IDLE).await;
        drop(first.request());
        assert!(crowd.push_out());
        assert_eq!([gone(&first), gone(&second), gone(&third)], [false, true, false]);
        drop(third);
        assert!(!crowd.push_out(), "the only one left has just sent a request");
        drop((first, second));
        let inner = crowd.inner.lock();
        assert!(inner.waiting.is_empty() && inner.settled.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_come_does_not_go_while_others_idle() {
        let crowd = Arc::new(Crowd::default());
        let idle: Vec<_> = (0..10).map(|_| Arc::new(crowd.enter())).collect();
        idle.iter().for_each(|one| drop(one.request()));
        advance(IDLE).await;
        let burst: Vec<_> = (0..10).map(|_| (crowd.push_out(), crowd.enter()).1).collect();
        assert!(idle.iter().all(|one| gone(one)) && !burst.iter().any(gone));
    }

    #[tokio::test(start_paused = true)]
    async fn then_the_one_that_has_idled_longest_goes_and_nobody_with_a_request_under_way() {
        let crowd = Arc::new(Crowd::default());
        let [first, second, third] = [(); 3].map(|()| Arc::new(crowd.enter()));
        let under_way = first.request();
        for settled in [&third, &second] {
            drop(settled.request());
            advance(IDLE).await;
        }
        assert!(crowd.push_out());
        assert_eq!([gone(&first), gone(&second), gone(&third)], [false, false, true]);
        // It has been found idle, and is so no more.
        drop(second.request());
        assert!(!crowd.push_out());
        advance(IDLE).await;
        assert!(crowd.push_out() && gone(&second));
        assert!(!crowd.push_out() && !gone(&first));
        let fourth = crowd.enter();
        assert!(crowd.push_out() && gone(&fourth), "who has just come, if nobody else can go");
        drop(under_way);
        advance(IDLE).await;
        assert!(crowd.push_out() && gone(&first));
    }
}
