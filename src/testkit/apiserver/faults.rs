//! What can go wrong between a client and the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::oneshot;

use super::request::RequestInfo;

/// What becomes of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing special.
    #[default]
    None,
    /// Refused with this code; not applied.
    Status {
        /// The HTTP code.
        code: u16,
        /// Seconds for `Retry-After`.
        retry_after: Option<u64>,
    },
    /// The connection breaks before the request is applied.
    FailBefore,
    /// The request is applied; the connection breaks before the answer arrives.
    FailAfter,
    /// Applied after this long, unless the client has given up by then.
    Delay(Duration),
    /// Applied after this long, whether the client still waits or not: what a slow network does.
    Late(Duration),
    /// Applied at once, answered after this long.
    DelayAfter(Duration),
    /// Never applied, never answered.
    Hang,
    /// Applied, never answered.
    HangAfter,
    /// A watch that breaks after this long; other requests are not touched.
    DropWatch(Duration),
}

/// Decides the fate of requests.
pub trait Faults: Send + Sync + 'static {
    /// Called once for each request that reaches the server, in order of arrival.
    fn decide(&self, request: &RequestInfo) -> Fault;
}

impl<F: Fn(&RequestInfo) -> Fault + Send + Sync + 'static> Faults for F {
    fn decide(&self, request: &RequestInfo) -> Fault {
        self(request)
    }
}

/// The state of the network between one client and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Everything passes.
    #[default]
    Up,
    /// Nothing passes and nothing is refused: requests wait, watches show nothing. What was under way arrives when
    /// the link is up again, as TCP would have it, unless the client has given up.
    Silent,
    /// Connections are refused.
    Refused,
}

/// On which side of a write a client dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The write is not applied.
    Before,
    /// The write is applied; its answer is never seen.
    After,
}

/// A client that is to die at one of its next writes.
pub(super) struct Crash {
    pub(super) left: u64,
    pub(super) when: When,
    pub(super) tell: Option<oneshot::Sender<RequestInfo>>,
}

/// Everything between clients and server.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) faults: Option<Arc<dyn Faults>>,
    pub(super) links: HashMap<Arc<str>, Link>,
    pub(super) down: bool,
    pub(super) crashes: HashMap<Arc<str>, Crash>,
    /// Watches that wait for their link. Requests wait on the server's `Notify`.
    pub(super) wakers: Vec<Waker>,
    pub(super) epoch: u64,
    pub(super) epochs: HashMap<Arc<str>, u64>,
}

impl Wire {
    pub(super) fn link(&self, client: &str) -> Link {
        match self.links.get(client).copied().unwrap_or_default() {
            Link::Up if self.down => Link::Refused,
            link => link,
        }
    }

    /// Counts a write of `client`; says whether it dies here.
    pub(super) fn crash(&mut self, info: &RequestInfo) -> Option<Crash> {
        if info.write == 0 {
            return None;
        }
        let crash = self.crashes.get_mut(&info.client)?;
        crash.left = crash.left.saturating_sub(1);
        if crash.left > 0 { None } else { self.crashes.remove(&info.client) }
    }
}
