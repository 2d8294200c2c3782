//! The watch on ApiTokens that fills the index, of all namespaces or of some.
//!
//! A state machine of its own ([`state`]) over plain requests: it needs the bookmarks, because they tell how old the feed
//! is, and it needs objects that do not parse, because they have to be denied. The generic watcher hides both.
//!
//! The API server may be away for as long as it likes: the index stays, and so do the answers.

mod lines;
mod object;
pub mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use http::header::{ACCEPT_ENCODING, HeaderValue};
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher;
use kube::{Client, Resource as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use self::lines::{Line, Lines};
use self::object::{Object, Page};
use self::state::{Command, Event, Failure, Feed, PAGE, SILENCE};
use super::Gate;
use super::index::{Applied, Writer};
use super::metrics::GateMetrics;
use super::record::Record;
use crate::api::ApiToken;
use crate::domain::ports::Clock;
use crate::platform::readiness::Readiness;
use crate::platform::watching::{Retry, explain};

/// The name under which the feed is waited for.
pub const SYNCED: &str = "apitokens";

/// What feeds work with.
#[derive(Clone)]
pub struct Setup {
    /// Whose index is filled.
    pub gate: Arc<Gate>,
    /// The way to the API server.
    pub client: Client,
    /// Wall clock: when the API server was last heard.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: GateMetrics,
}

/// Follows the ApiTokens of `namespaces`, of all if it is empty, for ever. After the first full list of each, opens the gate and
/// strikes [`SYNCED`] off.
pub async fn run(setup: Setup, namespaces: &[String], readiness: &watch::Sender<Readiness>) {
    let scopes: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let pulses: Vec<Pulse> = scopes.iter().map(|_| Pulse::default()).collect();
    let watches = scopes.iter().enumerate().map(|(own, namespace)| {
        let follower = Follower {
            setup: &setup,
            readiness,
            pulses: &pulses,
            own,
            path: ApiToken::url_path(&(), *namespace),
            writer: Writer::new(setup.gate.index(), *namespace),
            retry: Retry::default(),
            open: None,
            hand: Hand::Nothing,
        };
        follower.run()
    });
    futures::future::join_all(watches).await;
}

/// What one watch tells the others.
struct Pulse {
    synced: AtomicBool,
    /// Unix seconds; `i64::MIN` before the first time.
    heard: AtomicI64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { synced: AtomicBool::new(false), heard: AtomicI64::new(i64::MIN) }
    }
}

/// What the event at hand is about.
enum Hand {
    Nothing,
    One(Box<Object>),
    Many(Vec<Object>),
}

struct Follower<'a> {
    setup: &'a Setup,
    readiness: &'a watch::Sender<Readiness>,
    pulses: &'a [Pulse],
    own: usize,
    path: String,
    writer: Writer,
    retry: Retry,
    open: Option<Lines>,
    hand: Hand,
}

impl Follower<'_> {
    async fn run(mut self) {
        let mut feed = Feed::default();
        let mut event = Event::Due;
        loop {
            let (next, commands) = feed.step(event);
            feed = next;
            event = Event::Due;
            for command in commands {
                if let Some(happened) = self.carry_out(command).await {
                    event = happened;
                }
            }
        }
    }

    /// Carries out one command; those that wait return what they waited for.
    async fn carry_out(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Begin => self.writer.begin_list(),
            Command::Item => self.put(Writer::list_item),
            Command::Apply => self.put(Writer::apply),
            Command::Delete => {
                if let Hand::One(object) = std::mem::replace(&mut self.hand, Hand::Nothing) {
                    self.writer.delete(object.metadata());
                }
                self.took();
            }
            Command::End => {
                let gone = self.writer.end_list();
                debug!(gone, "everything is listed");
                self.synced();
            }
            Command::Reached(version) => {
                if let Ok(version) = version.parse() {
                    self.setup.metrics.feed_version.set(version);
                }
            }
            Command::Restart => {
                self.setup.metrics.process.watch_restarts.inc([SYNCED]);
                info!(resource = SYNCED, "watch starts over with a list");
            }
            Command::Next => return Some(self.next().await),
            Command::Watch(version) => return Some(self.watch(Some(&version)).await),
            Command::Stream => return Some(self.watch(None).await),
            Command::List(next) => return Some(self.page(next.as_deref()).await),
            Command::Pause => {
                self.open = None;
                if let Some(pause) = self.retry.next() {
                    sleep(pause).await;
                }
                return Some(Event::Due);
            }
        }
        None
    }

    fn put(&mut self, put: impl Fn(&mut Writer, Record) -> Applied) {
        let mut put = |object: &Object| {
            let record = object.record();
            let unreadable = record.is_tombstone();
            if put(&mut self.writer, record) == Applied::Changed && unreadable {
                let ObjectMeta { namespace, name, uid, .. } = object.metadata();
                warn!(namespace, name, uid, "an ApiToken cannot be understood: its credentials are refused");
            }
        };
        match std::mem::replace(&mut self.hand, Hand::Nothing) {
            Hand::Nothing => {}
            Hand::One(object) => put(&object),
            Hand::Many(objects) => objects.iter().for_each(put),
        }
        self.took();
    }

    /// What came last is in.
    fn took(&self) {
        if let Some(lines) = &self.open {
            self.setup.metrics.feed_lag.observe(lines.received().elapsed().as_secs_f64());
        }
    }

    /// Something came: the API server is there.
    fn heard(&mut self) {
        self.retry.reset();
        let Some(pulse) = self.pulses.get(self.own) else { return };
        pulse.heard.store(self.setup.clock.now().as_second(), Ordering::Relaxed);
        let heard = self.pulses.iter().map(|pulse| pulse.heard.load(Ordering::Relaxed)).min();
        let heard = heard.filter(|heard| *heard != i64::MIN);
        if let Some(heard) = heard.and_then(|heard| k8s_openapi::jiff::Timestamp::from_second(heard).ok()) {
            self.setup.gate.heard(heard);
        }
    }

    fn synced(&self) {
        let Some(pulse) = self.pulses.get(self.own) else { return };
        if pulse.synced.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.pulses.iter().all(|pulse| pulse.synced.load(Ordering::Relaxed)) {
            self.setup.gate.open();
            Readiness::synced(self.readiness, SYNCED);
            let stats = self.setup.gate.index().stats();
            info!(tokens = stats.tokens, unreadable = stats.unreadable, "the index is complete");
        }
    }

    /// Opens a watch from `version`, or one that begins with everything there is.
    async fn watch(&mut self, version: Option<&str>) -> Event {
        self.open = None;
        let params = match version {
            Some(_) => WatchParams { bookmarks: true, ..WatchParams::default() },
            None => WatchParams::streaming_lists(),
        };
        // Without a version, a streaming list is as new as the request: an older one could bring back what was revoked.
        let request = match Request::new(&self.path).watch(&params, version.unwrap_or_default()) {
            Ok(request) => request,
            Err(error) => return self.fail(&invalid(error)),
        };
        let mut request = request.map(Body::from);
        // Compressed, an event would wait for the next one to fill its block.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let answer = match timeout(SILENCE, self.setup.client.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return self.fail(&watcher::Error::WatchStartFailed(error)),
            Err(_) => return self.silent(),
        };
        let code = answer.status();
        if code.is_success() {
            self.open = Some(Lines::new(answer.into_body()));
            return self.next().await;
        }
        let text = timeout(SILENCE, answer.into_body().collect()).await;
        let bytes = text.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        let status = serde_json::from_slice::<Status>(&bytes).unwrap_or_else(|_| {
            Status::failure(&String::from_utf8_lossy(&bytes), "Unknown").with_code(code.as_u16())
        });
        if version.is_none() && failure(&status) == Failure::Refused {
            info!(message = status.message, "the API server has no streaming lists: listing by pages");
            return Event::Failed(Failure::Refused);
        }
        self.fail(&watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed())))
    }

    /// Waits for the next line of the open watch.
    async fn next(&mut self) -> Event {
        loop {
            // A long list is one stretch of work: others on this thread get their turn.
            tokio::task::consume_budget().await;
            let Some(lines) = &mut self.open else { return Event::Ended };
            let line = match timeout(SILENCE, lines.next()).await {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) => return Event::Ended,
                Ok(Err(error)) => return self.fail(&watcher::Error::WatchFailed(error)),
                Err(_) => return self.silent(),
            };
            if !matches!(line, Line::Error(_)) {
                self.heard();
            }
            match line {
                Line::Object(change, object) => {
                    let version = object.version().to_owned();
                    self.hand = Hand::One(object);
                    return Event::Changed(change, version);
                }
                Line::Bookmark { version, end } => return Event::Bookmark { version, end },
                Line::Error(status) => return self.fail(&watcher::Error::WatchError(status)),
                Line::Unnamed(change) => {
                    // What has no uid cannot be denied. The API server never sends such a thing.
                    error!(?change, "an object without a uid was not taken in");
                    self.setup.metrics.process.watch_errors.inc([SYNCED]);
                }
            }
        }
    }

    /// Asks for a page of the list.
    async fn page(&mut self, next: Option<&str>) -> Event {
        self.open = None;
        let mut params = ListParams::default().limit(PAGE);
        if let Some(next) = next {
            params = params.continue_token(next);
        }
        let request = match Request::new(&self.path).list(&params) {
            Ok(request) => request,
            Err(error) => return self.fail(&invalid(error)),
        };
        let text = match timeout(SILENCE, self.setup.client.request_text(request)).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return self.fail(&watcher::Error::InitialListFailed(error)),
            Err(_) => return self.silent(),
        };
        match Page::parse(&text) {
            Ok(Page { version, next, objects }) => {
                self.heard();
                self.hand = Hand::Many(objects);
                Event::Page { version, next }
            }
            Err(error) => self.fail(&watcher::Error::InitialListFailed(kube::Error::SerdeError(error))),
        }
    }

    fn fail(&self, error: &watcher::Error) -> Event {
        self.setup.metrics.process.watch_errors.inc([SYNCED]);
        explain(SYNCED, error);
        Event::Failed(match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => failure(status),
            _ => Failure::Other,
        })
    }

    fn silent(&self) -> Event {
        self.setup.metrics.process.watch_errors.inc([SYNCED]);
        info!(resource = SYNCED, seconds = SILENCE.as_secs(), "nothing was heard for too long; asking anew");
        Event::Silent
    }
}

fn invalid(error: kube::core::request::Error) -> watcher::Error {
    watcher::Error::WatchStartFailed(kube::Error::BuildRequest(error))
}

/// What an answer means for the feed.
fn failure(status: &Status) -> Failure {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        410 => Failure::Expired,
        // The server's history is shorter than ours: it was restored from a backup.
        _ if causes.into_iter().any(|cause| cause.reason == "ResourceVersionTooLarge") => Failure::Expired,
        400 | 422 => Failure::Refused,
        _ => Failure::Other,
    }
}
