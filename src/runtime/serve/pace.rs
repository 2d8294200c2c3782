//! The deadlines of one connection.
//!
//! A head has to be complete soon after its first byte, an unused connection may stay longer, and while a request is being
//! answered there is no deadline here (requests have their own). Bytes never move a deadline: who trickles gains nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Limits;
use super::frames::Frames;
use crate::platform::target::Targets;

/// What a connection's stream and its requests tell its watch. All in one task for HTTP/1.1; requests of HTTP/2 run in
/// tasks of their own, and their connection is woken by the answer.
#[derive(Debug, Default)]
pub struct Pace {
    /// Requests that began.
    begun: AtomicU64,
    /// Requests that ended, however.
    ended: AtomicU64,
    /// Bytes came after the last request began: a part of the next head, in HTTP/1.1.
    partial: AtomicBool,
    /// Bytes need not be a request: HTTP/2 has frames for other purposes.
    http2: AtomicBool,
    /// It was cut off because there were too many of those.
    flooded: AtomicBool,
}

impl Pace {
    /// Whether the connection was cut off because of its frames.
    pub fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// A request begins; it ends when the guard is dropped.
    pub fn begin(self: &Arc<Self>, version: Version) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.partial.store(false, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        Busy(self.clone())
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        // What came meanwhile was its body.
        self.0.partial.store(false, Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// How a connection ended.
pub enum End<E> {
    /// By itself.
    Closed(E),
    /// By a deadline.
    Expired(Expired),
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// That of a request's head.
    Slow,
    /// That of an unused connection.
    Idle,
}

/// Watches the deadlines of one connection. To be polled after it.
pub struct Watch {
    pace: Arc<Pace>,
    limits: Limits,
    sleep: Pin<Box<Sleep>>,
    /// When the present state began.
    since: Instant,
    ended: u64,
    arriving: bool,
}

impl Watch {
    /// Begins now.
    pub fn new(pace: Arc<Pace>, limits: Limits) -> Self {
        let since = Instant::now();
        let sleep = Box::pin(tokio::time::sleep_until(since + limits.head));
        Self { pace, limits, sleep, since, ended: 0, arriving: true }
    }

    /// The present deadline, if there is one.
    fn due(&mut self) -> Option<(Instant, Expired)> {
        let ended = self.pace.ended.load(Ordering::Acquire);
        if ended != self.pace.begun.load(Ordering::Relaxed) {
            return None;
        }
        if ended != self.ended {
            (self.since, self.ended, self.arriving) = (Instant::now(), ended, false);
        }
        let partial = self.pace.partial.load(Ordering::Relaxed) && !self.pace.http2.load(Ordering::Relaxed);
        if partial && !self.arriving {
            (self.since, self.arriving) = (Instant::now(), true);
        }
        Some(match self.arriving {
            true => (self.since + self.limits.head, Expired::Slow),
            false => (self.since + self.limits.idle, Expired::Idle),
        })
    }

    /// Ready when a deadline has passed.
    pub fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Expired> {
        let due = self.due();
        if let Some((at, _)) = due
            && at < self.sleep.deadline()
        {
            self.sleep.as_mut().reset(at);
        }
        // Deadlines mostly move away, with each request: the timer is set anew when it rings, not each time.
        while self.sleep.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let next = match due {
                Some((at, expired)) if at <= now => return Poll::Ready(expired),
                Some((at, _)) => at,
                None => now + self.limits.idle,
            };
            self.sleep.as_mut().reset(next);
        }
        Poll::Pending
    }
}

/// A stream that tells when bytes arrive, and lets no target be cut off.
pub struct Paced<T> {
    stream: T,
    pace: Arc<Pace>,
    targets: Option<Targets>,
    frames: Frames,
}

impl<T> Paced<T> {
    /// Around a stream; of HTTP/1.1 if its targets are to be followed.
    pub fn new(stream: T, pace: Arc<Pace>, targets: Option<Targets>) -> Self {
        Self { stream, pace, targets, frames: Frames::default() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            if let Some(targets) = &mut self.targets {
                targets.mend(&mut buffer.filled_mut()[before..]);
            }
            self.pace.partial.store(true, Ordering::Relaxed);
            if !self.frames.take(&buffer.filled()[before..]) {
                self.pace.flooded.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::Error::other("too many frames that are no requests")));
            }
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}
