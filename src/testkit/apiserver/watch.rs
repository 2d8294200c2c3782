//! Watches: a response body that follows the history of one table.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use super::read::{asked_version, prefix};
use super::request::Call;
use super::selector::Selector;
use super::server::Inner;
use super::status::{ApiError, Cause};
use super::store::{Event, State, render};
use super::write::Target;

/// The annotation of the bookmark that ends a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One open watch.
pub(super) struct WatchBody {
    inner: Arc<Inner>,
    client: Arc<str>,
    id: u64,
    table: usize,
    prefix: String,
    selector: Selector,
    metadata_only: bool,
    /// Everything up to here has been sent or does not concern this watch.
    cursor: u64,
    backlog: VecDeque<Bytes>,
    bookmark_every: Option<Duration>,
    bookmarks: bool,
    next_bookmark: Option<Instant>,
    deadline: Instant,
    /// A fault: the connection breaks here.
    breaks: Option<Instant>,
    /// The client's count of dropped watches when this one began.
    epoch: u64,
    sleep: Pin<Box<Sleep>>,
    ended: bool,
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + kind.len() + 24);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

impl WatchBody {
    /// Opens a watch. Errors that the real server reports inside the stream are reported there.
    pub(super) fn open(
        inner: &Arc<Inner>,
        state: &mut State,
        target: &Target<'_>,
        epoch: u64,
        breaks: Option<Instant>,
    ) -> Result<Self, ApiError> {
        let (call, params) = (target.call, &target.call.params);
        let mut fields = params.field_selector.clone();
        // A watch of one object is a watch of the collection, narrowed to its name.
        if let Some(name) = &call.info.name {
            fields = Some(format!("metadata.name={name}"));
        }
        let selector = Selector::parse(params.label_selector.as_deref(), fields.as_deref())?;
        if params.initial_events && params.version_match.as_deref() != Some("NotOlderThan") {
            let cause = Cause::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
            return Err(ApiError::invalid_options("ListOptions", &cause));
        }
        let now = Instant::now();
        let timeout = params.timeout.map_or(state.config.watch_timeout, Duration::from_secs);
        let timeout = timeout.max(state.config.watch_timeout_floor.unwrap_or_default());
        let bookmark_every = state.config.bookmark_every.filter(|_| params.bookmarks);
        let mut watch = Self {
            inner: inner.clone(),
            client: call.info.client.clone(),
            id: call.info.id,
            table: target.table,
            prefix: prefix(call),
            selector,
            metadata_only: call.metadata_only,
            cursor: state.rv,
            backlog: VecDeque::new(),
            bookmark_every,
            bookmarks: params.bookmarks,
            next_bookmark: bookmark_every.map(|every| now + every),
            deadline: now + timeout,
            breaks,
            epoch,
            sleep: Box::pin(tokio::time::sleep_until(now + timeout)),
            ended: false,
        };
        watch.start(state, call)?;
        Ok(watch)
    }

    fn start(&mut self, state: &State, call: &Call) -> Result<(), ApiError> {
        let asked = asked_version(call)?.unwrap_or(0);
        let table = &state.tables[self.table];
        if call.params.initial_events || asked == 0 {
            for (_, stored) in table.range(&self.prefix) {
                if self.selector.matches(&stored.value) {
                    self.backlog.push_back(line("ADDED", &render(&stored.value, self.metadata_only)));
                }
            }
            if call.params.initial_events && self.bookmarks {
                self.backlog.push_back(self.bookmark(state, true));
            }
        } else if asked < table.floor {
            self.fail(&ApiError::expired_watch(asked, table.floor));
        } else {
            self.cursor = asked;
        }
        Ok(())
    }

    fn fail(&mut self, error: &ApiError) {
        self.backlog.push_back(line("ERROR", error.to_value().to_string().as_bytes()));
        self.ended = true;
    }

    fn bookmark(&self, state: &State, initial_end: bool) -> Bytes {
        let res = &state.tables[self.table].res;
        let mut metadata =
            json!({"resourceVersion": state.rv.max(self.cursor).to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let (kind, version) = if self.metadata_only {
            ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (res.kind.clone(), res.api_version())
        };
        let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        line("BOOKMARK", object.to_string().as_bytes())
    }

    /// What this watch makes of a change: an object that leaves the selection is deleted, one that enters is added.
    fn tell(&self, event: &Event) -> Option<Bytes> {
        if !event.key.starts_with(&self.prefix) {
            return None;
        }
        let selected =
            |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|o| self.selector.matches(o));
        let (kind, gone) = match (selected(&event.before), selected(&event.after)) {
            (false, false) => return None,
            (false, true) => ("ADDED", false),
            (true, true) => ("MODIFIED", false),
            (true, false) => ("DELETED", true),
        };
        Some(line(kind, &event.text(gone, self.metadata_only)))
    }

    /// The next line from history, if any.
    fn next(&mut self, state: &State) -> Option<Bytes> {
        let table = &state.tables[self.table];
        if self.cursor < table.lost {
            self.ended = true;
            let error = ApiError::expired_watch(self.cursor, table.lost);
            return Some(line("ERROR", error.to_value().to_string().as_bytes()));
        }
        let from = table.history.partition_point(|event| event.rv <= self.cursor);
        for event in table.history.range(from..) {
            self.cursor = event.rv;
            if let Some(text) = self.tell(event) {
                return Some(text);
            }
        }
        self.cursor = self.cursor.max(state.rv);
        None
    }

    fn wake_at(&self) -> Instant {
        [Some(self.deadline), self.next_bookmark, self.breaks]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.deadline)
    }

    pub(super) fn poll_line(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tower::BoxError>>> {
        let inner = self.inner.clone();
        // A silent link shows nothing, not even that the watch is over.
        if !inner.link_is_up(&self.client, cx) {
            return Poll::Pending;
        }
        if let Some(text) = self.backlog.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let now = Instant::now();
        if inner.epoch(&self.client) != self.epoch || self.breaks.is_some_and(|at| at <= now) {
            self.ended = true;
            let reset = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the watch was dropped");
            return Poll::Ready(Some(Err(reset.into())));
        }
        let mut state = inner.state();
        if let Some(text) = self.next(&state) {
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        if now >= self.deadline {
            self.ended = true;
            if self.bookmarks {
                return Poll::Ready(Some(Ok(Frame::data(self.bookmark(&state, false)))));
            }
            return Poll::Ready(None);
        }
        if let Some(at) = self.next_bookmark
            && now >= at
        {
            self.next_bookmark = self.bookmark_every.map(|every| now + every);
            return Poll::Ready(Some(Ok(Frame::data(self.bookmark(&state, false)))));
        }
        state.tables[self.table].wakers.insert(self.id, cx.waker().clone());
        drop(state);
        let at = self.wake_at();
        if self.sleep.deadline() != at {
            self.sleep.as_mut().reset(at);
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.inner.state().tables[self.table].wakers.remove(&self.id);
    }
}
